//! Declaring topics: making them, keeping their settings, and writing the first offsets of groups.

use super::super::local::has_members;
use super::super::{LogError, Retention, TopicSpec};
use super::client::{ANSWER, blocking, create, list};
use super::group::marks;
use super::health::{Health, code_of};
use super::{Inner, Known, MAX_BATCH, kafka_partition};
use rdkafka::Offset;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigResource, ConfigSource, NewTopic,
    ResourceSpecifier, TopicReplication,
};
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long new topics may take until every partition has a leader.
const SPREAD: Duration = Duration::from_secs(20);

/// Records are kept at least so long, so that none goes before anybody could have read it.
const SHORTEST: Duration = Duration::from_secs(60);

/// See [`Log::declare`](super::Log::declare).
pub(super) async fn declare(inner: &Arc<Inner>, topics: &[TopicSpec]) -> Result<(), LogError> {
    topics.iter().try_for_each(check_names)?;
    let (missing, present) = compare(inner, topics).await?;
    // Only now: every client says for itself that nobody answers.
    let admin = Admin::new(inner)?;
    if !missing.is_empty() {
        admin.create(&missing).await?;
        wait_until_spread(inner, &missing).await?;
    }
    if !present.is_empty() {
        admin.update(&present).await?;
    }
    for topic in topics {
        let compacted = topic.retention == Retention::Compacted;
        inner.remember(
            &topic.name,
            Known {
                partitions: topic.partitions,
                compacted,
            },
        );
        let (inner, topic) = (inner.clone(), topic.clone());
        blocking(move || {
            topic
                .groups
                .iter()
                .try_for_each(|group| begin(&inner, &topic, group))
        })
        .await?;
    }
    Ok(())
}

fn check_names(topic: &TopicSpec) -> Result<(), LogError> {
    let plain = |name: &str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    };
    if let Some(name) = std::iter::once(&topic.name)
        .chain(&topic.groups)
        .find(|name| !plain(name))
    {
        return Err(LogError::Refused(format!(
            "topic or group name {name:?} must be of a-z, 0-9 and -"
        )));
    }
    if topic.partitions == 0 || i32::try_from(topic.partitions).is_err() {
        return Err(LogError::Refused(format!(
            "topic {} cannot have {} partitions",
            topic.name, topic.partitions
        )));
    }
    Ok(())
}

/// Parts the topics in those that are missing and those that exist.
async fn compare(
    inner: &Arc<Inner>,
    topics: &[TopicSpec],
) -> Result<(Vec<TopicSpec>, Vec<TopicSpec>), LogError> {
    let (inner, topics) = (inner.clone(), topics.to_vec());
    blocking(move || {
        let (mut missing, mut present) = (Vec::new(), Vec::new());
        for topic in topics {
            match inner
                .clients
                .partition_count(&inner.config.kafka_topic(&topic.name))?
            {
                None => missing.push(topic),
                Some(count) if count == topic.partitions => present.push(topic),
                Some(count) => return Err(other_count(&inner, &topic, count)),
            }
        }
        Ok((missing, present))
    })
    .await
}

fn other_count(inner: &Inner, topic: &TopicSpec, count: u32) -> LogError {
    let kafka_topic = inner.config.kafka_topic(&topic.name);
    let wanted = topic.partitions;
    LogError::Refused(format!(
        "kafka topic {kafka_topic} has {count} partitions, {wanted} are configured: the number is fixed for the life of a topic, \
         configure {count} or a new generation with another prefix"
    ))
}

