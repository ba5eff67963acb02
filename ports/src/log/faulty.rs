//! A log that fails when a test says so.

use super::{Append, From, Group, GroupEvent, Lag, Log, LogError, Position, Tail, TailEvent};
use super::{TopicSpec, local::lock};
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// Names every topic in a call of [`Faults`]. What is said of one topic by name goes before.
pub const EVERY_TOPIC: &str = "*";

/// How long a failing read takes to say so, so that a loop that tries again does not spin.
const SAYING_SO: Duration = Duration::from_millis(10);

/// What happens to appends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AppendFault {
    /// They work.
    #[default]
    None,
    /// They fail with [`LogError::Unavailable`] and do not happen.
    Unavailable,
    /// They happen, and fail with [`LogError::Unavailable`] all the same.
    HappensButFails,
    /// They fail with [`LogError::Full`] and do not happen.
    Full,
}

/// A log around another one. Clones share their faults.
#[derive(Clone)]
pub struct FaultyLog<L> {
    inner: L,
    faults: Faults,
}

/// The switches of a [`FaultyLog`], to be thrown at any time. Clones are the same switches.
#[derive(Clone, Default)]
pub struct Faults {
    rules: Arc<Mutex<BTreeMap<String, Rules>>>,
    changes: watch::Sender<()>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Rules {
    appends: Option<AppendFault>,
    reads_fail: Option<bool>,
    marks_fail: Option<bool>,
    delay: Option<Duration>,
}

impl Faults {
    /// Lets the appends to a topic work or fail.
    pub fn appends(&self, topic: &str, fault: AppendFault) {
        self.change(topic, |rules| rules.appends = Some(fault));
    }

    /// Lets reads of a topic (`end`, `tail`, `group`, `lag`, and what tails and members wait for)
    /// fail with [`LogError::Unavailable`], or work again.
    pub fn reads(&self, topic: &str, fail: bool) {
        self.change(topic, |rules| rules.reads_fail = Some(fail));
    }

    /// Lets [`Group::flush`] on a topic fail with [`LogError::Unavailable`], or work again.
    pub fn marks(&self, topic: &str, fail: bool) {
        self.change(topic, |rules| rules.marks_fail = Some(fail));
    }

    /// Acknowledges appends to a topic so much later than they happen.
    pub fn delay(&self, topic: &str, delay: Duration) {
        self.change(topic, |rules| rules.delay = Some(delay));
    }

    /// Everything works again.
    pub fn clear(&self) {
        lock(&self.rules).clear();
        self.changes.send_replace(());
    }

    fn change(&self, topic: &str, change: impl FnOnce(&mut Rules)) {
        change(lock(&self.rules).entry(topic.to_owned()).or_default());
        self.changes.send_replace(());
    }

    fn of<T>(&self, topic: &str, rule: impl Fn(&Rules) -> Option<T>) -> Option<T> {
        let rules = lock(&self.rules);
        [topic, EVERY_TOPIC]
            .iter()
            .find_map(|name| rules.get(*name).and_then(&rule))
    }

    fn reads_fail(&self, topic: &str) -> bool {
        self.of(topic, |rules| rules.reads_fail).unwrap_or(false)
    }

    async fn check_read(&self, topic: &str) -> Result<(), LogError> {
        if !self.reads_fail(topic) {
            return Ok(());
        }
        tokio::time::sleep(SAYING_SO).await;
        Err(fault(topic))
    }

    /// Waits for `next`, or for reads of the topic to fail.
    async fn read<T>(
        &self,
        topic: &str,
        next: impl Future<Output = Result<T, LogError>> + Send,
    ) -> Result<T, LogError> {
        let mut changes = self.changes.subscribe();
        tokio::pin!(next);
        loop {
            self.check_read(topic).await?;
            tokio::select! {
                // The sender lives as long as `self`.
                _ = changes.changed() => {}
                event = &mut next => return event,
            }
        }
    }
}

fn fault(topic: &str) -> LogError {
    LogError::Unavailable(format!("a test lets topic {topic} fail"))
}

impl<L> FaultyLog<L> {
    /// A log that works until it is told not to.
    pub fn new(inner: L) -> Self {
        Self {
            inner,
            faults: Faults::default(),
        }
    }

