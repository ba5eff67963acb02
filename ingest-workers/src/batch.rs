//! What a group's member reads at once.

use nublar_ports::Membership;
use nublar_ports::log::{GroupEvent, Position, Record};
use std::collections::HashMap;
use tokio_util::sync::CancellationToken;

/// The epochs of the partitions that this member owns.
pub(crate) type Epochs = HashMap<u32, u64>;

/// How far each partition may be marked, under which epoch.
pub(crate) type Marks = HashMap<u32, (u64, Position)>;

/// Waits for something to happen. The records that are there then, of partitions that are owned;
/// `limit` of them at most. None at the shutdown.
pub(crate) async fn gather(
    member: &mut Membership,
    epochs: &mut Epochs,
    limit: usize,
    shutdown: &CancellationToken,
) -> Option<Vec<Record>> {
    let mut batch: Vec<Record> = Vec::new();
    let mut next = tokio::select! {
        biased;
        () = shutdown.cancelled() => return None,
        event = member.next() => Some(event),
    };
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
    Some(batch)
}

/// Marks what was done.
pub(crate) fn mark(member: &Membership, marks: Marks) {
    for (partition, (epoch, next)) in marks {
        member.mark(partition, epoch, next);
    }
}
