//! How far groups are behind.

use super::super::{Lag, LogError};
use super::client::{ANSWER, create, list};
use super::group::marks;
use super::health::{Health, code_of};
use super::{Inner, kafka_partition, locked};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Reads single records for their time. It is made when it is first needed.
#[derive(Default)]
pub(super) struct Peeker {
    state: Mutex<Peeking>,
}

#[derive(Default)]
struct Peeking {
    consumer: Option<BaseConsumer<Health>>,
    /// Times of the records at the marks of the last calls, milliseconds since 1970, by topic,
    /// partition and offset: a group that stands still is not read again and again.
    times: HashMap<(String, u32), (u64, i64)>,
}

/// See [`Log::lag`](super::Log::lag). Blocks.
pub(super) fn lag(inner: &Inner, group: &str, topic: &str) -> Result<Vec<Lag>, LogError> {
    let kafka_topic = inner.config.kafka_topic(topic);
    let kafka_group = inner.config.kafka_group(group, topic);
    let partitions: Vec<u32> = (0..inner.partition_count(topic)?).collect();
    let marks = marks(inner, &kafka_group, &kafka_topic, &partitions)?;
    let earliest = inner.clients.earliest(&kafka_topic, &partitions)?;
    let ends = inner.clients.ends(&kafka_topic, &partitions)?;
    let behind: Vec<(u32, u64)> = partitions
        .iter()
        .zip(marks.iter().zip(&earliest).zip(&ends))
        .filter(|(_, ((mark, _), end))| mark < end)
        .map(|(partition, ((mark, earliest), _))| (*partition, *mark.max(earliest)))
        .collect();
    let ages = inner.peeker.ages(inner, &kafka_topic, &behind)?;
    let lag = |((partition, mark), end): ((u32, u64), u64)| Lag {
        partition,
        mark: inner.position(mark),
        // A mark is never beyond the end; the end is asked for last, so it cannot lie behind.
        end: inner.position(end.max(mark)),
        oldest_unmarked: ages.get(&partition).copied(),
    };
    Ok(partitions
        .into_iter()
        .zip(marks)
        .zip(ends)
        .map(lag)
        .collect())
}

impl Peeker {
    /// The ages of the records at (or first after) these offsets; none for a partition where
    /// compaction has left no such record.
    fn ages(
        &self,
        inner: &Inner,
        kafka_topic: &str,
        offsets: &[(u32, u64)],
    ) -> Result<HashMap<u32, Duration>, LogError> {
        let mut state = locked(&self.state);
        let unknown: Vec<(u32, u64)> = offsets
            .iter()
            .filter(|(partition, offset)| {
                state
                    .times
                    .get(&(kafka_topic.to_owned(), *partition))
                    .is_none_or(|(known, _)| known != offset)
            })
            .copied()
            .collect();
        if !unknown.is_empty() {
            let consumer = match state.consumer.take() {
                Some(consumer) => consumer,
                None => {
                    let mut config = inner.clients.consumer(None);
                    config
                        .set("enable.partition.eof", "true")
                        .set("max.partition.fetch.bytes", "65536");
                    create(&config, inner.clients.health())?
                }
            };
            let doing = format!("read the oldest unmarked records of topic {kafka_topic}");
            let times = peek(&consumer, kafka_topic, &unknown)
                .map_err(|error| inner.clients.health().explain(&doing, &error))?;
            state.consumer = Some(consumer);
            for (partition, offset) in unknown {
                match times.get(&partition) {
                    Some(time) => state
                        .times
                        .insert((kafka_topic.to_owned(), partition), (offset, *time)),
                    None => state.times.remove(&(kafka_topic.to_owned(), partition)),
                };
            }
        }
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let age = |millis: i64| {
            now.saturating_sub(Duration::from_millis(u64::try_from(millis).unwrap_or(0)))
        };
        Ok(offsets
            .iter()
            .filter_map(|(partition, _)| {
                let (_, time) = state.times.get(&(kafka_topic.to_owned(), *partition))?;
                Some((*partition, age(*time)))
            })
            .collect())
    }
}

/// The times of the first records at or after these offsets.
fn peek(
    consumer: &BaseConsumer<Health>,
    kafka_topic: &str,
    offsets: &[(u32, u64)],
) -> Result<HashMap<u32, i64>, KafkaError> {
    let mut assignment: TopicPartitionList = list(kafka_topic, &[], Offset::Invalid)?;
    for (partition, offset) in offsets {
        let offset = Offset::Offset(i64::try_from(*offset).unwrap_or(i64::MAX));
        assignment.add_partition_offset(kafka_topic, kafka_partition(*partition), offset)?;
    }
    consumer.assign(&assignment)?;
    let times = poll_each(
        consumer,
        offsets.iter().map(|(partition, _)| *partition).collect(),
    );
    consumer.unassign()?;
    times
}

fn poll_each(
    consumer: &BaseConsumer<Health>,
    mut waiting: Vec<u32>,
) -> Result<HashMap<u32, i64>, KafkaError> {
    let mut times = HashMap::new();
    let until = Instant::now() + ANSWER;
    while !waiting.is_empty() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(KafkaError::MessageConsumption(Code::OperationTimedOut));
        }
        let partition = match consumer.poll(left.min(Duration::from_millis(100))) {
            Some(Ok(message)) => {
                let time = message.timestamp().to_millis().unwrap_or(0);
                let partition = message.partition();
                if let Ok(partition) = u32::try_from(partition) {
                    times.entry(partition).or_insert(time);
                }
                partition
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => partition,
            // Retention has just taken the record: the next call sees it.
            Some(Err(error)) if code_of(&error) == Some(Code::AutoOffsetReset) => {
                return Err(error);
            }
            _ => continue,
        };
        waiting.retain(|each| kafka_partition(*each) != partition);
    }
    Ok(times)
}