    /// Its switches.
    pub fn faults(&self) -> Faults {
        self.faults.clone()
    }

    /// The log inside, without faults.
    pub fn inner(&self) -> &L {
        &self.inner
    }
}

#[async_trait]
impl<L: Log> Log for FaultyLog<L> {
    async fn declare(&self, topics: &[TopicSpec]) -> Result<(), LogError> {
        for topic in topics {
            self.faults.check_read(&topic.name).await?;
        }
        self.inner.declare(topics).await
    }

    fn append(&self, topic: &str, partition: u32, key: Bytes, value: Bytes) -> Append {
        let fails = fault(topic);
        let full = || LogError::Full(format!("a test lets topic {topic} be full"));
        let rule = self
            .faults
            .of(topic, |rules| rules.appends)
            .unwrap_or_default();
        let delay = self.faults.of(topic, |rules| rules.delay);
        let appended = match rule {
            AppendFault::Unavailable => Err(fails.clone()),
            AppendFault::Full => Err(full()),
            AppendFault::None | AppendFault::HappensButFails => {
                Ok(self.inner.append(topic, partition, key, value))
            }
        };
        Box::pin(async move {
            let position = appended?.await?;
            if let Some(delay) = delay {
                tokio::time::sleep(delay).await;
            }
            if rule == AppendFault::HappensButFails {
                Err(fails)
            } else {
                Ok(position)
            }
        })
    }

    async fn end(&self, topic: &str, partition: u32) -> Result<Position, LogError> {
        self.faults.check_read(topic).await?;
        self.inner.end(topic, partition).await
    }

    async fn tail(
        &self,
        topic: &str,
        partitions: &[u32],
        from: From,
    ) -> Result<Box<dyn Tail>, LogError> {
        self.faults.check_read(topic).await?;
        let inner = self.inner.tail(topic, partitions, from).await?;
        Ok(Box::new(FaultyTail {
            inner,
            topic: topic.to_owned(),
            faults: self.faults(),
        }))
    }

    async fn group(&self, group: &str, topic: &str) -> Result<Box<dyn Group>, LogError> {
        self.faults.check_read(topic).await?;
        let inner = self.inner.group(group, topic).await?;
        Ok(Box::new(FaultyGroup {
            inner,
            topic: topic.to_owned(),
            faults: self.faults(),
        }))
    }

    async fn lag(&self, group: &str, topic: &str) -> Result<Vec<Lag>, LogError> {
        self.faults.check_read(topic).await?;
        self.inner.lag(group, topic).await
    }

    async fn rewind(&self, group: &str, topic: &str) -> Result<(), LogError> {
        self.faults.check_read(topic).await?;
        self.inner.rewind(group, topic).await
    }

    async fn partitions(&self, topic: &str) -> Result<u32, LogError> {
        self.inner.partitions(topic).await
    }
}

struct FaultyTail {
    inner: Box<dyn Tail>,
    topic: String,
    faults: Faults,
}

#[async_trait]
impl Tail for FaultyTail {
    async fn next(&mut self) -> Result<TailEvent, LogError> {
        self.faults.read(&self.topic, self.inner.next()).await
    }
}

struct FaultyGroup {
    inner: Box<dyn Group>,
    topic: String,
    faults: Faults,
}

#[async_trait]
impl Group for FaultyGroup {
    async fn next(&mut self) -> Result<GroupEvent, LogError> {
        self.faults.read(&self.topic, self.inner.next()).await
    }

    fn mark(&mut self, partition: u32, epoch: u64, next: Position) -> Result<(), LogError> {
        self.inner.mark(partition, epoch, next)
    }

    async fn flush(&mut self) -> Result<(), LogError> {
        if self
            .faults
            .of(&self.topic, |rules| rules.marks_fail)
            .unwrap_or(false)
        {
            return Err(fault(&self.topic));
        }
        self.inner.flush().await
    }

