//! The registry: who is enrolled, and whose generations have ended. Everybody reads a part of it
//! that grows.

use nublar_core::ids::{ClientKey, Life};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// An agent's key, by a frontend.
    Key(Life),
    /// The lowest generation that may live, by the foreman.
    Life(Life),
}

#[derive(Default)]
pub struct Registry {
    entries: Vec<Entry>,
}

impl Registry {
    pub fn push(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The client's generation, as who has read so many entries knows it.
    pub fn generation(&self, known: usize, client: &ClientKey) -> i64 {
        let lives = self
            .entries
            .iter()
            .take(known)
            .filter_map(|entry| match entry {
                Entry::Life(life) if life.client == *client => Some(life.generation),
                _ => None,
            });
        lives.max().unwrap_or(1)
    }

    /// The generation under which the client is registered, as who has read so many entries knows it.
    pub fn registered(&self, known: usize, client: &ClientKey) -> Option<i64> {
        let now = self.generation(known, client);
        let is_key = |entry: &&Entry| matches!(entry, Entry::Key(life) if life.client == *client && life.generation >= now);
        self.entries.iter().take(known).find(is_key).map(|_| now)
    }

    pub fn has_ended(&self, known: usize, life: &Life) -> bool {
        self.generation(known, &life.client) > life.generation
    }

    /// Lives that begin between two places.
    pub fn begun(&self, from: usize, to: usize) -> Vec<Life> {
        let entries = self.entries.get(from..to).unwrap_or_default();
        let begun = entries.iter().filter_map(|entry| match entry {
            Entry::Life(life) => Some(life.clone()),
            Entry::Key(_) => None,
        });
        begun.collect()
    }
}
