//! Records that wait for their group commit.

use super::super::LogError;
use super::super::Position;
use super::super::local::lock;
use bytes::Bytes;
use futures::channel::oneshot;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};

/// Bytes in one group commit, unless one record has more.
const COMMIT_BYTES: usize = 8 << 20;
/// What a waiting record costs beside its bytes.
const OVERHEAD: usize = 128;

/// Bytes that wait, over all topics of a log, and how many may.
#[derive(Debug)]
pub(super) struct Budget {
    used: AtomicUsize,
    limit: usize,
}

impl Budget {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            used: AtomicUsize::new(0),
            limit,
        }
    }

    fn take(&self, bytes: usize) -> Result<(), LogError> {
        let before = self.used.fetch_add(bytes, Ordering::AcqRel);
        if before > 0 && before + bytes > self.limit {
            self.give_back(bytes);
            return Err(LogError::Full(format!(
                "{before} bytes wait to be written and the limit is {}",
                self.limit
            )));
        }
        Ok(())
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::AcqRel);
    }
}

/// A record that waits.
pub(super) struct Pending {
    pub(super) partition: u32,
    pub(super) key: Bytes,
    pub(super) value: Bytes,
    pub(super) done: oneshot::Sender<Result<Position, LogError>>,
}

impl Pending {
    fn bytes(&self) -> usize {
        self.key.len() + self.value.len() + OVERHEAD
    }
}

/// What the writer is to do next.
pub(super) enum Work {
    /// Commit these records.
    Commit(Vec<Pending>),
    /// Begin a new segment unless the one that is written on is empty.
    Roll(mpsc::SyncSender<Result<(), LogError>>),
}

/// The queue of one topic.
pub(super) struct Queue {
    state: Mutex<State>,
    more: Condvar,
    budget: Arc<Budget>,
}

#[derive(Default)]
struct State {
    pending: VecDeque<Pending>,
    rolls: Vec<mpsc::SyncSender<Result<(), LogError>>>,
    closed: bool,
}

impl Queue {
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        Self {
            state: Mutex::default(),
            more: Condvar::new(),
            budget,
        }
    }

    /// Puts a record in its place.
    pub(super) fn push(&self, pending: Pending) -> Result<(), LogError> {
        let bytes = pending.bytes();
        self.budget.take(bytes)?;
        let mut state = lock(&self.state);
        if state.closed {
            self.budget.give_back(bytes);
            return Err(closed());
        }
        state.pending.push_back(pending);
        let first = state.pending.len() == 1;
        drop(state);
        if first {
            self.more.notify_one();
        }
        Ok(())
    }

    /// Has the writer begin a new segment, and waits for it.
    pub(super) fn roll(&self) -> Result<(), LogError> {
        let (done, result) = mpsc::sync_channel(1);
        {
            let mut state = lock(&self.state);
            if state.closed {
                return Err(closed());
            }
            state.rolls.push(done);
        }
        self.more.notify_one();
        result.recv().map_err(|_| closed())?
    }

    /// Takes no more; what waits is still written.
    pub(super) fn close(&self) {
        lock(&self.state).closed = true;
        self.more.notify_one();
    }

    /// Waits for work. None when the queue is closed and empty.
    pub(super) fn take(&self) -> Option<Work> {
        let mut state = lock(&self.state);
        loop {
            if let Some(roll) = state.rolls.pop() {
                return Some(Work::Roll(roll));
            }
            if !state.pending.is_empty() {
                break;
            }
            if state.closed {
                return None;
            }
            state = self
                .more
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let (mut bytes, mut count) = (0, 0);
        for pending in &state.pending {
            bytes += pending.bytes();
            if count > 0 && bytes > COMMIT_BYTES {
                break;
            }
            count += 1;
        }
        Some(Work::Commit(state.pending.drain(..count).collect()))
    }

    /// Tells the budget that these are no longer waiting.
    pub(super) fn release(&self, batch: &[Pending]) {
        self.budget
            .give_back(batch.iter().map(Pending::bytes).sum());
    }
}

fn closed() -> LogError {
    LogError::Unavailable("the log was closed".into())
}
