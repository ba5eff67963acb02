//! Where a reader stands in a topic.

/// A place in a topic and the partitions that a reader wants from there on.
#[derive(Debug, Clone)]
pub(crate) struct Cursor {
    /// Every wanted record before this sequence number was taken.
    pub(crate) seq: u64,
    /// Records appended before this time (microseconds) are passed over.
    pub(crate) since: i64,
    /// Where the record `seq` was last seen, for stores that keep files.
    pub(crate) hint: Option<Hint>,
    /// Partition and the first offset that is still wanted, by partition.
    wanted: Vec<(u32, u64)>,
}

/// Where in which file a sequence number stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hint {
    /// File: its number and the count of its rewrites.
    pub(crate) file: (u64, u32),
    /// The sequence number.
    pub(crate) seq: u64,
    /// Byte in the file.
    pub(crate) pos: u64,
}

impl Cursor {
    pub(crate) fn new(seq: u64, wanted: impl IntoIterator<Item = (u32, u64)>) -> Self {
        let mut wanted: Vec<_> = wanted.into_iter().collect();
        wanted.sort_unstable();
        wanted.dedup_by_key(|(partition, _)| *partition);
        Self {
            seq,
            since: i64::MIN,
            hint: None,
            wanted,
        }
    }

    /// The partitions and the first offsets still wanted.
    pub(crate) fn wanted(&self) -> &[(u32, u64)] {
        &self.wanted
    }

    /// Moves past a record and says whether it is wanted. Records come in the order of `seq`.
    pub(crate) fn take(&mut self, seq: u64, partition: u32, offset: u64, time: i64) -> bool {
        if seq < self.seq {
            return false;
        }
        self.seq = seq + 1;
        let Ok(index) = self.wanted.binary_search_by_key(&partition, |(p, _)| *p) else {
            return false;
        };
        let next = &mut self.wanted[index].1;
        if offset < *next {
            return false;
        }
        *next = offset + 1;
        time >= self.since
    }

    /// Whether a record of this partition could be wanted at all.
    pub(crate) fn wants(&self, partition: u32) -> bool {
        self.wanted
            .binary_search_by_key(&partition, |(p, _)| *p)
            .is_ok()
    }
}
