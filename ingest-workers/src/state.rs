//! Group `state`: the foreman's documents become what people list.

use crate::Ports;
use crate::persist::persist;
use nublar_ports::Membership;
use nublar_ports::index::{Collection, Document as Stored};
use nublar_ports::log::{GroupEvent, Position, Record};
use nublar_schemas::codec::{CodecError, Record as _};
use nublar_schemas::records::Document;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use tokio_util::sync::CancellationToken;

const BATCH_RECORDS: usize = 512;

pub(crate) async fn run(ports: Ports, shutdown: CancellationToken) {
    let mut member = Membership::join(ports.log.clone(), "state", "state", shutdown.clone());
    let mut epochs = HashMap::new();
    loop {
        let event = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
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
                    epochs.insert(partition, epoch);
                }
                GroupEvent::Revoked { partition } => {
                    epochs.remove(&partition);
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
            marks = put(&ports, batch, &mut epochs) => {
                for (partition, epoch, next) in marks {
                    member.mark(partition, epoch, next);
                }
            }
            () = shutdown.cancelled() => break,
        }
    }
    member.flush().await;
}

/// Puts the newest version of each document of the batch. Returns what may be marked.
async fn put(
    ports: &Ports,
    batch: Vec<Record>,
    epochs: &mut HashMap<u32, u64>,
) -> Vec<(u32, u64, Position)> {
    let mut newest: BTreeMap<(Collection, String, String), Stored> = BTreeMap::new();
    let mut marks = HashMap::new();
    for record in batch {
        let Some(epoch) = epochs.get(&record.partition).copied() else {
            continue;
        };
        match Document::decode(&record.value) {
            Ok(document) => {
                let org = document.header.org.clone();
                if let Some((collection, stored)) = stored(document) {
                    let place = (collection, org, stored.id.clone());
                    let known = newest.get(&place).map_or(0, |known| known.version);
                    if stored.version >= known {
                        newest.insert(place, stored);
                    }
                }
            }
            Err(error @ CodecError::UnknownFingerprint(_)) => {
                tracing::error!(partition = record.partition, %error, "halting the partition");
                epochs.remove(&record.partition);
                continue;
            }
            Err(error) => {
                // The foreman wrote it: nothing of an agent is lost, and the next version comes.
                tracing::error!(partition = record.partition, offset = record.position.offset, %error, "skipping a document");
            }
        }
        let next = Position {
            offset: record.position.offset + 1,
            ..record.position
        };
        marks.insert(record.partition, (epoch, next));
    }
    let mut bulks: BTreeMap<(Collection, String), Vec<Stored>> = BTreeMap::new();
    for ((collection, org, _), document) in newest {
        bulks.entry((collection, org)).or_default().push(document);
    }
    for ((collection, org), documents) in bulks {
        persist("index", || {
            ports.index.put(collection, &org, documents.clone())
        })
        .await;
    }
    marks
        .into_iter()
        .map(|(partition, (epoch, next))| (partition, epoch, next))
        .collect()
}

fn stored(document: Document) -> Option<(Collection, Stored)> {
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
        client: document.header.client,
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
