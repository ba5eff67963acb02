//! Uploads through the whole program: larger than memory, by the thousand, sparse, and with names that
//! mean harm.
//!
//! `NUBLAR_LONG=1` uploads 5 GB while the server is killed and the link is cut, else 96 MB. The log
//! and the objects hold all of it: twice as much must be free on the disk of the temporary folder.
//! `NUBLAR_SEED` chooses other moments for the disturbances.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod agent;
mod command;
mod figures;
mod large;
mod machine;
mod many;
mod names;
mod sparse;
