//! Members of consumer groups.
//!
//! Kafka hands partitions out and takes them back while the client is polled, that is inside
//! [`Group::next`]. What it did is queued and told before any record that came after it. A
//! partition is only taken over once the group's offset of it has been read, and fetched from
//! exactly there.

use super::super::{Group, GroupEvent, LogError, Position};
use super::client::{blocking, create, list, without_errors};
use super::health::{Complaints, Health, code_of, passes};
use super::pulse::Pulse;
use super::tail::{looked_up, overtaken, record};
use super::{Inner, kafka_partition, locked};
use async_trait::async_trait;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{
    BaseConsumer, CommitMode, Consumer, ConsumerContext, RebalanceProtocol, StreamConsumer,
};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long a flush waits for Kafka.
const FLUSH: Duration = Duration::from_secs(15);

/// Names the assignments of all members in this process.
static EPOCHS: AtomicU64 = AtomicU64::new(1);

/// What Kafka did with the partitions.
enum Move {
    Assign(Vec<u32>),
    Revoke(Vec<u32>),
}

/// The client's side of a membership: hears of moves while the client is polled.
struct Membership {
    health: Health,
    moves: Mutex<VecDeque<Move>>,
    moved: Notify,
    leaving: AtomicBool,
}

impl ClientContext for Membership {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.health.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.health.error(error, reason);
    }
}

impl ConsumerContext for Membership {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        event: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        let numbers: Vec<u32> = partitions
            .elements()
            .iter()
            .filter_map(|element| u32::try_from(element.partition()).ok())
            .collect();
        let waits = !numbers.is_empty() && !self.leaving.load(Ordering::Acquire);
        let assigned = event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        let done = match (assigned, consumer.rebalance_protocol()) {
            // The member takes them over when it knows where to begin.
            (true, _) if waits => Ok(()),
            // Kafka waits for an answer also where there is nothing to take over.
            (true, _) => consumer.incremental_assign(partitions),
            (false, RebalanceProtocol::Cooperative) => consumer.incremental_unassign(partitions),
            (false, _) => consumer.unassign(),
        };
        if let Err(error) = done {
            tracing::warn!(%error, "kafka partitions could not be handed over");
        }
        locked(&self.moves).push_back(if assigned {
            Move::Assign(numbers)
        } else {
            Move::Revoke(numbers)
        });
        self.moved.notify_one();
    }
}

/// Partitions and the group's marks of them.
type Marks = Vec<(u32, u64)>;

/// A partition that the member owns.
struct Owned {
    epoch: u64,
    /// The offset of the next record to give out.
    next: u64,
    /// The group's mark.
    mark: u64,
}

/// A member.
pub(super) struct KafkaGroup {
    inner: Arc<Inner>,
    topic: String,
    kafka_topic: String,
    kafka_group: String,
    consumer: Arc<StreamConsumer<Membership>>,
    pulse: Pulse,
    owned: HashMap<u32, Owned>,
    /// Assigned, but not yet taken over.
    pending: Vec<u32>,
    ready: VecDeque<GroupEvent>,
    /// Running while the offsets of the pending partitions are read.
    offsets: Option<JoinHandle<Result<Marks, LogError>>>,
    /// Running while it is looked up what retention has left.
    lookup: Option<JoinHandle<Result<(), LogError>>>,
    complaints: Complaints,
    /// Running while marks are committed.
    flushing: Option<JoinHandle<Result<(), KafkaError>>>,
}

/// See [`Log::group`](super::Log::group).
pub(super) async fn join(
    inner: Arc<Inner>,
    group: String,
    topic: String,
) -> Result<KafkaGroup, LogError> {
    let kafka_topic = inner.config.kafka_topic(&topic);
    let kafka_group = inner.config.kafka_group(&group, &topic);
    {
        let (inner, topic, kafka_topic, kafka_group) = (
            inner.clone(),
            topic.clone(),
            kafka_topic.clone(),
            kafka_group.clone(),
        );
        blocking(move || {
            let partitions: Vec<u32> = (0..inner.partition_count(&topic)?).collect();
            marks(&inner, &kafka_group, &kafka_topic, &partitions)
        })
        .await?
    };
    let consumer = subscribe(&inner, &kafka_group, &kafka_topic)?;
    Ok(KafkaGroup {
        inner,
        topic,
        kafka_topic,
        kafka_group,
        consumer,
        pulse: Pulse::new(),
        owned: HashMap::new(),
        pending: Vec::new(),
        ready: VecDeque::new(),
        offsets: None,
        lookup: None,
        complaints: Complaints::default(),
        flushing: None,
    })
}

