//! A worker of one group: objects and documents, then totals, then the mark.

use crate::faults::Fault;
use crate::world::{Log, World};
use nublar_core::hidden::HiddenNames;
use nublar_core::ids::Life;
use nublar_core::ingest::{FlowSum, Group, Plan, Sums, plan};
use nublar_schemas::records::Messages;
use std::collections::BTreeSet;

pub struct Worker {
    group: Group,
    /// What another worker would go on from.
    mark: usize,
    next: usize,
    sums: Sums,
    /// A record whose documents are being written.
    writing: Option<(Life, Plan, usize)>,
    /// How much of the registry was read.
    known: usize,
    /// Of whom something was written since the mark.
    touched: BTreeSet<Life>,
    reported_ms: u64,
}

impl Worker {
    pub fn new(group: Group) -> Self {
        Self {
            group,
            mark: 0,
            next: 0,
            sums: Sums::new(group, i64::MAX / 2, 4),
            writing: None,
            known: 0,
            touched: BTreeSet::new(),
            reported_ms: 0,
        }
    }

    /// Killed; another goes on from the mark.
    pub fn crash(&mut self) {
        let mark = self.mark;
        *self = Self {
            mark,
            next: mark,
            ..Self::new(self.group)
        };
    }

    pub fn is_idle(&self, log: &Log) -> bool {
        self.mark == self.records(log).len()
    }

    fn records<'a>(&self, log: &'a Log) -> &'a [Messages] {
        match self.group {
            Group::Results => &log.results,
            Group::Uploads => &log.uploads,
        }
    }

    pub fn step(world: &mut World, n: usize) {
        if world.index.off {
            return;
        }
        if world.dice.percent(20) {
            world.workers[n].known = world.log.registry.len();
        }
        if world.workers[n].writing.is_some() {
            return Self::write_one(world, n);
        }
        let worker = &world.workers[n];
        let due = world.now >= worker.reported_ms + 2_000;
        if (worker.sums.urgent() || due) && worker.mark < worker.next {
            return Self::report(world, n);
        }
        let Some(record) = worker.records(&world.log).get(worker.next).cloned() else {
            return;
        };
        let life = Life::of(&record.header).unwrap();
        let mut planned = plan(&life.client, &record, &HiddenNames::default());
        assert!(planned.refused.is_empty());
        let known = world.workers[n].known;
        let ignores = world.fault == Some(Fault::AnyGeneration);
        if world.log.registry.has_ended(known, &life) && !ignores {
            // Put aside; what another worker wrote of it is taken back.
            for part in &planned.parts {
                world.index.parts.remove(&part.id.to_string());
            }
            world.workers[n].next += 1;
            return;
        }
        if world.fault == Some(Fault::IdWithoutContent) {
            for part in &mut planned.parts {
                let flow = part.flow.clone().unwrap().to_string();
                part.id = nublar_core::ids::ContentId::of(&[
                    flow.as_bytes(),
                    &(part.order as u64 / 2).to_le_bytes(),
                ]);
            }
        }
        for flow in world.workers[n].sums.unknown(&life, &planned) {
            let mut sum = FlowSum::default();
            let collections = world.workers[n].group.collections();
            let of_flow = |part: &&nublar_core::ingest::Part| {
                part.flow.as_ref() == Some(&flow) && collections.contains(&part.collection)
            };
            let parts = world.index.parts.values().filter(|(of, _)| *of == life);
            for part in parts.map(|(_, part)| part).filter(of_flow) {
                sum.add(
                    part.collection,
                    part.id,
                    &part.source,
                    part.order,
                    part.size,
                );
            }
            world.workers[n].sums.load(&life, flow, sum);
        }
        world.workers[n].writing = Some((life, planned, 0));
        if world.fault == Some(Fault::MarkBeforeWrite) {
            world.workers[n].mark = world.workers[n].next + 1;
        }
    }

    fn write_one(world: &mut World, n: usize) {
        let Some((life, planned, at)) = world.workers[n].writing.take() else {
            return;
        };
        if let Some(part) = planned.parts.get(at) {
            world
                .index
                .parts
                .entry(part.id.to_string())
                .or_insert_with(|| (life.clone(), part.clone()));
            world.workers[n].touched.insert(life.clone());
            world.workers[n].writing = Some((life, planned, at + 1));
        } else {
            world.workers[n].sums.written(&life, &planned);
            world.workers[n].next += 1;
        }
    }

    fn report(world: &mut World, n: usize) {
        world.workers[n].reported_ms = world.now;
        let at_us = world.wall_us();
        let reports = world.workers[n]
            .sums
            .report(|life| nublar_schemas::records::Header {
                client: life.client.client.to_string(),
                generation: life.generation,
                at_us,
                ..Default::default()
            });
        for (_, stored) in reports {
            world.log.scheduling.push(stored.into());
            if world.mishap(3) {
                // Killed between two of its effects.
                return world.workers[n].crash();
            }
        }
        let touched = std::mem::take(&mut world.workers[n].touched);
        // The registry is read up to now: whose generation has ended meanwhile has nothing here.
        world.workers[n].known = world.log.registry.len();
        let looks = !matches!(
            world.fault,
            Some(Fault::AnyGeneration | Fault::MarkWithoutLook)
        );
        for life in touched.iter().filter(|_| looks) {
            if world.log.registry.has_ended(world.workers[n].known, life) {
                let collections = world.workers[n].group.collections();
                world
                    .index
                    .parts
                    .retain(|_, (of, part)| of != life || !collections.contains(&part.collection));
            }
        }
        world.workers[n].mark = world.workers[n].next;
    }
}
