//! Writes a topic: everything that waits becomes one group commit, written, synced, then
//! acknowledged. Nothing lingers: while one commit is synced the next one gathers.

use super::super::LogError;
use super::super::Record;
use super::super::local::{Entry, Point, TopicInfo, lock, wall_us};
use super::disk::{Disk, failed};
use super::format::{self, Builder, Header, Meta, RECORD_LEN};
use super::queue::{Pending, Work};
use super::segment::{self, Segment};
use super::topic::Shared;
use bytes::Bytes;
use std::fs::{File, OpenOptions};
use std::path::Path;

/// The writer of one topic; lives on a thread of its own.
pub(super) struct Writer {
    topic: Shared,
    segment_bytes: u64,
    /// The segment that is written on, as it is on disk.
    segment: Segment,
    file: File,
    /// The end of the file cannot be trusted: it takes no more.
    broken: bool,
}

impl Writer {
    pub(super) fn new(topic: Shared, segment_bytes: u64) -> Result<Self, LogError> {
        let segment = lock(&topic.state).active().clone();
        let file = OpenOptions::new()
            .write(true)
            .open(&segment.path)
            .map_err(|error| failed("open", &segment.path, &error))?;
        Ok(Self {
            topic,
            segment_bytes,
            segment,
            file,
            broken: false,
        })
    }

    /// Writes until the queue is closed and empty.
    pub(super) fn run(mut self) {
        while let Some(work) = self.topic.queue.take() {
            match work {
                Work::Commit(batch) => self.commit(batch),
                Work::Roll(done) => {
                    let rolled = if self.segment.is_empty() {
                        Ok(())
                    } else {
                        self.roll()
                    };
                    // Whoever asked may have gone.
                    done.send(rolled).ok();
                }
            }
        }
    }

    fn commit(&mut self, batch: Vec<Pending>) {
        let written = self.write(&batch);
        self.topic.queue.release(&batch);
        let generation = self.topic.info.generation;
        match written {
            Ok(offsets) => {
                // Last first: who waits for many of them in order is woken once, not by each.
                for (pending, offset) in batch.into_iter().zip(offsets).rev() {
                    let position = super::super::Position { generation, offset };
                    pending.done.send(Ok(position)).ok();
                }
            }
            Err(error) => {
                tracing::warn!(topic = self.topic.info.name, records = batch.len(), %error,
                    "records were not appended");
                for pending in batch {
                    pending.done.send(Err(error.clone())).ok();
                }
            }
        }
    }

    /// Writes and publishes a batch; gives the offsets of its records.
    fn write(&mut self, batch: &[Pending]) -> Result<Vec<u64>, LogError> {
        if self.broken {
            self.roll()?;
        } else if self.segment.len >= self.segment_bytes
            && let Err(error) = self.roll()
        {
            tracing::warn!(topic = self.topic.info.name, %error,
                "no new segment could be begun, the last one grows");
        }
        let (bytes, metas) = self.encode(batch);
        let at = self.segment.len;
        let disk = &self.topic.disk;
        if let Err(error) = disk.write(&self.segment.path, &self.file, &bytes, at) {
            self.broken = disk.cut(&self.segment.path, &self.file, at).is_err();
            return Err(failed("write", &self.segment.path, &error));
        }
        if let Err(error) = disk.sync(&self.segment.path, &self.file) {
            // What the system still holds of it may or may not reach the disk later.
            self.broken = true;
            return Err(failed("sync", &self.segment.path, &error));
        }
        Ok(self.publish(bytes.into(), batch, &metas))
    }