/// A new client that asks to be a member.
fn subscribe(
    inner: &Inner,
    kafka_group: &str,
    kafka_topic: &str,
) -> Result<Arc<StreamConsumer<Membership>>, LogError> {
    let mut config = inner.clients.consumer(Some(kafka_group));
    config
        .set("enable.auto.commit", "true")
        .set("auto.commit.interval.ms", "1000")
        .set("session.timeout.ms", "8000")
        .set("heartbeat.interval.ms", "2000")
        .set("max.poll.interval.ms", "60000");
    let membership = Membership {
        health: inner.clients.health(),
        moves: Mutex::default(),
        moved: Notify::new(),
        leaving: AtomicBool::new(false),
    };
    let consumer: StreamConsumer<Membership> = create(&config, membership)?;
    consumer.subscribe(&[kafka_topic]).map_err(|error| {
        inner
            .clients
            .health()
            .explain(&format!("join group {kafka_group}"), &error)
    })?;
    Ok(Arc::new(consumer))
}

/// The marks of a declared group, in the order of the partitions. Blocks.
pub(super) fn marks(
    inner: &Inner,
    kafka_group: &str,
    kafka_topic: &str,
    partitions: &[u32],
) -> Result<Vec<u64>, LogError> {
    let committed = inner
        .clients
        .committed(kafka_group, kafka_topic, partitions)?;
    let marks = committed.into_iter().collect::<Option<Vec<u64>>>();
    marks.ok_or_else(|| {
        LogError::Refused(format!(
            "kafka group {kafka_group} has no offsets: it was never declared, or they have expired; run setup"
        ))
    })
}

impl KafkaGroup {
    fn explain(&self, doing: &str, error: &KafkaError) -> LogError {
        self.inner
            .clients
            .health()
            .explain(&format!("{doing} of group {}", self.kafka_group), error)
    }

    /// Follows what Kafka did while the client was polled.
    fn follow(&mut self) {
        let moves = std::mem::take(&mut *locked(&self.consumer.context().moves));
        for each in moves {
            match each {
                Move::Assign(partitions) => self.pending.extend(partitions),
                Move::Revoke(partitions) => {
                    self.pending.retain(|pending| !partitions.contains(pending));
                    for partition in partitions {
                        if self.owned.remove(&partition).is_some() {
                            self.ready.push_back(GroupEvent::Revoked { partition });
                        }
                    }
                }
            }
        }
    }

    /// Takes over the pending partitions at the group's offsets.
    async fn take_over(&mut self) -> Result<(), LogError> {
        let (inner, kafka_group, kafka_topic) = (
            self.inner.clone(),
            self.kafka_group.clone(),
            self.kafka_topic.clone(),
        );
        let partitions = self.pending.clone();
        let running = self.offsets.get_or_insert_with(|| {
            tokio::task::spawn_blocking(move || {
                let marks = marks(&inner, &kafka_group, &kafka_topic, &partitions)?;
                Ok(partitions.into_iter().zip(marks).collect())
            })
        });
        let result = running.await;
        self.offsets = None;
        let mut taken =
            result.map_err(|error| LogError::Unavailable(format!("kafka client: {error}")))??;
        // Meanwhile partitions may have gone and others come.
        taken.retain(|(partition, _)| self.pending.contains(partition));
        if taken.is_empty() {
            return Ok(());
        }
        self.assign(&taken)
            .map_err(|error| self.explain("take over partitions", &error))?;
        let is_taken = |pending: &u32| taken.iter().any(|(partition, _)| partition == pending);
        self.pending.retain(|pending| !is_taken(pending));
        for (partition, mark) in taken {
            let epoch = EPOCHS.fetch_add(1, Ordering::Relaxed);
            self.owned.insert(
                partition,
                Owned {
                    epoch,
                    next: mark,
                    mark,
                },
            );
            self.ready.push_back(GroupEvent::Assigned {
                partition,
                epoch,
                mark: self.inner.position(mark),
            });
        }
        Ok(())
    }

