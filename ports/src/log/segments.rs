//! The embedded log: a folder of segment files for every topic.
//!
//! ```text
//!  dir/lock                        held by the one process that uses the folder
//!  dir/<topic>/topic.json          partitions, retention, generation
//!  dir/<topic>/marks               marks of the groups
//!  dir/<topic>/000000000001-0.log  records of all partitions, in the order of their commits
//!  dir/<topic>/000000000001-0.idx  where what stands in a sealed segment, spares reading it
//! ```
//!
//! Each topic has a writer thread that turns whatever waits into one group commit; one more thread
//! saves marks, another one deletes and compacts. Readers are served from memory while they keep
//! up, else from the files. Records that are read share the memory of a whole commit or chunk:
//! whoever keeps some for long should copy them.

mod compact;
mod disk;
mod format;
mod items;
mod keep;
mod marks;
mod queue;
mod read;
mod recovery;
mod segment;
#[cfg(test)]
mod tests;
mod topic;
mod writer;

use super::local::{self, LocalTail, Member, Store, lock};
use super::{Append, From, Group, Lag, Log, LogError, Position, Tail, TopicSpec};
use async_trait::async_trait;
use bytes::Bytes;
use disk::{Disk, failed};
use futures::channel::oneshot;
use queue::{Budget, Pending, Queue};
use std::collections::HashMap;
use std::fs::{self, File, TryLockError};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use topic::Topic;
use writer::Writer;

/// How often marks are saved.
const MARKS_EVERY: Duration = Duration::from_millis(200);
/// How often it is looked what is to be deleted or compacted.
const KEEP_EVERY: Duration = Duration::from_secs(10);

/// How the log is set up.
#[derive(Debug, Clone)]
pub struct SegmentsConfig {
    /// The folder, made if it is missing. One process at a time uses it.
    pub dir: PathBuf,
    /// A segment is sealed when it has so many bytes.
    pub segment_bytes: u64,
    /// The largest record, bytes of key and value.
    pub max_record_bytes: usize,
    /// Bytes that may wait to be written, over all topics; beyond it appends fail with
    /// [`LogError::Full`].
    pub queue_bytes: usize,
    /// Bytes of the newest records that are kept in memory for readers, for each topic.
    pub cache_bytes: usize,
}

impl SegmentsConfig {
    /// The defaults: segments of 64 MiB, records of 9 MiB with 4 KiB for the key, 256 MiB waiting,
    /// 8 MiB of each topic in memory.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            segment_bytes: 64 << 20,
            max_record_bytes: (9 << 20) + (4 << 10),
            queue_bytes: 256 << 20,
            cache_bytes: 8 << 20,
        }
    }
}

/// The embedded log. Clones are handles of the same log; when the last one is dropped, what waits
/// is written and the folder is free for another process.
#[derive(Clone)]
pub struct SegmentsLog {
    inner: Arc<Inner>,
}

struct Inner {
    config: SegmentsConfig,
    disk: Disk,
    budget: Arc<Budget>,
    topics: Arc<Topics>,
    /// One declaration at a time.
    declaring: Mutex<()>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    stop: Arc<Stop>,
    /// Holds the lock of the folder.
    folder: Mutex<Option<File>>,
}

type Topics = RwLock<HashMap<String, Arc<Topic>>>;

/// Tells the threads that do things now and then to end.
#[derive(Default)]
struct Stop {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    /// Waits. True when it is time to end.
    fn wait(&self, time: Duration) -> bool {
        let stopped = lock(&self.stopped);
        let waited = self
            .changed
            .wait_timeout_while(stopped, time, |stopped| !*stopped);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn stop(&self) {
        *lock(&self.stopped) = true;
        self.changed.notify_all();
    }
}

impl SegmentsLog {
    /// Opens the log in a folder, or begins one.
    ///
    /// # Errors
    /// Refused when another process uses the folder, when its files are damaged or of a newer
    /// version; Unavailable or Full when files cannot be read or written.
    pub fn open(config: SegmentsConfig) -> Result<Self, LogError> {
        Self::open_on(config, Disk::default())
    }

