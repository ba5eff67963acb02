//! Dead letters from the agent's POST to the person who shows, retries and drops them.

use crate::agents::{body, row};
use nublar_core::letters;
use nublar_ports::StorageConfig;
use nublar_schemas::codec::Record;
use nublar_schemas::records::{AgentMessage, DeadLetter, Header, Messages};
use nublar_tests::{Installation, Recorded, Server, eventually};
use serde_json::Value;

/// A flow of another server, which the recording's configuration adopts.
const FLOW: &str = "F.DC2M4H5TA9T34";

fn listed(server: &Server, installation: &Installation) -> Vec<Value> {
    let lines = server.order(installation, &["dead-letters", "list", "--json"]);
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test]
async fn a_forged_message_is_listed_shown_and_dropped_for_good() {
    let recorded = Recorded::load("collections");
    let installation = Installation::recorded(&recorded)
        .configured("[frontend]\nmax_poll_s = 0.05\n[foreman]\ninterrogate = false\n");
    let mut server = Server::start(&installation).await;
    let player = server.player();
    for letter in recorded.enrolment() {
        player.play(0, letter, 406).await;
    }
    let session = recorded.session();
    let forged = body(
        &session,
        recorded.nonce(),
        &[row(FLOW, "Forged", r#"{"n":"not mine"}"#)],
    );
    let twice = [forged.clone(), forged];
    for body in twice {
        let answer = player.post(0, "/control", body).await.unwrap();
        assert_eq!(answer.status, 200);
    }
    server.api().settled().await;

    // What the agent says twice is one letter.
    let letters = listed(&server, &installation);
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(letters[0]["reason"], "foreign flow");
    assert_eq!(letters[0]["client_id"], recorded.client_id());
    let id = letters[0]["id"].as_str().unwrap();
    let shown = server.order(&installation, &["dead-letters", "show", id]);
    let message = format!("rows of session {FLOW}");
    assert!(shown.contains(&message), "{shown}");
    let copy = ["dead-letters", "show", id, "--copy", "text"];
    let copy = server.order(&installation, &copy);
    assert!(copy.contains("not mine"), "{copy}");

    let dropped = server.order(&installation, &["dead-letters", "drop", id]);
    assert!(dropped.contains("is dropped"), "{dropped}");
    server.kill9().await;
    server.restart().await;
    server.api().settled().await;
    let letters = listed(&server, &installation);
    assert_eq!(letters, Vec::<Value>::new());
    let (status, _) = server
        .api()
        .try_get(&format!("/dead-letters/{id}"))
        .await
        .unwrap();
    assert_eq!(status, 404);
    server.stop().await;
}

/// What an older worker left behind: a message that it could not store, and this one can.
fn left_behind(recorded: &Recorded) -> DeadLetter {
    let header = Header {
        client: recorded.client_id().to_owned(),
        generation: 1,
        at_us: i64::try_from(
            std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .unwrap()
                .as_micros(),
        )
        .unwrap(),
        ..Header::default()
    };
    let record = Messages {
        header: header.clone(),
        messages: vec![AgentMessage {
            session: FLOW.to_owned(),
            bytes: row(FLOW, "Late", r#"{"n":1}"#),
            object: None,
        }],
        ..Messages::default()
    };
    letters::named(DeadLetter {
        header,
        topic: "results".to_owned(),
        partition: -1,
        offset: -1,
        reason: "unknown_payload".to_owned(),
        text: "of a worker that did not know rows".to_owned(),
        attempts: 1,
        copy: record.encode().unwrap().into(),
        ..DeadLetter::default()
    })
}

#[tokio::test]
async fn a_workers_letter_is_stored_once_it_is_retried_and_once_only() {
    let recorded = Recorded::load("collections");
    let installation = Installation::recorded(&recorded);
    let mut server = Server::start(&installation).await;
    let player = server.player();
    for letter in recorded.enrolment() {
        player.play(0, letter, 406).await;
    }
    // The flow is known: its agent has sent something of it.
    let early = [row(FLOW, "Early", r#"{"n":0}"#)];
    let early = body(&recorded.session(), recorded.nonce(), &early);
    let answer = player.post(0, "/control", early).await.unwrap();
    assert_eq!(answer.status, 200);
    server.api().settled().await;
    server.stop().await;
    let letter = left_behind(&recorded);
    {
        let storage = StorageConfig::default().open(installation.data()).unwrap();
        let partition = letters::partition(&letter, 4);
        let value = letter.encode().unwrap().into();
        let key = letter.id.clone().into();
        let append = storage.log.append("dead-letters", partition, key, value);
        append.await.unwrap();
    }
    server.restart().await;
    let api = server.api();
    api.settled().await;
    let found = listed(&server, &installation);
    assert_eq!(found.len(), 1, "{found:?}");
    let id = found[0]["id"].as_str().unwrap();

    let done = server.order(&installation, &["dead-letters", "retry", id]);
    assert!(done.contains("stands in results again"), "{done}");
    assert_eq!(listed(&server, &installation), Vec::<Value>::new());
    let results = format!("/clients/{}/flows/{FLOW}/results", recorded.client_id());
    eventually("the row is stored", async || {
        let results = api.json(&results).await;
        let mut sets = results.as_array().unwrap().iter();
        let late = sets.any(|set| set["name"] == "Late" && set["rows"] == 1);
        if late { Ok(()) } else { Err(results) }
    })
    .await;
    let dump = api.dump().await;
    server.order(&installation, &["dead-letters", "retry", id]);
    assert_eq!(api.dump().await, dump, "a second retry stores nothing");
    assert_eq!(listed(&server, &installation), Vec::<Value>::new());
    server.stop().await;
}
