//! Reading partitions without a group.

use super::super::{From, LogError, Position, Record, Tail, TailEvent};
use super::client::{blocking, create, list};
use super::health::{Complaints, Health, code_of, passes};
use super::pulse::Pulse;
use super::{Inner, kafka_partition};
use async_trait::async_trait;
use bytes::Bytes;
use rdkafka::Offset;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::Message;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use tokio::task::JoinHandle;

/// How far one partition was read.
struct Reading {
    /// The offset of the next record to give out.
    next: u64,
    /// The offset to read from: the end, where what is to be given out is waited for.
    from: u64,
    /// Where the partition ended when the tail was opened.
    end: u64,
    caught_up: bool,
}

/// A tail.
pub(super) struct KafkaTail {
    inner: Arc<Inner>,
    kafka_topic: String,
    consumer: Option<Arc<StreamConsumer<Health>>>,
    pulse: Pulse,
    readings: HashMap<u32, Reading>,
    ready: VecDeque<TailEvent>,
    /// Running while it is looked up what retention has left.
    lookup: Option<JoinHandle<Result<(), LogError>>>,
    complaints: Complaints,
}

/// Where a tail begins and where its partitions end, in the order of the partitions.
struct Bounds {
    starts: Vec<u64>,
    ends: Vec<u64>,
}

/// See [`Log::tail`](super::Log::tail).
pub(super) async fn open(
    inner: Arc<Inner>,
    topic: String,
    mut partitions: Vec<u32>,
    from: From,
) -> Result<KafkaTail, LogError> {
    partitions.sort_unstable();
    partitions.dedup();
    let kafka_topic = inner.config.kafka_topic(&topic);
    let bounds = {
        let (inner, kafka_topic, partitions) =
            (inner.clone(), kafka_topic.clone(), partitions.clone());
        blocking(move || {
            inner.check_partitions(&topic, &partitions)?;
            bounds(&inner, &kafka_topic, &partitions, from)
        })
        .await?
    };
    let mut tail = KafkaTail {
        inner,
        kafka_topic,
        consumer: None,
        pulse: Pulse::new(),
        readings: HashMap::new(),
        ready: VecDeque::new(),
        lookup: None,
        complaints: Complaints::default(),
    };
    for ((partition, next), end) in partitions.iter().zip(&bounds.starts).zip(&bounds.ends) {
        tail.readings.insert(
            *partition,
            Reading {
                next: *next,
                // Kafka would call a start beyond the end out of range.
                from: *next.min(end),
                end: *end,
                caught_up: false,
            },
        );
        if next >= end {
            tail.catch_up(*partition);
        }
    }
    if !partitions.is_empty() {
        tail.consumer = Some(tail.assign()?);
    }
    Ok(tail)
}

/// Blocks.
fn bounds(
    inner: &Inner,
    kafka_topic: &str,
    partitions: &[u32],
    from: From,
) -> Result<Bounds, LogError> {
    let clients = &inner.clients;
    let starts = match from {
        From::Now => clients.ends(kafka_topic, partitions)?,
        From::Earliest => clients.earliest(kafka_topic, partitions)?,
        // Kafka counts in milliseconds: rounded down nothing is missed.
        From::Time(micros) => clients.since(kafka_topic, partitions, micros.div_euclid(1_000))?,
        From::Position(position) => {
            let earliest = clients.earliest(kafka_topic, partitions)?;
            let generation = inner.config.generation;
            if position.generation > generation {
                let wanted = position.generation;
                return Err(LogError::Refused(format!(
                    "position is of generation {wanted} of topic {kafka_topic}, which is of generation {generation}: configure the prefix of generation {wanted}"
                )));
            }
            let deleted = earliest.iter().max().filter(|earliest| {
                position.generation < generation || position.offset < **earliest
            });
            if let Some(earliest) = deleted {
                return Err(LogError::OutOfRange {
                    earliest: inner.position(*earliest),
                });
            }
            vec![position.offset; partitions.len()]
        }
    };
    let ends = if from == From::Now {
        starts.clone()
    } else {
        clients.ends(kafka_topic, partitions)?
    };
    Ok(Bounds { starts, ends })
}

impl KafkaTail {
    /// A client that reads from where this tail is.
    fn assign(&self) -> Result<Arc<StreamConsumer<Health>>, LogError> {
        let clients = &self.inner.clients;
        let mut config = clients.consumer(None);
        config.set("enable.partition.eof", "true");
        let consumer: StreamConsumer<Health> = create(&config, clients.health())?;
        let explain = |error: KafkaError| {
            clients
                .health()
                .explain(&format!("read topic {}", self.kafka_topic), &error)
        };
        let mut assignment = list(&self.kafka_topic, &[], Offset::Invalid).map_err(explain)?;
        for (partition, reading) in &self.readings {
            let start = Offset::Offset(i64::try_from(reading.from).unwrap_or(i64::MAX));
            assignment
                .add_partition_offset(&self.kafka_topic, kafka_partition(*partition), start)
                .map_err(explain)?;
        }
        consumer.assign(&assignment).map_err(explain)?;
        Ok(Arc::new(consumer))
    }

    /// Goes on with a new client.
    fn renew(&mut self) -> Result<(), LogError> {
        tracing::warn!(
            topic = self.kafka_topic,
            "a kafka client is answered no more and is replaced"
        );
        let new = self.assign()?;
        if let Some(old) = self.consumer.replace(new) {
            self.inner.clients.close(old);
        }
        self.pulse = Pulse::new();
        Ok(())
    }

