//! Compares what we read with what another program read: its JSON leaves out fields at their default,
//! writes 64-bit integers as strings, bytes as base64, and texts that are not to be printed as
//! their hash.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use nublar_schemas::agent::{
    Artifact, FileBuffer, FlowRequest, FlowStats, LogMessage, UploadTransaction, VeloMessage,
    VqlCollectorArgs, VqlEventTable, VqlRequest, VqlResponse, flow_request, velo_status,
};
use nublar_wire::{Compression, Kind, Message, Packed};
use serde_json::{Map, Value, json};

/// Compares the outside of a body.
pub(crate) fn compare_packed(packed: &Packed, expected: &Value) {
    assert_eq!(packed.nonce(), expected["nonce"]);
    assert_eq!(packed.timestamp_us(), expected["timestamp"]);
    assert_eq!(
        packed.len(),
        expected["message_lists"].as_u64().unwrap() as usize
    );
    let compression = u64::from(packed.compression() == Compression::Zlib);
    assert_eq!(compression, expected["compression"]);
    // They hold: else the body would not have opened.
    assert_eq!(
        (&expected["hmac_ok"], &expected["signature_ok"]),
        (&json!(true), &json!(true))
    );
}

/// Compares every message, field by field, and the kind we took it for.
pub(crate) fn compare_messages(messages: &[Message], expected: &Value) -> usize {
    let expected = expected["messages"].as_array().unwrap();
    assert_eq!(messages.len(), expected.len());
    for (message, expected) in messages.iter().zip(expected) {
        let decoded = message.decode().unwrap();
        assert_eq!(message.session_id(), decoded.session_id);
        assert_eq!(message.urgent, decoded.urgent);
        assert_eq!(message.kind, kind_of(expected), "{expected}");
        assert_eq!(&velo_message(&decoded), expected);
    }
    messages.len()
}

fn kind_of(expected: &Value) -> Kind {
    let payloads: Vec<_> = expected
        .as_object()
        .unwrap()
        .keys()
        .filter_map(|name| match name.as_str() {
            "ForemanCheckin" => Some(Kind::ForemanCheckin),
            "FileBuffer" => Some(Kind::FileBuffer),
            "CSR" => Some(Kind::Csr),
            "VQLResponse" => Some(Kind::VqlResponse),
            "LogMessage" => Some(Kind::LogMessage),
            "flow_stats" => Some(Kind::FlowStats),
            "UploadTransaction" => Some(Kind::UploadTransaction),
            "VQLClientAction" => Some(Kind::Other(30)),
            "UpdateEventTable" => Some(Kind::Other(31)),
            "Cancel" => Some(Kind::Other(32)),
            "FlowRequest" => Some(Kind::Other(42)),
            "flow_stats_request" => Some(Kind::Other(43)),
            "session_id" | "request_id" | "response_id" | "urgent" | "task_id" | "source"
            | "query_id" | "org_id" | "auth_state" => None,
            other => panic!("{other} is not compared"),
        })
        .collect();
    match payloads[..] {
        [] => Kind::Empty,
        [one] => one,
        _ => Kind::Several,
    }
}

/// Collects the fields that are not at their default.
#[derive(Default)]
struct Object(Map<String, Value>);

impl Object {
    fn put(mut self, name: &str, value: Value) -> Self {
        self.0.insert(name.into(), value);
        self
    }

    fn text(self, name: &str, value: &str) -> Self {
        if value.is_empty() {
            self
        } else {
            self.put(name, value.into())
        }
    }

    fn secret(self, name: &str, value: &str) -> Self {
        if value.is_empty() {
            self
        } else {
            self.put(name, hash(value))
        }
    }

    fn number(self, name: &str, value: impl Into<i128>) -> Self {
        match value.into() {
            0 => self,
            value => self.put(name, value.to_string().into()),
        }
    }

    fn flag(self, name: &str, value: bool) -> Self {
        if value {
            self.put(name, true.into())
        } else {
            self
        }
    }

    fn bytes(self, name: &str, value: &[u8]) -> Self {
        self.text(
            name,
            &base64::engine::general_purpose::STANDARD.encode(value),
        )
    }

    fn list<T>(self, name: &str, values: &[T], one: impl Fn(&T) -> Value) -> Self {
        if values.is_empty() {
            self
        } else {
            self.put(name, values.iter().map(one).collect())
        }
    }

    fn object<T>(self, name: &str, value: &Option<T>, one: impl Fn(&T) -> Value) -> Self {
        match value {
            Some(value) => self.put(name, one(value)),
            None => self,
        }
    }

