//! Kafka clients for questions: metadata and offsets.

use super::super::LogError;
use super::health::{Health, code_of, moved};
use super::{KafkaConfig, kafka_partition, locked};
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a question may take.
pub(super) const ANSWER: Duration = Duration::from_secs(10);

/// Runs what blocks away from the async threads.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(LogError::Unavailable(format!("kafka client: {error}"))),
    }
}

/// A client that asks.
pub(super) type Asking = Arc<BaseConsumer<Health>>;

/// The clients that ask, and the consumers that are being closed.
pub(super) struct Clients {
    base: ClientConfig,
    tail_group: String,
    health: Health,
    /// One that asks about topics, and one for each group, to read and write its offsets without
    /// joining it. One that is not answered is given up: it may have lost its brokers for ever.
    asking: Mutex<HashMap<Option<String>, Asking>>,
    closing: Mutex<Vec<JoinHandle<()>>>,
}

impl Clients {
    pub(super) fn new(config: &KafkaConfig) -> Result<Self, LogError> {
        let mut base = ClientConfig::new();
        for (name, value) in &config.properties {
            base.set(name, value);
        }
        base.set("bootstrap.servers", &config.brokers)
            .set("client.id", &config.client_id)
            .set("socket.nagle.disable", "true")
            .set("socket.keepalive.enable", "true")
            .set("socket.timeout.ms", "10000")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000")
            // A broker that has just started may not know its topics yet. Whoever it told so looks
            // again only then: usually after five minutes.
            .set("topic.metadata.refresh.interval.ms", "5000");
        base.remove("group.id");
        let clients = Self {
            base,
            tail_group: format!("{}tail", config.prefix),
            health: Health::new(&config.brokers),
            asking: Mutex::default(),
            closing: Mutex::default(),
        };
        // Tells of properties that are wrong.
        clients.asking(None)?;
        Ok(clients)
    }

    /// The properties that all clients have.
    pub(super) fn base(&self) -> ClientConfig {
        self.base.clone()
    }

    /// The properties of a consumer; `group` is none for one that joins no group.
    pub(super) fn consumer(&self, group: Option<&str>) -> ClientConfig {
        let mut config = self.base();
        config
            .set("group.id", group.unwrap_or(&self.tail_group))
            .set("allow.auto.create.topics", "false")
            .set("auto.offset.reset", "error")
            .set("enable.auto.offset.store", "false")
            .set("enable.auto.commit", "false")
            .set("partition.assignment.strategy", "cooperative-sticky")
            // Records prepared a partition: memory is bounded by (partitions × 4 MiB + a fetch).
            .set("queued.max.messages.kbytes", "4096")
            .set("fetch.max.bytes", "16777216")
            .set("fetch.queue.backoff.ms", "5")
            .set("fetch.error.backoff.ms", "100");
        config
    }

    pub(super) fn health(&self) -> Health {
        self.health.clone()
    }

    /// The number of partitions, none when there is no such topic. Blocks.
    pub(super) fn partition_count(&self, kafka_topic: &str) -> Result<Option<u32>, LogError> {
        let doing = format!("look up topic {kafka_topic}");
        let client = self.asking(None)?;
        let metadata = client.fetch_metadata(Some(kafka_topic), ANSWER);
        hear(&client);
        let metadata = metadata.map_err(|error| self.unanswered(None, &doing, &error))?;
        let Some(topic) = metadata.topics().first() else {
            return Ok(None);
        };
        match topic.error().map(Code::from) {
            None | Some(Code::LeaderNotAvailable) => Ok(u32::try_from(topic.partitions().len())
                .ok()
                .filter(|count| *count > 0)),
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => Ok(None),
            Some(code) => Err(self.health.explain_code(&doing, code)),
        }
    }

    /// The first offsets that are kept, in the order of the partitions. Blocks.
    pub(super) fn earliest(
        &self,
        kafka_topic: &str,
        partitions: &[u32],
    ) -> Result<Vec<u64>, LogError> {
        self.offsets(kafka_topic, partitions, Offset::Beginning)
    }

    /// The offsets that the next records will have, in the order of the partitions. Blocks.
    pub(super) fn ends(&self, kafka_topic: &str, partitions: &[u32]) -> Result<Vec<u64>, LogError> {
        self.offsets(kafka_topic, partitions, Offset::End)
    }

    /// The first offsets at or after a time in milliseconds since 1970, the ends where there is
    /// no such record. Blocks.
    pub(super) fn since(
        &self,
        kafka_topic: &str,
        partitions: &[u32],
        millis: i64,
    ) -> Result<Vec<u64>, LogError> {
        // The ends are asked for first: what is appended in between is then not missed.
        let ends = self.ends(kafka_topic, partitions)?;
        let found = self.listed(kafka_topic, partitions, Offset::Offset(millis.max(0)))?;
        Ok(found
            .into_iter()
            .zip(ends)
            .map(|(offset, end)| offset.unwrap_or(end))
            .collect())
    }

    fn offsets(
        &self,
        kafka_topic: &str,
        partitions: &[u32],
        which: Offset,
    ) -> Result<Vec<u64>, LogError> {
        let missing =
            || LogError::Unavailable(format!("kafka gave no offset of topic {kafka_topic}"));
        self.listed(kafka_topic, partitions, which)?
            .into_iter()
            .map(|offset| offset.ok_or_else(missing))
            .collect()
    }

