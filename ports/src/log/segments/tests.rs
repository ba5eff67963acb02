//! Tests of the embedded log: the suite, and what only it has.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod crash;
mod faults;
mod keeping;
mod opening;

use super::disk::Disk;
use super::{SegmentsConfig, SegmentsLog};
use crate::log::suite::{Factory, Subject};
use crate::log::{Log, Position, Record, Retention, TailEvent, TopicSpec};
use async_trait::async_trait;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// Logs with segments and a cache of this size.
struct Segments {
    segment_bytes: u64,
    cache_bytes: usize,
}

/// A log that can be killed: from then on nothing reaches its files.
struct Killable {
    dir: TempDir,
    segments: Segments,
    killed: Arc<AtomicBool>,
    log: Option<SegmentsLog>,
}

impl Killable {
    fn open(dir: TempDir, segments: Segments) -> Self {
        let killed = Arc::new(AtomicBool::new(false));
        let gate = Arc::clone(&killed);
        let disk = Disk::with_gate(move |_, _| {
            let killed = gate.load(Ordering::SeqCst);
            if killed {
                Err(io::Error::other("the process was killed"))
            } else {
                Ok(())
            }
        });
        let config = SegmentsConfig {
            segment_bytes: segments.segment_bytes,
            cache_bytes: segments.cache_bytes,
            ..SegmentsConfig::new(dir.path())
        };
        let log = Some(SegmentsLog::open_on(config, disk).unwrap());
        Self {
            dir,
            segments,
            killed,
            log,
        }
    }
}

#[async_trait]
impl Factory for Segments {
    async fn fresh(&self) -> Box<dyn Subject> {
        let Self {
            segment_bytes,
            cache_bytes,
        } = *self;
        let dir = tempfile::tempdir().unwrap();
        Box::new(Killable::open(
            dir,
            Self {
                segment_bytes,
                cache_bytes,
            },
        ))
    }
}

#[async_trait]
impl Subject for Killable {
    fn log(&self) -> Arc<dyn Log> {
        Arc::new(self.log.clone().unwrap())
    }

    fn max_record_bytes(&self) -> usize {
        SegmentsConfig::new("").max_record_bytes
    }

    async fn restart(&mut self) -> bool {
        self.killed.store(true, Ordering::SeqCst);
        self.log = None;
        let Segments {
            segment_bytes,
            cache_bytes,
        } = self.segments;
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap());
        *self = Self::open(
            dir,
            Segments {
                segment_bytes,
                cache_bytes,
            },
        );
        true
    }

    async fn compact(&self, topic: &str) -> bool {
        self.log.as_ref().unwrap().compact(topic).await.unwrap();
        true
    }

    async fn expire(&self, topic: &str) -> bool {
        self.log.as_ref().unwrap().expire(topic).await.unwrap();
        true
    }
}

mod usual {
    use super::*;
    crate::log_suite!(Segments {
        segment_bytes: 64 << 20,
        cache_bytes: 8 << 20
    });
}

mod tiny_segments_and_nothing_in_memory {
    use super::*;
    crate::log_suite!(Segments {
        segment_bytes: 4096,
        cache_bytes: 0
    });
}

mod tiny_segments_and_little_in_memory {
    use super::*;
    crate::log_suite!(Segments {
        segment_bytes: 100_000,
        cache_bytes: 20_000
    });
}

fn open(dir: &Path) -> SegmentsLog {
    SegmentsLog::open(SegmentsConfig::new(dir)).unwrap()
}

fn topic(partitions: u32, groups: &[&str]) -> TopicSpec {
    TopicSpec {
        name: "t".into(),
        partitions,
        retention: Retention::Age(Duration::from_secs(3600)),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
    }
}

/// Everything in the partitions of topic `t`.
async fn read_all(log: &SegmentsLog, partitions: &[u32]) -> Vec<Record> {
    let mut tail = log
        .tail("t", partitions, crate::log::From::Earliest)
        .await
        .unwrap();
    let (mut records, mut behind) = (Vec::new(), partitions.len());
    while behind > 0 {
        let event = tokio::time::timeout(Duration::from_secs(30), tail.next())
            .await
            .unwrap();
        match event.unwrap() {
            TailEvent::Record(record) => records.push(record),
            TailEvent::CaughtUp { .. } => behind -= 1,
        }
    }
    records
}

async fn append(log: &SegmentsLog, value: &str) -> Result<Position, crate::log::LogError> {
    log.append("t", 0, "key".into(), value.to_owned().into())
        .await
}
