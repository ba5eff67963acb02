//! Records in memory, in the order of the topic.

use super::super::Record;
use super::Cursor;
use std::collections::VecDeque;

/// A record with what readers need beside it.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Sequence number in the topic.
    pub(crate) seq: u64,
    /// When it was appended, microseconds since 1970.
    pub(crate) time: i64,
    pub(crate) record: Record,
}

impl Entry {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.record.key.len() + self.record.value.len()
    }
}

/// How much a reader takes at a time; the first record always fits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    pub(crate) records: usize,
    pub(crate) bytes: usize,
}

impl Limit {
    /// One record.
    pub(crate) const ONE: Self = Self {
        records: 1,
        bytes: 0,
    };
    /// What a tail or a member of a group holds ready.
    pub(crate) const PAGE: Self = Self {
        records: 1024,
        bytes: 1 << 20,
    };
    /// Records looked at in one go, wanted or not: bounds how long the lock of a topic is held.
    const LOOKED_AT: usize = 8192;

    /// Whether a page of so much takes another record of `more` bytes.
    pub(crate) fn takes(&self, records: usize, bytes: usize, more: usize) -> bool {
        records == 0 || (records < self.records && bytes + more <= self.bytes)
    }
}

/// The newest records of a topic, or all of them.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl Recent {
    pub(crate) fn push(&mut self, entry: Entry) {
        self.bytes += entry.bytes();
        self.entries.push_back(entry);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// Sequence number of the oldest one here.
    pub(crate) fn first(&self) -> Option<u64> {
        self.entries.front().map(|entry| entry.seq)
    }

    /// Lets the oldest ones go until at most `limit` bytes stay.
    pub(crate) fn shrink(&mut self, limit: usize) {
        while self.bytes > limit {
            let Some(entry) = self.entries.pop_front() else {
                break;
            };
            self.bytes -= entry.bytes();
        }
    }

    /// Lets go what stands before `seq`.
    pub(crate) fn forget_before(&mut self, seq: u64) {
        while self.entries.front().is_some_and(|entry| entry.seq < seq) {
            if let Some(entry) = self.entries.pop_front() {
                self.bytes -= entry.bytes();
            }
        }
    }

    /// Keeps only some.
    pub(crate) fn retain(&mut self, keep: impl FnMut(&Entry) -> bool) {
        self.entries.retain(keep);
        self.bytes = self.entries.iter().map(Entry::bytes).sum();
    }

    /// The next records that the cursor wants. `end` is the sequence number after the last record
    /// of the topic. Moves the cursor even when none is wanted.
    pub(crate) fn read(&self, cursor: &mut Cursor, limit: Limit, end: u64) -> Vec<Entry> {
        let start = self.entries.partition_point(|entry| entry.seq < cursor.seq);
        let mut page = Vec::new();
        let mut bytes = 0;
        for entry in self.entries.range(start..).take(Limit::LOOKED_AT) {
            let record = &entry.record;
            let size = record.key.len() + record.value.len();
            if cursor.wants(record.partition) && !limit.takes(page.len(), bytes, size) {
                return page;
            }
            if cursor.take(
                entry.seq,
                record.partition,
                record.position.offset,
                entry.time,
            ) {
                bytes += size;
                page.push(entry.clone());
            }
        }
        if self.entries.back().is_none_or(|last| last.seq < cursor.seq) {
            cursor.seq = cursor.seq.max(end);
        }
        page
    }
}
