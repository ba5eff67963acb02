//! An agent as the wire sees it.

use super::{Deployment, NONCE, Running, mac, root};
use bytes::Bytes;
use nublar_core::ids::ClientKey;
use nublar_schemas::agent::{
    Certificate, FileBuffer, FlowStats, ForemanCheckin, VeloMessage, VeloStatus, VqlRequest,
    VqlResponse,
};
use nublar_wire::{AgentKey, AgentSession, Answer, Compression, Message, Plaintext, message_list};
use prost::Message as _;
use reqwest::{Client, Response, StatusCode};

pub(crate) const LIMIT: usize = 16 << 20;

/// An agent with one server and one session.
pub(crate) struct TestAgent {
    pub(crate) key: AgentKey,
    pub(crate) session: AgentSession,
    pub(crate) nonce: String,
    pub(crate) http: Client,
    pub(crate) base: String,
}

/// Which version of HTTP an agent speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    Plain,
    Tls1,
    Tls2,
}

pub(crate) fn client(deployment: &Deployment, version: Version) -> Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let ca = reqwest::Certificate::from_pem(deployment.ca_pem.as_bytes()).unwrap();
    let builder = Client::builder().no_proxy().tls_certs_only([ca]);
    match version {
        Version::Tls2 => builder,
        Version::Tls1 | Version::Plain => builder.http1_only(),
    }
    .build()
    .unwrap()
}

pub(crate) fn base(running: &Running, version: Version) -> String {
    match version {
        Version::Plain => format!("http://{}/", running.http),
        Version::Tls1 | Version::Tls2 => format!("https://localhost:{}/", running.https.port()),
    }
}

impl TestAgent {
    pub(crate) fn new(deployment: &Deployment, running: &Running) -> Self {
        Self::over(deployment, running, Version::Plain)
    }

    pub(crate) fn over(deployment: &Deployment, running: &Running, version: Version) -> Self {
        let key = AgentKey::generate().unwrap();
        Self {
            session: AgentSession::new(&key, &deployment.server).unwrap(),
            key,
            nonce: NONCE.into(),
            http: client(deployment, version),
            base: base(running, version),
        }
    }

    /// One that was taken in.
    pub(crate) async fn enrolled(deployment: &Deployment, running: &Running) -> Self {
        let agent = Self::new(deployment, running);
        agent.enrol().await;
        agent
    }

    /// The same agent at another frontend, over another connection.
    pub(crate) fn at(&self, deployment: &Deployment, running: &Running) -> Self {
        Self {
            key: self.key.clone(),
            session: AgentSession::new(&self.key, &deployment.server).unwrap(),
            nonce: self.nonce.clone(),
            http: client(deployment, Version::Plain),
            base: base(running, Version::Plain),
        }
    }

    pub(crate) async fn enrol(&self) {
        let answer = self.post("control", &[self.csr()]).await;
        assert_eq!(answer.status(), StatusCode::NOT_ACCEPTABLE);
    }

    pub(crate) fn csr(&self) -> VeloMessage {
        csr(&self.key.csr_pem().unwrap())
    }

    pub(crate) fn client(&self) -> ClientKey {
        root(self.key.client_id())
    }

    /// A flow that was made for this client.
    pub(crate) fn flow(&self, n: u8) -> String {
        mac()
            .flow_id(&self.client(), 1, 1_795_514_940_000_000, [n; 4])
            .to_string()
    }

    pub(crate) fn seal(&self, messages: &[VeloMessage]) -> Bytes {
        let messages: Vec<Bytes> = messages
            .iter()
            .map(|message| message.encode_to_vec().into())
            .collect();
        self.seal_lists(&[message_list(&messages)])
    }

    pub(crate) fn seal_lists(&self, lists: &[Bytes]) -> Bytes {
        let plain = Plaintext::new(lists, Compression::Zlib, &self.nonce, 7);
        self.session.seal(&plain).unwrap()
    }

    pub(crate) async fn post(&self, path: &str, messages: &[VeloMessage]) -> Response {
        self.post_body(path, self.seal(messages)).await
    }

    pub(crate) async fn post_body(&self, path: &str, body: Bytes) -> Response {
        let request = self.http.post(format!("{}{path}", self.base)).body(body);
        request.send().await.unwrap()
    }

    /// Posts to `control`; the answer must be 200 and open.
    pub(crate) async fn control(&self, messages: &[VeloMessage]) {
        let answer = self.post("control", messages).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert!(self.read(answer).await.is_empty());
    }

    /// Polls until there is an answer.
    pub(crate) async fn poll(&self) -> Response {
        self.post("reader", &[check_in(0)]).await
    }

    /// The messages of an answer.
    pub(crate) async fn read(&self, answer: Response) -> Vec<VeloMessage> {
        let body = answer.bytes().await.unwrap();
        let answer: Answer = self.session.open(body).unwrap();
        let decode = |message: Message| message.decode().unwrap();
        answer
            .messages(LIMIT)
            .unwrap()
            .into_iter()
            .map(decode)
            .collect()
    }
}

pub(crate) fn csr(pem: &str) -> VeloMessage {
    VeloMessage {
        session_id: "E:Enrol".into(),
        urgent: true,
        csr: Some(Certificate {
            pem: pem.to_owned().into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub(crate) fn check_in(table_version: u64) -> VeloMessage {
    VeloMessage {
        session_id: "E.Foreman".into(),
        foreman_checkin: Some(ForemanCheckin {
            last_event_table_version: table_version,
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub(crate) fn rows(session: &str, name: &str, rows: &str) -> VeloMessage {
    VeloMessage {
        session_id: session.into(),
        vql_response: Some(VqlResponse {
            query: Some(VqlRequest {
                name: name.into(),
                ..Default::default()
            }),
            jsonl_response: rows.into(),
            total_rows: rows.lines().count() as u64,
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub(crate) fn buffer(session: &str, data: Vec<u8>) -> VeloMessage {
    VeloMessage {
        session_id: session.into(),
        request_id: 5,
        file_buffer: Some(FileBuffer {
            data: data.into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub(crate) fn stats(session: &str, complete: bool, status: i32, urgent: bool) -> VeloMessage {
    VeloMessage {
        session_id: session.into(),
        request_id: 981,
        urgent,
        flow_stats: Some(FlowStats {
            flow_complete: complete,
            query_status: vec![VeloStatus {
                status,
                ..Default::default()
            }],
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Bytes that do not compress.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let step = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    };
    std::iter::repeat_with(step).take(len).collect()
}
