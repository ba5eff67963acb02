//! A member of a group that stays alive while the work on its records takes long.
//!
//! The log wants [`Group::next`](crate::log::Group::next) called every few seconds; a worker whose
//! index is down has nothing to call it for. So a task of its own reads ahead within bounds,
//! pauses the partitions when the worker falls behind, and carries marks back.

use crate::log::{Group, GroupEvent, Log, LogError, Position};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const READ_AHEAD_RECORDS: usize = 512;
const READ_AHEAD_BYTES: usize = 32 << 20;
const RETRY: Duration = Duration::from_millis(300);

enum Order {
    Mark {
        partition: u32,
        epoch: u64,
        next: Position,
    },
    Flush(oneshot::Sender<()>),
}

#[derive(Default)]
struct Shared {
    events: VecDeque<GroupEvent>,
    records: usize,
    bytes: usize,
    /// Partitions that are owned right now, whatever still waits in `events`.
    epochs: HashMap<u32, u64>,
}

impl Shared {
    fn push(&mut self, event: GroupEvent) {
        match &event {
            GroupEvent::Assigned {
                partition, epoch, ..
            } => {
                self.epochs.insert(*partition, *epoch);
            }
            GroupEvent::Revoked { partition } => {
                self.epochs.remove(partition);
            }
            GroupEvent::Record(record) => {
                self.records += 1;
                self.bytes += record.value.len();
            }
        }
        self.events.push_back(event);
    }

    fn pop(&mut self) -> Option<GroupEvent> {
        let event = self.events.pop_front()?;
        if let GroupEvent::Record(record) = &event {
            self.records -= 1;
            self.bytes -= record.value.len();
        }
        Some(event)
    }

    fn is_full(&self) -> bool {
        self.records >= READ_AHEAD_RECORDS || self.bytes >= READ_AHEAD_BYTES
    }
}

/// A membership. Dropping it leaves the group.
pub struct Membership {
    shared: Arc<Mutex<Shared>>,
    arrived: Arc<Notify>,
    taken: Arc<Notify>,
    orders: mpsc::UnboundedSender<Order>,
    task: JoinHandle<()>,
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Membership {
    /// Joins the group on the topic, as soon as the log lets it; goes on trying until `shutdown`.
    pub fn join(
        log: Arc<dyn Log>,
        group: &'static str,
        topic: &'static str,
        shutdown: CancellationToken,
    ) -> Self {
        let shared = Arc::new(Mutex::new(Shared::default()));
        let (arrived, taken) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (orders, inbox) = mpsc::unbounded_channel();
        let keeper = Keeper {
            log,
            group,
            topic,
            shared: shared.clone(),
            arrived: arrived.clone(),
            taken: taken.clone(),
            inbox,
        };
        let task = tokio::spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = keeper.run() => {}
            }
        });
        Self {
            shared,
            arrived,
            taken,
            orders,
            task,
        }
    }

    /// The next event, if one is here.
    pub fn try_next(&mut self) -> Option<GroupEvent> {
        let event = lock(&self.shared).pop();
        if event.is_some() {
            self.taken.notify_one();
        }
        event
    }

    /// Waits for the next event. Cancel-safe.
    pub async fn next(&mut self) -> GroupEvent {
        loop {
            if let Some(event) = self.try_next() {
                return event;
            }
            self.arrived.notified().await;
        }
    }

    /// Whether this assignment still holds. It may end before [`Membership::next`] tells.
    pub fn owns(&self, partition: u32, epoch: u64) -> bool {
        lock(&self.shared).epochs.get(&partition) == Some(&epoch)
    }

    /// Marks everything before `next` as done.
    pub fn mark(&self, partition: u32, epoch: u64, next: Position) {
        // The keeper only ends with this membership or the process.
        let _ = self.orders.send(Order::Mark {
            partition,
            epoch,
            next,
        });
    }

    /// Waits until all marks so far are durable, or cannot be made so.
    pub async fn flush(&self) {
        let (done, wait) = oneshot::channel();
        if self.orders.send(Order::Flush(done)).is_ok() {
            let _ = wait.await;
        }
    }
}

struct Keeper {
    log: Arc<dyn Log>,
    group: &'static str,
    topic: &'static str,
    shared: Arc<Mutex<Shared>>,
    arrived: Arc<Notify>,
    taken: Arc<Notify>,
    inbox: mpsc::UnboundedReceiver<Order>,
}

impl Keeper {
    async fn run(mut self) {
        loop {
            match self.log.group(self.group, self.topic).await {
                Ok(group) => self.keep(group).await,
                Err(error) => {
                    tracing::warn!(group = self.group, topic = self.topic, %error, "cannot join group, trying again");
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Reads until the group has to be joined anew.
    async fn keep(&mut self, mut group: Box<dyn Group>) {
        let mut paused = false;
        let mut failures = 0;
        loop {
            let full = lock(&self.shared).is_full();
            if full != paused {
                paused = full;
                self.pause(group.as_mut(), paused);
            }
            tokio::select! {
                biased;
                Some(order) = self.inbox.recv() => carry_out(group.as_mut(), order).await,
                () = self.taken.notified(), if paused => {}
                event = group.next() => match event {
                    Ok(event) => {
                        failures = 0;
                        if let (GroupEvent::Assigned { partition, .. }, true) = (&event, paused) {
                            group.pause(*partition, true);
                        }
                        lock(&self.shared).push(event);
                        self.arrived.notify_one();
                    }
                    Err(error) => {
                        failures += 1;
                        tracing::warn!(group = self.group, topic = self.topic, %error, failures, "cannot read");
                        let rejoin = !matches!(error, LogError::Unavailable(_) | LogError::Full(_));
                        if rejoin {
                            break;
                        }
                        tokio::time::sleep(RETRY).await;
                    }
                },
            }
        }
        let mut shared = lock(&self.shared);
        for partition in shared.epochs.keys().copied().collect::<Vec<_>>() {
            shared.push(GroupEvent::Revoked { partition });
        }
        drop(shared);
        self.arrived.notify_one();
    }

    fn pause(&self, group: &mut dyn Group, paused: bool) {
        for partition in lock(&self.shared).epochs.keys() {
            group.pause(*partition, paused);
        }
    }
}

async fn carry_out(group: &mut dyn Group, order: Order) {
    match order {
        Order::Mark {
            partition,
            epoch,
            next,
        } => {
            if let Err(error) = group.mark(partition, epoch, next) {
                tracing::debug!(partition, epoch, %error, "mark not taken");
            }
        }
        Order::Flush(done) => {
            if let Err(error) = group.flush().await {
                tracing::warn!(%error, "marks not durable yet");
            }
            let _ = done.send(());
        }
    }
}