    fn done(self) -> Value {
        Value::Object(self.0)
    }
}

fn hash(text: &str) -> Value {
    let hash = digest(&SHA256, text.as_bytes());
    let hex: String = hash
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{hex}").into()
}

fn velo_message(m: &VeloMessage) -> Value {
    Object::default()
        .text("session_id", &m.session_id)
        .number("request_id", m.request_id)
        .number("response_id", m.response_id)
        .text("source", &m.source)
        .number("task_id", m.task_id)
        .flag("urgent", m.urgent)
        .number("query_id", m.query_id)
        .text("org_id", &m.org_id)
        .object("ForemanCheckin", &m.foreman_checkin, |c| {
            Object::default()
                .number("last_hunt_timestamp", c.last_hunt_timestamp)
                .number("last_event_table_version", c.last_event_table_version)
                .done()
        })
        .object("FileBuffer", &m.file_buffer, file_buffer)
        .object("CSR", &m.csr, |c| {
            Object::default()
                .bytes("pem", &c.pem)
                .text("cn", &c.cn)
                .done()
        })
        .object("VQLClientAction", &m.vql_client_action, collector_args)
        .object("UpdateEventTable", &m.update_event_table, event_table)
        .object("Cancel", &m.cancel, |c| {
            Object::default().text("principal", &c.principal).done()
        })
        .object("VQLResponse", &m.vql_response, vql_response)
        .object("LogMessage", &m.log_message, log_message)
        .object("flow_stats", &m.flow_stats, flow_stats)
        .object("FlowRequest", &m.flow_request, flow_request)
        .object("flow_stats_request", &m.flow_stats_request, |r| {
            Object::default()
                .list("flow_id", &r.flow_id, |id| json!(id))
                .done()
        })
        .object(
            "UploadTransaction",
            &m.upload_transaction,
            upload_transaction,
        )
        .done()
}

fn file_buffer(b: &FileBuffer) -> Value {
    Object::default()
        .object("pathspec", &b.pathspec, |p| {
            Object::default()
                .text("path", &p.path)
                .text("accessor", &p.accessor)
                .list("components", &p.components, |c| json!(c))
                .done()
        })
        .number("offset", b.offset)
        .bytes("data", &b.data)
        .text("flow_id", &b.flow_id)
        .flag("eof", b.eof)
        .object("index", &b.index, |i| {
            Object::default()
                .list("ranges", &i.ranges, |r| {
                    Object::default()
                        .number("file_offset", r.file_offset)
                        .number("original_offset", r.original_offset)
                        .number("file_length", r.file_length)
                        .number("length", r.length)
                        .done()
                })
                .done()
        })
        .number("size", b.size)
        .number("stored_size", b.stored_size)
        .flag("is_sparse", b.is_sparse)
        .number("mtime", b.mtime)
        .number("atime", b.atime)
        .number("ctime", b.ctime)
        .number("btime", b.btime)
        .text("reference", &b.reference)
        .number("upload_number", b.upload_number)
        .number("data_length", b.data_length)
        .number("uncompressed_length", b.uncompressed_length)
        .done()
}

fn upload_transaction(t: &UploadTransaction) -> Value {
    Object::default()
        .text("filename", &t.filename)
        .text("accessor", &t.accessor)
        .text("store_as_name", &t.store_as_name)
        .number("expected_size", t.expected_size)
        .number("mtime", t.mtime)
        .number("atime", t.atime)
        .number("ctime", t.ctime)
        .number("btime", t.btime)
        .number("mode", t.mode)
        .number("start_offset", t.start_offset)
        .number("upload_id", t.upload_id)
        .text("response", &t.response)
        .list("components", &t.components, |c| json!(c))
        .done()
}

fn vql_request(q: &VqlRequest) -> Value {
    Object::default()
        .secret("VQL", &q.vql)
        .text("Name", &q.name)
        .done()
}

fn vql_response(r: &VqlResponse) -> Value {
    Object::default()
        .text("Response", &r.response)
        .list("Columns", &r.columns, |c| json!(c))
        .object("Query", &r.query, vql_request)
        .number("timestamp", r.timestamp)
        .number("query_id", r.query_id)
        .number("part", r.part)
        .number("total_rows", r.total_rows)
        .text("JSONLResponse", &r.jsonl_response)
        .number("query_start_row", r.query_start_row)
        .text("org_id", &r.org_id)
        .number("uncompressed_size", r.uncompressed_size)
        .number("byte_offset", r.byte_offset)
        .bytes("CompressedJsonResponse", &r.compressed_json_response)
        .done()
}

