//! The model, pure: ids, artifacts and their compiler, statistics, the foreman's fold, the
//! frontend's delivery, the workers' ingest.
//!
//! No IO, no tokio, no clock, no randomness: everything here is a function of its inputs, so that
//! it can be simulated, replayed and taken over.

pub mod artifact;
pub mod delivery;
pub mod fold;
pub mod hidden;
pub mod ids;
pub mod ingest;
pub mod letters;
pub mod mac;
pub mod partition;
pub mod sealed;
pub mod stats;
pub mod tools;
pub mod url_check;
