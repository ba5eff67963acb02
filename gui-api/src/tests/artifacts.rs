//! Artifacts: listed, shown, added with a foreman's answer, and refused with line and column.

use super::stage::Stage;
use axum::body::Body;
use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use std::io::Write;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

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

#[tokio::test]
async fn an_artifact_is_added_seen_and_removed() {
    let stage = Stage::new().await;
    let foreman = stage.settings_foreman();
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
    // What needs it is said; whoever repeats the call is told that there is nothing left to do.
    let user = TEXT
        .replace("One", "Three")
        .replace("FROM scope()", "FROM Artifact.Custom.Test.One()");
    assert_eq!(stage.send(put(&user)).await.status, StatusCode::OK);
    let removed = |removed: bool| {
        json!({
            "name": "Custom.Test.One",
            "removed": removed,
            "built_in": false,
            "needed_by": ["Custom.Test.Three"],
        })
    };
    for first in [true, false] {
        let answered = stage.send(delete("Custom.Test.One")).await;
        assert_eq!(
            (answered.status, answered.json()),
            (StatusCode::OK, removed(first))
        );
        assert_eq!(
            stage.get("/artifacts/Custom.Test.One").await.status,
            StatusCode::NOT_FOUND
        );
    }
    assert_eq!(
        stage.send(delete("Custom.Test.Never")).await.status,
        StatusCode::NOT_FOUND
    );
    foreman.abort();
    stage.end().await;
}

#[tokio::test]
async fn a_built_in_artifact_cannot_be_removed_and_what_hides_it_can() {
    let stage = Stage::new().await;
    let foreman = stage.settings_foreman();
    let delete = || {
        Stage::request(
            Method::DELETE,
            "/artifacts/Generic.Client.Info",
            Body::empty(),
        )
    };
    assert_eq!(stage.send(delete()).await.status, StatusCode::CONFLICT);
    let mine = TEXT.replace("Custom.Test.One", "Generic.Client.Info");
    let put = Stage::request(Method::PUT, "/artifacts", mine);
    assert_eq!(stage.send(put).await.status, StatusCode::OK);
    let origin = async || stage.json("/artifacts/Generic.Client.Info").await["origin"].clone();
    assert_eq!(origin().await, "custom");
    for first in [true, false] {
        let answered = stage.send(delete()).await;
        assert_eq!(answered.status, StatusCode::OK, "{answered:?}");
        let answer = answered.json();
        assert_eq!(answer["removed"], first);
        assert_eq!(answer["built_in"], true);
        assert_eq!(origin().await, "built-in");
    }
    // Another server, as after a restart, says the same.
    let other = stage.another().await;
    let shown = other.json("/artifacts/Generic.Client.Info").await;
    assert_eq!(shown["origin"], "built-in");
    other.end().await;
    foreman.abort();
    stage.end().await;
}

#[tokio::test]
async fn a_pack_names_what_is_broken_and_adds_the_rest() {
    let stage = Stage::new().await;
    let foreman = stage.settings_foreman();
    let good = |name: &str| TEXT.replace("Custom.Test.One", name);
    let needy = good("Custom.Needy").replace("FROM scope()", "FROM Artifact.Custom.Late()");
    let broken = good("Custom.Broken").replace("FROM scope()", "FROM");
    let nameless = good("../Etc");
    let files = json!({"files": [
        {"name": "a.yaml", "yaml": needy},
        {"name": "b.yaml", "yaml": broken},
        {"name": "c.yaml", "yaml": good("Custom.Late")},
        {"name": "d.yaml", "yaml": nameless},
        {"name": "e.yaml", "yaml": "name: ["},
    ]});
    let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for file in files["files"].as_array().unwrap() {
        zip.start_file(file["name"].as_str().unwrap(), SimpleFileOptions::default())
            .unwrap();
        zip.write_all(file["yaml"].as_str().unwrap().as_bytes())
            .unwrap();
    }
    let zipped = zip.finish().unwrap().into_inner();
    let as_json = {
        let mut request = Stage::request(Method::PUT, "/artifacts", files.to_string());
        let json = "application/json".parse().unwrap();
        request.headers_mut().insert("content-type", json);
        request
    };
    for request in [Stage::request(Method::PUT, "/artifacts", zipped), as_json] {
        let answered = stage.send(request).await;
        assert_eq!(answered.status, StatusCode::OK, "{answered:?}");
        let answer = answered.json();
        let names = |list: &str, what: &str| -> Vec<String> {
            let items = answer[list].as_array().unwrap().iter();
            items
                .map(|item| item[what].as_str().unwrap().to_owned())
                .collect()
        };
        assert_eq!(names("added", "name"), ["Custom.Needy", "Custom.Late"]);
        assert_eq!(names("refused", "file"), ["b.yaml", "d.yaml", "e.yaml"]);
        // What one of them needs stands behind it in the pack.
        assert_eq!(answer["added"][0]["warnings"], json!([]));
        for problem in answer["refused"].as_array().unwrap() {
            assert!(problem["line"].as_u64() > Some(0), "{problem}");
            assert!(problem["column"].as_u64() > Some(0), "{problem}");
            assert!(!problem["message"].as_str().unwrap().is_empty());
        }
    }
    let shown = stage.json("/artifacts/Custom.Late").await;
    assert_eq!(shown["origin"], "custom");
    let broken = stage.get("/artifacts/Custom.Broken").await;
    assert_eq!(broken.status, StatusCode::NOT_FOUND);

    for (body, said) in [
        (b"PK\x03\x04 and no more".to_vec(), "zip archive"),
        (
            b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec(),
            "no artifact",
        ),
    ] {
        let answered = stage
            .send(Stage::request(Method::PUT, "/artifacts", body))
            .await;
        assert_eq!(answered.status, StatusCode::BAD_REQUEST, "{answered:?}");
        assert!(answered.text().contains(said), "{answered:?}");
    }
    foreman.abort();
    stage.end().await;
}

#[tokio::test]
async fn an_artifact_is_compiled_as_agents_would_get_it_and_nothing_is_told() {
    let stage = Stage::new().await;
    let compile = |name: &str, body: &str| {
        let path = format!("/artifacts/{name}/compile");
        stage.send(Stage::request(Method::POST, &path, body.to_owned()))
    };
    let answered = compile(
        "Linux.Sys.Pslist",
        r#"{"parameters":{"ProcessRegex":"sshd","Calculate_Hash":true}}"#,
    )
    .await;
    assert_eq!(answered.status, StatusCode::OK, "{answered:?}");
    let query = answered.json()["VQLClientActions"][0].clone();
    assert_eq!(query["env"][0]["value"], "sshd");
    assert_eq!(query["env"][1]["value"], "Y");
    let table = compile("Generic.Client.Stats", "").await;
    assert_eq!(table.status, StatusCode::OK, "{table:?}");
    assert_eq!(table.json()["event"][0]["query_id"], 1);
    for (name, body, said) in [
        ("Linux.Sys.PsList", "", "did you mean Linux.Sys.Pslist"),
        (
            "Linux.Sys.Pslist",
            r#"{"parameters":{"Regex":"."}}"#,
            "no parameter Regex",
        ),
        ("Linux.Sys.Pslist", r#"{"parametres":{}}"#, "parametres"),
    ] {
        let answered = compile(name, body).await;
        assert_eq!(answered.status, StatusCode::BAD_REQUEST, "{answered:?}");
        assert!(answered.text().contains(said), "{answered:?}");
    }
    assert!(stage.scheduled().await.is_empty());
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
