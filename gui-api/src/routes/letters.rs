//! Dead letters: what could not be taken, why, and what to do with it.
//!
//! The topic keeps letters for 30 days, and so long they are shown. Retrying and dropping append
//! the letter's next state to the topic; the index follows. A retried letter is no more listed
//! unless a worker puts it aside again.

use super::answers::Shared;
use crate::app::App;
use crate::clock::now_us;
use crate::guard::Params;
use crate::lists::{read_limit, read_place, write_place};
use crate::refusal::{Answer, Refusal};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use nublar_core::ids::{ClientId, ClientKey, ContentId};
use nublar_core::letters::{DROPPED, KEPT, RETRIED, partition, version};
use nublar_core::partition::of_client;
use nublar_ports::index::{Collection, Query};
use nublar_schemas::agent::VeloMessage;
use nublar_schemas::codec::Record as _;
use nublar_schemas::records::{AgentMessage, DeadLetter, Messages};
use nublar_schemas::topics::{DEAD_LETTERS, EVENTS, Keep, RESULTS, Topic, UPLOADS};
use prost::Message as _;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Between two looks at whether the index has followed.
const LOOK: Duration = Duration::from_millis(20);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    client: Option<String>,
    limit: Option<usize>,
    after: Option<String>,
}

/// `GET /dead-letters?client&limit&after` → `{"letters": [...], "next"}`, newest first.
pub(crate) async fn list(State(app): Shared, Params(asked): Params<Asked>) -> Answer<Json<Value>> {
    let limit = read_limit(asked.limit)?;
    let client = asked.client.map(|client| client.parse::<ClientId>());
    let query = Query {
        client: client.transpose()?.map(|client| client.to_string()),
        source: Some(KEPT.to_owned()),
        order: Some((oldest_us(), i64::MAX)),
        descending: true,
        limit,
        after: asked.after.as_deref().map(read_place).transpose()?,
        ..Query::default()
    };
    let collection = Collection::DeadLetters;
    app.step(app.index.refresh(collection)).await?;
    let page = app.step(app.index.query(collection, "", &query)).await?;
    let letters = page.documents.iter().map(|document| {
        let letter = DeadLetter::decode(&document.body)?;
        Ok(summary(&letter))
    });
    let letters = letters.collect::<Answer<Vec<Value>>>()?;
    let next = page.next.as_ref().map(write_place);
    Ok(Json(json!({ "letters": letters, "next": next })))
}

/// `GET /dead-letters/{id}` → the letter, its header, and the messages that can be read in its copy.
pub(crate) async fn one(State(app): Shared, Path(id): Path<String>) -> Answer<Json<Value>> {
    let letter = app.letter(&id).await?;
    let copy = app.copy_of(&letter).await?;
    let mut shown = summary(&letter);
    if let Value::Object(fields) = &mut shown {
        let header = &letter.header;
        fields.insert("org".into(), json!(header.org));
        fields.insert("generation".into(), json!(header.generation));
        fields.insert("trace".into(), json!(header.trace));
        fields.insert("messages".into(), messages(&copy));
        let retry = source(&letter, &copy).err().map(|refusal| refusal.error);
        fields.insert("not_to_be_retried".into(), json!(retry));
    }
    Ok(Json(shown))
}

/// `GET /dead-letters/{id}/copy` → what was refused, as it is: one message, or the record that
/// stood in the topic.
pub(crate) async fn copy(State(app): Shared, Path(id): Path<String>) -> Answer<Response> {
    let letter = app.letter(&id).await?;
    let mut response = app.copy_of(&letter).await?.into_response();
    let octets = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, octets);
    response.headers_mut().insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    Ok(response)
}

/// `POST /dead-letters/{id}/retry` → appends the copy to its source topic again. What is stored of
/// it is stored once, however often it is retried.
pub(crate) async fn retry(State(app): Shared, Path(id): Path<String>) -> Answer<Response> {
    let letter = app.letter(&id).await?;
    let copy = app.copy_of(&letter).await?;
    let source = source(&letter, &copy)?;
    let partitions = app.partitions(source.topic).await?;
    let partition = of_client(&source.key, partitions);
    let key = Bytes::from(source.key.client.to_string());
    let append = app.log.append(source.topic.name, partition, key, copy);
    let position = app.step(append).await?;
    let retried = DeadLetter {
        state: RETRIED.to_owned(),
        attempts: letter.attempts.saturating_add(1),
        ..letter
    };
    let followed = app.next_state(&retried).await?;
    let body = json!({
        "id": id, "retried": true, "topic": source.topic.name,
        "partition": partition, "offset": position.offset,
    });
    Ok((status(followed), Json(body)).into_response())
}

/// `DELETE /dead-letters/{id}` → nobody sees it any more, whatever comes later.
pub(crate) async fn delete(State(app): Shared, Path(id): Path<String>) -> Answer<Response> {
    let letter = app.letter(&id).await?;
    let dropped = DeadLetter {
        state: DROPPED.to_owned(),
        copy: Bytes::new(),
        object: None,
        ..letter
    };
    let followed = app.next_state(&dropped).await?;
    Ok((status(followed), Json(json!({ "id": id, "dropped": true }))).into_response())
}

