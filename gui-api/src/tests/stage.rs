//! A server on ports in memory, with a hand that plays agents, workers and the foreman.

use crate::app::App;
use crate::clock::now_us;
use crate::config::Config;
use crate::server::router;
use crate::tails::{self, Kind};
use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use axum::response::Response;
use nublar_core::hidden::HiddenNames;
use nublar_core::ids::ClientKey;
use nublar_core::ingest::{self, plan};
use nublar_core::mac::{MacKey, MacKeys};
use nublar_core::partition;
use nublar_ports::index::faulty::{Faults, FaultyIndex};
use nublar_ports::index::memory::MemoryIndex;
use nublar_ports::index::{self, Bucket, Collection, Index as _};
use nublar_ports::log::MemoryLog;
use nublar_ports::log::faulty::{self, FaultyLog};
use nublar_ports::log::{From as Begin, Retention, TailEvent, TopicSpec};
use nublar_ports::objects::memory::MemoryObjects;
use nublar_ports::{Log, Objects};
use nublar_schemas::agent::VeloMessage;
use nublar_schemas::codec::Record;
use nublar_schemas::records::{
    AgentMessage, ClientKey as Key, ClientLife, CommandDone, Document, Header, Messages,
    Notifications, Registry, Scheduling, Setting,
};
use nublar_schemas::topics::{self, Partitions, Topic};
use prost::Message;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tower::ServiceExt;

pub(super) const TOKEN: &str = "the token of this test";
pub(super) const CLIENT: &str = "C.00000000000000aa";
const PARTITIONS: u32 = 4;

