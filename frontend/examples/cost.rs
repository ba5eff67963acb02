//! What a poll, a POST, a TLS handshake and a reconnect cost:
//! `cargo run --release -p nublar-frontend --example cost`.
//!
//! Agents and frontend share this process and the log is in memory. Bodies are sealed beforehand, so
//! of the agents' side the figures hold the sockets alone. CPU time is that of the process, read
//! from the system in steps of 10 ms, in Linux only.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use bytes::Bytes;
use nublar_core::ids::ClientKey;
use nublar_core::mac::{MacKey, MacKeys};
use nublar_frontend::{Config, Credentials, Frontend, Listen, Metrics, Org, Secrets, TlsMaterial};
use nublar_ports::Log;
use nublar_ports::log::{MemoryLog, Retention, TopicSpec};
use nublar_ports::objects::memory::MemoryObjects;
use nublar_schemas::agent::{Certificate, ForemanCheckin, VeloMessage, VqlRequest, VqlResponse};
use nublar_schemas::topics::{self, Keep, Partitions};
use nublar_wire::{AgentKey, AgentSession, Compression, Plaintext, ServerKey, message_list};
use prost::Message as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

const NONCE: &str = "nonce";
const AGENTS: usize = 200;
const POLLS: usize = 20;
const POSTS: usize = 2_000;
const CONNECTIONS: usize = 500;

struct Agent {
    key: AgentKey,
    session: AgentSession,
    stream: TcpStream,
}

fn plaintext(message: &VeloMessage) -> Plaintext {
    let list = message_list(&[message.encode_to_vec().into()]);
    Plaintext::new(&[list], Compression::Zlib, NONCE, 7)
}

impl Agent {
    async fn post(&mut self, path: &str, body: &Bytes) -> u16 {
        let head = format!(
            "POST /{path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let request = [head.as_bytes(), body].concat();
        self.stream.write_all(&request).await.unwrap();
        let mut answer = Vec::new();
        loop {
            self.stream.read_buf(&mut answer).await.unwrap();
            let Some(end) = answer.windows(4).position(|w| w == b"\r\n\r\n") else {
                continue;
            };
            let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
            let length = head.split("content-length: ").nth(1).unwrap();
            let length: usize = length.lines().next().unwrap().trim().parse().unwrap();
            if answer.len() >= end + 4 + length {
                return head[9..12].parse().unwrap();
            }
        }
    }
}

/// Every agent at once posts its body, and is answered so.
async fn each_posts(agents: &mut [Agent], path: &str, bodies: &[Bytes], status: u16) {
    let all = agents.iter_mut().zip(bodies);
    let all = all.map(|(agent, body)| agent.post(path, body));
    let answers = futures::future::join_all(all).await;
    assert!(answers.iter().all(|answer| *answer == status));
}

/// CPU time of this process.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

async fn report<T>(what: &str, n: usize, work: impl Future<Output = T>) -> Duration {
    let (wall, before) = (Instant::now(), cpu());
    work.await;
    let (wall, used) = (wall.elapsed(), cpu() - before);
    let each = used / n as u32;
    println!("{what:<48} {n:>6} × {each:>10.1?} cpu   {wall:>8.2?} in all");
    each
}

async fn start(log: &MemoryLog) -> (Frontend, ServerKey, String) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = ServerKey::generate().unwrap();
    let mut params = CertificateParams::new(vec!["VelociraptorServer".to_owned()]).unwrap();
    params
        .distinguished_name
        .push(DnType::CommonName, "VelociraptorServer");
    let pair = KeyPair::from_pem(&key.to_pem().unwrap()).unwrap();
    let leaf_key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let credentials = Credentials {
        certificate_pem: params.signed_by(&pair, &ca).unwrap().pem(),
        agent_keys_pem: key.to_pem().unwrap(),
        tls: Some(TlsMaterial {
            chain_pem: leaf.signed_by(&leaf_key, &ca).unwrap().pem(),
            key_pem: leaf_key.serialize_pem(),
        }),
    };
    let secrets = Secrets {
        credentials: tokio::sync::watch::channel(credentials).1,
        orgs: vec![Org {
            nonce: NONCE.into(),
            id: "".parse().unwrap(),
        }],
        mac: MacKeys::new(
            MacKey {
                from_us: 0,
                secret: [7; 32],
            },
            [],
        ),
    };
    let specs = topics::ALL.map(|topic| TopicSpec {
        name: topic.name.into(),
        partitions: match topic.partitions {
            Partitions::PerClients => 4,
            Partitions::Fixed(n) => n,
        },
        retention: match topic.keep {
            Keep::For(age) => Retention::Age(age),
            Keep::Newest => Retention::Compacted,
        },
        groups: Vec::new(),
    });
    log.declare(&specs).await.unwrap();
    let addr = "127.0.0.1:0".parse().unwrap();
    let config = Config {
        listen: [false, true].map(|tls| Listen { addr, tls }).to_vec(),
        max_poll: Duration::from_millis(500),
        ..Config::default()
    };
    let (log, objects) = (Arc::new(log.clone()), Arc::new(MemoryObjects::new()));
    (
        Frontend::bind(config, secrets, log, objects).await.unwrap(),
        key,
        ca.pem(),
    )
}

