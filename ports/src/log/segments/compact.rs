//! Compaction: the sealed segments of a topic become one with the newest record of each key.
//!
//! The new file says which segments it covers; giving it its name is the moment it counts. A
//! crash before leaves a file that is removed at the next start, a crash after leaves the covered
//! ones, which are removed then. Records keep their offsets, so readers only meet gaps.

use super::super::local::{lock, wall_us};
use super::super::{LogError, Retention};
use super::disk::failed;
use super::format::{self, Builder, Header, Item, Stored};
use super::items::{Broken, Items};
use super::recovery::damaged;
use super::segment::{self, Segment};
use super::topic::Topic;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::Path;

const CHUNK: usize = 1 << 20;
/// Bytes in one frame of the new segment, about.
const FRAME_BYTES: usize = 1 << 20;

/// A key of a partition, as a hash that nobody finds two keys for.
type Key = [u8; 16];

/// Compacts everything that was appended before.
pub(super) fn compact(topic: &Topic) -> Result<(), LogError> {
    let _keeping = lock(&topic.keeping);
    if lock(&topic.state).retention != Retention::Compacted {
        return Err(LogError::Refused(format!(
            "topic {} is kept by age",
            topic.info.name
        )));
    }
    topic.queue.roll()?;
    let (sealed, next) = {
        let state = lock(&topic.state);
        let last = state.segments.len() - 1;
        (
            state.segments[..last].to_vec(),
            state.segments[last].header.base.clone(),
        )
    };
    let (Some(first), Some(last)) = (sealed.first(), sealed.last()) else {
        return Ok(());
    };
    if sealed.len() == 1 && first.header.version > 0 {
        return Ok(());
    }
    let begun = wall_us();
    let mut newest: HashMap<Key, u64> = HashMap::new();
    each(&sealed, |stored| {
        newest.insert(key(stored), stored.meta.seq);
        Ok(())
    })?;
    let version = sealed.iter().map(|s| s.header.version).max().unwrap_or(0) + 1;
    let header = Header {
        id: last.header.id,
        covers_from: first.header.covers_from,
        version,
        before_len: 0,
        salt: format::salt(),
        ..first.header.clone()
    };
    let mut compacted = write(topic, &sealed, header, &newest)?;
    compacted.end = next;
    swap(topic, &sealed, compacted.clone());
    let bytes = |segments: &[Segment]| segments.iter().map(|s| s.len).sum::<u64>();
    tracing::info!(
        topic = topic.info.name,
        before = bytes(&sealed),
        after = compacted.len,
        keys = newest.len(),
        ms = (wall_us() - begun) / 1000,
        "compacted"
    );
    Ok(())
}

fn key(stored: &Stored) -> Key {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&stored.meta.partition.to_le_bytes());
    hasher.update(&stored.key());
    let mut key = [0; 16];
    hasher.finalize_xof().fill(&mut key);
    key
}

/// Writes the records that stay to a new segment and gives it its name.
fn write(
    topic: &Topic,
    sealed: &[Segment],
    header: Header,
    newest: &HashMap<Key, u64>,
) -> Result<Segment, LogError> {
    let disk = &topic.disk;
    let path = segment::path(&topic.dir, header.id, header.version);
    let new = path.with_extension("new");
    let written = (|| {
        let creating = |error| failed("write", &new, &error);
        let file = disk.create(&new).map_err(creating)?;
        disk.write(&new, &file, &header.encode(), 0)
            .map_err(creating)?;
        let mut segment = Segment::empty(path.clone(), header.clone());
        let mut builder = Builder::new(header.salt, FRAME_BYTES);
        let flush = |segment: &mut Segment, builder: &mut Builder| {
            let full = std::mem::replace(builder, Builder::new(header.salt, FRAME_BYTES));
            segment.commit += 1;
            let bytes = full.finish(segment.commit);
            disk.write(&new, &file, &bytes, segment.len)
                .map_err(creating)?;
            segment.len += bytes.len() as u64;
            Ok(())
        };
        each(sealed, |stored| {
            if newest.get(&key(stored)) != Some(&stored.meta.seq) {
                return Ok(());
            }
            segment.note(segment.len + builder.len() as u64, &stored.meta);
            builder.push(stored.meta, &stored.key(), &stored.value());
            if builder.len() < FRAME_BYTES {
                Ok(())
            } else {
                flush(&mut segment, &mut builder)
            }
        })?;
        if !builder.is_empty() {
            flush(&mut segment, &mut builder)?;
        }
        disk.sync(&new, &file)
            .and_then(|()| disk.rename(&new, &path))
            .and_then(|()| disk.sync_dir(&topic.dir))
            .map_err(creating)?;
        Ok(segment)
    })();
    if written.is_err() {
        disk.remove(&new).ok();
    }
    written
}

/// Puts the compacted segment in the place of the sealed ones, and removes these.
fn swap(topic: &Topic, sealed: &[Segment], compacted: Segment) {
    if let Err(error) = compacted.write_summary(&topic.disk) {
        tracing::debug!(topic = topic.info.name, %error, "no summary of a segment");
    }
    lock(&topic.state)
        .segments
        .splice(..sealed.len(), [compacted]);
    for segment in sealed {
        if let Err(error) = segment.remove(&topic.disk) {
            tracing::warn!(path = %segment.path.display(), %error,
                "a compacted segment could not be removed, the next start tries again");
        }
    }
}

/// Hands over every record, in order, checked.
fn each(
    segments: &[Segment],
    mut take: impl FnMut(&Stored) -> Result<(), LogError>,
) -> Result<(), LogError> {
    for segment in segments {
        let path: &Path = &segment.path;
        let broken = |broken| match broken {
            Broken::Io(error) => failed("read", path, &error),
            Broken::Damaged(pos) => damaged(path, pos, "acknowledged records are not readable"),
        };
        let file = File::open(path).map_err(|error: io::Error| failed("open", path, &error))?;
        let start = segment.start();
        let mut items = Items::new(&file, segment.header.salt, start, segment.len, CHUNK);
        loop {
            let pos = items.pos();
            match items.next().map_err(broken)? {
                None => break,
                Some(Item::Frame(_)) => {}
                Some(Item::Record(stored)) if stored.intact(segment.header.salt) => take(&stored)?,
                Some(Item::Record(_)) => return Err(broken(Broken::Damaged(pos))),
            }
        }
    }
    Ok(())
}
