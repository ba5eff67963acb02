//! The log: topics of partitions of records.
//!
//! ```text
//!  partition   | 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 |
//!                ^ earliest  ^ mark (of a group) ^ end
//! ```
//!
//! What an implementation promises, and all that a user may rely on:
//!
//! - A record whose append was acknowledged is durable: it survives `kill -9` at any instruction.
//! - Records of one partition are read in the order in which they stand; nothing is promised
//!   across partitions or topics. Offsets grow, gaps are allowed.
//! - Appends to one partition through one handle stand in the order of the calls, whatever the
//!   order in which their futures are polled; when one fails a later one may still succeed.
//! - An append that failed may have happened.
//! - A record may be read more than once by a group (after a restart, a crash, a move of the
//!   partition), never less than once.
//! - Topics are kept by age or compacted. A compacted topic keeps at least the newest record of
//!   each key, and may keep older ones. Retention by age never passes the mark of a group that
//!   was ever declared on the topic, where the implementation can know it (the embedded log).

pub mod faulty;
pub mod kafka;
mod local;
pub mod memory;
pub mod segments;
#[cfg(any(test, feature = "suite"))]
pub mod suite;

pub use faulty::{AppendFault, Faults, FaultyLog};
pub use memory::MemoryLog;
pub use segments::{SegmentsConfig, SegmentsLog};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use std::time::Duration;

/// How long a log that does not answer is left alone.
const RETRY: Duration = Duration::from_millis(200);

/// A place in a partition. The generation grows when a topic is made anew (a restore, another
/// number of partitions); offsets only compare within one generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Generation of the topic.
    pub generation: u16,
    /// Offset in the partition, from 0.
    pub offset: u64,
}

impl Position {
    /// The place behind the record that stands here.
    #[must_use]
    pub fn after(self) -> Self {
        Self {
            offset: self.offset + 1,
            ..self
        }
    }
}

/// A record as it is read. Key and value may share memory with records around them: whoever keeps
/// some of many for long should copy them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Partition.
    pub partition: u32,
    /// Where it stands.
    pub position: Position,
    /// Key, empty when there is none.
    pub key: Bytes,
    /// Value.
    pub value: Bytes,
}

/// Where a tail begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// The oldest record that is kept.
    Earliest,
    /// This record, or the first after it. Refused with [`LogError::OutOfRange`] when records
    /// from there on were already deleted.
    Position(Position),
    /// The first record appended at or after this time, microseconds since 1970.
    Time(i64),
    /// Only what is appended after the call returned.
    Now,
}

/// What a tail yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TailEvent {
    /// The next record of one of the partitions.
    Record(Record),
    /// Every record that stood in this partition when the tail was opened has been yielded (also
    /// when there was none). Once per partition.
    CaughtUp {
        /// Partition.
        partition: u32,
        /// The first offset that was not there at the time.
        to: Position,
    },
}

/// What a member of a group is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupEvent {
    /// The member now owns this partition and will be given its records from `mark` on.
    Assigned {
        /// Partition.
        partition: u32,
        /// Names this assignment; marks of another are refused.
        epoch: u64,
        /// The first record that the group has not marked.
        mark: Position,
    },
    /// The next record of a partition that the member owns.
    Record(Record),
    /// The partition has gone to another member, or the group is rebalanced: forget its work,
    /// no later mark of it is taken.
    Revoked {
        /// Partition.
        partition: u32,
    },
}

/// How far a group is behind in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lag {
    /// Partition.
    pub partition: u32,
    /// The first record that the group has not marked.
    pub mark: Position,
    /// The position that the next appended record will have.
    pub end: Position,
    /// Age of the oldest unmarked record, none when there is none.
    pub oldest_unmarked: Option<Duration>,
}

/// How long records are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    /// At least this long, and until every group has marked them where that can be known.
    Age(Duration),
    /// The newest of each key for ever. Records need a key.
    Compacted,
}

/// A topic to declare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Name: `[a-z0-9-]+`.
    pub name: String,
    /// Number of partitions, fixed for the life of the topic.
    pub partitions: u32,
    /// Retention.
    pub retention: Retention,
    /// Groups that read the topic: each starts at the beginning and is known from now on, so
    /// that nothing is deleted before it was read.
    pub groups: Vec<String>,
}

