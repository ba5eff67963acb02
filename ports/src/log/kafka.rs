//! The log on Apache Kafka.
//!
//! - A topic is the Kafka topic `<prefix><topic>`, a group is the Kafka group
//!   `<prefix><group>.<topic>`. Readers without a group name the Kafka group `<prefix>tail`; they
//!   never join it and commit nothing.
//! - An acknowledged record is on every broker that is in sync (`acks=all`, and at least
//!   `min_insync` of them): replicated, not necessarily fsynced.
//! - A record's time is the broker's.
//! - Groups never start by chance: [`KafkaLog::declare`](Log::declare) writes their first offsets,
//!   and a position that retention deleted is an error, never a jump.

mod client;
mod declare;
mod group;
mod health;
mod lag;
mod producer;
mod pulse;
mod tail;

use self::client::{Clients, blocking};
use self::lag::Peeker;
use self::producer::Lane;
use super::{Append, From, Group, Lag, Log, LogError, Position, Tail, TopicSpec};
use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Largest batch of records that the topics take, bytes (`max.message.bytes`).
const MAX_BATCH: usize = 9_437_184;

/// Largest key and value of a record together, bytes: a batch has room for what surrounds them.
pub const MAX_RECORD: usize = MAX_BATCH - 1_024;

/// How records of data topics are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// As they are.
    None,
    /// Zstandard, its fastest level.
    #[default]
    Zstd,
}

/// How to reach Kafka and what to make there.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaConfig {
    /// Brokers to begin with: `host:port`, separated by commas.
    pub brokers: String,
    /// What the names of topics and groups begin with. Installations that share a cluster need
    /// different ones.
    pub prefix: String,
    /// Name of this process in the brokers' logs and quotas.
    pub client_id: String,
    /// Further properties of the client, by the names that librdkafka gives them:
    /// `security.protocol`, `sasl.mechanism`, `sasl.username`, `sasl.password`,
    /// `ssl.ca.location` and their like. The properties that delivery and order rest on cannot be
    /// changed here.
    pub properties: BTreeMap<String, String>,
    /// Replicas of each partition of a new topic.
    pub replication: u16,
    /// Replicas that must have a record before it is acknowledged.
    pub min_insync: u16,
    /// Topics of bulk data: their records wait up to 5 ms for company and may be compressed.
    /// Records of all other topics leave at once.
    pub data_topics: Vec<String>,
    /// Compression of the data topics.
    pub compression: Compression,
    /// Generation of the topics with this prefix: 1, and one more whenever they are made anew.
    pub generation: u16,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            brokers: "127.0.0.1:9092".to_owned(),
            prefix: "nublar.".to_owned(),
            client_id: "nublar".to_owned(),
            properties: BTreeMap::new(),
            replication: 3,
            min_insync: 2,
            data_topics: ["results", "uploads", "events"].map(str::to_owned).to_vec(),
            compression: Compression::default(),
            generation: 1,
        }
    }
}

/// Values of properties may be secrets and are left out.
impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaConfig")
            .field("brokers", &self.brokers)
            .field("prefix", &self.prefix)
            .field("client_id", &self.client_id)
            .field("properties", &self.properties.keys())
            .field("replication", &self.replication)
            .field("min_insync", &self.min_insync)
            .field("data_topics", &self.data_topics)
            .field("compression", &self.compression)
            .field("generation", &self.generation)
            .finish()
    }
}

impl KafkaConfig {
    fn kafka_topic(&self, topic: &str) -> String {
        format!("{}{topic}", self.prefix)
    }

    fn kafka_group(&self, group: &str, topic: &str) -> String {
        format!("{}{group}.{topic}", self.prefix)
    }
}

/// The log on Kafka. Dropping it waits a few seconds at most for readers that are still leaving
/// their groups.
pub struct KafkaLog {
    inner: Arc<Inner>,
}

/// What the log and its readers share.
struct Inner {
    config: KafkaConfig,
    clients: Clients,
    control: Arc<Lane>,
    data: Arc<Lane>,
    data_topics: HashSet<String>,
    /// The topics seen so far, by our names.
    topics: Mutex<HashMap<String, Known>>,
    peeker: Peeker,
}

/// What is known of a topic.
#[derive(Clone, Copy)]
struct Known {
    partitions: u32,
    /// Whether it was declared here as compacted.
    compacted: bool,
}

impl KafkaLog {
    /// Prepares the clients; nothing is sent yet.
    ///
    /// # Errors
    /// [`LogError::Refused`] when a property is not one of librdkafka's, or its value is wrong.
    pub fn new(config: KafkaConfig) -> Result<Self, LogError> {
        let clients = Clients::new(&config)?;
        let control = Arc::new(Lane::control(&config, &clients)?);
        let data = Arc::new(Lane::data(&config, &clients)?);
        let data_topics = config.data_topics.iter().cloned().collect();
        let inner = Inner {
            config,
            clients,
            control,
            data,
            data_topics,
            topics: Mutex::default(),
            peeker: Peeker::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }
}

impl Inner {
    fn position(&self, offset: u64) -> Position {
        Position {
            generation: self.config.generation,
            offset,
        }
    }

