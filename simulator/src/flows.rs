//! The flows of one start of an agent: two at a time, cancelled when told so, remembered for a
//! while.

use crate::config::AgentConfig;
use crate::entries::Stage;
use crate::flow::Running;
use crate::ledger::{Book, Counts};
use crate::messages;
use crate::queue::{Item, Queue};
use nublar_schemas::agent::{FlowRequest, FlowStats};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How many flows that have ended an agent remembers.
const REMEMBERED: usize = 20;

/// What runs under one flow id.
#[derive(Default)]
struct Known {
    runs: Vec<(Arc<Running>, CancellationToken)>,
    /// It was started again while it ran: whichever run ends first ends both, without a word.
    overlapped: bool,
}

#[derive(Default)]
struct State {
    running: HashMap<String, Known>,
    finished: VecDeque<(String, FlowStats)>,
    cancelled: HashSet<String>,
    tasks: JoinSet<()>,
}

/// The flows of one start of an agent.
pub(crate) struct Flows {
    config: Arc<AgentConfig>,
    book: Arc<Book>,
    queue: Arc<Queue>,
    hostname: String,
    slots: Arc<Semaphore>,
    state: Mutex<State>,
}

impl Flows {
    pub(crate) fn new(
        config: Arc<AgentConfig>,
        book: Arc<Book>,
        queue: Arc<Queue>,
        hostname: String,
    ) -> Arc<Self> {
        let slots = Arc::new(Semaphore::new(config.flows_at_once));
        Arc::new(Self {
            config,
            book,
            queue,
            hostname,
            slots,
            state: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a flow, whether or not it has run before.
    pub(crate) fn start(
        self: &Arc<Self>,
        flow: &str,
        run: usize,
        request: FlowRequest,
        urgent: bool,
    ) {
        let mut state = self.state();
        let muted = state.cancelled.contains(flow);
        let running = Arc::new(Running::new(
            Arc::clone(&self.config),
            Arc::clone(&self.book),
            Arc::clone(&self.queue),
            self.hostname.clone(),
            (flow.into(), run),
            request,
            muted,
        ));
        let stop = CancellationToken::new();
        let known = state.running.entry(flow.to_owned()).or_default();
        known.overlapped |= !known.runs.is_empty();
        known.runs.push((Arc::clone(&running), stop.clone()));
        let flows = Arc::clone(self);
        state
            .tasks
            .spawn(async move { flows.run(running, stop, urgent).await });
        // What is over need not be kept.
        while state.tasks.try_join_next().is_some() {}
    }

    async fn run(self: Arc<Self>, running: Arc<Running>, stop: CancellationToken, urgent: bool) {
        let work = async {
            let _slot = match urgent {
                true => None,
                false => self.slots.acquire().await.ok(),
            };
            running.queries().await;
        };
        let stopped = tokio::select! {
            biased;
            () = stop.cancelled() => true,
            () = work => false,
        };
        if stopped {
            running.fail("Cancelled");
            self.drop_waiting(&running.flow);
        }
        if self.conclude(&running) {
            running.end().await;
        }
    }

    /// Whether the end of this run is to be told.
    fn conclude(&self, ended: &Arc<Running>) -> bool {
        let mut state = self.state();
        let flow = ended.flow.to_string();
        let ours = state.running.get(&flow).is_some_and(|known| {
            known
                .runs
                .iter()
                .any(|(running, _)| Arc::ptr_eq(running, ended))
        });
        let Some(known) = state.running.remove(&flow).filter(|_| ours) else {
            return false;
        };
        if known.overlapped {
            known.runs.iter().for_each(|(_, stop)| stop.cancel());
        }
        state.finished.push_back((flow, ended.stats(true)));
        if state.finished.len() > REMEMBERED {
            state.finished.pop_front();
        }
        !known.overlapped
    }

    fn drop_waiting(&self, flow: &str) {
        let dropped = self.queue.remove(flow);
        self.book.advance(
            dropped.iter().filter_map(|item| item.tag.as_ref()),
            Stage::Dropped,
        );
    }

    /// Stops a flow. One that has not come yet will run, and its rows will go nowhere.
    pub(crate) fn cancel(&self, flow: &str) {
        let mut state = self.state();
        state.cancelled.insert(flow.to_owned());
        if let Some(known) = state.running.get(flow) {
            known.runs.iter().for_each(|(_, stop)| stop.cancel());
        }
        drop(state);
        self.drop_waiting(flow);
    }

    /// Says how flows stand, in the order in which they are named.
    pub(crate) fn answer(&self, flows: &[String]) {
        Counts::add(&self.book.counts.asks);
        let state = self.state();
        let answers: Vec<Item> = flows
            .iter()
            .map(|flow| {
                let running = state.running.get(flow).and_then(|known| known.runs.last());
                let finished = || {
                    state
                        .finished
                        .iter()
                        .rev()
                        .find(|(finished, _)| finished == flow)
                };
                let bytes = match (running, finished()) {
                    (Some((running, _)), _) => messages::stats(flow, running.stats(false), true),
                    (None, Some((_, stats))) => messages::stats(flow, stats.clone(), true),
                    (None, None) => messages::unknown(flow),
                };
                Item { bytes, tag: None }
            })
            .collect();
        drop(state);
        self.queue.push_urgent(answers);
    }

    /// Ends all of them, without a word.
    pub(crate) async fn stop(&self) {
        let mut tasks = std::mem::take(&mut self.state().tasks);
        tasks.shutdown().await;
    }
}
