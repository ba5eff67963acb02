//! The index: documents by id, listed by a few fixed fields.
//!
//! - Collections are fixed at compile time; what agents send never makes a field.
//! - [`Index::create`] adds documents whose id comes from their content: one that exists is left
//!   as it is, which is no error. [`Index::put`] replaces a document unless a higher version is
//!   there, which is no error either. [`Index::remove`] removes a document unless a higher version
//!   is there.
//! - A write or removal that succeeded is durable, and [`Index::get`] sees it at once. [`Index::query`] sees
//!   it at the latest after [`Index::refresh`].
//! - Every call names an org; documents of other orgs are never touched or seen.
//! - An id is at most 512 bytes and not empty, a body at most 64 MiB, version and size are below
//!   2^63. In weekly collections an id is unique within its bucket, and a document without a
//!   bucket is poison (elsewhere, one with a bucket).

pub mod faulty;
pub mod limits;
pub mod matching;
pub mod memory;
pub mod opensearch;
pub mod sqlite;
#[cfg(any(test, feature = "suite"))]
pub mod suite;

use async_trait::async_trait;
use bytes::Bytes;

/// A kind of document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Collection {
    /// Rows of results, a message a document (weekly).
    Rows,
    /// Log lines of flows, a message a document (weekly).
    Logs,
    /// Buffers of uploads, a message a document (weekly).
    Buffers,
    /// Client events and their logs, a message a document (weekly).
    Events,
    /// Flows (versioned).
    Flows,
    /// Clients (versioned).
    Clients,
    /// Dead letters (versioned).
    DeadLetters,
}

impl Collection {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Rows,
        Self::Logs,
        Self::Buffers,
        Self::Events,
        Self::Flows,
        Self::Clients,
        Self::DeadLetters,
    ];

    /// The name, as part of a table's or an index's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Logs => "logs",
            Self::Buffers => "buffers",
            Self::Events => "events",
            Self::Flows => "flows",
            Self::Clients => "clients",
            Self::DeadLetters => "dead-letters",
        }
    }

    /// Whether documents have versions.
    pub fn versioned(self) -> bool {
        matches!(self, Self::Flows | Self::Clients)
    }

    /// Whether documents are kept in weekly buckets.
    pub fn weekly(self) -> bool {
        matches!(self, Self::Rows | Self::Logs | Self::Buffers | Self::Events)
    }
}

/// A bucket of a weekly collection: what is dropped and rebuilt as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Bucket {
    /// The week, counted from 1970-01-01 (seconds / 604,800).
    Week(u32),
    /// No believable time.
    Undated,
}

/// A document. Which fields mean what is the collection's own affair; all but the body can be
/// asked for in a [`Query`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Unique within collection and org.
    pub id: String,
    /// Where it is kept; `None` in collections that are not weekly.
    pub bucket: Option<Bucket>,
    /// Client id, empty when none.
    pub client: String,
    /// Flow id, empty when none.
    pub flow: String,
    /// Name of the result set, upload or artifact; empty when none. Any text.
    pub source: String,
    /// Position in its list.
    pub order: i64,
    /// Text to find documents by: lower case words separated by single spaces (U+0020; nothing
    /// else separates words).
    pub text: String,
    /// Hashes of values to find documents by (empty until value search is built).
    pub hashes: Vec<u64>,
    /// Version of a versioned document, 0 in other collections.
    pub version: u64,
    /// What the document counts for: rows of a message of rows, bytes of a buffer; listed without
    /// reading bodies.
    pub size: u64,
    /// The document itself; opaque.
    pub body: Bytes,
}

/// What became of one document of a bulk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is there now.
    Written,
    /// It (or a higher version of it) was there before.
    Exists,
    /// The document itself cannot be stored, and never will: its fault, not the index's.
    Poison(String),
}

/// A document that is to be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// Its id.
    pub id: String,
    /// Where it is kept; `None` in collections that are not weekly.
    pub bucket: Option<Bucket>,
    /// Of a versioned document the highest version that goes; not looked at in other collections.
    pub version: u64,
}

