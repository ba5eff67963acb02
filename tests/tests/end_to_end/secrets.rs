//! A secret that somebody gave for a collection stands in no file that the server keeps.

use nublar_tests::{Installation, Recorded, Server, eventually};
use serde_json::json;
use std::path::Path;

const SECRET: &str = "correct-horse-battery-staple";
/// What is no secret of the same wish.
const OPEN: &str = "db7.plain.example";

const ARTIFACT: &str = "name: Custom.Login
parameters:
  - {name: Password, type: redacted}
  - {name: Host}
sources:
  - query: SELECT Host FROM scope()
";

/// How many of the files below a folder hold a text.
fn files_with(folder: &Path, text: &str) -> usize {
    let mut found = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found += files_with(&path, text);
        } else {
            let bytes = std::fs::read(&path).unwrap();
            let mut parts = bytes.windows(text.len());
            found += usize::from(parts.any(|part| part == text.as_bytes()));
        }
    }
    found
}

#[tokio::test]
async fn a_secret_is_in_no_file_of_the_server() {
    let recorded = Recorded::load("collections");
    let installation = Installation::recorded(&recorded);
    let mut server = Server::start(&installation).await;
    let player = server.player();
    for letter in recorded.enrolment() {
        player.play(0, letter, 406).await;
    }
    player.play(0, &recorded.taken()[0], 200).await;
    let api = server.api();
    let (status, answer) = api.put("/artifacts", ARTIFACT).await;
    assert_eq!(status, 200, "{answer}");
    let path = format!("/clients/{}/flows", recorded.client_id());
    let wish = json!({
        "artifacts": ["Custom.Login"],
        "parameters": { "Password": SECRET, "Host": OPEN },
    });
    let (status, answer) = api.post_under(Some("one wish"), &path, &wish).await;
    assert_eq!(status, 201, "{answer}");
    let flow = format!("{path}/{}", answer["flow_id"].as_str().unwrap());
    // The foreman has seen it, and the index has what it says.
    eventually("the foreman tells of the flow", async || {
        let told = api.json(&flow).await;
        if told["reason"] == json!("accepted") {
            return Err(told);
        }
        Ok(())
    })
    .await;
    api.settled().await;
    for shown in [
        api.text(&flow).await,
        api.text(&path).await,
        api.dump().await,
    ] {
        assert!(shown.contains(OPEN), "{shown}");
        assert!(!shown.contains(SECRET));
    }
    server.stop().await;
    let printed = server.printed();
    assert!(!printed.contains(SECRET), "{printed}");
    // Topics, index and objects lie there uncompressed enough for the search to find anything.
    assert!(files_with(installation.data(), OPEN) >= 2);
    assert_eq!(files_with(installation.data(), SECRET), 0);
}
