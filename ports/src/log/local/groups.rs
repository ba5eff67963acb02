//! Groups of one topic: their marks, their members, and who owns which partition.
//!
//! Partitions are spread evenly over the members and move only as far as they must. A partition
//! that moves has a new epoch at once: the new owner begins at the mark, marks of the old one are
//! refused from then on.

use super::super::LogError;
use super::lock;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

/// The groups that were declared on a topic.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    by_name: Mutex<BTreeMap<String, Arc<GroupCell>>>,
    /// Grows with every mark.
    changes: Arc<AtomicU64>,
}

/// One group.
#[derive(Debug)]
pub(crate) struct GroupCell {
    state: Mutex<State>,
    changes: Arc<AtomicU64>,
    rebalances: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    marks: Vec<u64>,
    owners: Vec<Option<Owner>>,
    members: Vec<u64>,
    last_member: u64,
    last_epoch: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Owner {
    member: u64,
    epoch: u64,
}

/// A partition that a member owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Assignment {
    pub(crate) partition: u32,
    pub(crate) epoch: u64,
    pub(crate) mark: u64,
}

impl Groups {
    /// Adds a group unless it is there. True when it was added.
    pub(crate) fn add(&self, name: &str, marks: Vec<u64>) -> bool {
        let mut groups = lock(&self.by_name);
        if groups.contains_key(name) {
            return false;
        }
        let owners = vec![None; marks.len()];
        let state = State {
            marks,
            owners,
            members: Vec::new(),
            last_member: 0,
            last_epoch: 0,
        };
        let cell = GroupCell {
            state: Mutex::new(state),
            changes: Arc::clone(&self.changes),
            rebalances: watch::Sender::new(0),
        };
        groups.insert(name.to_owned(), Arc::new(cell));
        self.changes.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Takes a group away again that could not be made durable.
    pub(crate) fn remove(&self, name: &str) {
        lock(&self.by_name).remove(name);
    }

    pub(crate) fn find(&self, name: &str, topic: &str) -> Result<Arc<GroupCell>, LogError> {
        lock(&self.by_name).get(name).cloned().ok_or_else(|| {
            LogError::Refused(format!(
                "unknown group {name:?} of topic {topic}: declare it with the topic first"
            ))
        })
    }

    /// A number that differs when a mark has changed.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// The marks of every group.
    pub(crate) fn marks(&self) -> BTreeMap<String, Vec<u64>> {
        lock(&self.by_name)
            .iter()
            .map(|(name, cell)| (name.clone(), cell.marks()))
            .collect()
    }
}

impl GroupCell {
    pub(crate) fn marks(&self) -> Vec<u64> {
        lock(&self.state).marks.clone()
    }

    pub(crate) fn rebalances(&self) -> watch::Receiver<u64> {
        self.rebalances.subscribe()
    }

    /// A new member; partitions are spread anew.
    pub(crate) fn join(&self) -> u64 {
        let member = {
            let mut state = lock(&self.state);
            state.last_member += 1;
            let member = state.last_member;
            state.members.push(member);
            state.spread();
            member
        };
        self.rebalances.send_modify(|count| *count += 1);
        member
    }

    /// A member is gone; its partitions go to the others at once.
    pub(crate) fn leave(&self, member: u64) {
        {
            let mut state = lock(&self.state);
            state.members.retain(|other| *other != member);
            for owner in &mut state.owners {
                if owner.is_some_and(|owner| owner.member == member) {
                    *owner = None;
                }
            }
            state.spread();
        }
        self.rebalances.send_modify(|count| *count += 1);
    }

    /// What the member owns now.
    pub(crate) fn assignments(&self, member: u64) -> Vec<Assignment> {
        let state = lock(&self.state);
        (0u32..)
            .zip(&state.owners)
            .zip(&state.marks)
            .filter_map(|((partition, owner), mark)| {
                let owner = owner.filter(|owner| owner.member == member)?;
                Some(Assignment {
                    partition,
                    epoch: owner.epoch,
                    mark: *mark,
                })
            })
            .collect()
    }

