//! The log, the index, the dice, and who moves next.

use crate::agent::Agent;
use crate::check;
use crate::faults::Fault;
use crate::foreman::Foremen;
use crate::frontend::Frontend;
use crate::projection::Projection;
use crate::registry::Registry;
use crate::worker::Worker;
use bytes::Bytes;
use nublar_core::fold::FoldConfig;
use nublar_core::ids::{ClientKey, Life};
use nublar_core::ingest::{Group, Part};
use nublar_core::mac::{MacKey, MacKeys};
use nublar_schemas::records::{
    Command, Document, FlowCreated, Header, Messages, Notifications, RequestRef, Scheduling, Tasks,
};
use std::collections::{BTreeMap, BTreeSet};

pub type Violation = String;

/// A die of one seed.
pub struct Dice(u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// True so many times of a hundred.
    pub fn percent(&mut self, n: u64) -> bool {
        self.next() % 100 < n
    }
}

/// One partition of each topic. What was appended is durable; nothing else is promised.
#[derive(Default)]
pub struct Log {
    pub scheduling: Vec<Scheduling>,
    pub tasks: Vec<Tasks>,
    pub results: Vec<Messages>,
    pub uploads: Vec<Messages>,
    pub state: Vec<Document>,
    pub news: Vec<Notifications>,
    pub registry: Registry,
}

/// Documents by id, as the workers wrote them.
#[derive(Default)]
pub struct Index {
    pub parts: BTreeMap<String, (Life, Part)>,
    pub documents: BTreeMap<String, Document>,
    pub off: bool,
}

/// What somebody asked for and what really happened, seen from above.
#[derive(Default)]
pub struct Truth {
    /// The agent that each is for, and its generation then.
    pub flows: BTreeMap<String, (usize, i64)>,
    /// What people deleted.
    pub deleted: BTreeSet<Life>,
    pub cancelled: BTreeSet<String>,
    /// Flows of which something is durable, so that the server knows that they lived.
    pub lived: BTreeSet<String>,
    pub violations: Vec<Violation>,
}

pub struct World {
    pub dice: Dice,
    pub fault: Option<Fault>,
    pub now: u64,
    pub log: Log,
    pub index: Index,
    pub truth: Truth,
    pub agents: Vec<Agent>,
    pub frontends: Vec<Frontend>,
    pub workers: Vec<Worker>,
    pub projection: Projection,
    pub foremen: Foremen,
    pub keys: MacKeys,
    /// People delete clients.
    deletes: bool,
    /// No more faults: everything that can end must end.
    pub quiet: bool,
}

pub const BEGIN_US: i64 = 1_795_514_940_000_000;

impl World {
    /// Plays one seed; how many flows finished, or the first thing that should not be.
    pub fn run(seed: u64, fault: Option<Fault>) -> Result<usize, Violation> {
        let mut world = Self::new(seed, fault);
        for _ in 0..500 + world.dice.below(900) {
            world.step();
            world.first_violation()?;
        }
        world.quiet = true;
        world.index.off = false;
        for round in 0..100_000 {
            world.step();
            world.first_violation()?;
            if round % 50 == 0 && world.is_idle() {
                break;
            }
        }
        let end = check::at_the_end(&world);
        if end.is_err() && std::env::var("NUBLAR_TRACE").is_ok() {
            println!(
                "now {} mark of {} scheduling",
                world.now,
                world.log.scheduling.len()
            );
            for (n, record) in world.log.scheduling.iter().enumerate() {
                if !matches!(record, Scheduling::Tick(_)) {
                    println!("S{n} {record:?}");
                }
            }
            for (n, record) in world.log.tasks.iter().enumerate() {
                println!("T{n} {record:?}");
            }
        }
        end
    }

    fn new(seed: u64, fault: Option<Fault>) -> Self {
        let keys = MacKeys::new(
            MacKey {
                from_us: 0,
                secret: [3; 32],
            },
            [],
        );
        let mut config = FoldConfig::new(keys.clone());
        config.interrogate = false;
        let mut dice = Dice(seed);
        let agents = (0..1 + dice.below(2))
            .map(|n| Agent::new(n as u8 + 1, dice.percent(30)))
            .collect();
        let deletes = dice.percent(50);
        Self {
            agents,
            deletes,
            dice,
            fault,
            now: 1_000,
            log: Log::default(),
            index: Index::default(),
            truth: Truth::default(),
            frontends: (0..2).map(Frontend::new).collect(),
            workers: vec![Worker::new(Group::Results), Worker::new(Group::Uploads)],
            projection: Projection::default(),
            foremen: Foremen::new(config),
            keys,
            quiet: false,
        }
    }

    pub fn wall_us(&self) -> i64 {
        BEGIN_US + self.now as i64 * 1_000
    }

    pub fn header(&self, key: &ClientKey, generation: i64, name: &str) -> Header {
        Header {
            org: String::new(),
            client: key.client.to_string(),
            generation,
            at_us: self.wall_us(),
            frontend: name.to_owned(),
            trace: String::new(),
        }
    }

    /// The client's generation by the whole registry.
    pub fn generation(&self, key: &ClientKey) -> i64 {
        let registry = &self.log.registry;
        registry.generation(registry.len(), key)
    }

    /// True so many times of a hundred while faults are allowed.
    pub fn mishap(&mut self, percent: u64) -> bool {
        !self.quiet && self.dice.percent(percent)
    }

    pub fn violation(&mut self, text: String) {
        self.truth.violations.push(text);
    }

    fn first_violation(&self) -> Result<(), Violation> {
        self.truth
            .violations
            .first()
            .map_or(Ok(()), |violation| Err(violation.clone()))
    }

