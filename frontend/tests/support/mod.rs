//! A frontend over a log in memory, agents that speak to it over real sockets, and a log that
//! fails on demand.

#![allow(dead_code)] // each test binary uses a part of it

pub(crate) mod agent;
pub(crate) mod faulty;
pub(crate) mod fold;
pub(crate) mod foreman;
pub(crate) mod socket;

use faulty::FaultyLog;
use nublar_core::ids::{ClientKey, OrgId};
use nublar_core::mac::{MacKey, MacKeys};
use nublar_frontend::{Config, Credentials, Frontend, Listen, Metrics, Org, Secrets, TlsMaterial};
use nublar_ports::Log;
use nublar_ports::log::{From, MemoryLog, Record, Retention, TailEvent, TopicSpec};
use nublar_ports::objects::memory::MemoryObjects;
use nublar_schemas::codec::Record as _;
use nublar_schemas::records::{DeadLetter, Messages, Registry, Scheduling};
use nublar_schemas::topics::{self, Keep, Partitions};
use nublar_wire::{PublicKey, ServerKey};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(crate) const PARTITIONS: u32 = 4;
pub(crate) const NONCE: &str = "a nonce of the tests";
/// The nonce of the recorded traffic.
pub(crate) const RECORDED_NONCE: &str = "G9OvGpQ5qs0=";

/// What all frontends of a test share.
pub(crate) struct Deployment {
    pub(crate) log: FaultyLog,
    pub(crate) objects: MemoryObjects,
    pub(crate) secrets: Secrets,
    /// Changes what all of them show.
    pub(crate) credentials: watch::Sender<Credentials>,
    pub(crate) ca: CertifiedIssuer<'static, KeyPair>,
    pub(crate) ca_pem: String,
    pub(crate) server: PublicKey,
}

impl Deployment {
    pub(crate) async fn new() -> Self {
        let key = ServerKey::generate().unwrap();
        let ca = authority();
        let certificate = certificate_for(&ca, &key.to_pem().unwrap(), "VelociraptorServer");
        Self::with(ca, key.to_pem().unwrap(), certificate).await
    }

    /// With the server's key and certificate of a recording.
    pub(crate) async fn recorded(capture: &nublar_wire::testing::Capture) -> Self {
        let pem = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Self::with(
            authority(),
            pem(&capture.server_key),
            pem(&capture.server_certificate),
        )
        .await
    }

    async fn with(
        ca: CertifiedIssuer<'static, KeyPair>,
        agent_keys_pem: String,
        certificate_pem: String,
    ) -> Self {
        let tls = leaf(&ca);
        let org = |nonce: &str, id: &str| Org {
            nonce: nonce.into(),
            id: id.parse().unwrap(),
        };
        let log = FaultyLog::new(MemoryLog::new());
        log.inner().declare(&specs()).await.unwrap();
        let server = PublicKey::from_certificate_pem(certificate_pem.as_bytes()).unwrap();
        let (sender, credentials) = watch::channel(Credentials {
            certificate_pem,
            agent_keys_pem,
            tls: Some(tls),
        });
        Self {
            log,
            objects: MemoryObjects::new(),
            ca_pem: ca.pem(),
            ca,
            server,
            credentials: sender,
            secrets: Secrets {
                credentials,
                orgs: vec![
                    org(NONCE, ""),
                    org(RECORDED_NONCE, ""),
                    org("other org", "OTHER"),
                ],
                mac: mac(),
            },
        }
    }

    pub(crate) async fn start(&self) -> Running {
        self.start_with(|_| {}).await
    }

    /// Starts a frontend; returns when it is ready.
    pub(crate) async fn start_with(&self, change: impl FnOnce(&mut Config)) -> Running {
        let running = self.start_unready(change).await;
        let mut ready = running.ready.clone();
        ready.wait_for(|ready| *ready).await.unwrap();
        running
    }

    pub(crate) async fn start_unready(&self, change: impl FnOnce(&mut Config)) -> Running {
        let addr = "127.0.0.1:0".parse().unwrap();
        let mut config = Config {
            name: "test".into(),
            listen: vec![Listen { addr, tls: true }, Listen { addr, tls: false }],
            max_poll: Duration::from_secs(20),
            hold: Duration::from_secs(20),
            drain: Duration::from_secs(5),
            ..Config::default()
        };
        change(&mut config);
        let (log, objects) = (Arc::new(self.log.clone()), Arc::new(self.objects.clone()));
        let frontend = Frontend::bind(config, self.secrets.clone(), log, objects)
            .await
            .unwrap();
        let addresses = frontend.addresses();
        let shutdown = CancellationToken::new();
        Running {
            https: addresses[0],
            http: addresses.get(1).copied().unwrap_or(addresses[0]),
            name: frontend.name().to_owned(),
            metrics: frontend.metrics(),
            ready: frontend.ready(),
            shutdown: shutdown.clone(),
            serving: tokio::spawn(frontend.serve(shutdown)),
        }
    }

