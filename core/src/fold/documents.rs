//! What people read: whole documents as JSON, under the names they know.

use super::client::Client;
use super::flow::{Flow, Origin, Task, Verdict};
use super::header;
use super::resumes::Resumed;
use crate::ids::{ClientKey, ContentId, FlowId, hex};
use nublar_schemas::records::{Document, Notification};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// The states of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FlowState {
    /// Not delivered yet.
    Running,
    /// Delivered, no sign of life yet.
    Waiting,
    /// The agent works on it.
    InProgress,
    /// No news for long.
    Unresponsive,
    /// Everything that the agent reports is stored.
    Finished,
    /// It ended otherwise; `reason` and `status` say how.
    Error,
}

fn state(flow: &Flow, verdict: &Verdict) -> (FlowState, String, String) {
    match verdict {
        Verdict::Finished => (FlowState::Finished, String::new(), String::new()),
        Verdict::Failed { reason, text } => (FlowState::Error, (*reason).to_owned(), text.clone()),
        Verdict::Open => {
            let (state, reason, text) = match flow.task {
                Task::Queued => (FlowState::Running, "queued", "waits for its turn"),
                Task::Offered => (FlowState::Running, "offered", "waits for the agent to poll"),
                Task::Granted if flow.unresponsive => {
                    (FlowState::Unresponsive, "silent", "no news from the agent")
                }
                Task::Granted if !flow.alive => (
                    FlowState::Waiting,
                    "delivered",
                    "delivered, no sign of life yet",
                ),
                Task::Granted => (FlowState::InProgress, "working", "the agent works on it"),
                Task::Resolved if flow.reported.complete() => (
                    FlowState::InProgress,
                    "storing",
                    "the agent is done, its results are being stored",
                ),
                Task::Resolved => (FlowState::InProgress, "working", "the agent works on it"),
            };
            (state, reason.to_owned(), text.to_owned())
        }
    }
}

/// The JSON document of a flow.
fn flow_body(key: &ClientKey, id: &FlowId, flow: &Flow) -> Value {
    let verdict = flow.verdict();
    let (state, reason, text) = state(flow, &verdict);
    let (stored, reported) = (flow.stored(), flow.reported.totals());
    let queries: Vec<_> = flow.reported.queries().collect();
    let mut names: Vec<_> = queries
        .iter()
        .flat_map(|query| &query.names_with_response)
        .collect();
    names.sort_unstable();
    names.dedup();
    let (urgent, request) = match &flow.origin {
        Origin::Collected {
            urgent, request, ..
        } => (*urgent, hex(&request.hash)),
        Origin::Adopted => (false, String::new()),
    };
    json!({
        "client_id": key.client,
        "flow_id": id,
        "creator": flow.creator,
        "artifacts": flow.artifacts,
        "request": serde_json::from_str::<Value>(&flow.spec).unwrap_or(Value::Null),
        "request_hash": request,
        "urgent": urgent,
        "adopted": flow.is_adopted(),
        "state": state,
        "reason": reason,
        "status": text,
        "backtrace": flow.reported.error().map_or("", |query| query.backtrace.as_str()),
        "create_time": flow.created_us,
        "start_time": flow.started_us,
        "end_time": flow.ended_us,
        "deadline": if flow.deadline_us == i64::MAX { None } else { Some(flow.deadline_us) },
        "attempt": flow.attempt,
        "ran_twice": flow.results.ran_twice,
        "artifacts_with_results": names,
        "total_collected_rows": stored.rows,
        "total_logs": stored.logs,
        "total_uploaded_files": stored.files,
        "total_uploaded_bytes": stored.bytes,
        "reported": reported,
        "query_stats": queries,
        "resumed": flow.resumed.as_ref().map(Resumed::shown),
    })
}

pub(super) fn flow(
    key: &ClientKey,
    generation: i64,
    id: &FlowId,
    flow: &Flow,
    version: u64,
    at_us: i64,
) -> Document {
    Document {
        header: header(key, generation, at_us),
        kind: "flow".to_owned(),
        id: format!("{}/{id}", key.client),
        version: version as i64,
        body: flow_body(key, id, flow).to_string(),
    }
}

