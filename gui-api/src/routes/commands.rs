//! Cancelling, and what became of a command.

use super::answers::Shared;
use crate::refusal::{Answer, Refusal};
use crate::tails::{About, Outcome};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use nublar_schemas::records::CommandDone;
use serde_json::{Value, json};

/// `POST .../flows/{flow}/cancel` → 200 when it is done, 202 when nobody has answered yet.
pub(crate) async fn cancel(
    State(app): Shared,
    Path((client, flow)): Path<(String, String)>,
) -> Answer<Response> {
    let flow = app.flow(&client, &flow).await?;
    app.registry_ready().await?;
    let generation = app.registry.generation(&flow.key).unwrap_or(1);
    let about = About::Client(&flow.key, generation);
    let (id, outcome) = app
        .command(about, "cancel", flow.id.as_str(), "{}".to_owned())
        .await?;
    answer(&id, outcome, || {
        Ok(
            Json(json!({ "flow_id": flow.id, "client_id": client, "command_id": id }))
                .into_response(),
        )
    })
}

/// A command's outcome as an answer.
pub(crate) fn answer(
    id: &str,
    outcome: Outcome,
    done: impl FnOnce() -> Answer<Response>,
) -> Answer<Response> {
    match outcome {
        Outcome::Done(CommandDone { error, .. }) if error.is_empty() => done(),
        Outcome::Done(CommandDone { error, .. }) => {
            Err(Refusal::new(StatusCode::CONFLICT, error).with("command_id", json!(id)))
        }
        Outcome::Pending => Ok(pending(id)),
    }
}

fn pending(id: &str) -> Response {
    let body = json!({
        "command_id": id,
        "status": "accepted, not answered yet",
        "what_to_do": format!("GET /api/v1/commands/{id} tells when it is done"),
    });
    (StatusCode::ACCEPTED, Json(body)).into_response()
}

/// `GET /commands/{command}` → what became of a command, as far as this server has seen it.
pub(crate) async fn one(State(app): Shared, Path(id): Path<String>) -> Answer<Json<Value>> {
    let done = app.commands.done(&id).ok_or_else(|| {
        Refusal::missing(format!("no answer to a command {id}"))
            .hint("it is not done yet, or it is long ago")
    })?;
    let body: Value = serde_json::from_str(&done.body).unwrap_or(Value::Null);
    let error = Some(done.error).filter(|error| !error.is_empty());
    Ok(Json(
        json!({ "command_id": id, "done": error.is_none(), "error": error, "body": body }),
    ))
}
