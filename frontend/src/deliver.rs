//! The shell around the delivery machine: gives it polls, records of `tasks` and time, and does
//! what it says.

use crate::authenticate::Agent;
use crate::clock::now_us;
use crate::cut::CheckedIn;
use crate::metrics::Metrics;
use crate::peer::Peer;
use crate::registry::Registry;
use crate::scheduling::Appender;
use bytes::Bytes;
use nublar_core::delivery::{Act, Delivery, DeliveryConfig, Item, PacketIv, Poll};
use nublar_core::ids::ClientKey;
use nublar_schemas::records::{CheckIn, Claim, Header, Scheduling, Tasks, Unsent, Unsure};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::task::TaskTracker;

const SWEEP: Duration = Duration::from_secs(30);

/// How a poll ends.
#[derive(Debug)]
pub(crate) enum End {
    /// With these, all of which are to be brought.
    Items(Vec<Item>),
    /// A newer poll of the same client has come, or the client was deleted.
    Superseded,
    /// Another agent of the same key polls, and was there first.
    Refused,
}

/// A poll that is held: it waits for its end, and says so when it is given up.
pub(crate) struct Held {
    deliveries: Arc<Deliveries>,
    client: ClientKey,
    generation: i64,
    number: i64,
    end: oneshot::Receiver<End>,
}

impl Held {
    /// Waits for the end. Cancel-safe.
    pub(crate) async fn end(&mut self) -> End {
        // The sender goes away only with the frontend.
        (&mut self.end).await.unwrap_or(End::Superseded)
    }

    pub(crate) fn client(&self) -> &ClientKey {
        &self.client
    }

    pub(crate) fn generation(&self) -> i64 {
        self.generation
    }

    pub(crate) fn number(&self) -> i64 {
        self.number
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.deliveries.metrics.polls_held.add(-1);
        self.end.close();
        // What was decided in the meantime did not leave.
        match self.end.try_recv() {
            Ok(End::Items(items)) => {
                self.deliveries
                    .failed(&self.client, self.number, self.generation, items, false);
            }
            _ => self.deliveries.close(&self.client, self.number),
        }
    }
}

/// What an agent that polls shows of itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Visit {
    pub(crate) packet_iv: PacketIv,
    pub(crate) check_in: CheckedIn,
    /// How many milliseconds its clock is ahead of ours; none if it does not say.
    pub(crate) clock_skew_ms: Option<i64>,
    pub(crate) peer: Peer,
}

struct Opened {
    number: i64,
    generation: i64,
    check_in: CheckIn,
    end: oneshot::Sender<End>,
}

struct State {
    machine: Delivery,
    open: HashMap<ClientKey, Opened>,
    last: i64,
}

/// All polls of this process. See the [module](self).
pub(crate) struct Deliveries {
    state: Mutex<State>,
    due: Notify,
    epoch: Instant,
    registry: Arc<Registry>,
    appender: Appender,
    name: String,
    metrics: Arc<Metrics>,
}

impl Deliveries {
    pub(crate) fn new(
        registry: Arc<Registry>,
        appender: Appender,
        name: String,
        metrics: Arc<Metrics>,
    ) -> Self {
        let machine = Delivery::new(DeliveryConfig::new(name.clone()));
        let state = State {
            machine,
            open: HashMap::new(),
            last: 0,
        };
        Self {
            state: Mutex::new(state),
            due: Notify::new(),
            epoch: Instant::now(),
            registry,
            appender,
            name,
            metrics,
        }
    }

