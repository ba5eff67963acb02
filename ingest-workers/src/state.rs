//! Group `state`: the foreman's documents become what people list, and what a deleted client leaves
//! is removed.
//!
//! The foreman's word that a client was deleted stands in `state` like any other. It is marked when
//! everything of the generation that has ended is gone, from every collection; until then whoever
//! takes the partition over begins the removal anew.

use crate::Ports;
use crate::lives::Lives;
use crate::persist::persist;
use crate::purge;
use nublar_core::ids::{ClientKey, Life};
use nublar_ports::Membership;
use nublar_ports::index::{Collection, Document as Stored};
use nublar_ports::log::{GroupEvent, Position, Record};
use nublar_schemas::codec::{CodecError, Record as _};
use nublar_schemas::records::Document;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const BATCH_RECORDS: usize = 512;
/// Clients that are removed at once; others wait.
const REMOVED_AT_ONCE: usize = 2;
const RETRY: Duration = Duration::from_millis(200);

/// A partition that is ours.
struct Owned {
    epoch: u64,
    /// Everything before this is put.
    put: Option<Position>,
    /// Deletions whose removal has not ended: no mark passes them.
    removals: BTreeSet<Position>,
}

impl Owned {
    fn mark(&self) -> Option<Position> {
        let put = self.put?;
        Some(self.removals.first().map_or(put, |first| put.min(*first)))
    }
}

/// A deletion whose removal is to begin or has ended.
#[derive(Debug, Clone)]
struct Deletion {
    partition: u32,
    epoch: u64,
    position: Position,
    /// What has ended.
    life: Life,
}

struct Worker {
    ports: Ports,
    lives: Arc<Lives>,
    owned: HashMap<u32, Owned>,
    /// The generations that begin with deletions that were read here: the registry may be read a
    /// moment later.
    begun: HashMap<ClientKey, i64>,
    removing: JoinSet<Deletion>,
    at_once: Arc<Semaphore>,
}

pub(crate) async fn run(ports: Ports, lives: Arc<Lives>, shutdown: CancellationToken) {
    let mut member = Membership::join(ports.log.clone(), "state", "state", shutdown.clone());
    let mut worker = Worker {
        ports,
        lives,
        owned: HashMap::new(),
        begun: HashMap::new(),
        removing: JoinSet::new(),
        at_once: Arc::new(Semaphore::new(REMOVED_AT_ONCE)),
    };
    loop {
        let event = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(done) = worker.removing.join_next() => {
                if let Ok(done) = done {
                    worker.removed(&done);
                    worker.mark(&member);
                }
                continue;
            }
            event = member.next() => event,
        };
        let mut batch: Vec<Record> = Vec::new();
        let mut next = Some(event);
        while let Some(event) = next {
            match event {
                GroupEvent::Record(record) => batch.push(record),
                GroupEvent::Assigned {
                    partition, epoch, ..
                } => {
                    // What was deleted before the mark is not told again.
                    let is_current = tokio::select! {
                        is_current = worker.lives.current(partition) => is_current,
                        () = shutdown.cancelled() => return member.flush().await,
                    };
                    let owned = Owned {
                        epoch,
                        put: None,
                        removals: BTreeSet::new(),
                    };
                    if is_current {
                        worker.owned.insert(partition, owned);
                    } else {
                        tracing::error!(partition, "leaving the partition alone");
                    }
                }
                GroupEvent::Revoked { partition } => {
                    worker.owned.remove(&partition);
                    batch.retain(|record| record.partition != partition);
                }
            }
            next = if batch.len() >= BATCH_RECORDS {
                None
            } else {
                member.try_next()
            };
        }
        tokio::select! {
            biased;
            () = worker.put(batch) => worker.mark(&member),
            () = shutdown.cancelled() => break,
        }
    }
    member.flush().await;
}

impl Worker {
    fn mark(&self, member: &Membership) {
        for (partition, owned) in &self.owned {
            if let Some(next) = owned.mark() {
                member.mark(*partition, owned.epoch, next);
            }
        }
    }

    /// Puts the newest version of each document of the batch, then begins removals.
    async fn put(&mut self, batch: Vec<Record>) {
        let mut newest: BTreeMap<(Collection, String, String), Stored> = BTreeMap::new();
        let mut read: HashMap<u32, Position> = HashMap::new();
        let mut deletions = Vec::new();
        for record in batch {
            let Some(owned) = self.owned.get(&record.partition) else {
                continue;
            };
            let epoch = owned.epoch;
            match Document::decode(&record.value) {
                Ok(document) if is_deletion(&document) => {
                    deletions.extend(self.deletion(&record, epoch, &document));
                }
                Ok(document) => {
                    let org = document.header.org.clone();
                    if let Some((collection, stored)) = self.stored(document) {
                        let place = (collection, org, stored.id.clone());
                        let known = newest.get(&place).map_or(0, |known| known.version);
                        if stored.version >= known {
                            newest.insert(place, stored);
                        }
                    }
                }
                Err(error @ CodecError::UnknownFingerprint(_)) => {
                    tracing::error!(partition = record.partition, %error, "halting the partition");
                    self.owned.remove(&record.partition);
                    continue;
                }
                Err(error) => {
                    // The foreman wrote it: nothing of an agent is lost, and the next version comes.
                    tracing::error!(partition = record.partition, offset = record.position.offset, %error, "skipping a document");
                }
            }
            let next = record.position.after();
            read.insert(record.partition, next);
        }
        let mut bulks: BTreeMap<(Collection, String), Vec<Stored>> = BTreeMap::new();
        for ((collection, org, _), document) in newest {
            bulks.entry((collection, org)).or_default().push(document);
        }
        for ((collection, org), documents) in bulks {
            persist("index", || {
                self.ports.index.put(collection, &org, documents.clone())
            })
            .await;
        }
        for deletion in deletions {
            self.remove(deletion);
        }
        for (partition, next) in read {
            if let Some(owned) = self.owned.get_mut(&partition) {
                owned.put = Some(next);
            }
        }
    }