fn log_message(l: &LogMessage) -> Value {
    Object::default()
        .text("message", &l.message)
        .number("timestamp", l.timestamp)
        .text("artifact", &l.artifact)
        .text("level", &l.level)
        .number("id", l.id)
        .number("number_of_rows", l.number_of_rows)
        .text("jsonl", &l.jsonl)
        .text("error_message", &l.error_message)
        .done()
}

fn flow_stats(s: &FlowStats) -> Value {
    Object::default()
        .number("timestamp", s.timestamp)
        .list("query_status", &s.query_status, |s| {
            Object::default()
                .text("status", status(s.status()))
                .text("error_message", &s.error_message)
                .text("backtrace", &s.backtrace)
                .number("duration", s.duration)
                .list("names_with_response", &s.names_with_response, |n| json!(n))
                .number("log_rows", s.log_rows)
                .number("result_rows", s.result_rows)
                .number("query_id", s.query_id)
                .number("total_queries", s.total_queries)
                .text("Artifact", &s.artifact)
                .number("uploaded_files", s.uploaded_files)
                .number("uploaded_bytes", s.uploaded_bytes)
                .number("expected_uploaded_bytes", s.expected_uploaded_bytes)
                .number("last_active", s.last_active)
                .number("first_active", s.first_active)
                .number("transactions_outstanding", s.transactions_outstanding)
                .done()
        })
        .flag("flow_complete", s.flow_complete)
        .list("names_with_response", &s.names_with_response, |n| json!(n))
        .number("transactions_outstanding", s.transactions_outstanding)
        .done()
}

fn status(status: velo_status::ReturnedStatus) -> &'static str {
    match status {
        velo_status::ReturnedStatus::Ok => "",
        other => other.as_str_name(),
    }
}

fn flow_request(r: &FlowRequest) -> Value {
    let compression = match r.compression() {
        flow_request::Compression::None => "",
        other => other.as_str_name(),
    };
    Object::default()
        .list("VQLClientActions", &r.vql_client_actions, collector_args)
        .number("log_batch_time", r.log_batch_time)
        .number("flow_update_time", r.flow_update_time)
        .number("max_rows", r.max_rows)
        .number("max_upload_bytes", r.max_upload_bytes)
        .list("trace", &r.trace, collector_args)
        .number("max_logs", r.max_logs)
        .text("log_error_regex", &r.log_error_regex)
        .text("compression", compression)
        .done()
}

fn event_table(t: &VqlEventTable) -> Value {
    Object::default()
        .list("event", &t.event, collector_args)
        .number("version", t.version)
        .done()
}

fn collector_args(a: &VqlCollectorArgs) -> Value {
    assert_eq!(
        (
            a.cpu_limit,
            a.iops_limit,
            a.ops_per_second,
            a.progress_timeout
        ),
        (0., 0., 0., 0.)
    );
    Object::default()
        .list("Query", &a.query, vql_request)
        .list("env", &a.env, |e| {
            Object::default()
                .text("key", &e.key)
                .text("value", &e.value)
                .text("comment", &e.comment)
                .done()
        })
        .number("max_row", a.max_row)
        .list("artifacts", &a.artifacts, artifact)
        .number("max_wait", a.max_wait)
        .number("timeout", a.timeout)
        .list("tools", &a.tools, |t| json!(t))
        .number("heartbeat", a.heartbeat)
        .text("principal", &a.principal)
        .secret("precondition", &a.precondition)
        .number("query_id", a.query_id)
        .number("total_queries", a.total_queries)
        .number("expiry", a.expiry)
        .text("org_id", &a.org_id)
        .number("max_row_buffer_size", a.max_row_buffer_size)
        .text("effective_principal", &a.effective_principal)
        .done()
}

fn artifact(a: &Artifact) -> Value {
    Object::default()
        .text("name", &a.name)
        .text("description", &a.description)
        .list("parameters", &a.parameters, |p| {
            Object::default()
                .text("name", &p.name)
                .secret("default", &p.default)
                .text("description", &p.description)
                .text("type", &p.r#type)
                .done()
        })
        .list("sources", &a.sources, |s| {
            Object::default()
                .secret("precondition", &s.precondition)
                .list("queries", &s.queries, |q| hash(q))
                .text("name", &s.name)
                .secret("query", &s.query)
                .done()
        })
        .secret("precondition", &a.precondition)
        .text("type", &a.r#type)
        .list("imports", &a.imports, |i| json!(i))
        .secret("export", &a.export)
        .list("aliases", &a.aliases, |n| json!(n))
        .done()
}