    pub(crate) fn tracker(&self) -> &TaskTracker {
        &self.appender.tracker
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn header(&self, client: &ClientKey, generation: i64) -> Header {
        Header {
            org: client.org.to_string(),
            client: client.client.to_string(),
            generation,
            at_us: now_us(),
            frontend: self.name.clone(),
            trace: String::new(),
        }
    }

    /// An agent polls.
    pub(crate) fn open(self: &Arc<Self>, agent: &Agent, visit: &Visit) -> Held {
        let &Visit {
            packet_iv,
            check_in:
                CheckedIn {
                    table_version,
                    introduces,
                },
            clock_skew_ms,
            peer,
        } = visit;
        let (client, generation) = (agent.client().clone(), agent.generation());
        let (sender, end) = oneshot::channel();
        let check_in = CheckIn {
            header: self.header(&client, generation),
            session_key: Bytes::copy_from_slice(&agent.checked.hash),
            table_version,
            address: peer.address().to_string(),
            via: peer.via().map_or_else(String::new, |via| via.to_string()),
            clock_skew_ms,
            introduces,
        };
        let mut state = self.lock();
        state.last += 1;
        let number = state.last;
        self.metrics.polls_held.inc();
        let held = Held {
            deliveries: self.clone(),
            client: client.clone(),
            generation,
            number,
            end,
        };
        if self.registry.life(&client) > generation {
            // Deleted since it was let in; one that is held is ended by `end_life`.
            let _ = sender.send(End::Superseded);
            return held;
        }
        let session = agent.checked.hash;
        if state.machine.refuses(&client, &session, self.now()) {
            let _ = sender.send(End::Refused);
            return held;
        }
        let poll = Poll {
            number,
            session,
            table_version,
            generation,
            packet_iv,
        };
        let acts = state.machine.open(&client, poll, self.now());
        let opened = Opened {
            number,
            generation,
            check_in,
            end: sender,
        };
        if let Some(older) = state.open.insert(client.clone(), opened) {
            self.metrics.superseded.inc();
            let _ = older.end.send(End::Superseded);
        }
        self.perform(state, acts);
        held
    }

    /// The client was deleted: nothing of an older generation goes out any more.
    pub(crate) fn end_life(self: &Arc<Self>, client: &ClientKey, generation: i64) {
        let mut state = self.lock();
        let acts = state.machine.end_life(client, generation);
        let is_old = |open: &Opened| open.generation < generation;
        if state.open.get(client).is_some_and(is_old)
            && let Some(older) = state.open.remove(client)
        {
            // Whoever waited may have gone.
            let _ = older.end.send(End::Superseded);
        }
        self.perform(state, acts);
    }

    /// The poll is gone without an answer.
    fn close(self: &Arc<Self>, client: &ClientKey, number: i64) {
        let mut state = self.lock();
        let acts = state.machine.close(client, number, self.now());
        // After `close`, so that its acts still find the poll's generation.
        self.perform(state, acts);
        let mut state = self.lock();
        if state
            .open
            .get(client)
            .is_some_and(|open| open.number == number)
        {
            state.open.remove(client);
        }
    }

    /// An answer did not get through.
    pub(crate) fn failed(
        self: &Arc<Self>,
        client: &ClientKey,
        number: i64,
        generation: i64,
        items: Vec<Item>,
        maybe_sent: bool,
    ) {
        let mut state = self.lock();
        let acts = state
            .machine
            .failed(client, number, items, maybe_sent, self.now());
        self.perform_for(state, acts, Some(generation));
    }

    /// A record of `tasks` has come.
    pub(crate) fn task(self: &Arc<Self>, task: &Tasks) {
        let generation = task.header().generation;
        let is_over = |client: &ClientKey| self.registry.life(client) > generation;
        if ClientKey::of(task.header()).is_ok_and(|client| is_over(&client)) {
            return;
        }
        let mut state = self.lock();
        let acts = state.machine.task(task, self.now());
        let due = state.machine.next_due().is_some();
        self.perform_for(state, acts, Some(generation));
        if due {
            self.due.notify_one();
        }
    }

    /// Records of `tasks` may have been missed: whatever is due to anybody is to be offered again.
    pub(crate) fn begin_anew(self: &Arc<Self>) {
        let mut state = self.lock();
        let acts = state.machine.forget_contacts();
        self.perform(state, acts);
    }

    /// Gives the machine its time until the shutdown.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut sweep = Instant::now() + SWEEP;
        loop {
            let next = self.lock().machine.next_due();
            let at = next.map_or(sweep, |due| {
                sweep.min(self.epoch + Duration::from_millis(due))
            });
            tokio::select! {
                () = sleep_until(at) => {}
                () = self.due.notified() => {}
                () = self.appender.shutdown.cancelled() => return,
            }
            let now = self.now();
            let mut state = self.lock();
            let acts = state.machine.on_time(now);
            self.perform_for(state, acts, None);
            if Instant::now() >= sweep {
                sweep = Instant::now() + SWEEP;
                self.lock().machine.sweep(now);
            }
        }
    }

