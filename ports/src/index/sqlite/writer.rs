//! The one thread that writes: calls that wait together share a transaction and its fsync; a call
//! is answered after the commit. Nothing waits for company: an idle writer commits at once.

use super::failure::index_error;
use super::schema::{buckets, drop_bucket, make_bucket, open_writer};
use super::write::{Mode, remove, write};
use crate::index::{Bucket, Collection, Document, IndexError, Outcome, Removal};
use rusqlite::Connection;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot};

/// Calls that may wait; more than that wait to wait.
const QUEUE: usize = 1024;
/// A transaction takes no further call above so many bytes.
const TRANSACTION_BYTES: usize = 32 << 20;
/// Above so many bytes the log beside the file is emptied even if readers must be waited for.
const LOG_BYTES: u64 = 512 << 20;

/// A call of create or put.
pub(super) struct Write {
    pub(super) mode: Mode,
    pub(super) collection: Collection,
    pub(super) org: String,
    pub(super) documents: Vec<Document>,
}

/// A call of remove.
pub(super) struct Remove {
    pub(super) collection: Collection,
    pub(super) org: String,
    pub(super) removals: Vec<Removal>,
}

enum Call {
    Write(Write, oneshot::Sender<Result<Vec<Outcome>, IndexError>>),
    Remove(Remove, oneshot::Sender<Result<(), IndexError>>),
    Drop(Collection, Bucket, oneshot::Sender<Result<(), IndexError>>),
}

