//! The foreman's fold: one partition of `scheduling` in, decisions out.
//!
//! A deterministic function of the records and their positions. It knows no clock (time enters as
//! [`Tick`]), no randomness and no order of hash maps, so whoever folds the same records decides
//! the same. Everything it puts out is idempotent by a key of its own, so a takeover may repeat it.
//!
//! | file | what |
//! |---|---|
//! | `mod` | the state of a partition and the way of one record |
//! | `addresses` | where a client came from |
//! | `client` | a client's contact, and its queue |
//! | `own` | flows that nobody asked for: who a new client is, a new key for a clone |
//! | `flow` | one flow: how its task stands with the agent, and how it ends |
//! | `lives` | deletions: how one generation of a client ends |
//! | `reports` | statistics, questions and their answers |
//! | `clones` | agents of one key on several machines |
//! | `commands` | people's commands |
//! | `resumes` | uploads that agents are told to go on with |
//! | `clockwork` | ticks: silence, deadlines, ageing |
//! | `tables` | which event queries clients run |
//! | `documents` | what people read |
//! | `snapshot` | the state as bytes |

mod addresses;
mod client;
mod clockwork;
mod clones;
mod commands;
mod documents;
mod flow;
mod lives;
mod own;
mod reports;
mod restarts;
mod resumes;
mod snapshot;
mod tables;

pub use documents::FlowState;
pub use resumes::Resumption;
pub use snapshot::{LOGIC, SnapshotError};

use crate::hidden::HiddenNames;
use crate::ids::{ClientKey, FlowId, OrgId};
use crate::mac::MacKeys;
use client::Client;
use nublar_schemas::records::{
    ClientLife, Document, Header, Notifications, Scheduling, Setting, Tasks, Withdraw,
};
use own::Announced;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const HOUR_US: i64 = 3_600_000_000;
const DAY_US: i64 = 24 * HOUR_US;

/// What the fold goes by. Times are milliseconds of ticks unless they say otherwise.
#[derive(Debug, Clone)]
pub struct FoldConfig {
    /// Keys of flow ids.
    pub keys: MacKeys,
    /// Names of queries that agents run for another server.
    pub names: HiddenNames,
    /// Ask every new client who it is.
    pub interrogate: bool,
    /// Tell clients which event queries to run.
    pub monitor: bool,
    /// Of agents that share one key have one after the other make a new one.
    pub rekey_clones: bool,
    /// Flows that a client may have at once, urgent ones not counted.
    pub in_flight: usize,
    /// Tasks that a client may have without having answered for them, urgent ones included.
    pub unresolved: usize,
    /// How often a task may be delivered that was never seen alive.
    pub deliveries: u32,
    /// Ask about a granted flow that shows no life for so long.
    pub ask_after: u64,
    /// Ask about a running flow without news for so long.
    pub news_within: u64,
    /// Questions about one flow in one contact.
    pub asks_per_contact: u32,
    /// How long rows may be missing after the workers have closed a flow.
    pub grace: u64,
    /// A flow without news for so long is called unresponsive.
    pub unresponsive_after: u64,
    /// The longest step that one tick may make.
    pub longest_tick: u64,
    /// A session that comes back after a newer one within this time takes turns with it,
    /// microseconds.
    pub turns_us: i64,
    /// How long the later one of two that take turns is refused, microseconds.
    pub hold_down_us: i64,
    /// How long an interrogation may take, microseconds.
    pub interrogation_us: i64,
    /// How long a flow is remembered after a sure end, microseconds of wall time.
    pub keep_ended_us: i64,
    /// How long a flow is remembered after an end that may still change.
    pub keep_unsure_us: i64,
}

