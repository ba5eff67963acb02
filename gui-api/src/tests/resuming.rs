//! Uploads that are gone on with.

use super::reading::{FLOW, flow_body};
use super::stage::{Answered, CLIENT, Stage};
use crate::tails::Kind;
use axum::body::Body;
use axum::http::{Method, StatusCode};
use nublar_core::fold::Resumption;
use nublar_core::stats::RESUMED_UPLOADS;
use nublar_schemas::agent::{
    FileBuffer, PathSpec, ResumeTransactions, UploadTransaction, VeloMessage,
};
use nublar_schemas::codec::Record as _;
use nublar_schemas::records::{Request, Scheduling};
use nublar_schemas::topics;
use prost::Message as _;
use serde_json::{Value, json};

const SIZE: u64 = 100;

#[derive(Clone, Copy)]
struct File {
    number: i64,
    path: &'static str,
    accessor: &'static str,
    sparse: bool,
}

impl File {
    const fn plain(number: i64, path: &'static str) -> Self {
        Self {
            number,
            path,
            accessor: "auto",
            sparse: false,
        }
    }

    fn announced(&self) -> VeloMessage {
        let transaction = UploadTransaction {
            filename: self.path.to_owned(),
            store_as_name: self.path.to_owned(),
            accessor: self.accessor.to_owned(),
            expected_size: SIZE as i64,
            upload_id: self.number,
            mode: 0o644,
            ..UploadTransaction::default()
        };
        VeloMessage {
            session_id: FLOW.to_owned(),
            upload_transaction: Some(transaction),
            ..VeloMessage::default()
        }
    }

    fn sent(&self, from: u64, to: u64) -> VeloMessage {
        let buffer = FileBuffer {
            pathspec: Some(PathSpec {
                path: self.path.to_owned(),
                accessor: self.accessor.to_owned(),
                components: Vec::new(),
            }),
            offset: from,
            data: vec![7; (to - from) as usize].into(),
            data_length: to - from,
            upload_number: self.number,
            is_sparse: self.sparse,
            size: SIZE,
            eof: from == to,
            ..FileBuffer::default()
        };
        VeloMessage {
            session_id: FLOW.to_owned(),
            file_buffer: Some(buffer),
            ..VeloMessage::default()
        }
    }
}

/// Whole, cut off, with a gap, not begun, sparse and cut off, and of an accessor that cannot find it
/// again.
const FILES: [File; 6] = [
    File::plain(0, "/whole"),
    File::plain(1, "/cut"),
    File::plain(2, "/gap"),
    File::plain(3, "/not begun"),
    File {
        sparse: true,
        ..File::plain(4, "/sparse")
    },
    File {
        accessor: "zip",
        ..File::plain(5, "/member")
    },
];

async fn staged(state: &str) -> Stage {
    let stage = Stage::new().await;
    let body = flow_body(state, 0);
    let id = format!("{CLIENT}/{FLOW}");
    stage.tell(Kind::Flow, &id, 1, &body).await;
    let [whole, cut, gap, _, sparse, member] = FILES;
    let sent = [
        whole.sent(0, SIZE),
        whole.sent(SIZE, SIZE),
        cut.sent(0, 40),
        gap.sent(0, 10),
        gap.sent(20, 30),
        sparse.sent(0, 50),
        member.sent(0, 5),
    ];
    stage.store(FILES.iter().map(File::announced)).await;
    stage.store(sent).await;
    stage
}

async fn resume(stage: &Stage, query: &str) -> Answered {
    let path = format!("/clients/{CLIENT}/flows/{FLOW}/resume{query}");
    stage
        .send(Stage::request(Method::POST, &path, Body::empty()))
        .await
}

/// What the last command asks the agent for.
async fn requested(stage: &Stage) -> (Resumption, ResumeTransactions) {
    let commands = stage.scheduled().await.into_iter();
    let mut commands = commands.filter_map(|record| match record {
        Scheduling::Command(command) => Some(command),
        _ => None,
    });
    let command = commands.next_back().expect("a command");
    assert_eq!(
        (command.kind.as_str(), command.target.as_str()),
        ("resume", FLOW)
    );
    let wanted: Resumption = serde_json::from_str(&command.body).unwrap();
    let requests = stage.records(topics::REQUESTS.name, partitions()).await;
    let mut requests = requests.iter().map(|value| Request::decode(value).unwrap());
    let request = requests
        .find(|request| request.hash == wanted.request.hash)
        .expect("the request is in the log before the command");
    let body = ResumeTransactions::decode(request.body).unwrap();
    (wanted, body)
}

fn partitions() -> u32 {
    match topics::REQUESTS.partitions {
        topics::Partitions::Fixed(partitions) => partitions,
        topics::Partitions::PerClients => panic!("requests are not of clients"),
    }
}

