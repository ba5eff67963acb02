//! `GET /dump`: everything that is stored, as lines of JSON that are the same wherever the same is
//! stored. Two servers that were told the same are compared by it.
//!
//! Clients and flows stand without what depends on when and by whom they were served; messages
//! stand by their content's id and hash; uploads by path, size and hash.

use super::answers::{Shared, streamed};
use super::uploads::sha256;
use crate::app::App;
use crate::refusal::{Answer, Refusal};
use crate::stored::{Found, Within, by_upload, describe, documents, each, is_upload};
use aws_lc_rs::digest;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use futures::future::ready;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use nublar_core::ids::{Life, hex};
use nublar_ports::index::{Collection, Document, Query};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How many documents are read at once.
const READ: usize = 64;
const LISTED: usize = 2_000;

/// What depends on when and by whom a client or flow was served.
const FLEETING: [&str; 14] = [
    "create_time",
    "start_time",
    "end_time",
    "deadline",
    "attempt",
    "first_seen_at",
    "last_seen_at",
    "last_ip",
    "last_via",
    "addresses",
    "clock_skew_ms",
    "last_interrogate_flow_id",
    "last_event_table_version",
    "version",
];

/// Clients, flows, then rows, logs, uploads and events, each sorted.
pub(crate) async fn dump(State(app): Shared) -> Answer<Response> {
    for collection in Collection::ALL {
        app.step(app.index.refresh(collection)).await?;
    }
    let parts = [
        folded(Arc::clone(&app), Collection::Clients, "client"),
        folded(Arc::clone(&app), Collection::Flows, "flow"),
        messages(Arc::clone(&app), Collection::Rows, "rows"),
        messages(Arc::clone(&app), Collection::Logs, "logs"),
        uploads(Arc::clone(&app)),
        messages(Arc::clone(&app), Collection::Events, "events"),
    ];
    let lines = stream::iter(parts).flatten();
    let bytes = lines.map_ok(|line: Value| Bytes::from(format!("{line}\n")));
    Ok(streamed(&app, "application/jsonl", bytes))
}

type Lines = BoxStream<'static, Answer<Value>>;

/// Every document, without its body.
fn all() -> Query {
    Query {
        limit: LISTED,
        without_bodies: true,
        ..Query::default()
    }
}

/// Documents that the foreman folds, by id.
fn folded(app: Arc<App>, collection: Collection, kind: &'static str) -> Lines {
    let ids = {
        let app = Arc::clone(&app);
        async move {
            let living = |document: Document| {
                let lives = app.lives(&document.client);
                async move { Ok(lives.then_some(document.id)) }
            };
            let listed: Vec<String> = documents(Arc::clone(&app), collection, all())
                .try_filter_map(living)
                .try_collect()
                .await?;
            Ok::<_, Refusal>(listed.into_iter().collect::<BTreeSet<String>>())
        }
    };
    let ids = stream::once(ids).map_ok(each).try_flatten();
    let lines = ids.and_then(move |id| {
        let app = Arc::clone(&app);
        async move {
            let document = app.step(app.index.get(collection, "", None, &id)).await?;
            let document = document.ok_or_else(|| Refusal::fault(format!("{id} is gone")))?;
            let body: Value = serde_json::from_slice(&document.body)
                .map_err(|error| Refusal::fault(format!("document {id}: {error}")))?;
            Ok(json!({ "kind": kind, "id": id, "body": lasting(body) }))
        }
    });
    lines.boxed()
}

/// A document without what is fleeting, its fields sorted.
fn lasting(body: Value) -> Value {
    match body {
        Value::Object(fields) => {
            let sorted: BTreeMap<String, Value> = fields
                .into_iter()
                .filter(|(name, _)| !FLEETING.contains(&name.as_str()))
                .map(|(name, value)| (name, lasting(value)))
                .collect();
            sorted.into_iter().collect::<serde_json::Map<_, _>>().into()
        }
        Value::Array(list) => Value::Array(list.into_iter().map(lasting).collect()),
        other => other,
    }
}

/// Messages as they came, by (order, id).
fn messages(app: Arc<App>, collection: Collection, kind: &'static str) -> Lines {
    let query = Query {
        limit: READ,
        ..Query::default()
    };
    let found = documents(Arc::clone(&app), collection, query);
    let living = found.try_filter(move |document| ready(app.lives(&document.client)));
    let lines = living.map_ok(move |document| {
        json!({
            "kind": kind,
            "client_id": id_of(&document.client),
            "flow_id": document.flow,
            "source": document.source,
            "order": document.order,
            "size": document.size,
            "id": document.id,
            "sha256": hex(digest::digest(&digest::SHA256, &document.body).as_ref()),
        })
    });
    lines.boxed()
}

impl App {
    /// Whether documents of this client's name are of a client that is not deleted.
    fn lives(&self, name: &str) -> bool {
        Life::of_name(name).is_none_or(|life| !self.registry.has_ended(&life))
    }
}

/// The id of a client by its name in documents.
fn id_of(name: &str) -> String {
    Life::of_name(name).map_or_else(|| name.to_owned(), |life| life.client.client.to_string())
}

/// A client, and its flow or nothing.
type Place = (String, String);

/// Files, by client, flow and instance.
fn uploads(app: Arc<App>) -> Lines {
    let found = {
        let app = Arc::clone(&app);
        async move {
            let mut flows: BTreeSet<Place> = BTreeSet::new();
            let buffers = documents(Arc::clone(&app), Collection::Buffers, all());
            let mut listed = std::pin::pin!(buffers);
            while let Some(document) = listed.try_next().await? {
                if is_upload(&document.source) && app.lives(&document.client) {
                    flows.insert((document.client, document.flow));
                }
            }
            Ok::<_, Refusal>(flows)
        }
    };
    let flows = stream::once(found).map_ok(each).try_flatten();
    let lines = flows.and_then(move |place| {
        let app = Arc::clone(&app);
        async move { of_flow(&app, place).await.map(each) }
    });
    lines.try_flatten().boxed()
}

async fn of_flow(app: &Arc<App>, (client, flow): Place) -> Answer<Vec<Value>> {
    let Some(life) = Life::of_name(&client) else {
        return Ok(Vec::new());
    };
    // Files of client events belong to no flow.
    let within = match flow.as_str() {
        "" => Within::events(&life),
        flow => Within::flow(&life, &flow.parse()?),
    };
    let found: Vec<Found> = app.found(Collection::Buffers, &within, 0).await?;
    let mut described = describe(app, &within, by_upload(&found)).await?;
    described.sort_by(|a, b| a.instance.cmp(&b.instance));
    let mut lines = Vec::new();
    for upload in described {
        let sha256 = sha256(app, &within, &upload).await?;
        lines.push(json!({
            "kind": "upload",
            "client_id": id_of(&client),
            "flow_id": flow,
            "upload_id": upload.instance,
            "path": upload.path,
            "accessor": upload.accessor,
            "size": upload.size,
            "stored": upload.arranged.total,
            "complete": upload.complete,
            "sparse": upload.sparse,
            "sha256": sha256,
        }));
    }
    Ok(lines)
}
