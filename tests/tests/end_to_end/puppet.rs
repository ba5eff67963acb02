//! Agents that say what a test tells them to.

use bytes::Bytes;
use nublar_schemas::agent::{
    FileBuffer, FlowStats, ForemanCheckin, LogMessage, PathSpec, VeloMessage, VeloStatus,
    VqlRequest, VqlResponse, velo_status::ReturnedStatus,
};
use nublar_tests::{Player, Server};
use nublar_wire::{AgentKey, AgentSession, Compression, Plaintext, PublicKey, message_list};
use prost::Message as _;
use std::time::{SystemTime, UNIX_EPOCH};

/// The longest wait for an answer to a poll is to be short.
pub(crate) const QUICK: &str = "
[frontend]
adopt_flows = true
max_poll_s = 0.05
progress_every_s = 0

[foreman]
interrogate = false
monitor = false

[workers]
report_ms = 100
";

/// What is as it is here, microseconds since 1970.
pub(crate) fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_micros()).unwrap()
}

/// An agent in a test's hand.
pub(crate) struct Puppet {
    pub(crate) key: AgentKey,
    session: AgentSession,
    player: Player,
    nonce: String,
    /// How far its clock is ahead.
    skew_us: i64,
}

impl Puppet {
    /// One that is let in, and has polled.
    pub(crate) async fn start(server: &Server, key: AgentKey, skew_us: i64) -> Self {
        let nonce = server.secrets().orgs[0].nonce.clone();
        Self::of_org(server, key, nonce, skew_us).await
    }

    /// The same in another organisation.
    pub(crate) async fn of_org(
        server: &Server,
        key: AgentKey,
        nonce: String,
        skew_us: i64,
    ) -> Self {
        let puppet = Self::stranger(server, key, nonce, skew_us);
        let csr = crate::agents::csr(&puppet.key, puppet.client());
        assert_eq!(puppet.post("/control", &[csr]).await, 406);
        assert_eq!(puppet.poll().await, 200);
        puppet
    }

    /// Another machine with its key, which has not polled yet.
    pub(crate) fn copy(&self, server: &Server) -> Self {
        Self::stranger(server, self.key.clone(), self.nonce.clone(), self.skew_us)
    }

    /// One with a session of its own, of which no server knows.
    pub(crate) fn stranger(server: &Server, key: AgentKey, nonce: String, skew_us: i64) -> Self {
        let certificate = &server.secrets().agents.certificate;
        let theirs = PublicKey::from_certificate_pem(certificate.as_bytes()).unwrap();
        Self {
            session: AgentSession::new(&key, &theirs).unwrap(),
            player: server.player(),
            key,
            nonce,
            skew_us,
        }
    }

    pub(crate) fn client(&self) -> &str {
        self.key.client_id()
    }

    /// Its clock, microseconds since 1970.
    pub(crate) fn clock_us(&self) -> u64 {
        u64::try_from(now_us() + self.skew_us).unwrap()
    }

    /// Polls once.
    pub(crate) async fn poll(&self) -> u16 {
        let check_in = VeloMessage {
            session_id: "E.Foreman".to_owned(),
            foreman_checkin: Some(ForemanCheckin::default()),
            ..VeloMessage::default()
        };
        self.post("/reader", &[check_in.encode_to_vec().into()])
            .await
    }

    /// Posts these, and says with which status it was answered.
    pub(crate) async fn post(&self, path: &str, messages: &[Bytes]) -> u16 {
        let lists = [message_list(messages)];
        let plain = Plaintext::new(&lists, Compression::Zlib, &self.nonce, self.clock_us());
        let body = self.session.seal(&plain).unwrap();
        self.player.post(0, path, body).await.unwrap().status
    }

    /// Posts results, which must be taken.
    pub(crate) async fn send(&self, messages: &[VeloMessage]) {
        let messages: Vec<Bytes> = messages
            .iter()
            .map(|one| one.encode_to_vec().into())
            .collect();
        assert_eq!(self.post("/control", &messages).await, 200);
    }

    /// Rows of a flow, or of an event, from a row on.
    pub(crate) fn rows(&self, session: &str, name: &str, first: u64, lines: &str) -> VeloMessage {
        VeloMessage {
            session_id: session.to_owned(),
            vql_response: Some(VqlResponse {
                query: Some(VqlRequest {
                    name: name.to_owned(),
                    ..VqlRequest::default()
                }),
                jsonl_response: lines.to_owned(),
                query_start_row: first,
                total_rows: lines.lines().count() as u64,
                timestamp: self.clock_us(),
                ..VqlResponse::default()
            }),
            ..VeloMessage::default()
        }
    }

    /// A line of a flow's log.
    pub(crate) fn log(&self, session: &str, text: &str) -> VeloMessage {
        let at_s = self.clock_us() / 1_000_000;
        let line = serde_json::json!({ "client_time": at_s, "level": "INFO", "message": text });
        VeloMessage {
            session_id: session.to_owned(),
            log_message: Some(LogMessage {
                jsonl: format!("{line}\n"),
                number_of_rows: 1,
                ..LogMessage::default()
            }),
            ..VeloMessage::default()
        }
    }

    /// A whole small file.
    pub(crate) fn file(&self, session: &str, path: &str, content: &[u8]) -> VeloMessage {
        VeloMessage {
            session_id: session.to_owned(),
            request_id: 5,
            file_buffer: Some(FileBuffer {
                pathspec: Some(PathSpec {
                    path: path.to_owned(),
                    accessor: "file".to_owned(),
                    ..PathSpec::default()
                }),
                data: content.to_vec().into(),
                data_length: content.len() as u64,
                size: content.len() as u64,
                stored_size: content.len() as u64,
                upload_number: 1,
                eof: true,
                mtime: i64::try_from(self.clock_us()).unwrap() * 1_000,
                ..FileBuffer::default()
            }),
            ..VeloMessage::default()
        }
    }

    /// A flow's end, with what it has sent.
    pub(crate) fn end(&self, session: &str, rows: u64, files: &[&[u8]]) -> VeloMessage {
        let status = VeloStatus {
            status: ReturnedStatus::Ok.into(),
            result_rows: i64::try_from(rows).unwrap(),
            uploaded_files: files.len() as i64,
            uploaded_bytes: files.iter().map(|file| file.len() as i64).sum(),
            first_active: self.clock_us(),
            last_active: self.clock_us(),
            ..VeloStatus::default()
        };
        VeloMessage {
            session_id: session.to_owned(),
            request_id: 981,
            flow_stats: Some(FlowStats {
                query_status: vec![status],
                flow_complete: true,
                ..FlowStats::default()
            }),
            ..VeloMessage::default()
        }
    }
}
