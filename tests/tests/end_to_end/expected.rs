//! What a recording must become, by what another program read in it: nothing here goes through our
//! own decoders.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use nublar_tests::Recorded;
use serde_json::Value;
use std::collections::BTreeMap;

/// A result set.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    /// By first row: the lines as the agent wrote them, and their columns.
    parts: BTreeMap<u64, (String, Vec<String>)>,
}

impl Rows {
    /// All lines, in the order of the rows.
    pub(crate) fn lines(&self) -> String {
        self.parts
            .values()
            .map(|(lines, _)| lines.as_str())
            .collect()
    }

    /// The columns, in the order in which they first come: those that the agent names, then those
    /// that only its rows have.
    pub(crate) fn columns(&self) -> Vec<String> {
        let mut columns: Vec<String> = Vec::new();
        for line in self.lines().lines() {
            let row: serde_json::Map<String, Value> = serde_json::from_str(line).unwrap();
            for name in row.keys() {
                if !columns.contains(name) {
                    columns.push(name.clone());
                }
            }
        }
        for (_, named) in self.parts.values() {
            assert!(columns.starts_with(named), "{columns:?} {named:?}");
        }
        columns
    }
}

/// A file.
#[derive(Debug, Default)]
pub(crate) struct File {
    /// By offset in what is stored.
    parts: BTreeMap<u64, Vec<u8>>,
    /// The file's size as the agent has it.
    pub(crate) size: u64,
    pub(crate) sparse: bool,
    pub(crate) eof: bool,
    /// Of a sparse file: where in the original each stored range belongs.
    ranges: Vec<(u64, u64, u64)>,
}

impl File {
    /// The bytes that were sent, one after the other.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (offset, part) in &self.parts {
            assert_eq!(bytes.len() as u64, *offset, "the recording has gaps");
            bytes.extend_from_slice(part);
        }
        bytes
    }

    /// The original, its holes filled with zeros.
    pub(crate) fn padded(&self) -> Vec<u8> {
        let stored = self.bytes();
        let mut padded = vec![0; usize::try_from(self.size).unwrap()];
        for (original, offset, length) in &self.ranges {
            let [to, from, length] = [original, offset, length].map(|n| *n as usize);
            padded[to..to + length].copy_from_slice(&stored[from..from + length]);
        }
        padded
    }
}

/// A flow.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    pub(crate) rows: BTreeMap<String, Rows>,
    /// By the number of the first line.
    logs: BTreeMap<u64, Vec<Value>>,
    pub(crate) files: BTreeMap<String, File>,
    pub(crate) complete: bool,
    /// The message of the first query that failed.
    pub(crate) error: Option<String>,
    /// Of the last statistics.
    pub(crate) total_rows: u64,
    pub(crate) total_bytes: u64,
    pub(crate) total_files: u64,
}

impl Flow {
    /// All log lines, in their order.
    pub(crate) fn logs(&self) -> Vec<Value> {
        self.logs.values().flatten().cloned().collect()
    }
}

/// What a client event must be found by.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Event {
    pub(crate) source: String,
    pub(crate) at_us: u64,
    pub(crate) rows: u64,
}

/// The lines of client events of one name, each with the time of its message in microseconds.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) rows: Vec<(u64, String)>,
    pub(crate) logs: Vec<(u64, String)>,
}

