//! Reads records from the files of a topic.

use super::super::local::{Cursor, Entry, Hint, Limit, check_kept, lock};
use super::super::{LogError, Record};
use super::disk::failed;
use super::format::{Item, Meta, Stored};
use super::items::{Broken, Items};
use super::recovery::damaged;
use super::topic::Topic;
use std::fs::File;
use std::io::ErrorKind;
use std::path::PathBuf;

/// Bytes read at a time.
const CHUNK: usize = 256 << 10;
/// Bytes looked through in one go, wanted or not.
const LOOKED_AT: u64 = 8 << 20;
/// How often a file may vanish (by compaction or retention) between finding and opening it.
const TRIES: usize = 100;

/// Where to read.
struct Plan {
    path: PathBuf,
    file: (u64, u32),
    salt: u64,
    pos: u64,
    len: u64,
    /// Sequence number after the segment.
    end: u64,
}

/// The next records that the cursor wants. Moves the cursor, or fails.
pub(super) fn stored(
    topic: &Topic,
    cursor: &mut Cursor,
    limit: Limit,
) -> Result<Vec<Entry>, LogError> {
    for _ in 0..TRIES {
        let Some(plan) = plan(topic, cursor)? else {
            return Ok(Vec::new());
        };
        match File::open(&plan.path) {
            Ok(file) => return read(topic, cursor, limit, &plan, &file),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(failed("open", &plan.path, &error)),
        }
    }
    Err(LogError::Unavailable(format!(
        "files of topic {} keep vanishing",
        topic.info.name
    )))
}

fn plan(topic: &Topic, cursor: &mut Cursor) -> Result<Option<Plan>, LogError> {
    let state = lock(&topic.state);
    check_kept(cursor, state.earliest(), &topic.info)?;
    cursor.seq = cursor.seq.max(state.earliest().seq);
    let Some(segment) = state
        .segments
        .iter()
        .find(|segment| cursor.seq < segment.end.seq)
    else {
        return Ok(None);
    };
    let hinted = cursor
        .hint
        .filter(|h| h.file == segment.file() && h.seq == cursor.seq);
    Ok(Some(Plan {
        path: segment.path.clone(),
        file: segment.file(),
        salt: segment.header.salt,
        pos: hinted.map_or_else(|| segment.pos_of(cursor.seq), |hint| hint.pos),
        len: segment.len,
        end: segment.end.seq,
    }))
}

fn read(
    topic: &Topic,
    cursor: &mut Cursor,
    limit: Limit,
    plan: &Plan,
    file: &File,
) -> Result<Vec<Entry>, LogError> {
    let unreadable = |broken| match broken {
        Broken::Io(error) => failed("read", &plan.path, &error),
        Broken::Damaged(pos) => damaged(&plan.path, pos, "acknowledged records are not readable"),
    };
    let mut items = Items::new(file, plan.salt, plan.pos, plan.len, CHUNK);
    let (mut page, mut bytes) = (Vec::new(), 0);
    loop {
        let pos = items.pos();
        let Some(item) = items.next().map_err(unreadable)? else {
            cursor.seq = cursor.seq.max(plan.end);
            cursor.hint = None;
            return Ok(page);
        };
        let Item::Record(record) = item else { continue };
        let meta = record.meta;
        if cursor.wants(meta.partition) && !limit.takes(page.len(), bytes, record.len())
            || pos - plan.pos > LOOKED_AT
        {
            cursor.hint = Some(Hint {
                file: plan.file,
                seq: cursor.seq,
                pos,
            });
            return Ok(page);
        }
        if cursor.take(meta.seq, meta.partition, meta.offset, meta.time) {
            if !record.intact(plan.salt) {
                return Err(unreadable(Broken::Damaged(pos)));
            }
            bytes += record.len();
            page.push(entry(topic, &record));
        }
    }
}

fn entry(topic: &Topic, stored: &Stored) -> Entry {
    let meta = stored.meta;
    let record = Record {
        partition: meta.partition,
        position: topic.info.position(meta.offset),
        key: stored.key(),
        value: stored.value(),
    };
    Entry {
        seq: meta.seq,
        time: meta.time,
        record,
    }
}

/// What a segment says of a record.
pub(super) fn meta(entry: &Entry) -> Meta {
    let record = &entry.record;
    Meta {
        seq: entry.seq,
        offset: record.position.offset,
        time: entry.time,
        partition: record.partition,
    }
}