/// Private key operations of the frontend so far.
fn rsa(metrics: &Metrics) -> i64 {
    metrics.sessions_opened.get() + metrics.sessions_signed.get()
}

/// Connections over TLS, one after the other, each with a request; `resumed` by the first one's
/// tickets. CPU time holds both sides.
async fn handshakes(addr: SocketAddr, ca_pem: &str, resumed: bool) -> Duration {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    if !resumed {
        config.resumption = rustls::client::Resumption::disabled();
    }
    let connector = TlsConnector::from(Arc::new(config));
    let connect = async || {
        let stream = TcpStream::connect(addr).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = connector.connect(name, stream).await.unwrap();
        ask(&mut stream).await;
        stream.get_ref().1.handshake_kind()
    };
    connect().await;
    let expected = match resumed {
        true => rustls::HandshakeKind::Resumed,
        false => rustls::HandshakeKind::Full,
    };
    let what = match resumed {
        true => "tls connection, resumed, both sides",
        false => "tls connection, full handshake, both sides",
    };
    report(what, CONNECTIONS, async {
        for _ in 0..CONNECTIONS {
            assert_eq!(connect().await, Some(expected));
        }
    })
    .await
}

/// The same connections without TLS.
async fn plain_connections(addr: SocketAddr) -> Duration {
    report(
        "plain connection, both sides: the baseline",
        CONNECTIONS,
        async {
            for _ in 0..CONNECTIONS {
                ask(&mut TcpStream::connect(addr).await.unwrap()).await;
            }
        },
    )
    .await
}

async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let request = b"GET /healthz/live HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"alive\n") {
        assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0);
    }
}

