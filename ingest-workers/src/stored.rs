//! Documents and objects: writing the parts of a plan, and counting what is there of a flow.

use crate::Ports;
use crate::persist::persist;
use futures::StreamExt;
use nublar_core::ids::{FlowId, Life};
use nublar_core::ingest::{Collection, FlowSum, Group, Part, Plan, week_of};
use nublar_ports::index::{self, Bucket, Document, Outcome, Query};
use std::collections::BTreeMap;

const PUTS_AT_ONCE: usize = 16;
const PAGE: usize = 2_000;

/// A part that the index cannot store, and never will.
pub(crate) struct Poisoned {
    pub(crate) part: Part,
    pub(crate) text: String,
}

pub(crate) fn collection(of: Collection) -> index::Collection {
    match of {
        Collection::Rows => index::Collection::Rows,
        Collection::Logs => index::Collection::Logs,
        Collection::Buffers => index::Collection::Buffers,
        Collection::Events => index::Collection::Events,
    }
}

pub(crate) fn bucket(week: Option<u32>) -> Bucket {
    week.map_or(Bucket::Undated, Bucket::Week)
}

fn document(life: &Life, part: &Part) -> Document {
    Document {
        id: part.id.to_string(),
        bucket: Some(bucket(part.week)),
        client: life.name(),
        flow: part
            .flow
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        source: part.source.clone(),
        order: part.order,
        text: part.text.clone(),
        hashes: Vec::new(),
        version: 0,
        size: part.size,
        body: part.body.clone(),
    }
}

/// Writes all parts: first the objects, then the documents that name them. Returns when every one
/// is durable, with those that cannot be stored.
pub(crate) async fn write(ports: &Ports, plans: &[(Life, Plan)]) -> Vec<Poisoned> {
    let objects = plans
        .iter()
        .flat_map(|(_, plan)| &plan.parts)
        .filter_map(|part| part.object.as_ref());
    futures::stream::iter(objects)
        .for_each_concurrent(PUTS_AT_ONCE, |(name, data)| async move {
            persist("objects", || ports.objects.put(name, data.clone())).await;
        })
        .await;

    let mut bulks: BTreeMap<(index::Collection, &str), Vec<(&Life, &Part)>> = BTreeMap::new();
    for (life, plan) in plans {
        for part in &plan.parts {
            bulks
                .entry((collection(part.collection), life.client.org.as_str()))
                .or_default()
                .push((life, part));
        }
    }
    let mut poisoned = Vec::new();
    for ((collection, org), parts) in bulks {
        let documents: Vec<_> = parts
            .iter()
            .map(|(life, part)| document(life, part))
            .collect();
        let outcomes = persist("index", || {
            ports.index.create(collection, org, documents.clone())
        })
        .await;
        for ((_, part), outcome) in parts.into_iter().zip(outcomes) {
            if let Outcome::Poison(text) = outcome {
                poisoned.push(Poisoned {
                    part: part.clone(),
                    text,
                });
            }
        }
    }
    poisoned
}

/// Makes what was written before visible to [`count`].
pub(crate) async fn refresh(ports: &Ports, group: Group) {
    for of in group.collections() {
        persist("index", || ports.index.refresh(collection(*of))).await;
    }
}

/// Counts what is stored of a flow.
pub(crate) async fn count(ports: &Ports, group: Group, life: &Life, flow: &FlowId) -> FlowSum {
    let mut sum = FlowSum::default();
    for of in group.collections() {
        let mut query = Query {
            client: Some(life.name()),
            flow: Some(flow.to_string()),
            bucket: Some(bucket(week_of(flow))),
            without_bodies: true,
            limit: PAGE,
            ..Query::default()
        };
        loop {
            let page = persist("index", || {
                ports
                    .index
                    .query(collection(*of), life.client.org.as_str(), &query)
            })
            .await;
            for document in page.documents {
                if let Ok(id) = document.id.parse() {
                    sum.add(*of, id, &document.source, document.order, document.size);
                }
            }
            query.after = page.next;
            if query.after.is_none() {
                break;
            }
        }
    }
    sum
}
