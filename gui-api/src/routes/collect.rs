//! `POST /clients/{client}/flows`: a wish is compiled, and told to the foreman.

use super::answers::Shared;
use super::clients::no_client;
use crate::app::{App, random};
use crate::refusal::{Answer, Refusal};
use crate::tails::{Kind, Seen};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use nublar_core::artifact::{Collect, Compiled, Compiler, Limits, Repository, Tools, Wanted};
use nublar_core::ids::{ClientKey, ContentId, FlowId};
use nublar_ports::log::Position;
use nublar_schemas::codec::Record;
use nublar_schemas::records::{FlowCreated, Request, RequestRef, Scheduling};
use nublar_schemas::topics;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

/// Seconds until a flow must have ended, unless said otherwise, and at most.
const USUAL_DEADLINE_S: u64 = 7 * 86_400;
const LONGEST_DEADLINE_S: u64 = 28 * 86_400;
/// How many wishes with a key are remembered.
const REMEMBERED: usize = 10_000;
/// How many requests are known to stand in the log already.
const REUSED: usize = 1_000;
/// For how long a request is not appended again; it is kept for much longer.
const REUSED_US: i64 = 3_600_000_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    artifacts: Vec<Artifact>,
    /// For every artifact that declares them.
    #[serde(default)]
    parameters: Map<String, Value>,
    #[serde(default)]
    urgent: bool,
    timeout: Option<u64>,
    progress_timeout: Option<f32>,
    max_rows: Option<u64>,
    max_logs: Option<u64>,
    max_upload_bytes: Option<u64>,
    ops_per_second: Option<f32>,
    cpu_limit: Option<f32>,
    iops_limit: Option<f32>,
    deadline_s: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "an artifact is a name, or an object of `name` and `parameters`"
)]
enum Artifact {
    Name(String),
    Object(Configured),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Configured {
    name: String,
    #[serde(default)]
    parameters: Map<String, Value>,
}

/// Wishes that came with a key, and requests that stand in the log.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    keyed: Mutex<Keyed>,
    requests: Mutex<Requests>,
}

#[derive(Debug, Default)]
struct Keyed {
    by_key: HashMap<(ClientKey, String), Arc<tokio::sync::Mutex<Option<Wish>>>>,
    order: VecDeque<(ClientKey, String)>,
}

#[derive(Debug, Default)]
struct Requests {
    by_hash: HashMap<Bytes, (RequestRef, i64)>,
    order: VecDeque<Bytes>,
}

/// What a key stands for.
#[derive(Debug, Clone)]
struct Wish {
    /// What was asked.
    hash: ContentId,
    id: FlowId,
    at_us: i64,
    /// It is in the log. Otherwise it may be: it is told again under the same id.
    told: bool,
}

impl Wishes {
    fn slot(&self, key: (ClientKey, String)) -> Arc<tokio::sync::Mutex<Option<Wish>>> {
        let mut keyed = self.keyed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = keyed.by_key.get(&key) {
            return Arc::clone(slot);
        }
        let slot = Arc::default();
        keyed.by_key.insert(key.clone(), Arc::clone(&slot));
        keyed.order.push_back(key);
        if keyed.order.len() > REMEMBERED
            && let Some(oldest) = keyed.order.pop_front()
        {
            keyed.by_key.remove(&oldest);
        }
        slot
    }
}

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
    app.settings
        .progress
        .ready("the settings", app.config.deadline)
        .await?;
    let compiled = compile(&app.settings.artifacts(), asked)?;

    let idempotency = idempotency_key(&headers)?;
    let slot = idempotency
        .as_ref()
        .map(|text| app.wishes.slot((key.clone(), text.clone())));
    let mut remembered = match &slot {
        Some(slot) => Some(slot.lock().await),
        None => None,
    };
    let hash = ContentId::of(&[&body]);
    let known = remembered.as_ref().and_then(|wish| (**wish).clone());
    if known.as_ref().is_some_and(|wish| wish.hash != hash) {
        let error = "this Idempotency-Key was used for another wish";
        return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, error)
            .hint("take a new key for a new wish"));
    }
    let wish = known.clone().unwrap_or_else(|| {
        let at_us = crate::clock::now_us();
        let tell = idempotency.as_ref().map_or_else(random, |text| {
            let cause = ContentId::of(&[b"idempotency", client.as_bytes(), text.as_bytes()]);
            let [a, b, c, d, ..] = *cause.as_bytes();
            [a, b, c, d]
        });
        let id = app.keys.flow_id(&key, generation, at_us, tell);
        Wish {
            hash,
            id,
            at_us,
            told: false,
        }
    });
    if !wish.told {
        if let Some(remembered) = &mut remembered {
            **remembered = Some(wish.clone());
        }
        tell(&app, &key, generation, &wish, &compiled, deadline_s).await?;
        if let Some(remembered) = &mut remembered {
            **remembered = Some(Wish {
                told: true,
                ..wish.clone()
            });
        }
    }
    let answer = Json(json!({
        "flow_id": wish.id,
        "client_id": client,
        "artifacts": compiled.artifacts,
        "results": compiled.results,
    }));
    let mut response = (StatusCode::CREATED, answer).into_response();
    let place = format!("/api/v1/clients/{client}/flows/{}", wish.id);
    response
        .headers_mut()
        .insert(header::LOCATION, super::answers::value(&place));
    if known.is_some_and(|wish| wish.told) {
        let replayed = HeaderValue::from_static("true");
        response
            .headers_mut()
            .insert("idempotency-replayed", replayed);
    }
    Ok(response)
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

