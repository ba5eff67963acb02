//! A flow that is saved whole, by a command that is broken off and a connection that breaks.

use crate::puppet::{Puppet, QUICK};
use nublar_simulator::agent_keys;
use nublar_tests::{Forwarder, Installation, Recorded, Server, Way, program};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const FLOW: &str = "F.DC2M4H5TA9T34";

/// The lines of a manifest, by their files.
fn manifest(folder: &Path) -> BTreeMap<String, Value> {
    let text = std::fs::read_to_string(folder.join("manifest.jsonl")).unwrap();
    let entries = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    entries
        .map(|entry| (entry["file"].as_str().unwrap().to_owned(), entry))
        .collect()
}

/// Every file is what its hash says, and there is no other.
fn assert_sound(folder: &Path) {
    let done = Command::new("sha256sum")
        .args(["-c", "--quiet", "SHA256SUMS"])
        .current_dir(folder)
        .status();
    assert!(done.unwrap().success());
    let mut named: Vec<String> = manifest(folder).into_keys().collect();
    named.extend(["SHA256SUMS".to_owned(), "manifest.jsonl".to_owned()]);
    let mut found = Vec::new();
    for below in ["", "results", "uploads"] {
        for entry in std::fs::read_dir(folder.join(below)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                found.push(path.strip_prefix(folder).unwrap().display().to_string());
            }
        }
    }
    named.sort();
    found.sort();
    assert_eq!(named, found);
}

