//! The foreman: a shell around the fold of `nublar-core`, which decides who does what.
//!
//! It reads `scheduling`, folds, appends what the fold put out, and marks a record only when all
//! that it caused is acknowledged. Whoever takes a partition over starts from the newest snapshot
//! not beyond the mark, replays silently to the mark, and puts out everything behind it again:
//! a predecessor may have read those records without having answered them.
//!
//! | file | what |
//! |---|---|
//! | `partition` | one partition: take over, fold, put out, mark |
//! | `outputs` | from the fold's outputs to records |
//! | `snapshots` | the fold's state in Objects |
//! | `settings` | the highest version of each setting stays the last of its key |

mod outputs;
mod partition;
mod settings;
mod snapshots;

use futures::future::join_all;
use nublar_core::fold::FoldConfig;
use nublar_ports::log::{GroupEvent, Record};
use nublar_ports::{Log, Membership, Objects};
use nublar_schemas::topics::SCHEDULING;
use partition::Partition;
use serde::Deserialize;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Name of the consumer group.
pub const GROUP: &str = "foreman";

const BATCH_RECORDS: usize = 500;

/// What the foreman goes by.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Name of this process.
    pub name: String,
    /// Every time of the fold and the ticks is divided by this; for tests.
    pub hasten: u64,
    /// Ask every new client who it is.
    pub interrogate: bool,
    /// Tell clients which event queries to run.
    pub monitor: bool,
    /// Of agents that share one key have one after the other make a new one.
    pub rekey_clones: bool,
    /// How often the state is written to Objects, seconds.
    pub snapshot_s: u64,
    /// Or after so many records.
    pub snapshot_records: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: "foreman".to_owned(),
            hasten: 1,
            interrogate: true,
            monitor: true,
            rekey_clones: false,
            snapshot_s: 600,
            snapshot_records: 50_000,
        }
    }
}

impl Config {
    fn tick(&self) -> Duration {
        Duration::from_millis((5_000 / self.hasten.max(1)).max(20))
    }
}

/// Why a partition cannot be worked on.
#[derive(Debug, thiserror::Error)]
pub enum ForemanError {
    /// Records between the newest usable snapshot and the mark were deleted.
    #[error(
        "scheduling/{partition}: records from {from} on are needed and the oldest that is kept is {earliest}: restore a snapshot not older than that"
    )]
    Gap {
        /// Partition.
        partition: u32,
        /// The first record that is needed.
        from: u64,
        /// The oldest that is kept.
        earliest: u64,
    },
    /// A snapshot that cannot be used.
    #[error("scheduling/{partition}: {source}")]
    Snapshot {
        /// Partition.
        partition: u32,
        /// Why.
        source: nublar_core::fold::SnapshotError,
    },
    /// A record that this process cannot read.
    #[error("scheduling/{partition}/{offset}: {source}")]
    Unreadable {
        /// Partition.
        partition: u32,
        /// Offset.
        offset: u64,
        /// Why.
        source: nublar_schemas::codec::CodecError,
    },
    /// The partition went to another foreman.
    #[error("scheduling/{0} went to another foreman")]
    Revoked(u32),
}

/// The ports of a foreman.
#[derive(Clone)]
pub struct Ports {
    /// Where records come from and decisions go.
    pub log: Arc<dyn Log>,
    /// Where snapshots are kept.
    pub objects: Arc<dyn Objects>,
}

/// Works until `shutdown`. A partition that cannot be worked on is left alone with an error in
/// the process's log; the others go on.
pub async fn run(config: Config, mut fold: FoldConfig, ports: Ports, shutdown: CancellationToken) {
    fold.interrogate = config.interrogate;
    fold.monitor = config.monitor;
    fold.rekey_clones = config.rekey_clones;
    let fold = Arc::new(fold.hastened(config.hasten));
    let log = ports.log.clone();
    let member = Membership::join(ports.log.clone(), GROUP, SCHEDULING.name, shutdown.clone());
    let mut foreman = Foreman {
        config,
        fold,
        ports,
        member,
        partitions: BTreeMap::new(),
    };
    tokio::select! {
        () = foreman.work() => {}
        () = settings::keep_highest(&*log) => {}
        () = shutdown.cancelled() => foreman.member.flush().await,
    }
}

struct Foreman {
    config: Config,
    fold: Arc<FoldConfig>,
    ports: Ports,
    member: Membership,
    partitions: BTreeMap<u32, Partition>,
}

impl Foreman {
    async fn work(&mut self) {
        let every = self.config.tick();
        let mut next_tick = Instant::now() + every;
        loop {
            let event = tokio::select! {
                biased;
                event = self.member.next() => Some(event),
                () = tokio::time::sleep_until(next_tick) => None,
            };
            let mut batches: BTreeMap<u32, VecDeque<Record>> = BTreeMap::new();
            let mut records = 0;
            let mut next = event;
            while let Some(event) = next {
                match event {
                    GroupEvent::Record(record) => {
                        records += 1;
                        batches
                            .entry(record.partition)
                            .or_default()
                            .push_back(record);
                    }
                    GroupEvent::Revoked { partition } => {
                        batches.remove(&partition);
                        self.partitions.remove(&partition);
                    }
                    GroupEvent::Assigned {
                        partition,
                        epoch,
                        mark,
                    } => {
                        batches.remove(&partition);
                        let taken = Partition::take_over(
                            partition,
                            epoch,
                            mark,
                            self.fold.clone(),
                            &self.ports,
                        )
                        .await;
                        self.keep(partition, taken);
                    }
                }
                next = if records < BATCH_RECORDS {
                    self.member.try_next()
                } else {
                    None
                };
            }
            self.fold_batches(batches).await;
            if Instant::now() >= next_tick {
                next_tick = Instant::now() + every;
                self.tick().await;
            }
        }
    }

    fn keep(&mut self, partition: u32, taken: Result<Partition, ForemanError>) {
        match taken {
            Ok(state) => {
                tracing::info!(
                    partition,
                    clients = state.clients(),
                    "took the partition over"
                );
                self.partitions.insert(partition, state);
            }
            Err(error) => {
                tracing::error!(partition, %error, "leaving the partition alone");
                self.partitions.remove(&partition);
            }
        }
    }

    /// Folds each partition's batch; what they cause is appended side by side.
    async fn fold_batches(&mut self, mut batches: BTreeMap<u32, VecDeque<Record>>) {
        let (ports, member, config) = (&self.ports, &self.member, &self.config);
        let folding = self.partitions.iter_mut().filter_map(|(partition, state)| {
            let folding = state.fold_batch(batches.remove(partition)?, ports, member, config);
            Some(async { (*partition, folding.await) })
        });
        for (partition, result) in join_all(folding).await {
            if let Err(error) = result {
                tracing::error!(partition, %error, "leaving the partition alone");
                self.partitions.remove(&partition);
            }
        }
    }

    async fn tick(&mut self) {
        let appends = self
            .partitions
            .values_mut()
            .filter_map(|state| state.tick(&self.ports));
        for (partition, tick) in join_all(appends).await {
            if let Err(error) = tick {
                tracing::warn!(partition, %error, "no tick: time stands still there");
            }
        }
    }
}

fn now_us() -> i64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