    fn open_on(config: SegmentsConfig, disk: Disk) -> Result<Self, LogError> {
        let dir = &config.dir;
        fs::create_dir_all(dir).map_err(|error| failed("create", dir, &error))?;
        let folder = take_folder(&config)?;
        let inner = Inner {
            disk,
            budget: Arc::new(Budget::new(config.queue_bytes)),
            topics: Arc::default(),
            declaring: Mutex::default(),
            threads: Mutex::default(),
            stop: Arc::default(),
            folder: Mutex::new(Some(folder)),
            config,
        };
        inner.open_topics()?;
        inner.every("log-marks", MARKS_EVERY, Store::save_marks)?;
        inner.every("log-keep", KEEP_EVERY, keep::keep)?;
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Writes what waits, saves the marks and frees the folder. Appends and readers fail with
    /// [`LogError::Unavailable`] from then on.
    ///
    /// # Errors
    /// The marks could not be saved.
    pub async fn close(&self) -> Result<(), LogError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.close()).await
    }

    /// Compacts a compacted topic now.
    ///
    /// # Errors
    /// Refuses an unknown topic and one that is kept by age; fails when files do.
    pub async fn compact(&self, topic: &str) -> Result<(), LogError> {
        let topic = self.inner.topic(topic)?;
        blocking(move || compact::compact(&topic)).await
    }

    /// Deletes what retention allows to now, the segment that is written on included.
    ///
    /// # Errors
    /// Refuses an unknown topic and one that is compacted; fails when files do.
    pub async fn expire(&self, topic: &str) -> Result<(), LogError> {
        let topic = self.inner.topic(topic)?;
        blocking(move || keep::expire_all(&topic)).await
    }
}

/// Takes the lock of the folder.
fn take_folder(config: &SegmentsConfig) -> Result<File, LogError> {
    let path = config.dir.join("lock");
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|error| failed("open", &path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(LogError::Refused(format!(
            "another process uses the log in {}: stop it, or use another folder",
            config.dir.display()
        ))),
        Err(TryLockError::Error(error)) => Err(failed("lock", &path, &error)),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| LogError::Unavailable(format!("log task ended: {error}")))?
}

impl Inner {
    fn topic(&self, name: &str) -> Result<Arc<Topic>, LogError> {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        topics
            .get(name)
            .cloned()
            .ok_or_else(|| local::unknown_topic(name))
    }

    fn open_topics(&self) -> Result<(), LogError> {
        let dir = &self.config.dir;
        let listed = fs::read_dir(dir).map_err(|error| failed("list", dir, &error))?;
        for entry in listed {
            let path = entry.map_err(|error| failed("list", dir, &error))?.path();
            if !path.is_dir() {
                continue;
            }
            let queue = Queue::new(Arc::clone(&self.budget));
            if let Some(topic) = Topic::open(&path, queue, self.config.cache_bytes, &self.disk)? {
                self.start(topic)?;
            }
        }
        Ok(())
    }

    /// Starts the writer of a topic and makes the topic known.
    fn start(&self, topic: Topic) -> Result<Arc<Topic>, LogError> {
        let topic = Arc::new(topic);
        let writer = Writer::new(Arc::clone(&topic), self.config.segment_bytes)?;
        self.spawn(&format!("log-{}", topic.info.name), move || writer.run())?;
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        topics.insert(topic.info.name.clone(), Arc::clone(&topic));
        Ok(topic)
    }

    fn spawn(&self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), LogError> {
        let spawned = thread::Builder::new().name(name.to_owned()).spawn(run);
        let thread = spawned.map_err(|error| {
            LogError::Unavailable(format!("cannot start thread {name}: {error}"))
        })?;
        lock(&self.threads).push(thread);
        Ok(())
    }

    /// Does something with every topic now and then.
    fn every(
        &self,
        name: &'static str,
        time: Duration,
        what: impl Fn(&Topic) -> Result<(), LogError> + Send + 'static,
    ) -> Result<(), LogError> {
        let (topics, stop) = (Arc::clone(&self.topics), Arc::clone(&self.stop));
        self.spawn(name, move || {
            while !stop.wait(time) {
                let topics: Vec<_> = topics
                    .read()
                    .unwrap_or_else(PoisonError::into_inner)
                    .values()
                    .cloned()
                    .collect();
                for topic in topics {
                    if let Err(error) = what(&topic) {
                        tracing::warn!(topic = topic.info.name, %error, "{name} failed, tries again");
                    }
                }
            }
        })
    }

