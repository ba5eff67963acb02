//! The embedded index: one SQLite file.
//!
//! ```text
//!  create, put ──► queue ──► writer (a thread): one transaction and fsync for all that wait
//!  get, query, count ──────► readers (a few connections, each call one snapshot)
//! ```
//!
//! Every write is visible to every read that begins after it was answered. The file is used by
//! one process at a time; who opens it sees to that.
//!
//! On a full disk writes fail as full and reads go on. Writes succeed again, without a restart,
//! when there is room for the write-ahead log's pages in the file: about 32 MiB.

mod failure;
mod read;
mod readers;
mod schema;
#[cfg(test)]
mod tests;
mod write;
mod writer;

use super::limits::check_bucket;
use super::{Bucket, Collection, Document, Index, IndexError, Outcome, Page, Query, Removal};
use crate::objects::directory::make_folders;
use async_trait::async_trait;
use readers::Readers;
use std::path::Path;
use write::Mode;
use writer::{Remove, Write, Writer};

/// An index in an SQLite file. Dropping it finishes the writes that wait and closes the file.
pub struct SqliteIndex {
    readers: Readers,
    writer: Writer,
}

impl SqliteIndex {
    /// Opens the file; makes it and its folders when they are not there. Blocks for the time of a
    /// few disk writes.
    ///
    /// # Errors
    /// [`IndexError::Refused`] when the file is none of ours, was written by a newer release or
    /// may not be written; [`IndexError::Full`] or [`IndexError::Unavailable`] as said there.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, IndexError> {
        let path = path.as_ref();
        if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) {
            make_folders(folder).map_err(|error| {
                let text = format!("cannot make the folder {}: {error}", folder.display());
                match error.kind() {
                    std::io::ErrorKind::StorageFull => IndexError::Full(text),
                    _ => IndexError::Refused(text),
                }
            })?;
        }
        Ok(Self {
            writer: Writer::start(path)?,
            readers: Readers::new(path),
        })
    }

    /// The buckets of a weekly collection that hold (or held) a document, oldest first, the
    /// undated one last. None for other collections.
    pub async fn buckets(&self, collection: Collection) -> Result<Vec<Bucket>, IndexError> {
        self.readers
            .run(move |snapshot| schema::buckets(snapshot, collection))
            .await
    }

    /// Drops a bucket of a weekly collection, in every org; its room in the file is used again. A
    /// bucket that is not there is no error. Writes wait meanwhile.
    pub async fn drop_bucket(
        &self,
        collection: Collection,
        bucket: Bucket,
    ) -> Result<(), IndexError> {
        self.writer.drop_bucket(collection, bucket).await
    }

    async fn write(
        &self,
        mode: Mode,
        collection: Collection,
        org: &str,
        documents: Vec<Document>,
    ) -> Result<Vec<Outcome>, IndexError> {
        if documents.is_empty() {
            return Ok(Vec::new());
        }
        self.writer
            .write(Write {
                mode,
                collection,
                org: org.to_owned(),
                documents,
            })
            .await
    }
}

impl Drop for SqliteIndex {
    fn drop(&mut self) {
        // The writer closes last: the last connection to close tidies the file.
        self.readers.close();
    }
}

#[async_trait]
impl Index for SqliteIndex {
    async fn prepare(&self) -> Result<(), IndexError> {
        // Tables are made when the file is opened and with the first document of a bucket.
        Ok(())
    }

    async fn create(
        &self,
        collection: Collection,
        org: &str,
        documents: Vec<Document>,
    ) -> Result<Vec<Outcome>, IndexError> {
        self.write(Mode::Create, collection, org, documents).await
    }

    async fn put(
        &self,
        collection: Collection,
        org: &str,
        documents: Vec<Document>,
    ) -> Result<Vec<Outcome>, IndexError> {
        self.write(Mode::Put, collection, org, documents).await
    }

    async fn remove(
        &self,
        collection: Collection,
        org: &str,
        removals: Vec<Removal>,
    ) -> Result<(), IndexError> {
        if removals.is_empty() {
            return Ok(());
        }
        self.writer
            .remove(Remove {
                collection,
                org: org.to_owned(),
                removals,
            })
            .await
    }

    async fn get(
        &self,
        collection: Collection,
        org: &str,
        bucket: Option<Bucket>,
        id: &str,
    ) -> Result<Option<Document>, IndexError> {
        check_bucket(collection, bucket)?;
        let (org, id) = (org.to_owned(), id.to_owned());
        self.readers
            .run(move |snapshot| read::get(snapshot, collection, &org, bucket, &id))
            .await
    }

    async fn query(
        &self,
        collection: Collection,
        org: &str,
        query: &Query,
    ) -> Result<Page, IndexError> {
        let (org, query) = (org.to_owned(), query.clone());
        self.readers
            .run(move |snapshot| read::query(snapshot, collection, &org, &query))
            .await
    }

    async fn count(
        &self,
        collection: Collection,
        org: &str,
        query: &Query,
    ) -> Result<u64, IndexError> {
        let (org, query) = (org.to_owned(), query.clone());
        self.readers
            .run(move |snapshot| read::count(snapshot, collection, &org, &query))
            .await
    }

    async fn refresh(&self, _collection: Collection) -> Result<(), IndexError> {
        Ok(())
    }
}
