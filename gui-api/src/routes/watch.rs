//! `GET .../flows/{flow}/watch`: a flow's document at once, then each newer version, until it ends.

use super::answers::Shared;
use super::flows::Flow;
use crate::app::App;
use crate::refusal::Answer;
use crate::tails::Kind;
use axum::extract::{Path, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::Stream;
use nublar_core::ids::Life;
use serde_json::Value;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// Beyond this silence the index is asked too, in case the tail stands still.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
const KEEP_ALIVE: Duration = Duration::from_secs(15);

struct Watched {
    app: Arc<App>,
    changes: watch::Receiver<u64>,
    id: String,
    life: Life,
    shown: Option<u64>,
    now: Option<(u64, Value)>,
}

/// Server-sent events named `flow`, whose ids are versions; the last one is named `end`.
pub(crate) async fn watch(
    State(app): Shared,
    Path((client, flow)): Path<(String, String)>,
) -> Answer<Sse<impl Stream<Item = Result<Event, Infallible>>>> {
    // Subscribed before it is read: nothing falls in between.
    let changes = app.recent.changes();
    let flow = app.flow(&client, &flow).await?;
    let watched = Watched {
        app,
        changes,
        id: format!("{client}/{}", flow.id),
        life: flow.life,
        shown: None,
        now: Some((flow.version, flow.body)),
    };
    let events = futures::stream::unfold(Some(watched), |watched| async move {
        let mut watched = watched?;
        let (version, body) = watched.next().await?;
        let ended = Flow::has_ended(&body);
        let name = if ended { "end" } else { "flow" };
        let event = Event::default()
            .event(name)
            .id(version.to_string())
            .data(body.to_string());
        Some((Ok(event), (!ended).then_some(watched)))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

impl Watched {
    /// The next version that was not shown; none when the server ends or the client was deleted.
    async fn next(&mut self) -> Option<(u64, Value)> {
        loop {
            if let Some((version, body)) = self.now.take()
                && self.shown.is_none_or(|shown| version > shown)
            {
                self.shown = Some(version);
                return Some((version, body));
            }
            let changed = tokio::select! {
                () = self.app.shutdown.cancelled() => return None,
                changed = timeout(LOOK_AGAIN, self.changes.changed()) => changed,
            };
            if self.app.registry.has_ended(&self.life) {
                return None;
            }
            self.now = if changed.is_ok() {
                let seen = self.app.recent.get(Kind::Flow, &self.id);
                let newer = seen.filter(|seen| self.shown.is_none_or(|shown| seen.version > shown));
                newer.and_then(|seen| Some((seen.version, serde_json::from_str(&seen.body).ok()?)))
            } else {
                // An index that does not answer is asked again.
                self.app
                    .versioned(Kind::Flow, &self.id)
                    .await
                    .ok()
                    .flatten()
            };
        }
    }
}
