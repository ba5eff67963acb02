//! Dead letters are listed, shown, retried and dropped. The group that reads them into the index is
//! played by the hand of this test.

use super::stage::{Answered, CLIENT, Stage, header};
use crate::clock::now_us;
use axum::body::Body;
use axum::http::{Method, StatusCode};
use bytes::Bytes;
use nublar_core::letters::{KEPT, named, partition, slim, version};
use nublar_ports::index::{Collection, Document, Index};
use nublar_ports::log::{From as Begin, Position, TailEvent};
use nublar_ports::objects::Objects;
use nublar_schemas::agent::VeloMessage;
use nublar_schemas::codec::Record;
use nublar_schemas::records::{AgentMessage, DeadLetter, Header, Messages};
use prost::Message;
use serde_json::{Value, json};
use std::time::Duration;

/// A letter of a frontend: it never was in a topic.
fn refused(n: i64) -> DeadLetter {
    let message = VeloMessage {
        session_id: "F.NOTMINE".to_owned(),
        ..VeloMessage::default()
    };
    named(DeadLetter {
        header: Header {
            at_us: now_us() - 1_000_000 + n,
            ..header()
        },
        partition: -1,
        offset: -1,
        reason: "foreign flow".to_owned(),
        text: format!("letter {n}"),
        attempts: 1,
        copy: if n == 0 {
            message.encode_to_vec().into()
        } else {
            Bytes::from(format!("copy {n}"))
        },
        ..DeadLetter::default()
    })
}

/// A letter of a worker: its copy is a record.
fn put_aside(bytes: &'static [u8]) -> DeadLetter {
    let record = Messages {
        header: header(),
        messages: vec![AgentMessage {
            session: "F.MINE".to_owned(),
            bytes: Bytes::from_static(bytes),
            object: None,
        }],
        ..Messages::default()
    };
    named(DeadLetter {
        header: header(),
        topic: "results".to_owned(),
        partition: -1,
        offset: -1,
        reason: "index".to_owned(),
        text: "the index says no".to_owned(),
        attempts: 1,
        copy: record.encode().unwrap().into(),
        ..DeadLetter::default()
    })
}

async fn index(stage: &Stage, letter: &DeadLetter, position: Position) {
    let version = version(letter, position.generation, position.offset);
    let (letter, object) = slim(letter.clone());
    if let Some((key, copy)) = object {
        stage.objects.put(&key, copy).await.unwrap();
    }
    let source = Some(letter.state.as_str()).filter(|state| !state.is_empty());
    let document = Document {
        id: letter.id.clone(),
        bucket: None,
        client: letter.header.client.clone(),
        flow: String::new(),
        source: source.unwrap_or(KEPT).to_owned(),
        order: letter.header.at_us,
        text: String::new(),
        hashes: Vec::new(),
        version,
        size: 0,
        body: letter.encode().unwrap().into(),
    };
    let put = stage.index.put(Collection::DeadLetters, "", vec![document]);
    put.await.unwrap();
}

/// Whoever refuses appends the letter; the group puts it into the index.
async fn arrives(stage: &Stage, letter: &DeadLetter) {
    let value = letter.encode().unwrap().into();
    let partition = partition(letter, 4);
    let append = stage
        .log
        .append("dead-letters", partition, Bytes::new(), value);
    index(stage, letter, append.await.unwrap()).await;
}

/// The group follows what the API appends, while a call waits for it.
async fn followed(stage: &Stage, method: Method, path: &str) -> Answered {
    let all = [0, 1, 2, 3];
    let mut tail = stage
        .log
        .tail("dead-letters", &all, Begin::Now)
        .await
        .unwrap();
    let following = async {
        loop {
            if let TailEvent::Record(record) = tail.next().await.unwrap() {
                // Not so quick that nobody had to wait.
                tokio::time::sleep(Duration::from_millis(30)).await;
                let letter = DeadLetter::decode(&record.value).unwrap();
                index(stage, &letter, record.position).await;
            }
        }
    };
    tokio::select! {
        answered = stage.send(Stage::request(method, path, Body::empty())) => answered,
        () = following => unreachable!("the tail ended"),
    }
}

