//! Which generations of clients have ended: a tail of `registry` from its beginning, and the means
//! to know that one has read it up to now.

use crate::persist::persist;
use nublar_core::ids::{ClientKey, Life};
use nublar_ports::Log;
use nublar_ports::log::{From, LogError, Position, Record, TailEvent};
use nublar_schemas::codec::CodecError;
use nublar_schemas::records::Registry;
use nublar_schemas::topics::REGISTRY;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// When the tail has not passed a position after so long it is opened anew: records that it
/// would have to pass may have been compacted away.
const STUCK: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_millis(200);

/// How far the tail has come in one partition.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    passed: Option<Position>,
    halted: bool,
}

/// What is known of clients' generations. See the [module](self).
pub(crate) struct Lives {
    log: Arc<dyn Log>,
    /// The generations of clients that were deleted once; all others have their first.
    now: RwLock<HashMap<ClientKey, i64>>,
    progress: watch::Sender<Vec<Progress>>,
    reopen: Notify,
}

impl Lives {
    pub(crate) fn new(log: Arc<dyn Log>) -> Self {
        Self {
            log,
            now: RwLock::default(),
            progress: watch::Sender::default(),
            reopen: Notify::new(),
        }
    }

    /// Whether it is known here that this generation of the client has ended.
    pub(crate) fn has_ended(&self, life: &Life) -> bool {
        let now = self.now.read().unwrap_or_else(PoisonError::into_inner);
        now.get(&life.client)
            .is_some_and(|generation| *generation > life.generation)
    }

    /// A record is stamped with this generation: who wrote it had read in the registry that the
    /// older ones have ended.
    pub(crate) fn learn(&self, life: &Life) {
        if life.generation <= 1 {
            return;
        }
        let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
        let known = now.entry(life.client.clone()).or_insert(1);
        *known = life.generation.max(*known);
    }

    /// Returns when everything was read that stood in the partition when this was called, however
    /// long that takes; false when that needs a newer program.
    pub(crate) async fn current(&self, partition: u32) -> bool {
        let end = persist("log", || self.log.end(REGISTRY.name, partition)).await;
        let mut progress = self.progress.subscribe();
        loop {
            let look = progress.wait_for(|all| {
                let of = all.get(partition as usize);
                of.is_some_and(|of| of.halted || of.passed.is_some_and(|passed| passed >= end))
            });
            // The sender is ours: it is not closed.
            if let Ok(Ok(all)) = timeout(STUCK, look).await {
                return all.get(partition as usize).is_some_and(|of| !of.halted);
            }
            self.reopen.notify_one();
        }
    }

    /// Reads the topic until the shutdown.
    pub(crate) async fn run(&self, shutdown: CancellationToken) {
        let work = async {
            let partitions = persist("log", || self.log.partitions(REGISTRY.name)).await;
            self.progress
                .send_replace(vec![Progress::default(); partitions as usize]);
            loop {
                if let Err(error) = self.read_from_the_beginning(partitions).await {
                    tracing::warn!(%error, "the registry can not be read, trying again");
                    sleep(RETRY).await;
                }
            }
        };
        tokio::select! {
            () = work => {}
            () = shutdown.cancelled() => {}
        }
    }

    /// Returns when the topic is to be read anew. What is known already stays known.
    async fn read_from_the_beginning(&self, partitions: u32) -> Result<(), LogError> {
        let partitions: Vec<u32> = (0..partitions).collect();
        let mut tail = self
            .log
            .tail(REGISTRY.name, &partitions, From::Earliest)
            .await?;
        loop {
            tokio::select! {
                event = tail.next_patiently() => self.take(event?),
                () = self.reopen.notified() => return Ok(()),
            }
        }
    }

    fn take(&self, event: TailEvent) {
        let (partition, passed, halted) = match event {
            TailEvent::CaughtUp { partition, to } => (partition, to, false),
            TailEvent::Record(record) => {
                let next = record.position.after();
                (record.partition, next, self.apply(&record).is_err())
            }
        };
        self.progress.send_modify(|all| {
            if let Some(of) = all.get_mut(partition as usize) {
                of.halted |= halted;
                of.passed = of.passed.max(Some(passed));
            }
        });
    }

    /// An error for a record that only a newer version can read.
    fn apply(&self, record: &Record) -> Result<(), CodecError> {
        match Registry::decode(&record.value) {
            Ok(decoded) => {
                if let Ok(life) = Life::of(decoded.header()) {
                    self.learn(&life);
                }
                Ok(())
            }
            Err(error @ CodecError::UnknownFingerprint(_)) => {
                tracing::error!(
                    partition = record.partition, %error,
                    "nothing of this partition is marked until this process is upgraded"
                );
                Err(error)
            }
            Err(error) => {
                tracing::error!(partition = record.partition, %error, "damaged registry record");
                Ok(())
            }
        }
    }
}
