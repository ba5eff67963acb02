//! `GET .../events/{name}/watch`: rows of client events as they arrive, from a place on.
//!
//! Server-sent events, each with an id that is a place in the log: whoever gives the id of the last
//! one it has worked on, as `after` or `Last-Event-ID`, misses no row and is told none twice that
//! came before. Order is that of arrival, as the log took the agents' messages; a row may be told
//! before it can be read from the index.
//!
//! | event | data |
//! |---|---|
//! | `row` | the row (or log line), as the list of rows has it |
//! | `place` | `{"place"}`: nothing else up to here; the first event is one |
//! | `missed` | `{"error", "what_to_do"}`: the log no longer keeps some of what came in between |
//! | `broken` | `{"error", "what_to_do"}`: nothing more can be told; the last event |

use super::answers::Shared;
use super::events::Of;
use crate::guard::Params;
use crate::refusal::{Answer, Refusal};
use crate::tails::{Follower, News, Place};
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::Stream;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;
use std::convert::Infallible;
use std::time::Duration;

const KEEP_ALIVE: Duration = Duration::from_secs(15);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    after: Option<String>,
    #[serde(default)]
    logs: bool,
    #[serde(default)]
    session: String,
}

/// The stream. Without a place it begins with what arrives from now on.
pub(crate) async fn watch(
    State(app): Shared,
    Path(of): Path<Of>,
    Params(asked): Params<Asked>,
    headers: HeaderMap,
) -> Answer<Sse<impl Stream<Item = Result<Event, Infallible>>>> {
    let (key, events) = app.events_of(&of, asked.logs, &asked.session).await?;
    app.known(&key).await?;
    // Whoever connects again does so with the same address: what the head says is newer.
    let last = headers
        .get("last-event-id")
        .map(|last| {
            let last = last.to_str();
            last.map_err(|_| Refusal::bad("Last-Event-ID is no text"))
        })
        .transpose()?;
    let after = last
        .or(asked.after.as_deref())
        .map(Place::read)
        .transpose()?;
    let follower = Follower::new(&app, key, events, after).await?;
    let events = futures::stream::unfold(follower, |mut follower| async move {
        let news = follower.next().await?;
        Some((Ok(event(news)), follower))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

fn event(news: News) -> Event {
    let event = Event::default();
    match news {
        News::Line(place, line) => event
            .event("row")
            .id(place.to_string())
            .data(one_line(line)),
        News::Here(place) => event
            .event("place")
            .id(place.to_string())
            .data(json!({ "place": place.to_string() }).to_string()),
        News::Missed(place, error) => event.event("missed").id(place.to_string()).data(
            json!({ "error": error, "what_to_do": "read what is stored of that time" }).to_string(),
        ),
        News::Broken(error) => event.event("broken").data(
            json!({ "error": error, "what_to_do": "start the newer program here too" }).to_string(),
        ),
    }
}

/// A row that is JSON, on one line; what is none becomes one.
fn one_line(line: String) -> String {
    if serde_json::from_str::<IgnoredAny>(&line).is_err() {
        return json!({ "_unreadable": line }).to_string();
    }
    // In JSON a bare one stands between values alone.
    if line.contains('\r') {
        line.replace('\r', " ")
    } else {
        line
    }
}
