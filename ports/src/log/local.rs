//! What the logs that live inside this process share: cursors, tails, groups.
//!
//! A topic counts its records over all partitions: the *sequence number*. Within a topic both the
//! sequence numbers and the times of records only grow, and so do the offsets of one partition
//! along them. A reader therefore needs one number to stand somewhere in all of its partitions.

mod cursor;
mod groups;
mod member;
mod reader;
mod recent;
mod tail;

pub(super) use cursor::{Cursor, Hint};
pub(super) use groups::Groups;
pub(super) use member::Member;
pub(super) use reader::Reader;
pub(super) use recent::{Entry, Limit, Recent};
pub(super) use tail::LocalTail;

use super::{From, Lag, LogError, Position, TopicSpec};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::watch;

/// A clock, microseconds since 1970.
pub(super) type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// The time of this machine, microseconds since 1970.
pub(super) fn wall_us() -> i64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
        })
}

/// Takes a lock; what a thread that panicked left behind is still whole, as every change under
/// these locks is made at once.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A place between two records of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Point {
    /// Sequence number of the first record after it.
    pub(super) seq: u64,
    /// The first offset after it, for every partition.
    pub(super) offsets: Box<[u64]>,
}

/// How far a topic has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Progress {
    /// Sequence number after the last durable record.
    pub(super) seq: u64,
    /// No more will come.
    pub(super) closed: bool,
}

/// What never changes of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TopicInfo {
    pub(super) name: String,
    pub(super) generation: u16,
    pub(super) partitions: u32,
}

impl TopicInfo {
    pub(super) fn position(&self, offset: u64) -> Position {
        Position {
            generation: self.generation,
            offset,
        }
    }

    /// Whether the topic has this partition.
    pub(super) fn check(&self, partition: u32) -> Result<(), LogError> {
        if partition < self.partitions {
            return Ok(());
        }
        Err(LogError::Refused(format!(
            "topic {} has {} partitions, there is no partition {partition}",
            self.name, self.partitions
        )))
    }
}

/// The records of one topic, as tails and groups see them.
pub(super) trait Store: Send + Sync + 'static {
    fn info(&self) -> &TopicInfo;

    /// After the last durable record.
    fn end(&self) -> Point;

    /// Before the oldest record that is kept.
    fn earliest(&self) -> Point;

    /// A sequence number at or before the first record of the partition from `offset` on; 0 when
    /// records from there on were deleted.
    fn seq_of(&self, partition: u32, offset: u64) -> u64;

    /// A sequence number at or before the first record appended at or after `time`.
    fn seq_at(&self, time: i64) -> u64;

    /// The next records, where they are in memory; none where they must be [`stored`](Self::stored).
    fn recent(&self, cursor: &mut Cursor, limit: Limit) -> Result<Option<Vec<Entry>>, LogError>;

    /// The next records, from disk. Blocks. Moves the cursor, or fails.
    fn stored(&self, cursor: &mut Cursor, limit: Limit) -> Result<Vec<Entry>, LogError>;

    fn progress(&self) -> watch::Receiver<Progress>;

    fn groups(&self) -> &Groups;

    /// Makes the marks of all groups durable. Blocks.
    fn save_marks(&self) -> Result<(), LogError>;
}

