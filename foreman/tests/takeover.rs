//! Foremen over a log in memory: whoever is killed, every cause is answered, and by the same.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use bytes::Bytes;
use nublar_core::fold::FoldConfig;
use nublar_core::ids::ClientKey;
use nublar_core::mac::{MacKey, MacKeys};
use nublar_foreman::{Config, GROUP, Ports, run};
use nublar_ports::index::faulty::{Calls, Fault, Faults as StoreFaults};
use nublar_ports::log::faulty::{AppendFault, Faults, FaultyLog};
use nublar_ports::log::{From, MemoryLog, Retention, TailEvent, TopicSpec};
use nublar_ports::objects::faulty::FaultyObjects;
use nublar_ports::objects::memory::MemoryObjects;
use nublar_ports::{Log, Objects};
use nublar_schemas::codec::Record;
use nublar_schemas::records::{
    CheckIn, Claim, Document, FlowCreated, Header, RequestRef, Scheduling, Setting, Tasks,
};
use nublar_schemas::topics;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const CLIENT: &str = "C.00000000000000aa";

struct Bench {
    log: Arc<FaultyLog<MemoryLog>>,
    objects: FaultyObjects<MemoryObjects>,
    keys: MacKeys,
}

struct Foreman(JoinHandle<()>);

impl Foreman {
    /// As if the process were killed.
    async fn kill(self) {
        self.0.abort();
        let _ = self.0.await;
    }
}

impl Bench {
    async fn new() -> Self {
        let log = FaultyLog::new(MemoryLog::new());
        let specs: Vec<_> = topics::ALL
            .iter()
            .map(|topic| TopicSpec {
                name: topic.name.to_owned(),
                partitions: 1,
                retention: Retention::Age(Duration::from_secs(3_600)),
                groups: vec![GROUP.to_owned()],
            })
            .collect();
        log.declare(&specs).await.unwrap();
        let keys = MacKeys::new(
            MacKey {
                from_us: 0,
                secret: [7; 32],
            },
            [],
        );
        Self {
            log: Arc::new(log),
            objects: FaultyObjects::new(MemoryObjects::new(), StoreFaults::new()),
            keys,
        }
    }

    fn faults(&self) -> Faults {
        self.log.faults()
    }

    fn start(&self, snapshot_records: u64) -> Foreman {
        let ports = Ports {
            log: self.log.clone(),
            objects: Arc::new(self.objects.clone()),
        };
        let config = Config {
            interrogate: false,
            monitor: false,
            snapshot_records,
            ..Config::default()
        };
        let fold = FoldConfig::new(self.keys.clone());
        Foreman(tokio::spawn(run(
            config,
            fold,
            ports,
            CancellationToken::new(),
        )))
    }

    async fn append(&self, record: impl Into<Scheduling>) {
        let value = record.into().encode().unwrap();
        self.log
            .append("scheduling", 0, Bytes::new(), value.into())
            .await
            .unwrap();
    }

    fn header(&self) -> Header {
        Header {
            client: CLIENT.into(),
            generation: 1,
            at_us: 1_795_514_940_000_000,
            frontend: "fe".into(),
            ..Header::default()
        }
    }

    async fn create(&self, n: u32) -> String {
        let key = ClientKey::of(&self.header()).unwrap();
        let flow_id = self
            .keys
            .flow_id(&key, 1, self.header().at_us, n.to_be_bytes())
            .to_string();
        self.append(FlowCreated {
            header: self.header(),
            flow_id: flow_id.clone(),
            request: RequestRef::default(),
            creator: "admin".into(),
            artifacts: Vec::new(),
            spec: "{}".into(),
            queries: 1,
            urgent: true,
            execve: false,
            deadline_us: i64::MAX,
        })
        .await;
        flow_id
    }

