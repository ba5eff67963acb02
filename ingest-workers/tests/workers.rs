//! Workers over ports in memory that fail on demand.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use bytes::Bytes;
use nublar_core::ids::ClientKey;
use nublar_core::ingest::{SEALS, Seal, Verdict};
use nublar_core::letters;
use nublar_ingest_workers::{Config, Ports, run};
use nublar_ports::index::faulty::{Calls, Fault, Faults, FaultyIndex};
use nublar_ports::index::memory::MemoryIndex;
use nublar_ports::index::{Collection, Index as _};
use nublar_ports::log::{From, MemoryLog, Retention, TailEvent, TopicSpec};
use nublar_ports::objects::memory::MemoryObjects;
use nublar_ports::{Log, Objects};
use nublar_schemas::agent::{
    FileBuffer, FlowStats, PathSpec, VeloMessage, VqlRequest, VqlResponse,
};
use nublar_schemas::codec::Record;
use nublar_schemas::records::{
    AgentMessage, DeadLetter, Document, Header, Messages, Scheduling, Stored,
};
use nublar_schemas::topics;
use prost::Message;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const FLOW: &str = "F.DC2M4H5TA9T34";
const CLIENT: &str = "C.dee8db84e4bcbdf1";

struct Bench {
    log: MemoryLog,
    index: FaultyIndex<MemoryIndex>,
    objects: MemoryObjects,
}

impl Bench {
    async fn new() -> Self {
        let log = MemoryLog::new();
        let specs: Vec<_> = topics::ALL
            .iter()
            .map(|topic| TopicSpec {
                name: topic.name.to_owned(),
                partitions: 1,
                retention: Retention::Age(Duration::from_secs(3_600)),
                groups: vec![topic.name.to_owned(), "seals".to_owned()],
            })
            .collect();
        log.declare(&specs).await.unwrap();
        let index = FaultyIndex::new(MemoryIndex::new(), Faults::new());
        index.prepare().await.unwrap();
        Self {
            log,
            index,
            objects: MemoryObjects::new(),
        }
    }

    fn faults(&self) -> &Faults {
        self.index.faults()
    }

    fn start(&self) -> Worker {
        let ports = Ports {
            log: Arc::new(self.log.clone()),
            index: Arc::new(FaultyIndex::new(
                self.index.inner().clone(),
                self.faults().clone(),
            )),
            objects: Arc::new(self.objects.clone()),
        };
        let config = Config {
            report_ms: 50,
            ..Config::default()
        };
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(run(config, ports, shutdown.clone()));
        Worker { task, shutdown }
    }

    async fn append(&self, topic: &str, value: Vec<u8>) {
        self.log
            .append(topic, 0, Bytes::from_static(b"k"), value.into())
            .await
            .unwrap();
    }

    async fn send(&self, topic: &str, messages: Vec<VeloMessage>) {
        let messages = messages
            .into_iter()
            .map(|message| AgentMessage {
                session: message.session_id.clone(),
                bytes: message.encode_to_vec().into(),
                object: None,
            })
            .collect();
        let record = Messages {
            header: header(),
            messages,
            ..Messages::default()
        };
        self.append(topic, record.encode().unwrap()).await;
    }

    /// Everything that stands in a topic.
    async fn values(&self, topic: &str) -> Vec<Bytes> {
        let mut tail = self.log.tail(topic, &[0], From::Earliest).await.unwrap();
        let mut values = Vec::new();
        while let TailEvent::Record(record) = tail.next().await.unwrap() {
            values.push(record.value);
        }
        values
    }

    async fn stored(&self, group: &str) -> Vec<Stored> {
        let of = |value: Bytes| match Scheduling::decode(&value).unwrap() {
            Scheduling::Stored(stored) if stored.group == group => Some(stored),
            _ => None,
        };
        self.values("scheduling")
            .await
            .into_iter()
            .filter_map(of)
            .collect()
    }

    async fn marked(&self, topic: &str) -> u64 {
        self.marked_by(topic, topic).await
    }

    async fn marked_by(&self, group: &str, topic: &str) -> u64 {
        self.log.lag(group, topic).await.unwrap()[0].mark.offset
    }

    fn documents(&self, collection: Collection) -> usize {
        self.index.inner().all(collection, "").len()
    }
}