fn compile(repository: &Repository, asked: Asked) -> Answer<Compiled> {
    let many = asked.artifacts.len() > 1;
    let mut artifacts = Vec::new();
    let mut unused: Vec<&String> = asked.parameters.keys().collect();
    for artifact in asked.artifacts {
        let Configured { name, parameters } = match artifact {
            Artifact::Name(name) => Configured {
                name,
                parameters: Map::new(),
            },
            Artifact::Object(configured) => configured,
        };
        let definition = repository.get(name.split('/').next().unwrap_or_default());
        let declares = |parameter: &str| {
            definition
                .as_ref()
                .is_some_and(|definition| definition.parameter(parameter).is_some())
        };
        let mut wanted = Wanted::new(name);
        for (parameter, value) in &asked.parameters {
            if !many || declares(parameter) {
                wanted.parameters.insert(parameter.clone(), as_text(value));
                unused.retain(|unused| *unused != parameter);
            }
        }
        wanted.parameters.extend(
            parameters
                .iter()
                .map(|(name, value)| (name.clone(), as_text(value))),
        );
        artifacts.push(wanted);
    }
    // What nobody declares is a variable for all.
    for parameter in unused {
        let value = asked
            .parameters
            .get(parameter)
            .map(as_text)
            .unwrap_or_default();
        for wanted in &mut artifacts {
            wanted
                .parameters
                .entry(parameter.clone())
                .or_insert_with(|| value.clone());
        }
    }
    let collect = Collect {
        artifacts,
        limits: Limits {
            timeout: asked.timeout,
            progress_timeout: asked.progress_timeout,
            max_rows: asked.max_rows,
            max_logs: asked.max_logs,
            max_upload_bytes: asked.max_upload_bytes,
            ops_per_second: asked.ops_per_second,
            cpu_limit: asked.cpu_limit,
            iops_limit: asked.iops_limit,
        },
        urgent: asked.urgent,
        ..Collect::default()
    };
    let compiler = Compiler {
        repository,
        tools: &Tools::default(),
        server_metadata: &BTreeMap::new(),
    };
    compiler
        .compile(&collect)
        .map_err(|error| Refusal::bad(error.to_string()))
}

/// Parameters are texts for the agent; `true` and `false` are `Y` and `N`.
fn as_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(yes) => if *yes { "Y" } else { "N" }.to_owned(),
        Value::Null => String::new(),
        Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

async fn tell(
    app: &App,
    key: &ClientKey,
    generation: i64,
    wish: &Wish,
    compiled: &Compiled,
    deadline_s: u64,
) -> Answer<()> {
    let request = request(app, compiled).await?;
    let mut header = app.header(Some(key), generation);
    header.at_us = wish.at_us;
    let deadline_us = wish
        .at_us
        .saturating_add_unsigned(deadline_s.saturating_mul(1_000_000));
    let created = FlowCreated {
        header,
        flow_id: wish.id.to_string(),
        request,
        creator: app.config.user.clone(),
        artifacts: compiled.artifacts.clone(),
        spec: compiled.spec.to_string(),
        queries: i32::try_from(compiled.queries).unwrap_or(i32::MAX),
        urgent: compiled.urgent,
        execve: compiled.execve,
        deadline_us,
    };
    let ahead = ahead(key, wish, &created, compiled);
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
async fn request(app: &App, compiled: &Compiled) -> Answer<RequestRef> {
    let hash = Bytes::copy_from_slice(blake3::hash(&compiled.bytes).as_bytes());
    let header = app.header(None, 0);
    let now_us = header.at_us;
    {
        let requests = app
            .wishes
            .requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some((known, at_us)) = requests.by_hash.get(&hash)
            && now_us - at_us < REUSED_US
        {
            return Ok(known.clone());
        }
    }
    let record = Request {
        header,
        hash: hash.clone(),
        body: compiled.bytes.clone(),
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
    let mut requests = app
        .wishes
        .requests
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    if requests
        .by_hash
        .insert(hash.clone(), (place.clone(), now_us))
        .is_none()
    {
        requests.order.push_back(hash);
    }
    if requests.order.len() > REUSED
        && let Some(oldest) = requests.order.pop_front()
    {
        requests.by_hash.remove(&oldest);
    }
    Ok(place)
}

/// The flow as it is until the foreman tells of it.
fn ahead(key: &ClientKey, wish: &Wish, created: &FlowCreated, compiled: &Compiled) -> Seen {
    let client = key.client.to_string();
    let hash: String = created
        .request
        .hash
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let body = json!({
        "client_id": client,
        "flow_id": wish.id,
        "creator": created.creator,
        "artifacts": created.artifacts,
        "request": compiled.spec,
        "request_hash": hash,
        "urgent": created.urgent,
        "adopted": false,
        "state": "RUNNING",
        "reason": "accepted",
        "status": "accepted, the foreman has not seen it yet",
        "backtrace": "",
        "create_time": wish.at_us,
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
        id: format!("{client}/{}", wish.id),
        client,
        order: wish.at_us,
        version: 0,
        body: body.to_string(),
    }
}
