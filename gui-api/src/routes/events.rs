//! Client events: which there are of a client, and their rows and log lines.

use super::answers::{Shared, streamed};
use super::clients::no_client;
use super::format::{Columns, Format, Writer};
use super::results::written;
use crate::app::App;
use crate::clock::read_time;
use crate::guard::Params;
use crate::refusal::{Answer, Refusal};
use crate::stored::{Events, Told, documents, event_lines};
use crate::tails::Kind;
use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use nublar_core::ids::ClientKey;
use nublar_ports::index::{Collection, Query};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;

/// How many documents without bodies are listed at once.
const LISTED: usize = 2_000;

/// What a path names.
#[derive(Debug, Deserialize)]
pub(crate) struct Of {
    client: String,
    name: String,
    source: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Between {
    since: Option<String>,
    until: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    since: Option<String>,
    until: Option<String>,
    limit: Option<u64>,
    #[serde(default)]
    format: Format,
    #[serde(default)]
    logs: bool,
    #[serde(default)]
    session: String,
}

/// What is stored under one name.
#[derive(Debug, Default)]
struct Sum {
    rows: u64,
    log_lines: u64,
    first_us: Option<i64>,
    last_us: Option<i64>,
}

/// `GET /clients/{client}/events?since&until` → `[{"name", "rows", "log_lines", "first_us",
/// "last_us"}]`, by name. Times are those of the agent's messages, null where none tells one.
pub(crate) async fn list(
    State(app): Shared,
    Path(client): Path<String>,
    Params(between): Params<Between>,
) -> Answer<Json<Value>> {
    let key = app.client(&client)?;
    app.is_registered(&key).await?;
    let query = Query {
        client: Some(app.registry.life(&key).name()),
        order: times(between.since.as_deref(), between.until.as_deref())?,
        without_bodies: true,
        limit: LISTED,
        ..Query::default()
    };
    app.has_events(&query).await?;
    let mut sums: BTreeMap<String, Sum> = BTreeMap::new();
    let mut found = pin!(documents(Arc::clone(&app), Collection::Events, query));
    while let Some(document) = found.try_next().await? {
        let sum = sums.entry(document.source).or_default();
        match Told::of(&document.text).0 {
            Told::Logs => sum.log_lines += document.size,
            Told::Rows => sum.rows += document.size,
        }
        // They come by time; those that tell none are first, at 0.
        let at_us = Some(document.order).filter(|order| *order > 0);
        sum.first_us = sum.first_us.or(at_us);
        sum.last_us = at_us.or(sum.last_us);
    }
    if sums.is_empty() {
        app.known(&key).await?;
    }
    let listed = sums.iter().map(|(name, sum)| {
        json!({
            "name": name,
            "rows": sum.rows,
            "log_lines": sum.log_lines,
            "first_us": sum.first_us,
            "last_us": sum.last_us,
        })
    });
    Ok(Json(listed.collect()))
}

/// `GET /clients/{client}/events/{name}?since&until&limit&format&logs&session` → rows by (agent time,
/// id of the message), each as the agent wrote it with `ClientId`, `_ts` and `_Source` added at its end where
/// it has none, and `_Session` if the client has a `conflict`; with `logs=true` log lines as the agent
/// wrote them. `_ts` is the agent's time of the message that brought the row, seconds: rows that came
/// together have the same.
pub(crate) async fn lines(
    State(app): Shared,
    Path(of): Path<Of>,
    Params(asked): Params<Asked>,
) -> Answer<Response> {
    let (key, mut events) = app.events_of(&of, asked.logs, &asked.session).await?;
    let any = Query {
        without_bodies: true,
        ..events.query()
    };
    if !app.has_events(&any).await? {
        app.known(&key).await?;
        if !app.are_defined(&events.source) {
            let what = if asked.logs { "log lines" } else { "rows" };
            let error = format!("client {} has no {what} of {}", of.client, events.source);
            return Err(Refusal::missing(error)
                .hint("the list of the client's events shows those there are"));
        }
    }
    events.times = times(asked.since.as_deref(), asked.until.as_deref())?;
    let limit = asked.limit.unwrap_or(u64::MAX);
    let lines = lines_as(asked.format, Arc::clone(&app), events, limit);
    Ok(streamed(&app, asked.format.content_type(), lines))
}

/// Lines as an answer's body. The head of CSV needs every row's columns, so they are read twice.
fn lines_as(
    format: Format,
    app: Arc<App>,
    events: Events,
    limit: u64,
) -> impl Stream<Item = Answer<Bytes>> + Send + 'static {
    let begun = async move {
        let mut columns = Columns::default();
        if format == Format::Csv {
            let mut found = pin!(event_lines(Arc::clone(&app), events.clone(), limit));
            while let Some((piece, block)) = found.try_next().await? {
                let lines = block.lines(piece.skip, piece.take);
                lines.for_each(|line| columns.see(line));
            }
        }
        let found = event_lines(app, events, limit);
        Ok::<_, Refusal>(written(Writer::new(format, columns), found))
    };
    futures::stream::once(begun).try_flatten()
}