#[tokio::test]
async fn recorded_flows_are_saved_whole_and_again_only_what_is_missing() {
    let recorded = Recorded::load("collections");
    let installation = Installation::recorded(&recorded);
    let mut server = Server::start(&installation).await;
    let player = server.player();
    for letter in recorded.letters() {
        player.play(0, letter, letter.status).await;
    }
    let api = server.api();
    api.settled().await;
    let client = recorded.client_id();
    let flows = api
        .json(&format!("/clients/{client}/flows?limit=100"))
        .await;
    let (mut sparse, mut rows) = (0, 0);
    for flow in flows["flows"].as_array().unwrap() {
        let id = flow["flow_id"].as_str().unwrap();
        let folder = installation.beside(id);
        let export = |more: &[&str]| {
            let to = folder.display().to_string();
            let words = [&["export", client, id, "--to", &to, "--json"][..], more].concat();
            serde_json::from_str::<Value>(&server.order(&installation, &words)).unwrap()
        };
        let said = export(&[]);
        assert_eq!(said["files"], said["fetched"]);
        assert_sound(&folder);
        let saved = manifest(&folder);
        let place = format!("/clients/{client}/flows/{id}");
        for (file, entry) in &saved {
            let content = std::fs::read(folder.join(file)).unwrap();
            let kept = match entry["kind"].as_str().unwrap() {
                "results" => {
                    rows += entry["rows"].as_u64().unwrap();
                    let name = entry["name"].as_str().unwrap();
                    api.get(&format!("{place}/results/{name}?format=jsonl"))
                        .await
                }
                "logs" => api.get(&format!("{place}/logs")).await,
                "upload" => {
                    assert_eq!(entry["complete"], true);
                    let id = entry["upload_id"].as_str().unwrap();
                    api.get(&format!("{place}/uploads/{id}")).await
                }
                "ranges" => {
                    sparse += 1;
                    continue;
                }
                _ => {
                    let saved: Value = serde_json::from_slice(&content).unwrap();
                    assert_eq!(saved["flow_id"], id);
                    continue;
                }
            };
            assert!(content == kept, "{file} of {id}");
        }

        // Broken off before its last file: that one, and the flow's own document, come again.
        let again = export(&[]);
        assert_eq!(
            (&again["files"], &again["fetched"]),
            (&said["files"], &1.into())
        );
        let last = saved.keys().next_back().unwrap();
        std::fs::remove_file(folder.join(last)).unwrap();
        let lines: Vec<_> = saved.iter().filter(|(file, _)| *file != last).collect();
        let mut text: String = lines
            .iter()
            .map(|(_, entry)| format!("{entry}\n"))
            .collect();
        text.push_str("{\"file\":\"half a li");
        std::fs::write(folder.join("manifest.jsonl"), text).unwrap();
        assert!(export(&[])["fetched"].as_u64().unwrap() <= 3);
        assert_sound(&folder);
        assert_eq!(
            manifest(&folder).keys().collect::<Vec<_>>(),
            saved.keys().collect::<Vec<_>>()
        );
    }
    assert!(
        sparse > 0 && rows > 100,
        "{sparse} sparse files, {rows} rows"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_mean_harm_and_links_that_break_cost_nothing() {
    let installation = Installation::empty().with(QUICK);
    let mut server = Server::start(&installation).await;
    let key = agent_keys(None, 1).await.unwrap().remove(0);
    let agent = Puppet::start(&server, key, 0).await;
    let harm = "../../../../tmp/x";
    let pad = "y".repeat(1 << 20);
    let lines = format!("{{\"pad\":\"{pad}\"}}\n");
    for first in 0..40 {
        let said = [agent.rows(FLOW, "../Rows/..", first, &lines)];
        agent.send(&said).await;
    }
    let file = agent.file(FLOW, harm, b"content");
    agent
        .send(&[file, agent.end(FLOW, 40, &[b"content"])])
        .await;
    let api = server.api();
    api.settled().await;

    let way = Forwarder::to_url(&server.gui()).await;
    let token = installation.beside("token");
    std::fs::write(&token, &server.secrets().api_token).unwrap();
    let folder = installation.beside("saved");
    let mut export = Command::new(program())
        .args(["export", agent.client(), FLOW, "--to"])
        .arg(&folder)
        .args(["--server", &way.url(), "--token-file"])
        .arg(&token)
        .spawn()
        .unwrap();
    let part = folder.join("results/01-..-Rows-...jsonl.part");
    nublar_tests::eventually("some rows are there", async || {
        match std::fs::metadata(&part) {
            Ok(found) if found.len() > 1 << 20 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    way.set(Way::Refused);
    tokio::time::sleep(Duration::from_millis(200)).await;
    way.set(Way::Open);
    let ended = tokio::task::spawn_blocking(move || export.wait().unwrap())
        .await
        .unwrap();
    assert!(ended.success());
    assert_sound(&folder);
    let saved = manifest(&folder);
    let rows = std::fs::read_to_string(folder.join("results/01-..-Rows-...jsonl")).unwrap();
    assert!(rows == lines.repeat(40));
    let upload = saved
        .values()
        .find(|entry| entry["kind"] == "upload")
        .unwrap();
    assert_eq!(upload["path"], harm);
    let file = folder.join(upload["file"].as_str().unwrap());
    assert_eq!(std::fs::read(&file).unwrap(), b"content");

    // Killed within a file: what is there of it is not fetched again; what is there of another
    // time, or is more than there can be, is.
    let rows_file = folder.join("results/01-..-Rows-...jsonl");
    let again = || {
        let to = folder.display().to_string();
        let words = ["export", agent.client(), FLOW, "--to", &to];
        server.order(&installation, &words);
        assert_sound(&folder);
        assert_eq!(std::fs::read(&file).unwrap(), b"content");
        assert!(std::fs::read_to_string(&rows_file).unwrap() == rows);
    };
    let part = |file: &Path, content: &[u8]| {
        std::fs::remove_file(file).unwrap();
        std::fs::write(file.with_added_extension("part"), content).unwrap();
    };
    for (of_file, of_rows) in [
        (&b"cont"[..], &rows.as_bytes()[..rows.len() / 2]),
        (b"content", rows.as_bytes()),
        (b"content and more", &[rows.as_bytes(), b"{}\n"].concat()),
        (b"", b"{\"pad\":"),
    ] {
        part(&file, of_file);
        part(&rows_file, of_rows);
        again();
    }
    part(&file, b"anot");
    part(&rows_file, b"");
    let to = folder.display().to_string();
    let mut export = Command::new(program());
    let export = export.args(["export", agent.client(), FLOW, "--to", &to, "--data"]);
    let refused = export.arg(installation.data()).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && said.contains(".wrong"),
        "{said}"
    );
    std::fs::remove_file(file.with_added_extension("wrong")).unwrap();
    again();
    server.stop().await;
}
