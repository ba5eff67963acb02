//! From a body to an agent that is known to be who it says, or to a refusal.

use crate::config::Org;
use crate::enrol;
use crate::identity::Identity;
use crate::metrics::Metrics;
use crate::refusal::Refusal;
use crate::registry::{Known, Registry};
use bytes::Bytes;
use moka::sync::Cache;
use nublar_core::ids::{ClientId, ClientKey, ContentId, OrgId};
use nublar_ports::Log;
use nublar_wire::{
    API_VERSION, AgentPublicKey, Envelope, OutboundSession, Packed, Session, UnverifiedSession,
    WireError,
};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, timeout_at};

const STRIPES: u64 = 256;
/// A session that nobody uses for so long is forgotten: agents make new ones whenever they start or
/// lose their connection, and never come back to an old one. One that does costs a private key
/// operation.
const IDLE: Duration = Duration::from_secs(1_800);

/// A session whose sender was checked once.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) client: ClientKey,
    /// Hash of the encrypted session, which names it.
    pub(crate) hash: [u8; 16],
    session: Session,
    known: Known,
}

/// An agent that is who it says.
#[derive(Debug, Clone)]
pub(crate) struct Agent {
    pub(crate) checked: Arc<Checked>,
    /// The nonce of its org, for answers.
    pub(crate) nonce: Arc<str>,
}

impl Agent {
    pub(crate) fn client(&self) -> &ClientKey {
        &self.checked.client
    }

    pub(crate) fn generation(&self) -> i64 {
        self.checked.known.generation
    }
}

/// A body that says something, in the protocol that we speak.
pub(crate) fn envelope(body: Bytes) -> Result<Envelope, Refusal> {
    let envelope = Envelope::parse(body).map_err(Refusal::Malformed)?;
    if envelope.is_pad() {
        return Err(Refusal::Malformed(WireError::OnlyPadding));
    }
    if envelope.api_version() < API_VERSION {
        return Err(Refusal::Old(envelope.api_version()));
    }
    Ok(envelope)
}

/// Our session with an agent: good for one key of ours and for one enrolment of the agent's.
struct Outbound {
    server: Bytes,
    agent: Known,
    session: OutboundSession,
}

/// A body that was opened by a private key, of a sender who may be anybody.
struct Opened {
    envelope: Envelope,
    unverified: UnverifiedSession,
    packed: Packed,
}

/// Checks who sends. See the [module](self).
pub(crate) struct Authenticator {
    identity: Arc<Identity>,
    server_name: String,
    orgs: HashMap<String, (OrgId, Arc<str>)>,
    registry: Arc<Registry>,
    log: Arc<dyn Log>,
    name: String,
    sessions: Cache<Bytes, Arc<Checked>>,
    outbound: Cache<ClientKey, Arc<Outbound>>,
    /// Misses of one session wait for each other.
    stripes: Vec<Mutex<()>>,
    /// Private key operations at once.
    private: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

/// What an authenticator is made of.
pub(crate) struct Parts {
    pub(crate) identity: Arc<Identity>,
    pub(crate) server_name: String,
    pub(crate) orgs: Vec<Org>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) name: String,
    pub(crate) sessions: u64,
    pub(crate) metrics: Arc<Metrics>,
}

fn lately_used<K, V>(at_most: u64) -> Cache<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    Cache::builder()
        .max_capacity(at_most)
        .time_to_idle(IDLE)
        .build()
}

