//! Foremen around one fold: one owns the partition, those it was taken from may still write.

use crate::faults::Fault;
use crate::registry::Entry;
use crate::world::{Log, World};
use nublar_core::fold::{Fold, FoldConfig, LOGIC, Output, version};
use nublar_core::ids::{ClientKey, Life};
use nublar_schemas::records::{Header, Notification, Scheduling, Tick};
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::Arc;

struct Foreman {
    fold: Fold,
    next: usize,
    epoch: i64,
    /// Outputs of the record before `next` that are not appended yet.
    out: VecDeque<Output>,
    last_tick: u64,
    /// Moves that a foreman without the partition still makes.
    left: usize,
}

pub struct Foremen {
    config: Arc<FoldConfig>,
    owner: Foreman,
    zombies: Vec<Foreman>,
    mark: usize,
    snapshots: Vec<(usize, Vec<u8>)>,
    takeovers: i64,
}

impl Foremen {
    pub fn new(config: FoldConfig) -> Self {
        let config = Arc::new(config);
        let owner = Foreman {
            fold: Fold::new(config.clone()),
            next: 0,
            epoch: 1,
            out: VecDeque::new(),
            last_tick: 0,
            left: 0,
        };
        Self {
            config,
            owner,
            zombies: Vec::new(),
            mark: 0,
            snapshots: Vec::new(),
            takeovers: 1,
        }
    }

    /// Records that the owner has not answered.
    pub fn lag(&self, log: &Log) -> usize {
        log.scheduling.len() - self.mark
    }

    pub fn timer_armed(&self) -> bool {
        self.owner.fold.timer_armed()
    }

    pub fn step(world: &mut World) {
        let zombies = world.foremen.zombies.len();
        if zombies > 0 && world.dice.percent(40) {
            let n = world.dice.below(zombies);
            let mut zombie = world.foremen.zombies.swap_remove(n);
            Self::advance(world, &mut zombie);
            zombie.left = zombie.left.saturating_sub(1);
            if zombie.left > 0 && !world.quiet {
                world.foremen.zombies.push(zombie);
            }
            return;
        }
        let mut owner = std::mem::replace(
            &mut world.foremen.owner,
            Foreman {
                fold: Fold::new(world.foremen.config.clone()),
                next: 0,
                epoch: 0,
                out: VecDeque::new(),
                last_tick: 0,
                left: 0,
            },
        );
        Self::advance(world, &mut owner);
        if owner.out.is_empty() {
            world.foremen.mark = owner.next;
            if world.dice.percent(5) {
                let state = owner.fold.snapshot().unwrap();
                world.foremen.snapshots.push((owner.next, state));
            }
        }
        world.foremen.owner = owner;
    }

    /// One output, or one record, or a tick.
    fn advance(world: &mut World, foreman: &mut Foreman) {
        if let Some(output) = foreman.out.pop_front() {
            return put_out(world, output);
        }
        if world.now >= foreman.last_tick + 5_000 {
            let elapsed = world.now - foreman.last_tick;
            foreman.last_tick = world.now;
            if foreman.fold.timer_armed() {
                let tick = Tick {
                    header: Header {
                        at_us: world.wall_us(),
                        ..Header::default()
                    },
                    epoch: foreman.epoch,
                    elapsed_ms: elapsed.min(5_000) as i64,
                    wall_us: world.wall_us(),
                };
                world.log.scheduling.push(tick.into());
                return;
            }
        }
        let Some(record) = world.log.scheduling.get(foreman.next).cloned() else {
            return;
        };
        let record = disturb(world, record);
        let outputs = foreman.fold.apply(version(1, foreman.next as u64), &record);
        foreman.out = outputs.into();
        if world.fault == Some(Fault::TimerCompletes) {
            complete_by_timer(&record, foreman);
        }
        if world.fault == Some(Fault::TwoDocuments) {
            let twice: Vec<_> = foreman
                .out
                .iter()
                .filter(|output| matches!(output, Output::State(_)))
                .cloned()
                .collect();
            for output in twice {
                if let Output::State(mut document) = output {
                    document.body = document.body.replace("\"attempt\":1", "\"attempt\":0");
                    foreman.out.push_front(Output::State(document));
                }
            }
        }
        foreman.next += 1;
    }

