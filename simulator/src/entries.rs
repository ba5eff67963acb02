//! What a book says about one flow.

use crate::ledger::{What, hash};
use nublar_core::ids::ContentId;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How far a message has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Stage {
    /// In the agent's queue.
    #[default]
    Queued,
    /// Gone for good: cancelled, refused, or lost at a restart before it was ever sent.
    Dropped,
    /// Sent at least once; the agent knows of no answer.
    Sent,
    /// Answered with 200.
    Committed,
}

/// Rows, log rows or bytes that go together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Number of its first row, or the offset of its first byte.
    pub start: u64,
    /// Rows or bytes.
    pub count: u64,
    /// Over all its bytes.
    pub hash: ContentId,
    /// How far it has come.
    pub stage: Stage,
}

impl Piece {
    /// A piece that is new.
    pub fn new(start: u64, count: u64, bytes: &[u8]) -> Self {
        Self {
            start,
            count,
            hash: hash(bytes),
            stage: Stage::Queued,
        }
    }
}

/// A file that is uploaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// Its path.
    pub name: String,
    /// Its parts in their order.
    pub pieces: Vec<Piece>,
    /// How far its end has come.
    pub eof: Stage,
}

impl Upload {
    /// A file of which nothing is there yet.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            pieces: Vec::new(),
            eof: Stage::Queued,
        }
    }
}

/// What an agent reports at the end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Totals {
    /// Rows of all result sets.
    pub rows: u64,
    /// Log rows.
    pub logs: u64,
    /// Files.
    pub files: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// The error, empty for none.
    pub error: String,
}

/// One run of a flow.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Run {
    /// The pieces of each result set, in their order.
    pub sources: BTreeMap<String, Vec<Piece>>,
    /// The pieces of the log.
    pub logs: Vec<Piece>,
    /// Files by their number.
    pub uploads: BTreeMap<i64, Upload>,
    /// What was reported at the end, once it has ended.
    pub reported: Option<Totals>,
    /// How far the report of the end has come.
    pub marker: Stage,
    sent: bool,
    lived: bool,
}

impl Run {
    /// Whether any message of it was sent, whether or not it arrived.
    pub fn was_sent(&self) -> bool {
        self.sent
    }

    /// Whether any message of it was answered with 200.
    pub fn has_lived(&self) -> bool {
        self.lived
    }

    pub(crate) fn advance(&mut self, what: &What, stage: Stage) {
        self.sent |= stage >= Stage::Sent;
        self.lived |= stage == Stage::Committed;
        let place = match what {
            What::Rows(source, index) => self
                .sources
                .get_mut(&**source)
                .and_then(|s| s.get_mut(*index))
                .map(|p| &mut p.stage),
            What::Logs(index) => self.logs.get_mut(*index).map(|piece| &mut piece.stage),
            What::Buffer(upload, index) => self
                .uploads
                .get_mut(upload)
                .and_then(|u| u.pieces.get_mut(*index))
                .map(|p| &mut p.stage),
            What::Eof(upload) => self.uploads.get_mut(upload).map(|upload| &mut upload.eof),
            What::Marker => Some(&mut self.marker),
            What::Other => None,
        };
        // What was sent may have arrived, whatever became of it afterwards.
        if let Some(place) = place {
            *place = stage.max(*place);
        }
    }
}

/// A request that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// When.
    pub at: Instant,
    /// How often the agent had been started by then.
    pub start: u64,
    /// When the poll that brought it was sent.
    pub polled: Instant,
}

/// What a book says about one flow.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FlowEntry {
    /// When it was asked for, and when that was answered, if it was this program that asked.
    pub ordered: Option<(Instant, Instant)>,
    /// Every time that it came.
    pub deliveries: Vec<Delivery>,
    /// One run for each delivery.
    pub runs: Vec<Run>,
    /// How often a cancel of it came.
    pub cancels: u32,
    /// Whether it was this program that asked for its cancel.
    pub cancel_ordered: bool,
}

impl FlowEntry {
    /// Whether the report of its end was answered with 200.
    pub fn has_ended(&self) -> bool {
        self.runs.iter().any(|run| run.marker == Stage::Committed)
    }

    /// From the answer to whoever asked for it until the agent had it; `held` only if the agent's
    /// poll was waiting when it was asked for.
    pub fn latency(&self, held: bool) -> Option<Duration> {
        let (begun, done) = self.ordered?;
        let first = self.deliveries.first()?;
        (!held || first.polled <= begun).then(|| first.at.saturating_duration_since(done))
    }
}