fn times(since: Option<&str>, until: Option<&str>) -> Answer<Option<(i64, i64)>> {
    let since = since.map(|text| read_time("since", text)).transpose()?;
    let until = until.map(|text| read_time("until", text)).transpose()?;
    if since.is_none() && until.is_none() {
        return Ok(None);
    }
    Ok(Some((since.unwrap_or(0), until.unwrap_or(i64::MAX))))
}

impl App {
    /// The events that a path names, of all sessions of the agent when `session` is empty.
    pub(super) async fn events_of(
        &self,
        of: &Of,
        logs: bool,
        session: &str,
    ) -> Answer<(ClientKey, Events)> {
        let key = self.client(&of.client)?;
        self.is_registered(&key).await?;
        let digits = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let is_name = session.len() == 16 && session.bytes().all(digits);
        if !is_name && !session.is_empty() {
            let error = format!("session {session:?} is not 16 small hex digits");
            return Err(Refusal::bad(error).hint(
                "the client's conflict lists the sessions of the machines that share its key",
            ));
        }
        // Log lines stay as they are.
        let document = match logs {
            true => None,
            false => self.document(Kind::Client, &of.client).await?,
        };
        let with_sessions = document.is_some_and(|document| document["conflict"].is_object());
        let source = of
            .source
            .as_ref()
            .map_or_else(|| of.name.clone(), |source| format!("{}/{source}", of.name));
        let events = Events {
            client: of.client.clone(),
            name: self.registry.life(&key).name(),
            source,
            told: if logs { Told::Logs } else { Told::Rows },
            session: session.to_owned(),
            with_sessions,
            times: None,
        };
        Ok((key, events))
    }

    /// Refuses a client that has not enrolled.
    pub(super) async fn known(&self, key: &ClientKey) -> Answer<()> {
        let client = key.client.to_string();
        if self.is_registered(key).await? || self.document(Kind::Client, &client).await?.is_some() {
            return Ok(());
        }
        Err(no_client(&client))
    }

    /// Whether a query matches any event. When it does not, the index is asked to show what it
    /// has, once.
    async fn has_events(&self, query: &Query) -> Answer<bool> {
        let query = Query {
            limit: 1,
            ..query.clone()
        };
        let look = || self.index.query(Collection::Events, "", &query);
        if !self.step(look()).await?.documents.is_empty() {
            return Ok(true);
        }
        self.step(self.index.refresh(Collection::Events)).await?;
        Ok(!self.step(look()).await?.documents.is_empty())
    }

    /// Whether an artifact has results of this name.
    fn are_defined(&self, name: &str) -> bool {
        let artifact = name.split('/').next().unwrap_or_default();
        let repository = self.settings.artifacts();
        repository.get(artifact).is_some_and(|artifact| {
            let mut sources = artifact.sources.iter();
            sources.any(|source| artifact.result_name(source) == name)
        })
    }
}