    fn declare(&self, specs: &[TopicSpec]) -> Result<(), LogError> {
        let _declaring = lock(&self.declaring);
        if lock(&self.folder).is_none() {
            return Err(LogError::Unavailable("the log was closed".into()));
        }
        for spec in specs {
            local::check_spec(spec)?;
            if let Ok(topic) = self.topic(&spec.name) {
                local::check_partitions(&topic.info, spec)?;
            }
        }
        for spec in specs {
            let topic = match self.topic(&spec.name) {
                Ok(topic) => topic,
                Err(_) => self.start(self.create(spec)?)?,
            };
            topic.redeclare(spec.retention, &spec.groups)?;
        }
        Ok(())
    }

    fn create(&self, spec: &TopicSpec) -> Result<Topic, LogError> {
        let queue = Queue::new(Arc::clone(&self.budget));
        let SegmentsConfig {
            dir, cache_bytes, ..
        } = &self.config;
        let TopicSpec {
            name,
            partitions,
            retention,
            ..
        } = spec;
        Topic::create(
            &dir.join(name),
            name,
            *partitions,
            *retention,
            queue,
            *cache_bytes,
            &self.disk,
        )
    }

    fn push(
        &self,
        name: &str,
        partition: u32,
        key: Bytes,
        value: Bytes,
    ) -> Result<oneshot::Receiver<Result<Position, LogError>>, LogError> {
        let topic = self.topic(name)?;
        topic.info.check(partition)?;
        let (size, limit) = (key.len() + value.len(), self.config.max_record_bytes);
        if size > limit {
            return Err(LogError::TooLarge { size, limit });
        }
        if key.is_empty() && topic.is_compacted() {
            return Err(local::no_key(name));
        }
        let (done, result) = oneshot::channel();
        topic.queue.push(Pending {
            partition,
            key,
            value,
            done,
        })?;
        Ok(result)
    }

    fn close(&self) -> Result<(), LogError> {
        self.stop.stop();
        let topics: Vec<_> = {
            let _declaring = lock(&self.declaring);
            let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
            topics.values().cloned().collect()
        };
        for topic in &topics {
            topic.queue.close();
        }
        let threads = std::mem::take(&mut *lock(&self.threads));
        let closing = !threads.is_empty();
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the log panicked");
            }
        }
        if !closing {
            return Ok(());
        }
        let saved: Vec<_> = topics.iter().map(|topic| topic.save_state()).collect();
        topics.iter().for_each(|topic| topic.end_progress());
        if let Some(folder) = lock(&self.folder).take() {
            // Closing alone would not do while a process that is being started still shares it.
            folder.unlock().ok();
        }
        saved.into_iter().collect()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!(%error, "the log was not closed in order, some work will be repeated");
        }
    }
}

#[async_trait]
impl Log for SegmentsLog {
    async fn declare(&self, topics: &[TopicSpec]) -> Result<(), LogError> {
        let (inner, topics) = (Arc::clone(&self.inner), topics.to_vec());
        blocking(move || inner.declare(&topics)).await
    }

    fn append(&self, topic: &str, partition: u32, key: Bytes, value: Bytes) -> Append {
        let pushed = self.inner.push(topic, partition, key, value);
        Box::pin(async move {
            let gone = |_| LogError::Unavailable("the writer of the log ended".into());
            pushed?.await.map_err(gone)?
        })
    }

    async fn end(&self, topic: &str, partition: u32) -> Result<Position, LogError> {
        let topic = self.inner.topic(topic)?;
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
            self.inner.topic(topic)?,
            partitions,
            from,
        )?))
    }

    async fn group(&self, group: &str, topic: &str) -> Result<Box<dyn Group>, LogError> {
        Ok(Box::new(Member::join(self.inner.topic(topic)?, group)?))
    }

    async fn lag(&self, group: &str, topic: &str) -> Result<Vec<Lag>, LogError> {
        local::lag(self.inner.topic(topic)?, group, local::wall_us()).await
    }

    async fn rewind(&self, group: &str, topic: &str) -> Result<(), LogError> {
        local::rewind(self.inner.topic(topic)?, group).await
    }

    async fn partitions(&self, topic: &str) -> Result<u32, LogError> {
        Ok(self.inner.topic(topic)?.info.partitions)
    }
}
