//! Groups `results`, `uploads` and `events`: what agents sent becomes documents.

use crate::lives::Lives;
use crate::persist::persist;
use crate::purge;
use crate::stored::{self, Poisoned};
use crate::{Config, Ports, letters, now_us};
use bytes::Bytes;
use futures::StreamExt;
use futures::future::join_all;
use futures::stream;
use nublar_core::ids::{ClientKey, ContentId, FlowId, Life};
use nublar_core::ingest::{Group, Plan, Sums, message_id, plan};
use nublar_core::partition::of_client;
use nublar_ports::Membership;
use nublar_ports::index::Collection;
use nublar_ports::log::{GroupEvent, Position, Record};
use nublar_ports::objects::ObjectsError;
use nublar_schemas::codec::{CodecError, Record as _};
use nublar_schemas::records::{AgentMessage, DeadLetter, FactsSet, Header, Messages};
use nublar_schemas::topics::SCHEDULING;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const BATCH_RECORDS: usize = 256;
const BATCH_BYTES: usize = 8 << 20;
/// Flows that are counted side by side when their partition was taken over.
const COUNTS_AT_ONCE: usize = 16;
/// How long an object that is not there is left alone.
const MISSING: Duration = Duration::from_secs(1);

/// Which topic of agents' messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Results,
    Uploads,
    Events,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Results => "results",
            Self::Uploads => "uploads",
            Self::Events => "events",
        }
    }

    /// Where its documents go.
    fn collections(self) -> &'static [Collection] {
        match self {
            Self::Results => &[Collection::Rows, Collection::Logs],
            Self::Uploads => &[Collection::Buffers],
            Self::Events => &[Collection::Events],
        }
    }

    /// The totals that this group reports; events belong to no flow.
    fn sums(self) -> Group {
        match self {
            Self::Uploads => Group::Uploads,
            Self::Results | Self::Events => Group::Results,
        }
    }
}

/// A partition that is ours.
struct Owned {
    epoch: u64,
    sums: Sums,
    /// Everything before this is written, but not marked yet.
    written: Option<Position>,
    /// Whose records were written, or could have been, and are not marked yet.
    touched: BTreeSet<Life>,
    /// A record that cannot be read stands in the way.
    halted: bool,
}

struct Worker {
    stream: Stream,
    config: Config,
    ports: Ports,
    lives: Arc<Lives>,
    partitions: u32,
    member: Membership,
    owned: BTreeMap<u32, Owned>,
    reported: Instant,
}

/// A record that is to be stored.
struct Planned {
    partition: u32,
    life: Life,
    messages: Messages,
    plan: Plan,
}

pub(crate) async fn run(
    stream: Stream,
    config: Config,
    ports: Ports,
    lives: Arc<Lives>,
    shutdown: CancellationToken,
) {
    let work = async {
        let partitions = persist("log", || ports.log.partitions(SCHEDULING.name)).await;
        let member = Membership::join(
            ports.log.clone(),
            stream.name(),
            stream.name(),
            shutdown.clone(),
        );
        let owned = BTreeMap::new();
        let mut worker = Worker {
            stream,
            config,
            ports,
            lives,
            partitions,
            member,
            owned,
            reported: Instant::now(),
        };
        worker.work(&shutdown).await;
    };
    // A store that is down is waited for, but not beyond the end of the process: nothing of it
    // was marked, so it is done again.
    tokio::select! {
        () = work => {}
        () = async { shutdown.cancelled().await; tokio::time::sleep(Duration::from_secs(10)).await } => {}
    }
}

