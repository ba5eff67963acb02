//! A worker of one group: objects and documents, then totals, then the mark.

use crate::faults::Fault;
use crate::world::{Log, World};
use nublar_core::ids::ClientKey;
use nublar_core::ingest::{FlowSum, Group, Plan, Sums, plan};
use nublar_schemas::records::Messages;

pub struct Worker {
    group: Group,
    /// What another worker would go on from.
    mark: usize,
    next: usize,
    sums: Sums,
    /// A record whose documents are being written.
    writing: Option<(ClientKey, Plan, usize)>,
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
        let key = ClientKey::of(&record.header).unwrap();
        let mut planned = plan(&key, &record);
        assert!(planned.refused.is_empty());
        if world.fault == Some(Fault::IdWithoutContent) {
            for part in &mut planned.parts {
                let flow = part.flow.clone().unwrap().to_string();
                part.id = nublar_core::ids::ContentId::of(&[
                    flow.as_bytes(),
                    &(part.order as u64 / 2).to_le_bytes(),
                ]);
            }
        }
        for flow in world.workers[n].sums.unknown(&key, &planned) {
            let mut sum = FlowSum::default();
            let collections = world.workers[n].group.collections();
            let of_flow = |part: &&nublar_core::ingest::Part| {
                part.flow.as_ref() == Some(&flow) && collections.contains(&part.collection)
            };
            for part in world.index.parts.values().filter(of_flow) {
                sum.add(
                    part.collection,
                    part.id,
                    &part.source,
                    part.order,
                    part.size,
                );
            }
            world.workers[n].sums.load(&key, flow, sum);
        }
        world.workers[n].writing = Some((key, planned, 0));
        if world.fault == Some(Fault::MarkBeforeWrite) {
            world.workers[n].mark = world.workers[n].next + 1;
        }
    }

    fn write_one(world: &mut World, n: usize) {
        let Some((key, planned, at)) = world.workers[n].writing.take() else {
            return;
        };
        if let Some(part) = planned.parts.get(at) {
            world
                .index
                .parts
                .entry(part.id.to_string())
                .or_insert_with(|| part.clone());
            world.workers[n].writing = Some((key, planned, at + 1));
        } else {
            world.workers[n].sums.written(&key, &planned);
            world.workers[n].next += 1;
        }
    }

    fn report(world: &mut World, n: usize) {
        world.workers[n].reported_ms = world.now;
        let header = world.header(&world.agents[0].key.clone(), "worker");
        let reports = world.workers[n]
            .sums
            .report(|key| nublar_schemas::records::Header {
                client: key.client.to_string(),
                ..header.clone()
            });
        for (_, stored) in reports {
            world.log.scheduling.push(stored.into());
            if world.mishap(3) {
                // Killed between two of its effects.
                return world.workers[n].crash();
            }
        }
        world.workers[n].mark = world.workers[n].next;
    }
}
