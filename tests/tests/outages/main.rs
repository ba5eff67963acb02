//! What goes on, what waits and what must never happen while a part is gone: agents work through
//! each outage, and everything that they were given and sent is looked at when it is over.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod broker;
mod cluster;
mod decisions;
mod enrolment;
mod keys;
mod lag;
mod load;
mod registry;
mod stores;
mod zombie;