    /// One move of somebody.
    fn step(&mut self) {
        // While somebody has something to read time hardly passes; else it leaps.
        let busy =
            self.foremen.lag(&self.log) > 0 || self.frontends.iter().any(|f| !f.is_idle(&self.log));
        let leap = if busy { 40 } else { 2_000 };
        self.now += self.dice.below(leap) as u64;
        match self.dice.below(17) {
            0 if !self.quiet => self.people(),
            1 if self.mishap(25) => self.something_breaks(),
            0..=5 => {
                let n = self.dice.below(self.agents.len());
                Agent::step(self, n);
            }
            6..=9 => {
                let n = self.dice.below(self.frontends.len());
                Frontend::step(self, n);
            }
            10..=12 => {
                let n = self.dice.below(self.workers.len());
                Worker::step(self, n);
            }
            13 => Projection::step(self),
            _ => Foremen::step(self),
        }
    }

    fn something_breaks(&mut self) {
        // What one planted fault needs happens often.
        let kinds = match self.fault {
            Some(Fault::LifeAfterRows) => 2,
            _ => 7,
        };
        match self.dice.below(kinds) {
            6 => self.projection.crash(),
            0 => {
                let n = self.dice.below(self.agents.len());
                self.agents[n].restart();
            }
            1 => {
                let n = self.dice.below(self.frontends.len());
                self.frontends[n].restart();
            }
            2 => {
                let n = self.dice.below(self.workers.len());
                self.workers[n].crash();
            }
            3 | 4 => Foremen::take_over(self),
            _ => self.index.off = !self.index.off,
        }
    }

    fn people(&mut self) {
        if self.truth.flows.len() >= 10 || (self.dice.percent(30) && !self.truth.flows.is_empty()) {
            if self.dice.percent(30) && !self.truth.flows.is_empty() {
                self.cancel();
            } else if self.deletes && self.dice.percent(15)
                || self.fault == Some(Fault::MarkWithoutLook) && self.dice.percent(50)
            {
                self.delete();
            }
            return;
        }
        let n = self.dice.below(self.agents.len());
        let key = self.agents[n].key.clone();
        // The API may not have read of a deletion yet.
        let known = self
            .log
            .registry
            .len()
            .saturating_sub(usize::from(self.dice.percent(10)));
        let generation = self.log.registry.generation(known, &key);
        let tell = (self.truth.flows.len() as u32).to_be_bytes();
        let id = self.keys.flow_id(&key, generation, self.wall_us(), tell);
        let flow = id.to_string();
        self.truth.flows.insert(flow.clone(), (n, generation));
        // What an agent lost that can not be asked, and nobody saw it, ends with its deadline.
        let patience_us = if self.agents[n].old {
            900_000_000
        } else {
            3_600_000_000
        };
        let created = FlowCreated {
            header: self.header(&key, generation, "gui"),
            flow_id: flow.clone(),
            request: RequestRef {
                hash: Bytes::from(flow),
                ..RequestRef::default()
            },
            creator: "admin".to_owned(),
            artifacts: Vec::new(),
            spec: String::new(),
            queries: 1,
            urgent: self.dice.percent(20),
            execve: false,
            deadline_us: self.wall_us() + patience_us,
        };
        self.log.scheduling.push(created.into());
    }

    fn cancel(&mut self) {
        let nth = self.dice.below(self.truth.flows.len());
        let Some((flow, (n, generation))) = self
            .truth
            .flows
            .iter()
            .nth(nth)
            .map(|(flow, of)| (flow.clone(), *of))
        else {
            return;
        };
        let header = self.header(&self.agents[n].key.clone(), generation, "gui");
        self.truth.cancelled.insert(flow.clone());
        let id = format!("cancel-{flow}");
        let (kind, user, body) = ("cancel".to_owned(), "admin".to_owned(), String::new());
        self.log.scheduling.push(
            Command {
                header,
                id,
                kind,
                target: flow,
                user,
                body,
            }
            .into(),
        );
    }

    /// Deletes a client that is registered; sometimes one that was deleted already, by a wish that
    /// took long.
    fn delete(&mut self) {
        let n = self.dice.below(self.agents.len());
        let key = self.agents[n].key.clone();
        let registry = &self.log.registry;
        let Some(now) = registry.registered(registry.len(), &key) else {
            return;
        };
        let generation = if now > 1 && self.dice.percent(20) {
            now - 1
        } else {
            now
        };
        let header = self.header(&key, generation, "gui");
        self.truth.deleted.insert(Life {
            client: key.clone(),
            generation,
        });
        let id = format!("delete-{}-{generation}", key.client);
        let (kind, user, body) = (
            "delete_client".to_owned(),
            "admin".to_owned(),
            String::new(),
        );
        let target = key.client.to_string();
        let command = Command {
            header,
            id,
            kind,
            target,
            user,
            body,
        };
        self.log.scheduling.push(command.into());
    }

    /// Whether every flow has ended and nobody has anything left to do.
    fn is_idle(&self) -> bool {
        let has_ended = |flow: &String| {
            check::state(self, flow).is_some_and(|state| state == "FINISHED" || state == "ERROR")
        };
        let flows = check::of_the_living(self);
        flows.iter().all(has_ended)
            && self.projection.is_idle(&self.log)
            && self.agents.iter().all(Agent::is_idle)
            && self
                .frontends
                .iter()
                .all(|frontend| frontend.is_idle(&self.log))
            && self.workers.iter().all(|worker| worker.is_idle(&self.log))
            && self.foremen.lag(&self.log) == 0
            // What an old agent lost is waited for: it may have been cut off only.
            && (self.agents.iter().any(|agent| agent.old) || !self.foremen.timer_armed())
    }
}
