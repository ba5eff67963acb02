//! A log in memory, for tests and simulation: durable as long as a handle lives.

use super::local::{
    self, Clock, Cursor, Entry, Groups, Limit, LocalTail, Member, Point, Progress, Recent, Store,
    TopicInfo, lock,
};
use super::{
    Append, From, Group, Lag, Log, LogError, Position, Record, Retention, Tail, TopicSpec,
};
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

/// What a record may weigh unless said otherwise: 9 MiB and room for a key.
const MAX_RECORD_BYTES: usize = (9 << 20) + (4 << 10);

/// A log in memory. Clones are handles of the same log; when the last one goes, so do the records.
#[derive(Clone)]
pub struct MemoryLog {
    inner: Arc<Inner>,
}

struct Inner {
    topics: Mutex<BTreeMap<String, Arc<Topic>>>,
    max_record_bytes: usize,
    clock: Clock,
}

struct Topic {
    info: TopicInfo,
    state: Mutex<State>,
    groups: Groups,
    progress: watch::Sender<Progress>,
}

struct State {
    retention: Retention,
    records: Recent,
    earliest: Point,
    end: Point,
    last_time: i64,
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryLog {
    /// An empty log that takes records of about 9 MiB.
    #[must_use]
    pub fn new() -> Self {
        Self::with(MAX_RECORD_BYTES, Arc::new(local::wall_us))
    }

    /// An empty log that takes records of so many bytes (key and value) and reads this clock
    /// (microseconds since 1970).
    #[must_use]
    pub fn with(max_record_bytes: usize, clock: Arc<dyn Fn() -> i64 + Send + Sync>) -> Self {
        let topics = Mutex::default();
        Self {
            inner: Arc::new(Inner {
                topics,
                max_record_bytes,
                clock,
            }),
        }
    }

    /// Keeps only the newest record of each key of a compacted topic.
    ///
    /// # Errors
    /// Refuses an unknown topic and one that is kept by age.
    pub fn compact(&self, topic: &str) -> Result<(), LogError> {
        let topic = self.topic(topic)?;
        let mut state = lock(&topic.state);
        if state.retention != Retention::Compacted {
            return Err(LogError::Refused(format!(
                "topic {} is kept by age",
                topic.info.name
            )));
        }
        let mut newest: HashMap<(u32, Bytes), u64> = HashMap::new();
        for entry in state.records.iter() {
            newest.insert(
                (entry.record.partition, entry.record.key.clone()),
                entry.seq,
            );
        }
        state.records.retain(|entry| {
            let key = (entry.record.partition, entry.record.key.clone());
            newest.get(&key) == Some(&entry.seq)
        });
        Ok(())
    }

    /// Deletes what is older than the topic's retention and marked by all of its groups.
    ///
    /// # Errors
    /// Refuses an unknown topic and one that is compacted.
    pub fn expire(&self, topic: &str) -> Result<(), LogError> {
        let topic = self.topic(topic)?;
        let mut state = lock(&topic.state);
        let Retention::Age(age) = state.retention else {
            return Err(LogError::Refused(format!(
                "topic {} is compacted",
                topic.info.name
            )));
        };
        let age = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
        let oldest = (self.inner.clock)().saturating_sub(age);
        let mut kept = state.end.offsets.clone();
        for marks in topic.groups.marks().values() {
            for (kept, mark) in kept.iter_mut().zip(marks) {
                *kept = (*kept).min(*mark);
            }
        }
        let deletable = |entry: &&Entry| {
            let record = &entry.record;
            entry.time <= oldest && record.position.offset < kept[record.partition as usize]
        };
        let mut earliest = state.earliest.clone();
        for entry in state.records.iter().take_while(deletable) {
            earliest.seq = entry.seq + 1;
            earliest.offsets[entry.record.partition as usize] = entry.record.position.offset + 1;
        }
        state.records.forget_before(earliest.seq);
        state.earliest = earliest;
        Ok(())
    }

    fn topic(&self, name: &str) -> Result<Arc<Topic>, LogError> {
        let topics = lock(&self.inner.topics);
        topics
            .get(name)
            .cloned()
            .ok_or_else(|| local::unknown_topic(name))
    }

    fn append_now(
        &self,
        topic: &str,
        partition: u32,
        key: Bytes,
        value: Bytes,
    ) -> Result<Position, LogError> {
        let topic = self.topic(topic)?;
        topic.info.check(partition)?;
        let (size, limit) = (key.len() + value.len(), self.inner.max_record_bytes);
        if size > limit {
            return Err(LogError::TooLarge { size, limit });
        }
        let (position, seq) = {
            let mut state = lock(&topic.state);
            if state.retention == Retention::Compacted && key.is_empty() {
                return Err(local::no_key(&topic.info.name));
            }
            let time = (self.inner.clock)().max(state.last_time);
            let seq = state.end.seq;
            let position = topic.info.position(state.end.offsets[partition as usize]);
            let record = Record {
                partition,
                position,
                key,
                value,
            };
            state.records.push(Entry { seq, time, record });
            state.last_time = time;
            state.end.seq += 1;
            state.end.offsets[partition as usize] += 1;
            (position, seq + 1)
        };
        topic
            .progress
            .send_modify(|progress| progress.seq = progress.seq.max(seq));
        Ok(position)
    }
}

impl Topic {
    fn new(spec: &TopicSpec) -> Self {
        let info = TopicInfo {
            name: spec.name.clone(),
            generation: 1,
            partitions: spec.partitions,
        };
        let start = Point {
            seq: 0,
            offsets: vec![0; spec.partitions as usize].into(),
        };
        let state = State {
            retention: spec.retention,
            records: Recent::default(),
            earliest: start.clone(),
            end: start,
            last_time: 0,
        };
        Self {
            info,
            state: Mutex::new(state),
            groups: Groups::default(),
            progress: watch::Sender::new(Progress {
                seq: 0,
                closed: false,
            }),
        }
    }
}

impl Store for Topic {
    fn info(&self) -> &TopicInfo {
        &self.info
    }

