//! Removing what there is of a generation that has ended.
//!
//! Page by page, objects before the documents that name them: whoever is killed leaves nothing
//! that the next one would not find, and whatever is removed twice is gone all the same.

use crate::Ports;
use crate::persist::persist;
use futures::StreamExt as _;
use nublar_core::ids::{ClientKey, Life};
use nublar_core::ingest::{Plan, object_of};
use nublar_ports::index::{Bucket, Collection, Document, Query, Removal};
use nublar_schemas::agent::FileBuffer;
use prost::Message as _;

const PAGE: usize = 1_000;
/// Buffers are read with their bodies, which have up to 16 KiB.
const PAGE_OF_BUFFERS: usize = 200;
const AT_ONCE: usize = 16;

/// Everything that documents of a client are kept in.
pub(crate) const ALL: [Collection; 6] = [
    Collection::Rows,
    Collection::Logs,
    Collection::Buffers,
    Collection::Events,
    Collection::Flows,
    Collection::Clients,
];

/// Removes the documents of the life in these collections and the objects that they name. Returns
/// how many documents there were.
pub(crate) async fn purge(ports: &Ports, life: &Life, collections: &[Collection]) -> u64 {
    let org = life.client.org.as_str();
    let mut removed = 0;
    for collection in collections.iter().copied() {
        persist("index", || ports.index.refresh(collection)).await;
        let buffers = collection == Collection::Buffers;
        let mut query = Query {
            client: Some(life.name()),
            without_bodies: !buffers,
            limit: if buffers { PAGE_OF_BUFFERS } else { PAGE },
            ..Query::default()
        };
        loop {
            let page = persist("index", || ports.index.query(collection, org, &query)).await;
            if buffers {
                delete(ports, objects(&life.client, &page.documents)).await;
            }
            let removals: Vec<_> = page.documents.iter().map(Removal::of).collect();
            removed += removals.len() as u64;
            persist("index", || {
                ports.index.remove(collection, org, removals.clone())
            })
            .await;
            query.after = page.next;
            if query.after.is_none() {
                break;
            }
        }
    }
    removed
}

/// Removes the objects of messages that were too large for the log. Returns how many there were.
pub(crate) async fn purge_messages(ports: &Ports, life: &Life) -> u64 {
    let folder = life.messages();
    let mut after: Option<String> = None;
    let mut removed = 0;
    loop {
        let entries = persist("objects", || {
            ports.objects.list(&folder, after.as_deref(), PAGE)
        })
        .await;
        let keys: Vec<_> = entries.into_iter().map(|entry| entry.key).collect();
        removed += keys.len() as u64;
        let Some(last) = keys.last().cloned() else {
            return removed;
        };
        delete(ports, keys).await;
        after = Some(last);
    }
}

/// Takes back what a worker may have written of a record before it was killed.
pub(crate) async fn take_back(ports: &Ports, client: &ClientKey, plan: &Plan) {
    let objects = plan
        .parts
        .iter()
        .filter_map(|part| part.object.as_ref())
        .map(|(name, _)| name.clone());
    delete(ports, objects.collect()).await;
    for part in &plan.parts {
        let removal = Removal {
            id: part.id.to_string(),
            bucket: Some(part.week.map_or(Bucket::Undated, Bucket::Week)),
            version: 0,
        };
        let collection = crate::stored::collection(part.collection);
        persist("index", || {
            let org = client.org.as_str();
            ports.index.remove(collection, org, vec![removal.clone()])
        })
        .await;
    }
}

/// The objects that documents of buffers name. The name is ours: what an agent could have written
/// there names nothing.
fn objects(client: &ClientKey, documents: &[Document]) -> Vec<String> {
    let named = documents.iter().filter_map(|document| {
        let buffer = FileBuffer::decode(document.body.clone()).ok()?;
        let object = object_of(&client.org, &document.id);
        (buffer.reference == object).then_some(object)
    });
    named.collect()
}

async fn delete(ports: &Ports, keys: Vec<String>) {
    futures::stream::iter(keys)
        .for_each_concurrent(AT_ONCE, |key| async move {
            persist("objects", || ports.objects.delete(&key)).await;
        })
        .await;
}