impl Worker {
    async fn work(&mut self, shutdown: &CancellationToken) {
        let every = Duration::from_millis(self.config.report_ms);
        loop {
            let event = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                event = self.member.next() => Some(event),
                () = tokio::time::sleep_until(self.reported + every) => None,
            };
            let mut batch = Vec::new();
            let mut bytes = 0;
            let mut next = event;
            while let Some(event) = next {
                match event {
                    GroupEvent::Record(record) => {
                        bytes += record.value.len();
                        batch.push(record);
                    }
                    GroupEvent::Assigned {
                        partition, epoch, ..
                    } => self.assigned(partition, epoch),
                    GroupEvent::Revoked { partition } => {
                        self.purge_ended(&[partition]).await;
                        self.owned.remove(&partition);
                        batch.retain(|record: &Record| record.partition != partition);
                    }
                }
                let full = batch.len() >= BATCH_RECORDS || bytes >= BATCH_BYTES;
                next = if full { None } else { self.member.try_next() };
            }
            if !batch.is_empty() {
                self.store(batch).await;
            }
            let closing = self.owned.values().any(|owned| owned.sums.urgent());
            if closing || self.reported.elapsed() >= every {
                self.report().await;
            }
        }
        self.report().await;
        self.member.flush().await;
    }

    fn assigned(&mut self, partition: u32, epoch: u64) {
        let sums = Sums::new(self.stream.sums(), now_us(), self.config.flows_in_memory);
        self.owned.insert(
            partition,
            Owned {
                epoch,
                sums,
                written: None,
                touched: BTreeSet::new(),
                halted: false,
            },
        );
    }

    /// Brings a batch as far as the mark.
    async fn store(&mut self, batch: Vec<Record>) {
        let mut plans: Vec<Planned> = Vec::new();
        let mut written: HashMap<u32, Position> = HashMap::new();
        for record in batch {
            let partition = record.partition;
            if self.owned.get(&partition).is_none_or(|owned| owned.halted) {
                continue;
            }
            match self.planned(&record).await {
                Ok(planned) => plans.extend(planned),
                Err(error) => {
                    tracing::error!(
                        topic = self.stream.name(), partition, offset = record.position.offset, %error,
                        "halting the partition: nothing behind this record is read until it can be"
                    );
                    if let Some(owned) = self.owned.get_mut(&partition) {
                        owned.halted = true;
                    }
                    continue;
                }
            }
            let next = record.position.after();
            written.insert(partition, next);
        }
        self.load_sums(&plans).await;

        let by_life: Vec<_> = plans
            .iter()
            .map(|planned| (planned.life.clone(), planned.plan.clone()))
            .collect();
        let poisoned = stored::write(&self.ports, &by_life).await;
        self.follow(&plans, poisoned).await;
        for planned in plans {
            if let Some(owned) = self.owned.get_mut(&planned.partition) {
                owned.sums.written(&planned.life, &planned.plan);
                owned.touched.insert(planned.life);
            }
        }
        for (partition, next) in written {
            if let Some(owned) = self.owned.get_mut(&partition) {
                owned.written = Some(next);
            }
        }
    }

    /// The record's plan; none when it is damaged or its client was deleted, and it was put aside.
    /// An error halts the partition.
    async fn planned(&mut self, record: &Record) -> Result<Option<Planned>, CodecError> {
        let mut messages = match Messages::decode(&record.value) {
            Ok(messages) => messages,
            Err(error @ CodecError::UnknownFingerprint(_)) => return Err(error),
            Err(error) => {
                self.put_aside(record, &Header::default(), "damaged", &error.to_string())
                    .await;
                return Ok(None);
            }
        };
        let life = match Life::of(&messages.header) {
            Ok(life) => life,
            Err(error) => {
                self.put_aside(record, &messages.header, "client", &error.to_string())
                    .await;
                return Ok(None);
            }
        };
        self.lives.learn(&life);
        if self.lives.has_ended(&life) || !self.fetch(record.partition, &life, &mut messages).await
        {
            self.refuse(record, &life, messages).await;
            return Ok(None);
        }
        let plan = plan(&life.client, &messages, &self.config.names);
        Ok(Some(Planned {
            partition: record.partition,
            life,
            messages,
            plan,
        }))
    }

    /// Reads the messages that stand in objects. False when they went with their client.
    async fn fetch(&self, partition: u32, life: &Life, messages: &mut Messages) -> bool {
        for message in &mut messages.messages {
            let Some(object) = &message.object else {
                continue;
            };
            message.bytes = loop {
                let read = persist("objects", || async {
                    match self.ports.objects.get(object, None).await {
                        Err(ObjectsError::NotFound(_)) => Ok(None),
                        read => read.map(Some),
                    }
                });
                if let Some(bytes) = read.await {
                    break bytes;
                }
                self.lives.current(partition).await;
                if self.lives.has_ended(life) {
                    return false;
                }
                tracing::error!(client = %life.client, object, "an object is not there, waiting for it");
                tokio::time::sleep(MISSING).await;
            };
        }
        true
    }

    /// Puts a record aside whose client was deleted, and takes back what another worker may have
    /// written of it.
    async fn refuse(&mut self, record: &Record, life: &Life, messages: Messages) {
        let text = format!(
            "generation {} of client {} has ended: it was deleted",
            life.generation, life.client
        );
        self.put_aside(record, &messages.header, "deleted", &text)
            .await;
        for message in &messages.messages {
            if let Some(object) = &message.object {
                persist("objects", || self.ports.objects.delete(object)).await;
            }
        }
        let plan = plan(&life.client, &messages, &self.config.names);
        purge::take_back(&self.ports, &life.client, &plan).await;
    }

    /// Counts what another worker may have stored of the flows that come now.
    async fn load_sums(&mut self, plans: &[Planned]) {
        if self.stream == Stream::Events {
            return;
        }
        let group = self.stream.sums();
        let mut wanted: BTreeMap<(u32, Life), Vec<FlowId>> = BTreeMap::new();
        for planned in plans {
            let Some(owned) = self.owned.get(&planned.partition) else {
                continue;
            };
            let flows = wanted
                .entry((planned.partition, planned.life.clone()))
                .or_default();
            for flow in owned.sums.unknown(&planned.life, &planned.plan) {
                if !flows.contains(&flow) {
                    flows.push(flow);
                }
            }
        }
        wanted.retain(|_, flows| !flows.is_empty());
        if wanted.is_empty() {
            return;
        }
        stored::refresh(&self.ports, group).await;
        let wanted = wanted.into_iter().flat_map(|((partition, life), flows)| {
            flows
                .into_iter()
                .map(move |flow| (partition, life.clone(), flow))
        });
        let counts = wanted.map(|(partition, life, flow)| {
            let ports = &self.ports;
            async move {
                let sum = stored::count(ports, group, &life, &flow).await;
                (partition, life, flow, sum)
            }
        });
        let counts: Vec<_> = stream::iter(counts)
            .buffer_unordered(COUNTS_AT_ONCE)
            .collect()
            .await;
        for (partition, life, flow, sum) in counts {
            if let Some(owned) = self.owned.get_mut(&partition) {
                owned.sums.load(&life, flow, sum);
            }
        }
    }

    /// What follows at once from what was written: facts, and messages that cannot be stored.
    async fn follow(&self, plans: &[Planned], poisoned: Vec<Poisoned>) {
        for planned in plans {
            let (header, client) = (&planned.messages.header, &planned.life.client);
            for fact in &planned.plan.facts {
                let facts = FactsSet {
                    header: Header {
                        frontend: self.config.name.clone(),
                        ..header.clone()
                    },
                    source: fact.source.clone(),
                    facts: fact.facts.clone(),
                    session_key: planned.messages.session_key.clone(),
                };
                self.append(
                    SCHEDULING.name,
                    of_client(client, self.partitions),
                    client,
                    facts.encode(),
                )
                .await;
            }
            for refused in &planned.plan.refused {
                let (reason, text) = (refused.reason, &refused.text);
                self.refused(&planned.messages, reason, text, &refused.message)
                    .await;
            }
        }
        for Poisoned { part, text } in poisoned {
            let found = plans.iter().find_map(|planned| {
                let messages = &planned.messages;
                let message = message_of(&planned.life.client, messages, &part.id)?;
                Some((messages, message))
            });
            match found {
                Some((of, message)) => self.refused(of, "index", &text, message).await,
                None => tracing::error!(id = %part.id, text, "a document of no message is lost"),
            }
        }
    }

    /// Reports the totals that changed, then marks what they count.
    async fn report(&mut self) {
        self.reported = Instant::now();
        let at_us = now_us();
        let mut appends = Vec::new();
        if self.stream != Stream::Events {
            for owned in self.owned.values_mut() {
                for (life, stored) in owned
                    .sums
                    .report(|life| header(life, at_us, &self.config.name))
                {
                    let partition = of_client(&life.client, self.partitions);
                    appends.push((partition, life.client, stored.encode()));
                }
            }
        }
        let appends = appends.into_iter().map(|(partition, key, value)| {
            let this = &*self;
            async move { this.append(SCHEDULING.name, partition, &key, value).await }
        });
        join_all(appends).await;
        let owned: Vec<u32> = self.owned.keys().copied().collect();
        self.purge_ended(&owned).await;
        for (partition, owned) in &mut self.owned {
            // What could not be looked at again stays unmarked.
            if owned.touched.is_empty()
                && let Some(next) = owned.written.take()
            {
                self.member.mark(*partition, owned.epoch, next);
            }
        }
    }

    /// Before a mark: whose generation has ended since their records were looked at, of them
    /// nothing stays. They were written by what was known then, and whoever ended them may have
    /// removed everything before that.
    async fn purge_ended(&mut self, partitions: &[u32]) {
        let touched: Vec<(u32, BTreeSet<Life>)> = partitions
            .iter()
            .filter_map(|partition| {
                let owned = self.owned.get_mut(partition)?;
                Some((*partition, std::mem::take(&mut owned.touched)))
            })
            .filter(|(_, touched)| !touched.is_empty())
            .collect();
        let looks = touched
            .iter()
            .map(|(partition, _)| self.lives.current(*partition));
        let looked = join_all(looks).await;
        for ((partition, touched), is_current) in touched.into_iter().zip(looked) {
            for life in touched.iter().filter(|life| self.lives.has_ended(life)) {
                purge::purge(&self.ports, life, self.stream.collections()).await;
            }
            if !is_current && let Some(owned) = self.owned.get_mut(&partition) {
                owned.touched = touched;
            }
        }
    }

    /// A whole record that cannot be read.
    async fn put_aside(&self, record: &Record, of: &Header, reason: &str, text: &str) {
        let offset = i64::try_from(record.position.offset).unwrap_or(i64::MAX);
        let at_us = if of.at_us > 0 { of.at_us } else { now_us() };
        self.dead_letter(DeadLetter {
            header: Header {
                at_us,
                ..of.clone()
            },
            topic: self.stream.name().to_owned(),
            partition: i32::try_from(record.partition).unwrap_or(i32::MAX),
            offset,
            reason: reason.to_owned(),
            text: text.to_owned(),
            attempts: 1,
            copy: record.value.clone(),
            ..DeadLetter::default()
        })
        .await;
    }

    /// One message of a record that cannot be stored. The copy is a record of it alone.
    async fn refused(&self, of: &Messages, reason: &str, text: &str, message: &AgentMessage) {
        let mut message = message.clone();
        if message.object.is_some() {
            message.bytes = Bytes::new();
        }
        let record = Messages {
            header: of.header.clone(),
            messages: vec![message],
            session_key: of.session_key.clone(),
        };
        let copy = match record.encode() {
            Ok(copy) => copy.into(),
            Err(error) => {
                tracing::error!(%error, "a refused message cannot be encoded");
                Bytes::new()
            }
        };
        self.dead_letter(DeadLetter {
            header: record.header,
            topic: self.stream.name().to_owned(),
            partition: -1,
            offset: -1,
            reason: reason.to_owned(),
            text: text.to_owned(),
            attempts: 1,
            copy,
            ..DeadLetter::default()
        })
        .await;
    }

    async fn dead_letter(&self, letter: DeadLetter) {
        let DeadLetter {
            header,
            reason,
            text,
            ..
        } = &letter;
        tracing::warn!(topic = self.stream.name(), client = %header.client, reason, text, "put aside in dead-letters");
        letters::write(&self.ports, letter).await;
    }

    async fn append(
        &self,
        topic: &str,
        partition: u32,
        key: &ClientKey,
        value: Result<Vec<u8>, CodecError>,
    ) {
        match value {
            Ok(value) => {
                let (key, value) = (Bytes::from(key.client.to_string()), Bytes::from(value));
                persist("log", || {
                    self.ports
                        .log
                        .append(topic, partition, key.clone(), value.clone())
                })
                .await;
            }
            Err(error) => tracing::error!(topic, %error, "a record cannot be encoded"),
        }
    }
}

fn header(life: &Life, at_us: i64, name: &str) -> Header {
    Header {
        org: life.client.org.to_string(),
        client: life.client.client.to_string(),
        generation: life.generation,
        at_us,
        frontend: name.to_owned(),
        trace: String::new(),
    }
}

/// The message that became the document of this id.
fn message_of<'a>(
    key: &ClientKey,
    messages: &'a Messages,
    id: &ContentId,
) -> Option<&'a AgentMessage> {
    let generation = messages.header.generation;
    let mut all = messages.messages.iter();
    all.find(|message| message_id(key, generation, &message.session, &message.bytes) == *id)
}