pub(super) struct Stage {
    pub(super) log: Arc<dyn Log>,
    pub(super) log_faults: faulty::Faults,
    pub(super) index: MemoryIndex,
    pub(super) faults: Faults,
    pub(super) objects: MemoryObjects,
    pub(super) app: Arc<App>,
    router: Router,
    tasks: JoinSet<()>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answered {
    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

pub(super) async fn declare(log: &MemoryLog) {
    let specs: Vec<_> = topics::ALL.iter().map(spec).collect();
    log.declare(&specs).await.unwrap();
}

fn spec(topic: &Topic) -> TopicSpec {
    let group = match topic.name {
        "results" | "uploads" | "events" | "dead-letters" => vec![topic.name.to_owned()],
        "state" => vec![topic.name.to_owned(), "seals".to_owned()],
        "scheduling" => vec!["foreman".to_owned()],
        _ => Vec::new(),
    };
    TopicSpec {
        name: topic.name.to_owned(),
        partitions: match topic.partitions {
            Partitions::PerClients => PARTITIONS,
            Partitions::Fixed(partitions) => partitions,
        },
        retention: match topic.keep {
            topics::Keep::For(age) => Retention::Age(age),
            topics::Keep::Newest => Retention::Compacted,
        },
        groups: group,
    }
}

pub(super) fn header() -> Header {
    Header {
        org: String::new(),
        client: CLIENT.to_owned(),
        generation: 1,
        at_us: now_us(),
        frontend: "test".to_owned(),
        trace: String::new(),
    }
}

pub(super) fn keys() -> MacKeys {
    MacKeys::new(
        MacKey {
            from_us: 0,
            secret: [7; 32],
        },
        [],
    )
}

impl Stage {
    /// A server that has caught up; the client is enrolled.
    pub(super) async fn new() -> Self {
        Self::within(Duration::from_secs(5)).await
    }

    /// The same with another deadline.
    pub(super) async fn within(deadline: Duration) -> Self {
        let log = MemoryLog::new();
        declare(&log).await;
        let log = FaultyLog::new(log);
        let log_faults = log.faults();
        let faults = Faults::new();
        let stage = Self::over(
            Arc::new(log),
            log_faults,
            MemoryIndex::new(),
            faults,
            MemoryObjects::new(),
            deadline,
        );
        stage.enrol(CLIENT).await;
        stage.caught_up().await;
        stage
    }

    /// Another server over the same ports, as after a restart or beside this one.
    pub(super) async fn another(&self) -> Self {
        let stage = Self::over(
            Arc::clone(&self.log),
            self.log_faults.clone(),
            self.index.clone(),
            self.faults.clone(),
            self.objects.clone(),
            self.app.config.deadline,
        );
        stage.caught_up().await;
        stage
    }

    fn over(
        log: Arc<dyn Log>,
        log_faults: faulty::Faults,
        index: MemoryIndex,
        faults: Faults,
        objects: MemoryObjects,
        deadline: Duration,
    ) -> Self {
        let mut config = Config::new(([127, 0, 0, 1], 0).into(), TOKEN);
        config.command_wait = Duration::from_secs(2);
        config.deadline = deadline;
        config.agent_urls = vec![
            "https://a.example/".to_owned(),
            "wss://b.example/x/".to_owned(),
        ];
        let app = Arc::new(App::new(
            config,
            Arc::clone(&log),
            Arc::new(FaultyIndex::new(index.clone(), faults.clone())),
            Arc::new(objects.clone()),
            keys(),
        ));
        let mut tasks = JoinSet::new();
        tails::start(&app, &mut tasks);
        Self {
            log,
            log_faults,
            index,
            faults,
            objects,
            router: router(Arc::clone(&app)),
            app,
            tasks,
        }
    }

    async fn caught_up(&self) {
        for progress in [
            &self.app.registry.progress,
            &self.app.settings.progress,
            &self.app.recent.progress,
            &self.app.wishes.progress,
            &self.app.commands.progress,
        ] {
            progress
                .ready("a tail", Duration::from_secs(60))
                .await
                .unwrap();
        }
    }

    pub(super) async fn enrol(&self, client: &str) {
        self.enrol_as(client, 1).await;
    }

    /// Enrols a client in a generation.
    pub(super) async fn enrol_as(&self, client: &str, generation: i64) {
        let header = Header {
            client: client.to_owned(),
            generation,
            ..header()
        };
        let client = ClientKey::of(&header).unwrap();
        let key = Key {
            header,
            public_key: Bytes::new(),
        };
        self.register(&client, key.name(), key.into()).await;
        until(|| self.app.registry.generation(&client) == Some(generation)).await;
    }

    /// The foreman's word that generations of the client below this one have ended.
    pub(super) async fn life(&self, generation: i64) {
        let header = Header {
            generation,
            ..header()
        };
        let client = ClientKey::of(&header).unwrap();
        let life = ClientLife { header };
        self.register(&client, life.name(), life.into()).await;
        until(|| self.app.registry.life(&client).generation == generation).await;
    }

    async fn register(&self, client: &ClientKey, name: String, record: Registry) {
        let partition = partition::of_client(client, PARTITIONS);
        let value = record.encode().unwrap();
        self.log
            .append("registry", partition, name.into(), value.into())
            .await
            .unwrap();
    }

    pub(super) async fn end(mut self) {
        self.app.shutdown.cancel();
        while self.tasks.join_next().await.is_some() {}
    }

    pub(super) async fn answer(&self, request: Request<Body>) -> Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub(super) fn request(method: Method, path: &str, body: impl Into<Body>) -> Request<Body> {
        Request::builder()
            .method(method)
            .uri(format!("/api/v1{path}"))
            .header("authorization", format!("Bearer {TOKEN}"))
            .body(body.into())
            .unwrap()
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Answered {
        let response = self.answer(request).await;
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        Answered {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }

    pub(super) async fn get(&self, path: &str) -> Answered {
        self.send(Self::request(Method::GET, path, Body::empty()))
            .await
    }

    /// The answer must be 200 and JSON.
    pub(super) async fn json(&self, path: &str) -> Value {
        let answered = self.get(path).await;
        assert_eq!(answered.status, StatusCode::OK, "{path}: {answered:?}");
        answered.json()
    }

    /// The foreman tells of a document, and everybody has heard.
    pub(super) async fn tell(&self, kind: Kind, id: &str, version: i64, body: &Value) {
        self.tell_of(1, kind, id, version, &body.to_string()).await;
    }

    /// The same of a generation of the client.
    pub(super) async fn tell_of(
        &self,
        generation: i64,
        kind: Kind,
        id: &str,
        version: i64,
        body: &str,
    ) {
        let client = id.split('/').next().unwrap();
        let document = Document {
            header: Header {
                client: client.to_owned(),
                generation,
                ..header()
            },
            kind: match kind {
                Kind::Flow => "flow",
                Kind::Client => "client",
            }
            .to_owned(),
            id: id.to_owned(),
            version,
            body: body.to_owned(),
        };
        let value = document.encode().unwrap().into();
        self.log
            .append("state", 0, id.to_owned().into(), value)
            .await
            .unwrap();
        let version = version.unsigned_abs();
        until(|| {
            self.app
                .recent
                .get(kind, id)
                .is_some_and(|seen| seen.version >= version)
        })
        .await;
    }

    /// The projection puts a document into the index.
    pub(super) async fn project(
        &self,
        kind: Kind,
        id: &str,
        version: u64,
        text: &str,
        body: &Value,
    ) {
        let (collection, order) = match kind {
            Kind::Flow => (Collection::Flows, "create_time"),
            Kind::Client => (Collection::Clients, "first_seen_at"),
        };
        let (client, flow) = id.split_once('/').unwrap_or((id, ""));
        let document = index::Document {
            id: id.to_owned(),
            bucket: None,
            client: client.to_owned(),
            flow: flow.to_owned(),
            source: String::new(),
            order: body.get(order).and_then(Value::as_i64).unwrap_or(0),
            text: text.to_owned(),
            hashes: Vec::new(),
            version,
            size: 0,
            body: body.to_string().into(),
        };
        self.index
            .put(collection, "", vec![document])
            .await
            .unwrap();
    }

    /// The workers store what an agent sent.
    pub(super) async fn store(&self, messages: impl IntoIterator<Item = VeloMessage>) {
        let record = sent(CLIENT, messages);
        let key = ClientKey::of(&record.header).unwrap();
        let plan = plan(&key, &record, &HiddenNames::default());
        assert!(plan.refused.is_empty(), "{:?}", plan.refused);
        for part in plan.parts {
            if let Some((name, data)) = &part.object {
                self.objects.put(name, data.clone()).await.unwrap();
            }
            let collection = match part.collection {
                ingest::Collection::Rows => Collection::Rows,
                ingest::Collection::Logs => Collection::Logs,
                ingest::Collection::Buffers => Collection::Buffers,
                ingest::Collection::Events => Collection::Events,
            };
            let document = index::Document {
                id: part.id.to_string(),
                bucket: Some(part.week.map_or(Bucket::Undated, Bucket::Week)),
                client: CLIENT.to_owned(),
                flow: part.flow.map(|flow| flow.to_string()).unwrap_or_default(),
                source: part.source,
                order: part.order,
                text: part.text,
                hashes: Vec::new(),
                version: 0,
                size: part.size,
                body: part.body,
            };
            self.index
                .create(collection, "", vec![document])
                .await
                .unwrap();
        }
    }

    /// A frontend takes what an agent sent of its events.
    pub(super) async fn arrive(
        &self,
        client: &str,
        messages: impl IntoIterator<Item = VeloMessage>,
    ) {
        let record = sent(client, messages);
        let key = ClientKey::of(&record.header).unwrap();
        let value = record.encode().unwrap();
        self.arrive_raw(&key, value.into()).await;
    }

    pub(super) async fn arrive_raw(&self, key: &ClientKey, value: Bytes) {
        let partition = partition::of_client(key, PARTITIONS);
        let of = key.client.to_string().into();
        self.log
            .append("events", partition, of, value)
            .await
            .unwrap();
    }

    /// Everything that stands in `scheduling`.
    pub(super) async fn scheduled(&self) -> Vec<Scheduling> {
        let records = self.records("scheduling", PARTITIONS).await;
        records
            .iter()
            .map(|value| Scheduling::decode(value).unwrap())
            .collect()
    }

    /// Everything that stands in a topic.
    pub(super) async fn records(&self, topic: &str, partitions: u32) -> Vec<Bytes> {
        let all: Vec<u32> = (0..partitions).collect();
        let mut tail = self.log.tail(topic, &all, Begin::Earliest).await.unwrap();
        let (mut behind, mut records) = (partitions, Vec::new());
        while behind > 0 {
            match tail.next().await.unwrap() {
                TailEvent::Record(record) => records.push(record.value),
                TailEvent::CaughtUp { .. } => behind -= 1,
            }
        }
        records
    }

    /// The foreman gives settings their versions and publishes them.
    pub(super) fn settings_foreman(&self) -> tokio::task::JoinHandle<()> {
        let log = self.log.clone();
        let versions = AtomicI64::new(0);
        self.foreman(move |kind, target, body| {
            assert_eq!(kind, "setting");
            let version = versions.fetch_add(1, Ordering::SeqCst) + 1;
            let (kind, id) = target.split_once('/').unwrap();
            let setting = Setting {
                header: header(),
                kind: kind.to_owned(),
                id: id.to_owned(),
                version,
                body: body.to_owned(),
            };
            let value = setting.encode().unwrap().into();
            // In memory the record is there when the call returns.
            drop(log.append("settings", 0, format!("{kind}//{id}").into(), value));
            (String::new(), json!({ "version": version }).to_string())
        })
    }

    /// The foreman answers the next command that is appended.
    pub(super) fn foreman(
        &self,
        answers: impl Fn(&str, &str, &str) -> (String, String) + Send + 'static,
    ) -> tokio::task::JoinHandle<()> {
        let log = Arc::clone(&self.log);
        tokio::spawn(async move {
            let all: Vec<u32> = (0..PARTITIONS).collect();
            let mut tail = log.tail("scheduling", &all, Begin::Earliest).await.unwrap();
            loop {
                let TailEvent::Record(record) = tail.next().await.unwrap() else {
                    continue;
                };
                let Scheduling::Command(command) = Scheduling::decode(&record.value).unwrap()
                else {
                    continue;
                };
                let (error, body) = answers(&command.kind, &command.target, &command.body);
                let done = CommandDone {
                    header: command.header,
                    id: command.id,
                    error,
                    body,
                };
                let value = Notifications::from(done).encode().unwrap().into();
                log.append("notifications", 3, Bytes::new(), value)
                    .await
                    .unwrap();
            }
        })
    }
}

/// What a frontend makes of an agent's messages.
fn sent(client: &str, messages: impl IntoIterator<Item = VeloMessage>) -> Messages {
    let messages = messages.into_iter().map(|message| AgentMessage {
        session: message.session_id.clone(),
        bytes: message.encode_to_vec().into(),
        object: None,
    });
    Messages {
        header: Header {
            client: client.to_owned(),
            ..header()
        },
        messages: messages.collect(),
        ..Messages::default()
    }
}

/// Waits for a condition, with an end to patience.
pub(super) async fn until(condition: impl Fn() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(60), async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    waited.await.expect("the condition never held");
}
