//! Makes what a POST brought durable: cuts it, appends it in order, and lets the foreman know.

use crate::authenticate::Agent;
use crate::clock::now_us;
use crate::config::AdoptFlows;
use crate::cut::{CheckedIn, CutError, Piece, Rules, Seen, Throttle, To, cut};
use crate::dead_letters::dead_letter;
use crate::metrics::Metrics;
use crate::refusal::Refusal;
use crate::registry::Registry;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use nublar_core::ids::{ClientKey, ContentId, Life};
use nublar_core::mac::MacKeys;
use nublar_core::partition;
use nublar_ports::log::Append;
use nublar_ports::{Log, Objects};
use nublar_schemas::codec::Record as _;
use nublar_schemas::records::{
    AgentMessage, FlowStatsSeen, Header, Messages, Scheduling, SeenStats,
};
use nublar_schemas::topics::SCHEDULING;
use nublar_wire::Packed;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout, timeout_at};

/// Appends of one POST that are not acknowledged yet, at most.
const WINDOW: usize = 8;
/// Bodies up to this size are cut where they are; they inflate to 8 MiB at the very most.
const INLINE: usize = 8 << 10;
/// An agent waits 300 s for the head of an answer.
const WHOLE: Duration = Duration::from_secs(240);
/// Statistics of one POST go in one record, unless they are larger than any agent's.
const STATS_RECORD: usize = 4 << 20;

/// Stores POSTs. See the [module](self).
pub(crate) struct Store {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) objects: Arc<dyn Objects>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) mac: Arc<MacKeys>,
    pub(crate) adopt: AdoptFlows,
    pub(crate) throttle: Throttle,
    pub(crate) name: String,
    /// Partitions of clients.
    pub(crate) partitions: u32,
    /// Inflations at once.
    pub(crate) cutters: Arc<Semaphore>,
    /// How long one acknowledgement may take.
    pub(crate) wait: Duration,
    pub(crate) metrics: Arc<Metrics>,
}

fn not_stored(error: impl std::fmt::Display) -> Refusal {
    Refusal::Log(error.to_string())
}

impl Store {
    /// Returns when every record is acknowledged; the version of the agent's event table if the
    /// body held a check-in. Any failure may leave a part stored, which does no harm: the agent
    /// sends it again.
    pub(crate) async fn store(
        &self,
        agent: &Agent,
        packed: Packed,
        body_len: usize,
    ) -> Result<Option<CheckedIn>, Refusal> {
        let whole = Instant::now() + WHOLE.max(self.wait);
        match timeout_at(whole, self.twice(agent, &packed, body_len)).await {
            Ok(result) => result,
            Err(_) => Err(not_stored("the log was too slow")),
        }
    }

    async fn twice(
        &self,
        agent: &Agent,
        packed: &Packed,
        body_len: usize,
    ) -> Result<Option<CheckedIn>, Refusal> {
        let client = agent.client();
        let rules = self.rules(agent, agent.generation(), false);
        match self.attempt(packed, body_len, rules).await {
            Err(Failure::Doubt) => {}
            Err(Failure::Refused(refusal)) => return Err(refusal),
            Ok(check_in) => return Ok(check_in),
        }
        // The client may have been enrolled anew: its flows are then of a generation that is not
        // known here yet.
        self.metrics.rechecked.inc();
        let until = Instant::now() + self.wait;
        self.registry
            .current(client, until)
            .await
            .map_err(|_| Refusal::Registry)?;
        let Some(known) = self.registry.known(client) else {
            return Err(Refusal::Unknown(client.client.to_string()));
        };
        let rules = self.rules(agent, known.generation, true);
        match self.attempt(packed, body_len, rules).await {
            Ok(check_in) => Ok(check_in),
            Err(Failure::Refused(refusal)) => Err(refusal),
            Err(Failure::Doubt) => Err(not_stored("a foreign flow id was looked at twice")),
        }
    }

    fn rules(&self, agent: &Agent, generation: i64, certain: bool) -> Rules {
        let (client, at_us) = (agent.client(), now_us());
        Rules {
            mac: self.mac.clone(),
            adopt: self.adopt.at(at_us),
            client: client.clone(),
            header: Header {
                org: client.org.to_string(),
                client: client.client.to_string(),
                generation,
                at_us,
                frontend: self.name.clone(),
                trace: String::new(),
            },
            session_key: Bytes::copy_from_slice(&agent.checked.hash),
            throttle: self.throttle.clone(),
            certain,
        }
    }

    async fn attempt(
        &self,
        packed: &Packed,
        body_len: usize,
        rules: Rules,
    ) -> Result<Option<CheckedIn>, Failure> {
        let client = rules.client.clone();
        let mut appends = Appends::new(self, &rules);
        let seen = if body_len <= INLINE {
            appends.cut_here(packed, &rules).await?
        } else {
            appends.cut_beside(packed.clone(), rules).await?
        };
        appends.finish().await?;
        // After everything else: a marker in `scheduling` says that it stands in `results` and
        // `uploads` too.
        appends.statistics(&seen.stats).await?;
        self.throttle.heard(&client, seen.progress);
        self.metrics.ignored.add(seen.ignored as i64);
        Ok(seen.check_in)
    }
}