    async fn values(&self, topic: &str) -> Vec<Bytes> {
        let mut tail = self
            .log
            .inner()
            .tail(topic, &[0], From::Earliest)
            .await
            .unwrap();
        let mut values = Vec::new();
        while let TailEvent::Record(record) = tail.next().await.unwrap() {
            values.push(record.value);
        }
        values
    }

    async fn tasks(&self) -> Vec<Tasks> {
        self.values("tasks")
            .await
            .iter()
            .map(|value| Tasks::decode(value).unwrap())
            .collect()
    }

    async fn offers(&self) -> usize {
        let mut offered: Vec<_> = self
            .tasks()
            .await
            .into_iter()
            .filter_map(|task| match task {
                Tasks::Offer(offer) => Some((offer.flow_id, offer.attempt)),
                _ => None,
            })
            .collect();
        offered.sort();
        offered.dedup();
        offered.len()
    }

    async fn marked(&self) -> u64 {
        self.log.inner().lag(GROUP, "scheduling").await.unwrap()[0]
            .mark
            .offset
    }

    /// By (document, version) all bodies that were put out.
    async fn documents(&self) -> BTreeMap<(String, i64), Vec<String>> {
        let mut documents: BTreeMap<_, Vec<String>> = BTreeMap::new();
        for value in self.values("state").await {
            let document = Document::decode(&value).unwrap();
            documents
                .entry((document.id, document.version))
                .or_default()
                .push(document.body);
        }
        documents
    }
}

macro_rules! eventually {
    ($condition:expr) => {
        let waiting = async {
            while !$condition {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), waiting)
            .await
            .expect(concat!("never: ", stringify!($condition)));
    };
}