/// Until all brokers know the new topics: an append or a group would else be told they are unknown.
async fn wait_until_spread(inner: &Arc<Inner>, topics: &[TopicSpec]) -> Result<(), LogError> {
    let (inner, topics) = (inner.clone(), topics.to_vec());
    blocking(move || {
        let until = Instant::now() + SPREAD;
        for topic in topics {
            let kafka_topic = inner.config.kafka_topic(&topic.name);
            let partitions: Vec<u32> = (0..topic.partitions).collect();
            loop {
                match inner.clients.partition_count(&kafka_topic)? {
                    Some(count) if count == topic.partitions => {}
                    Some(count) => return Err(other_count(&inner, &topic, count)),
                    None if Instant::now() < until => {
                        std::thread::sleep(Duration::from_millis(50));
                        continue;
                    }
                    None => {
                        return Err(LogError::Unavailable(format!(
                            "kafka topic {kafka_topic} was made but does not appear"
                        )));
                    }
                }
                match inner.clients.ends(&kafka_topic, &partitions) {
                    Ok(_) => break,
                    Err(_) if Instant::now() < until => {
                        std::thread::sleep(Duration::from_millis(50))
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    })
    .await
}

/// The settings of a topic.
fn settings(inner: &Inner, topic: &TopicSpec) -> BTreeMap<&'static str, String> {
    let mut settings = BTreeMap::from([
        ("max.message.bytes", MAX_BATCH.to_string()),
        ("message.timestamp.type", "LogAppendTime".to_owned()),
        ("min.insync.replicas", inner.config.min_insync.to_string()),
    ]);
    match topic.retention {
        Retention::Age(age) => {
            // Whole segments are deleted, so they must be shorter than what is kept.
            let segment = (age / 4).clamp(SHORTEST, Duration::from_secs(86_400));
            settings.insert("cleanup.policy", "delete".to_owned());
            settings.insert("retention.ms", millis(age.max(SHORTEST)).to_string());
            settings.insert("retention.bytes", "-1".to_owned());
            settings.insert("segment.ms", millis(segment).to_string());
        }
        Retention::Compacted => {
            // Small segments are closed, and so compacted, early.
            settings.insert("cleanup.policy", "compact".to_owned());
            settings.insert("min.cleanable.dirty.ratio", "0.1".to_owned());
            settings.insert("segment.bytes", "33554432".to_owned());
            settings.insert("segment.ms", "3600000".to_owned());
        }
    }
    settings
}

/// Milliseconds as Kafka takes them.
fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

struct Admin<'a> {
    inner: &'a Inner,
    client: AdminClient<Health>,
    options: AdminOptions,
    health: Health,
}

impl<'a> Admin<'a> {
    fn new(inner: &'a Inner) -> Result<Self, LogError> {
        let health = inner.clients.health();
        let client = create(&inner.clients.base(), health.clone())?;
        let options = AdminOptions::new()
            .request_timeout(Some(ANSWER))
            .operation_timeout(Some(ANSWER));
        Ok(Self {
            inner,
            client,
            options,
            health,
        })
    }

    async fn create(&self, topics: &[TopicSpec]) -> Result<(), LogError> {
        let described: Vec<_> = topics
            .iter()
            .map(|topic| {
                (
                    self.inner.config.kafka_topic(&topic.name),
                    topic.partitions,
                    settings(self.inner, topic),
                )
            })
            .collect();
        let replication = i32::from(self.inner.config.replication);
        let new: Vec<_> = described
            .iter()
            .map(|(name, partitions, settings)| {
                let topic = NewTopic::new(
                    name,
                    kafka_partition(*partitions),
                    TopicReplication::Fixed(replication),
                );
                settings
                    .iter()
                    .fold(topic, |topic, (key, value)| topic.set(key, value))
            })
            .collect();
        let results = self.client.create_topics(&new, &self.options).await;
        for result in results.map_err(|error| self.health.explain("create topics", &error))? {
            match result {
                // Another process was faster; whether its topic is the same is looked at next.
                Ok(_) | Err((_, Code::TopicAlreadyExists)) => {}
                Err((name, code)) => {
                    return Err(self
                        .health
                        .explain_code(&format!("create topic {name}"), code));
                }
            }
        }
        Ok(())
    }

    /// Changes the settings that differ, and leaves those alone that are not ours.
    async fn update(&self, topics: &[TopicSpec]) -> Result<(), LogError> {
        let wanted: BTreeMap<_, _> = topics
            .iter()
            .map(|topic| {
                (
                    self.inner.config.kafka_topic(&topic.name),
                    settings(self.inner, topic),
                )
            })
            .collect();
        for (name, wanted) in wanted {
            let doing = format!("keep the settings of topic {name}");
            let resource = ResourceSpecifier::Topic(&name);
            let described = self
                .client
                .describe_configs([&resource], &self.options)
                .await;
            let described = described.map_err(|error| self.health.explain(&doing, &error))?;
            let Some(Ok(current)) = described.into_iter().next() else {
                return Err(LogError::Unavailable(format!(
                    "kafka does not tell the settings of topic {name}"
                )));
            };
            let differs = |key: &str, value: &str| {
                current.get(key).and_then(|entry| entry.value.as_deref()) != Some(value)
            };
            if wanted.iter().any(|(key, value)| differs(key, value)) {
                let altered = self
                    .client
                    .alter_configs([&altered(resource, &current, &wanted)], &self.options)
                    .await;
                for result in altered.map_err(|error| self.health.explain(&doing, &error))? {
                    result.map_err(|(_, code)| self.health.explain_code(&doing, code))?;
                }
            }
        }
        Ok(())
    }
}

/// All settings of the topic, for those that are not named fall back to their defaults.
fn altered<'a>(
    resource: ResourceSpecifier<'a>,
    current: &'a ConfigResource,
    wanted: &'a BTreeMap<&'static str, String>,
) -> AlterConfig<'a> {
    let kept = current
        .entries
        .iter()
        .filter(|entry| entry.source == ConfigSource::DynamicTopic)
        .filter_map(|entry| Some((entry.name.as_str(), entry.value.as_deref()?)));
    let ours = wanted.iter().map(|(key, value)| (*key, value.as_str()));
    kept.chain(ours)
        .fold(AlterConfig::new(resource), |config, (key, value)| {
            config.set(key, value)
        })
}