    /// Asks the partitions' leaders for offsets: the first, the last, or by time.
    fn listed(
        &self,
        kafka_topic: &str,
        partitions: &[u32],
        which: Offset,
    ) -> Result<Vec<Option<u64>>, LogError> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let doing = format!("look up offsets of topic {kafka_topic}");
        let answer = self.repeated(None, &doing, |client| {
            client.offsets_for_times(list(kafka_topic, partitions, which)?, ANSWER)
        })?;
        Ok(in_order(&answer, kafka_topic, partitions))
    }

    /// The offsets that a group has committed, none where it has not. Blocks.
    pub(super) fn committed(
        &self,
        group: &str,
        kafka_topic: &str,
        partitions: &[u32],
    ) -> Result<Vec<Option<u64>>, LogError> {
        let doing = format!("look up the offsets of group {group}");
        let answer = self.repeated(Some(group), &doing, |client| {
            client.committed_offsets(list(kafka_topic, partitions, Offset::Invalid)?, ANSWER)
        })?;
        Ok(in_order(&answer, kafka_topic, partitions))
    }

    /// The client that asks about topics, or reads and writes the offsets of a group.
    pub(super) fn asking(&self, group: Option<&str>) -> Result<Asking, LogError> {
        let mut asking = locked(&self.asking);
        let key = group.map(str::to_owned);
        if let Some(client) = asking.get(&key) {
            return Ok(client.clone());
        }
        let mut config = self.consumer(group);
        config.set("topic.metadata.refresh.interval.ms", "-1");
        let client: Asking = Arc::new(create(&config, self.health())?);
        asking.insert(key, client.clone());
        Ok(client)
    }

    /// Gives up the client that a question went to, and says why it was not answered.
    pub(super) fn unanswered(
        &self,
        group: Option<&str>,
        doing: &str,
        error: &KafkaError,
    ) -> LogError {
        locked(&self.asking).remove(&group.map(str::to_owned));
        self.health.explain(doing, error)
    }

    /// Repeats a question about partitions while leaders move, for a few seconds.
    fn repeated(
        &self,
        group: Option<&str>,
        doing: &str,
        ask: impl Fn(&BaseConsumer<Health>) -> Result<TopicPartitionList, KafkaError>,
    ) -> Result<TopicPartitionList, LogError> {
        let client = self.asking(group)?;
        let until = Instant::now() + ANSWER / 2;
        loop {
            let answer = ask(&client);
            hear(&client);
            match answer.and_then(|answer| without_errors(&answer).map(|()| answer)) {
                Ok(answer) => return Ok(answer),
                Err(error) if code_of(&error).is_some_and(moved) && Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(100));
                }
                Err(error) => return Err(self.unanswered(group, doing, &error)),
            }
        }
    }

    /// Closes a consumer on a thread of its own: leaving a group takes some round trips.
    pub(super) fn close(&self, consumer: impl Send + 'static) {
        let mut closing = locked(&self.closing);
        closing.retain(|thread| !thread.is_finished());
        match std::thread::Builder::new()
            .name("kafka-close".to_owned())
            .spawn(move || drop(consumer))
        {
            Ok(thread) => closing.push(thread),
            Err(error) => tracing::warn!(%error, "no thread to close a kafka consumer on"),
        }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        for thread in std::mem::take(&mut *locked(&self.closing)) {
            // A thread that panicked has nothing left to close.
            let _ = thread.join();
        }
    }
}

/// Lets a client that asks report what it has to.
fn hear(client: &BaseConsumer<Health>) {
    while client.poll(Duration::ZERO).is_some() {}
}

/// Makes a client.
pub(super) fn create<C, T: FromClientConfigAndContext<C>>(
    config: &ClientConfig,
    context: C,
) -> Result<T, LogError>
where
    C: ClientContext,
{
    T::from_config_and_context(config, context).map_err(|error| match error {
        KafkaError::ClientConfig(_, description, name, _) => {
            LogError::Refused(format!("kafka property {name}: {description}"))
        }
        other => LogError::Refused(format!("kafka client: {other}")),
    })
}

/// A list of partitions, all with the same offset.
pub(super) fn list(
    kafka_topic: &str,
    partitions: &[u32],
    offset: Offset,
) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        list.add_partition_offset(kafka_topic, kafka_partition(*partition), offset)?;
    }
    Ok(list)
}

/// Whether the client took every partition of a list.
pub(super) fn without_errors(list: &TopicPartitionList) -> Result<(), KafkaError> {
    list.elements()
        .iter()
        .try_for_each(TopicPartitionListElem::error)
}

/// The offsets of a list in the order of the partitions, none where it has no real one.
fn in_order(
    answer: &TopicPartitionList,
    kafka_topic: &str,
    partitions: &[u32],
) -> Vec<Option<u64>> {
    let offset_of = |partition: &u32| match answer
        .find_partition(kafka_topic, kafka_partition(*partition))?
        .offset()
    {
        Offset::Offset(offset) => u64::try_from(offset).ok(),
        _ => None,
    };
    partitions.iter().map(offset_of).collect()
}
