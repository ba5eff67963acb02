//! The three things that Nublar needs of the world: a [`Log`], an [`Index`] and [`Objects`].
//!
//! Each is a small trait whose doc comments are the contract, with one suite of behaviour tests
//! ([`suite`]) that runs on every implementation. No other crate names a storage engine.

pub mod index;
pub mod log;
pub mod membership;
pub mod objects;
pub mod storage;

pub use index::Index;
pub use log::Log;
pub use membership::Membership;
pub use objects::Objects;
pub use storage::{Storage, StorageConfig};