/// Facts under the names people know, from what agents call them.
const FACTS: [(&str, &[&str]); 12] = [
    ("hostname", &["Hostname", "hostname"]),
    ("fqdn", &["Fqdn", "fqdn"]),
    ("os", &["OS", "system"]),
    ("release", &["release", "Platform"]),
    ("architecture", &["Architecture", "architecture"]),
    ("platform", &["Platform"]),
    ("platform_version", &["PlatformVersion"]),
    ("kernel_version", &["KernelVersion"]),
    ("client_version", &["Version", "client_version"]),
    ("client_name", &["Name", "client_name"]),
    ("mac_addresses", &["MACAddresses"]),
    ("build_time", &["BuildTime", "build_time"]),
];

pub(super) fn client(key: &ClientKey, client: &Client, version: u64, at_us: i64) -> Document {
    let mut facts: Vec<_> = client.facts.values().collect();
    facts.sort_unstable();
    let mut said = Map::new();
    for object in facts
        .iter()
        .filter_map(|facts| serde_json::from_str::<Map<String, Value>>(&facts.text).ok())
    {
        said.extend(object.into_iter().filter(|(_, value)| !value.is_null()));
    }
    let mut body = Map::new();
    body.insert("client_id".to_owned(), json!(key.client));
    for (name, spellings) in FACTS {
        let value = spellings.iter().find_map(|spelling| said.get(*spelling));
        body.insert(name.to_owned(), value.cloned().unwrap_or(Value::Null));
    }
    body.insert(
        "labels".to_owned(),
        said.get("Labels")
            .or(said.get("labels"))
            .cloned()
            .unwrap_or_else(|| json!([])),
    );
    body.insert("first_seen_at".to_owned(), json!(client.first_seen_us));
    body.insert("last_seen_at".to_owned(), json!(client.last_seen_us));
    body.insert("last_ip".to_owned(), json!(client.address));
    body.insert("last_via".to_owned(), json!(client.via));
    body.insert("addresses".to_owned(), json!(client.addresses.shown()));
    body.insert("clock_skew_ms".to_owned(), json!(client.clock_skew_ms));
    body.insert(
        "last_event_table_version".to_owned(),
        json!(client.table_version),
    );
    body.insert(
        "last_interrogate_flow_id".to_owned(),
        json!(client.interrogation),
    );
    body.insert("conflict".to_owned(), client.sessions.conflict());
    Document {
        header: header(key, client.generation, at_us),
        kind: "client".to_owned(),
        id: key.client.to_string(),
        version: version as i64,
        body: Value::Object(body).to_string(),
    }
}

/// The end of a client's document, and of all that there is of generations before this one.
pub(super) fn deleted(key: &ClientKey, generation: i64, version: u64, at_us: i64) -> Document {
    Document {
        header: header(key, generation, at_us),
        kind: "client".to_owned(),
        id: key.client.to_string(),
        version: version as i64,
        body: String::new(),
    }
}

pub(super) fn completion(
    key: &ClientKey,
    generation: i64,
    id: &FlowId,
    flow: &Flow,
    at_us: i64,
) -> Notification {
    let tell = ContentId::of(&[
        b"flow_completion",
        key.org.as_str().as_bytes(),
        &key.client.to_bytes(),
        id.as_str().as_bytes(),
    ]);
    Notification {
        header: header(key, generation, at_us),
        id: tell.as_bytes().to_vec().into(),
        kind: "flow_completion".to_owned(),
        subject: id.to_string(),
        body: flow_body(key, id, flow).to_string(),
    }
}

pub(super) fn enrolment(key: &ClientKey, generation: i64, at_us: i64) -> Notification {
    let tell = ContentId::of(&[
        b"enrolment",
        key.org.as_str().as_bytes(),
        &key.client.to_bytes(),
        &generation.to_le_bytes(),
    ]);
    Notification {
        header: header(key, generation, at_us),
        id: tell.as_bytes().to_vec().into(),
        kind: "enrolment".to_owned(),
        subject: key.client.to_string(),
        body: "{}".to_owned(),
    }
}

/// Agents of one key take turns: once for each time that begins.
pub(super) fn conflict(
    key: &ClientKey,
    generation: i64,
    since_us: i64,
    body: &Value,
    at_us: i64,
) -> Notification {
    let tell = ContentId::of(&[
        b"client_conflict",
        key.org.as_str().as_bytes(),
        &key.client.to_bytes(),
        &generation.to_le_bytes(),
        &since_us.to_le_bytes(),
    ]);
    Notification {
        header: header(key, generation, at_us),
        id: tell.as_bytes().to_vec().into(),
        kind: "client_conflict".to_owned(),
        subject: key.client.to_string(),
        body: body.to_string(),
    }
}