/// A whole recording.
#[derive(Debug, Default)]
pub(crate) struct Expected {
    pub(crate) flows: BTreeMap<String, Flow>,
    pub(crate) events: Vec<Event>,
    /// By name, the lines in the order in which they were sent.
    pub(crate) told: BTreeMap<String, Told>,
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    let hash = digest(&SHA256, bytes);
    hash.as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// 64-bit numbers are strings there, and zero is left out.
fn number(value: &Value) -> u64 {
    match value {
        Value::Null => 0,
        Value::String(text) => text.parse().unwrap(),
        other => other.as_u64().unwrap(),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn inflate(base64: &Value, size: u64) -> Vec<u8> {
    let deflated = BASE64_STANDARD.decode(base64.as_str().unwrap()).unwrap();
    let mut inflated = vec![0; usize::try_from(size).unwrap()];
    let length = libdeflater::Decompressor::new()
        .zlib_decompress(&deflated, &mut inflated)
        .unwrap();
    assert_eq!(length, inflated.len());
    inflated
}

impl Expected {
    pub(crate) fn of(recorded: &Recorded) -> Self {
        let mut expected = Self::default();
        for letter in recorded.taken() {
            for message in letter.decoded["messages"].as_array().unwrap() {
                let session = text(&message["session_id"]);
                match session.as_str() {
                    "E.Foreman" => {}
                    "F.Monitoring" => expected.event(message),
                    _ => of_flow(expected.flows.entry(session).or_default(), message),
                }
            }
        }
        expected.events.sort();
        expected
    }

    fn event(&mut self, message: &Value) {
        let (rows, log) = (&message["VQLResponse"], &message["LogMessage"]);
        let (event, lines) = if rows.is_object() {
            let event = Event {
                source: text(&rows["Query"]["Name"]),
                at_us: number(&rows["timestamp"]),
                rows: number(&rows["total_rows"]),
            };
            (event, text(&rows["JSONLResponse"]))
        } else {
            // Log lines of events have a time in themselves alone.
            assert_eq!(number(&log["timestamp"]), 0);
            let lines = text(&log["jsonl"]);
            let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
            let event = Event {
                source: text(&log["artifact"]),
                at_us: first["client_time"].as_u64().unwrap() * 1_000_000,
                rows: number(&log["number_of_rows"]),
            };
            (event, lines)
        };
        assert_eq!(lines.lines().count() as u64, event.rows);
        let told = self.told.entry(event.source.clone()).or_default();
        let into = if rows.is_object() {
            &mut told.rows
        } else {
            &mut told.logs
        };
        into.extend(lines.lines().map(|line| (event.at_us, line.to_owned())));
        self.events.push(event);
    }
}

fn of_flow(flow: &mut Flow, message: &Value) {
    if let Some(rows) = message.get("VQLResponse") {
        let lines = match rows.get("CompressedJsonResponse") {
            Some(deflated) => {
                String::from_utf8(inflate(deflated, number(&rows["uncompressed_size"]))).unwrap()
            }
            None => text(&rows["JSONLResponse"]),
        };
        assert_eq!(lines.lines().count() as u64, number(&rows["total_rows"]));
        let columns = rows["Columns"]
            .as_array()
            .unwrap()
            .iter()
            .map(text)
            .collect();
        let set = flow.rows.entry(text(&rows["Query"]["Name"])).or_default();
        let before = set
            .parts
            .insert(number(&rows["query_start_row"]), (lines, columns));
        assert!(before.is_none());
    } else if let Some(log) = message.get("LogMessage") {
        let lines = text(&log["jsonl"]);
        let lines = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap());
        let before = flow.logs.insert(number(&log["id"]), lines.collect());
        assert!(before.is_none());
    } else if let Some(buffer) = message.get("FileBuffer") {
        buffer_of(flow, buffer);
    } else if let Some(stats) = message.get("flow_stats") {
        statistics(flow, stats);
    } else {
        assert!(message.get("UploadTransaction").is_some(), "{message}");
    }
}

fn buffer_of(flow: &mut Flow, buffer: &Value) {
    let file = flow
        .files
        .entry(text(&buffer["pathspec"]["path"]))
        .or_default();
    file.size = file.size.max(number(&buffer["size"]));
    file.sparse |= buffer["is_sparse"] == true;
    file.eof |= buffer["eof"] == true;
    let length = number(&buffer["uncompressed_length"]);
    if length > 0 {
        let data = inflate(&buffer["data"], length);
        file.parts.insert(number(&buffer["offset"]), data);
    }
    if let Some(ranges) = buffer["index"]["ranges"].as_array() {
        let stored = ranges
            .iter()
            .filter(|range| number(&range["file_length"]) > 0);
        file.ranges = stored
            .map(|range| {
                ["original_offset", "file_offset", "file_length"].map(|name| number(&range[name]))
            })
            .map(|[original, offset, length]| (original, offset, length))
            .collect();
    }
}

fn statistics(flow: &mut Flow, stats: &Value) {
    flow.complete |= stats["flow_complete"] == true;
    let queries = stats["query_status"].as_array();
    let queries = queries.map_or(&[][..], Vec::as_slice);
    let sum = |name: &str| queries.iter().map(|query| number(&query[name])).sum();
    flow.total_rows = flow.total_rows.max(sum("result_rows"));
    flow.total_bytes = flow.total_bytes.max(sum("uploaded_bytes"));
    flow.total_files = flow.total_files.max(sum("uploaded_files"));
    let failed = queries
        .iter()
        .find(|query| query["status"] == "GENERIC_ERROR");
    if let Some(failed) = failed {
        flow.error = Some(text(&failed["error_message"]).trim_end().to_owned());
    }
}
