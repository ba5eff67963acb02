//! Deletes what is old and marked, and decides when a compaction is worth its while.

use super::super::LogError;
use super::super::Retention;
use super::super::local::{lock, wall_us};
use super::compact;
use super::segment::Segment;
use super::topic::Topic;

/// A compaction is made when as much was added as the last one has left, and at least this.
const COMPACT_BYTES: u64 = 16 << 20;
/// A segment is sealed at the latest after this part of the topic's age.
const PARTS_OF_AGE: i64 = 8;

/// Does what is due.
pub(super) fn keep(topic: &Topic) -> Result<(), LogError> {
    let retention = lock(&topic.state).retention;
    match retention {
        Retention::Age(age) => {
            let part = i64::try_from(age.as_micros()).unwrap_or(i64::MAX) / PARTS_OF_AGE;
            if topic.active_age().is_some_and(|old| old >= part) {
                expire_all(topic)
            } else {
                expire(topic)
            }
        }
        Retention::Compacted if worth_compacting(topic) => compact::compact(topic),
        Retention::Compacted => Ok(()),
    }
}

fn worth_compacting(topic: &Topic) -> bool {
    let state = lock(&topic.state);
    let compacted = state
        .segments
        .first()
        .filter(|first| first.header.version > 0);
    let compacted = compacted.map_or(0, |segment| segment.len);
    let all: u64 = state.segments.iter().map(|segment| segment.len).sum();
    all - compacted > compacted.max(COMPACT_BYTES)
}

/// Seals the segment that is written on, and expires. On a full disk it may not be possible to
/// begin a new one; then the others go all the same.
pub(super) fn expire_all(topic: &Topic) -> Result<(), LogError> {
    let rolled = topic.queue.roll();
    expire(topic)?;
    rolled
}

/// Deletes the sealed segments whose newest record is older than the topic's age and that every
/// group has durably marked, oldest first.
pub(super) fn expire(topic: &Topic) -> Result<(), LogError> {
    let _keeping = lock(&topic.keeping);
    let Retention::Age(age) = lock(&topic.state).retention else {
        return Err(LogError::Refused(format!(
            "topic {} is compacted",
            topic.info.name
        )));
    };
    let age = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
    let oldest = wall_us().saturating_sub(age);
    let marks = topic.durable_marks()?;
    let deletable = |segment: &Segment| {
        segment.last_time <= oldest
            && marks.values().all(|marks| {
                marks
                    .iter()
                    .zip(&segment.end.offsets)
                    .all(|(mark, end)| mark >= end)
            })
    };
    loop {
        let segment = {
            let mut state = lock(&topic.state);
            if state.segments.len() < 2 || !deletable(&state.segments[0]) {
                return Ok(());
            }
            let segment = state.segments.remove(0);
            state.recent.forget_before(segment.end.seq);
            segment
        };
        if let Err(error) = segment.remove(&topic.disk) {
            tracing::warn!(path = %segment.path.display(), %error,
                "an expired segment could not be removed, the next start tries again");
        }
    }
}