#[tokio::test]
async fn an_agent_is_asked_for_what_is_missing_from_where_it_is_missing() {
    let stage = staged("ERROR").await;
    let foreman = stage.foreman(|_, _, _| (String::new(), String::new()));
    let answered = resume(&stage, "?timeout_s=77").await;
    assert_eq!(answered.status, StatusCode::OK, "{answered:?}");
    let answer = answered.json();
    assert_eq!(
        (&answer["uploads"], &answer["left"]),
        (&json!(4), &json!(0))
    );
    assert_eq!(answer["bytes"], json!(60 + 90 + 100 + 100));

    let (wanted, body) = requested(&stage).await;
    let from: Vec<_> = body
        .transactions
        .iter()
        .map(|one| (one.filename.as_str(), one.start_offset, one.mode))
        .collect();
    let expected = [
        ("/cut", 40, 0o644),
        ("/gap", 10, 0o644),
        ("/not begun", 0, 0o644),
        ("/sparse", 0, 0o644),
    ];
    assert_eq!(from, expected);
    assert_eq!(
        (body.flow_id.as_str(), body.client_id.as_str(), body.timeout),
        (FLOW, CLIENT, 77)
    );
    // By these the agent's statistics tell what they are of.
    let [status] = body.query_stats.as_slice() else {
        panic!("{:?}", body.query_stats);
    };
    assert_eq!(status.names_with_response, [RESUMED_UPLOADS]);
    assert_eq!(status.first_active, wanted.began_us as u64);
    assert_eq!(wanted.uploads, 4);
    foreman.abort();
    stage.end().await;
}

#[tokio::test]
async fn what_went_on_is_whole_and_asked_for_no_more() {
    let stage = staged("ERROR").await;
    let foreman = stage.foreman(|_, _, _| (String::new(), String::new()));
    let [_, cut, gap, not_begun, sparse, _] = FILES;
    stage
        .store([
            cut.sent(40, SIZE),
            cut.sent(SIZE, SIZE),
            gap.sent(10, SIZE),
            gap.sent(SIZE, SIZE),
            not_begun.sent(0, SIZE),
            not_begun.sent(SIZE, SIZE),
        ])
        .await;
    let (plain, begun) = (
        File {
            sparse: false,
            ..sparse
        },
        sparse,
    );
    // This time it came plain.
    stage
        .store([plain.sent(0, SIZE), plain.sent(SIZE, SIZE)])
        .await;
    let answered = resume(&stage, "").await;
    assert_eq!(answered.status, StatusCode::CONFLICT, "{answered:?}");
    assert!(
        answered
            .text()
            .contains("no upload that its agent could go on with")
    );

    let uploads = stage
        .json(&format!("/clients/{CLIENT}/flows/{FLOW}/uploads"))
        .await;
    for upload in uploads.as_array().unwrap() {
        let was_member = upload["path"] == "/member";
        let was_sparse = upload["path"] == begun.path && upload["sparse"] == json!(true);
        assert_eq!(
            upload["complete"],
            json!(!was_member && !was_sparse),
            "{upload}"
        );
    }
    foreman.abort();
    stage.end().await;
}

#[tokio::test]
async fn the_list_says_what_may_be_gone_on_with() {
    let listed = async |state: &str| -> Vec<(String, bool)> {
        let stage = staged(state).await;
        let uploads = stage
            .json(&format!("/clients/{CLIENT}/flows/{FLOW}/uploads"))
            .await;
        stage.end().await;
        let shown = |upload: &Value| {
            let path = upload["path"].as_str().unwrap().to_owned();
            (path, upload["resumable"] == json!(true))
        };
        uploads.as_array().unwrap().iter().map(shown).collect()
    };
    let of = |path: &str, may: bool| (path.to_owned(), may);
    let ended = [
        of("/whole", false),
        of("/cut", true),
        of("/gap", true),
        of("/sparse", true),
        of("/member", false),
    ];
    assert_eq!(listed("ERROR").await, ended);
    assert!(listed("IN_PROGRESS").await.iter().all(|(_, may)| !may));
}

#[tokio::test]
async fn a_refusal_of_the_foreman_and_a_bad_timeout_are_told() {
    let stage = staged("ERROR").await;
    assert_eq!(
        resume(&stage, "?timeout_s=0").await.status,
        StatusCode::BAD_REQUEST
    );
    let foreman = stage.foreman(|_, _, _| ("the agent works on it".to_owned(), String::new()));
    let answered = resume(&stage, "").await;
    assert_eq!(answered.status, StatusCode::CONFLICT);
    assert!(answered.text().contains("the agent works on it"));
    foreman.abort();
    stage.end().await;
}