    fn perform(self: &Arc<Self>, state: MutexGuard<'_, State>, acts: Vec<Act>) {
        let due = state.machine.next_due().is_some();
        self.perform_for(state, acts, None);
        if due {
            self.due.notify_one();
        }
    }

    /// Does what the machine says. Appends begin in the order of the acts, out of the lock.
    fn perform_for(
        self: &Arc<Self>,
        mut state: MutexGuard<'_, State>,
        acts: Vec<Act>,
        generation: Option<i64>,
    ) {
        let mut records: Vec<(Scheduling, ClientKey, Until)> = Vec::new();
        let mut acts = VecDeque::from(acts);
        while let Some(act) = acts.pop_front() {
            let header = |client: &ClientKey, state: &State| {
                let open = state.open.get(client).map(|open| open.generation);
                self.header(client, generation.or(open).unwrap_or(1))
            };
            match act {
                Act::Answer {
                    client,
                    poll,
                    items,
                } => {
                    if let Err(unheard) = state.end(&client, poll, items) {
                        let now = self.now();
                        acts.extend(state.machine.failed(&client, poll, unheard, false, now));
                    }
                }
                // A newer poll has ended it already, if one has come.
                Act::End { client, poll } => state.end_with(&client, poll, End::Superseded),
                Act::Refuse { client, poll } => state.end_with(&client, poll, End::Refused),
                Act::CheckIn(client) => {
                    if let Some(open) = state.open.get(&client) {
                        self.metrics.checkins.inc();
                        records.push((open.check_in.clone().into(), client, Until::Once));
                    }
                }
                Act::Claim {
                    client,
                    flow,
                    attempt,
                    poll,
                    packet_iv,
                } => {
                    self.metrics.claims.inc();
                    let header = header(&client, &state);
                    let record = Claim {
                        header,
                        flow_id: flow,
                        attempt,
                        poll,
                        packet_iv: Bytes::copy_from_slice(&packet_iv),
                    };
                    records.push((record.into(), client, Until::Held(poll)));
                }
                Act::Unsent {
                    client,
                    flow,
                    attempt,
                    poll,
                } => {
                    self.metrics.unsent.inc();
                    let header = header(&client, &state);
                    let record = Unsent {
                        header,
                        flow_id: flow,
                        attempt,
                        poll,
                    };
                    records.push((record.into(), client, Until::Done));
                }
                Act::Unsure {
                    client,
                    flow,
                    attempt,
                    poll,
                } => {
                    self.metrics.unsure.inc();
                    let header = header(&client, &state);
                    let record = Unsure {
                        header,
                        flow_id: flow,
                        attempt,
                        poll,
                    };
                    records.push((record.into(), client, Until::Done));
                }
            }
        }
        drop(state);
        for (record, client, until) in records {
            let this = self.clone();
            self.appender
                .append(&record, client, move |client| this.try_again(client, until));
        }
    }

    fn try_again(&self, client: &ClientKey, until: Until) -> bool {
        let mut state = self.lock();
        match until {
            Until::Once => {
                state.machine.check_in_failed(client);
                false
            }
            Until::Held(poll) => state
                .open
                .get(client)
                .is_some_and(|open| open.number == poll),
            Until::Done => true,
        }
    }
}

impl State {
    fn end_with(&mut self, client: &ClientKey, poll: i64, end: End) {
        if self
            .open
            .get(client)
            .is_some_and(|open| open.number == poll)
            && let Some(open) = self.open.remove(client)
        {
            // Whoever waited may have gone.
            let _ = open.end.send(end);
        }
    }

    /// Hands the items to the poll; gives them back if nobody waits for them any more.
    fn end(&mut self, client: &ClientKey, poll: i64, items: Vec<Item>) -> Result<(), Vec<Item>> {
        if self.open.get(client).is_none_or(|open| open.number != poll) {
            return Err(items);
        }
        let Some(open) = self.open.remove(client) else {
            return Err(items);
        };
        match open.end.send(End::Items(items)) {
            Err(End::Items(items)) => Err(items),
            _ => Ok(()),
        }
    }
}

/// How long an append is tried.
#[derive(Debug, Clone, Copy)]
enum Until {
    /// Once: the next poll tries again.
    Once,
    /// While this poll is held.
    Held(i64),
    /// Until it is done.
    Done,
}
