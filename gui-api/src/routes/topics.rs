//! Topics: how far each has come, and how far behind its groups are. And whether all is well.

use super::answers::Shared;
use crate::app::App;
use crate::refusal::Answer;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures::future::try_join_all;
use nublar_ports::index::Collection;
use nublar_ports::log::{Lag, LogError};
use nublar_schemas::topics::{ALL, SCHEDULING, Topic};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::timeout;

/// `GET /topics` → each topic with its partitions' ends and its groups' marks, lags and ages.
pub(crate) async fn list(State(app): Shared) -> Answer<Json<Value>> {
    let topics = try_join_all(ALL.iter().map(|topic| one(&app, *topic))).await?;
    Ok(Json(Value::Array(topics)))
}

async fn one(app: &App, topic: Topic) -> Answer<Value> {
    let partitions = app.partitions(topic).await?;
    let ends = (0..partitions).map(|partition| app.step(app.log.end(topic.name, partition)));
    let ends: Vec<u64> = try_join_all(ends)
        .await?
        .iter()
        .map(|end| end.offset)
        .collect();
    let mut groups = Vec::new();
    for read_by in app
        .config
        .groups
        .iter()
        .filter(|read_by| read_by.topic == topic.name)
    {
        match app.step(app.log.lag(&read_by.group, topic.name)).await {
            Ok(lags) => groups.push(group(&read_by.group, &lags)),
            Err(refusal) if refusal.status == StatusCode::INTERNAL_SERVER_ERROR => {
                groups.push(json!({ "name": read_by.group, "error": refusal.error }));
            }
            Err(refusal) => return Err(refusal),
        }
    }
    Ok(json!({
        "name": topic.name,
        "partitions": partitions,
        "end": ends.iter().sum::<u64>(),
        "ends": ends,
        "groups": groups,
    }))
}

fn group(name: &str, lags: &[Lag]) -> Value {
    let behind = |lag: &Lag| lag.end.offset.saturating_sub(lag.mark.offset);
    let age = |age: Option<Duration>| age.map(|age| age.as_secs_f64());
    json!({
        "name": name,
        "lag": lags.iter().map(behind).sum::<u64>(),
        "oldest_unmarked_s": age(lags.iter().filter_map(|lag| lag.oldest_unmarked).max()),
        "partitions": lags.iter().map(|lag| json!({
            "partition": lag.partition,
            "mark": lag.mark.offset,
            "end": lag.end.offset,
            "lag": behind(lag),
            "oldest_unmarked_s": age(lag.oldest_unmarked),
        })).collect::<Vec<_>>(),
    })
}

/// How long a part may take to say that it is well.
const WELL_WITHIN: Duration = Duration::from_secs(5);

/// `GET /health` → 200 or 503, without a token: `{"status", "log", "index", "ready"}`.
pub(crate) async fn health(State(app): Shared) -> Response {
    let log = async {
        app.log
            .end(SCHEDULING.name, 0)
            .await
            .map_err(|error: LogError| error.to_string())
    };
    let index = async {
        let got = app.index.get(Collection::Clients, "", None, "health").await;
        got.map_err(|error| error.to_string())
    };
    let (log, index) = tokio::join!(timeout(WELL_WITHIN, log), timeout(WELL_WITHIN, index));
    let (log, index) = (matches!(log, Ok(Ok(_))), matches!(index, Ok(Ok(_))));
    let ready = app.registry.progress.is_ready()
        && app.settings.progress.is_ready()
        && app.recent.progress.is_ready()
        && app.wishes.progress.is_ready()
        && app.commands.progress.is_ready();
    let well = log && index && ready;
    let status = if well {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let word = if well { "ok" } else { "not ready" };
    (
        status,
        Json(json!({ "status": word, "log": log, "index": index, "ready": ready })),
    )
        .into_response()
}
