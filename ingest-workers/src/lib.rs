//! The ingest-workers: consumer groups that turn records into documents and objects.
//!
//! Order in a worker, and the reason why it can be killed at any instruction: objects → documents,
//! each checked → what follows (totals, facts, refused messages) → mark. Documents have ids made
//! of their content, totals are totals; whatever is done twice is the same the second time.
//!
//! | file | what |
//! |---|---|
//! | `agents` | groups `results`, `uploads` and `events`: what agents sent |
//! | `batch` | what is read and marked at once |
//! | `stored` | writing parts, counting what is there |
//! | `state` | group `state`: the foreman's documents |
//! | `letters` | group `dead-letters`: what could not be taken |
//! | `seals` | group `seals`: which flows' files are to be sealed |
//! | `sealing` | the files of one flow, hashed and held against what the agent says |
//! | `lives` | which generations of clients have ended |
//! | `purge` | removing what there is of one that has |
//! | `persist` | trying again for ever, unless it makes no sense |

mod agents;
mod batch;
mod letters;
mod lives;
mod persist;
mod purge;
mod sealing;
mod seals;
mod state;
mod stored;

use lives::Lives;
use nublar_core::hidden::HiddenNames;
use nublar_ports::{Index, Log, Objects};
use serde::Deserialize;
use std::sync::Arc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What the workers go by.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Name of this process, in the headers of what it writes.
    pub name: String,
    /// Groups to work for: `results`, `uploads`, `events`, `state`, `dead-letters`, `seals`.
    pub groups: Vec<String>,
    /// How often totals are reported and marks made, milliseconds.
    pub report_ms: u64,
    /// Flows per partition whose totals are kept in memory.
    pub flows_in_memory: usize,
    /// Names of queries that agents run for another server.
    #[serde(skip)]
    pub names: HiddenNames,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: "worker".to_owned(),
            groups: GROUPS.map(str::to_owned).to_vec(),
            report_ms: 2_000,
            flows_in_memory: 20_000,
            names: HiddenNames::default(),
        }
    }
}

/// The groups there are; each reads the topic of its name, but `seals` reads `state`.
pub const GROUPS: [&str; 6] = [
    "results",
    "uploads",
    "events",
    "state",
    "dead-letters",
    "seals",
];

/// A configuration that cannot be worked with.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// No such group.
    #[error(
        "workers.groups: there is no group {0:?}, only results, uploads, events, state, dead-letters and seals"
    )]
    UnknownGroup(String),
}

/// The three ports of a worker.
#[derive(Clone)]
pub struct Ports {
    /// Where records come from and totals go.
    pub log: Arc<dyn Log>,
    /// Where documents go.
    pub index: Arc<dyn Index>,
    /// Where large data goes.
    pub objects: Arc<dyn Objects>,
}

/// Works until `shutdown`, then reports and marks what is done and returns.
pub async fn run(
    config: Config,
    ports: Ports,
    shutdown: CancellationToken,
) -> Result<(), WorkerError> {
    let mut groups = JoinSet::new();
    let lives = Arc::new(Lives::new(ports.log.clone()));
    // To the very end: what is marked last must know it too.
    let reading = CancellationToken::new();
    let _ends = reading.clone().drop_guard();
    let tail = tokio::spawn({
        let (lives, reading) = (lives.clone(), reading.clone());
        async move { lives.run(reading).await }
    });
    for group in &config.groups {
        let (ports, lives, shutdown) = (ports.clone(), lives.clone(), shutdown.clone());
        let agents = |stream| {
            let (ports, lives, shutdown) = (ports.clone(), lives.clone(), shutdown.clone());
            agents::run(stream, config.clone(), ports, lives, shutdown)
        };
        match group.as_str() {
            "results" => groups.spawn(agents(agents::Stream::Results)),
            "uploads" => groups.spawn(agents(agents::Stream::Uploads)),
            "events" => groups.spawn(agents(agents::Stream::Events)),
            "state" => groups.spawn(state::run(ports, lives, shutdown)),
            "dead-letters" => groups.spawn(letters::run(ports, shutdown)),
            "seals" => groups.spawn(seals::run(ports, lives, shutdown)),
            other => return Err(WorkerError::UnknownGroup(other.to_owned())),
        };
    }
    while groups.join_next().await.is_some() {}
    reading.cancel();
    // It ends by the token alone.
    let _ = tail.await;
    Ok(())
}

fn now_us() -> i64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    micros(since)
}

fn micros(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
