//! A member of a group: the records of the partitions that it owns.

use super::super::{Group, GroupEvent, LogError, Position};
use super::groups::{Assignment, GroupCell};
use super::recent::Entry;
use super::{Cursor, Limit, Progress, Reader, Store, flush, reader};
use async_trait::async_trait;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use tokio::sync::watch;

/// A member; dropping it leaves the group.
pub(crate) struct Member {
    id: u64,
    store: Arc<dyn Store>,
    group: Arc<GroupCell>,
    rebalances: watch::Receiver<u64>,
    progress: watch::Receiver<Progress>,
    owned: BTreeMap<u32, Owned>,
    events: VecDeque<GroupEvent>,
    /// The partition that was served last: the others come first.
    last: u32,
}

struct Owned {
    epoch: u64,
    reader: Reader,
    ready: VecDeque<Entry>,
    paused: bool,
}

impl Member {
    pub(crate) fn join(store: Arc<dyn Store>, group: &str) -> Result<Self, LogError> {
        let group = store.groups().find(group, &store.info().name)?;
        let id = group.join();
        let mut rebalances = group.rebalances();
        rebalances.mark_changed();
        let progress = store.progress();
        let (owned, events) = (BTreeMap::new(), VecDeque::new());
        Ok(Self {
            id,
            store,
            group,
            rebalances,
            progress,
            owned,
            events,
            last: 0,
        })
    }

    /// Takes over what a rebalance has changed.
    fn rebalance(&mut self) {
        let assignments = self.group.assignments(self.id);
        let owned = &mut self.owned;
        let gone: Vec<u32> = owned
            .iter()
            .filter(|(partition, had)| {
                !assignments
                    .iter()
                    .any(|a| a.partition == **partition && a.epoch == had.epoch)
            })
            .map(|(partition, _)| *partition)
            .collect();
        for partition in gone {
            owned.remove(&partition);
            self.events.push_back(GroupEvent::Revoked { partition });
        }
        for assignment in assignments {
            if !self.owned.contains_key(&assignment.partition) {
                self.assign(assignment);
            }
        }
    }

    fn assign(
        &mut self,
        Assignment {
            partition,
            epoch,
            mark,
        }: Assignment,
    ) {
        let cursor = Cursor::new(self.store.seq_of(partition, mark), [(partition, mark)]);
        let reader = Reader::new(Arc::clone(&self.store), cursor, Limit::PAGE);
        let ready = VecDeque::new();
        self.owned.insert(
            partition,
            Owned {
                epoch,
                reader,
                ready,
                paused: false,
            },
        );
        let mark = self.store.info().position(mark);
        self.events.push_back(GroupEvent::Assigned {
            partition,
            epoch,
            mark,
        });
    }

    /// The partitions that are not paused, those after the one served last first.
    fn turns(&self) -> Vec<u32> {
        let active = |range: &mut dyn Iterator<Item = (&u32, &Owned)>| -> Vec<u32> {
            range
                .filter(|(_, owned)| !owned.paused)
                .map(|(partition, _)| *partition)
                .collect()
        };
        let mut turns = active(&mut self.owned.range(self.last.saturating_add(1)..));
        turns.extend(active(&mut self.owned.range(..=self.last)));
        turns
    }

    /// The next record that is ready.
    fn ready(&mut self) -> Option<GroupEvent> {
        for partition in self.turns() {
            let entry = self
                .owned
                .get_mut(&partition)
                .and_then(|owned| owned.ready.pop_front());
            if let Some(entry) = entry {
                self.last = partition;
                return Some(GroupEvent::Record(entry.record));
            }
        }
        None
    }

    /// Reads on where something is to be read. False when every partition is at its end.
    async fn fill(&mut self) -> Result<bool, LogError> {
        for partition in self.turns() {
            let Some(owned) = self.owned.get_mut(&partition) else {
                continue;
            };
            if !owned.reader.at_end() {
                owned.ready.extend(owned.reader.page().await?);
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[async_trait]
impl Group for Member {
    async fn next(&mut self) -> Result<GroupEvent, LogError> {
        loop {
            if self.rebalances.has_changed().unwrap_or(false) {
                self.rebalances.mark_unchanged();
                self.rebalance();
            }
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            if let Some(event) = self.ready() {
                return Ok(event);
            }
            self.progress.mark_unchanged();
            if self.fill().await? {
                continue;
            }
            tokio::select! {
                more = reader::wait(&mut self.progress) => more?,
                _ = self.rebalances.changed() => self.rebalances.mark_changed(),
            }
        }
    }

    fn mark(&mut self, partition: u32, epoch: u64, next: Position) -> Result<(), LogError> {
        let info = self.store.info();
        let end = self
            .store
            .end()
            .offsets
            .get(partition as usize)
            .copied()
            .unwrap_or(0);
        if next.generation != info.generation || next.offset > end {
            return Err(LogError::Refused(format!(
                "mark {}/{} of partition {partition} of topic {} is beyond its end {}/{end}",
                next.generation, next.offset, info.name, info.generation
            )));
        }
        self.group.mark(self.id, partition, epoch, next.offset)
    }

    async fn flush(&mut self) -> Result<(), LogError> {
        flush(Arc::clone(&self.store)).await
    }

    fn pause(&mut self, partition: u32, paused: bool) {
        if let Some(owned) = self.owned.get_mut(&partition) {
            owned.paused = paused;
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.group.leave(self.id);
    }
}
