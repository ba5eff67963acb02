//! Messages as an agent writes them.

use crate::link::now_us;
use crate::script::UploadScript;
use bytes::Bytes;
use libdeflater::{CompressionLvl, Compressor};
use nublar_schemas::agent::{
    Certificate, FileBuffer, FlowStats, ForemanCheckin, LogMessage, PathSpec, UploadTransaction,
    VeloMessage, VeloStatus, VqlRequest, VqlResponse, certificate, velo_status,
};
use prost::Message;
use serde_json::json;

/// A time that is not known, nanoseconds.
const NO_TIME: i64 = -6_795_364_578_871_345_152;
/// Kinds of answers.
const UPLOAD: u64 = 5;
const LOG: u64 = 980;
const STATS: u64 = 981;

fn message(session: &str, request_id: u64, fill: impl FnOnce(&mut VeloMessage)) -> Bytes {
    let mut message = VeloMessage {
        session_id: session.to_owned(),
        request_id,
        ..VeloMessage::default()
    };
    fill(&mut message);
    message.encode_to_vec().into()
}

/// The poll's own message.
pub(crate) fn check_in(table_version: u64) -> Bytes {
    message("E.Foreman", 0, |message| {
        message.foreman_checkin = Some(ForemanCheckin {
            last_event_table_version: table_version,
            ..ForemanCheckin::default()
        });
    })
}

/// What an agent tells of itself with its first poll.
pub(crate) fn client_info(hostname: &str, install_time: u64) -> Bytes {
    let row = json!({
        "hostname": hostname,
        "fqdn": format!("{hostname}.simulated.example"),
        "system": "linux",
        "release": "simulated",
        "architecture": "amd64",
        "client_version": "0.77.1",
        "client_name": "velociraptor",
        "install_time": install_time,
        "labels": [],
    });
    let rows = format!("{row}\n");
    message("F.Monitoring", 0, |message| {
        message.vql_response = Some(VqlResponse {
            query: Some(VqlRequest {
                name: "Server.Internal.ClientInfo".to_owned(),
                ..VqlRequest::default()
            }),
            timestamp: now_us(),
            total_rows: 1,
            jsonl_response: rows,
            ..VqlResponse::default()
        });
    })
}

/// A request to be let in.
pub(crate) fn enrolment(client: &str, csr_pem: &str) -> Bytes {
    message("E:Enrol", 0, |message| {
        message.urgent = true;
        message.csr = Some(Certificate {
            r#type: certificate::Type::Csr.into(),
            pem: csr_pem.as_bytes().to_vec().into(),
            cn: client.to_owned(),
        });
    })
}

/// Rows that go together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows<'a> {
    /// The statement that gives them.
    pub(crate) query: &'a VqlRequest,
    /// Its place among the statements.
    pub(crate) query_id: u64,
    /// The number of this message among those of the result set.
    pub(crate) part: u64,
    /// The number of the first row.
    pub(crate) first: u64,
    /// How many there are.
    pub(crate) rows: u64,
    /// Bytes of rows before them.
    pub(crate) byte_offset: u64,
    /// Names of their columns.
    pub(crate) columns: &'a [&'a str],
    /// Lines of JSON.
    pub(crate) lines: &'a str,
}

/// A message with rows.
pub(crate) fn rows(flow: &str, rows: &Rows<'_>, compressed: bool) -> Bytes {
    message(flow, 0, |message| {
        let mut response = VqlResponse {
            columns: rows
                .columns
                .iter()
                .map(|&column| column.to_owned())
                .collect(),
            query: Some(rows.query.clone()),
            query_id: rows.query_id,
            timestamp: now_us(),
            part: rows.part,
            total_rows: rows.rows,
            query_start_row: rows.first,
            byte_offset: rows.byte_offset,
            ..VqlResponse::default()
        };
        if compressed {
            response.uncompressed_size = rows.lines.len() as u64;
            response.compressed_json_response = zlib(rows.lines.as_bytes()).into();
        } else {
            response.jsonl_response = rows.lines.to_owned();
        }
        message.vql_response = Some(response);
    })
}

/// A message with log rows, of which `first` is the number of the first one.
pub(crate) fn logs(flow: &str, first: u64, rows: u64, lines: &str, error: &str) -> Bytes {
    message(flow, LOG, |message| {
        message.log_message = Some(LogMessage {
            timestamp: now_us(),
            id: i64::try_from(first).unwrap_or(i64::MAX),
            number_of_rows: rows,
            jsonl: lines.to_owned(),
            error_message: error.to_owned(),
            ..LogMessage::default()
        });
    })
}

/// One log row as a line of JSON.
pub(crate) fn log_line(level: &str, text: &str) -> String {
    let row = json!({ "client_time": now_us() / 1_000_000, "level": level, "message": text });
    format!("{row}\n")
}

/// How a flow stands.
pub(crate) fn stats(flow: &str, stats: FlowStats, urgent: bool) -> Bytes {
    message(flow, STATS, |message| {
        message.urgent = urgent;
        message.flow_stats = Some(stats);
    })
}

/// A flow that the agent does not know.
pub(crate) fn unknown(flow: &str) -> Bytes {
    let status = VeloStatus {
        status: velo_status::ReturnedStatus::UnknownFlow.into(),
        error_message: format!("Unknown flow {flow}"),
        ..VeloStatus::default()
    };
    let said = FlowStats {
        query_status: vec![status],
        flow_complete: true,
        ..FlowStats::default()
    };
    stats(flow, said, true)
}

fn components(name: &str) -> Vec<String> {
    name.split('/')
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Says that an upload begins.
pub(crate) fn upload_begins(flow: &str, upload: &UploadScript, number: i64) -> Bytes {
    message(flow, UPLOAD, |message| {
        message.upload_transaction = Some(UploadTransaction {
            filename: upload.name.clone(),
            accessor: "file".to_owned(),
            store_as_name: upload.name.clone(),
            expected_size: i64::try_from(upload.size).unwrap_or(i64::MAX),
            mtime: NO_TIME,
            atime: NO_TIME,
            ctime: NO_TIME,
            btime: NO_TIME,
            mode: 0o644,
            upload_id: number,
            components: components(&upload.name),
            ..UploadTransaction::default()
        });
    })
}

/// A part of a file; without data it is the end.
pub(crate) fn buffer(
    flow: &str,
    upload: &UploadScript,
    number: i64,
    offset: u64,
    data: &[u8],
) -> Bytes {
    message(flow, UPLOAD, |message| {
        let mut part = FileBuffer {
            pathspec: Some(PathSpec {
                path: upload.name.clone(),
                accessor: "file".to_owned(),
                components: components(&upload.name),
            }),
            offset,
            size: upload.size,
            stored_size: upload.size,
            mtime: NO_TIME,
            atime: NO_TIME,
            ctime: NO_TIME,
            btime: NO_TIME,
            upload_number: number,
            data_length: data.len() as u64,
            ..FileBuffer::default()
        };
        if data.is_empty() {
            part.eof = true;
        } else if upload.compress {
            part.uncompressed_length = data.len() as u64;
            part.data = zlib(data).into();
        } else {
            part.data = data.to_vec().into();
        }
        message.file_buffer = Some(part);
    })
}

/// One zlib stream.
fn zlib(data: &[u8]) -> Vec<u8> {
    let mut compressor = Compressor::new(CompressionLvl::fastest());
    let mut out = vec![0; compressor.zlib_compress_bound(data.len())];
    // The bound is what it may need at most.
    let length = compressor.zlib_compress(data, &mut out).unwrap_or_default();
    out.truncate(length);
    out
}
