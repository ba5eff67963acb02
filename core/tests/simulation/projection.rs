//! The worker of group `state`: puts documents, and removes what a deleted client left.

use crate::faults::Fault;
use crate::world::{Log, World};
use nublar_core::ids::Life;

#[derive(Default)]
pub struct Projection {
    mark: usize,
    next: usize,
    /// How much of the registry was read.
    known: usize,
    /// Deletions that were read: the registry may be read later.
    begun: Vec<Life>,
    /// What has ended and is being removed, with the place of the deletion.
    removing: Option<(Life, usize)>,
}

impl Projection {
    /// Killed; another goes on from the mark.
    pub fn crash(&mut self) {
        *self = Self {
            mark: self.mark,
            next: self.mark,
            ..Self::default()
        };
    }

    pub fn is_idle(&self, log: &Log) -> bool {
        self.mark == log.state.len()
    }

    pub fn step(world: &mut World) {
        if world.index.off {
            return;
        }
        // Whoever takes over reads it to its end first: what was deleted before is not told again.
        if world.projection.known == 0 || world.dice.percent(60) {
            world.projection.known = world.log.registry.len();
        }
        if let Some((life, place)) = world.projection.removing.clone() {
            return Self::remove(world, &life, place);
        }
        let next = world.projection.next;
        let Some(document) = world.log.state.get(next).cloned() else {
            return;
        };
        let life = Life::of(&document.header).unwrap();
        world.projection.next += 1;
        if document.body.is_empty() {
            let ended = Life {
                generation: life.generation - 1,
                ..life.clone()
            };
            world.projection.begun.push(life);
            world.projection.removing = Some((ended, next));
            return;
        }
        let is_over =
            |begun: &Life| begun.client == life.client && begun.generation > life.generation;
        let known = world.projection.known;
        if world.projection.begun.iter().any(is_over) || world.log.registry.has_ended(known, &life)
        {
            return world.projection.go_on();
        }
        let newest = world.index.documents.get(&document.id);
        let newest = newest.map_or(0, |known| known.version);
        // A reader of a compacted topic would find the last, not the highest.
        if document.version >= newest || world.fault == Some(Fault::TrustCompaction) {
            world.index.documents.insert(document.id.clone(), document);
        }
        world.projection.go_on();
    }

    fn go_on(&mut self) {
        self.mark = self.next;
    }

    /// A few documents at a time, once the deletion stands in the registry.
    fn remove(world: &mut World, life: &Life, place: usize) {
        if !world.log.registry.has_ended(world.projection.known, life) {
            return;
        }
        let parts = world.index.parts.iter();
        let parts: Vec<_> = parts
            .filter(|(_, (of, _))| of == life)
            .map(|(id, _)| id.clone())
            .take(3)
            .collect();
        for id in &parts {
            world.index.parts.remove(id);
        }
        let documents = world.index.documents.iter();
        let documents: Vec<_> = documents
            .filter(|(_, document)| Life::of(&document.header).as_ref() == Ok(life))
            .map(|(id, _)| id.clone())
            .take(3)
            .collect();
        for id in &documents {
            world.index.documents.remove(id);
        }
        if parts.is_empty() && documents.is_empty() {
            world.projection.removing = None;
            world.projection.mark = place + 1;
        }
    }
}
