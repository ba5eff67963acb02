//! An agent that uploads: what it made once it sends, with the same bytes, until it is taken.

use aws_lc_rs::digest;
use bytes::Bytes;
use nublar_schemas::agent::{
    FileBuffer, FlowStats, Index, PathSpec, Range, VeloMessage, VeloStatus, VqlRequest,
    VqlResponse, velo_status,
};
use nublar_tests::{PATIENCE, Player, Recorded, Server, eventually};
use nublar_wire::{AgentSession, Compression, Plaintext, message_list};
use prost::Message;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// The result set in which it reports its hashes.
pub(crate) const ROWS: &str = "Custom.Upload";

/// Bytes that do not compress, always the same for a seed and a number.
pub(crate) fn noise(seed: u64, number: u64, length: usize) -> Vec<u8> {
    let mut state = seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// A file as an agent speaks of it.
#[derive(Debug, Clone)]
pub(crate) struct File {
    pub(crate) flow: String,
    pub(crate) path: String,
    pub(crate) components: Vec<String>,
    pub(crate) number: i64,
    pub(crate) size: u64,
    pub(crate) sparse: bool,
}

impl File {
    pub(crate) fn plain(flow: &str, path: &str, number: i64, size: u64) -> Self {
        Self {
            flow: flow.to_owned(),
            path: path.to_owned(),
            components: Vec::new(),
            number,
            size,
            sparse: false,
        }
    }

    fn filled(&self, offset: u64) -> FileBuffer {
        FileBuffer {
            pathspec: Some(PathSpec {
                path: self.path.clone(),
                accessor: "file".to_owned(),
                components: self.components.clone(),
            }),
            offset,
            size: self.size,
            stored_size: self.size,
            upload_number: self.number,
            is_sparse: self.sparse,
            ..FileBuffer::default()
        }
    }

    fn message(&self, buffer: FileBuffer) -> Bytes {
        let message = VeloMessage {
            session_id: self.flow.clone(),
            request_id: 5,
            file_buffer: Some(buffer),
            ..VeloMessage::default()
        };
        message.encode_to_vec().into()
    }

    /// A part of it, as it is.
    pub(crate) fn part(&self, offset: u64, data: Vec<u8>) -> Bytes {
        self.message(FileBuffer {
            data_length: data.len() as u64,
            data: data.into(),
            ..self.filled(offset)
        })
    }

    /// A part of it as a zlib stream.
    pub(crate) fn packed(&self, offset: u64, data: &[u8]) -> Bytes {
        let mut compressor = libdeflater::Compressor::new(libdeflater::CompressionLvl::fastest());
        let mut zlib = vec![0; compressor.zlib_compress_bound(data.len())];
        let length = compressor.zlib_compress(data, &mut zlib).unwrap();
        zlib.truncate(length);
        self.message(FileBuffer {
            data_length: data.len() as u64,
            uncompressed_length: data.len() as u64,
            data: zlib.into(),
            ..self.filled(offset)
        })
    }

    /// The end of it; of a sparse one with its ranges, by (stored, original offset, stored and
    /// original length).
    pub(crate) fn end(&self, offset: u64, ranges: &[(i64, i64, i64, i64)]) -> Bytes {
        let range =
            |(file_offset, original_offset, file_length, length): &(i64, i64, i64, i64)| Range {
                file_offset: *file_offset,
                original_offset: *original_offset,
                file_length: *file_length,
                length: *length,
            };
        let ranges: Vec<Range> = ranges.iter().map(range).collect();
        self.message(FileBuffer {
            eof: true,
            stored_size: offset,
            index: self.sparse.then_some(Index { ranges }),
            ..self.filled(offset)
        })
    }

    /// The row that reports it.
    pub(crate) fn row(&self, sha256: &str) -> Value {
        json!({"Upload": {
            "Path": self.path, "StoredName": self.path, "Size": self.size, "UploadId": self.number,
            "sha256": sha256, "Components": self.components, "Accessor": "file",
        }})
    }
}

/// Rows of a result set.
pub(crate) fn rows(flow: &str, name: &str, rows: &[Value]) -> Bytes {
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    let message = VeloMessage {
        session_id: flow.to_owned(),
        vql_response: Some(VqlResponse {
            query: Some(VqlRequest {
                name: name.to_owned(),
                ..VqlRequest::default()
            }),
            total_rows: rows.len() as u64,
            jsonl_response: lines,
            timestamp: 1_795_515_463_000_000,
            ..VqlResponse::default()
        }),
        ..VeloMessage::default()
    };
    message.encode_to_vec().into()
}

/// What a flow of one query reports at its end.
pub(crate) fn end(flow: &str, rows: i64, files: i64, bytes: u64, names: &[&str]) -> Bytes {
    ends(flow, 1, rows, files, bytes, names)
}

/// What a flow of several queries reports at its end; the first of them did everything.
pub(crate) fn ends(
    flow: &str,
    queries: usize,
    rows: i64,
    files: i64,
    bytes: u64,
    names: &[&str],
) -> Bytes {
    let ended = VeloStatus {
        status: velo_status::ReturnedStatus::Ok.into(),
        ..VeloStatus::default()
    };
    let mut query_status = vec![ended; queries];
    if let Some(first) = query_status.first_mut() {
        first.result_rows = rows;
        first.uploaded_files = files;
        first.uploaded_bytes = i64::try_from(bytes).unwrap();
        first.names_with_response = names.iter().map(|&name| name.to_owned()).collect();
    }
    let message = VeloMessage {
        session_id: flow.to_owned(),
        request_id: 981,
        flow_stats: Some(FlowStats {
            query_status,
            flow_complete: true,
            ..FlowStats::default()
        }),
        ..VeloMessage::default()
    };
    message.encode_to_vec().into()
}

/// The recorded agent with new things to send.
pub(crate) struct Agent<'a> {
    recorded: &'a Recorded,
    session: AgentSession,
    player: Player,
    /// How long POSTs took that were taken at once.
    pub(crate) taking: Duration,
    /// POSTs that had to be sent again, and how often in all.
    pub(crate) repeats: u64,
}

