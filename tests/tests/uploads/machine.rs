//! A machine with an agent that does what a few artifacts ask: it lists directories, uploads files and
//! runs commands, all of it on this machine.

use crate::agent::{File, ends, rows, sha256};
use bytes::Bytes;
use nublar_schemas::agent::{FlowRequest, ForemanCheckin, VeloMessage, VqlRequest, VqlResponse};
use nublar_tests::{Recorded, Server};
use prost::Message;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tokio::task::JoinHandle;

/// Lives until it is dropped.
pub(crate) struct Machine(JoinHandle<()>);

impl Drop for Machine {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Machine {
    /// One that the server lets in, and that says who it is.
    pub(crate) async fn start(recorded: &Recorded, server: &Server) -> Self {
        let player = server.player();
        for (turn, letter) in recorded.letters().iter().take(3).enumerate() {
            player.play(turn, letter, letter.status).await;
        }
        let (recorded, session) = (recorded.clone(), recorded.session());
        let live = async move {
            let mut known = BTreeSet::new();
            let mut said = vec![check_in(), client_info()];
            loop {
                let body = recorded.seal(&session, &said);
                if let Ok(reply) = player.post(0, "/reader", body).await
                    && reply.status == 200
                {
                    said.truncate(1);
                    let answer = session.open(reply.body).unwrap();
                    for message in answer.messages(16 << 20).unwrap() {
                        let flow = message.session_id().to_owned();
                        let Some(request) = message.decode().unwrap().flow_request else {
                            continue;
                        };
                        assert!(known.insert(flow.clone()), "{flow} came twice");
                        let messages = done(&flow, &request);
                        let body = recorded.seal(&session, &messages);
                        let reply = player.post(0, "/control", body).await.unwrap();
                        assert_eq!(reply.status, 200);
                    }
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        Self(tokio::spawn(live))
    }
}

fn check_in() -> Bytes {
    let message = VeloMessage {
        session_id: "E.Foreman".to_owned(),
        foreman_checkin: Some(ForemanCheckin {
            // Newer than any table of the server.
            last_event_table_version: u64::MAX >> 1,
            ..ForemanCheckin::default()
        }),
        ..VeloMessage::default()
    };
    message.encode_to_vec().into()
}

fn client_info() -> Bytes {
    let row = json!({"hostname": "machine", "system": "linux", "architecture": "amd64"});
    let message = VeloMessage {
        session_id: "F.Monitoring".to_owned(),
        vql_response: Some(VqlResponse {
            query: Some(VqlRequest {
                name: "Server.Internal.ClientInfo".to_owned(),
                ..VqlRequest::default()
            }),
            total_rows: 1,
            timestamp: 1_795_515_463_000_000,
            jsonl_response: format!("{row}\n"),
            ..VqlResponse::default()
        }),
        ..VeloMessage::default()
    };
    message.encode_to_vec().into()
}

/// Everything that comes of a request.
fn done(flow: &str, request: &FlowRequest) -> Vec<Bytes> {
    let (mut messages, mut names) = (Vec::new(), Vec::new());
    let (mut row_count, mut files, mut bytes) = (0, 0, 0);
    for args in &request.vql_client_actions {
        let parameter = |name: &str| {
            let found = args.env.iter().find(|env| env.key == name);
            found.map(|env| env.value.clone()).unwrap_or_default()
        };
        for query in args.query.iter().filter(|query| !query.name.is_empty()) {
            let given = match query.name.as_str() {
                "System.VFS.ListDirectory/Listing" => listed(&parameter("Path")),
                "System.VFS.ListDirectory/Stats" => {
                    let count = listed(&parameter("Path")).len();
                    let parts: Vec<String> = parts(&parameter("Path"));
                    let stats = json!({"StartIdx": 0, "EndIdx": count});
                    vec![json!({"Components": parts, "Accessor": "auto", "Stats": stats})]
                }
                "System.VFS.DownloadFile" => {
                    let path = parameter("Path");
                    match std::fs::read(&path) {
                        Err(_) => Vec::new(),
                        Ok(data) => {
                            let size = data.len() as u64;
                            let file = File::plain(flow, &path, 0, size);
                            let row = json!({"Path": path, "Sha256": sha256(&data)});
                            messages.push(file.part(0, data));
                            messages.push(file.end(size, &[]));
                            (files, bytes) = (files + 1, bytes + size);
                            vec![row]
                        }
                    }
                }
                "Linux.Sys.BashShell" => vec![ran(&parameter("Command"))],
                other => panic!("nobody told the machine of {other}"),
            };
            row_count += i64::try_from(given.len()).unwrap();
            if !given.is_empty() {
                messages.push(rows(flow, &query.name, &given));
                names.push(query.name.as_str());
            }
        }
    }
    let queries = request.vql_client_actions.len();
    messages.push(ends(flow, queries, row_count, files, bytes, &names));
    messages
}

fn parts(path: &str) -> Vec<String> {
    path.split('/')
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect()
}

fn listed(path: &str) -> Vec<Value> {
    let Ok(entries) = std::fs::read_dir(Path::new(path)) else {
        return Vec::new();
    };
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap()).collect();
    names.sort_by_key(std::fs::DirEntry::file_name);
    let rows = names.into_iter().map(|entry| {
        let metadata = entry.metadata().unwrap();
        let mode = if metadata.is_dir() {
            "drwxr-xr-x"
        } else {
            "-rw-r--r--"
        };
        let name = entry.file_name().into_string().unwrap();
        json!({
            "_OSPath": format!("{path}/{name}"), "Name": name, "Size": metadata.len(),
            "Mode": mode, "mtime": "2026-11-24T10:09:00Z",
        })
    });
    rows.collect()
}

fn ran(command: &str) -> Value {
    let done = Command::new("/bin/bash")
        .args(["-c", command])
        .output()
        .unwrap();
    json!({
        "Stdout": String::from_utf8_lossy(&done.stdout),
        "Stderr": String::from_utf8_lossy(&done.stderr),
        "ReturnCode": done.status.code(),
        "Complete": true,
    })
}
