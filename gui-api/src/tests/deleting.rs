//! A client is deleted, and nothing of it is shown any more.

use super::reading::{FLOW, flow_body};
use super::stage::{CLIENT, Stage};
use crate::tails::Kind;
use axum::body::Body;
use axum::http::{Method, StatusCode};
use nublar_schemas::records::Scheduling;
use serde_json::json;

fn delete(client: &str) -> axum::http::Request<Body> {
    let path = format!("/clients/{client}");
    Stage::request(Method::DELETE, &path, Body::empty())
}

#[tokio::test]
async fn a_deletion_waits_for_the_foreman_and_is_seen_at_once() {
    let stage = Stage::new().await;
    assert_eq!(
        stage.send(delete("C.00000000000000ff")).await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        stage.send(delete("no-client")).await.status,
        StatusCode::BAD_REQUEST
    );
    let id = format!("{CLIENT}/{FLOW}");
    let client = json!({ "client_id": CLIENT, "first_seen_at": 1 });
    stage.project(Kind::Client, CLIENT, 1, "", &client).await;
    stage
        .project(Kind::Flow, &id, 1, "", &flow_body("RUNNING", 0))
        .await;
    stage
        .tell(Kind::Flow, &id, 2, &flow_body("RUNNING", 1))
        .await;

    // Nobody answers: the command is in the log all the same.
    let answered = stage.send(delete(CLIENT)).await;
    assert_eq!(answered.status, StatusCode::ACCEPTED, "{answered:?}");
    let commands = stage.scheduled().await.into_iter();
    let commands: Vec<_> = commands
        .filter_map(|record| match record {
            Scheduling::Command(command) => Some(command),
            _ => None,
        })
        .collect();
    let [command] = &commands[..] else {
        panic!("{commands:?}")
    };
    assert_eq!(
        (command.kind.as_str(), command.target.as_str()),
        ("delete_client", CLIENT)
    );
    assert_eq!(command.header.generation, 1);

    stage.life(2).await;
    let foreman = stage.foreman(|_, _, _| (String::new(), "{}".to_owned()));
    for path in [
        format!("/clients/{CLIENT}"),
        format!("/clients/{CLIENT}/flows"),
        format!("/clients/{CLIENT}/flows/{FLOW}"),
        format!("/clients/{CLIENT}/events"),
    ] {
        let answered = stage.get(&path).await;
        assert_eq!(answered.status, StatusCode::NOT_FOUND, "{path}");
    }
    let listed = stage.json("/clients").await;
    assert_eq!(listed["clients"], json!([]));
    let dump = stage.get("/dump").await;
    assert!(!dump.text().contains(CLIENT), "{}", dump.text());
    assert_eq!(
        stage.send(delete(CLIENT)).await.status,
        StatusCode::NOT_FOUND,
        "there is none to delete"
    );

    // It enrols anew: it is shown as what it is now.
    stage.enrol_as(CLIENT, 2).await;
    let listed = stage.json(&format!("/clients/{CLIENT}/flows")).await;
    assert_eq!(listed["flows"], json!([]));
    let shown = stage.json(&format!("/clients/{CLIENT}")).await;
    assert_eq!(shown, json!({ "client_id": CLIENT, "labels": [] }));
    // The foreman's word of the deletion comes late, and that of the new one behind it.
    stage.tell_of(2, Kind::Client, CLIENT, 3, "").await;
    let shown = stage.json(&format!("/clients/{CLIENT}")).await;
    assert_eq!(shown, json!({ "client_id": CLIENT, "labels": [] }));
    let client = json!({ "client_id": CLIENT, "first_seen_at": 5 });
    stage
        .tell_of(2, Kind::Client, CLIENT, 4, &client.to_string())
        .await;
    let listed = stage.json("/clients").await;
    assert_eq!(listed["clients"], json!([client]));

    // Answered, but not read in the registry yet: not called done.
    let answered = stage.send(delete(CLIENT)).await;
    assert_eq!(answered.status, StatusCode::ACCEPTED, "{answered:?}");
    foreman.abort();
    stage.end().await;
}