struct Worker {
    task: JoinHandle<Result<(), nublar_ingest_workers::WorkerError>>,
    shutdown: CancellationToken,
}

impl Worker {
    /// As if the process were killed.
    async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
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

#[path = "workers/lives.rs"]
mod lives;

fn header() -> Header {
    Header {
        client: CLIENT.into(),
        generation: 1,
        at_us: 1_795_514_940_000_000,
        ..Header::default()
    }
}

fn rows(start: u64, n: u64) -> VeloMessage {
    VeloMessage {
        session_id: FLOW.into(),
        vql_response: Some(VqlResponse {
            query: Some(VqlRequest {
                name: "A/S".into(),
                ..VqlRequest::default()
            }),
            query_start_row: start,
            total_rows: n,
            jsonl_response: "{}\n".repeat(usize::try_from(n).unwrap()),
            ..VqlResponse::default()
        }),
        ..VeloMessage::default()
    }
}

fn marker() -> VeloMessage {
    let flow_stats = Some(FlowStats {
        flow_complete: true,
        ..FlowStats::default()
    });
    VeloMessage {
        session_id: FLOW.into(),
        flow_stats,
        ..VeloMessage::default()
    }
}

fn buffer(offset: u64, len: usize) -> VeloMessage {
    VeloMessage {
        session_id: FLOW.into(),
        file_buffer: Some(FileBuffer {
            offset,
            data: vec![7; len].into(),
            data_length: len as u64,
            ..FileBuffer::default()
        }),
        ..VeloMessage::default()
    }
}

#[tokio::test]
async fn rows_and_buffers_are_stored_then_told_then_marked() {
    let bench = Bench::new().await;
    let worker = bench.start();
    bench.send("results", vec![rows(0, 3), marker()]).await;
    bench
        .send("uploads", vec![buffer(0, 100_000), marker()])
        .await;
    eventually!(
        bench
            .stored("results")
            .await
            .last()
            .is_some_and(|s| s.rows == 3 && s.closing)
    );
    eventually!(
        bench
            .stored("uploads")
            .await
            .last()
            .is_some_and(|s| s.bytes == 100_000 && s.closing)
    );
    eventually!(bench.marked("results").await == 1 && bench.marked("uploads").await == 1);
    assert_eq!(bench.documents(Collection::Rows), 1);
    assert_eq!(
        bench
            .objects
            .list("uploads/", None, 10)
            .await
            .unwrap()
            .len(),
        1
    );
    worker.stop().await;
}

#[tokio::test]
async fn while_the_index_is_off_nothing_is_told_or_marked_and_nothing_is_lost() {
    let bench = Bench::new().await;
    bench.faults().set(Fault::Unavailable, Calls::All);
    let worker = bench.start();
    bench.send("results", vec![rows(0, 3), marker()]).await;
    eventually!(bench.faults().writes() + bench.faults().reads() > 2);
    assert!(bench.stored("results").await.is_empty());
    assert_eq!(bench.marked("results").await, 0);
    bench.faults().clear();
    eventually!(
        bench
            .stored("results")
            .await
            .last()
            .is_some_and(|s| s.rows == 3 && s.closing)
    );
    eventually!(bench.marked("results").await == 1);
    worker.stop().await;
}

#[tokio::test]
async fn a_worker_that_is_killed_after_it_wrote_is_made_up_for() {
    let bench = Bench::new().await;
    // Written, and then no answer: the worker never gets as far as its mark.
    bench.faults().set(Fault::FailsAfterDone, Calls::Writes);
    let worker = bench.start();
    bench.send("results", vec![rows(0, 3), rows(3, 2)]).await;
    eventually!(bench.documents(Collection::Rows) == 2);
    worker.kill().await;
    assert_eq!(bench.marked("results").await, 0);
    bench.faults().clear();
    let worker = bench.start();
    bench.send("results", vec![rows(5, 1), marker()]).await;
    eventually!(
        bench
            .stored("results")
            .await
            .last()
            .is_some_and(|s| s.rows == 6 && s.closing)
    );
    assert!(!bench.stored("results").await.iter().any(|s| s.ran_twice));
    assert_eq!(bench.documents(Collection::Rows), 3);
    worker.stop().await;
}

#[tokio::test]
async fn rows_that_come_after_another_worker_closed_the_flow_are_added_to_its() {
    let bench = Bench::new().await;
    let worker = bench.start();
    bench.send("results", vec![rows(0, 3), marker()]).await;
    eventually!(bench.marked("results").await == 1);
    worker.stop().await;
    let worker = bench.start();
    bench.send("results", vec![rows(3, 4)]).await;
    eventually!(
        bench
            .stored("results")
            .await
            .last()
            .is_some_and(|s| s.rows == 7)
    );
    worker.stop().await;
}

#[tokio::test]
async fn what_is_damaged_is_put_aside_and_blocks_nobody() {
    let bench = Bench::new().await;
    let worker = bench.start();
    let whole = Messages {
        header: header(),
        ..Messages::default()
    }
    .encode()
    .unwrap();
    bench.append("results", b"no record".to_vec()).await;
    bench
        .append("results", whole[..whole.len() - 1].to_vec())
        .await;
    bench
        .send(
            "results",
            vec![
                VeloMessage {
                    session_id: FLOW.into(),
                    ..VeloMessage::default()
                },
                rows(0, 1),
            ],
        )
        .await;
    eventually!(bench.marked("results").await == 3);
    assert_eq!(bench.documents(Collection::Rows), 1);
    let letters: Vec<_> = bench.values("dead-letters").await;
    let reasons: Vec<_> = letters
        .iter()
        .map(|value| DeadLetter::decode(value).unwrap().reason)
        .collect();
    assert_eq!(reasons, ["damaged", "damaged", "unknown_payload"]);
    // People find them by time, and a repeat is the same letter.
    eventually!(bench.documents(Collection::DeadLetters) == 3);
    bench.append("dead-letters", letters[0].to_vec()).await;
    eventually!(bench.marked("dead-letters").await == 4);
    assert_eq!(bench.documents(Collection::DeadLetters), 3);
    worker.stop().await;
}

#[tokio::test]
async fn a_record_of_a_newer_program_halts_the_partition() {
    let bench = Bench::new().await;
    let worker = bench.start();
    bench.send("results", vec![rows(0, 1)]).await;
    let mut newer = vec![0xC3, 0x01];
    newer.extend_from_slice(&[9; 40]);
    bench.append("results", newer).await;
    bench.send("results", vec![rows(1, 1)]).await;
    eventually!(bench.marked("results").await == 1);
    // Long enough for three reports.
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(
        (
            bench.marked("results").await,
            bench.documents(Collection::Rows)
        ),
        (1, 1)
    );
    assert!(bench.values("dead-letters").await.is_empty());
    worker.stop().await;
}

#[tokio::test]
async fn a_letter_is_the_record_that_can_be_tried_again_once_its_reason_is_gone() {
    let bench = Bench::new().await;
    bench.faults().poison(Some(Collection::Rows));
    let worker = bench.start();
    bench
        .send("results", vec![rows(0, 1), rows(1, 20_000)])
        .await;
    eventually!(bench.documents(Collection::DeadLetters) == 2);
    assert_eq!(bench.documents(Collection::Rows), 0);

    let letters = bench.index.inner().all(Collection::DeadLetters, "");
    for tries in 1..=2 {
        // In vain, then with success, and a second time for nothing.
        for letter in &letters {
            assert_eq!(
                (letter.client.as_str(), letter.source.as_str()),
                (CLIENT, "kept")
            );
            let letter = DeadLetter::decode(&letter.body).unwrap();
            assert_eq!(
                (letter.topic.as_str(), letter.reason.as_str()),
                ("results", "index")
            );
            let copy = match &letter.object {
                Some(key) => bench.objects.get(key, None).await.unwrap(),
                None => letter.copy.clone(),
            };
            assert_eq!(copy.len() as i64, letter.size);
            bench.append("results", copy.to_vec()).await;
        }
        eventually!(bench.marked("results").await == 1 + 2 * tries);
        if tries == 1 {
            eventually!(bench.marked("dead-letters").await == 4);
            assert_eq!(bench.documents(Collection::DeadLetters), 2);
            assert_eq!(bench.documents(Collection::Rows), 0);
            bench.faults().poison(None);
        }
    }
    assert_eq!(bench.documents(Collection::Rows), 2);
    assert_eq!(bench.values("dead-letters").await.len(), 4);
    worker.stop().await;
}

#[tokio::test]
async fn a_letter_keeps_count_of_its_tries_and_a_dropped_one_stays_dropped() {
    let bench = Bench::new().await;
    let worker = bench.start();
    let first = letters::named(DeadLetter {
        header: header(),
        topic: "results".into(),
        reason: "index".into(),
        attempts: 1,
        copy: Bytes::from_static(b"copy"),
        ..DeadLetter::default()
    });
    let retried = DeadLetter {
        state: letters::RETRIED.to_owned(),
        attempts: 2,
        ..first.clone()
    };
    let seen = || {
        let found = bench.index.inner().all(Collection::DeadLetters, "");
        let attempts = DeadLetter::decode(&found[0].body).unwrap().attempts;
        (found.len(), found[0].source.clone(), attempts)
    };
    for (number, (letter, expected)) in [
        (&first, (1, "kept", 1)),
        (&retried, (1, "retried", 2)),
        (&first, (1, "kept", 2)),
        (
            &DeadLetter {
                state: letters::DROPPED.to_owned(),
                ..first.clone()
            },
            (1, "dropped", 2),
        ),
        (&first, (1, "dropped", 2)),
    ]
    .into_iter()
    .enumerate()
    {
        bench.append("dead-letters", letter.encode().unwrap()).await;
        eventually!(bench.marked("dead-letters").await == number as u64 + 1);
        let (count, state, attempts) = seen();
        assert_eq!(
            (count, state.as_str(), attempts),
            expected,
            "record {number}"
        );
    }
    worker.stop().await;
}

#[tokio::test]
async fn of_documents_the_highest_version_stays() {
    let bench = Bench::new().await;
    let worker = bench.start();
    for (version, state) in [(5, "RUNNING"), (9, "FINISHED"), (7, "IN_PROGRESS")] {
        let body = format!("{{\"flow_id\":\"{FLOW}\",\"create_time\":1,\"state\":\"{state}\"}}");
        let id = format!("{CLIENT}/{FLOW}");
        let document = Document {
            header: header(),
            kind: "flow".into(),
            id,
            version,
            body,
        };
        bench.append("state", document.encode().unwrap()).await;
    }
    eventually!(bench.marked("state").await == 3);
    let flows = bench.index.inner().all(Collection::Flows, "");
    assert_eq!((flows.len(), flows[0].version), (1, 9));
    assert!(ClientKey::of(&header()).is_ok());
    worker.stop().await;
}

#[tokio::test]
async fn an_unknown_group_is_named() {
    let bench = Bench::new().await;
    let ports = Ports {
        log: Arc::new(bench.log.clone()),
        index: Arc::new(bench.index.inner().clone()),
        objects: Arc::new(bench.objects.clone()),
    };
    let config = Config {
        groups: vec!["resluts".into()],
        ..Config::default()
    };
    let error = run(config, ports, CancellationToken::new())
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("resluts"), "{error}");
}

