//! From one record to its parts.

use super::files::{event_upload_instance, upload_instance};
use super::{message_id, week_of, week_of_event};
use crate::hidden::HiddenNames;
use crate::ids::{ClientKey, ContentId, FlowId, OrgId, Session, hex};
use bytes::Bytes;
use nublar_schemas::agent::{FileBuffer, LogMessage, VeloMessage, VqlResponse};
use nublar_schemas::records::{AgentMessage, Messages};
use prost::Message;

/// The text of documents that are rows of client events.
pub const EVENT_ROWS: &str = "rows";
/// The text of documents that are log lines of client events.
pub const EVENT_LOGS: &str = "logs";

/// What people call an agent's session: 16 hex digits of the hash that is its key, empty without one.
/// Machines that share a client id have sessions of their own.
///
/// ```
/// # use nublar_core::ingest::session_name;
/// assert_eq!(session_name(&[0xc0; 16]), "c0c0c0c0c0c0c0c0");
/// ```
pub fn session_name(session_key: &[u8]) -> String {
    hex(&session_key[..session_key.len().min(8)])
}

/// Data up to this many bytes stands in the document itself.
const INLINE_BYTES: usize = 16 * 1024;

/// What kind of document a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Collection {
    /// Rows.
    Rows,
    /// Log lines.
    Logs,
    /// A buffer of an upload, or a word about one.
    Buffers,
    /// Rows or log lines of client events.
    Events,
}

/// One document, and the object that goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Kind of document.
    pub collection: Collection,
    /// Made of the content.
    pub id: ContentId,
    /// The flow, none for events.
    pub flow: Option<FlowId>,
    /// Name of the result set or artifact, or the upload's instance.
    pub source: String,
    /// First row, first log row, offset, or agent time in microseconds.
    pub order: i64,
    /// Of an event [`EVENT_ROWS`] or [`EVENT_LOGS`], and behind a space the [`session_name`] it came
    /// under where that is known; else empty.
    pub text: String,
    /// Rows, log rows or bytes.
    pub size: u64,
    /// Week of its bucket, none when it is not dated.
    pub week: Option<u32>,
    /// The message as the agent sent it; of a buffer, the FileBuffer with large data taken out.
    pub body: Bytes,
    /// The large data and its key in Objects.
    pub object: Option<(String, Bytes)>,
}

/// What a client said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// Name of the query.
    pub source: String,
    /// JSON object.
    pub facts: String,
}

/// A message that cannot be stored, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// A word for machines.
    pub reason: &'static str,
    /// A sentence for people.
    pub text: String,
    /// The message.
    pub message: AgentMessage,
}

/// What one record comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Documents to write, in the order of their messages.
    pub parts: Vec<Part>,
    /// Flows whose marker stands in the record: all that they count stands before it.
    pub markers: Vec<FlowId>,
    /// What the client said of itself.
    pub facts: Vec<Fact>,
    /// What cannot be stored.
    pub refused: Vec<Refused>,
}

/// Plans a record. `messages` must hold their bytes: those that stand in objects are read before.
pub fn plan(key: &ClientKey, record: &Messages, names: &HiddenNames) -> Plan {
    let mut plan = Plan::default();
    for message in &record.messages {
        if let Err((reason, text)) = add(&mut plan, key, record, names, message) {
            plan.refused.push(Refused {
                reason,
                text,
                message: message.clone(),
            });
        }
    }
    plan
}

