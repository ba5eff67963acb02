//! The newest documents: those of the last moments of `state`, and those that this process has
//! just caused. The index has them a little later.

use super::follow::Progress;
use crate::clock::now_us;
use nublar_core::ids::Life;
use nublar_ports::log::{From, Record};
use nublar_schemas::codec::{CodecError, Record as _};
use nublar_schemas::records::Document;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long a document is kept: by then the index has it.
const KEPT: Duration = Duration::from_secs(30);
/// How long a document is kept that the foreman has not told of yet.
const KEPT_AHEAD: Duration = Duration::from_secs(600);
/// How many documents are kept at most.
const MOST: usize = 200_000;

/// The kinds of documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Flow,
    Client,
}

/// A document as it was seen.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Seen {
    pub(crate) id: String,
    /// Whose it is, in the generation that it is of.
    pub(crate) life: Life,
    /// Its place in lists.
    pub(crate) order: i64,
    pub(crate) version: u64,
    /// JSON; empty when the client was deleted.
    pub(crate) body: String,
}

impl Seen {
    /// Whether it says that there is no such document any more.
    pub(crate) fn is_end(&self) -> bool {
        self.body.is_empty()
    }
}

type Key = (Kind, String);

#[derive(Debug, Default)]
struct Entries {
    by_key: HashMap<Key, (Arc<Seen>, (Instant, u64))>,
    /// When entries end, with a number that tells them apart.
    ends: BTreeMap<(Instant, u64), Key>,
    number: u64,
}

/// The newest documents.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    pub(crate) progress: Progress,
    entries: Mutex<Entries>,
    changed: watch::Sender<u64>,
}

/// Where the tail begins.
pub(super) fn start() -> From {
    let kept = i64::try_from(KEPT.as_micros()).unwrap_or(0);
    From::Time(now_us() - kept)
}

#[derive(Deserialize)]
struct Orders {
    #[serde(default)]
    create_time: Option<i64>,
    #[serde(default)]
    first_seen_at: Option<i64>,
}

impl Recent {
    pub(super) fn apply(&self, record: &Record) -> Result<(), CodecError> {
        let document = Document::decode(&record.value)?;
        let kind = match document.kind.as_str() {
            "flow" => Kind::Flow,
            "client" => Kind::Client,
            _ => return Ok(()),
        };
        let Ok(life) = Life::of(&document.header) else {
            return Ok(());
        };
        if !document.header.org.is_empty() {
            return Ok(());
        }
        let orders = serde_json::from_str::<Orders>(&document.body).ok();
        let order = orders.and_then(|orders| match kind {
            Kind::Flow => orders.create_time,
            Kind::Client => orders.first_seen_at,
        });
        let seen = Seen {
            id: document.id,
            life,
            order: order.unwrap_or(0),
            version: document.version.unsigned_abs(),
            body: document.body,
        };
        self.insert(kind, seen, KEPT);
        Ok(())
    }

    /// A document that the foreman will tell of: what one just did is seen at once.
    pub(crate) fn ahead(&self, kind: Kind, seen: Seen) {
        self.insert(kind, Seen { version: 0, ..seen }, KEPT_AHEAD);
    }

    fn insert(&self, kind: Kind, seen: Seen, kept: Duration) {
        let now = Instant::now();
        {
            let mut entries = self.lock();
            let key = (kind, seen.id.clone());
            match entries.by_key.get(&key) {
                Some((known, _)) if known.version >= seen.version => return,
                Some((_, end)) => {
                    let end = *end;
                    entries.ends.remove(&end);
                }
                None => {}
            }
            entries.number += 1;
            let end = (now + kept, entries.number);
            entries.ends.insert(end, key.clone());
            entries.by_key.insert(key, (Arc::new(seen), end));
            while let Some((end, _)) = entries.ends.first_key_value() {
                if end.0 >= now && entries.ends.len() <= MOST {
                    break;
                }
                if let Some((_, key)) = entries.ends.pop_first() {
                    entries.by_key.remove(&key);
                }
            }
        }
        self.changed.send_modify(|n| *n += 1);
    }

    /// The newest that is known here of a document.
    pub(crate) fn get(&self, kind: Kind, id: &str) -> Option<Arc<Seen>> {
        let entries = self.lock();
        entries
            .by_key
            .get(&(kind, id.to_owned()))
            .map(|(seen, _)| Arc::clone(seen))
    }

    /// All of a kind, of one life or of all.
    pub(crate) fn all(&self, kind: Kind, life: Option<&Life>) -> Vec<Arc<Seen>> {
        let entries = self.lock();
        let of_kind = entries.by_key.iter().filter(|((of, _), _)| *of == kind);
        let seen = of_kind.map(|(_, (seen, _))| seen);
        seen.filter(|seen| life.is_none_or(|life| *life == seen.life))
            .cloned()
            .collect()
    }

    /// Tells when any document has changed.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn life(generation: i64) -> Life {
        Life {
            client: nublar_core::ids::ClientKey {
                org: "".parse().unwrap(),
                client: "C.00000000000000aa".parse().unwrap(),
            },
            generation,
        }
    }

    fn seen(id: &str, version: u64) -> Seen {
        Seen {
            id: id.into(),
            life: life(1),
            order: 0,
            version,
            body: String::new(),
        }
    }

    #[test]
    fn versions_never_go_backwards_and_ends_are_kept() {
        let recent = Recent::default();
        recent.insert(Kind::Flow, seen("a", 2), KEPT);
        recent.insert(Kind::Flow, seen("a", 1), KEPT);
        recent.ahead(Kind::Flow, seen("a", 9));
        assert_eq!(recent.get(Kind::Flow, "a").unwrap().version, 2);
        assert_eq!(recent.lock().ends.len(), 1);

        recent.insert(Kind::Flow, seen("old", 1), Duration::ZERO);
        std::thread::sleep(Duration::from_millis(2));
        recent.insert(Kind::Client, seen("b", 1), KEPT);
        assert!(recent.get(Kind::Flow, "old").is_none());
        assert_eq!(recent.all(Kind::Flow, Some(&life(1))).len(), 1);
        assert!(recent.all(Kind::Flow, Some(&life(2))).is_empty());
    }
}