impl Removal {
    /// The removal of a document as it was listed.
    pub fn of(document: &Document) -> Self {
        Self {
            id: document.id.clone(),
            bucket: document.bucket,
            version: document.version,
        }
    }
}

/// Which documents to list. Empty conditions match all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Query {
    /// Only of this client.
    pub client: Option<String>,
    /// Only of this flow.
    pub flow: Option<String>,
    /// Only of this source.
    pub source: Option<String>,
    /// Only with `order` in this range (from, to), to excluded.
    pub order: Option<(i64, i64)>,
    /// Only with, for each of these lower case words, a word of `text` that begins with it.
    /// Compared as text stands: nothing is folded, cut or stemmed.
    pub words: Vec<String>,
    /// Only of this bucket (weekly collections; a flow's documents are all in one).
    pub bucket: Option<Bucket>,
    /// Newest (highest order) first.
    pub descending: bool,
    /// Leave bodies empty: for counting what is there.
    pub without_bodies: bool,
    /// At most so many documents; with 0 the page is empty and has no next one.
    pub limit: usize,
    /// Continue after this, the `next` of an earlier page.
    pub after: Option<Cursor>,
}

/// A place in a list: pages neither repeat nor miss a document that was there throughout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// Order of the last document.
    pub order: i64,
    /// Its id.
    pub id: String,
}

/// Part of a list, by (order, id).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The documents.
    pub documents: Vec<Document>,
    /// Where the next page begins; none when no document followed the last one.
    pub next: Option<Cursor>,
}

/// What can go wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// The index cannot be reached, is overloaded or does not answer: try again.
    #[error("index unavailable: {0}")]
    Unavailable(String),
    /// The index says no to everything: a wrong configuration, missing rights, a changed
    /// template. Halt until a person has acted.
    #[error("index refused: {0}")]
    Refused(String),
    /// No room: try again when there is.
    #[error("index full: {0}")]
    Full(String),
}

/// An index. See the [module](self) for what it promises.
#[async_trait]
pub trait Index: Send + Sync {
    /// Prepares the index (makes tables, templates). Safe to repeat.
    async fn prepare(&self) -> Result<(), IndexError>;

    /// Adds documents; outcomes in the order of the documents. When it fails as a whole any of
    /// them may have been written: repeat it.
    async fn create(
        &self,
        collection: Collection,
        org: &str,
        documents: Vec<Document>,
    ) -> Result<Vec<Outcome>, IndexError>;

    /// Adds or replaces documents by version: an equal one replaces, a lower one is answered with
    /// [`Outcome::Exists`]. Otherwise as [`Index::create`].
    async fn put(
        &self,
        collection: Collection,
        org: &str,
        documents: Vec<Document>,
    ) -> Result<Vec<Outcome>, IndexError>;

    /// Removes documents, each unless a higher version of it is there. One that is not there is no
    /// error. When it fails any of them may be gone: repeat it.
    async fn remove(
        &self,
        collection: Collection,
        org: &str,
        removals: Vec<Removal>,
    ) -> Result<(), IndexError>;

    /// One document by id; the bucket must be given in weekly collections (else
    /// [`IndexError::Refused`]).
    async fn get(
        &self,
        collection: Collection,
        org: &str,
        bucket: Option<Bucket>,
        id: &str,
    ) -> Result<Option<Document>, IndexError>;

    /// Lists documents by (order, id).
    async fn query(
        &self,
        collection: Collection,
        org: &str,
        query: &Query,
    ) -> Result<Page, IndexError>;

    /// How many documents a query matches in all (limit and cursor are not looked at). Exact.
    async fn count(
        &self,
        collection: Collection,
        org: &str,
        query: &Query,
    ) -> Result<u64, IndexError>;

    /// Makes every earlier write visible to [`Index::query`] and [`Index::count`].
    async fn refresh(&self, collection: Collection) -> Result<(), IndexError>;
}
