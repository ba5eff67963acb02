//! `POST /clients/{client}/flows`: a wish is compiled, and told to the foreman.

use super::answers::Shared;
use super::clients::no_client;
use super::wish::{Asked, compile};
use crate::app::{App, random};
use crate::refusal::{Answer, Refusal};
use crate::tails::{Kind, Meant, Seen};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use nublar_core::artifact::Compiled;
use nublar_core::ids::{ClientKey, ContentId, Life, hex};
use nublar_ports::log::Position;
use nublar_schemas::codec::Record;
use nublar_schemas::records::{FlowCreated, Request, RequestRef, Scheduling};
use nublar_schemas::topics;
use serde_json::json;
use std::sync::Arc;

/// Seconds until a flow must have ended, unless said otherwise, and at most.
const USUAL_DEADLINE_S: u64 = 7 * 86_400;
const LONGEST_DEADLINE_S: u64 = 28 * 86_400;
/// For how long a request is not appended again; it is kept for much longer.
const REUSED_US: i64 = 3_600_000_000;

/// `POST /clients/{client}/flows` → 201 `{"flow_id", "client_id", "artifacts", "results"}`.
pub(crate) async fn collect(
    State(app): Shared,
    Path(client): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer<Response> {
    let key = app.client(&client)?;
    let asked: Asked = serde_json::from_slice(&body)
        .map_err(|error| Refusal::bad(format!("the body is no wish: {error}")).hint(EXAMPLE))?;
    let deadline_s = asked.deadline_s.unwrap_or(USUAL_DEADLINE_S);
    if !(1..=LONGEST_DEADLINE_S).contains(&deadline_s) {
        let error = format!("deadline_s={deadline_s} is not between 1 and {LONGEST_DEADLINE_S}");
        return Err(Refusal::bad(error));
    }
    if !app.is_registered(&key).await? {
        return Err(no_client(&client));
    }
    let generation = app.registry.generation(&key).unwrap_or(1);
    app.settings_ready().await?;
    let compiled = compile(&app, asked)?;

    let (meant, mut replayed) = match idempotency_key(&headers)? {
        None => (
            Arc::new(Meant::now(&app, &key, generation, random())),
            false,
        ),
        Some(text) => {
            let asked = asked_hash(&app, &compiled, &body)?;
            let (meant, known) = app.meant(&key, generation, &text, &asked).await?;
            if meant.asked != asked.as_slice() {
                let error = "this Idempotency-Key was used for another wish";
                return Err(
                    Refusal::new(StatusCode::CONFLICT, error).hint("take a new key for a new wish")
                );
            }
            (meant, known)
        }
    };
    {
        let mut told = meant.told.lock().await;
        replayed |= *told;
        if !*told {
            tell(&app, &key, &meant, &compiled, deadline_s).await?;
            *told = true;
        }
    }
    let answer = Json(json!({
        "flow_id": meant.id,
        "client_id": client,
        "artifacts": compiled.artifacts,
        "results": compiled.results,
    }));
    let mut response = (StatusCode::CREATED, answer).into_response();
    let place = format!("/api/v1/clients/{client}/flows/{}", meant.id);
    response
        .headers_mut()
        .insert(header::LOCATION, super::answers::value(&place));
    if replayed {
        let yes = HeaderValue::from_static("true");
        response.headers_mut().insert("idempotency-replayed", yes);
    }
    Ok(response)
}

/// Tells a wish from others. Of one that holds secrets nobody can find them out by trying.
fn asked_hash(app: &App, compiled: &Compiled, body: &[u8]) -> Answer<[u8; 16]> {
    if compiled.secrets.is_empty() {
        return Ok(*ContentId::of(&[body]).as_bytes());
    }
    let hash = app.seal.hash(body);
    hash.map_err(|error| Refusal::fault(error.to_string()))
}

const EXAMPLE: &str = r#"send for example {"artifacts": ["Generic.Client.Info"]}"#;

fn idempotency_key(headers: &HeaderMap) -> Answer<Option<String>> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    let text = value
        .to_str()
        .ok()
        .filter(|text| (1..=255).contains(&text.len()));
    let text = text.ok_or_else(|| Refusal::bad("Idempotency-Key is not 1 to 255 ASCII characters"));
    Ok(Some(text?.to_owned()))
}

