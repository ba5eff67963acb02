//! Which clients there are.

use super::follow::Progress;
use nublar_core::ids::{ClientKey, Life};
use nublar_ports::log::Record;
use nublar_schemas::codec::CodecError;
use nublar_schemas::records::Registry as Entry;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// The generations under which a client has a key and is alive.
#[derive(Debug, Clone, Copy, Default)]
struct Generations {
    key: Option<i64>,
    life: i64,
}

/// The clients of the registry.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    pub(crate) progress: Progress,
    clients: Mutex<HashMap<ClientKey, Generations>>,
    changed: watch::Sender<()>,
}

impl Registry {
    pub(super) fn apply(&self, record: &Record) -> Result<(), CodecError> {
        if record.value.is_empty() {
            return Ok(());
        }
        let entry = Entry::decode(&record.value)?;
        let Ok(key) = ClientKey::of(entry.header()) else {
            return Ok(());
        };
        let generation = entry.header().generation;
        {
            let mut clients = self.lock();
            let generations = clients.entry(key).or_default();
            match entry {
                Entry::ClientKey(_) => generations.key = generations.key.max(Some(generation)),
                Entry::ClientLife(_) => generations.life = generations.life.max(generation),
            }
        }
        self.changed.send_replace(());
        Ok(())
    }

    /// The client as it is now: what is shown of it is of this generation.
    pub(crate) fn life(&self, key: &ClientKey) -> Life {
        let clients = self.lock();
        let life = clients.get(key).map_or(1, |generations| generations.life);
        Life {
            client: key.clone(),
            generation: life.max(1),
        }
    }

    /// Whether a generation of a client was deleted.
    pub(crate) fn has_ended(&self, life: &Life) -> bool {
        self.life(&life.client).generation > life.generation
    }

    /// Waits until that is known here; false if it is not in this time.
    pub(crate) async fn ended(&self, life: &Life, within: Duration) -> bool {
        let mut changed = self.changed.subscribe();
        let read = timeout(within, changed.wait_for(|()| self.has_ended(life))).await;
        matches!(read, Ok(Ok(_)))
    }

    /// The generation of a client that is registered.
    pub(crate) fn generation(&self, key: &ClientKey) -> Option<i64> {
        let clients = self.lock();
        let generations = clients.get(key)?;
        generations
            .key
            .filter(|enrolled| *enrolled >= generations.life)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ClientKey, Generations>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
