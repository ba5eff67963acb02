//! Appending: two producers, one for records that must leave at once and one for bulk data.

use super::super::{Append, LogError, Position};
use super::client::{ANSWER, Clients, create};
use super::health::{Health, code_of};
use super::{Compression, KafkaConfig, MAX_BATCH, MAX_RECORD, kafka_partition};
use futures::FutureExt;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer, PurgeConfig};
use std::sync::{Arc, PoisonError, RwLock};

/// A producer that is replaced when it has failed for good.
pub(super) struct Lane {
    config: ClientConfig,
    health: Health,
    generation: u16,
    current: RwLock<Current>,
}

#[derive(Clone)]
struct Current {
    number: u64,
    producer: FutureProducer<Health>,
}

impl Lane {
    /// For records that others wait for.
    pub(super) fn control(config: &KafkaConfig, clients: &Clients) -> Result<Self, LogError> {
        let mut properties = shared(clients);
        properties.set("linger.ms", "0");
        Self::new(config, clients, properties)
    }

    /// For bulk data.
    pub(super) fn data(config: &KafkaConfig, clients: &Clients) -> Result<Self, LogError> {
        let mut properties = shared(clients);
        properties.set("linger.ms", "5");
        if config.compression == Compression::Zstd {
            properties
                .set("compression.codec", "zstd")
                .set("compression.level", "1");
        }
        Self::new(config, clients, properties)
    }

    fn new(
        config: &KafkaConfig,
        clients: &Clients,
        properties: ClientConfig,
    ) -> Result<Self, LogError> {
        let health = clients.health();
        let producer = create(&properties, health.clone())?;
        let current = RwLock::new(Current {
            number: 0,
            producer,
        });
        Ok(Self {
            config: properties,
            health,
            generation: config.generation,
            current,
        })
    }

    /// Takes the record's place in the queue to its partition; see [`Log::append`](super::Log::append).
    pub(super) fn append(
        self: &Arc<Self>,
        kafka_topic: String,
        partition: u32,
        key: &[u8],
        value: &[u8],
    ) -> Append {
        let size = key.len() + value.len();
        if size > MAX_RECORD {
            return refused(LogError::TooLarge {
                size,
                limit: MAX_RECORD,
            });
        }
        let record = FutureRecord::to(&kafka_topic)
            .partition(kafka_partition(partition))
            .payload(value);
        // A compacted topic refuses a record without a key, but would take an empty one.
        let record = if key.is_empty() {
            record
        } else {
            record.key(key)
        };
        let (current, sent) = {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            let sent = current
                .producer
                .send_result(record)
                .map_err(|(error, _)| error);
            (current.clone(), sent)
        };
        let delivery = match sent {
            Ok(delivery) => delivery,
            Err(error) => return refused(self.explain(&kafka_topic, size, &current, &error)),
        };
        let lane = self.clone();
        async move {
            match delivery.await {
                Ok(Ok(delivery)) => match u64::try_from(delivery.offset) {
                    Ok(offset) => Ok(Position {
                        generation: lane.generation,
                        offset,
                    }),
                    Err(_) => Err(LogError::Unavailable(format!(
                        "kafka gave no offset for a record of topic {kafka_topic}"
                    ))),
                },
                Ok(Err((error, _))) => Err(lane.explain(&kafka_topic, size, &current, &error)),
                Err(_) => Err(LogError::Unavailable("kafka producer has ended".to_owned())),
            }
        }
        .boxed()
    }

    fn explain(
        &self,
        kafka_topic: &str,
        size: usize,
        failed: &Current,
        error: &KafkaError,
    ) -> LogError {
        // An idempotent producer whose records timed out may go on for ever without sending
        // anything: seen after a broker had hung for longer than its requests may take.
        let timed_out = code_of(error) == Some(Code::MessageTimedOut);
        if timed_out || failed.producer.client().fatal_error().is_some() {
            self.replace(failed.number);
        }
        let doing = format!("append to topic {kafka_topic}");
        match code_of(error) {
            Some(Code::MessageSizeTooLarge | Code::MessageBatchTooLarge) => LogError::TooLarge {
                size,
                limit: MAX_RECORD,
            },
            // The producer that takes the place of the failed one can do it.
            Some(code @ (Code::Fatal | Code::PurgeQueue | Code::PurgeInflight)) => {
                LogError::Unavailable(format!("{doing}: {code}, a new kafka producer was started"))
            }
            _ => self.health.explain(&doing, error),
        }
    }

    /// An idempotent producer that lost track of its sequence stays unusable for ever. What still
    /// waits in it fails at once, so that nothing of it comes behind what the new one is given.
    fn replace(&self, number: u64) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.number != number {
            return;
        }
        match create(&self.config, self.health.clone()) {
            Ok(producer) => {
                tracing::warn!("kafka producer failed for good and was replaced");
                let old = std::mem::replace(
                    &mut *current,
                    Current {
                        number: number + 1,
                        producer,
                    },
                );
                drop(current);
                end(old.producer);
            }
            Err(error) => {
                tracing::error!(%error, "kafka producer failed for good and cannot be replaced")
            }
        }
    }
}

/// Fails what a producer has not sent, and ends it on a thread of its own: that takes a moment.
fn end(producer: FutureProducer<Health>) {
    producer.purge(PurgeConfig::default().queue().inflight());
    let ended = std::thread::Builder::new()
        .name("kafka-end".to_owned())
        .spawn(move || producer.flush(ANSWER));
    if let Err(error) = ended {
        tracing::warn!(%error, "no thread to end a kafka producer on");
    }
}

fn refused(error: LogError) -> Append {
    futures::future::ready(Err(error)).boxed()
}

fn shared(clients: &Clients) -> ClientConfig {
    let mut config = clients.base();
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("message.timeout.ms", "15000")
        .set("request.timeout.ms", "10000")
        .set("topic.metadata.propagation.max.ms", "5000")
        .set("queue.buffering.max.kbytes", "262144")
        .set("queue.buffering.max.messages", "1000000")
        .set("message.max.bytes", MAX_BATCH.to_string());
    config
}