/// The handle to the thread. Dropping it finishes the calls that wait, closes the file and joins
/// the thread.
pub(super) struct Writer {
    calls: Option<mpsc::Sender<Call>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    /// Opens the file and starts the thread.
    pub(super) fn start(path: &Path) -> Result<Self, IndexError> {
        let connection = open_writer(path)?;
        let known = known_buckets(&connection).map_err(index_error)?;
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        let work = Work {
            connection,
            known,
            log: PathBuf::from(log),
        };
        let (calls, queue) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("index-writer".into())
            .spawn(move || work.run(queue))
            .map_err(|error| {
                IndexError::Unavailable(format!("cannot start the writer's thread: {error}"))
            })?;
        Ok(Self {
            calls: Some(calls),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Writes and waits for the commit.
    pub(super) async fn write(&self, call: Write) -> Result<Vec<Outcome>, IndexError> {
        let (answer, answered) = oneshot::channel();
        self.send(Call::Write(call, answer)).await?;
        answered.await.map_err(|_| ended())?
    }

    /// Removes and waits for the commit.
    pub(super) async fn remove(&self, call: Remove) -> Result<(), IndexError> {
        let (answer, answered) = oneshot::channel();
        self.send(Call::Remove(call, answer)).await?;
        answered.await.map_err(|_| ended())?
    }

    /// Drops a bucket and waits for the commit.
    pub(super) async fn drop_bucket(
        &self,
        collection: Collection,
        bucket: Bucket,
    ) -> Result<(), IndexError> {
        let (answer, answered) = oneshot::channel();
        self.send(Call::Drop(collection, bucket, answer)).await?;
        answered.await.map_err(|_| ended())?
    }

    async fn send(&self, call: Call) -> Result<(), IndexError> {
        let calls = self.calls.as_ref().ok_or_else(ended)?;
        calls.send(call).await.map_err(|_| ended())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.calls = None;
        let thread = self
            .thread
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the index's writer panicked");
        }
    }
}

fn ended() -> IndexError {
    IndexError::Unavailable("the index's writer has ended: restart the process".into())
}

fn known_buckets(connection: &Connection) -> rusqlite::Result<HashSet<(Collection, Bucket)>> {
    let mut known = HashSet::new();
    for collection in Collection::ALL.into_iter().filter(|c| c.weekly()) {
        known.extend(
            buckets(connection, collection)?
                .into_iter()
                .map(|bucket| (collection, bucket)),
        );
    }
    Ok(known)
}

struct Work {
    connection: Connection,
    known: HashSet<(Collection, Bucket)>,
    log: PathBuf,
}

type Waiting = (Write, oneshot::Sender<Result<Vec<Outcome>, IndexError>>);

impl Work {
    fn run(mut self, mut queue: mpsc::Receiver<Call>) {
        let mut next = queue.blocking_recv();
        while let Some(call) = next.take() {
            match call {
                Call::Write(write, answer) => {
                    let mut size = bytes(&write);
                    let mut group = vec![(write, answer)];
                    while size < TRANSACTION_BYTES && next.is_none() {
                        match queue.try_recv() {
                            Ok(Call::Write(write, answer)) => {
                                size += bytes(&write);
                                group.push((write, answer));
                            }
                            Ok(other) => next = Some(other),
                            Err(_) => break,
                        }
                    }
                    self.write_group(group);
                }
                Call::Remove(call, answer) => {
                    let removed = self.removed(&call);
                    let _ = answer.send(removed.map_err(index_error));
                }
                Call::Drop(collection, bucket, answer) => {
                    let dropped = drop_bucket(&mut self.connection, collection, bucket);
                    if dropped.is_ok() {
                        self.known.remove(&(collection, bucket));
                    }
                    let _ = answer.send(dropped.map_err(index_error));
                }
            }
            self.bound_log();
            if next.is_none() {
                next = queue.blocking_recv();
            }
        }
    }

    /// Writes calls in one transaction. When that fails and there are several, each is tried
    /// alone, so that none fails for another's sake.
    fn write_group(&mut self, mut group: Vec<Waiting>) {
        // Who waits no longer (its caller was dropped) is not worth the work.
        group.retain(|(_, answer)| !answer.is_closed());
        if group.is_empty() {
            return;
        }
        let calls: Vec<&Write> = group.iter().map(|(write, _)| write).collect();
        match self.transaction(&calls) {
            Ok(outcomes) => {
                for ((_, answer), outcomes) in group.into_iter().zip(outcomes) {
                    let _ = answer.send(Ok(outcomes));
                }
            }
            Err(error) if group.len() == 1 => {
                tracing::warn!(%error, "index write failed");
                for (_, answer) in group {
                    let _ = answer.send(Err(error.clone()));
                }
            }
            Err(_) => {
                for waiting in group {
                    self.write_group(vec![waiting]);
                }
            }
        }
    }

    fn transaction(&mut self, calls: &[&Write]) -> Result<Vec<Vec<Outcome>>, IndexError> {
        let mut made = Vec::new();
        let done = (|| {
            let transaction = self.connection.transaction()?;
            let mut outcomes = Vec::with_capacity(calls.len());
            for call in calls {
                outcomes.push(apply(&transaction, &mut self.known, &mut made, call)?);
            }
            transaction.commit()?;
            Ok(outcomes)
        })();
        if done.is_err() {
            // The tables made in it are gone with the transaction.
            for bucket in &made {
                self.known.remove(bucket);
            }
        }
        done.map_err(index_error)
    }

    fn removed(&mut self, call: &Remove) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        for removal in &call.removals {
            let is_there = removal
                .bucket
                .is_none_or(|bucket| self.known.contains(&(call.collection, bucket)));
            if is_there && removal.bucket.is_some() == call.collection.weekly() {
                remove(&transaction, call.collection, &call.org, removal)?;
            }
        }
        transaction.commit()
    }

    /// Readers that always overlap would keep the log beside the file from starting over.
    fn bound_log(&self) {
        if std::fs::metadata(&self.log).is_ok_and(|log| log.len() > LOG_BYTES)
            && let Err(error) =
                self.connection
                    .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        {
            tracing::warn!(%error, "cannot empty the index's write-ahead log");
        }
    }
}

fn apply(
    connection: &Connection,
    known: &mut HashSet<(Collection, Bucket)>,
    made: &mut Vec<(Collection, Bucket)>,
    call: &Write,
) -> rusqlite::Result<Vec<Outcome>> {
    call.documents
        .iter()
        .map(|document| {
            if let Some(reason) = document.poison(call.collection) {
                return Ok(Outcome::Poison(reason));
            }
            if let Some(bucket) = document.bucket
                && known.insert((call.collection, bucket))
            {
                made.push((call.collection, bucket));
                make_bucket(connection, call.collection, bucket)?;
            }
            write(connection, call.mode, call.collection, &call.org, document)
        })
        .collect()
}

fn bytes(call: &Write) -> usize {
    call.documents
        .iter()
        .map(|document| document.body.len() + document.text.len() + 256)
        .sum()
}
