//! A server that does what a test tells it: it enrols agents, keeps what they send, and answers
//! with the statuses and messages that it was given.

#![allow(dead_code, unreachable_pub)]

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use nublar_schemas::agent::VeloMessage;
use nublar_wire::{
    AgentPublicKey, Envelope, Kind, Message, OutboundSession, SERVER_NAME, ServerKey, ServerKeys,
    check_csr, messages, pad,
};
use prost::Message as _;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// What came by one POST to `control` that was answered.
#[derive(Debug, Clone)]
pub struct Post {
    pub status: u16,
    pub urgent: bool,
    pub body: Bytes,
    pub messages: Vec<VeloMessage>,
}

#[derive(Default)]
struct State {
    keys: HashMap<String, AgentPublicKey>,
    posts: Vec<Post>,
    /// Statuses of the next POSTs to `control` of those who are registered.
    statuses: VecDeque<u16>,
    /// Messages for the next poll.
    due: Vec<VeloMessage>,
    certificates: u32,
    polls: u32,
}

pub struct Server {
    pub address: SocketAddr,
    pub ca: String,
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
    keys: ServerKeys,
    state: Mutex<State>,
    changed: Notify,
    tasks: Mutex<JoinSet<()>>,
}

impl Server {
    pub async fn start() -> Arc<Self> {
        let ca_key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&ca_key).unwrap().pem();
        let issuer = Issuer::new(params, ca_key);
        let key = ServerKey::generate().unwrap();
        let pair = KeyPair::from_pem(&key.to_pem().unwrap()).unwrap();
        let mut params = CertificateParams::new(vec![SERVER_NAME.to_owned()]).unwrap();
        params
            .distinguished_name
            .push(DnType::CommonName, SERVER_NAME);
        let certificate = params.signed_by(&pair, &issuer).unwrap().pem();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            ca,
            certificate,
            issuer,
            keys: key.into(),
            state: Mutex::default(),
            changed: Notify::new(),
            tasks: Mutex::default(),
        });
        let accepting = Arc::clone(&server);
        server.tasks.lock().unwrap().spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let server = Arc::clone(&accepting);
                connections.spawn(async move {
                    let service =
                        hyper::service::service_fn(|request| server.clone().answer(request));
                    let serving =
                        hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let _ = serving
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        server
    }

    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Certificate and key of the CA for a TLS server, PEM.
    pub fn leaf(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (
            params.signed_by(&key, &self.issuer).unwrap().pem(),
            key.serialize_pem(),
        )
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The next POSTs to `control` are answered with these.
    pub fn answer_with(&self, statuses: impl IntoIterator<Item = u16>) {
        self.state().statuses.extend(statuses);
    }

    /// The next poll brings these.
    pub fn deliver(&self, messages: impl IntoIterator<Item = VeloMessage>) {
        self.state().due.extend(messages);
        self.changed.notify_waiters();
    }

    /// Whether every message was given to some poll.
    pub fn all_delivered(&self) -> bool {
        self.state().due.is_empty()
    }

    pub fn posts(&self) -> Vec<Post> {
        self.state().posts.clone()
    }

    /// Fetches of `server.pem`, and polls.
    pub fn visits(&self) -> (u32, u32) {
        let state = self.state();
        (state.certificates, state.polls)
    }

    /// All messages that were answered with 200, in their order.
    pub fn kept(&self) -> Vec<VeloMessage> {
        let posts = self.posts();
        posts
            .into_iter()
            .filter(|post| post.status == 200)
            .flat_map(|post| post.messages)
            .collect()
    }

    /// Waits until something holds.
    pub async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let waiting = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if holds(self) {
                    return;
                }
                changed.await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(30), waiting).await;
        assert!(waited.is_ok(), "{what} did not come");
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
        let path = request.uri().path().to_owned();
        let urgent = request.headers().contains_key("x-priority");
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let (status, body) = match path.as_str() {
            "/server.pem" => {
                self.state().certificates += 1;
                (200, Bytes::from(self.certificate.clone()))
            }
            "/control" => self.control(body, urgent),
            "/reader" => self.reader(body).await,
            _ => (404, Bytes::new()),
        };
        self.changed.notify_waiters();
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        Ok(response)
    }

    fn open(&self, body: &Bytes) -> (Option<(AgentPublicKey, ServerKey)>, Vec<Message>) {
        let envelope = Envelope::parse(body.clone()).unwrap();
        let session = envelope.unwrap_session(&self.keys).unwrap();
        let known = self.state().keys.get(session.source()).cloned();
        let (who, packed) = match known {
            Some(key) => {
                let session = session.verify(&key).unwrap();
                let packed = session.open(&envelope).unwrap();
                (Some((key, session.server_key().clone())), packed)
            }
            None => (None, session.open(&envelope).unwrap()),
        };
        assert_eq!(packed.nonce(), "nonce");
        let lists = packed.lists(10 << 20).map(Result::unwrap);
        (who, lists.flat_map(messages).map(Result::unwrap).collect())
    }

    fn control(&self, body: Bytes, urgent: bool) -> (u16, Bytes) {
        let (who, came) = self.open(&body);
        if who.is_none() {
            for message in came.iter().filter(|message| message.kind == Kind::Csr) {
                let csr = message.decode().unwrap().csr.unwrap();
                let key = check_csr(&csr.pem).unwrap();
                self.state().keys.insert(key.client_id().to_owned(), key);
            }
            return (406, Bytes::new());
        }
        let mut state = self.state();
        let status = state.statuses.pop_front().unwrap_or(200);
        let messages = came
            .iter()
            .map(|message| message.decode().unwrap())
            .collect();
        state.posts.push(Post {
            status,
            urgent,
            body,
            messages,
        });
        drop(state);
        (
            status,
            if status == 200 {
                self.seal(who, &[])
            } else {
                Bytes::new()
            },
        )
    }

    async fn reader(&self, body: Bytes) -> (u16, Bytes) {
        let (who, came) = self.open(&body);
        self.state().polls += 1;
        if who.is_none() {
            return (406, Bytes::new());
        }
        assert_eq!(came[0].session_id(), "E.Foreman");
        let mut due = Vec::new();
        let held = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                due.append(&mut self.state().due);
                if !due.is_empty() {
                    return;
                }
                changed.await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_millis(200), held).await;
        if due.is_empty() {
            return (200, pad());
        }
        let due: Vec<Bytes> = due
            .iter()
            .map(|message| message.encode_to_vec().into())
            .collect();
        (200, [pad(), self.seal(who, &due)].concat().into())
    }

    fn seal(&self, who: Option<(AgentPublicKey, ServerKey)>, due: &[Bytes]) -> Bytes {
        let (agent, ours) = who.unwrap();
        let session = OutboundSession::new(&ours, &agent, SERVER_NAME).unwrap();
        session.seal(due, "nonce", 1).unwrap()
    }
}
