//! Clients: the search box, and one by its id.

use super::answers::Shared;
use super::commands;
use crate::app::App;
use crate::guard::Params;
use crate::lists::{Wanted, merge, read_limit, read_place, write_place};
use crate::refusal::{Answer, Refusal};
use crate::search::Search;
use crate::tails::{About, Kind, Outcome};
use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use nublar_core::ids::{ClientKey, Life};
use nublar_ports::index::{Collection, Document};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    #[serde(default)]
    q: String,
    limit: Option<usize>,
    after: Option<String>,
}

/// `GET /clients?q&limit&after` → `{"clients": [...], "next": place or null}`, newest first.
pub(crate) async fn list(State(app): Shared, Params(asked): Params<Asked>) -> Answer<Json<Value>> {
    let search = Search::read(&asked.q)?;
    let limit = read_limit(asked.limit)?;
    let after = asked.after.as_deref().map(read_place).transpose()?;
    let matches = |client: &Value| search.matches(client);
    let mut pages = Vec::new();
    for words in search.narrowed() {
        let wanted = Wanted {
            kind: Kind::Client,
            life: None,
            words,
            matches: if search.is_all() {
                None
            } else {
                Some(&matches)
            },
            limit,
            after: after.clone(),
        };
        pages.push(app.list(wanted).await?);
    }
    let page = merge(pages, limit);
    let clients: Vec<Value> = page.items.into_iter().map(|item| item.body).collect();
    Ok(Json(
        json!({ "clients": clients, "next": page.next.as_ref().map(write_place) }),
    ))
}

/// `GET /clients/{client}` → its document.
pub(crate) async fn one(State(app): Shared, Path(client): Path<String>) -> Answer<Json<Value>> {
    let key = app.client(&client)?;
    if let Some(body) = app.document(Kind::Client, &client).await? {
        return Ok(Json(body));
    }
    if app.is_registered(&key).await? {
        // Enrolled a moment ago: the foreman has yet to tell of it.
        return Ok(Json(json!({ "client_id": client, "labels": [] })));
    }
    Err(no_client(&client))
}

/// `DELETE /clients/{client}` → 200 `{"client_id", "command_id"}` once the client and all that it has
/// are gone from what is shown; 202 when nobody has answered yet. An agent that comes back enrols
/// anew.
pub(crate) async fn delete(State(app): Shared, Path(client): Path<String>) -> Answer<Response> {
    let key = app.client(&client)?;
    if !app.is_registered(&key).await? {
        return Err(no_client(&client));
    }
    let life = app.registry.life(&key);
    let about = About::Client(&key, life.generation);
    let (id, mut outcome) = app
        .command(about, "delete_client", &client, "{}".to_owned())
        .await?;
    if let Outcome::Done(done) = &outcome
        && done.error.is_empty()
        && !app.registry.ended(&life, app.config.deadline).await
    {
        // What one has just done is to be seen.
        outcome = Outcome::Pending;
    }
    commands::answer(&id, outcome, || {
        Ok(Json(json!({ "client_id": client, "command_id": id })).into_response())
    })
}

pub(crate) fn no_client(client: &str) -> Refusal {
    Refusal::missing(format!("no client {client}"))
        .hint("the list of clients shows those that have enrolled")
}

impl App {
    /// The newest document of an id.
    pub(crate) async fn document(&self, kind: Kind, id: &str) -> Answer<Option<Value>> {
        Ok(self.versioned(kind, id).await?.map(|(_, body)| body))
    }

    /// The newest document of an id, with its version.
    pub(crate) async fn versioned(&self, kind: Kind, id: &str) -> Answer<Option<(u64, Value)>> {
        let collection = match kind {
            Kind::Client => Collection::Clients,
            Kind::Flow => Collection::Flows,
        };
        self.registry_ready().await?;
        let is_there = |life: &Life| !self.registry.has_ended(life);
        let stored = self.step(self.index.get(collection, "", None, id)).await?;
        let of_living = |document: &Document| {
            Life::of_name(&document.client).is_none_or(|life| is_there(&life))
        };
        let stored = stored.filter(of_living);
        let recent = self.recent.get(kind, id);
        let recent = recent.filter(|seen| is_there(&seen.life));
        if recent.as_ref().is_some_and(|seen| seen.is_end()) {
            return Ok(None);
        }
        let read = |body: &[u8]| {
            serde_json::from_slice::<Value>(body)
                .map_err(|error| Refusal::fault(format!("document {id}: {error}")))
        };
        match (stored, recent) {
            (Some(stored), Some(recent)) if recent.version >= stored.version => {
                Ok(Some((recent.version, read(recent.body.as_bytes())?)))
            }
            (Some(stored), _) => Ok(Some((stored.version, read(&stored.body)?))),
            (None, Some(recent)) => Ok(Some((recent.version, read(recent.body.as_bytes())?))),
            (None, None) => Ok(None),
        }
    }

    /// Whether a client may be given tasks.
    pub(crate) async fn is_registered(&self, key: &ClientKey) -> Answer<bool> {
        self.registry_ready().await?;
        Ok(self.registry.generation(key).is_some())
    }
}