/// Before this time letters are no longer kept.
fn oldest_us() -> i64 {
    match DEAD_LETTERS.keep {
        Keep::For(time) => now_us() - i64::try_from(time.as_micros()).unwrap_or(i64::MAX),
        Keep::Newest => 0,
    }
}

/// It is durable; lists may follow later.
fn status(followed: bool) -> StatusCode {
    if followed {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    }
}

impl App {
    /// A letter that is not dropped.
    async fn letter(&self, id: &str) -> Answer<DeadLetter> {
        let id = id.parse::<ContentId>()?.to_string();
        let got = self.index.get(Collection::DeadLetters, "", None, &id);
        let document = self.step(got).await?;
        document
            .filter(|document| document.source != DROPPED && document.order >= oldest_us())
            .map(|document| DeadLetter::decode(&document.body).map_err(Refusal::from))
            .unwrap_or_else(|| {
                Err(Refusal::missing(format!("no dead letter {id}"))
                    .hint("it was dropped, or is older than 30 days"))
            })
    }

    async fn copy_of(&self, letter: &DeadLetter) -> Answer<Bytes> {
        match &letter.object {
            None => Ok(letter.copy.clone()),
            Some(key) => self.step(self.objects.get(key, None)).await,
        }
    }

    /// Appends the letter's next state, and waits a while for the index to follow.
    async fn next_state(&self, letter: &DeadLetter) -> Answer<bool> {
        let partition = partition(letter, self.partitions(DEAD_LETTERS).await?);
        let key = Bytes::from(letter.id.clone());
        let value = Bytes::from(letter.encode()?);
        let append = self.log.append(DEAD_LETTERS.name, partition, key, value);
        let position = self.step(append).await?;
        let version = version(letter, position.generation, position.offset);
        let until = Instant::now() + self.config.command_wait;
        loop {
            let got = self
                .index
                .get(Collection::DeadLetters, "", None, &letter.id);
            let document = self.step(got).await?;
            if document.is_some_and(|document| document.version >= version) {
                return Ok(true);
            }
            if Instant::now() >= until {
                return Ok(false);
            }
            sleep(LOOK).await;
        }
    }
}

/// Where a retried copy goes: a topic, and there the partition of the client.
struct Source {
    topic: Topic,
    key: ClientKey,
}

/// Where the copy stood, if it may stand there again.
fn source(letter: &DeadLetter, copy: &Bytes) -> Answer<Source> {
    let no = |error: String| Err(Refusal::new(StatusCode::CONFLICT, error));
    let topics = [RESULTS, UPLOADS, EVENTS];
    let Some(topic) = topics.into_iter().find(|topic| topic.name == letter.topic) else {
        return no(format!(
            "it was refused by a rule ({}) and never stood in a topic: there is nothing to retry",
            letter.reason
        ));
    };
    match Messages::decode(copy) {
        Ok(messages) => Ok(Source {
            topic,
            key: ClientKey::of(&messages.header)?,
        }),
        Err(error) => no(format!(
            "its copy is no record that a worker can read ({error}): there is nothing to retry"
        )),
    }
}

fn summary(letter: &DeadLetter) -> Value {
    json!({
        "id": letter.id,
        "time": letter.header.at_us,
        "client_id": letter.header.client,
        "frontend": letter.header.frontend,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "reason": letter.reason,
        "text": letter.text,
        "attempts": letter.attempts,
        "size": letter.size,
        "state": if letter.state.is_empty() { KEPT } else { &letter.state },
    })
}

/// What can be read in a copy: the messages of a record, or a single message.
fn messages(copy: &Bytes) -> Value {
    let messages = Messages::decode(copy).map_or_else(
        |_| {
            let session = VeloMessage::decode(copy.clone()).map(|message| message.session_id);
            let alone = session.ok().filter(|_| !copy.is_empty());
            let alone = alone.map(|session| AgentMessage {
                session,
                bytes: copy.clone(),
                object: None,
            });
            alone.into_iter().collect()
        },
        |record| record.messages,
    );
    messages.iter().map(described).collect()
}

fn described(message: &AgentMessage) -> Value {
    let decoded = VeloMessage::decode(message.bytes.clone()).ok();
    json!({
        "session": message.session,
        "kind": decoded.as_ref().map_or("unreadable", kind),
        "size": message.bytes.len(),
        "object": message.object,
    })
}

fn kind(message: &VeloMessage) -> &'static str {
    if message.vql_response.is_some() {
        "rows"
    } else if message.log_message.is_some() {
        "log"
    } else if message.flow_stats.is_some() {
        "statistics"
    } else if message.file_buffer.is_some() {
        "buffer"
    } else if message.upload_transaction.is_some() {
        "upload"
    } else {
        "unknown"
    }
}
