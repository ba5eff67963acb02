//! Tools: stored in pieces, compiled into requests, replaced and removed.

use super::stage::{Stage, until};
use axum::body::Body;
use axum::http::{Method, StatusCode};
use nublar_core::tools::{Manifest, PIECE};
use nublar_ports::Objects;
use serde_json::{Value, json};
use std::fmt::Write;

const NEEDS: &str = "\
name: Custom.Needs
tools:
  - name: Scanner
    serve_locally: true
sources:
  - query: SELECT Tool_Scanner_URL FROM scope()
";

fn sha256(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

fn put(path: &str, body: impl Into<Body>) -> axum::http::Request<Body> {
    Stage::request(Method::PUT, path, body)
}

#[tokio::test]
async fn a_tool_is_stored_and_compiled_into_what_needs_it() {
    let stage = Stage::new().await;
    let foreman = stage.settings_foreman();
    let answered = stage.send(put("/artifacts", NEEDS)).await;
    let warning = answered.json()["warnings"][0].clone();
    assert_eq!(warning["line"], 3, "{warning}");
    let message = warning["message"].as_str().unwrap();
    assert!(
        message.contains("nublar tools add Scanner FILE"),
        "{warning}"
    );
    let listed = stage.json("/tools").await[0].clone();
    assert_eq!(listed["state"], "missing");
    let problem = listed["definitions"][0]["problem"].as_str().unwrap();
    assert!(message.ends_with(problem), "{problem}");
    let wish = || {
        let path = "/clients/C.00000000000000aa/flows";
        Stage::request(Method::POST, path, r#"{"artifacts":["Custom.Needs"]}"#)
    };
    let refused = stage.send(wish()).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{refused:?}");
    let told = stage.scheduled().await.len();

    // Two pieces of the same content, and a shorter one.
    let mut file = vec![7; 2 * PIECE];
    file.extend_from_slice(b"the end");
    let hash = sha256(&file);
    let path = format!("/tools/Scanner?filename=scan.exe&sha256={hash}");
    let answered = stage.send(put(&path, file.clone())).await;
    let expected = json!({
        "name": "Scanner",
        "version": "",
        "sha256": hash,
        "filename": "scan.exe",
        "size": file.len(),
    });
    assert_eq!(
        (answered.status, answered.json()),
        (StatusCode::OK, expected)
    );
    let list = stage
        .objects
        .get(&Manifest::key(&hash).unwrap(), None)
        .await;
    let manifest = Manifest::read(&list.unwrap()).unwrap();
    let mut stored = Vec::new();
    for piece in manifest.pieces(&(0..file.len() as u64)) {
        let bytes = stage.objects.get(&piece.key, None).await.unwrap();
        stored.extend_from_slice(&bytes[piece.range]);
    }
    assert!(stored == file);

    let compile = Stage::request(
        Method::POST,
        "/artifacts/Custom.Needs/compile",
        Body::empty(),
    );
    let compiled = stage.send(compile).await.json();
    let url = format!("https://a.example/public/{hash}");
    let urls = json!([url, format!("https://b.example/x/public/{hash}")]);
    let variable =
        |name: &str, value: &str| json!({"key": format!("Tool_Scanner_{name}"), "value": value});
    assert_eq!(
        compiled["VQLClientActions"][0]["env"],
        json!([
            variable("HASH", &hash),
            variable("FILENAME", "scan.exe"),
            variable("URL", &url),
            variable("URLs", &urls.to_string()),
        ])
    );
    assert_eq!(stage.send(wish()).await.status, StatusCode::CREATED);
    // The file's command and the flow.
    assert_eq!(stage.scheduled().await.len(), told + 2);
    let shown = stage.json("/tools/Scanner").await;
    assert_eq!(shown["state"], "ready");
    assert_eq!(shown["needed_by"], json!(["Custom.Needs"]));
    assert_eq!(shown["definitions"][0]["problem"], Value::Null);
    // Another server knows it too.
    let other = stage.another().await;
    assert_eq!(other.json("/tools").await, json!([shown]));
    other.end().await;
    foreman.abort();
    stage.end().await;
}

#[tokio::test]
async fn a_removed_tool_takes_with_it_what_no_other_one_has() {
    let stage = Stage::new().await;
    let foreman = stage.settings_foreman();
    let shared = vec![1; PIECE];
    let (mut one, mut two) = (shared.clone(), shared.clone());
    one.extend_from_slice(b"one");
    two.extend_from_slice(b"two");
    for (path, file) in [
        ("/tools/One", &one),
        ("/tools/Two?version=2.1", &two),
        ("/tools/Same?version=2.1", &two),
    ] {
        let answered = stage.send(put(path, file.clone())).await;
        assert_eq!(answered.status, StatusCode::OK, "{answered:?}");
    }
    let objects = async || stage.objects.list("tools/", None, 100).await.unwrap().len();
    assert_eq!(objects().await, 5);
    let delete = async |path: &str| {
        let answered = stage
            .send(Stage::request(Method::DELETE, path, Body::empty()))
            .await;
        assert_eq!(answered.status, StatusCode::OK, "{answered:?}");
        answered.json()["removed"].clone()
    };
    assert_eq!(delete("/tools/One").await, true);
    assert_eq!(objects().await, 3);
    assert_eq!(delete("/tools/One").await, false);
    // The same file under another name stays.
    assert_eq!(delete("/tools/Two?version=2.1").await, true);
    assert_eq!(objects().await, 3);
    assert_eq!(delete("/tools/Same?version=2.1").await, true);
    assert_eq!(objects().await, 0);
    until(|| stage.app.settings.files().is_empty()).await;
    assert_eq!(stage.json("/tools").await, json!([]));
    foreman.abort();
    stage.end().await;
}

#[tokio::test]
async fn what_is_no_tool_is_refused_and_told_to_nobody() {
    let stage = Stage::new().await;
    let wrong = format!("/tools/T?sha256={}", "0".repeat(64));
    for (path, body, said) in [
        (wrong.as_str(), "x", "SHA-256"),
        ("/tools/T", "", "empty"),
        ("/tools/a%2Fb", "x", "a/b"),
        ("/tools/T?version=1%402", "x", "1@2"),
        ("/tools/T?filename=..%2Fx", "x", "../x"),
        ("/tools/T?sha=1", "x", "sha"),
    ] {
        let answered = stage.send(put(path, body)).await;
        assert_eq!(
            answered.status,
            StatusCode::BAD_REQUEST,
            "{path}: {answered:?}"
        );
        let error = answered.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(said), "{path}: {error}");
    }
    let missing = stage.get("/tools/T").await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    let delete = Stage::request(Method::DELETE, "/tools/T", Body::empty());
    assert_eq!(stage.send(delete).await.status, StatusCode::NOT_FOUND);
    assert!(stage.scheduled().await.is_empty());
    assert_eq!(stage.json("/tools").await, Value::Array(Vec::new()));
    stage.end().await;
}