    fn assign(&self, taken: &[(u32, u64)]) -> Result<(), KafkaError> {
        let mut assignment = TopicPartitionList::with_capacity(taken.len());
        for (partition, offset) in taken {
            let offset = Offset::Offset(i64::try_from(*offset).unwrap_or(i64::MAX));
            assignment.add_partition_offset(
                &self.kafka_topic,
                kafka_partition(*partition),
                offset,
            )?;
        }
        self.consumer.incremental_assign(&assignment)?;
        // The client remembers a pause beyond the ownership, and nobody else would end it.
        let partitions: Vec<u32> = taken.iter().map(|(partition, _)| *partition).collect();
        let taken = list(&self.kafka_topic, &partitions, Offset::Invalid)?;
        self.consumer.resume(&taken)
    }

    /// Deals with what the client gave.
    fn take(
        &mut self,
        received: Result<Option<super::super::Record>, KafkaError>,
    ) -> Result<(), LogError> {
        match received {
            Ok(Some(record)) => {
                self.pulse.heard();
                if let Some(owned) = self.owned.get_mut(&record.partition)
                    && record.position.offset >= owned.next
                {
                    owned.next = record.position.offset + 1;
                    self.ready.push_back(GroupEvent::Record(record));
                }
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(error) => match code_of(&error) {
                Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => {
                    self.look_up();
                    Ok(())
                }
                Some(code) if passes(code) => Ok(()),
                _ => {
                    let error = self.explain("read as member", &error);
                    self.complaints.tell(error).map_or(Ok(()), Err)
                }
            },
        }
    }

    /// Joins anew with a new client; what was owned is another member's until then.
    fn renew(&mut self) -> Result<(), LogError> {
        tracing::warn!(
            group = self.kafka_group,
            "a kafka client is answered no more and is replaced"
        );
        let new = subscribe(&self.inner, &self.kafka_group, &self.kafka_topic)?;
        self.leave();
        self.consumer = new;
        self.pulse = Pulse::new();
        for (partition, _) in self.owned.drain() {
            self.ready.push_back(GroupEvent::Revoked { partition });
        }
        self.pending.clear();
        self.offsets = None;
        self.flushing = None;
        Ok(())
    }

    fn leave(&mut self) {
        self.consumer
            .context()
            .leaving
            .store(true, Ordering::Release);
        self.follow();
        // Kafka's client waits for an answer to an assignment before it leaves.
        if !self.pending.is_empty() {
            let unread: Vec<(u32, u64)> = self
                .pending
                .iter()
                .map(|partition| (*partition, 0))
                .collect();
            if let Err(error) = self.assign(&unread) {
                tracing::warn!(%error, "kafka partitions could not be handed back");
            }
        }
        self.inner.clients.close(self.consumer.clone());
    }

    fn look_up(&mut self) {
        let (inner, kafka_topic) = (self.inner.clone(), self.kafka_topic.clone());
        let nexts = self
            .owned
            .iter()
            .map(|(partition, owned)| (*partition, owned.next))
            .collect();
        self.lookup = Some(tokio::task::spawn_blocking(move || {
            overtaken(&inner, &kafka_topic, nexts)
        }));
    }
}

/// Hands an offset to the client to be committed. (Its call for a single offset adds one to it.)
fn store(
    consumer: &StreamConsumer<Membership>,
    kafka_topic: &str,
    partition: u32,
    next: u64,
) -> Result<(), KafkaError> {
    let next = Offset::Offset(i64::try_from(next).unwrap_or(i64::MAX));
    let offsets = list(kafka_topic, &[partition], next)?;
    consumer.store_offsets(&offsets)?;
    without_errors(&offsets)
}

#[async_trait]
impl Group for KafkaGroup {
    async fn next(&mut self) -> Result<GroupEvent, LogError> {
        loop {
            self.follow();
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            if !self.pending.is_empty() {
                self.take_over().await?;
                continue;
            }
            match looked_up(&mut self.lookup).await {
                None => {}
                Some(Ok(())) => {
                    self.renew()?;
                    continue;
                }
                Some(Err(error)) => {
                    if !matches!(error, LogError::OutOfRange { .. }) {
                        // The client reads no more: the next call looks again.
                        self.look_up();
                    }
                    return Err(error);
                }
            }
            let received = {
                let moved = self.consumer.context().moved.notified();
                tokio::select! {
                    biased;
                    () = moved => continue,
                    received = self.consumer.recv() => received.map(|message| record(&self.inner, &message)),
                    () = self.pulse.lost(&self.consumer, &self.kafka_topic) => {
                        self.renew()?;
                        continue;
                    }
                }
            };
            // What happened before the record came is told before it.
            self.follow();
            self.take(received)?;
        }
    }