/// Refuses names and numbers that no topic can have.
pub(super) fn check_spec(spec: &TopicSpec) -> Result<(), LogError> {
    let plain = |name: &str| {
        !name.is_empty()
            && name.len() <= 100
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    if let Some(bad) = std::iter::once(&spec.name)
        .chain(&spec.groups)
        .find(|name| !plain(name.as_str()))
    {
        return Err(LogError::Refused(format!(
            "name {bad:?} of a topic or group: use 1 to 100 of a-z, 0-9 and -"
        )));
    }
    if spec.partitions == 0 || spec.partitions > 4096 {
        return Err(LogError::Refused(format!(
            "topic {}: {} partitions, use 1 to 4096",
            spec.name, spec.partitions
        )));
    }
    Ok(())
}

/// The refusal of another number of partitions than the topic has.
pub(super) fn check_partitions(info: &TopicInfo, spec: &TopicSpec) -> Result<(), LogError> {
    if info.partitions == spec.partitions {
        return Ok(());
    }
    Err(LogError::Refused(format!(
        "topic {} has {} partitions and was declared with {}: the number is fixed for the life of \
         a topic",
        info.name, info.partitions, spec.partitions
    )))
}

/// The refusal of a topic that was never declared.
pub(super) fn unknown_topic(name: &str) -> LogError {
    LogError::Refused(format!("unknown topic {name:?}: declare it first"))
}

/// The refusal of a record without a key in a compacted topic.
pub(super) fn no_key(topic: &str) -> LogError {
    LogError::Refused(format!(
        "record without a key for the compacted topic {topic}"
    ))
}

/// Fails when records that the cursor wants were deleted.
pub(super) fn check_kept(
    cursor: &Cursor,
    earliest: &Point,
    info: &TopicInfo,
) -> Result<(), LogError> {
    if cursor.seq >= earliest.seq {
        return Ok(());
    }
    for (partition, next) in cursor.wanted() {
        let first = earliest.offsets[*partition as usize];
        if *next < first {
            return Err(LogError::OutOfRange {
                earliest: info.position(first),
            });
        }
    }
    Ok(())
}

/// A cursor that begins at `from`.
pub(super) fn cursor(
    store: &dyn Store,
    partitions: &[u32],
    from: From,
    end: &Point,
) -> Result<Cursor, LogError> {
    let info = store.info();
    for partition in partitions {
        info.check(*partition)?;
    }
    let earliest = store.earliest();
    let at = |point: &Point| {
        Cursor::new(
            point.seq,
            partitions.iter().map(|p| (*p, point.offsets[*p as usize])),
        )
    };
    match from {
        From::Earliest => Ok(at(&earliest)),
        From::Now => Ok(at(end)),
        From::Time(time) => {
            let mut cursor = at(&earliest);
            cursor.since = time;
            cursor.seq = cursor.seq.max(store.seq_at(time).min(end.seq));
            Ok(cursor)
        }
        From::Position(position) => {
            for partition in partitions {
                let first = info.position(earliest.offsets[*partition as usize]);
                if position.generation != info.generation || position < first {
                    return Err(LogError::OutOfRange { earliest: first });
                }
            }
            let seq = partitions
                .iter()
                .map(|p| store.seq_of(*p, position.offset))
                .min();
            let seq = seq.unwrap_or(end.seq).max(earliest.seq);
            Ok(Cursor::new(
                seq,
                partitions.iter().map(|p| (*p, position.offset)),
            ))
        }
    }
}

/// Takes the group's marks back to what is kept.
pub(super) async fn rewind(store: Arc<dyn Store>, group: &str) -> Result<(), LogError> {
    let earliest = store.earliest().offsets;
    let topic = &store.info().name;
    if !store.groups().find(group, topic)?.rewind(&earliest) {
        return Err(has_members(group, topic));
    }
    flush(store).await
}

/// Makes the marks of all groups durable.
async fn flush(store: Arc<dyn Store>) -> Result<(), LogError> {
    tokio::task::spawn_blocking(move || store.save_marks())
        .await
        .map_err(|error| LogError::Unavailable(format!("saving marks ended: {error}")))?
}

/// The refusal to move the marks of a group that is at work.
pub(super) fn has_members(group: &str, topic: &str) -> LogError {
    LogError::Refused(format!(
        "group {group} of topic {topic} has members: stop the processes that read it first"
    ))
}

/// How far the group is behind.
pub(super) async fn lag(
    store: Arc<dyn Store>,
    group: &str,
    now: i64,
) -> Result<Vec<Lag>, LogError> {
    let marks = store.groups().find(group, &store.info().name)?.marks();
    let end = store.end();
    let mut lags = Vec::with_capacity(marks.len());
    for (partition, mark) in (0u32..).zip(marks) {
        let last = end.offsets[partition as usize];
        let seq = store.seq_of(partition, mark).max(store.earliest().seq);
        let mut reader = Reader::new(
            Arc::clone(&store),
            Cursor::new(seq, [(partition, mark)]),
            Limit::ONE,
        );
        let mut oldest = None;
        while oldest.is_none() && mark < last && reader.cursor().seq < end.seq {
            oldest = reader.page().await?.first().map(|entry| entry.time);
        }
        lags.push(Lag {
            partition,
            mark: store.info().position(mark),
            end: store.info().position(last),
            oldest_unmarked: oldest
                .map(|time| Duration::from_micros(u64::try_from(now - time).unwrap_or(0))),
        });
    }
    Ok(lags)
}