async fn tell(
    app: &App,
    key: &ClientKey,
    meant: &Meant,
    compiled: &Compiled,
    deadline_s: u64,
) -> Answer<()> {
    let request = request(app, &compiled.bytes).await?;
    let mut header = app.header(Some(key), meant.generation);
    header.at_us = meant.at_us;
    let deadline_us = meant
        .at_us
        .saturating_add_unsigned(deadline_s.saturating_mul(1_000_000));
    let created = FlowCreated {
        header,
        flow_id: meant.id.to_string(),
        request,
        creator: app.config.user.clone(),
        artifacts: compiled.artifacts.clone(),
        spec: compiled.spec.to_string(),
        queries: i32::try_from(compiled.queries).unwrap_or(i32::MAX),
        urgent: compiled.urgent,
        execve: compiled.execve,
        deadline_us,
    };
    let ahead = ahead(key, meant, &created, compiled);
    let value = Bytes::from(Scheduling::from(created).encode()?);
    let partition = app.partition_of(key).await?;
    let client = Bytes::from(key.client.to_string());
    app.step(
        app.log
            .append(topics::SCHEDULING.name, partition, client, value),
    )
    .await?;
    app.recent.ahead(Kind::Flow, ahead);
    Ok(())
}

/// The request's place in the log, where it is put first.
pub(super) async fn request(app: &App, body: &Bytes) -> Answer<RequestRef> {
    let hash = Bytes::copy_from_slice(blake3::hash(body).as_bytes());
    let header = app.header(None, 0);
    let now_us = header.at_us;
    if let Some((known, at_us)) = app.requests.get(&hash)
        && now_us - at_us < REUSED_US
    {
        return Ok(known);
    }
    let record = Request {
        header,
        hash: hash.clone(),
        body: body.clone(),
    };
    let partitions = app.partitions(topics::REQUESTS).await?;
    let partition = u32::from(hash.first().copied().unwrap_or(0)) % partitions.max(1);
    let value = Bytes::from(record.encode()?);
    let appended = app
        .log
        .append(topics::REQUESTS.name, partition, hash.clone(), value);
    let Position { generation, offset } = app.step(appended).await?;
    let place = RequestRef {
        hash: hash.clone(),
        log_generation: i64::from(generation),
        partition: i32::try_from(partition).unwrap_or(i32::MAX),
        offset: i64::try_from(offset).unwrap_or(i64::MAX),
    };
    app.requests.put(hash, (place.clone(), now_us));
    Ok(place)
}

/// The flow as it is until the foreman tells of it.
fn ahead(key: &ClientKey, meant: &Meant, created: &FlowCreated, compiled: &Compiled) -> Seen {
    let client = key.client.to_string();
    let body = json!({
        "client_id": client,
        "flow_id": meant.id,
        "creator": created.creator,
        "artifacts": created.artifacts,
        "request": compiled.spec,
        "request_hash": hex(&created.request.hash),
        "urgent": created.urgent,
        "adopted": false,
        "state": "RUNNING",
        "reason": "accepted",
        "status": "accepted, the foreman has not seen it yet",
        "backtrace": "",
        "create_time": meant.at_us,
        "start_time": null,
        "end_time": null,
        "deadline": created.deadline_us,
        "attempt": 1,
        "ran_twice": false,
        "artifacts_with_results": [],
        "total_collected_rows": 0,
        "total_logs": 0,
        "total_uploaded_files": 0,
        "total_uploaded_bytes": 0,
        "query_stats": [],
    });
    Seen {
        id: format!("{client}/{}", meant.id),
        life: Life {
            client: key.clone(),
            generation: meant.generation,
        },
        order: meant.at_us,
        version: 0,
        body: body.to_string(),
    }
}