/// Writes the first offset of a group where it has none. Blocks.
fn begin(inner: &Inner, topic: &TopicSpec, group: &str) -> Result<(), LogError> {
    let kafka_topic = inner.config.kafka_topic(&topic.name);
    let kafka_group = inner.config.kafka_group(group, &topic.name);
    let all: Vec<u32> = (0..topic.partitions).collect();
    let without = || -> Result<Vec<u32>, LogError> {
        let committed = inner.clients.committed(&kafka_group, &kafka_topic, &all)?;
        Ok(all
            .iter()
            .zip(committed)
            .filter(|(_, offset)| offset.is_none())
            .map(|(partition, _)| *partition)
            .collect())
    };
    let missing = without()?;
    if missing.is_empty() {
        return Ok(());
    }
    let earliest = inner.clients.earliest(&kafka_topic, &missing)?;
    match commit(inner, &kafka_group, &kafka_topic, &missing, &earliest) {
        Ok(()) => Ok(()),
        // The group has members by now: then another process has just declared it.
        Err(_) if without()?.is_empty() => Ok(()),
        Err(error) => Err(inner.clients.health().explain(
            &format!("write the first offsets of group {kafka_group}"),
            &error,
        )),
    }
}

/// See [`Log::rewind`](super::Log::rewind). Blocks.
pub(super) fn rewind(inner: &Inner, group: &str, topic: &str) -> Result<(), LogError> {
    let kafka_topic = inner.config.kafka_topic(topic);
    let kafka_group = inner.config.kafka_group(group, topic);
    let all: Vec<u32> = (0..inner.partition_count(topic)?).collect();
    marks(inner, &kafka_group, &kafka_topic, &all)?;
    let earliest = inner.clients.earliest(&kafka_topic, &all)?;
    // Offsets from outside a group are taken while it has no members.
    commit(inner, &kafka_group, &kafka_topic, &all, &earliest).map_err(|error| {
        match code_of(&error) {
            Some(Code::UnknownMemberId | Code::IllegalGeneration | Code::RebalanceInProgress) => {
                has_members(group, topic)
            }
            _ => {
                let doing = format!("take back the offsets of group {kafka_group}");
                inner.clients.health().explain(&doing, &error)
            }
        }
    })
}

fn commit(
    inner: &Inner,
    kafka_group: &str,
    kafka_topic: &str,
    partitions: &[u32],
    offsets: &[u64],
) -> Result<(), KafkaError> {
    let client = inner
        .clients
        .asking(Some(kafka_group))
        .map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
    let mut offsets_list = list(kafka_topic, &[], Offset::Invalid)?;
    for (partition, offset) in partitions.iter().zip(offsets) {
        let offset = Offset::Offset(i64::try_from(*offset).unwrap_or(i64::MAX));
        offsets_list.add_partition_offset(kafka_topic, kafka_partition(*partition), offset)?;
    }
    let until = Instant::now() + ANSWER;
    loop {
        match client.commit(&offsets_list, CommitMode::Sync) {
            Err(error)
                if matches!(
                    code_of(&error),
                    Some(Code::WaitingForCoordinator | Code::NotCoordinator)
                ) && Instant::now() < until =>
            {
                std::thread::sleep(Duration::from_millis(100));
            }
            result => return result,
        }
    }
}
