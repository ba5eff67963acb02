//! Dead letters: how workers write them, and the group `dead-letters`, by which people find them.

use crate::Ports;
use crate::batch::{Epochs, Marks, gather, mark};
use crate::persist::persist;
use bytes::Bytes;
use nublar_core::letters::{KEPT, partition, slim, version};
use nublar_ports::Membership;
use nublar_ports::index::{Collection, Document, Outcome};
use nublar_ports::log::Record;
use nublar_schemas::codec::{CodecError, Record as _};
use nublar_schemas::records::DeadLetter;
use nublar_schemas::topics::DEAD_LETTERS;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use tokio_util::sync::CancellationToken;

const BATCH_RECORDS: usize = 64;

/// Puts a letter into the topic; returns when it is durable.
pub(crate) async fn write(ports: &Ports, letter: DeadLetter) {
    let letter = without_large_copy(ports, nublar_core::letters::named(letter)).await;
    let partitions = persist("log", || ports.log.partitions(DEAD_LETTERS.name)).await;
    let partition = partition(&letter, partitions);
    let key = Bytes::from(letter.id.clone());
    match letter.encode() {
        Ok(value) => {
            let value = Bytes::from(value);
            persist("log", || {
                ports
                    .log
                    .append(DEAD_LETTERS.name, partition, key.clone(), value.clone())
            })
            .await;
        }
        Err(error) => tracing::error!(%error, "a dead letter cannot be encoded"),
    }
}

/// The letter, once its copy is an object if it is large.
async fn without_large_copy(ports: &Ports, letter: DeadLetter) -> DeadLetter {
    let (letter, object) = slim(letter);
    if let Some((key, copy)) = object {
        persist("objects", || ports.objects.put(&key, copy.clone())).await;
    }
    letter
}

/// Reads the topic into the index until shutdown.
pub(crate) async fn run(ports: Ports, shutdown: CancellationToken) {
    let name = DEAD_LETTERS.name;
    let mut member = Membership::join(ports.log.clone(), name, name, shutdown.clone());
    let mut epochs = Epochs::new();
    while let Some(batch) = gather(&mut member, &mut epochs, BATCH_RECORDS, &shutdown).await {
        tokio::select! {
            biased;
            marks = put(&ports, batch, &mut epochs) => {
                mark(&member, marks);
            }
            () = shutdown.cancelled() => break,
        }
    }
    member.flush().await;
}

/// Puts the letters of a batch. Returns what may be marked.
async fn put(ports: &Ports, batch: Vec<Record>, epochs: &mut Epochs) -> Marks {
    let mut newest: BTreeMap<(String, String), (u64, DeadLetter)> = BTreeMap::new();
    let mut marks = Marks::new();
    for record in batch {
        let (partition, position) = (record.partition, record.position);
        let Some(epoch) = epochs.get(&partition).copied() else {
            continue;
        };
        match DeadLetter::decode(&record.value) {
            Ok(letter) => {
                let letter = nublar_core::letters::named(letter);
                let version = version(&letter, position.generation, position.offset);
                let place = (letter.header.org.clone(), letter.id.clone());
                match newest.entry(place) {
                    Entry::Vacant(entry) => {
                        entry.insert((version, letter));
                    }
                    Entry::Occupied(mut entry) => {
                        let (known, of) = entry.get_mut();
                        let attempts = of.attempts.max(letter.attempts);
                        if version >= *known {
                            (*known, *of) = (version, letter);
                        }
                        of.attempts = attempts;
                    }
                }
            }
            Err(error @ CodecError::UnknownFingerprint(_)) => {
                tracing::error!(partition, %error, "halting the partition of dead-letters");
                epochs.remove(&partition);
                continue;
            }
            Err(error) => {
                tracing::error!(partition, offset = position.offset, %error, "a dead letter is damaged itself: people will not find it");
            }
        }
        let next = position.after();
        marks.insert(partition, (epoch, next));
    }
    let mut bulks: BTreeMap<String, Vec<Document>> = BTreeMap::new();
    for ((org, _), (version, letter)) in newest {
        if let Some(document) = document(ports, version, letter).await {
            bulks.entry(org).or_default().push(document);
        }
    }
    for (org, documents) in bulks {
        let put = || {
            ports
                .index
                .put(Collection::DeadLetters, &org, documents.clone())
        };
        for outcome in persist("index", put).await {
            if let Outcome::Poison(text) = outcome {
                tracing::error!(
                    text,
                    "a dead letter cannot be listed: it stands in the topic"
                );
            }
        }
    }
    marks
}

/// The letter as people find it: by its state, its client and its time.
async fn document(ports: &Ports, version: u64, letter: DeadLetter) -> Option<Document> {
    // It may have come back from a retry, which only the index remembers.
    let known = persist("index", || {
        ports.index.get(
            Collection::DeadLetters,
            &letter.header.org,
            None,
            &letter.id,
        )
    })
    .await;
    let known = known.and_then(|known| DeadLetter::decode(&known.body).ok());
    let tried = known.map_or(0, |known| known.attempts);
    let mut letter = without_large_copy(ports, letter).await;
    letter.attempts = letter.attempts.max(tried);
    let body = match letter.encode() {
        Ok(body) => body.into(),
        Err(error) => {
            tracing::error!(%error, "a dead letter cannot be encoded");
            return None;
        }
    };
    Some(Document {
        id: letter.id,
        bucket: None,
        client: letter.header.client,
        flow: String::new(),
        source: if letter.state.is_empty() {
            KEPT.to_owned()
        } else {
            letter.state
        },
        order: letter.header.at_us,
        text: String::new(),
        hashes: Vec::new(),
        version,
        size: letter.size.unsigned_abs(),
        body,
    })
}
