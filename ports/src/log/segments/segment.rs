//! What is known of a segment file without reading it: where it begins and ends, and every
//! 128 KiB a milestone from which to search.

use super::super::local::Point;
use super::disk::Disk;
use super::format::{Header, Meta};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_64;

/// Bytes between two milestones, at least.
const MILESTONE_BYTES: u64 = 128 << 10;

/// A segment.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) header: Header,
    /// Where the topic stood after its last record.
    pub(super) end: Point,
    /// Bytes that are durable and whole.
    pub(super) len: u64,
    /// Number of its last group commit.
    pub(super) commit: u64,
    /// Time of its first record.
    pub(super) first_time: Option<i64>,
    /// Time of its last record, or of the last one before it.
    pub(super) last_time: i64,
    milestones: Vec<Milestone>,
}

/// A place in a segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Milestone {
    pos: u64,
    seq: u64,
    time: i64,
    /// The first offset of every partition that is not before this place.
    offsets: Box<[u64]>,
}

/// The file beside a sealed segment that spares reading it at start.
#[derive(Serialize, Deserialize)]
struct Summary {
    salt: u64,
    len: u64,
    commit: u64,
    first_time: Option<i64>,
    last_time: i64,
    end_seq: u64,
    end_offsets: Box<[u64]>,
    milestones: Vec<Milestone>,
}

/// The path of a segment.
pub(super) fn path(dir: &Path, id: u64, version: u32) -> PathBuf {
    dir.join(format!("{id:012}-{version}.log"))
}

/// Number and version of a segment by the name of its file.
pub(super) fn parse_name(name: &str) -> Option<(u64, u32)> {
    let (id, version) = name.strip_suffix(".log")?.split_once('-')?;
    Some((id.parse().ok()?, version.parse().ok()?))
}

impl Segment {
    /// A segment with nothing but its header.
    pub(super) fn empty(path: PathBuf, header: Header) -> Self {
        Self {
            path,
            end: header.base.clone(),
            len: header.own_len(),
            commit: header.base_commit,
            first_time: None,
            last_time: header.base_time,
            milestones: Vec::new(),
            header,
        }
    }

    /// Names the file for a [`Hint`](super::super::local::Hint).
    pub(super) fn file(&self) -> (u64, u32) {
        (self.header.id, self.header.version)
    }

    /// The byte after its header.
    pub(super) fn start(&self) -> u64 {
        self.header.own_len()
    }

    /// Whether it has no record.
    pub(super) fn is_empty(&self) -> bool {
        self.first_time.is_none()
    }

    /// Counts a record that stands at `pos`.
    pub(super) fn note(&mut self, pos: u64, meta: &Meta) {
        if self
            .milestones
            .last()
            .is_none_or(|last| last.pos + MILESTONE_BYTES <= pos)
        {
            let offsets = self.end.offsets.clone();
            self.milestones.push(Milestone {
                pos,
                seq: meta.seq,
                time: meta.time,
                offsets,
            });
        }
        self.end.seq = meta.seq + 1;
        self.end.offsets[meta.partition as usize] = meta.offset + 1;
        self.first_time.get_or_insert(meta.time);
        self.last_time = meta.time;
    }

    /// A byte from which the first record at or after `seq` is found by reading on.
    pub(super) fn pos_of(&self, seq: u64) -> u64 {
        let after = self
            .milestones
            .partition_point(|milestone| milestone.seq <= seq);
        self.milestones
            .get(after.saturating_sub(1))
            .map_or(self.len, |milestone| milestone.pos)
    }

    /// A sequence number at or before the first record of the partition from `offset` on.
    pub(super) fn seq_of(&self, partition: u32, offset: u64) -> u64 {
        let p = partition as usize;
        let after = self
            .milestones
            .partition_point(|milestone| milestone.offsets[p] <= offset);
        if after == 0 {
            self.header.base.seq
        } else {
            self.milestones[after - 1].seq
        }
    }

    /// A sequence number at or before the first record that was appended at or after `time`.
    pub(super) fn seq_at(&self, time: i64) -> u64 {
        let after = self
            .milestones
            .partition_point(|milestone| milestone.time < time);
        if after == 0 {
            self.header.base.seq
        } else {
            self.milestones[after - 1].seq
        }
    }

    fn summary_path(&self) -> PathBuf {
        self.path.with_extension("idx")
    }

    /// Writes the summary of a segment that is sealed. Not synced: a torn one is not believed.
    pub(super) fn write_summary(&self, disk: &Disk) -> std::io::Result<()> {
        let summary = Summary {
            salt: self.header.salt,
            len: self.len,
            commit: self.commit,
            first_time: self.first_time,
            last_time: self.last_time,
            end_seq: self.end.seq,
            end_offsets: self.end.offsets.clone(),
            milestones: self.milestones.clone(),
        };
        let json = serde_json::to_vec(&summary)?;
        let mut bytes = format!("{:016x}\n", xxh3_64(&json)).into_bytes();
        bytes.extend(json);
        let path = self.summary_path();
        let file = disk.create(&path)?;
        disk.write(&path, &file, &bytes, 0)
    }

    /// Fills in what the summary tells. False when there is none that fits.
    pub(super) fn read_summary(&mut self) -> bool {
        let Some(summary) = self.summary() else {
            return false;
        };
        self.len = summary.len;
        self.commit = summary.commit;
        self.first_time = summary.first_time;
        self.last_time = summary.last_time;
        self.end = Point {
            seq: summary.end_seq,
            offsets: summary.end_offsets,
        };
        self.milestones = summary.milestones;
        true
    }

    fn summary(&self) -> Option<Summary> {
        let bytes = fs::read(self.summary_path()).ok()?;
        let (check, json) = (bytes.get(..16)?, bytes.get(17..)?);
        if check != format!("{:016x}", xxh3_64(json)).as_bytes() {
            return None;
        }
        let summary: Summary = serde_json::from_slice(json).ok()?;
        (summary.salt == self.header.salt).then_some(summary)
    }

    /// Removes the files.
    pub(super) fn remove(&self, disk: &Disk) -> std::io::Result<()> {
        disk.remove(&self.summary_path())?;
        disk.remove(&self.path)
    }
}