#[tokio::test]
async fn what_a_killed_foreman_left_unanswered_is_answered_once_by_key() {
    let bench = Bench::new().await;
    let first = bench.start(1_000);
    let header = bench.header();
    bench
        .append(CheckIn {
            header,
            session_key: Bytes::from_static(b"s"),
            table_version: 0,
            address: String::new(),
            via: String::new(),
            clock_skew_ms: None,
            introduces: false,
        })
        .await;
    for n in 0..3 {
        bench.create(n).await;
    }
    eventually!(bench.offers().await == 3);
    // It reads on, but nothing that it decides gets out.
    bench.faults().appends("tasks", AppendFault::Unavailable);
    for n in 3..6 {
        bench.create(n).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(bench.offers().await, 3);
    first.kill().await;
    bench.faults().clear();
    let second = bench.start(1_000);
    eventually!(bench.offers().await == 6);
    eventually!(bench.marked().await >= 7);
    for ((id, version), bodies) in bench.documents().await {
        assert!(
            bodies.iter().all(|body| *body == bodies[0]),
            "two documents of {id} at {version}"
        );
    }
    second.kill().await;
}

#[tokio::test]
async fn a_successor_goes_on_from_a_snapshot_as_from_the_records() {
    let bench = Bench::new().await;
    let first = bench.start(2);
    let flow = bench.create(1).await;
    let header = bench.header();
    bench
        .append(Claim {
            header,
            flow_id: flow.clone(),
            attempt: 1,
            poll: 5,
            packet_iv: vec![5; 16].into(),
        })
        .await;
    eventually!(
        bench
            .tasks()
            .await
            .iter()
            .any(|task| matches!(task, Tasks::Grant(_)))
    );
    eventually!(
        !bench
            .objects
            .list("snapshots/", None, 10)
            .await
            .unwrap()
            .is_empty()
    );
    first.kill().await;
    // Nothing of the beginning is left: only the snapshot tells of the grant.
    let second = bench.start(1_000);
    let header = bench.header();
    bench
        .append(Claim {
            header,
            flow_id: flow,
            attempt: 1,
            poll: 6,
            packet_iv: vec![6; 16].into(),
        })
        .await;
    let end = bench.log.inner().end("scheduling", 0).await.unwrap().offset;
    eventually!(bench.marked().await == end);
    let grants = bench
        .tasks()
        .await
        .into_iter()
        .filter_map(|task| match task {
            Tasks::Grant(grant) => Some(grant.poll),
            _ => None,
        });
    let mut polls: Vec<_> = grants.collect();
    polls.dedup();
    assert_eq!(polls, [5], "granted once, to the first poll");
    second.kill().await;
}

#[tokio::test]
async fn an_append_that_fails_is_tried_again_in_order() {
    let bench = Bench::new().await;
    bench
        .faults()
        .appends("state", AppendFault::HappensButFails);
    let foreman = bench.start(1_000);
    bench.create(1).await;
    eventually!(
        bench
            .documents()
            .await
            .values()
            .any(|bodies| bodies.len() > 1)
    );
    assert_eq!(
        bench.marked().await,
        0,
        "not marked before it is acknowledged"
    );
    bench.faults().clear();
    eventually!(bench.marked().await >= 1);
    assert_eq!(bench.offers().await, 1);
    foreman.kill().await;
}

#[tokio::test]
async fn a_store_that_does_not_answer_holds_up_no_decision() {
    let bench = Bench::new().await;
    let silence = Fault::Slow(Duration::from_secs(3_600));
    bench.objects.faults().set(silence, Calls::Writes);
    let foreman = bench.start(2);
    let header = bench.header();
    bench
        .append(CheckIn {
            header,
            session_key: Bytes::from_static(b"s"),
            table_version: 0,
            address: String::new(),
            via: String::new(),
            clock_skew_ms: None,
            introduces: false,
        })
        .await;
    for n in 0..12 {
        bench.create(n).await;
        // One after the other: a snapshot is due again and again.
        let all = u64::from(n) + 2;
        eventually!(bench.marked().await >= all);
    }
    assert_eq!(bench.offers().await, 12);
    assert_eq!(bench.objects.faults().writes(), 1, "one snapshot at a time");
    foreman.kill().await;
}

/// Compaction keeps the last record of a key: an older version that a foreman wrote late, of which it
/// was no more the owner, must not stay the last.
#[tokio::test]
async fn the_highest_version_of_a_setting_stays_the_last() {
    let bench = Bench::new().await;
    let put = async |version: i64, body: &str| {
        let setting = Setting {
            header: bench.header(),
            kind: "artifact".into(),
            id: "A".into(),
            version,
            body: body.into(),
        };
        let value = setting.encode().unwrap().into();
        let appended = bench.log.append("settings", 0, "artifact//A".into(), value);
        appended.await.unwrap();
    };
    let versions = async || {
        let mut tail = bench
            .log
            .tail("settings", &[0], From::Earliest)
            .await
            .unwrap();
        let mut versions = Vec::new();
        while let TailEvent::Record(record) = tail.next().await.unwrap() {
            let setting = Setting::decode(&record.value).unwrap();
            versions.push((setting.version, setting.body));
        }
        versions
    };
    let is = async |expected: &[(i64, &str)]| {
        let expected: Vec<_> = expected
            .iter()
            .map(|(version, body)| (*version, (*body).to_owned()))
            .collect();
        let until = async {
            while versions().await != expected {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(60), until).await;
        assert!(waited.is_ok(), "{:?}, not {expected:?}", versions().await);
    };
    // A repeat that ends well, and one that does not.
    for version in [1, 2, 1, 2, 1] {
        put(version, &format!("body {version}")).await;
    }
    let foreman = bench.start(1_000);
    let mut all = vec![
        (1, "body 1"),
        (2, "body 2"),
        (1, "body 1"),
        (2, "body 2"),
        (1, "body 1"),
        (2, "body 2"),
    ];
    is(&all).await;
    // While it runs.
    put(1, "body 1").await;
    all.extend([(1, "body 1"), (2, "body 2")]);
    is(&all).await;
    put(3, "body 3").await;
    all.push((3, "body 3"));
    is(&all).await;
    foreman.kill().await;
}
