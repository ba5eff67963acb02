//! An Idempotency-Key names one collection, whatever becomes of the server.

use nublar_tests::{Api, Installation, Recorded, Server};
use serde_json::{Value, json};

async fn flows(api: &Api, client: &str) -> Vec<Value> {
    api.settled().await;
    let listed = api
        .json(&format!("/clients/{client}/flows?limit=1000"))
        .await;
    let flows = listed["flows"].as_array().unwrap().iter();
    // Those of the recording are adopted.
    let ours = flows.filter(|flow| flow["adopted"] == json!(false));
    ours.map(|flow| flow["flow_id"].clone()).collect()
}

#[tokio::test]
async fn outlives_kills() {
    let recorded = Recorded::load("collections");
    let installation = Installation::recorded(&recorded);
    let mut server = Server::start(&installation).await;
    let player = server.player();
    for (turn, letter) in recorded.letters().iter().enumerate() {
        player.play(turn, letter, letter.status).await;
    }
    let api = server.api();
    api.settled().await;
    let client = api.json("/clients").await["clients"][0]["client_id"].clone();
    let client = client.as_str().unwrap();
    let path = format!("/clients/{client}/flows");
    let wish = json!({ "artifacts": ["Generic.Client.Info"] });

    let mut made = Vec::new();
    for round in 0..4 {
        let key = format!("key {round}");
        let (status, answer) = api.post_under(Some(&key), &path, &wish).await;
        assert_eq!(status, 201, "{answer}");
        made.push(answer["flow_id"].clone());
        server.kill9().await;
        server.restart().await;
        for (number, flow) in made.iter().enumerate() {
            let key = format!("key {number}");
            let (status, answer) = api.post_under(Some(&key), &path, &wish).await;
            assert_eq!((status, &answer["flow_id"]), (201, flow), "{answer}");
            let other = json!({ "artifacts": ["Generic.Client.Info"], "urgent": true });
            let (status, answer) = api.post_under(Some(&key), &path, &other).await;
            assert_eq!(status, 409, "{answer}");
        }
    }
    let mut found = flows(&api, client).await;
    found.sort_by_key(Value::to_string);
    made.sort_by_key(Value::to_string);
    assert_eq!(found, made);
    server.stop().await;
}