    fn catch_up(&mut self, partition: u32) {
        let Some(reading) = self
            .readings
            .get_mut(&partition)
            .filter(|reading| !reading.caught_up)
        else {
            return;
        };
        reading.caught_up = true;
        let to = self.inner.position(reading.end);
        self.ready.push_back(TailEvent::CaughtUp { partition, to });
    }

    fn take(&mut self, record: Record) {
        let (partition, offset) = (record.partition, record.position.offset);
        let Some(reading) = self.readings.get_mut(&partition) else {
            return;
        };
        reading.from = reading.from.max(offset + 1);
        if offset < reading.next {
            return;
        }
        reading.next = offset + 1;
        let end = reading.end;
        // Compaction may have taken the last records before the end.
        if offset >= end {
            self.catch_up(partition);
        }
        self.ready.push_back(TailEvent::Record(record));
        if offset + 1 >= end {
            self.catch_up(partition);
        }
    }

    /// Whether an error is worth telling; [`Code::AutoOffsetReset`] has been dealt with.
    fn heard(&mut self, error: &KafkaError) -> Option<LogError> {
        let told = match code_of(error) {
            Some(code) => !passes(code),
            None => true,
        };
        if !told {
            return None;
        }
        let doing = format!("read topic {}", self.kafka_topic);
        let error = self.inner.clients.health().explain(&doing, error);
        self.complaints.tell(error)
    }

    fn look_up(&mut self) {
        let (inner, kafka_topic) = (self.inner.clone(), self.kafka_topic.clone());
        let froms = self
            .readings
            .iter()
            .map(|(partition, reading)| (*partition, reading.from))
            .collect();
        self.lookup = Some(tokio::task::spawn_blocking(move || {
            overtaken(&inner, &kafka_topic, froms)
        }));
    }
}

/// What a lookup that runs says. Cancel-safe.
pub(super) async fn looked_up(
    lookup: &mut Option<JoinHandle<Result<(), LogError>>>,
) -> Option<Result<(), LogError>> {
    let result = lookup.as_mut()?.await;
    *lookup = None;
    let died = |error| LogError::Unavailable(format!("kafka client: {error}"));
    Some(result.map_err(died).flatten())
}

/// Says why a position to read from was called out of range, `froms` being the candidates; nothing
/// when they are all there. Blocks.
pub(super) fn overtaken(
    inner: &Inner,
    kafka_topic: &str,
    froms: Vec<(u32, u64)>,
) -> Result<(), LogError> {
    let (partitions, froms): (Vec<u32>, Vec<u64>) = froms.into_iter().unzip();
    let earliest = inner.clients.earliest(kafka_topic, &partitions)?;
    let mut kept = froms.iter().zip(&earliest);
    if let Some((_, earliest)) = kept.find(|(from, earliest)| from < earliest) {
        let earliest = inner.position(*earliest);
        return Err(LogError::OutOfRange { earliest });
    }
    let ends = inner.clients.ends(kafka_topic, &partitions)?;
    if froms.iter().zip(&ends).any(|(from, end)| from > end) {
        return Err(LogError::Refused(format!(
            "kafka topic {kafka_topic} ends before what was already read from it: it has lost records or was made anew, \
             configure a new generation"
        )));
    }
    Ok(())
}

/// A record of Kafka as ours.
pub(super) fn record(inner: &Inner, message: &impl Message) -> Option<Record> {
    let partition = u32::try_from(message.partition()).ok()?;
    let offset = u64::try_from(message.offset()).ok()?;
    let bytes = |slice: Option<&[u8]>| slice.map_or_else(Bytes::new, Bytes::copy_from_slice);
    let position: Position = inner.position(offset);
    Some(Record {
        partition,
        position,
        key: bytes(message.key()),
        value: bytes(message.payload()),
    })
}

#[async_trait]
impl Tail for KafkaTail {
    async fn next(&mut self) -> Result<TailEvent, LogError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            match looked_up(&mut self.lookup).await {
                None => {}
                Some(Ok(())) => self.renew()?,
                Some(Err(error)) => {
                    if !matches!(error, LogError::OutOfRange { .. }) {
                        // The client reads no more: the next call looks again.
                        self.look_up();
                    }
                    return Err(error);
                }
            }
            let Some(consumer) = &self.consumer else {
                return futures::future::pending().await;
            };
            let received = tokio::select! {
                biased;
                received = consumer.recv() => received.map(|message| record(&self.inner, &message)),
                () = self.pulse.lost(consumer, &self.kafka_topic) => {
                    self.renew()?;
                    continue;
                }
            };
            match received {
                Ok(record) => {
                    self.pulse.heard();
                    record.into_iter().for_each(|record| self.take(record));
                }
                Err(KafkaError::PartitionEOF(partition)) => {
                    self.pulse.heard();
                    if let Ok(partition) = u32::try_from(partition) {
                        self.catch_up(partition);
                    }
                }
                Err(error)
                    if matches!(
                        code_of(&error),
                        Some(Code::AutoOffsetReset | Code::OffsetOutOfRange)
                    ) =>
                {
                    self.look_up()
                }
                Err(error) => {
                    if let Some(error) = self.heard(&error) {
                        return Err(error);
                    }
                }
            }
        }
    }
}

impl Drop for KafkaTail {
    fn drop(&mut self) {
        if let Some(consumer) = self.consumer.take() {
            self.inner.clients.close(consumer);
        }
    }
}
