//! A topic of segments: what its writer, its readers and its keeper share.

use super::super::local::{
    Cursor, Entry, Groups, Limit, Point, Progress, Recent, Store, TopicInfo, check_kept, lock,
    wall_us,
};
use super::super::{LogError, Retention};
use super::disk::{Disk, failed};
use super::marks::{MarksFile, Saved};
use super::queue::Queue;
use super::segment::Segment;
use super::{read, recovery, writer};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// Generation of topics that were never made anew.
const FIRST_GENERATION: u16 = 1;

/// A topic.
pub(super) struct Topic {
    pub(super) info: TopicInfo,
    pub(super) dir: PathBuf,
    pub(super) disk: Disk,
    pub(super) queue: Queue,
    pub(super) state: Mutex<State>,
    pub(super) progress: watch::Sender<Progress>,
    /// One compaction or retention at a time.
    pub(super) keeping: Mutex<()>,
    groups: Groups,
    marks: Mutex<Marks>,
    cache_bytes: usize,
}

/// What changes as records are appended and deleted.
pub(super) struct State {
    pub(super) retention: Retention,
    /// Oldest first; the last one is written on. Never empty.
    pub(super) segments: Vec<Segment>,
    /// The newest records.
    pub(super) recent: Recent,
}

struct Marks {
    file: MarksFile,
    /// The count of changes that is saved.
    changes: u64,
}

/// `topic.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    format: u32,
    name: String,
    generation: u16,
    partitions: u32,
    /// How long records are kept, microseconds; none when the topic is compacted.
    age_us: Option<u64>,
}

impl State {
    /// The segment that is written on.
    pub(super) fn active(&self) -> &Segment {
        // Never empty: made with one segment, and only older ones are ever taken out.
        &self.segments[self.segments.len() - 1]
    }

    pub(super) fn active_mut(&mut self) -> &mut Segment {
        let last = self.segments.len() - 1;
        &mut self.segments[last]
    }

    /// Before the oldest record.
    pub(super) fn earliest(&self) -> &Point {
        &self.segments[0].header.base
    }
}

impl Topic {
    /// Makes a new topic in a folder that holds none.
    pub(super) fn create(
        dir: &Path,
        name: &str,
        partitions: u32,
        retention: Retention,
        queue: Queue,
        cache_bytes: usize,
        disk: &Disk,
    ) -> Result<Self, LogError> {
        // What a creation left that did not get to its last step, `topic.json`, is overwritten.
        fs::create_dir_all(dir).map_err(|error| failed("create", dir, &error))?;
        let info = TopicInfo {
            name: name.to_owned(),
            generation: FIRST_GENERATION,
            partitions,
        };
        let segment = writer::first_segment(dir, &info, disk)?;
        let durable = (segment.header.id, segment.len);
        let saved = Saved {
            number: 0,
            durable,
            marks: BTreeMap::new(),
        };
        let file = MarksFile::create(dir, saved, disk)?;
        describe(dir, &info, retention, disk)?;
        if let Some(parent) = dir.parent() {
            disk.sync_dir(parent)
                .map_err(|error| failed("create", dir, &error))?;
        }
        Ok(Self::new(
            dir,
            info,
            retention,
            vec![segment],
            file,
            queue,
            cache_bytes,
            disk,
        ))
    }

    /// Opens the topic of a folder, none when the folder holds none.
    pub(super) fn open(
        dir: &Path,
        queue: Queue,
        cache_bytes: usize,
        disk: &Disk,
    ) -> Result<Option<Self>, LogError> {
        let path = dir.join("topic.json");
        if !path.exists() {
            return Ok(None);
        }
        let json = fs::read(&path).map_err(|error| failed("read", &path, &error))?;
        let description: Description = serde_json::from_slice(&json).map_err(|error| {
            LogError::Refused(format!("cannot understand {}: {error}", path.display()))
        })?;
        let Description {
            format,
            name,
            generation,
            partitions,
            age_us,
        } = description;
        if format != 1 {
            return Err(LogError::Refused(format!(
                "{} has format {format}, this version knows format 1: use a newer version",
                path.display()
            )));
        }
        let info = TopicInfo {
            name,
            generation,
            partitions,
        };
        let retention = age_us.map_or(Retention::Compacted, |us| {
            Retention::Age(Duration::from_micros(us))
        });
        let file = MarksFile::open(dir, disk)?;
        let segments = recovery::open(dir, &info, file.saved().durable, disk)?;
        Ok(Some(Self::new(
            dir,
            info,
            retention,
            segments,
            file,
            queue,
            cache_bytes,
            disk,
        )))
    }

    #[allow(clippy::too_many_arguments)]
    fn new(
        dir: &Path,
        info: TopicInfo,
        retention: Retention,
        segments: Vec<Segment>,
        file: MarksFile,
        queue: Queue,
        cache_bytes: usize,
        disk: &Disk,
    ) -> Self {
        let groups = Groups::default();
        for (name, marks) in &file.saved().marks {
            groups.add(name, marks.clone());
        }
        let state = State {
            retention,
            segments,
            recent: Recent::default(),
        };
        let progress = Progress {
            seq: state.active().end.seq,
            closed: false,
        };
        let marks = Marks {
            file,
            changes: groups.changes(),
        };
        Self {
            info,
            dir: dir.to_owned(),
            disk: disk.clone(),
            queue,
            state: Mutex::new(state),
            progress: watch::Sender::new(progress),
            keeping: Mutex::new(()),
            groups,
            marks: Mutex::new(marks),
            cache_bytes,
        }
    }