/// What can go wrong. Every variant but [`Refused`](Self::Refused), [`TooLarge`](Self::TooLarge),
/// [`OutOfRange`](Self::OutOfRange) and [`StaleEpoch`](Self::StaleEpoch) passes by itself: try again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The log cannot be reached or does not answer.
    #[error("log unavailable: {0}")]
    Unavailable(String),
    /// The log answers, and says no: a wrong configuration, missing rights, an unknown topic.
    #[error("log refused: {0}")]
    Refused(String),
    /// No room: the disk or the queue of unacknowledged records is full.
    #[error("log full: {0}")]
    Full(String),
    /// The record is larger than the log takes.
    #[error("record of {size} bytes is larger than the log's limit of {limit}")]
    TooLarge {
        /// Size of key and value, bytes.
        size: usize,
        /// The limit, bytes.
        limit: usize,
    },
    /// The position was deleted by retention.
    #[error("position is no longer in the log: the earliest is {}/{}", earliest.generation, earliest.offset)]
    OutOfRange {
        /// The oldest that is kept.
        earliest: Position,
    },
    /// The partition has been given to another member since.
    #[error("stale assignment: the partition belongs to another member now")]
    StaleEpoch,
}

/// The future of an append: resolves when the record is durable.
pub type Append = BoxFuture<'static, Result<Position, LogError>>;

/// The log. See the [module](self) for what it promises.
#[async_trait]
pub trait Log: Send + Sync {
    /// Makes the topics that are missing. Safe to repeat. A topic that exists with another number
    /// of partitions is refused. An existing topic keeps its data; its retention is updated and
    /// new groups are added (they start at the earliest record that is kept).
    async fn declare(&self, topics: &[TopicSpec]) -> Result<(), LogError>;

    /// Takes the record's place in its partition at once; the future resolves when it is durable.
    /// Dropping the future does not take the record back.
    fn append(&self, topic: &str, partition: u32, key: Bytes, value: Bytes) -> Append;

    /// The position that the next appended record of the partition will have: every record
    /// acknowledged before this call stands before it.
    async fn end(&self, topic: &str, partition: u32) -> Result<Position, LogError>;

    /// Reads partitions without a group. Each call is independent; nothing is remembered.
    async fn tail(
        &self,
        topic: &str,
        partitions: &[u32],
        from: From,
    ) -> Result<Box<dyn Tail>, LogError>;

    /// Joins a group that was declared on the topic: each partition is read by one member.
    async fn group(&self, group: &str, topic: &str) -> Result<Box<dyn Group>, LogError>;

    /// How far a declared group is behind, for every partition.
    async fn lag(&self, group: &str, topic: &str) -> Result<Vec<Lag>, LogError>;

    /// Takes the marks of a declared group back to the oldest record that is kept: whoever joins it
    /// then is given everything again. Refused while the group has members.
    async fn rewind(&self, group: &str, topic: &str) -> Result<(), LogError>;

    /// The number of partitions of a declared topic.
    async fn partitions(&self, topic: &str) -> Result<u32, LogError>;
}

/// A reader of partitions.
#[async_trait]
pub trait Tail: Send {
    /// Waits for the next event. Cancel-safe. After [`LogError::OutOfRange`] (retention overtook a
    /// slow reader) the tail is of no more use; after other errors it goes on where it was.
    async fn next(&mut self) -> Result<TailEvent, LogError>;

    /// Waits for the next event, however long the log is away or full. Cancel-safe.
    async fn next_patiently(&mut self) -> Result<TailEvent, LogError> {
        loop {
            match self.next().await {
                Err(error @ (LogError::Unavailable(_) | LogError::Full(_))) => {
                    tracing::debug!(%error, "a tail waits");
                    tokio::time::sleep(RETRY).await;
                }
                other => return other,
            }
        }
    }
}

/// A member of a group. Dropping it leaves the group.
#[async_trait]
pub trait Group: Send {
    /// Waits for the next event. Cancel-safe. Must be called often enough (a few seconds), also
    /// while all partitions are paused, for the member to be thought alive.
    async fn next(&mut self) -> Result<GroupEvent, LogError>;

    /// Marks that everything of the partition before `next` is done. Durable soon, at the latest
    /// with [`Group::flush`]; a lost mark only repeats work.
    fn mark(&mut self, partition: u32, epoch: u64, next: Position) -> Result<(), LogError>;

    /// Makes the marks durable.
    async fn flush(&mut self) -> Result<(), LogError>;

    /// Stops (or goes on with) giving records of the partition.
    fn pause(&mut self, partition: u32, paused: bool);
}
