//! The leaf of HTTPS and the key that agents encrypt to are changed while agents work.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use nublar_frontend::Credentials;
use nublar_schemas::agent::VeloMessage;
use nublar_wire::{AgentSession, PublicKey, ServerKey};
use prost::Message as _;
use reqwest::StatusCode;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use support::agent::{TestAgent, rows};
use support::{Deployment, Running, certificate_for, eventually, leaf};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

async fn connect(config: &Arc<rustls::ClientConfig>, running: &Running) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(running.https).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(config.clone());
    connector.connect(name, stream).await.unwrap()
}

fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    let chain = stream.get_ref().1.peer_certificates().unwrap();
    chain[0].clone().into_owned()
}

async fn is_served(stream: &mut TlsStream<TcpStream>) {
    let request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"ok\n") {
        assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0);
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_leaf_is_shown_to_who_connects_and_open_connections_go_on() {
    let deployment = Deployment::new().await;
    let running = deployment.start().await;
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(deployment.ca_pem.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = || {
        let config = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        Arc::new(config)
    };
    let old_config = config();
    let mut old = connect(&old_config, &running).await;
    is_served(&mut old).await;
    let before = shown(&old);

    let new = leaf(&deployment.ca);
    let expected = CertificateDer::from_pem_slice(new.chain_pem.as_bytes()).unwrap();
    deployment
        .credentials
        .send_modify(|shown| shown.tls = Some(new.clone()));
    eventually(async || {
        let mut stream = connect(&config(), &running).await;
        is_served(&mut stream).await;
        (shown(&stream) == expected).then_some(())
    })
    .await;
    assert_ne!(before, expected);
    is_served(&mut old).await;
    // Who was here before takes up where he was, under the new leaf, too.
    let mut again = connect(&old_config, &running).await;
    is_served(&mut again).await;
    let kind = again.get_ref().1.handshake_kind();
    assert_eq!(kind, Some(rustls::HandshakeKind::Resumed));

    // What does not fit changes nothing.
    let other = leaf(&deployment.ca);
    deployment.credentials.send_modify(|shown| {
        let mut mixed = new.clone();
        mixed.key_pem = other.key_pem.clone();
        shown.tls = Some(mixed);
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(shown(&connect(&config(), &running).await), expected);
    is_served(&mut old).await;
    running.stop().await;
}

/// An agent that sends rows one after the other, each until it is answered 200.
struct Sender {
    agent: TestAgent,
    /// After how many rows it starts anew; never, if 0.
    restart_every: u64,
    sent: AtomicU64,
    forbidden: AtomicU64,
}

impl Sender {
    async fn run(&self, stop: &AtomicBool) {
        let mut session = AgentSession::new(&self.agent.key, &self.server().await).unwrap();
        let mut n = 0;
        while !stop.load(Ordering::Relaxed) {
            if self.restart_every > 0 && n % self.restart_every == 0 {
                session = AgentSession::new(&self.agent.key, &self.server().await).unwrap();
            }
            let sender = TestAgent {
                key: self.agent.key.clone(),
                session,
                nonce: self.agent.nonce.clone(),
                http: self.agent.http.clone(),
                base: self.agent.base.clone(),
            };
            let row = format!("{{\"n\":{n}}}\n");
            let answer = sender
                .post("control", &[rows("F.Monitoring", "A", &row)])
                .await;
            match answer.status() {
                StatusCode::OK => {
                    // Signed by the key to which this session is encrypted.
                    assert!(sender.read(answer).await.is_empty());
                    session = sender.session;
                    n += 1;
                    self.sent.store(n, Ordering::Relaxed);
                }
                StatusCode::FORBIDDEN => {
                    self.forbidden.fetch_add(1, Ordering::Relaxed);
                    session = AgentSession::new(&self.agent.key, &self.server().await).unwrap();
                }
                other => panic!("{other}"),
            }
        }
    }

    async fn server(&self) -> PublicKey {
        let url = format!("{}server.pem", self.agent.base);
        let answer = self.agent.http.get(url).send().await.unwrap();
        PublicKey::from_certificate_pem(&answer.bytes().await.unwrap()).unwrap()
    }
}

/// Waits until each has sent so many more.
async fn all_send(senders: &[Sender], more: u64) {
    let sent = |sender: &Sender| sender.sent.load(Ordering::Relaxed);
    let before: Vec<_> = senders.iter().map(sent).collect();
    eventually(async || {
        let mut both = senders.iter().zip(&before);
        both.all(|(sender, before)| sent(sender) >= before + more)
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_rolled_under_load_and_nothing_is_lost() {
    let deployment = Deployment::new().await;
    let first = deployment.start().await;
    let second = deployment.start().await;
    let mut senders = Vec::new();
    for (number, restart_every) in [0, 0, 0, 0, 3, 7].into_iter().enumerate() {
        let at = if number % 2 == 0 { &first } else { &second };
        senders.push(Sender {
            agent: TestAgent::enrolled(&deployment, at).await,
            restart_every,
            sent: AtomicU64::new(0),
            forbidden: AtomicU64::new(0),
        });
    }
    let old = deployment.credentials.borrow().agent_keys_pem.clone();
    let new = ServerKey::generate().unwrap().to_pem().unwrap();
    let certificate_pem = certificate_for(&deployment.ca, &new, "VelociraptorServer");
    let change = |keys: String| {
        deployment.credentials.send_modify(|shown| {
            *shown = Credentials {
                certificate_pem: certificate_pem.clone(),
                agent_keys_pem: keys,
                tls: shown.tls.clone(),
            };
        });
    };
    let forbidden = || -> Vec<u64> {
        let of = senders.iter().map(|sender| &sender.forbidden);
        of.map(|count| count.load(Ordering::Relaxed)).collect()
    };
    let older = || first.metrics.older_key.get() + second.metrics.older_key.get();
    let stop = AtomicBool::new(false);
    let story = async {
        all_send(&senders, 10).await;
        assert_eq!(older(), 0);
        change(format!("{new}\n{old}"));
        all_send(&senders, 10).await;
        assert_eq!(forbidden(), [0; 6], "both keys are good");
        let before = older();
        all_send(&senders, 10).await;
        assert!(older() > before, "sessions of the old key go on");
        change(new.clone());
        all_send(&senders, 10).await;
        stop.store(true, Ordering::Relaxed);
    };
    let sending = futures::future::join_all(senders.iter().map(|sender| sender.run(&stop)));
    tokio::join!(story, sending);

    let (kept, restarted) = (&forbidden()[..4], &forbidden()[4..]);
    assert_eq!(
        kept, [1; 4],
        "each was told once that its session is none any more"
    );
    assert!(restarted.iter().all(|count| *count <= 1), "{restarted:?}");
    let before = older();
    for sender in &senders {
        let client = sender.agent.key.client_id();
        let mut stored: BTreeMap<u64, usize> = BTreeMap::new();
        for record in deployment.messages("events").await {
            if record.header.client != client {
                continue;
            }
            for message in record.messages {
                let message = VeloMessage::decode(message.bytes).unwrap();
                let row = message.vql_response.unwrap().jsonl_response;
                let n = row
                    .trim()
                    .trim_start_matches("{\"n\":")
                    .trim_end_matches('}');
                *stored.entry(n.parse().unwrap()).or_default() += 1;
            }
        }
        let sent = sender.sent.load(Ordering::Relaxed);
        assert_eq!(
            stored.keys().copied().collect::<Vec<_>>(),
            (0..sent).collect::<Vec<_>>()
        );
        assert!(stored.values().all(|times| *times == 1), "{client}");
    }
    assert_eq!(older(), before, "nobody uses the old key");
    first.stop().await;
    second.stop().await;
}