/// A flow's document as the foreman puts it out.
fn flow_document(state: &str, version: i64) -> Vec<u8> {
    let body = json!({
        "client_id": CLIENT, "flow_id": FLOW, "state": state, "create_time": 7,
        "artifacts": ["A"], "creator": "", "total_uploaded_files": 1, "total_uploaded_bytes": 5,
    });
    let document = Document {
        header: header(),
        kind: "flow".into(),
        id: format!("{CLIENT}/{FLOW}"),
        version,
        body: body.to_string(),
    };
    document.encode().unwrap()
}

fn part(path: &str, offset: u64, data: &[u8], eof: bool) -> VeloMessage {
    let pathspec = Some(PathSpec {
        path: path.into(),
        accessor: "file".into(),
        components: Vec::new(),
    });
    let file_buffer = Some(FileBuffer {
        pathspec,
        offset,
        eof,
        data: Bytes::copy_from_slice(data),
        data_length: data.len() as u64,
        ..FileBuffer::default()
    });
    VeloMessage {
        session_id: FLOW.into(),
        file_buffer,
        ..VeloMessage::default()
    }
}

fn reported(path: &str, sha256: &str, start: u64) -> VeloMessage {
    let row = json!({"Upload": {"Path": path, "sha256": sha256}});
    let mut message = rows(start, 1);
    message.vql_response.as_mut().unwrap().jsonl_response = format!("{row}\n");
    message
}