async fn texts(stage: &Stage, path: &str) -> Vec<String> {
    let listed = stage.json(path).await;
    let letters = listed["letters"].as_array().unwrap().iter();
    letters
        .map(|letter| letter["text"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn letters_are_listed_in_pages_of_a_client_and_for_thirty_days() {
    let stage = Stage::new().await;
    for n in 0..5 {
        arrives(&stage, &refused(n)).await;
    }
    let mut elsewhere = refused(9);
    elsewhere.id = String::new();
    elsewhere.header.client = "C.00000000000000bb".to_owned();
    arrives(&stage, &named(elsewhere)).await;
    let mut old = put_aside(b"old");
    old.header.at_us = now_us() - 31 * 86_400_000_000;
    arrives(&stage, &old).await;

    let ours = format!("/dead-letters?client={CLIENT}");
    let page = stage.json(&format!("{ours}&limit=3")).await;
    assert_eq!(page["letters"].as_array().unwrap().len(), 3);
    assert_eq!(page["letters"][0]["text"], "letter 4");
    assert_eq!(page["letters"][0]["reason"], "foreign flow");
    assert_eq!(page["letters"][0]["size"], 6);
    let next = page["next"].as_str().unwrap();
    let rest = texts(&stage, &format!("{ours}&limit=3&after={next}")).await;
    assert_eq!(rest, ["letter 1", "letter 0"]);
    assert_eq!(texts(&stage, "/dead-letters").await.len(), 6);
    let gone = stage.get(&format!("/dead-letters/{}", old.id)).await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
    let wrong = stage.get("/dead-letters?client=server").await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
    stage.end().await;
}

#[tokio::test]
async fn a_letter_is_shown_with_its_header_and_the_messages_in_its_copy() {
    let stage = Stage::new().await;
    let (ours, large) = (refused(0), vec![b'x'; 40_000]);
    arrives(&stage, &ours).await;
    let shown = stage.json(&format!("/dead-letters/{}", ours.id)).await;
    assert_eq!(shown["generation"], 1);
    assert_eq!(shown["messages"][0]["session"], "F.NOTMINE");
    let no = shown["not_to_be_retried"].as_str().unwrap();
    assert!(no.contains("foreign flow"), "{no}");

    let large = named(DeadLetter {
        id: String::new(),
        copy: large.into(),
        ..refused(7)
    });
    arrives(&stage, &large).await;
    let copy = stage.get(&format!("/dead-letters/{}/copy", large.id)).await;
    assert_eq!(copy.header("content-type"), "application/octet-stream");
    assert_eq!(copy.body, large.copy);
    stage.end().await;
}

#[tokio::test]
async fn a_retried_letter_stands_in_its_topic_again_and_is_listed_only_if_it_comes_back() {
    let stage = Stage::new().await;
    let letter = put_aside(b"a");
    arrives(&stage, &letter).await;
    let retry = format!("/dead-letters/{}/retry", letter.id);
    for attempts in [2, 3] {
        let done = followed(&stage, Method::POST, &retry).await;
        assert_eq!(done.status, StatusCode::OK, "{done:?}");
        assert_eq!(done.json()["topic"], "results");
        assert!(texts(&stage, "/dead-letters").await.is_empty());
        let shown = stage.json(&format!("/dead-letters/{}", letter.id)).await;
        assert_eq!(
            (&shown["attempts"], &shown["state"]),
            (&json!(attempts), &json!("retried"))
        );
    }
    // Both times the very record: what is stored of it is the same.
    assert_eq!(
        stage.records("results", 4).await,
        [letter.copy.clone(), letter.copy.clone()]
    );
    // The reason was not gone.
    let records = stage.records("dead-letters", 4).await.len();
    let position = Position {
        generation: 5,
        offset: records as u64,
    };
    index(&stage, &letter, position).await;
    assert_eq!(texts(&stage, "/dead-letters").await, ["the index says no"]);
    stage.end().await;
}

#[tokio::test]
async fn what_a_rule_refused_cannot_be_retried() {
    let stage = Stage::new().await;
    let letter = refused(0);
    arrives(&stage, &letter).await;
    let retry = format!("/dead-letters/{}/retry", letter.id);
    let done = followed(&stage, Method::POST, &retry).await;
    assert_eq!(done.status, StatusCode::CONFLICT, "{done:?}");
    for topic in ["results", "uploads", "events"] {
        assert!(stage.records(topic, 4).await.is_empty());
    }
    assert_eq!(texts(&stage, "/dead-letters").await.len(), 1);
    stage.end().await;
}

#[tokio::test]
async fn a_dropped_letter_stays_hidden_whatever_comes_later() {
    let stage = Stage::new().await;
    let (dropped, kept) = (refused(0), refused(1));
    arrives(&stage, &dropped).await;
    arrives(&stage, &kept).await;
    let place = format!("/dead-letters/{}", dropped.id);
    let done = followed(&stage, Method::DELETE, &place).await;
    assert_eq!(
        (done.status, done.json()),
        (
            StatusCode::OK,
            json!({ "id": dropped.id, "dropped": true }) as Value
        )
    );
    // The agent repeats its POST.
    arrives(&stage, &dropped).await;
    assert_eq!(texts(&stage, "/dead-letters").await, ["letter 1"]);
    for path in [place.clone(), format!("{place}/copy")] {
        assert_eq!(stage.get(&path).await.status, StatusCode::NOT_FOUND);
    }
    let retry = stage.send(Stage::request(
        Method::POST,
        &format!("{place}/retry"),
        Body::empty(),
    ));
    assert_eq!(retry.await.status, StatusCode::NOT_FOUND);
    let last = stage.records("dead-letters", 4).await;
    let states: Vec<_> = last
        .iter()
        .map(|value| DeadLetter::decode(value).unwrap())
        .filter(|letter| letter.state == "dropped")
        .collect();
    assert_eq!(states.len(), 1);
    assert!(states[0].copy.is_empty(), "a dropped copy is not repeated");
    stage.end().await;
}