    /// Another foreman takes the partition over; the old one does not know yet.
    pub fn take_over(world: &mut World) {
        let mark = world.foremen.mark;
        let usable = world
            .foremen
            .snapshots
            .iter()
            .rev()
            .find(|(next, _)| *next <= mark)
            .cloned();
        let config = world.foremen.config.clone();
        let (mut fold, from) = match usable {
            Some((next, state)) => (Fold::restore(config, LOGIC, &state).unwrap(), next),
            None => (Fold::new(config), 0),
        };
        for offset in from..mark {
            let record = disturb(world, world.log.scheduling[offset].clone());
            fold.apply(version(1, offset as u64), &record);
        }
        let mut next = mark;
        if world.fault == Some(Fault::SilentTakeover) {
            // Silent about what the predecessor had read, too.
            let read = world.foremen.owner.next;
            for offset in mark..read {
                fold.apply(
                    version(1, offset as u64),
                    &world.log.scheduling[offset].clone(),
                );
            }
            next = read;
        }
        world.foremen.takeovers += 1;
        let epoch = world.foremen.takeovers;
        let last_tick = world.now;
        let new = Foreman {
            fold,
            next,
            epoch,
            out: VecDeque::new(),
            last_tick,
            left: 0,
        };
        let mut old = std::mem::replace(&mut world.foremen.owner, new);
        old.left = world.dice.below(30);
        world.foremen.zombies.push(old);
    }
}

fn put_out(world: &mut World, output: Output) {
    match output {
        Output::Task(task) => world.log.tasks.push(task),
        Output::State(document) => {
            let mut others = world.log.state.iter();
            let same = |other: &&nublar_schemas::records::Document| {
                other.id == document.id && other.version == document.version
            };
            if others
                .find(same)
                .is_some_and(|other| other.body != document.body)
            {
                let id = &document.id;
                world.violation(format!("two documents of {id} from one cause"));
            }
            if document.kind == "flow" {
                let body: Value = serde_json::from_str(&document.body).unwrap_or_default();
                let flow = body["flow_id"].as_str().unwrap_or_default();
                let client = &document.header.client;
                let mut agents = world.agents.iter();
                let agent = agents.find(|agent| agent.key.client.to_string() == *client);
                if body["reason"] == "lost" && agent.is_some_and(|agent| agent.has(flow)) {
                    world.violation(format!("{flow} is called lost, and its agent has it"));
                }
            }
            world.log.state.push(document);
        }
        Output::Life(life) => {
            let life = Life::of(&life.header).unwrap();
            world.log.registry.push(Entry::Life(life));
        }
        Output::Notify(news) => world.log.news.push(news),
        Output::Setting(_) => {}
    }
}

/// What a foreman with a fault would read.
fn disturb(world: &mut World, record: Scheduling) -> Scheduling {
    match (world.fault, record) {
        (Some(Fault::FoldWithClock), record) => {
            let mut record = record;
            let now = world.wall_us();
            match &mut record {
                Scheduling::Claim(claim) => claim.header.at_us = now,
                Scheduling::FlowStatsSeen(seen) => seen.header.at_us = now,
                Scheduling::Stored(stored) => stored.header.at_us = now,
                _ => {}
            }
            record
        }
        (Some(Fault::FoldAnyGeneration), mut record) => {
            let stamped = match &mut record {
                Scheduling::CheckIn(of) => Some(&mut of.header),
                Scheduling::FlowStatsSeen(of) => Some(&mut of.header),
                Scheduling::Stored(of) => Some(&mut of.header),
                _ => None,
            };
            if let Some(header) = stamped
                && let Ok(key) = ClientKey::of(header)
            {
                header.generation = world.generation(&key).max(header.generation);
            }
            record
        }
        (Some(Fault::UnknownForAnyAttempt), Scheduling::FlowStatsSeen(mut seen)) => {
            crate::faults::for_any_attempt(world, &mut seen);
            seen.into()
        }
        (_, record) => record,
    }
}

/// Says that a flow is complete as soon as its agent does, stored or not.
fn complete_by_timer(record: &Scheduling, foreman: &mut Foreman) {
    let Scheduling::FlowStatsSeen(seen) = record else {
        return;
    };
    let Ok(key) = ClientKey::of(&seen.header) else {
        return;
    };
    for item in &seen.stats {
        let stats =
            <nublar_schemas::agent::FlowStats as prost::Message>::decode(item.bytes.clone())
                .unwrap();
        if stats.flow_complete && !nublar_core::stats::is_unknown(&stats) {
            let body = "{\"state\":\"FINISHED\"}".to_owned();
            let id = nublar_core::ids::ContentId::of(&[
                b"flow_completion",
                b"",
                &key.client.to_bytes(),
                item.session.as_bytes(),
            ]);
            let id = id.as_bytes().to_vec().into();
            let header = seen.header.clone();
            let kind = "flow_completion".to_owned();
            foreman.out.push_front(Output::Notify(
                Notification {
                    header,
                    id,
                    kind,
                    subject: item.session.clone(),
                    body,
                }
                .into(),
            ));
        }
    }
}