impl FoldConfig {
    /// The times of the design.
    pub fn new(keys: MacKeys) -> Self {
        Self {
            keys,
            names: HiddenNames::default(),
            interrogate: true,
            monitor: true,
            rekey_clones: false,
            in_flight: 4,
            unresolved: 16,
            deliveries: 8,
            ask_after: 15_000,
            news_within: 60_000,
            asks_per_contact: 5,
            grace: 60_000,
            unresponsive_after: 300_000,
            longest_tick: 5_000,
            turns_us: 600_000_000,
            hold_down_us: 60_000_000,
            interrogation_us: 7 * DAY_US,
            // A wish with a key is told again for a day: it must be known for longer.
            keep_ended_us: DAY_US + HOUR_US,
            keep_unsure_us: 35 * DAY_US,
        }
    }

    /// The same with every time of ticks divided by `factor`, for tests.
    #[must_use]
    pub fn hastened(mut self, factor: u64) -> Self {
        for time in [
            &mut self.ask_after,
            &mut self.news_within,
            &mut self.grace,
            &mut self.unresponsive_after,
            &mut self.longest_tick,
        ] {
            *time = (*time / factor.max(1)).max(1);
        }
        self
    }
}

/// Something that the fold decided.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// For the frontends: `tasks`, the partition of its client.
    Task(Tasks),
    /// For people: `state`.
    State(Document),
    /// For whoever waits: `notifications`.
    Notify(Notifications),
    /// A setting has a new version: `settings`.
    Setting(Setting),
    /// A generation of a client has ended: `registry`, the partition of its client.
    Life(ClientLife),
}

/// The version of a document that a record at this place caused: higher than that of any record
/// before it in its partition, in this or an older generation of the topic.
pub fn version(log_generation: u16, offset: u64) -> u64 {
    (u64::from(log_generation) << 48) | (offset + 1)
}

/// The state of one partition. See the [module](self).
#[derive(Debug)]
pub struct Fold {
    config: Arc<FoldConfig>,
    clients: BTreeMap<ClientKey, Client>,
    interrogation: BTreeMap<OrgId, Announced>,
    new_key: BTreeMap<OrgId, Announced>,
    tables: BTreeMap<OrgId, tables::Table>,
    settings: BTreeMap<(OrgId, String), i64>,
    /// Flows that have not ended, or for which the agent has not answered.
    open: BTreeSet<(ClientKey, FlowId)>,
    /// When ended flows are forgotten, microseconds of wall time.
    forget: BTreeSet<(i64, ClientKey, FlowId)>,
    /// Milliseconds of all ticks.
    clock: u64,
    wall_us: i64,
    epoch: i64,
    /// Records that named nothing that is known here.
    ignored: u64,
}

/// One record's turn: what it causes.
struct Turn {
    version: u64,
    /// Server time of the record, for what people read.
    at_us: i64,
    outputs: Vec<Output>,
    flows: BTreeSet<(ClientKey, FlowId)>,
    clients: BTreeSet<ClientKey>,
}

impl Turn {
    fn task(&mut self, task: impl Into<Tasks>) {
        self.outputs.push(Output::Task(task.into()));
    }

    /// Takes back what was offered of a flow.
    fn withdraw(&mut self, key: &ClientKey, generation: i64, flow: &FlowId) {
        self.task(Withdraw {
            header: header(key, generation, self.at_us),
            flow_id: flow.to_string(),
        });
    }

    fn touch_flow(&mut self, key: &ClientKey, flow: &FlowId) {
        self.flows.insert((key.clone(), flow.clone()));
    }

    fn touch_client(&mut self, key: &ClientKey) {
        self.clients.insert(key.clone());
    }
}

fn header(key: &ClientKey, generation: i64, at_us: i64) -> Header {
    Header {
        org: key.org.to_string(),
        client: key.client.to_string(),
        generation,
        at_us,
        frontend: "foreman".to_owned(),
        trace: String::new(),
    }
}

impl Fold {
    /// An empty partition.
    pub fn new(config: Arc<FoldConfig>) -> Self {
        Self {
            config,
            clients: BTreeMap::new(),
            interrogation: BTreeMap::new(),
            new_key: BTreeMap::new(),
            tables: BTreeMap::new(),
            settings: BTreeMap::new(),
            open: BTreeSet::new(),
            forget: BTreeSet::new(),
            clock: 0,
            wall_us: 0,
            epoch: 0,
            ignored: 0,
        }
    }