    fn encode(&self, batch: &[Pending]) -> (Vec<u8>, Vec<Meta>) {
        let sum: usize = batch
            .iter()
            .map(|p| RECORD_LEN + p.key.len() + p.value.len())
            .sum();
        let mut builder = Builder::new(self.segment.header.salt, sum);
        let time = wall_us().max(self.segment.last_time);
        let Point {
            mut seq,
            mut offsets,
        } = self.segment.end.clone();
        let mut metas = Vec::with_capacity(batch.len());
        for Pending {
            partition,
            key,
            value,
            ..
        } in batch
        {
            let offset = &mut offsets[*partition as usize];
            let meta = Meta {
                seq,
                offset: *offset,
                time,
                partition: *partition,
            };
            builder.push(meta, key, value);
            metas.push(meta);
            (seq, *offset) = (seq + 1, *offset + 1);
        }
        (builder.finish(self.segment.commit + 1), metas)
    }

    /// Shows the readers what is durable now. They get parts of the commit's own bytes: what the
    /// records were cut from is not held.
    fn publish(&mut self, bytes: Bytes, batch: &[Pending], metas: &[Meta]) -> Vec<u64> {
        let mut noted = Vec::with_capacity(batch.len());
        let mut begin = format::FRAME_LEN;
        for (pending, meta) in batch.iter().zip(metas) {
            let pos = self.segment.len + begin as u64;
            self.segment.note(pos, meta);
            let key = begin + RECORD_LEN..begin + RECORD_LEN + pending.key.len();
            let value = key.end..key.end + pending.value.len();
            begin = value.end;
            let record = Record {
                partition: meta.partition,
                position: self.topic.info.position(meta.offset),
                key: bytes.slice(key),
                value: bytes.slice(value),
            };
            noted.push((
                pos,
                Entry {
                    seq: meta.seq,
                    time: meta.time,
                    record,
                },
            ));
        }
        self.segment.len += bytes.len() as u64;
        self.segment.commit += 1;
        self.topic
            .publish(self.segment.len, self.segment.commit, noted);
        metas.iter().map(|meta| meta.offset).collect()
    }

    /// Begins a new segment.
    fn roll(&mut self) -> Result<(), LogError> {
        let disk = &self.topic.disk;
        let before = &self.segment;
        if self.broken {
            // The new header says how far the old file is good, so this need not succeed.
            disk.cut(&before.path, &self.file, before.len).ok();
        }
        let header = Header {
            generation: self.topic.info.generation,
            id: before.header.id + 1,
            covers_from: before.header.id + 1,
            version: 0,
            before_len: before.len,
            salt: format::salt(),
            base: before.end.clone(),
            base_commit: before.commit,
            base_time: before.last_time,
        };
        let (file, segment) = begin(&self.topic.dir, header, disk)?;
        if let Err(error) = before.write_summary(disk) {
            tracing::debug!(topic = self.topic.info.name, %error, "no summary of a segment");
        }
        lock(&self.topic.state).segments.push(segment.clone());
        (self.file, self.segment, self.broken) = (file, segment, false);
        Ok(())
    }
}

/// Makes the file of a segment, durably, and removes it again if that fails.
fn begin(dir: &Path, header: Header, disk: &Disk) -> Result<(File, Segment), LogError> {
    let path = segment::path(dir, header.id, header.version);
    let made = disk.create(&path).and_then(|file| {
        disk.write(&path, &file, &header.encode(), 0)?;
        disk.sync(&path, &file)?;
        disk.sync_dir(dir)?;
        Ok(file)
    });
    match made {
        Ok(file) => Ok((file, Segment::empty(path, header))),
        Err(error) => {
            // A file that stays is emptied at the next try, and removed at the next start.
            disk.remove(&path).ok();
            Err(failed("create", &path, &error))
        }
    }
}

/// The first segment of a new topic.
pub(super) fn first_segment(
    dir: &Path,
    info: &TopicInfo,
    disk: &Disk,
) -> Result<Segment, LogError> {
    let header = Header {
        generation: info.generation,
        id: 1,
        covers_from: 1,
        version: 0,
        before_len: 0,
        salt: format::salt(),
        base: Point {
            seq: 0,
            offsets: vec![0; info.partitions as usize].into(),
        },
        base_commit: 0,
        base_time: 0,
    };
    begin(dir, header, disk).map(|(_, segment)| segment)
}
