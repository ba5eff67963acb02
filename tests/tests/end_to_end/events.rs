//! What agents send of their own accord is read, and followed while servers are killed.

use crate::expected::{Expected, Told};
use bytes::Bytes;
use nublar_schemas::agent::{VeloMessage, VqlRequest, VqlResponse};
use nublar_tests::{Installation, Letter, Recorded, Server, eventually, program};
use prost::Message;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

/// Microseconds as seconds, by moving the point.
fn seconds(us: u64) -> String {
    let digits = us.to_string();
    let (whole, rest) = digits.split_at(digits.len().checked_sub(6).unwrap());
    format!("{whole}.{rest}")
        .trim_end_matches('0')
        .trim_end_matches('.')
        .to_owned()
}

/// The rows as they must be read: the agent's bytes, and what it did not say at their end.
fn tagged(client: &str, name: &str, told: &Told) -> Vec<String> {
    let rows = told.rows.iter().map(|(at_us, row)| {
        let time = if *at_us == 0 {
            "null".to_owned()
        } else {
            seconds(*at_us)
        };
        let open = row.strip_suffix('}').unwrap();
        let (client, name) = (json!(client), json!(name));
        format!("{open},\"ClientId\":{client},\"_ts\":{time},\"_Source\":{name}}}")
    });
    rows.collect()
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

#[tokio::test]
async fn recorded_events_are_read_to_the_byte() {
    let recorded = Recorded::load("events");
    let installation = Installation::recorded(&recorded);
    let mut server = Server::start(&installation).await;
    let player = server.player();
    for (turn, letter) in recorded.letters().iter().enumerate() {
        player.play(turn, letter, letter.status).await;
    }
    let api = server.api();
    api.settled().await;
    let (client, expected) = (recorded.client_id(), Expected::of(&recorded));
    assert_eq!(expected.told.len(), 2, "what a 406 took is not there");
    let base = format!("/clients/{client}/events");
    let listed = api.json(&base).await;
    let listed: Vec<Value> = serde_json::from_value(listed).unwrap();
    for (listed, (name, told)) in listed.iter().zip(&expected.told) {
        let both = || told.rows.iter().chain(&told.logs).map(|(at_us, _)| *at_us);
        let dated = || both().filter(|at_us| *at_us > 0);
        assert_eq!(
            *listed,
            json!({
                "name": name,
                "rows": told.rows.len(),
                "log_lines": told.logs.len(),
                "first_us": dated().min(),
                "last_us": dated().max(),
            })
        );
        let rows = tagged(client, name, told);
        let path = format!("{base}/{name}");
        assert_eq!(lines(&api.text(&path).await), rows, "{name}");
        let printed = server.order(&installation, &["events", client, name, "--json"]);
        assert_eq!(lines(&printed), rows, "{name}");
        let some = server.order(
            &installation,
            &["events", client, name, "--format", "jsonl", "--limit", "2"],
        );
        assert_eq!(lines(&some), rows[..rows.len().min(2)], "{name}");
        let csv = server.order(&installation, &["events", client, name, "--format", "csv"]);
        let head = lines(&csv)[0].to_owned();
        assert!(head.ends_with("ClientId,_ts,_Source"), "{head}");
        assert_eq!(lines(&csv).len(), rows.len() + 1, "{name}");
        if told.logs.is_empty() {
            continue;
        }
        let logs = api.text(&format!("{path}?logs=true")).await;
        let (mut logs, mut sent) = (lines(&logs), Vec::new());
        sent.extend(told.logs.iter().map(|(_, line)| line.as_str()));
        // Lines of one second may come from two queries.
        logs.sort_unstable();
        sent.sort_unstable();
        assert_eq!(logs, sent, "{name}");
        let last = dated().max().unwrap();
        let until = api.text(&format!("{path}?until={}", seconds(last))).await;
        let since = api.text(&format!("{path}?since={}", seconds(last))).await;
        assert_eq!([lines(&until), lines(&since)].concat(), rows, "{name}");
        let people = server.order(&installation, &["events", client, name, "--logs"]);
        assert_eq!(lines(&people).len(), told.logs.len(), "{name}");
    }
    assert_eq!(listed.len(), expected.told.len());
    let people = server.order(&installation, &["events", client]);
    assert_eq!(lines(&people).len(), 3, "{people}");
    server.stop().await;
}

const NAME: &str = "Custom.Counted/Rows";

/// A message of one row.
fn counted(n: u64) -> Bytes {
    let message = VeloMessage {
        session_id: "F.Monitoring".to_owned(),
        vql_response: Some(VqlResponse {
            query: Some(VqlRequest {
                name: NAME.to_owned(),
                ..VqlRequest::default()
            }),
            // Times that go up and down: they are not what is followed by.
            timestamp: 1_795_515_463_000_000 + n * 7 % 10,
            total_rows: 1,
            jsonl_response: format!("{{\"n\":{n}}}\n"),
            ..VqlResponse::default()
        }),
        ..VeloMessage::default()
    };
    message.encode_to_vec().into()
}

/// A command that runs on, and what it has printed.
struct Following {
    process: Child,
    printed: Arc<Mutex<Vec<u64>>>,
}

impl Following {
    fn new(installation: &Installation, client: &str) -> Self {
        let mut process = Command::new(program())
            .args(["events", client, NAME, "--follow", "--data"])
            .arg(installation.data())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdout = process.stdout.take().unwrap();
        let printed: Arc<Mutex<Vec<u64>>> = Arc::default();
        let print = Arc::clone(&printed);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let row: Value = serde_json::from_str(&line).unwrap();
                print.lock().unwrap().push(row["n"].as_u64().unwrap());
            }
        });
        Self { process, printed }
    }

    fn printed(&self) -> Vec<u64> {
        self.printed.lock().unwrap().clone()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn who_follows_misses_nothing_while_the_server_is_killed() {
    let recorded = Recorded::load("events");
    let installation = Installation::recorded(&recorded);
    let mut server = Server::start(&installation).await;
    let player = server.player();
    for (turn, letter) in recorded.letters().iter().take(3).enumerate() {
        player.play(turn, letter, letter.status).await;
    }
    let session = recorded.session();
    let post = async |server: &Server, rows: &[u64]| {
        let messages: Vec<Bytes> = rows.iter().map(|n| counted(*n)).collect();
        let letter = Letter {
            number: 0,
            path: "/control".to_owned(),
            body: recorded.seal(&session, &messages),
            status: 200,
            decoded: Value::Null,
        };
        server.player().play(0, &letter, 200).await;
    };
    let mut following = Following::new(&installation, recorded.client_id());
    // It begins with what comes: until it has begun nothing is printed.
    let mut next = 0;
    eventually("the first row is printed", async || {
        post(&server, &[next]).await;
        next += 1;
        following.printed().first().copied().ok_or("nothing")
    })
    .await;
    let first = following.printed()[0];
    for turn in 0..4 {
        for _ in 0..5 {
            // A row that was sent before comes again, as after a lost answer.
            post(&server, &[next, next - 1, next + 1]).await;
            next += 2;
        }
        if turn % 2 == 0 {
            server.kill9().await;
        } else {
            server.stop().await;
        }
        server.restart().await;
        assert!(following.process.try_wait().unwrap().is_none(), "it ended");
    }
    post(&server, &[next]).await;
    let all: Vec<u64> = (first..=next).collect();
    eventually("every row is printed", async || {
        let printed = following.printed();
        if printed.last() == Some(&next) {
            Ok(())
        } else {
            Err(printed.len())
        }
    })
    .await;
    assert_eq!(following.printed(), all, "once each, in order");
    drop(following);
    server.stop().await;
}
