//! The agents' keys, in memory: a tail of the topic `registry` from its beginning, and the means
//! to know that one has read it up to now.

use crate::metrics::Metrics;
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use nublar_core::ids::ClientKey;
use nublar_core::partition;
use nublar_ports::Log;
use nublar_ports::log::{From, LogError, Position, Record, TailEvent};
use nublar_schemas::codec::CodecError;
use nublar_schemas::records::Registry as RegistryRecord;
use nublar_schemas::topics::REGISTRY;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

/// Position reads of one partition are at least so far apart.
const SHARE: Duration = Duration::from_millis(50);
/// When the tail has not passed a position after so long it is opened anew: records that it
/// would have to pass may have been compacted away.
const STUCK: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_millis(200);

/// A registered client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    /// The public key, DER.
    pub(crate) key: Bytes,
    /// The generation it was enrolled under.
    pub(crate) generation: i64,
}

/// The registry can not be read to its end now.
#[derive(Debug, thiserror::Error)]
#[error("the registry's position was not to be had in time")]
pub(crate) struct NotCurrent;

#[derive(Debug, Default)]
struct Entry {
    key: Option<Known>,
    life: i64,
}

impl Entry {
    fn registered(&self) -> Option<&Known> {
        self.key
            .as_ref()
            .filter(|known| known.generation >= self.life)
    }
}

type End = Shared<BoxFuture<'static, Result<Position, LogError>>>;

#[derive(Default)]
struct Read {
    started: Option<Instant>,
    pending: Option<End>,
}

/// How far the tail has come in one partition.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    passed: Option<Position>,
    /// All that stood there at the start was read.
    caught_up: bool,
    halted: bool,
}

