//! What several records have in common.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// What every record says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Organisation id, empty for the root.
    pub org: String,
    /// `C.` and 16 hex digits; empty where no client is meant.
    pub client: String,
    /// The client's generation when the record was made.
    pub generation: i64,
    /// Server time, microseconds since 1970.
    pub at_us: i64,
    /// The process that wrote the record.
    pub frontend: String,
    /// Trace id, empty when not traced.
    pub trace: String,
}

/// Where a compiled request stands in the `requests` topic.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestRef {
    /// BLAKE3 of the request's body, 32 bytes.
    pub hash: Bytes,
    /// Generation of the topic.
    pub log_generation: i64,
    /// Partition of the topic.
    pub partition: i32,
    /// Offset in that partition.
    pub offset: i64,
}