enum Failure {
    Doubt,
    Refused(Refusal),
}

impl From<CutError> for Failure {
    fn from(error: CutError) -> Self {
        match error {
            CutError::Doubt => Self::Doubt,
            other => Self::Refused(not_stored(other)),
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// The appends of one POST.
struct Appends<'a> {
    store: &'a Store,
    client: ClientKey,
    partition: u32,
    header: Header,
    session_key: Bytes,
    window: FuturesUnordered<Append>,
}

impl<'a> Appends<'a> {
    fn new(store: &'a Store, rules: &Rules) -> Self {
        Self {
            store,
            partition: partition::of_client(&rules.client, store.partitions),
            client: rules.client.clone(),
            header: rules.header.clone(),
            session_key: rules.session_key.clone(),
            window: FuturesUnordered::new(),
        }
    }

    async fn cut_here(&mut self, packed: &Packed, rules: &Rules) -> Result<Seen, Failure> {
        let mut pieces = Vec::new();
        let seen = cut(packed, rules, &mut |piece| {
            pieces.push(piece);
            true
        })?;
        for piece in pieces {
            self.take(piece).await?;
        }
        Ok(seen)
    }

    /// Inflates on a thread that may be busy, one piece ahead of the appends.
    async fn cut_beside(&mut self, packed: Packed, rules: Rules) -> Result<Seen, Failure> {
        let permit = self
            .store
            .cutters
            .clone()
            .acquire_owned()
            .await
            .map_err(not_stored)?;
        let (sender, mut pieces) = mpsc::channel(1);
        let cutting = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            cut(&packed, &rules, &mut |piece| {
                sender.blocking_send(piece).is_ok()
            })
        });
        while let Some(piece) = pieces.recv().await {
            self.take(piece).await?;
        }
        Ok(cutting.await.map_err(not_stored)??)
    }

    async fn take(&mut self, piece: Piece) -> Result<(), Refusal> {
        match piece {
            // Before anything of theirs: an agent that is started anew does not know its flows, and
            // one with something in the log, but no sign of life, would be sent again.
            Piece::Alive(signs) => {
                self.statistics(&signs).await?;
                self.store.throttle.live(&self.client, &signs);
                Ok(())
            }
            Piece::Record {
                to,
                messages,
                value,
            } => {
                self.store.metrics.messages.add(messages as i64);
                self.append(to.topic(), value).await
            }
            Piece::Large { to, message } => self.large(to, message).await,
            Piece::Refused { reason, text, copy } => {
                tracing::warn!(client = %self.header.client, reason, text, "message refused");
                self.store.metrics.dead_letters.inc();
                let letter = dead_letter(&*self.store.log, self.header.clone(), reason, text, copy);
                self.push(letter).await
            }
        }
    }

    /// Puts the message into an object and a reference to it into the log.
    async fn large(&mut self, to: To, message: AgentMessage) -> Result<(), Refusal> {
        let life = Life {
            client: self.client.clone(),
            generation: self.header.generation,
        };
        let key = format!("{}{}", life.messages(), ContentId::of(&[&message.bytes]));
        let put = timeout(self.store.wait, self.store.objects.put(&key, message.bytes));
        put.await.map_err(not_stored)?.map_err(not_stored)?;
        self.store.metrics.objects.inc();
        self.store.metrics.messages.inc();
        let message = AgentMessage {
            session: message.session,
            bytes: Bytes::new(),
            object: Some(key),
        };
        let record = Messages {
            header: self.header.clone(),
            messages: vec![message],
            session_key: self.session_key.clone(),
        };
        self.append(to.topic(), record.encode().map_err(not_stored)?)
            .await
    }

    async fn statistics(&mut self, stats: &[SeenStats]) -> Result<(), Refusal> {
        let mut rest = stats;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take_while(|seen| {
                bytes += seen.session.len() + seen.bytes.len();
                bytes <= STATS_RECORD
            });
            let (now, later) = rest.split_at(fits.count().max(1));
            rest = later;
            let record = Scheduling::from(FlowStatsSeen {
                header: self.header.clone(),
                stats: now.to_vec(),
            });
            self.append(SCHEDULING.name, record.encode().map_err(not_stored)?)
                .await?;
        }
        self.finish().await
    }

    async fn append(&mut self, topic: &str, value: Vec<u8>) -> Result<(), Refusal> {
        let key = Bytes::copy_from_slice(self.header.client.as_bytes());
        self.store.metrics.records.inc();
        let append = self
            .store
            .log
            .append(topic, self.partition, key, value.into());
        self.push(append).await
    }

    async fn push(&mut self, append: Append) -> Result<(), Refusal> {
        self.window.push(append);
        while self.window.len() >= WINDOW {
            self.one().await?;
        }
        Ok(())
    }

    async fn one(&mut self) -> Result<(), Refusal> {
        match timeout(self.store.wait, self.window.next()).await {
            Ok(Some(Err(error))) => Err(not_stored(error)),
            Ok(_) => Ok(()),
            Err(_) => Err(not_stored("the log did not answer in time")),
        }
    }

    async fn finish(&mut self) -> Result<(), Refusal> {
        while !self.window.is_empty() {
            self.one().await?;
        }
        Ok(())
    }
}