/// The registry. See the [module](self).
pub(crate) struct Registry {
    log: Arc<dyn Log>,
    metrics: Arc<Metrics>,
    clients: RwLock<HashMap<ClientKey, Entry>>,
    progress: watch::Sender<Vec<Progress>>,
    reads: Vec<Mutex<Read>>,
    reopen: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registry {
    pub(crate) fn new(log: Arc<dyn Log>, partitions: u32, metrics: Arc<Metrics>) -> Self {
        Self {
            log,
            metrics,
            clients: RwLock::default(),
            progress: watch::Sender::new(vec![Progress::default(); partitions as usize]),
            reads: (0..partitions).map(|_| Mutex::default()).collect(),
            reopen: Notify::new(),
        }
    }

    /// The client, if it is registered as far as is known here.
    pub(crate) fn known(&self, client: &ClientKey) -> Option<Known> {
        let clients = self.clients.read().unwrap_or_else(PoisonError::into_inner);
        clients.get(client)?.registered().cloned()
    }

    /// The lowest generation under which the client may be registered, from 1.
    pub(crate) fn life(&self, client: &ClientKey) -> i64 {
        let clients = self.clients.read().unwrap_or_else(PoisonError::into_inner);
        clients.get(client).map_or(1, |entry| entry.life.max(1))
    }

    /// Where the client's keys stand.
    pub(crate) fn partition(&self, client: &ClientKey) -> u32 {
        partition::of_client(client, self.reads.len() as u32)
    }

    /// Whether everything that stood in the topic at the start was read.
    pub(crate) async fn caught_up(&self) {
        let all = |progress: &Vec<Progress>| progress.iter().all(|p| p.caught_up);
        // The sender is ours: it is not closed.
        let _ = self.progress.subscribe().wait_for(all).await;
    }

    /// Waits until everything was read that stood in the client's partition when this was called.
    pub(crate) async fn current(
        self: &Arc<Self>,
        client: &ClientKey,
        until: Instant,
    ) -> Result<(), NotCurrent> {
        let partition = self.partition(client);
        let end = loop {
            match timeout_at(until, self.end(partition)).await {
                Ok(Ok(end)) => break end,
                Ok(Err(error)) => {
                    tracing::debug!(%error, "no position of the registry");
                    timeout_at(until, sleep(RETRY))
                        .await
                        .map_err(|_| NotCurrent)?;
                }
                Err(_) => return Err(NotCurrent),
            }
        };
        let mut progress = self.progress.subscribe();
        loop {
            let look = progress.wait_for(|all| {
                let of = &all[partition as usize];
                of.halted || of.passed.is_some_and(|passed| passed >= end)
            });
            match timeout_at(until.min(Instant::now() + STUCK), look).await {
                Ok(Ok(all)) if !all[partition as usize].halted => return Ok(()),
                Ok(_) => return Err(NotCurrent),
                Err(_) if Instant::now() >= until => return Err(NotCurrent),
                Err(_) => self.reopen.notify_one(),
            }
        }
    }

    /// The partition's end, read after this call; calls that come close together share a read.
    fn end(self: &Arc<Self>, partition: u32) -> End {
        let mut read = lock(&self.reads[partition as usize]);
        if let Some(pending) = &read.pending {
            return pending.clone();
        }
        let at = read
            .started
            .map_or_else(Instant::now, |started| started + SHARE);
        let this = self.clone();
        let pending = async move {
            sleep_until(at).await;
            {
                // Who comes from now on needs a read that starts later.
                let mut read = lock(&this.reads[partition as usize]);
                read.pending = None;
                read.started = Some(Instant::now());
            }
            this.metrics.position_reads.inc();
            this.log.end(REGISTRY.name, partition).await
        };
        let pending = pending.boxed().shared();
        read.pending = Some(pending.clone());
        pending
    }

    /// Reads the topic until the shutdown, and tells whose older generations have ended, with the
    /// lowest that may live, once that is known here.
    pub(crate) async fn run(
        &self,
        ended: impl Fn(&ClientKey, i64) + Send + Sync,
        shutdown: CancellationToken,
    ) {
        let work = async {
            loop {
                if let Err(error) = self.read_from_the_beginning(&ended).await {
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
    async fn read_from_the_beginning(
        &self,
        ended: &(impl Fn(&ClientKey, i64) + Sync),
    ) -> Result<(), LogError> {
        let partitions: Vec<u32> = (0..self.reads.len() as u32).collect();
        let mut tail = self
            .log
            .tail(REGISTRY.name, &partitions, From::Earliest)
            .await?;
        loop {
            tokio::select! {
                event = tail.next_patiently() => self.take(event?, ended),
                () = self.reopen.notified() => return Ok(()),
            }
        }
    }

    fn take(&self, event: TailEvent, ended: &impl Fn(&ClientKey, i64)) {
        let caught_up = matches!(event, TailEvent::CaughtUp { .. });
        let (partition, passed, halted) = match event {
            TailEvent::CaughtUp { partition, to } => (partition, to, false),
            TailEvent::Record(record) => {
                let next = record.position.after();
                let applied = self.apply(&record);
                if let Ok(Some((client, life))) = &applied {
                    ended(client, *life);
                }
                (record.partition, next, applied.is_err())
            }
        };
        self.progress.send_modify(|all| {
            let Some(of) = all.get_mut(partition as usize) else {
                return;
            };
            if halted && !of.halted {
                self.metrics.registry_halted.inc();
                of.halted = true;
            }
            of.caught_up |= caught_up;
            of.passed = of.passed.max(Some(passed));
        });
    }

    /// Whose older generations have ended with this record. An error for one that only a newer
    /// version can read.
    fn apply(&self, record: &Record) -> Result<Option<(ClientKey, i64)>, CodecError> {
        let decoded = match RegistryRecord::decode(&record.value) {
            Ok(decoded) => decoded,
            Err(error @ CodecError::UnknownFingerprint(_)) => {
                tracing::error!(
                    partition = record.partition, %error,
                    "unknown agents of this partition get 503 until this process is upgraded"
                );
                return Err(error);
            }
            Err(error) => {
                tracing::error!(partition = record.partition, %error, "damaged registry record");
                return Ok(None);
            }
        };
        let Ok(client) = ClientKey::of(decoded.header()) else {
            tracing::error!(partition = record.partition, "registry record of no client");
            return Ok(None);
        };
        let mut clients = self.clients.write().unwrap_or_else(PoisonError::into_inner);
        let entry = clients.entry(client.clone()).or_default();
        let mut ended = None;
        let was = entry.registered().is_some();
        match decoded {
            RegistryRecord::ClientKey(key) => {
                let generation = key.header.generation;
                // The first key of a generation stays: an id belongs to one key.
                if entry
                    .key
                    .as_ref()
                    .is_none_or(|known| known.generation < generation)
                {
                    entry.key = Some(Known {
                        key: key.public_key,
                        generation,
                    });
                }
            }
            RegistryRecord::ClientLife(life) => {
                let generation = life.header.generation;
                if generation > entry.life {
                    entry.life = generation;
                    ended = Some((client, generation));
                }
            }
        }
        let is = entry.registered().is_some();
        self.metrics.registered.add(i64::from(is) - i64::from(was));
        Ok(ended)
    }
}
