//! A fleet: many agents, the work they are given, and how long it took.

use crate::agent::Agent;
use crate::api::Api;
use crate::chance::Chance;
use crate::config::AgentConfig;
use crate::error::SimError;
use crate::ledger::{Event, Ledger};
use crate::script::{ARTIFACT, Script, VARIABLE};
use nublar_wire::{AgentKey, Trust};
use serde::Serialize;
use serde_json::json;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout_at};

/// A call of the API is tried again after this, as long as there is time.
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// What a fleet is given to do.
#[derive(Debug, Clone)]
pub struct Work {
    /// Flows in all, over all agents in turn.
    pub tasks: usize,
    /// Flows at most that have not ended.
    pub outstanding: usize,
    /// The orders, taken in turn.
    pub scripts: Vec<Script>,
    /// Every nth flow is urgent; none if 0.
    pub urgent_every: usize,
    /// Every nth flow is cancelled a moment later; none if 0.
    pub cancel_every: usize,
    /// With every nth flow some agent is started anew; none if 0.
    pub restart_every: usize,
    /// Distinguishes this work from other work with the same server.
    pub name: String,
    /// When to stop giving out work, and to stop waiting for it.
    pub until: Instant,
}

/// What became of work.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Done {
    /// Flows that the API took.
    pub created: u64,
    /// Calls of the API that failed and were made again.
    pub tried_again: u64,
    /// Flows that were cancelled.
    pub cancelled: u64,
    /// Agents that were started anew.
    pub restarted: u64,
    /// Flows whose end was answered with 200.
    pub ended: u64,
    /// Seconds from the first call to the last such end.
    pub seconds: f64,
}

#[derive(Default)]
struct Open {
    /// A place for each flow that is not over, with its client; given back at its end.
    places: HashMap<String, (String, OwnedSemaphorePermit)>,
    done: Done,
}

