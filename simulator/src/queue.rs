//! An agent's queue: serialized messages, kept as they are until they are safe.

use crate::ledger::Tag;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// A serialized `VeloMessage`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its bytes, which never change.
    pub bytes: Bytes,
    /// What the ledger calls it; messages that belong to no flow have no name.
    pub tag: Option<Tag>,
}

#[derive(Debug, Default)]
struct Waiting {
    urgent: VecDeque<Item>,
    items: VecDeque<Item>,
    bytes: usize,
}

/// Messages in their order. Urgent ones overtake the others.
#[derive(Debug)]
pub struct Queue {
    waiting: Mutex<Waiting>,
    limit: usize,
    came: Notify,
    left: Notify,
}

impl Queue {
    /// An empty queue that holds about `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            waiting: Mutex::default(),
            limit,
            came: Notify::new(),
            left: Notify::new(),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a message, once there is room.
    pub async fn push(&self, item: Item) {
        loop {
            let left = self.left.notified();
            tokio::pin!(left);
            // Room that comes from here on wakes us.
            left.as_mut().enable();
            {
                let mut waiting = self.waiting();
                if waiting.bytes < self.limit {
                    waiting.bytes += item.bytes.len();
                    waiting.items.push_back(item);
                    break;
                }
            }
            left.await;
        }
        self.came.notify_one();
    }

    /// Adds urgent messages, which are sent together.
    pub fn push_urgent(&self, items: impl IntoIterator<Item = Item>) {
        self.waiting().urgent.extend(items);
        self.came.notify_one();
    }

    /// Bytes that wait and are not urgent.
    pub fn bytes(&self) -> usize {
        self.waiting().bytes
    }

    /// Waits until there is something.
    pub async fn ready(&self) {
        loop {
            {
                let waiting = self.waiting();
                if !waiting.urgent.is_empty() || !waiting.items.is_empty() {
                    return;
                }
            }
            self.came.notified().await;
        }
    }

    /// Takes all urgent messages, else others of about `most` bytes. True: urgent.
    pub fn take(&self, most: usize) -> (Vec<Item>, bool) {
        let mut waiting = self.waiting();
        if !waiting.urgent.is_empty() {
            return (waiting.urgent.drain(..).collect(), true);
        }
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while let Some(item) = waiting.items.front() {
            if bytes > 0 && bytes + item.bytes.len() > most {
                break;
            }
            bytes += item.bytes.len();
            taken.extend(waiting.items.pop_front());
        }
        waiting.bytes -= bytes;
        drop(waiting);
        self.left.notify_waiters();
        (taken, false)
    }

    /// Takes out the waiting messages of a flow.
    pub fn remove(&self, flow: &str) -> Vec<Item> {
        let mut waiting = self.waiting();
        let all = std::mem::take(&mut waiting.items);
        let of_flow = |item: &Item| item.tag.as_ref().is_some_and(|tag| &*tag.flow == flow);
        let (removed, kept): (Vec<_>, Vec<_>) = all.into_iter().partition(of_flow);
        waiting.bytes -= removed.iter().map(|item| item.bytes.len()).sum::<usize>();
        waiting.items = kept.into();
        drop(waiting);
        self.left.notify_waiters();
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::What;
    use std::sync::Arc;

    fn item(flow: &str, length: usize) -> Item {
        let tag = Tag {
            flow: flow.into(),
            run: 0,
            what: What::Other,
        };
        Item {
            bytes: Bytes::from(vec![0; length]),
            tag: Some(tag),
        }
    }

    #[tokio::test]
    async fn urgent_messages_overtake_and_bodies_are_bounded() {
        let queue = Queue::new(1000);
        for length in [60, 30, 20, 500] {
            queue.push(item("F.a", length)).await;
        }
        queue.push_urgent([item("F.b", 1), item("F.b", 2)]);
        queue.ready().await;
        let lengths = |(items, urgent): (Vec<Item>, bool)| {
            (
                items
                    .iter()
                    .map(|item| item.bytes.len())
                    .collect::<Vec<_>>(),
                urgent,
            )
        };
        assert_eq!(lengths(queue.take(100)), (vec![1, 2], true));
        assert_eq!(lengths(queue.take(100)), (vec![60, 30], false));
        assert_eq!(lengths(queue.take(100)), (vec![20], false));
        // One that is too long goes alone.
        assert_eq!(lengths(queue.take(100)), (vec![500], false));
        assert_eq!(queue.bytes(), 0);
    }

    #[tokio::test]
    async fn a_full_queue_makes_its_queries_wait() {
        let queue = Arc::new(Queue::new(100));
        queue.push(item("F.a", 100)).await;
        let pushing = {
            let queue = Arc::clone(&queue);
            tokio::spawn(async move { queue.push(item("F.a", 7)).await })
        };
        tokio::task::yield_now().await;
        assert_eq!(queue.bytes(), 100);
        assert!(!pushing.is_finished());
        queue.take(100);
        assert!(pushing.await.is_ok());
        assert_eq!(queue.bytes(), 7);
    }

    #[tokio::test]
    async fn a_flow_can_be_taken_out() {
        let queue = Queue::new(1000);
        for flow in ["F.a", "F.b", "F.a"] {
            queue.push(item(flow, 10)).await;
        }
        assert_eq!(queue.remove("F.a").len(), 2);
        assert_eq!(queue.bytes(), 10);
        assert_eq!(queue.take(100).0, [item("F.b", 10)]);
    }
}
