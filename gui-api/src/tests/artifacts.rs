//! Artifacts: listed, shown, added with a foreman's answer, and refused with line and column.

use super::stage::{Stage, header};
use axum::body::Body;
use axum::http::{Method, StatusCode};
use nublar_schemas::codec::Record;
use nublar_schemas::records::Setting;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicI64, Ordering};

const TEXT: &str = "\
name: Custom.Test.One
description: |
  A
  test.

  More.
parameters:
  - name: Depth
    type: int
    default: \"1\"
sources:
  - query: SELECT Depth FROM scope()
";

/// The foreman gives settings their versions and publishes them.
fn foreman(stage: &Stage) -> tokio::task::JoinHandle<()> {
    let log = stage.log.clone();
    let versions = AtomicI64::new(0);
    stage.foreman(move |kind, target, body| {
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

#[tokio::test]
async fn an_artifact_is_added_seen_and_removed() {
    let stage = Stage::new().await;
    let foreman = foreman(&stage);
    let put = |text: &str| Stage::request(Method::PUT, "/artifacts", text.to_owned());
    let answered = stage.send(put(TEXT)).await;
    assert_eq!(answered.status, StatusCode::OK, "{answered:?}");
    assert_eq!(
        answered.json(),
        json!({"name": "Custom.Test.One", "version": 1, "warnings": []})
    );

    let shown = stage.json("/artifacts/Custom.Test.One").await;
    assert_eq!(
        (shown["yaml"].as_str(), shown["origin"].as_str()),
        (Some(TEXT), Some("custom"))
    );
    assert_eq!(shown["parameters"][0]["name"], "Depth");
    let listed = stage.json("/artifacts?q=test.one").await;
    assert_eq!(listed[0]["description"], "A test.");
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert!(stage.json("/artifacts").await.as_array().unwrap().len() > 1);

    // It can be collected now, and refuses what it cannot be.
    let wish = Stage::request(
        Method::POST,
        "/clients/C.00000000000000aa/flows",
        r#"{"artifacts":["Custom.Test.One"],"parameters":{"Depth":3}}"#,
    );
    assert_eq!(stage.send(wish).await.status, StatusCode::CREATED);

    // What it needs may come later: a warning.
    let needy = TEXT
        .replace("One", "Two")
        .replace("FROM scope()", "FROM Artifact.Custom.Missing.One()");
    let answered = stage.send(put(&needy)).await;
    assert_eq!(answered.status, StatusCode::OK, "{answered:?}");
    assert!(
        answered.json()["warnings"]
            .to_string()
            .contains("Custom.Missing.One")
    );

    let delete =
        |name: &str| Stage::request(Method::DELETE, &format!("/artifacts/{name}"), Body::empty());
    assert_eq!(
        stage.send(delete("Custom.Test.One")).await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        stage.get("/artifacts/Custom.Test.One").await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        stage.send(delete("Custom.Test.One")).await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        stage.send(delete("Generic.Client.Info")).await.status,
        StatusCode::CONFLICT
    );
    foreman.abort();
    stage.end().await;
}

#[tokio::test]
async fn what_is_wrong_is_said_with_line_and_column_and_nothing_is_told() {
    let stage = Stage::new().await;
    let wrong = TEXT.replace("SELECT Depth FROM", "SELECT Depth FORM (");
    let answered = stage
        .send(Stage::request(Method::PUT, "/artifacts", wrong))
        .await;
    assert_eq!(answered.status, StatusCode::BAD_REQUEST);
    let problem = answered.json()["problems"][0].clone();
    assert_eq!(problem["line"], 12);
    assert!(problem["column"].as_u64().unwrap() > 1, "{problem}");
    assert_ne!(problem["message"], Value::Null);
    let answered = stage
        .send(Stage::request(Method::PUT, "/artifacts", vec![0xff, 0xfe]))
        .await;
    assert_eq!(answered.status, StatusCode::BAD_REQUEST);
    assert!(stage.scheduled().await.is_empty());
    stage.end().await;
}
