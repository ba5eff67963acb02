//! Objects: immutable bytes under keys.
//!
//! - A key is written once: [`Objects::put`] of a key that exists changes nothing and succeeds, so
//!   keys must be made of the content (or name something that is always the same).
//! - A put that succeeded is durable and is seen by every later call.
//! - Keys are ours: `[a-z0-9/_.-]+`, no `..`, at most 512 bytes, parts between slashes neither
//!   empty nor `.` nor over 200 bytes. Names that agents give are never part of a key.

pub mod directory;
pub mod faulty;
pub mod keys;
#[cfg(test)]
pub(crate) mod killed;
pub mod memory;
pub mod s3;
#[cfg(test)]
pub(crate) mod small_disk;
#[cfg(any(test, feature = "suite"))]
pub mod suite;

use async_trait::async_trait;
use bytes::Bytes;
use std::ops::Range;

/// What can go wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObjectsError {
    /// The store cannot be reached or does not answer: try again.
    #[error("objects unavailable: {0}")]
    Unavailable(String),
    /// The store says no: a wrong configuration, missing rights, a key that is not allowed.
    #[error("objects refused: {0}")]
    Refused(String),
    /// No room: try again when there is.
    #[error("objects full: {0}")]
    Full(String),
    /// There is no such object.
    #[error("no object {0}")]
    NotFound(String),
}

/// One object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectEntry {
    /// Key.
    pub key: String,
    /// Size in bytes.
    pub size: u64,
}

/// A store of objects. See the [module](self) for what it promises.
#[async_trait]
pub trait Objects: Send + Sync {
    /// Prepares the store (makes the bucket or the directory). Safe to repeat.
    async fn prepare(&self) -> Result<(), ObjectsError>;

    /// Writes an object unless it exists.
    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), ObjectsError>;

    /// Reads an object, whole or a range of it (clipped to its size; an empty answer beyond it).
    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes, ObjectsError>;

    /// Keys with this prefix in ascending order, those after `after`, at most `limit`. For
    /// maintenance and snapshots, never on an agent's way. `after` need not be a key that exists.
    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ObjectEntry>, ObjectsError>;

    /// Deletes an object; one that is not there is no error.
    async fn delete(&self, key: &str) -> Result<(), ObjectsError>;
}
