//! A log whose topics can be taken away.

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt as _;
use nublar_ports::Log;
use nublar_ports::log::{
    Append, From, Group, Lag, LogError, MemoryLog, Position, Tail, TailEvent, TopicSpec,
};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

/// A log in memory with switches, shared by its clones.
#[derive(Clone)]
pub(crate) struct FaultyLog {
    inner: MemoryLog,
    down: Arc<Mutex<Down>>,
}

#[derive(Default)]
struct Down {
    reads: BTreeSet<String>,
    appends: BTreeSet<String>,
    /// The next event of a tail of this topic is this error.
    tail: Option<(String, LogError)>,
}

fn unavailable<T>() -> Result<T, LogError> {
    Err(LogError::Unavailable("a test said so".into()))
}

impl FaultyLog {
    pub(crate) fn new(inner: MemoryLog) -> Self {
        Self {
            inner,
            down: Arc::default(),
        }
    }

    pub(crate) fn inner(&self) -> &MemoryLog {
        &self.inner
    }

    /// Positions and records of the topic can not be read.
    pub(crate) fn take_reads(&self, topic: &str) {
        self.down.lock().unwrap().reads.insert(topic.into());
    }

    /// The topic takes no records.
    pub(crate) fn take_appends(&self, topic: &str) {
        self.down.lock().unwrap().appends.insert(topic.into());
    }

    /// A tail of the topic fails once.
    pub(crate) fn break_tail(&self, topic: &str, error: LogError) {
        self.down.lock().unwrap().tail = Some((topic.into(), error));
    }

    /// Everything works again.
    pub(crate) fn give_back(&self) {
        *self.down.lock().unwrap() = Down::default();
    }

    fn reads_down(&self, topic: &str) -> bool {
        self.down.lock().unwrap().reads.contains(topic)
    }
}

struct FaultyTail {
    log: FaultyLog,
    topic: String,
    inner: Box<dyn Tail>,
}

#[async_trait]
impl Tail for FaultyTail {
    async fn next(&mut self) -> Result<TailEvent, LogError> {
        loop {
            {
                let mut down = self.log.down.lock().unwrap();
                if down
                    .tail
                    .as_ref()
                    .is_some_and(|(topic, _)| *topic == self.topic)
                {
                    return Err(down.tail.take().unwrap().1);
                }
            }
            if self.log.reads_down(&self.topic) {
                return unavailable();
            }
            let wait = std::time::Duration::from_millis(20);
            if let Ok(event) = tokio::time::timeout(wait, self.inner.next()).await {
                return event;
            }
        }
    }
}

#[async_trait]
impl Log for FaultyLog {
    async fn declare(&self, topics: &[TopicSpec]) -> Result<(), LogError> {
        self.inner.declare(topics).await
    }

    fn append(&self, topic: &str, partition: u32, key: Bytes, value: Bytes) -> Append {
        if self.down.lock().unwrap().appends.contains(topic) {
            return futures::future::ready(unavailable()).boxed();
        }
        self.inner.append(topic, partition, key, value)
    }

    async fn end(&self, topic: &str, partition: u32) -> Result<Position, LogError> {
        if self.reads_down(topic) {
            return unavailable();
        }
        self.inner.end(topic, partition).await
    }

    async fn tail(
        &self,
        topic: &str,
        partitions: &[u32],
        from: From,
    ) -> Result<Box<dyn Tail>, LogError> {
        if self.reads_down(topic) {
            return unavailable();
        }
        let inner = self.inner.tail(topic, partitions, from).await?;
        Ok(Box::new(FaultyTail {
            log: self.clone(),
            topic: topic.into(),
            inner,
        }))
    }

    async fn group(&self, group: &str, topic: &str) -> Result<Box<dyn Group>, LogError> {
        self.inner.group(group, topic).await
    }

    async fn lag(&self, group: &str, topic: &str) -> Result<Vec<Lag>, LogError> {
        self.inner.lag(group, topic).await
    }

    async fn rewind(&self, group: &str, topic: &str) -> Result<(), LogError> {
        self.inner.rewind(group, topic).await
    }

    async fn partitions(&self, topic: &str) -> Result<u32, LogError> {
        self.inner.partitions(topic).await
    }
}