impl<'a> Agent<'a> {
    /// One that the server lets in.
    pub(crate) async fn enrolled(recorded: &'a Recorded, server: &Server, player: Player) -> Self {
        for (turn, letter) in recorded.letters().iter().take(3).enumerate() {
            server.player().play(turn, letter, letter.status).await;
        }
        Self {
            recorded,
            session: recorded.session(),
            player,
            taking: Duration::ZERO,
            repeats: 0,
        }
    }

    /// Sends messages until they are taken.
    pub(crate) async fn post(&mut self, messages: &[Bytes]) {
        let lists = [message_list(messages)];
        let nonce = self.recorded.nonce();
        let plain = Plaintext::new(&lists, Compression::None, nonce, 1_795_515_000_000_000);
        let body = self.session.seal(&plain).unwrap();
        let until = Instant::now() + PATIENCE;
        loop {
            let begun = Instant::now();
            match self.player.post(0, "/control", body.clone()).await {
                Ok(reply) if reply.status == 200 => {
                    self.taking += begun.elapsed();
                    return;
                }
                Ok(reply) => assert_eq!(reply.status, 503, "an answer that loses what it answers"),
                Err(_) => {}
            }
            assert!(Instant::now() < until, "it is not taken");
            self.repeats += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// The uploads of a flow, when it has ended and all of them that are whole are sealed.
pub(crate) async fn sealed(server: &Server, client: &str, flow: &str) -> Vec<Value> {
    let (api, base) = (server.api(), format!("/clients/{client}/flows/{flow}"));
    eventually("the flow has ended", async || {
        let document = api.json(&base).await;
        if document["state"] == "FINISHED" {
            Ok(())
        } else {
            Err(document)
        }
    })
    .await;
    eventually("every whole file is sealed", async || {
        let uploads = api.json(&format!("{base}/uploads?limit=100000")).await;
        let uploads = uploads.as_array().unwrap().clone();
        let open = |upload: &&Value| upload["complete"] == true && upload["verdict"].is_null();
        match uploads.iter().find(open) {
            Some(open) => Err(open.clone()),
            None => Ok(uploads),
        }
    })
    .await
}
