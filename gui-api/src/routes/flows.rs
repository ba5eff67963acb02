//! Flows: those of a client, and one by its id.

use super::answers::Shared;
use super::clients::no_client;
use crate::app::App;
use crate::guard::Params;
use crate::lists::{Wanted, read_limit, read_place, write_place};
use crate::refusal::{Answer, Refusal};
use crate::stored::Within;
use crate::tails::Kind;
use axum::Json;
use axum::extract::{Path, State};
use nublar_core::ids::{ClientKey, FlowId, Life};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    limit: Option<usize>,
    after: Option<String>,
}

/// `GET /clients/{client}/flows?limit&after` → `{"flows": [...], "next": place or null}`, newest
/// first.
pub(crate) async fn list(
    State(app): Shared,
    Path(client): Path<String>,
    Params(asked): Params<Asked>,
) -> Answer<Json<Value>> {
    let key = app.client(&client)?;
    app.is_registered(&key).await?;
    let life = app.registry.life(&key);
    let wanted = Wanted {
        kind: Kind::Flow,
        life: Some(&life),
        words: Vec::new(),
        matches: None,
        limit: read_limit(asked.limit)?,
        after: asked.after.as_deref().map(read_place).transpose()?,
    };
    let page = app.list(wanted).await?;
    if page.items.is_empty()
        && asked.after.is_none()
        && app.document(Kind::Client, &client).await?.is_none()
        && !app.is_registered(&key).await?
    {
        return Err(no_client(&client));
    }
    let flows: Vec<Value> = page.items.into_iter().map(|item| item.body).collect();
    Ok(Json(
        json!({ "flows": flows, "next": page.next.as_ref().map(write_place) }),
    ))
}

/// `GET /clients/{client}/flows/{flow}` → its document.
pub(crate) async fn one(
    State(app): Shared,
    Path((client, flow)): Path<(String, String)>,
) -> Answer<Json<Value>> {
    Ok(Json(app.flow(&client, &flow).await?.body))
}

/// A flow that is there.
pub(crate) struct Flow {
    pub(crate) key: ClientKey,
    pub(crate) life: Life,
    pub(crate) id: FlowId,
    pub(crate) version: u64,
    pub(crate) body: Value,
}

impl Flow {
    /// Where its documents are.
    pub(crate) fn within(&self) -> Within {
        Within::flow(&self.life, &self.id)
    }

    /// How many rows its document says are stored.
    pub(crate) fn collected_rows(&self) -> u64 {
        self.number("total_collected_rows")
    }

    /// How many bytes of files.
    pub(crate) fn uploaded_bytes(&self) -> u64 {
        self.number("total_uploaded_bytes")
    }

    /// How many lines of its log.
    pub(crate) fn logs(&self) -> u64 {
        self.number("total_logs")
    }

    fn number(&self, name: &str) -> u64 {
        self.body.get(name).and_then(Value::as_u64).unwrap_or(0)
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(body: &Value) -> bool {
        matches!(
            body.get("state").and_then(Value::as_str),
            Some("FINISHED" | "ERROR")
        )
    }
}

impl App {
    /// The flow that a path names.
    pub(crate) async fn flow(&self, client: &str, flow: &str) -> Answer<Flow> {
        let key = self.client(client)?;
        let id: FlowId = flow.parse()?;
        let found = self
            .versioned(Kind::Flow, &format!("{client}/{id}"))
            .await?;
        let (version, body) = found.ok_or_else(|| {
            Refusal::missing(format!("no flow {id} of client {client}"))
                .hint("the list of the client's flows shows those there are")
        })?;
        Ok(Flow {
            life: self.registry.life(&key),
            key,
            id,
            version,
            body,
        })
    }
}