/// Many agents and one ledger.
pub struct Fleet {
    agents: Vec<Agent>,
    ledger: Ledger,
    events: Mutex<Option<mpsc::UnboundedReceiver<Event>>>,
    ended: AtomicU64,
    started: Instant,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fleet {
    /// Starts an agent for each key.
    ///
    /// Errors: TLS can not be set up.
    pub fn start(
        config: &AgentConfig,
        trust: &Trust,
        keys: Vec<AgentKey>,
    ) -> Result<Self, SimError> {
        let ledger = Ledger::new();
        let events = ledger.listen();
        let config = Arc::new(config.clone());
        let started = Instant::now();
        let agents = keys
            .into_iter()
            .map(|key| Agent::start(Arc::clone(&config), key, trust, &ledger))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            agents,
            ledger,
            events: Mutex::new(Some(events)),
            ended: AtomicU64::new(0),
            started,
        })
    }

    /// What all of them were given and sent.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The agents.
    pub fn agents(&self) -> &[Agent] {
        &self.agents
    }

    /// How many ends of flows were answered with 200 while work was given out: its progress.
    pub fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    /// Waits until all are let in: by the answer to a poll, or because the API knows them and their
    /// polls are held. Says how long that took.
    ///
    /// Errors: the API fails, or some were not let in by then.
    pub async fn enrolled(&self, api: &Api, until: Instant) -> Result<Duration, SimError> {
        let mut missing: Vec<&Agent> = self.agents.iter().collect();
        loop {
            let mut still = Vec::new();
            for agent in missing {
                let known =
                    agent.book().is_enrolled() || api.client(agent.client_id()).await?.is_some();
                if !known {
                    still.push(agent);
                }
            }
            missing = still;
            let count = missing.len();
            if count == 0 {
                return Ok(self.started.elapsed());
            }
            if Instant::now() >= until {
                let all = self.agents.len();
                return Err(SimError::Timeout(format!(
                    "{count} of {all} agents were not let in"
                )));
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the host names of all are known to the API; says how long that took since the
    /// start, and how many are not known by then.
    ///
    /// Errors: the API fails.
    pub async fn named(&self, api: &Api, until: Instant) -> Result<(Duration, usize), SimError> {
        let mut nameless = 0;
        for agent in &self.agents {
            loop {
                let client = api.client(agent.client_id()).await?;
                let name = client
                    .as_ref()
                    .and_then(|client| client.get("hostname")?.as_str());
                if name.is_some_and(|name| name.starts_with("sim-")) {
                    break;
                }
                if Instant::now() >= until {
                    nameless += 1;
                    break;
                }
                sleep(Duration::from_millis(20)).await;
            }
        }
        Ok((self.started.elapsed(), nameless))
    }

    /// Gives out work and waits until all of it has ended, or its time is over.
    pub async fn work(&self, api: &Api, work: &Work) -> Done {
        let begun = Instant::now();
        let room = Arc::new(Semaphore::new(work.outstanding.max(1)));
        let open = Arc::new(Mutex::new(Open::default()));
        let mut events = lock(&self.events)
            .take()
            .unwrap_or_else(|| self.ledger.listen());
        let mut calls = JoinSet::new();
        let mut chance = Chance::of(&[&work.name], work.tasks as u64);
        let deadline = tokio::time::Instant::from_std(work.until);
        let creating = async {
            for number in 0..work.tasks {
                let Ok(place) = Arc::clone(&room).acquire_owned().await else {
                    break;
                };
                if Instant::now() >= work.until {
                    break;
                }
                let Some(agent) = self.agents.get(number % self.agents.len().max(1)) else {
                    break;
                };
                calls.spawn(self.call(api, work, number, agent, place, &open));
                while calls.try_join_next().is_some() {}
                if hits(work.restart_every, number)
                    && let Some(agent) = self.agents.get(chance.below(self.agents.len()))
                {
                    agent.restart();
                    let mut open = lock(&open);
                    open.done.restarted += 1;
                    // What it was at ends without it.
                    open.places
                        .retain(|_, (client, _)| client != agent.client_id());
                }
            }
            while calls.join_next().await.is_some() {}
            // With all places free, nothing is open any more.
            let all = u32::try_from(work.outstanding.max(1)).unwrap_or(u32::MAX);
            drop(room.acquire_many(all).await);
        };
        let ending = async {
            while let Some(event) = events.recv().await {
                if let Event::Ended { flow, .. } = event {
                    self.ended.fetch_add(1, Ordering::Relaxed);
                    let mut open = lock(&open);
                    if open.places.remove(&flow).is_some() {
                        open.done.ended += 1;
                        open.done.seconds = begun.elapsed().as_secs_f64();
                    }
                }
            }
        };
        let both = async {
            tokio::select! {
                () = creating => {}
                () = ending => {}
            }
        };
        if timeout_at(deadline, both).await.is_err() {
            tracing::warn!(open = lock(&open).places.len(), "the time is over");
        }
        *lock(&self.events) = Some(events);
        calls.shutdown().await;
        lock(&open).done.clone()
    }

    /// Asks for one flow until the API takes it.
    fn call(
        &self,
        api: &Api,
        work: &Work,
        number: usize,
        agent: &Agent,
        place: OwnedSemaphorePermit,
        open: &Arc<Mutex<Open>>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (api, open) = (api.clone(), Arc::clone(open));
        let (client, book) = (agent.client_id().to_owned(), Arc::clone(agent.book()));
        let script = work
            .scripts
            .get(number % work.scripts.len().max(1))
            .cloned()
            .unwrap_or_default();
        let urgent = hits(work.urgent_every, number);
        let cancel = hits(work.cancel_every, number);
        let wish = format!("{}-{number}", work.name);
        async move {
            let script = serde_json::to_string(&script).unwrap_or_default();
            let parameters = json!({ VARIABLE: script });
            let (begun, flow) = loop {
                let begun = Instant::now();
                match api
                    .collect(&client, ARTIFACT, &parameters, urgent, &wish)
                    .await
                {
                    Ok(flow) => break (begun, flow),
                    Err(error) => {
                        tracing::debug!(%error, "tried again");
                        lock(&open).done.tried_again += 1;
                        sleep(TRY_AGAIN).await;
                    }
                }
            };
            book.ordered(&flow, begun, Instant::now());
            {
                let mut open = lock(&open);
                open.done.created += 1;
                open.places.insert(flow.clone(), (client.clone(), place));
                // It may have ended before it had its place here.
                let ended = book.flow(&flow).is_some_and(|entry| entry.has_ended());
                if ended && open.places.remove(&flow).is_some() {
                    open.done.ended += 1;
                }
            }
            if cancel {
                sleep(Duration::from_millis(
                    Chance::of(&[&flow], 0).number() % 300,
                ))
                .await;
                book.cancel_ordered(&flow);
                let answered = api.cancel(&client, &flow).await;
                let mut open = lock(&open);
                match answered {
                    Ok(()) => open.done.cancelled += 1,
                    Err(error) => tracing::debug!(%error, "not cancelled"),
                }
                // Whether it ends with its agent is not certain any more.
                open.places.remove(&flow);
            }
        }
    }

    /// Ends all agents.
    pub async fn stop(self) {
        futures::future::join_all(self.agents.into_iter().map(Agent::stop)).await;
    }
}

fn hits(every: usize, number: usize) -> bool {
    every > 0 && (number + 1).is_multiple_of(every)
}
