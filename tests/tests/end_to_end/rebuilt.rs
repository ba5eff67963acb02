//! An index that is thrown away is filled again from the log; one that is not stays as it is.

use crate::orders::{RECORDINGS, assert_same, plain};
use nublar_tests::{Api, Installation, Recorded, Role, Server, Services};
use serde_json::Value;

/// What the lists show beyond the dump: the uploads of every flow with what their hashes say.
async fn uploads(api: &Api, client: &str) -> Vec<Value> {
    let mut uploads = Vec::new();
    let flows = api.json(&format!("/clients/{client}/flows")).await;
    for flow in flows["flows"].as_array().unwrap() {
        let flow = flow["flow_id"].as_str().unwrap();
        let path = format!("/clients/{client}/flows/{flow}/uploads");
        uploads.extend(api.json(&path).await.as_array().unwrap().clone());
    }
    uploads
}

/// Plays a recording, throws the index away, and has the topics read again.
async fn rebuild(name: &'static str, installation: &Installation, drop_index: impl AsyncFn()) {
    let (recorded, plain) = plain(name).await;
    let client = recorded.client_id();
    let mut server = Server::start_role(installation, Role::Run(1), "run").await;
    let player = server.player();
    for (turn, letter) in recorded.letters().iter().enumerate() {
        player.play(turn, letter, letter.status).await;
    }
    assert_same(plain, &server.api().dump().await, "before");
    let before = uploads(&server.api(), client).await;
    let refused = Server::once(installation, "replay").await;
    assert!(
        !refused.status.success(),
        "it moved marks of who was at work"
    );

    for (drops, how) in [(true, "an index thrown away"), (false, "a whole index")] {
        server.stop().await;
        if drops {
            drop_index().await;
        }
        let replayed = Server::once(installation, "replay").await;
        assert!(replayed.status.success(), "{}", replayed.errors);
        server.restart().await;
        assert_same(plain, &server.api().dump().await, how);
        assert_eq!(uploads(&server.api(), client).await, before, "{how}");
    }
    server.stop().await;
}

#[tokio::test]
async fn in_one_process() {
    for name in RECORDINGS {
        let installation = Installation::recorded(&Recorded::load(name));
        let index = installation.data().join("index");
        rebuild(name, &installation, async || {
            std::fs::remove_dir_all(&index).unwrap();
        })
        .await;
    }
}

#[tokio::test]
async fn on_real_services() {
    let Some(services) = Services::from_env() else {
        return;
    };
    for name in RECORDINGS {
        let installation = Installation::recorded(&Recorded::load(name));
        let storage = services.storage(&installation.beside("keys"));
        let prefix = storage.split("prefix = \"").nth(2).unwrap();
        let prefix = prefix.split('"').next().unwrap().to_owned();
        let installation = installation.with_first("partitions = 4\n").with(&storage);
        let all = format!("{}/{prefix}*", services.get("OPENSEARCH"));
        rebuild(name, &installation, async || {
            let deleted = reqwest::Client::new().delete(&all).send().await.unwrap();
            assert!(
                deleted.status().is_success(),
                "{}",
                deleted.text().await.unwrap()
            );
        })
        .await;
    }
}