fn ratio(what: &str, of: Duration, to: Duration) {
    // The clock of CPU time has steps of 10 ms.
    let to = to.as_secs_f64().max(1e-9);
    println!("{what:<48} {:>8.1} ×", of.as_secs_f64() / to);
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let log = MemoryLog::new();
    let (frontend, server, ca_pem) = start(&log).await;
    let (addr, tls_addr) = (frontend.addresses()[0], frontend.addresses()[1]);
    let (metrics, mut ready) = (frontend.metrics(), frontend.ready());
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(frontend.serve(shutdown.clone()));
    ready.wait_for(|ready| *ready).await.unwrap();

    let mut agents = Vec::new();
    for _ in 0..AGENTS {
        let key = AgentKey::generate().unwrap();
        let session = AgentSession::new(&key, server.public_key()).unwrap();
        let stream = TcpStream::connect(addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        agents.push(Agent {
            key,
            session,
            stream,
        });
    }
    let csr = |agent: &Agent| {
        let pem = agent.key.csr_pem().unwrap().into();
        let message = VeloMessage {
            session_id: "E:Enrol".into(),
            csr: Some(Certificate {
                pem,
                ..Default::default()
            }),
            ..Default::default()
        };
        agent.session.seal(&plaintext(&message)).unwrap()
    };
    let bodies: Vec<_> = agents.iter().map(csr).collect();
    report(
        "enrolment (one rsa decryption, checks)",
        AGENTS,
        each_posts(&mut agents, "control", &bodies, 406),
    )
    .await;

    let check_in = plaintext(&VeloMessage {
        session_id: "E.Foreman".into(),
        foreman_checkin: Some(ForemanCheckin::default()),
        ..Default::default()
    });
    let sealed = |agents: &[Agent]| -> Vec<Bytes> {
        let seal = |agent: &Agent| agent.session.seal(&check_in).unwrap();
        agents.iter().map(seal).collect()
    };
    let polls = sealed(&agents);
    report(
        "first poll (rsa again, now verified)",
        AGENTS,
        each_posts(&mut agents, "reader", &polls, 200),
    )
    .await;
    println!(
        "{:<48} {:>8.2} of private keys, an enrolled agent's first poll included",
        "rsa operations an agent",
        rsa(&metrics) as f64 / AGENTS as f64
    );
    let idle = report("idle poll, client side included", AGENTS * POLLS, async {
        let all = agents
            .iter_mut()
            .zip(&polls)
            .map(|(agent, body)| async move {
                for _ in 0..POLLS {
                    assert_eq!(agent.post("reader", body).await, 200);
                }
            });
        futures::future::join_all(all).await;
    })
    .await;
    // After an outage: a new session, under which the same agent comes back.
    for agent in &mut agents {
        agent.session = AgentSession::new(&agent.key, server.public_key()).unwrap();
    }
    let polls = sealed(&agents);
    let before = rsa(&metrics);
    let back = report(
        "poll under a new session (a reconnect)",
        AGENTS,
        each_posts(&mut agents, "reader", &polls, 200),
    )
    .await;
    println!(
        "{:<48} {:>8.2} of private keys",
        "rsa operations a reconnect",
        (rsa(&metrics) - before) as f64 / AGENTS as f64
    );
    ratio("a reconnect in idle polls", back, idle);
    let plain = plain_connections(addr).await;
    let full = handshakes(tls_addr, &ca_pem, false).await;
    let resumed = handshakes(tls_addr, &ca_pem, true).await;
    ratio("a full handshake in plain connections", full, plain);
    ratio("a resumed one in plain connections", resumed, plain);
    ratio("a full handshake in resumed ones", full, resumed);
    let waiting = Duration::from_millis(2_000);
    report(
        "2 s with nothing at all (1 = all of it)",
        1,
        tokio::time::sleep(waiting),
    )
    .await;

    let agent = &mut agents[0];
    let client = ClientKey {
        org: "".parse().unwrap(),
        client: agent.key.client_id().parse().unwrap(),
    };
    let mac = MacKeys::new(
        MacKey {
            from_us: 0,
            secret: [7; 32],
        },
        [],
    );
    let flow = mac.flow_id(&client, 1, 1_795_514_940_000_000, [1; 4]);
    let lines: String = (0..1_000)
        .map(|n| {
            format!(
                "{{\"n\":{n},\"Name\":\"process-{}\",\"Pid\":{}}}\n",
                n * 7,
                n * 13
            )
        })
        .collect();
    let rows = plaintext(&VeloMessage {
        session_id: flow.to_string(),
        vql_response: Some(VqlResponse {
            query: Some(VqlRequest {
                name: "Some/Rows".into(),
                ..Default::default()
            }),
            jsonl_response: lines,
            total_rows: 1_000,
            ..Default::default()
        }),
        ..Default::default()
    });
    let body = agent.session.seal(&rows).unwrap();
    assert_eq!(agent.post("control", &body).await, 200);
    println!("a post of 1,000 rows has {} bytes", body.len());
    report("post of 1,000 rows, client side included", POSTS, async {
        for _ in 0..POSTS {
            assert_eq!(agent.post("control", &body).await, 200);
        }
    })
    .await;
    println!(
        "{} records, {} messages",
        metrics.records.get(),
        metrics.messages.get()
    );
    shutdown.cancel();
    serving.await.unwrap().unwrap();
}