impl Authenticator {
    pub(crate) fn new(parts: Parts) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let orgs = parts.orgs.into_iter().map(|org| {
            let nonce: Arc<str> = org.nonce.as_str().into();
            (org.nonce, (org.id, nonce))
        });
        Self {
            identity: parts.identity,
            server_name: parts.server_name,
            orgs: orgs.collect(),
            registry: parts.registry,
            log: parts.log,
            name: parts.name,
            sessions: lately_used(parts.sessions),
            outbound: lately_used(parts.sessions),
            stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
            private: Arc::new(Semaphore::new((cores / 2).max(1))),
            metrics: parts.metrics,
        }
    }

    /// Who sent the body, and what is inside it.
    pub(crate) async fn check(
        &self,
        envelope: Envelope,
        until: Instant,
    ) -> Result<(Agent, Packed), Refusal> {
        let found = self.find(envelope, until).await?;
        let key = found.0.checked.session.server_key();
        if self.identity.now().keys.newest().public_key() != key.public_key() {
            self.metrics.older_key.inc();
        }
        Ok(found)
    }

    async fn find(&self, envelope: Envelope, until: Instant) -> Result<(Agent, Packed), Refusal> {
        if let Some(found) = self.by_cache(&envelope)? {
            return Ok(found);
        }
        let opened = {
            let _turn = self.stripe(envelope.cipher()).lock().await;
            if let Some(found) = self.by_cache(&envelope)? {
                return Ok(found);
            }
            let opened = self.open(envelope, until).await?;
            if let Some(agent) = self.by_registry(&opened)? {
                return Ok((agent, opened.packed));
            }
            opened
        };
        self.unknown(opened, until).await
    }

    /// A refusal only for what no other session could explain.
    fn by_cache(&self, envelope: &Envelope) -> Result<Option<(Agent, Packed)>, Refusal> {
        let Some(checked) = self.sessions.get(envelope.cipher()) else {
            return Ok(None);
        };
        if !self.identity.now().has(checked.session.server_key()) {
            return Ok(None);
        }
        let packed = checked
            .session
            .open(envelope)
            .map_err(|error| match error {
                WireError::BadHmac => Refusal::Hmac(error),
                error => Refusal::Poison {
                    client: checked.client.to_string(),
                    error,
                },
            })?;
        let Some((org, nonce)) = self.orgs.get(packed.nonce()) else {
            return Ok(None);
        };
        let still = *org == checked.client.org
            && self
                .registry
                .known(&checked.client)
                .is_some_and(|known| known == checked.known);
        if !still {
            return Ok(None);
        }
        Ok(Some((
            Agent {
                checked,
                nonce: nonce.clone(),
            },
            packed,
        )))
    }

    fn stripe(&self, cipher: &[u8]) -> &Mutex<()> {
        let mut hasher = DefaultHasher::new();
        cipher.hash(&mut hasher);
        &self.stripes[(hasher.finish() % STRIPES) as usize]
    }

    /// One private key operation, of which only a few run at once.
    async fn open(&self, envelope: Envelope, until: Instant) -> Result<Opened, Refusal> {
        let keys = self.identity.now().keys.clone();
        let metrics = self.metrics.clone();
        let opened = self.on_private(until, move || {
            metrics.sessions_opened.inc();
            let unverified = envelope
                .unwrap_session(&keys)
                .map_err(Refusal::of_envelope)?;
            let packed = unverified.open(&envelope).map_err(Refusal::of_envelope)?;
            Ok(Opened {
                envelope,
                unverified,
                packed,
            })
        });
        opened.await?
    }

    async fn on_private<T: Send + 'static>(
        &self,
        until: Instant,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let permit = timeout_at(until, self.private.clone().acquire_owned()).await;
        let Ok(Ok(permit)) = permit else {
            return Err(Refusal::Busy);
        };
        let work = move || {
            let _permit = permit;
            work()
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|_| Refusal::Busy)
    }

    /// The client that the sender claims to be, whether or not it is.
    fn claimed(&self, opened: &Opened) -> Result<Option<(ClientKey, Arc<str>)>, Refusal> {
        let source = opened.unverified.source();
        let Ok(client) = source.parse::<ClientId>() else {
            return Err(Refusal::Source(source.chars().take(64).collect()));
        };
        let org = self.orgs.get(opened.packed.nonce());
        Ok(org.map(|(org, nonce)| {
            (
                ClientKey {
                    org: org.clone(),
                    client,
                },
                nonce.clone(),
            )
        }))
    }

    fn by_registry(&self, opened: &Opened) -> Result<Option<Agent>, Refusal> {
        let Some((client, nonce)) = self.claimed(opened)? else {
            return Ok(None);
        };
        let Some(known) = self.registry.known(&client) else {
            return Ok(None);
        };
        let Ok(public) = AgentPublicKey::from_der(&known.key) else {
            tracing::error!(%client, "the registry holds a key that can not be read");
            return Ok(None);
        };
        let Ok(session) = opened.unverified.verify(&public) else {
            return Ok(None);
        };
        let cipher = Bytes::copy_from_slice(opened.envelope.cipher());
        let hash = *ContentId::of(&[&cipher]).as_bytes();
        let checked = Arc::new(Checked {
            client,
            hash,
            session,
            known,
        });
        self.sessions.insert(cipher, checked.clone());
        Ok(Some(Agent { checked, nonce }))
    }

    /// Not known here. Before that is said to the agent, which then forgets what it sent, the
    /// registry is read up to now.
    async fn unknown(&self, opened: Opened, until: Instant) -> Result<(Agent, Packed), Refusal> {
        let claimed = self.claimed(&opened)?;
        let source = opened.unverified.source().to_owned();
        let Some((client, _)) = claimed else {
            // Orgs are given at the start; still nobody is sent away while the log is.
            let nobody = ClientKey {
                org: OrgId::root(),
                client: source
                    .parse()
                    .map_err(|_| Refusal::Source(source.clone()))?,
            };
            self.registry
                .current(&nobody, until)
                .await
                .map_err(|_| Refusal::Registry)?;
            return Err(Refusal::Nonce(source));
        };
        self.registry
            .current(&client, until)
            .await
            .map_err(|_| Refusal::Registry)?;
        if let Some(agent) = self.by_registry(&opened)? {
            return Ok((agent, opened.packed));
        }
        if self.registry.known(&client).is_none()
            && let Some(request) = enrol::find_request(&opened.packed)
        {
            let key = enrol::check(&request, &opened.unverified).map_err(|error| Refusal::Csr {
                client: source.clone(),
                error,
            })?;
            let generation = self.registry.life(&client);
            let partition = self.registry.partition(&client);
            let append =
                enrol::append(&*self.log, partition, &client, generation, &key, &self.name);
            return match timeout_at(until, append).await {
                Ok(Ok(())) => Err(Refusal::Enrolled(source)),
                Ok(Err(error)) => Err(Refusal::Log(error)),
                Err(_) => Err(Refusal::Log("the registry did not answer in time".into())),
            };
        }
        Err(Refusal::Unknown(source))
    }

    /// Makes a body for the agent of these serialized messages.
    pub(crate) async fn seal(
        &self,
        agent: &Agent,
        messages: &[Bytes],
        now_us: i64,
        until: Instant,
    ) -> Result<Bytes, Refusal> {
        let outbound = self.outbound(&agent.checked, until).await?;
        outbound
            .session
            .seal(messages, &agent.nonce, u64::try_from(now_us).unwrap_or(0))
            .map_err(|error| Refusal::Log(error.to_string()))
    }

    async fn outbound(&self, to: &Arc<Checked>, until: Instant) -> Result<Arc<Outbound>, Refusal> {
        let server = to.session.server_key().public_key().to_der();
        if let Some(outbound) = self.outbound.get(&to.client)
            && outbound.server == server
            && outbound.agent == to.known
        {
            return Ok(outbound);
        }
        let (checked, name) = (to.clone(), self.server_name.clone());
        let signed = self.on_private(until, move || {
            let agent = AgentPublicKey::from_der(&checked.known.key)?;
            OutboundSession::new(checked.session.server_key(), &agent, &name)
        });
        let session = signed
            .await?
            .map_err(|error| Refusal::Log(error.to_string()))?;
        self.metrics.sessions_signed.inc();
        let outbound = Arc::new(Outbound {
            server,
            agent: to.known.clone(),
            session,
        });
        self.outbound.insert(to.client.clone(), outbound.clone());
        Ok(outbound)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::config::Credentials;
    use futures::future::join_all;
    use nublar_ports::log::{MemoryLog, Retention, TopicSpec};
    use nublar_schemas::agent::{Certificate, VeloMessage};
    use nublar_schemas::topics::REGISTRY;
    use nublar_wire::{AgentKey, AgentSession, Compression, Plaintext, ServerKey, message_list};
    use prost::Message as _;
    use rcgen::{CertificateParams, KeyPair};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;
    use tokio::runtime::Handle;
    use tokio_util::sync::{CancellationToken, DropGuard};

    const NONCE: &str = "a nonce of the tests";

    struct Stage {
        authenticator: Authenticator,
        server: ServerKey,
        _reading: DropGuard,
    }

    impl Stage {
        async fn new() -> Self {
            let log = MemoryLog::new();
            let topic = TopicSpec {
                name: REGISTRY.name.into(),
                partitions: 1,
                retention: Retention::Compacted,
                groups: Vec::new(),
            };
            log.declare(&[topic]).await.unwrap();
            let server = ServerKey::generate().unwrap();
            let key_pem = server.to_pem().unwrap();
            let params = CertificateParams::new(Vec::new()).unwrap();
            let certificate = params.self_signed(&KeyPair::from_pem(&key_pem).unwrap());
            let credentials = Credentials {
                certificate_pem: certificate.unwrap().pem(),
                agent_keys_pem: key_pem,
                tls: None,
            };
            let (log, metrics) = (Arc::new(log), Arc::new(Metrics::default()));
            let registry = Arc::new(Registry::new(log.clone(), 1, metrics.clone()));
            let reading = CancellationToken::new();
            tokio::spawn({
                let (registry, reading) = (registry.clone(), reading.clone());
                async move { registry.run(|_, _| {}, reading).await }
            });
            let authenticator = Authenticator::new(Parts {
                identity: Arc::new(Identity::new(&credentials).unwrap()),
                server_name: "VelociraptorServer".into(),
                orgs: vec![Org {
                    nonce: NONCE.into(),
                    id: OrgId::root(),
                }],
                registry,
                log,
                name: "test".into(),
                sessions: 1_000,
                metrics,
            });
            Self {
                authenticator,
                server,
                _reading: reading.drop_guard(),
            }
        }

        /// A body of a new session of this key, with its certificate request.
        fn request(&self, key: &AgentKey) -> Bytes {
            let message = VeloMessage {
                session_id: "E:Enrol".into(),
                csr: Some(Certificate {
                    pem: key.csr_pem().unwrap().into(),
                    ..Certificate::default()
                }),
                ..VeloMessage::default()
            };
            self.body(key, &message)
        }

        fn body(&self, key: &AgentKey, message: &VeloMessage) -> Bytes {
            let list = message_list(&[message.encode_to_vec().into()]);
            let plain = Plaintext::new(&[list], Compression::Zlib, NONCE, 7);
            let session = AgentSession::new(key, self.server.public_key()).unwrap();
            session.seal(&plain).unwrap()
        }

        async fn check(&self, body: &Bytes, within: Duration) -> Result<Agent, Refusal> {
            let until = Instant::now() + within;
            let checked = self.authenticator.check(envelope(body.clone())?, until);
            checked.await.map(|(agent, _)| agent)
        }

        fn opened(&self) -> i64 {
            self.authenticator.metrics.sessions_opened.get()
        }
    }

    const SOON: Duration = Duration::from_secs(20);

    #[tokio::test(flavor = "multi_thread")]
    async fn no_more_private_key_operations_run_at_once_than_there_are_processors() {
        let stage = Stage::new().await;
        let processors = std::thread::available_parallelism().unwrap().get();
        let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let counts = Arc::new((running, most));
        let work = || {
            let counts = counts.clone();
            stage
                .authenticator
                .on_private(Instant::now() + SOON, move || {
                    let (running, most) = &*counts;
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(20));
                    running.fetch_sub(1, Ordering::SeqCst);
                })
        };
        let done = join_all((0..8 * processors).map(|_| work())).await;
        assert!(done.iter().all(Result::is_ok));
        let most = counts.1.load(Ordering::SeqCst);
        assert!((1..=processors).contains(&most), "{most} ran at once");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_flood_of_strangers_waits_its_turn_and_who_is_known_does_not() {
        const STRANGERS: i64 = 64;
        let stage = Stage::new().await;
        let known = stage.request(&AgentKey::generate().unwrap());
        let enrolled = stage.check(&known, SOON).await;
        assert!(matches!(enrolled, Err(Refusal::Enrolled(_))));
        assert!(stage.check(&known, SOON).await.is_ok());

        // Every private key operation that may run at once does.
        let turns = stage.authenticator.private.available_permits();
        assert!(turns <= std::thread::available_parallelism().unwrap().get());
        let (release, begun) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
        let _release = release.clone().drop_guard();
        let occupy = |_| {
            let (released, begun) = (release.clone(), begun.clone());
            stage
                .authenticator
                .on_private(Instant::now() + SOON, move || {
                    begun.fetch_add(1, Ordering::SeqCst);
                    Handle::current().block_on(released.cancelled());
                })
        };
        let occupied = join_all((0..turns).map(occupy));
        let flood = async {
            while begun.load(Ordering::SeqCst) < turns {
                tokio::task::yield_now().await;
            }
            let before = stage.opened();
            let key = AgentKey::generate().unwrap();
            let stranger = |_| stage.body(&key, &VeloMessage::default());
            let strangers: Vec<_> = (0..STRANGERS).map(stranger).collect();
            let refused = strangers
                .iter()
                .map(|body| stage.check(body, Duration::from_millis(300)));
            let (refused, let_in) = tokio::join!(join_all(refused), stage.check(&known, SOON));
            assert!(let_in.is_ok());
            assert!(refused.iter().all(|one| matches!(one, Err(Refusal::Busy))));
            assert_eq!(stage.opened(), before, "it costs nothing but waiting");
            release.cancel();
            let refused = join_all(strangers.iter().map(|body| stage.check(body, SOON))).await;
            let unknown = |one: &Result<_, _>| matches!(one, Err(Refusal::Unknown(_)));
            assert!(refused.iter().all(unknown));
            assert_eq!(stage.opened(), before + STRANGERS, "one each");
        };
        let (occupied, ()) = tokio::join!(occupied, flood);
        assert!(occupied.iter().all(Result::is_ok));
    }
}