impl Bench {
    fn seals(&self) -> BTreeMap<String, Seal> {
        let all = self.index.inner().all(Collection::Buffers, "");
        let seals = all.iter().filter(|document| document.source == SEALS);
        let seals = seals.map(|seal| serde_json::from_slice::<Seal>(&seal.body).unwrap());
        seals.map(|seal| (seal.sha256.clone(), seal)).collect()
    }
}

const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[tokio::test]
async fn whole_files_are_sealed_when_their_flow_has_ended() {
    let bench = Bench::new().await;
    let worker = bench.start();
    let zeros = vec![0; 40_000];
    let parts = vec![
        part("/hello", 0, b"hel", false),
        part("/empty", 0, b"", true),
        part("/hello", 3, b"lo", false),
        part("/hello", 5, b"", true),
        part("/part", 0, b"par", false),
        // One that stands in objects.
        part("/large", 0, &zeros, false),
        part("/large", 40_000, b"", true),
        marker(),
    ];
    bench.send("uploads", parts).await;
    let wrong = HELLO.replace('2', "3");
    bench
        .send(
            "results",
            vec![reported("/hello", HELLO, 0), reported("/large", &wrong, 1)],
        )
        .await;
    eventually!(bench.documents(Collection::Buffers) == 7);
    eventually!(bench.documents(Collection::Rows) == 2);
    bench.append("state", flow_document("IN_PROGRESS", 1)).await;
    eventually!(bench.marked_by("seals", "state").await == 1);
    assert!(bench.seals().is_empty(), "of a flow that has not ended");

    bench.append("state", flow_document("FINISHED", 2)).await;
    eventually!(bench.marked_by("seals", "state").await == 2);
    let seals = bench.seals();
    assert_eq!(seals.len(), 3, "{seals:#?}");
    let verdict = |hash: &str| (seals[hash].verdict, seals[hash].reported.clone());
    assert_eq!(verdict(HELLO), (Verdict::Verified, Some(HELLO.into())));
    assert_eq!(verdict(EMPTY), (Verdict::NotReported, None));
    let large = seals.values().find(|seal| seal.size == 40_000).unwrap();
    assert_eq!(
        (large.verdict, &large.reported),
        (Verdict::Differs, &Some(wrong))
    );
    worker.kill().await;

    // What comes after the end is sealed too; nothing is sealed twice.
    let worker = bench.start();
    bench
        .send("uploads", vec![part("/part", 3, b"t", true)])
        .await;
    bench
        .send("results", vec![reported("/empty", EMPTY, 2)])
        .await;
    eventually!(bench.documents(Collection::Buffers) == 11);
    eventually!(bench.documents(Collection::Rows) == 3);
    bench.append("state", flow_document("FINISHED", 3)).await;
    bench.append("state", flow_document("FINISHED", 2)).await;
    eventually!(bench.marked_by("seals", "state").await == 4);
    let seals = bench.seals();
    assert_eq!(seals.len(), 4, "{seals:#?}");
    assert_eq!(seals[EMPTY].verdict, Verdict::Verified);
    assert_eq!(seals[HELLO].verdict, Verdict::Verified);
    worker.stop().await;
}

#[tokio::test]
async fn a_file_whose_object_is_gone_stops_no_other() {
    let bench = Bench::new().await;
    let worker = bench.start();
    let parts = vec![
        part("/gone", 0, &vec![1; 40_000], false),
        part("/gone", 40_000, b"", true),
        part("/hello", 0, b"hello", false),
        part("/hello", 5, b"", true),
    ];
    bench.send("uploads", parts).await;
    eventually!(bench.documents(Collection::Buffers) == 4);
    let objects = bench.objects.list("uploads/", None, 10).await.unwrap();
    assert_eq!(objects.len(), 1);
    bench.objects.delete(&objects[0].key).await.unwrap();
    bench.append("state", flow_document("FINISHED", 1)).await;
    eventually!(bench.marked_by("seals", "state").await == 1);
    assert_eq!(bench.seals().into_keys().collect::<Vec<_>>(), [HELLO]);
    worker.stop().await;
}
