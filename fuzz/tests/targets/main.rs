//! The parsers that hostile bytes reach. `make fuzz` runs each of them for ten minutes.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod artifacts;
mod captured;
mod enrolment;
mod envelope;
mod messages;
mod queries;
mod sockets;