    /// Marks a partition; a lower mark than the group has changes nothing.
    pub(crate) fn mark(
        &self,
        member: u64,
        partition: u32,
        epoch: u64,
        next: u64,
    ) -> Result<(), LogError> {
        let mut state = lock(&self.state);
        let owner = state.owners.get(partition as usize).copied().flatten();
        if owner != Some(Owner { member, epoch }) {
            return Err(LogError::StaleEpoch);
        }
        let mark = &mut state.marks[partition as usize];
        if next > *mark {
            *mark = next;
            self.changes.fetch_add(1, Ordering::Release);
        }
        Ok(())
    }

    /// Takes the marks back to these. False, and nothing is done, while there are members.
    pub(crate) fn rewind(&self, marks: &[u64]) -> bool {
        let mut state = lock(&self.state);
        if !state.members.is_empty() {
            return false;
        }
        state.marks = marks.to_vec();
        self.changes.fetch_add(1, Ordering::Release);
        true
    }
}

impl State {
    /// Gives partitions without an owner away, then evens out.
    fn spread(&mut self) {
        if self.members.is_empty() {
            return;
        }
        let mut load: BTreeMap<u64, usize> = self.members.iter().map(|m| (*m, 0)).collect();
        for owner in self.owners.iter().flatten() {
            *load.entry(owner.member).or_default() += 1;
        }
        for partition in 0..self.owners.len() {
            let Some((least, fewest)) = load.iter().min_by_key(|(_, n)| **n) else {
                return;
            };
            let (least, fewest) = (*least, *fewest);
            let moves = match self.owners[partition] {
                None => true,
                Some(owner) => load.get(&owner.member).is_some_and(|n| *n > fewest + 1),
            };
            if !moves {
                continue;
            }
            if let Some(count) =
                self.owners[partition].and_then(|owner| load.get_mut(&owner.member))
            {
                *count -= 1;
            }
            *load.entry(least).or_default() += 1;
            self.last_epoch += 1;
            self.owners[partition] = Some(Owner {
                member: least,
                epoch: self.last_epoch,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn counts(cell: &GroupCell, members: &[u64]) -> Vec<usize> {
        members.iter().map(|m| cell.assignments(*m).len()).collect()
    }

    #[test]
    fn partitions_are_spread_evenly_and_move_no_more_than_they_must() {
        let groups = Groups::default();
        assert!(groups.add("g", vec![0; 8]));
        assert!(!groups.add("g", vec![9; 8]));
        let cell = groups.find("g", "t").unwrap();
        let a = cell.join();
        let before = cell.assignments(a);
        assert_eq!(before.len(), 8);
        let b = cell.join();
        assert_eq!(counts(&cell, &[a, b]), [4, 4]);
        let kept = cell.assignments(a);
        assert!(
            kept.iter().all(|k| before.contains(k)),
            "what stays keeps its epoch"
        );
        let c = cell.join();
        let mut three = counts(&cell, &[a, b, c]);
        three.sort_unstable();
        assert_eq!(three, [2, 3, 3]);
        cell.leave(a);
        assert_eq!(counts(&cell, &[a, b, c]), [0, 4, 4]);
        cell.leave(b);
        cell.leave(c);
        let d = cell.join();
        assert_eq!(counts(&cell, &[d]), [8]);
    }

    #[test]
    fn every_count_of_members_and_partitions_is_even_to_one() {
        for partitions in 1..20 {
            let groups = Groups::default();
            groups.add("g", vec![0; partitions]);
            let cell = groups.find("g", "t").unwrap();
            let mut members = Vec::new();
            for _ in 0..7 {
                members.push(cell.join());
                let counts = counts(&cell, &members);
                assert_eq!(counts.iter().sum::<usize>(), partitions);
                let spread = counts.iter().max().unwrap() - counts.iter().min().unwrap();
                assert!(spread <= 1, "{partitions} partitions: {counts:?}");
            }
        }
    }
}