    fn end(&self) -> Point {
        lock(&self.state).end.clone()
    }

    fn earliest(&self) -> Point {
        lock(&self.state).earliest.clone()
    }

    fn seq_of(&self, partition: u32, offset: u64) -> u64 {
        let state = lock(&self.state);
        if offset < state.earliest.offsets[partition as usize] {
            return 0;
        }
        if offset >= state.end.offsets[partition as usize] {
            return state.end.seq;
        }
        let is_it =
            |r: &&Entry| r.record.partition == partition && r.record.position.offset >= offset;
        state
            .records
            .iter()
            .find(is_it)
            .map_or(state.end.seq, |entry| entry.seq)
    }

    fn seq_at(&self, time: i64) -> u64 {
        let state = lock(&self.state);
        let found = state.records.iter().find(|entry| entry.time >= time);
        found.map_or(state.end.seq, |entry| entry.seq)
    }

    fn recent(&self, cursor: &mut Cursor, limit: Limit) -> Result<Option<Vec<Entry>>, LogError> {
        let state = lock(&self.state);
        local::check_kept(cursor, &state.earliest, &self.info)?;
        Ok(Some(state.records.read(cursor, limit, state.end.seq)))
    }

    fn stored(&self, _: &mut Cursor, _: Limit) -> Result<Vec<Entry>, LogError> {
        Err(LogError::Unavailable(
            "a log in memory stores nothing elsewhere".into(),
        ))
    }

    fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    fn groups(&self) -> &Groups {
        &self.groups
    }

    fn save_marks(&self) -> Result<(), LogError> {
        Ok(())
    }
}

#[async_trait]
impl Log for MemoryLog {
    async fn declare(&self, specs: &[TopicSpec]) -> Result<(), LogError> {
        let mut topics = lock(&self.inner.topics);
        for spec in specs {
            local::check_spec(spec)?;
            if let Some(topic) = topics.get(&spec.name) {
                local::check_partitions(&topic.info, spec)?;
            }
        }
        for spec in specs {
            let topic = topics
                .entry(spec.name.clone())
                .or_insert_with(|| Arc::new(Topic::new(spec)));
            let earliest = {
                let mut state = lock(&topic.state);
                state.retention = spec.retention;
                state.earliest.offsets.to_vec()
            };
            for group in &spec.groups {
                topic.groups.add(group, earliest.clone());
            }
        }
        Ok(())
    }

