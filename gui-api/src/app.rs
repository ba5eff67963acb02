//! What every call has at hand.

use crate::clock::now_us;
use crate::config::Config;
use crate::refusal::{Answer, Refusal};
use crate::remembered::Remembered;
use crate::tails::{Commands, FOLLOWERS, Recent, Registry, Settings, Wishes};
use aws_lc_rs::rand;
use bytes::Bytes;
use nublar_core::ids::{ClientKey, OrgId};
use nublar_core::mac::MacKeys;
use nublar_core::partition;
use nublar_core::sealed::SealKeys;
use nublar_ports::{Index, Log, Objects};
use nublar_schemas::records::{Header, RequestRef};
use nublar_schemas::topics;
use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How many requests are known to stand in the log already.
const REQUESTS: usize = 1_000;
/// How many files' hashes are remembered.
const HASHES: usize = 100_000;

pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) index: Arc<dyn Index>,
    pub(crate) objects: Arc<dyn Objects>,
    pub(crate) keys: MacKeys,
    pub(crate) seal: SealKeys,
    /// This process among others.
    pub(crate) name: String,
    pub(crate) recent: Recent,
    pub(crate) registry: Registry,
    pub(crate) settings: Settings,
    pub(crate) commands: Commands,
    pub(crate) wishes: Wishes,
    /// Requests that stand in the log already, by hash: where, and since when.
    pub(crate) requests: Remembered<Bytes, (RequestRef, i64)>,
    /// SHA-256 of whole files, by what they are made of.
    pub(crate) hashes: Remembered<String, String>,
    /// Who follows events takes one.
    pub(crate) followers: Arc<Semaphore>,
    pub(crate) shutdown: CancellationToken,
    partitions: Mutex<HashMap<&'static str, u32>>,
}

impl App {
    pub(crate) fn new(
        config: Config,
        log: Arc<dyn Log>,
        index: Arc<dyn Index>,
        objects: Arc<dyn Objects>,
        keys: MacKeys,
    ) -> Self {
        Self {
            settings: Settings::new(&config.agent_urls),
            config,
            log,
            index,
            objects,
            seal: SealKeys::of(&keys),
            keys,
            name: format!("gui-api-{:08x}", u32::from_be_bytes(random())),
            recent: Recent::default(),
            registry: Registry::default(),
            commands: Commands::default(),
            wishes: Wishes::default(),
            requests: Remembered::new(REQUESTS),
            hashes: Remembered::new(HASHES),
            followers: Arc::new(Semaphore::new(FOLLOWERS)),
            shutdown: CancellationToken::new(),
            partitions: Mutex::default(),
        }
    }

    /// One step of a call, within the deadline.
    pub(crate) async fn step<T, E>(&self, step: impl Future<Output = Result<T, E>>) -> Answer<T>
    where
        Refusal: From<E>,
    {
        match timeout(self.config.deadline, step).await {
            Ok(done) => done.map_err(Refusal::from),
            Err(_) => Err(Refusal::too_slow()),
        }
    }

    /// Waits until the settings that there were at the start are read.
    pub(crate) async fn settings_ready(&self) -> Answer<()> {
        let progress = &self.settings.progress;
        progress.ready("the settings", self.config.deadline).await
    }

    /// Waits until the clients that there were at the start are read.
    pub(crate) async fn registry_ready(&self) -> Answer<()> {
        let progress = &self.registry.progress;
        progress.ready("the registry", self.config.deadline).await
    }

    /// The number of partitions of a topic, which never changes.
    pub(crate) async fn partitions(&self, topic: topics::Topic) -> Answer<u32> {
        let known = || {
            self.partitions
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        if let Some(partitions) = known().get(topic.name) {
            return Ok(*partitions);
        }
        let partitions = self.step(self.log.partitions(topic.name)).await?;
        known().insert(topic.name, partitions);
        Ok(partitions)
    }

    /// A client's partition of `scheduling`.
    pub(crate) async fn partition_of(&self, key: &ClientKey) -> Answer<u32> {
        let partitions = self.partitions(topics::SCHEDULING).await?;
        Ok(partition::of_client(key, partitions))
    }

    /// The head of a record about a client, or about none.
    pub(crate) fn header(&self, client: Option<&ClientKey>, generation: i64) -> Header {
        Header {
            org: client.map(|key| key.org.to_string()).unwrap_or_default(),
            client: client.map(|key| key.client.to_string()).unwrap_or_default(),
            generation,
            at_us: now_us(),
            frontend: self.name.clone(),
            trace: String::new(),
        }
    }

    /// The client that a path names.
    pub(crate) fn client(&self, id: &str) -> Answer<ClientKey> {
        Ok(ClientKey {
            org: OrgId::root(),
            client: id.parse()?,
        })
    }
}

/// Bytes that nobody can foresee. All zero in the one case that the system has none to give:
/// they name things, they keep no secret.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if rand::fill(&mut bytes).is_err() {
        tracing::warn!("the system gives no random bytes");
    }
    bytes
}