type Refusal = (&'static str, String);

fn add(
    plan: &mut Plan,
    key: &ClientKey,
    record: &Messages,
    names: &HiddenNames,
    message: &AgentMessage,
) -> Result<(), Refusal> {
    let session: Session = message
        .session
        .parse()
        .map_err(|error| ("session", format!("{error}")))?;
    let mut decoded = VeloMessage::decode(message.bytes.clone()).map_err(|error| {
        (
            "undecodable",
            format!("message of session {:?}: {error}", message.session),
        )
    })?;
    reveal(&mut decoded, names);
    let generation = record.header.generation;
    let id = message_id(key, generation, &message.session, &message.bytes);
    match session {
        Session::Flow { id: flow, part } => of_flow(plan, key, id, &flow, &part, message, decoded),
        Session::Monitoring => event(plan, key, record, id, message, decoded),
        Session::Status | Session::Foreman | Session::Enrol => Err((
            "session",
            format!("nothing of session {:?} is stored", message.session),
        )),
    }
}

/// Puts the names that another server hid in their places.
fn reveal(message: &mut VeloMessage, names: &HiddenNames) {
    let query = message.vql_response.as_mut();
    let query = query.and_then(|rows| rows.query.as_mut());
    let query = query.map(|query| &mut query.name);
    let artifact = message.log_message.as_mut().map(|log| &mut log.artifact);
    for name in query.into_iter().chain(artifact) {
        *name = names.reveal(std::mem::take(name));
    }
}

fn of_flow(
    plan: &mut Plan,
    key: &ClientKey,
    id: ContentId,
    flow: &FlowId,
    session_part: &str,
    message: &AgentMessage,
    decoded: VeloMessage,
) -> Result<(), Refusal> {
    let part = |collection, source: String, order, size| Part {
        collection,
        id,
        flow: Some(flow.clone()),
        source,
        order,
        text: String::new(),
        size,
        week: week_of(flow),
        body: message.bytes.clone(),
        object: None,
    };
    if let Some(rows) = decoded.vql_response {
        let name = rows.query.as_ref().map_or("", |query| query.name.as_str());
        plan.facts.extend(fact(name, &rows, &BASIC_INFORMATION));
        let order = i64::try_from(rows.query_start_row).unwrap_or(i64::MAX);
        plan.parts.push(part(
            Collection::Rows,
            name.to_owned(),
            order,
            count(rows.total_rows),
        ));
    } else if let Some(log) = decoded.log_message {
        plan.parts.push(part(
            Collection::Logs,
            String::new(),
            log.id,
            log_rows(&log),
        ));
    } else if let Some(buffer) = decoded.file_buffer {
        let instance = instance(&message.session, &buffer).to_string();
        let order = i64::try_from(buffer.offset).unwrap_or(i64::MAX);
        let mut part = part(Collection::Buffers, instance, order, buffer_len(&buffer));
        (part.body, part.object) = without_data(key, id, buffer);
        plan.parts.push(part);
    } else if decoded.upload_transaction.is_some() {
        plan.parts
            .push(part(Collection::Buffers, String::new(), 0, 0));
    } else if let Some(stats) = decoded.flow_stats {
        if stats.flow_complete
            && !decoded.urgent
            && session_part.is_empty()
            && !crate::stats::is_unknown(&stats)
        {
            plan.markers.push(flow.clone());
        }
    } else {
        return Err((
            "unknown_payload",
            format!("flow {flow}: a message without rows, logs, buffer or statistics"),
        ));
    }
    Ok(())
}

fn event(
    plan: &mut Plan,
    key: &ClientKey,
    record: &Messages,
    id: ContentId,
    message: &AgentMessage,
    decoded: VeloMessage,
) -> Result<(), Refusal> {
    // Files that a client event uploads belong to no flow and have no time.
    let mut part = Part {
        collection: Collection::Buffers,
        id,
        flow: None,
        source: String::new(),
        order: 0,
        text: String::new(),
        size: 0,
        week: None,
        body: message.bytes.clone(),
        object: None,
    };
    if let Some(buffer) = decoded.file_buffer {
        part.source = event_upload_instance(&buffer).to_string();
        part.order = i64::try_from(buffer.offset).unwrap_or(i64::MAX);
        part.size = buffer_len(&buffer);
        (part.body, part.object) = without_data(key, id, buffer);
        plan.parts.push(part);
        return Ok(());
    }
    if decoded.upload_transaction.is_some() {
        plan.parts.push(part);
        return Ok(());
    }
    let (source, agent_us, size, text) = if let Some(rows) = &decoded.vql_response {
        let name = rows.query.as_ref().map_or("", |query| query.name.as_str());
        plan.facts.extend(fact(name, rows, &[CLIENT_INFO]));
        let size = count(rows.total_rows);
        (name.to_owned(), rows.timestamp, size, EVENT_ROWS)
    } else if let Some(log) = &decoded.log_message {
        (log.artifact.clone(), log_us(log), log_rows(log), EVENT_LOGS)
    } else {
        return Err((
            "unknown_payload",
            "a client event without rows, logs or buffer".to_owned(),
        ));
    };
    let agent_us = i64::try_from(agent_us).unwrap_or(i64::MAX);
    let text = match session_name(&record.session_key) {
        session if session.is_empty() => text.to_owned(),
        session => format!("{text} {session}"),
    };
    plan.parts.push(Part {
        collection: Collection::Events,
        source,
        order: agent_us,
        text,
        size,
        week: week_of_event(agent_us, record.header.at_us),
        ..part
    });
    Ok(())
}

/// The query in whose rows an agent says who it is: with the first poll of a process, then daily.
pub const CLIENT_INFO: &str = "Server.Internal.ClientInfo";
const BASIC_INFORMATION: [&str; 2] = [
    "Generic.Client.Info/BasicInformation",
    "Custom.Generic.Client.Info/BasicInformation",
];

/// The first row of a query that tells who a client is.
fn fact(name: &str, rows: &VqlResponse, sources: &[&str]) -> Option<Fact> {
    if !sources.contains(&name) {
        return None;
    }
    let facts = first_row(rows)?;
    serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&facts).ok()?;
    Some(Fact {
        source: name.to_owned(),
        facts,
    })
}