    fn mark(&mut self, partition: u32, epoch: u64, next: Position) -> Result<(), LogError> {
        let Some(owned) = self
            .owned
            .get_mut(&partition)
            .filter(|owned| owned.epoch == epoch)
        else {
            return Err(LogError::StaleEpoch);
        };
        let generation = self.inner.config.generation;
        if next.generation != generation {
            let wrong = next.generation;
            return Err(LogError::Refused(format!(
                "mark of generation {wrong} in topic {} of generation {generation}",
                self.topic
            )));
        }
        if next.offset <= owned.mark {
            return Ok(());
        }
        match store(&self.consumer, &self.kafka_topic, partition, next.offset) {
            Ok(()) => {
                owned.mark = next.offset;
                Ok(())
            }
            // Taken away while nobody was listening.
            Err(error) if matches!(code_of(&error), Some(Code::State | Code::UnknownPartition)) => {
                Err(LogError::StaleEpoch)
            }
            Err(error) => Err(self.explain("mark", &error)),
        }
    }

    async fn flush(&mut self) -> Result<(), LogError> {
        let waited_long = || {
            LogError::Unavailable(format!(
                "kafka did not take the marks within {} s",
                FLUSH.as_secs()
            ))
        };
        if let Some(earlier) = &mut self.flushing {
            // It may have begun before the newest marks.
            let _ = timeout(FLUSH, earlier).await.map_err(|_| waited_long())?;
            self.flushing = None;
        }
        let consumer = self.consumer.clone();
        let running = self.flushing.insert(tokio::task::spawn_blocking(move || {
            consumer.commit_consumer_state(CommitMode::Sync)
        }));
        let result = timeout(FLUSH, running).await.map_err(|_| waited_long())?;
        self.flushing = None;
        let result =
            result.map_err(|error| LogError::Unavailable(format!("kafka client: {error}")))?;
        match result.as_ref().map_err(code_of) {
            // Nothing new was marked.
            Ok(()) | Err(Some(Code::NoOffset)) => Ok(()),
            Err(Some(
                Code::IllegalGeneration
                | Code::UnknownMemberId
                | Code::FencedMemberEpoch
                | Code::StaleMemberEpoch,
            )) => Err(LogError::StaleEpoch),
            Err(_) => result.map_err(|error| self.explain("commit the marks", &error)),
        }
    }

    fn pause(&mut self, partition: u32, paused: bool) {
        if !self.owned.contains_key(&partition) {
            return;
        }
        let done = list(&self.kafka_topic, &[partition], Offset::Invalid).and_then(|partitions| {
            match paused {
                true => self.consumer.pause(&partitions),
                false => self.consumer.resume(&partitions),
            }
        });
        if let Err(error) = done {
            tracing::warn!(%error, partition, paused, topic = self.topic, "kafka partition could not be paused or resumed");
        }
    }
}

impl Drop for KafkaGroup {
    fn drop(&mut self) {
        self.leave();
    }
}
