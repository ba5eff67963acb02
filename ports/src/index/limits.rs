//! What every index refuses by itself, so that all of them refuse the same.

use super::{Bucket, Collection, Document, IndexError};

/// The longest id, in bytes.
pub const MAX_ID: usize = 512;
/// The largest body, in bytes (messages are at most 9 MiB; this is far above).
pub const MAX_BODY: usize = 64 << 20;

impl Document {
    /// Why no index can store this document in that collection, if so: the text of an
    /// [`Outcome::Poison`](super::Outcome::Poison).
    pub fn poison(&self, collection: Collection) -> Option<String> {
        if self.id.is_empty() {
            return Some("id is empty".into());
        }
        if self.id.len() > MAX_ID {
            return Some(format!(
                "id has {} bytes, at most {MAX_ID} are allowed",
                self.id.len()
            ));
        }
        if self.body.len() > MAX_BODY {
            return Some(format!(
                "body has {} bytes, at most {MAX_BODY} are allowed",
                self.body.len()
            ));
        }
        if i64::try_from(self.version).is_err() || i64::try_from(self.size).is_err() {
            return Some("version or size is 2^63 or more".into());
        }
        match (collection.weekly(), self.bucket) {
            (true, None) => Some(format!("no bucket, but {} is weekly", collection.name())),
            (false, Some(_)) => Some(format!("a bucket, but {} is not weekly", collection.name())),
            _ => None,
        }
    }
}

/// Refuses a [`get`](super::Index::get) without a bucket in a weekly collection.
pub fn check_bucket(collection: Collection, bucket: Option<Bucket>) -> Result<(), IndexError> {
    if collection.weekly() && bucket.is_none() {
        return Err(IndexError::Refused(format!(
            "get in the weekly collection {} without a bucket",
            collection.name()
        )));
    }
    Ok(())
}