    /// All records of a topic.
    pub(crate) async fn records(&self, topic: &str) -> Vec<Record> {
        let log = self.log.inner();
        let count = log.partitions(topic).await.unwrap();
        let partitions: Vec<u32> = (0..count).collect();
        let mut tail = log.tail(topic, &partitions, From::Earliest).await.unwrap();
        let (mut records, mut caught_up) = (Vec::new(), 0);
        while caught_up < count {
            match tail.next().await.unwrap() {
                TailEvent::Record(record) => records.push(record),
                TailEvent::CaughtUp { .. } => caught_up += 1,
            }
        }
        records
    }

    pub(crate) async fn messages(&self, topic: &str) -> Vec<Messages> {
        let records = self.records(topic).await;
        records
            .iter()
            .map(|record| Messages::decode(&record.value).unwrap())
            .collect()
    }

    pub(crate) async fn scheduling(&self) -> Vec<Scheduling> {
        let records = self.records("scheduling").await;
        records
            .iter()
            .map(|record| Scheduling::decode(&record.value).unwrap())
            .collect()
    }

    pub(crate) async fn registry(&self) -> Vec<Registry> {
        let records = self.records("registry").await;
        records
            .iter()
            .map(|record| Registry::decode(&record.value).unwrap())
            .collect()
    }

    pub(crate) async fn dead_letters(&self) -> Vec<DeadLetter> {
        let records = self.records("dead-letters").await;
        records
            .iter()
            .map(|record| DeadLetter::decode(&record.value).unwrap())
            .collect()
    }

    /// Waits until the topic holds what is looked for.
    pub(crate) async fn wait_scheduling<T>(&self, find: impl Fn(&Scheduling) -> Option<T>) -> T {
        eventually(async || self.scheduling().await.iter().find_map(&find)).await
    }
}

/// A frontend that runs.
pub(crate) struct Running {
    pub(crate) https: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) name: String,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) ready: tokio::sync::watch::Receiver<bool>,
    pub(crate) shutdown: CancellationToken,
    serving: tokio::task::JoinHandle<Result<(), nublar_frontend::FrontendError>>,
}

impl Running {
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.serving.await.unwrap().unwrap();
    }
}

/// Repeats until there is something, for a minute.
pub(crate) async fn eventually<T>(look: impl AsyncFn() -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < until, "it did not happen within a minute");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What is seen once it has stayed the same for that long, which must be within a minute.
pub(crate) async fn at_rest<T: PartialEq>(quiet: Duration, look: impl AsyncFn() -> T) -> T {
    let until = Instant::now() + Duration::from_secs(60);
    let (mut last, mut since) = (look().await, Instant::now());
    while since.elapsed() < quiet {
        assert!(
            Instant::now() < until,
            "it did not come to rest within a minute"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = look().await;
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    last
}

pub(crate) fn mac() -> MacKeys {
    MacKeys::new(
        MacKey {
            from_us: 0,
            secret: [7; 32],
        },
        [],
    )
}

pub(crate) fn root(client: &str) -> ClientKey {
    ClientKey {
        org: OrgId::root(),
        client: client.parse().unwrap(),
    }
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params
        .distinguished_name
        .push(DnType::CommonName, "Test CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A new leaf for localhost.
pub(crate) fn leaf(ca: &CertifiedIssuer<'static, KeyPair>) -> TlsMaterial {
    let leaf = KeyPair::generate().unwrap();
    let key_pem = leaf.serialize_pem();
    TlsMaterial {
        chain_pem: certificate_for(ca, &key_pem, "localhost"),
        key_pem,
    }
}

pub(crate) fn certificate_for(
    ca: &CertifiedIssuer<'static, KeyPair>,
    key_pem: &str,
    name: &str,
) -> String {
    let key = KeyPair::from_pem(key_pem).unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.signed_by(&key, ca).unwrap().pem()
}

fn specs() -> Vec<TopicSpec> {
    let groups = |name: &str| match name {
        "results" | "uploads" | "events" => vec![name.to_owned()],
        _ => Vec::new(),
    };
    let spec = |topic: &topics::Topic| TopicSpec {
        name: topic.name.into(),
        partitions: match topic.partitions {
            Partitions::PerClients => PARTITIONS,
            Partitions::Fixed(n) => n,
        },
        retention: match topic.keep {
            Keep::For(age) => Retention::Age(age),
            Keep::Newest => Retention::Compacted,
        },
        groups: groups(topic.name),
    };
    topics::ALL.iter().map(spec).collect()
}