    fn deletion(&mut self, record: &Record, epoch: u64, document: &Document) -> Option<Deletion> {
        let next = Life::of(&document.header).ok()?;
        let begun = self.begun.entry(next.client.clone()).or_insert(1);
        *begun = next.generation.max(*begun);
        Some(Deletion {
            partition: record.partition,
            epoch,
            position: record.position,
            life: Life {
                generation: next.generation - 1,
                ..next
            },
        })
    }

    /// The document as it is stored; none if it is of a generation that has ended.
    fn stored(&self, document: Document) -> Option<(Collection, Stored)> {
        let life = Life::of(&document.header).ok()?;
        let begun = self.begun.get(&life.client);
        let is_over = begun.is_some_and(|begun| *begun > life.generation);
        if is_over || self.lives.has_ended(&life) {
            return None;
        }
        stored(&life, document)
    }

    /// Removes in the background: other documents do not wait for a client with much to remove.
    fn remove(&mut self, deletion: Deletion) {
        let Some(owned) = self.owned.get_mut(&deletion.partition) else {
            return;
        };
        owned.removals.insert(deletion.position);
        let (ports, lives, at_once) =
            (self.ports.clone(), self.lives.clone(), self.at_once.clone());
        self.removing.spawn(async move {
            let _turn = at_once.acquire_owned().await;
            let life = &deletion.life;
            // Once it stands in the registry nobody writes of it, and who has written looks there
            // again: nothing comes behind the removal.
            loop {
                lives.current(deletion.partition).await;
                if lives.has_ended(life) {
                    break;
                }
                tokio::time::sleep(RETRY).await;
            }
            let documents = purge::purge(&ports, life, &purge::ALL).await;
            let objects = purge::purge_messages(&ports, life).await;
            tracing::info!(
                client = %life.client, generation = life.generation, documents, objects,
                "what a deleted client left is removed"
            );
            deletion
        });
    }

    fn removed(&mut self, deletion: &Deletion) {
        if let Some(owned) = self.owned.get_mut(&deletion.partition)
            && owned.epoch == deletion.epoch
        {
            owned.removals.remove(&deletion.position);
        }
    }
}

/// Whether it says that a client was deleted.
fn is_deletion(document: &Document) -> bool {
    document.kind == "client" && document.body.is_empty()
}

fn stored(life: &Life, document: Document) -> Option<(Collection, Stored)> {
    let body: Value = serde_json::from_str(&document.body).ok()?;
    let number = |name: &str| body.get(name).and_then(Value::as_i64).unwrap_or(0);
    let (collection, flow, order, text) = match document.kind.as_str() {
        "flow" => {
            let flow = body
                .get("flow_id")
                .and_then(Value::as_str)
                .unwrap_or_default();
            (
                Collection::Flows,
                flow.to_owned(),
                number("create_time"),
                words_of_flow(&body),
            )
        }
        "client" => (
            Collection::Clients,
            String::new(),
            number("first_seen_at"),
            words_of_client(&body),
        ),
        other => {
            tracing::error!(kind = other, "a document of an unknown kind");
            return None;
        }
    };
    let stored = Stored {
        id: document.id,
        bucket: None,
        client: life.name(),
        flow,
        source: String::new(),
        order,
        text,
        hashes: Vec::new(),
        version: document.version.unsigned_abs(),
        size: 0,
        body: document.body.into(),
    };
    Some((collection, stored))
}

fn words_of_flow(body: &Value) -> String {
    let artifacts = body
        .get("artifacts")
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    words(
        artifacts
            .iter()
            .chain(body.get("creator"))
            .filter_map(Value::as_str),
    )
}

fn words_of_client(body: &Value) -> String {
    let plain = ["client_id", "hostname", "fqdn", "last_ip"]
        .map(|name| body.get(name).and_then(Value::as_str));
    let os = body
        .get("os")
        .and_then(Value::as_str)
        .map(|os| format!("os:{os}"));
    let list = |name: &str| {
        let values = body
            .get(name)
            .and_then(Value::as_array)
            .map_or(&[][..], Vec::as_slice);
        values
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let labels = list("labels")
        .into_iter()
        .map(|label| format!("label:{label}"));
    let macs = list("mac_addresses")
        .into_iter()
        .map(|mac| format!("mac:{mac}"));
    let tagged: Vec<_> = os.into_iter().chain(labels).chain(macs).collect();
    words(
        plain
            .into_iter()
            .flatten()
            .chain(tagged.iter().map(String::as_str)),
    )
}

fn words<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    let lower: Vec<_> = texts
        .flat_map(str::split_whitespace)
        .map(str::to_lowercase)
        .collect();
    lower.join(" ")
}