    /// The number of partitions, from memory or from Kafka. Blocks.
    fn partition_count(&self, topic: &str) -> Result<u32, LogError> {
        if let Some(known) = locked(&self.topics).get(topic) {
            return Ok(known.partitions);
        }
        let kafka_topic = self.config.kafka_topic(topic);
        let count = self.clients.partition_count(&kafka_topic)?.ok_or_else(|| {
            LogError::Refused(format!(
                "kafka topic {kafka_topic} does not exist at {}, run setup",
                self.config.brokers
            ))
        })?;
        self.remember(
            topic,
            Known {
                partitions: count,
                compacted: false,
            },
        );
        Ok(count)
    }

    fn remember(&self, topic: &str, known: Known) {
        locked(&self.topics).insert(topic.to_owned(), known);
    }

    /// What is known to be wrong with a record before it is sent.
    fn objection(&self, topic: &str, partition: u32, key: &[u8]) -> Option<LogError> {
        let known = locked(&self.topics).get(topic).copied()?;
        if partition >= known.partitions {
            return Some(no_partition(topic, partition, known.partitions));
        }
        let keyless = known.compacted && key.is_empty();
        keyless.then(|| {
            LogError::Refused(format!(
                "record without a key, but topic {topic} is compacted"
            ))
        })
    }

    /// Refuses partitions that the topic does not have. Blocks.
    fn check_partitions(&self, topic: &str, partitions: &[u32]) -> Result<(), LogError> {
        let count = self.partition_count(topic)?;
        match partitions.iter().find(|partition| **partition >= count) {
            Some(partition) => Err(no_partition(topic, *partition, count)),
            None => Ok(()),
        }
    }
}

fn no_partition(topic: &str, partition: u32, count: u32) -> LogError {
    LogError::Refused(format!(
        "topic {topic} has no partition {partition}, only {count}"
    ))
}

/// Locks; what a panicking holder left behind is still whole, for nothing here is half-written.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Kafka's number of a partition. Counts come from Kafka or are checked when a topic is declared.
fn kafka_partition(partition: u32) -> i32 {
    i32::try_from(partition).unwrap_or(i32::MAX)
}

#[async_trait]
impl Log for KafkaLog {
    async fn declare(&self, topics: &[TopicSpec]) -> Result<(), LogError> {
        declare::declare(&self.inner, topics).await
    }

    fn append(&self, topic: &str, partition: u32, key: Bytes, value: Bytes) -> Append {
        if let Some(error) = self.inner.objection(topic, partition, &key) {
            return futures::future::ready(Err(error)).boxed();
        }
        let lane = if self.inner.data_topics.contains(topic) {
            &self.inner.data
        } else {
            &self.inner.control
        };
        lane.append(
            self.inner.config.kafka_topic(topic),
            partition,
            &key,
            &value,
        )
    }

    async fn end(&self, topic: &str, partition: u32) -> Result<Position, LogError> {
        let (inner, topic) = (self.inner.clone(), topic.to_owned());
        blocking(move || {
            inner.check_partitions(&topic, &[partition])?;
            let offsets = inner
                .clients
                .ends(&inner.config.kafka_topic(&topic), &[partition])?;
            Ok(inner.position(offsets[0]))
        })
        .await
    }

    async fn tail(
        &self,
        topic: &str,
        partitions: &[u32],
        from: From,
    ) -> Result<Box<dyn Tail>, LogError> {
        let tail = tail::open(
            self.inner.clone(),
            topic.to_owned(),
            partitions.to_vec(),
            from,
        )
        .await?;
        Ok(Box::new(tail))
    }

    async fn group(&self, group: &str, topic: &str) -> Result<Box<dyn Group>, LogError> {
        let member = group::join(self.inner.clone(), group.to_owned(), topic.to_owned()).await?;
        Ok(Box::new(member))
    }

    async fn lag(&self, group: &str, topic: &str) -> Result<Vec<Lag>, LogError> {
        let (inner, group, topic) = (self.inner.clone(), group.to_owned(), topic.to_owned());
        blocking(move || lag::lag(&inner, &group, &topic)).await
    }

    async fn rewind(&self, group: &str, topic: &str) -> Result<(), LogError> {
        let (inner, group, topic) = (self.inner.clone(), group.to_owned(), topic.to_owned());
        blocking(move || declare::rewind(&inner, &group, &topic)).await
    }

    async fn partitions(&self, topic: &str) -> Result<u32, LogError> {
        let (inner, topic) = (self.inner.clone(), topic.to_owned());
        blocking(move || inner.partition_count(&topic)).await
    }
}