    /// Whether time matters now: if so, ticks must be appended.
    pub fn timer_armed(&self) -> bool {
        !self.open.is_empty()
    }

    /// The highest epoch of a tick that was folded.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// How many records named nothing that is known here.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    /// How many clients the partition holds.
    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Folds the record whose documents get this [`version`].
    pub fn apply(&mut self, version: u64, record: &Scheduling) -> Vec<Output> {
        let mut turn = Turn {
            version,
            at_us: record.header().at_us,
            outputs: Vec::new(),
            flows: BTreeSet::new(),
            clients: BTreeSet::new(),
        };
        match record {
            Scheduling::Tick(tick) => self.tick(&mut turn, tick),
            Scheduling::Announce(announce) => self.announce(&mut turn, announce),
            Scheduling::Command(command) => self.command(&mut turn, command),
            _ => match ClientKey::of(record.header()) {
                Ok(key) => self.of_client(&mut turn, &key, record),
                Err(_) => self.ignored += 1,
            },
        }
        self.finish(turn)
    }

    fn of_client(&mut self, turn: &mut Turn, key: &ClientKey, record: &Scheduling) {
        let generation = record.header().generation;
        let client = self
            .clients
            .entry(key.clone())
            .or_insert_with(|| Client::new(generation));
        if generation < client.generation {
            self.ignored += 1;
            return;
        }
        if generation > client.generation {
            // Who stamped it has read in the registry that the older one has ended.
            self.end_life(turn, key, generation);
        }
        match record {
            Scheduling::CheckIn(check_in) => self.check_in(turn, key, check_in),
            Scheduling::FlowCreated(created) => self.flow_created(turn, key, created),
            Scheduling::Claim(claim) => self.claim(turn, key, claim),
            Scheduling::Unsent(unsent) => self.unsent(turn, key, unsent),
            Scheduling::Unsure(unsure) => self.unsure(turn, key, unsure),
            Scheduling::FlowStatsSeen(seen) => self.stats_seen(turn, key, seen),
            Scheduling::Stored(stored) => self.stored(turn, key, stored),
            Scheduling::FactsSet(facts) => self.facts_set(turn, key, facts),
            Scheduling::Command(_) | Scheduling::Announce(_) | Scheduling::Tick(_) => {}
        }
        self.pump(turn, key);
    }

    /// Ends a turn: flows that ended are announced, documents of all that was touched are put out.
    fn finish(&mut self, mut turn: Turn) -> Vec<Output> {
        for (key, id) in std::mem::take(&mut turn.flows) {
            let Some(client) = self.clients.get_mut(&key) else {
                continue;
            };
            let generation = client.generation;
            let Some(flow) = client.flows.get_mut(&id) else {
                continue;
            };
            if flow.ended_us.is_none() && flow.verdict().is_end() {
                flow.ended_us = Some(turn.at_us);
                let notification = documents::completion(&key, generation, &id, flow, turn.at_us);
                turn.outputs.push(Output::Notify(notification.into()));
                if !flow.is_adopted() {
                    let keep = self.config.keep_unsure_us;
                    self.forget
                        .insert((turn.at_us + keep, key.clone(), id.clone()));
                }
            }
            if flow.is_open() {
                self.open.insert((key.clone(), id.clone()));
            } else {
                self.open.remove(&(key.clone(), id.clone()));
            }
            let document = documents::flow(&key, generation, &id, flow, turn.version, turn.at_us);
            turn.outputs.push(Output::State(document));
        }
        for key in std::mem::take(&mut turn.clients) {
            if let Some(client) = self.clients.get(&key) {
                let document = documents::client(&key, client, turn.version, turn.at_us);
                turn.outputs.push(Output::State(document));
            }
        }
        turn.outputs
    }
}

#[cfg(test)]
mod tests;