    /// Changes the retention and adds groups, durably.
    pub(super) fn redeclare(
        &self,
        retention: Retention,
        groups: &[String],
    ) -> Result<(), LogError> {
        if lock(&self.state).retention != retention {
            describe(&self.dir, &self.info, retention, &self.disk)?;
            lock(&self.state).retention = retention;
        }
        // No segment goes while a group is added at the oldest.
        let _keeping = lock(&self.keeping);
        let earliest = self.earliest().offsets.to_vec();
        let added: Vec<&String> = groups
            .iter()
            .filter(|group| self.groups.add(group, earliest.clone()))
            .collect();
        let saved = self.save_marks();
        if saved.is_err() {
            added.iter().for_each(|group| self.groups.remove(group));
        }
        saved
    }

    /// Takes over a group commit that is durable: `noted` says where its records stand.
    pub(super) fn publish(&self, len: u64, commit: u64, noted: Vec<(u64, Entry)>) {
        let seq = {
            let mut state = lock(&self.state);
            let segment = state.active_mut();
            for (pos, entry) in &noted {
                segment.note(*pos, &read::meta(entry));
            }
            segment.len = len;
            segment.commit = commit;
            let seq = segment.end.seq;
            for (_, entry) in noted {
                state.recent.push(entry);
            }
            state.recent.shrink(self.cache_bytes);
            seq
        };
        self.progress.send_modify(|progress| progress.seq = seq);
    }

    /// The marks that a crash would leave, after saving.
    pub(super) fn durable_marks(&self) -> Result<BTreeMap<String, Vec<u64>>, LogError> {
        self.save_marks()?;
        Ok(lock(&self.marks).file.saved().marks.clone())
    }

    /// Saves the marks and how far the topic is durable, whether or not a mark has changed.
    pub(super) fn save_state(&self) -> Result<(), LogError> {
        let mut marks = lock(&self.marks);
        marks.save(self)
    }

    /// No more is appended; readers are told at the end.
    pub(super) fn end_progress(&self) {
        self.progress.send_modify(|progress| progress.closed = true);
    }

    pub(super) fn is_compacted(&self) -> bool {
        lock(&self.state).retention == Retention::Compacted
    }

    /// Age of the oldest record of the segment that is written on, microseconds.
    pub(super) fn active_age(&self) -> Option<i64> {
        let first = lock(&self.state).active().first_time?;
        Some(wall_us().saturating_sub(first))
    }
}

impl Marks {
    fn save(&mut self, topic: &Topic) -> Result<(), LogError> {
        let changes = topic.groups.changes();
        let durable = {
            let state = lock(&topic.state);
            (state.active().header.id, state.active().len)
        };
        self.file.save(durable, topic.groups.marks())?;
        self.changes = changes;
        Ok(())
    }
}

impl Store for Topic {
    fn info(&self) -> &TopicInfo {
        &self.info
    }

    fn end(&self) -> Point {
        lock(&self.state).active().end.clone()
    }

    fn earliest(&self) -> Point {
        lock(&self.state).earliest().clone()
    }

    fn seq_of(&self, partition: u32, offset: u64) -> u64 {
        let state = lock(&self.state);
        if offset >= state.active().end.offsets[partition as usize] {
            return state.active().end.seq;
        }
        let p = partition as usize;
        if offset < state.earliest().offsets[p] {
            return 0;
        }
        let after = state
            .segments
            .partition_point(|s| s.header.base.offsets[p] <= offset);
        state.segments[after.saturating_sub(1)].seq_of(partition, offset)
    }

    fn seq_at(&self, time: i64) -> u64 {
        let state = lock(&self.state);
        let holds = |segment: &&Segment| !segment.is_empty() && segment.last_time >= time;
        let segment = state.segments.iter().find(holds);
        segment.map_or(state.active().end.seq, |segment| segment.seq_at(time))
    }

    fn recent(&self, cursor: &mut Cursor, limit: Limit) -> Result<Option<Vec<Entry>>, LogError> {
        let state = lock(&self.state);
        check_kept(cursor, state.earliest(), &self.info)?;
        if state.recent.first().is_none_or(|first| cursor.seq < first) {
            return Ok(None);
        }
        Ok(Some(state.recent.read(
            cursor,
            limit,
            state.active().end.seq,
        )))
    }

    fn stored(&self, cursor: &mut Cursor, limit: Limit) -> Result<Vec<Entry>, LogError> {
        read::stored(self, cursor, limit)
    }

    fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    fn groups(&self) -> &Groups {
        &self.groups
    }

    fn save_marks(&self) -> Result<(), LogError> {
        let mut marks = lock(&self.marks);
        if marks.changes == self.groups.changes() {
            Ok(())
        } else {
            marks.save(self)
        }
    }
}

/// Writes `topic.json`.
fn describe(
    dir: &Path,
    info: &TopicInfo,
    retention: Retention,
    disk: &Disk,
) -> Result<(), LogError> {
    let age_us = match retention {
        Retention::Age(age) => Some(u64::try_from(age.as_micros()).unwrap_or(u64::MAX)),
        Retention::Compacted => None,
    };
    let description = Description {
        format: 1,
        name: info.name.clone(),
        generation: info.generation,
        partitions: info.partitions,
        age_us,
    };
    let path = dir.join("topic.json");
    let json = serde_json::to_vec_pretty(&description).map_err(|error| {
        LogError::Refused(format!("cannot describe topic {}: {error}", info.name))
    })?;
    disk.replace(&path, &json)
        .map_err(|error| failed("write", &path, &error))
}

/// Shares a topic.
pub(super) type Shared = Arc<Topic>;