    fn pause(&mut self, partition: u32, paused: bool) {
        self.inner.pause(partition, paused);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::super::{MemoryLog, Retention};
    use super::*;

    use crate::log::suite::{Factory, Subject};

    struct Faulty;

    /// A log that could fail and does not.
    struct Healthy(FaultyLog<MemoryLog>);

    #[async_trait]
    impl Factory for Faulty {
        async fn fresh(&self) -> Box<dyn Subject> {
            let log = MemoryLog::with(9 << 20, Arc::new(super::super::local::wall_us));
            Box::new(Healthy(FaultyLog::new(log)))
        }
    }

    #[async_trait]
    impl Subject for Healthy {
        fn log(&self) -> Arc<dyn Log> {
            Arc::new(self.0.clone())
        }

        fn max_record_bytes(&self) -> usize {
            9 << 20
        }
    }

    crate::log_suite!(Faulty);

    async fn faulty() -> FaultyLog<MemoryLog> {
        let log = FaultyLog::new(MemoryLog::new());
        let spec = |name: &str| TopicSpec {
            name: name.into(),
            partitions: 1,
            retention: Retention::Age(Duration::from_secs(60)),
            groups: vec!["g".into()],
        };
        log.declare(&[spec("a"), spec("b")]).await.unwrap();
        log
    }

    async fn append(log: &FaultyLog<MemoryLog>, topic: &str) -> Result<Position, LogError> {
        log.append(topic, 0, Bytes::new(), Bytes::from("v")).await
    }

    #[tokio::test]
    async fn appends_fail_by_topic_and_may_have_happened() {
        let log = faulty().await;
        let count = async |topic: &str| log.inner().end(topic, 0).await.unwrap().offset;
        log.faults().appends("a", AppendFault::Unavailable);
        assert!(matches!(
            append(&log, "a").await,
            Err(LogError::Unavailable(_))
        ));
        append(&log, "b").await.unwrap();
        assert_eq!((count("a").await, count("b").await), (0, 1));
        log.faults().appends(EVERY_TOPIC, AppendFault::Full);
        assert!(matches!(
            append(&log, "a").await,
            Err(LogError::Unavailable(_))
        ));
        assert!(matches!(append(&log, "b").await, Err(LogError::Full(_))));
        log.faults().appends("a", AppendFault::HappensButFails);
        assert!(matches!(
            append(&log, "a").await,
            Err(LogError::Unavailable(_))
        ));
        assert_eq!((count("a").await, count("b").await), (1, 1));
        log.faults().clear();
        append(&log, "a").await.unwrap();
        append(&log, "b").await.unwrap();
        assert_eq!((count("a").await, count("b").await), (2, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn failing_reads_wake_who_waits_and_lose_nothing() {
        let log = faulty().await;
        let mut tail = log.tail("a", &[0], From::Now).await.unwrap();
        assert!(matches!(tail.next().await, Ok(TailEvent::CaughtUp { .. })));
        let mut group = log.group("g", "a").await.unwrap();
        assert!(matches!(
            group.next().await,
            Ok(GroupEvent::Assigned { .. })
        ));
        let waiting =
            tokio::spawn(async move { (tail.next().await, group.next().await, tail, group) });
        tokio::task::yield_now().await;
        log.faults().reads("a", true);
        let (tailed, grouped, mut tail, mut group) = waiting.await.unwrap();
        assert!(matches!(tailed, Err(LogError::Unavailable(_))));
        assert!(matches!(grouped, Err(LogError::Unavailable(_))));
        assert!(matches!(
            log.end("a", 0).await,
            Err(LogError::Unavailable(_))
        ));
        assert!(matches!(
            log.tail("a", &[0], From::Now).await,
            Err(LogError::Unavailable(_))
        ));
        log.end("b", 0).await.unwrap();
        append(&log, "a").await.unwrap();
        assert!(tail.next().await.is_err());
        log.faults().reads("a", false);
        assert!(matches!(tail.next().await, Ok(TailEvent::Record(_))));
        assert!(matches!(group.next().await, Ok(GroupEvent::Record(_))));
        log.faults().marks("a", true);
        assert!(group.flush().await.is_err());
        log.faults().marks("a", false);
        group.flush().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn acknowledgements_come_late() {
        let log = faulty().await;
        log.faults().delay("a", Duration::from_secs(5));
        let start = tokio::time::Instant::now();
        let appending = log.append("a", 0, Bytes::new(), Bytes::from("v"));
        assert_eq!(
            log.end("a", 0).await.unwrap().offset,
            1,
            "it has happened already"
        );
        appending.await.unwrap();
        assert_eq!(start.elapsed(), Duration::from_secs(5));
    }
}