fn first_row(rows: &VqlResponse) -> Option<String> {
    const MOST: usize = 1 << 20;
    let inflated;
    let text = if rows.compressed_json_response.is_empty() {
        rows.jsonl_response.as_str()
    } else {
        let size = usize::try_from(rows.uncompressed_size)
            .ok()
            .filter(|size| *size <= MOST)?;
        let mut out = vec![0; size];
        let n = libdeflater::Decompressor::new()
            .zlib_decompress(&rows.compressed_json_response, &mut out)
            .ok()?;
        out.truncate(n);
        inflated = String::from_utf8(out).ok()?;
        inflated.as_str()
    };
    text.lines().next().map(str::to_owned)
}

fn count(rows: u64) -> u64 {
    // What no agent could have sent must not overflow sums.
    rows.min(1 << 40)
}

fn log_rows(log: &LogMessage) -> u64 {
    count(log.number_of_rows.max(u64::from(log.jsonl.is_empty())))
}

/// The agent's time of log lines, microseconds: agents write it into the lines alone.
fn log_us(log: &LogMessage) -> u64 {
    #[derive(serde::Deserialize)]
    struct Line {
        client_time: f64,
    }
    if log.timestamp > 0 {
        return log.timestamp;
    }
    let first = log.jsonl.lines().next().unwrap_or_default();
    // Seconds, far below 2^53 microseconds; what is no time becomes 0 or the largest number.
    serde_json::from_str::<Line>(first).map_or(0, |line| (line.client_time * 1e6) as u64)
}

fn buffer_len(buffer: &FileBuffer) -> u64 {
    let plain = if buffer.uncompressed_length > 0 {
        buffer.uncompressed_length
    } else {
        buffer.data.len() as u64
    };
    plain.min(1 << 40)
}

fn instance(session: &str, buffer: &FileBuffer) -> ContentId {
    let place = buffer.pathspec.as_ref();
    upload_instance(session, buffer.upload_number, place, buffer.is_sparse)
}

/// The buffer as a document, and its data as an object when it is large.
fn without_data(
    key: &ClientKey,
    id: ContentId,
    mut buffer: FileBuffer,
) -> (Bytes, Option<(String, Bytes)>) {
    // What an agent says here would name an object of somebody else's.
    buffer.reference.clear();
    if buffer.data.len() <= INLINE_BYTES {
        return (buffer.encode_to_vec().into(), None);
    }
    let data = std::mem::take(&mut buffer.data);
    let object = object_of(&key.org, &id.to_string());
    buffer.reference.clone_from(&object);
    (buffer.encode_to_vec().into(), Some((object, data)))
}

/// The key of the object with the data of a buffer's document.
pub fn object_of(org: &OrgId, document: &str) -> String {
    let org = org.as_str().to_ascii_lowercase();
    let org = if org.is_empty() { "root" } else { &org };
    let folder = document.get(..2).unwrap_or_default();
    format!("uploads/{org}/{folder}/{document}")
}
