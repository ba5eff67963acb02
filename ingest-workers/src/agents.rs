//! Groups `results`, `uploads` and `events`: what agents sent becomes documents.

use crate::persist::persist;
use crate::stored::{self, Poisoned};
use crate::{Config, Ports, letters, now_us};
use bytes::Bytes;
use futures::future::join_all;
use nublar_core::ids::{ClientKey, ContentId, FlowId};
use nublar_core::ingest::{Group, Plan, Sums, message_id, plan};
use nublar_core::partition::of_client;
use nublar_ports::Membership;
use nublar_ports::log::{GroupEvent, Position, Record};
use nublar_schemas::codec::{CodecError, Record as _};
use nublar_schemas::records::{AgentMessage, DeadLetter, FactsSet, Header, Messages};
use nublar_schemas::topics::SCHEDULING;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const BATCH_RECORDS: usize = 256;
const BATCH_BYTES: usize = 8 << 20;

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
    /// A record that cannot be read stands in the way.
    halted: bool,
}

struct Worker {
    stream: Stream,
    config: Config,
    ports: Ports,
    partitions: u32,
    member: Membership,
    owned: BTreeMap<u32, Owned>,
    reported: Instant,
}

pub(crate) async fn run(stream: Stream, config: Config, ports: Ports, shutdown: CancellationToken) {
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
                halted: false,
            },
        );
    }

    /// Brings a batch as far as the mark.
    async fn store(&mut self, batch: Vec<Record>) {
        let mut plans: Vec<(u32, ClientKey, Messages, Plan)> = Vec::new();
        let mut written: HashMap<u32, Position> = HashMap::new();
        for record in batch {
            let partition = record.partition;
            if self.owned.get(&partition).is_none_or(|owned| owned.halted) {
                continue;
            }
            match self.planned(&record).await {
                Ok(Some((key, messages, plan))) => plans.push((partition, key, messages, plan)),
                Ok(None) => {}
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
            let next = Position {
                offset: record.position.offset + 1,
                ..record.position
            };
            written.insert(partition, next);
        }
        self.load_sums(&plans).await;

        let by_client: Vec<_> = plans
            .iter()
            .map(|(_, key, _, plan)| (key.clone(), plan.clone()))
            .collect();
        let poisoned = stored::write(&self.ports, &by_client).await;
        self.follow(&plans, poisoned).await;
        for (partition, key, _, plan) in &plans {
            if let Some(owned) = self.owned.get_mut(partition) {
                owned.sums.written(key, plan);
            }
        }
        for (partition, next) in written {
            if let Some(owned) = self.owned.get_mut(&partition) {
                owned.written = Some(next);
            }
        }
    }

    /// The record's plan; none when it is damaged and was put aside. An error halts the partition.
    async fn planned(
        &self,
        record: &Record,
    ) -> Result<Option<(ClientKey, Messages, Plan)>, CodecError> {
        let mut messages = match Messages::decode(&record.value) {
            Ok(messages) => messages,
            Err(error @ CodecError::UnknownFingerprint(_)) => return Err(error),
            Err(error) => {
                self.put_aside(record, &Header::default(), "damaged", &error.to_string())
                    .await;
                return Ok(None);
            }
        };
        let key = match ClientKey::of(&messages.header) {
            Ok(key) => key,
            Err(error) => {
                self.put_aside(record, &messages.header, "client", &error.to_string())
                    .await;
                return Ok(None);
            }
        };
        for message in &mut messages.messages {
            if let Some(object) = &message.object {
                message.bytes = persist("objects", || self.ports.objects.get(object, None)).await;
            }
        }
        let plan = plan(&key, &messages);
        Ok(Some((key, messages, plan)))
    }

    /// Counts what another worker may have stored of the flows that come now.
    async fn load_sums(&mut self, plans: &[(u32, ClientKey, Messages, Plan)]) {
        if self.stream == Stream::Events {
            return;
        }
        let group = self.stream.sums();
        let mut wanted: BTreeMap<(u32, ClientKey), Vec<FlowId>> = BTreeMap::new();
        for (partition, key, _, plan) in plans {
            let Some(owned) = self.owned.get(partition) else {
                continue;
            };
            let flows = wanted.entry((*partition, key.clone())).or_default();
            for flow in owned.sums.unknown(key, plan) {
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
        for ((partition, key), flows) in wanted {
            for flow in flows {
                let sum = stored::count(&self.ports, group, &key, &flow).await;
                if let Some(owned) = self.owned.get_mut(&partition) {
                    owned.sums.load(&key, flow, sum);
                }
            }
        }
    }

    /// What follows at once from what was written: facts, and messages that cannot be stored.
    async fn follow(&self, plans: &[(u32, ClientKey, Messages, Plan)], poisoned: Vec<Poisoned>) {
        for (_, key, messages, plan) in plans {
            for fact in &plan.facts {
                let facts = FactsSet {
                    header: Header {
                        frontend: self.config.name.clone(),
                        ..messages.header.clone()
                    },
                    source: fact.source.clone(),
                    facts: fact.facts.clone(),
                };
                self.append(
                    SCHEDULING.name,
                    of_client(key, self.partitions),
                    key,
                    facts.encode(),
                )
                .await;
            }
            for refused in &plan.refused {
                self.refused(
                    &messages.header,
                    refused.reason,
                    &refused.text,
                    &refused.message,
                )
                .await;
            }
        }
        for Poisoned { part, text } in poisoned {
            let found = plans.iter().find_map(|(_, key, messages, _)| {
                let message = message_of(key, messages, &part.id)?;
                Some((&messages.header, message))
            });
            match found {
                Some((header, message)) => self.refused(header, "index", &text, message).await,
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
                for (key, stored) in owned
                    .sums
                    .report(|key| header(key, at_us, &self.config.name))
                {
                    appends.push((of_client(&key, self.partitions), key, stored.encode()));
                }
            }
        }
        let appends = appends.into_iter().map(|(partition, key, value)| {
            let this = &*self;
            async move { this.append(SCHEDULING.name, partition, &key, value).await }
        });
        join_all(appends).await;
        for (partition, owned) in &mut self.owned {
            if let Some(next) = owned.written.take() {
                self.member.mark(*partition, owned.epoch, next);
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

    /// One message that cannot be stored. The copy is a record of it alone.
    async fn refused(&self, of: &Header, reason: &str, text: &str, message: &AgentMessage) {
        let mut message = message.clone();
        if message.object.is_some() {
            message.bytes = Bytes::new();
        }
        let record = Messages {
            header: of.clone(),
            messages: vec![message],
        };
        let copy = match record.encode() {
            Ok(copy) => copy.into(),
            Err(error) => {
                tracing::error!(%error, "a refused message cannot be encoded");
                Bytes::new()
            }
        };
        self.dead_letter(DeadLetter {
            header: of.clone(),
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

fn header(key: &ClientKey, at_us: i64, name: &str) -> Header {
    Header {
        org: key.org.to_string(),
        client: key.client.to_string(),
        generation: 1,
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
