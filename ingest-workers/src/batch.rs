//! What a group's member reads at once.

use nublar_ports::Membership;
use nublar_ports::log::{GroupEvent, Position, Record};
use std::collections::HashMap;

/// The epochs of the partitions that this member owns.
pub(crate) type Epochs = HashMap<u32, u64>;

/// How far each partition may be marked, under which epoch.
pub(crate) type Marks = HashMap<u32, (u64, Position)>;

/// The records that are there, with this event, of partitions that are owned after it; `limit` of
/// them at most.
pub(crate) fn gather(
    event: GroupEvent,
    member: &mut Membership,
    epochs: &mut Epochs,
    limit: usize,
) -> Vec<Record> {
    let mut batch: Vec<Record> = Vec::new();
    let mut next = Some(event);
    while let Some(event) = next {
        match event {
            GroupEvent::Record(record) => batch.push(record),
            GroupEvent::Assigned {
                partition, epoch, ..
            } => {
                epochs.insert(partition, epoch);
            }
            GroupEvent::Revoked { partition } => {
                epochs.remove(&partition);
                batch.retain(|record| record.partition != partition);
            }
        }
        next = if batch.len() >= limit {
            None
        } else {
            member.try_next()
        };
    }
    batch
}

/// Marks what was done.
pub(crate) fn mark(member: &Membership, marks: Marks) {
    for (partition, (epoch, next)) in marks {
        member.mark(partition, epoch, next);
    }
}
