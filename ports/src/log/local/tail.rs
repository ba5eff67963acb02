//! A tail: the records of some partitions, and once for each that the past is over.

use super::super::{From, LogError, Tail, TailEvent};
use super::{Limit, Point, Reader, Store, cursor};
use async_trait::async_trait;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// A reader of partitions.
pub(crate) struct LocalTail {
    reader: Reader,
    store: Arc<dyn Store>,
    ready: VecDeque<TailEvent>,
    /// Partitions that have not caught up, and the first offset that was not there at the start.
    behind: BTreeMap<u32, u64>,
    /// The end of the topic at the start.
    end: Point,
}

impl LocalTail {
    pub(crate) fn open(
        store: Arc<dyn Store>,
        partitions: &[u32],
        from: From,
    ) -> Result<Self, LogError> {
        let end = store.end();
        let cursor = cursor(store.as_ref(), partitions, from, &end)?;
        let behind = partitions
            .iter()
            .map(|p| (*p, end.offsets[*p as usize]))
            .collect();
        let reader = Reader::new(Arc::clone(&store), cursor, Limit::PAGE);
        let mut tail = Self {
            reader,
            store,
            ready: VecDeque::new(),
            behind,
            end,
        };
        tail.catch_up();
        Ok(tail)
    }

    fn caught_up(&mut self, partition: u32) {
        if let Some(offset) = self.behind.remove(&partition) {
            let to = self.store.info().position(offset);
            self.ready.push_back(TailEvent::CaughtUp { partition, to });
        }
    }

    /// Tells of the partitions in which nothing of the past is left.
    fn catch_up(&mut self) {
        if self.behind.is_empty() {
            return;
        }
        let cursor = self.reader.cursor();
        let all = cursor.seq >= self.end.seq;
        let done: Vec<u32> = cursor
            .wanted()
            .iter()
            .filter(|(partition, next)| all || self.behind.get(partition) <= Some(next))
            .map(|(partition, _)| *partition)
            .collect();
        for partition in done {
            self.caught_up(partition);
        }
    }
}

#[async_trait]
impl Tail for LocalTail {
    async fn next(&mut self) -> Result<TailEvent, LogError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            let page = self.reader.page().await?;
            for entry in page {
                let record = entry.record;
                let past = self.behind.get(&record.partition);
                if past.is_some_and(|end| record.position.offset >= *end) {
                    self.caught_up(record.partition);
                }
                self.ready.push_back(TailEvent::Record(record));
            }
            self.catch_up();
        }
    }
}