    fn append(&self, topic: &str, partition: u32, key: Bytes, value: Bytes) -> Append {
        let appended = self.append_now(topic, partition, key, value);
        Box::pin(std::future::ready(appended))
    }

    async fn end(&self, topic: &str, partition: u32) -> Result<Position, LogError> {
        let topic = self.topic(topic)?;
        topic.info.check(partition)?;
        Ok(topic.info.position(topic.end().offsets[partition as usize]))
    }

    async fn tail(
        &self,
        topic: &str,
        partitions: &[u32],
        from: From,
    ) -> Result<Box<dyn Tail>, LogError> {
        Ok(Box::new(LocalTail::open(
            self.topic(topic)?,
            partitions,
            from,
        )?))
    }

    async fn group(&self, group: &str, topic: &str) -> Result<Box<dyn Group>, LogError> {
        Ok(Box::new(Member::join(self.topic(topic)?, group)?))
    }

    async fn lag(&self, group: &str, topic: &str) -> Result<Vec<Lag>, LogError> {
        local::lag(self.topic(topic)?, group, (self.inner.clock)()).await
    }

    async fn rewind(&self, group: &str, topic: &str) -> Result<(), LogError> {
        local::rewind(self.topic(topic)?, group).await
    }

    async fn partitions(&self, topic: &str) -> Result<u32, LogError> {
        Ok(self.topic(topic)?.info.partitions)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::super::{GroupEvent, TailEvent};
    use super::*;
    use std::time::Duration;

    use crate::log::suite::{Factory, Subject};

    struct Memory;

    struct Fresh(MemoryLog);

    #[async_trait]
    impl Factory for Memory {
        async fn fresh(&self) -> Box<dyn Subject> {
            Box::new(Fresh(MemoryLog::new()))
        }
    }

    #[async_trait]
    impl Subject for Fresh {
        fn log(&self) -> Arc<dyn Log> {
            Arc::new(self.0.clone())
        }

        fn max_record_bytes(&self) -> usize {
            MAX_RECORD_BYTES
        }

        async fn compact(&self, topic: &str) -> bool {
            self.0.compact(topic).unwrap();
            true
        }

        async fn expire(&self, topic: &str) -> bool {
            self.0.expire(topic).unwrap();
            true
        }

        /// Nothing of a handle outlives it: a new one is as good as a restart.
        async fn restart(&mut self) -> bool {
            self.0 = self.0.clone();
            true
        }
    }

    crate::log_suite!(Memory);

    #[tokio::test]
    async fn a_record_reaches_tails_and_groups_of_every_handle() {
        let log = MemoryLog::new();
        let spec = TopicSpec {
            name: "t".into(),
            partitions: 2,
            retention: Retention::Age(Duration::from_secs(60)),
            groups: vec!["g".into()],
        };
        log.declare(&[spec]).await.unwrap();
        let mut tail = log
            .clone()
            .tail("t", &[0, 1], From::Earliest)
            .await
            .unwrap();
        for _ in 0..2 {
            assert!(matches!(
                tail.next().await.unwrap(),
                TailEvent::CaughtUp { .. }
            ));
        }
        let mut group = log.clone().group("g", "t").await.unwrap();
        let position = log
            .append("t", 1, Bytes::new(), Bytes::from("v"))
            .await
            .unwrap();
        let record = Record {
            partition: 1,
            position,
            key: Bytes::new(),
            value: "v".into(),
        };
        assert_eq!(
            tail.next().await.unwrap(),
            TailEvent::Record(record.clone())
        );
        for partition in 0..2 {
            let epoch = u64::from(partition) + 1;
            let mark = Position {
                generation: 1,
                offset: 0,
            };
            let assigned = GroupEvent::Assigned {
                partition,
                epoch,
                mark,
            };
            assert_eq!(group.next().await.unwrap(), assigned);
        }
        assert_eq!(group.next().await.unwrap(), GroupEvent::Record(record));
        group
            .mark(
                1,
                2,
                Position {
                    generation: 1,
                    offset: 1,
                },
            )
            .unwrap();
        assert_eq!(group.mark(1, 1, position), Err(LogError::StaleEpoch));
    }
}
