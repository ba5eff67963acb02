//! Client events are followed: nothing is lost, nothing comes twice.

use super::events::{logs, rows};
use super::stage::{CLIENT, Stage};
use axum::body::{Body, BodyDataStream};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use futures::StreamExt;
use nublar_schemas::agent::VeloMessage;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

const NAME: &str = "Custom.Tick/Tock";
const OTHER: &str = "C.00000000000000ac";

/// A server-sent event.
#[derive(Debug)]
struct Told {
    name: String,
    id: String,
    data: String,
}

impl Told {
    fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap()
    }

    fn n(&self) -> u64 {
        assert_eq!(self.name, "row", "{self:?}");
        self.json()["n"].as_u64().unwrap()
    }
}

struct Watching {
    body: BodyDataStream,
    text: String,
}

fn path(query: &str) -> String {
    format!("/clients/{CLIENT}/events/{NAME}/watch?{query}")
}

async fn answer(stage: &Stage, query: &str, last: Option<&str>) -> Response {
    let mut request = Stage::request(Method::GET, &path(query), Body::empty());
    if let Some(last) = last {
        let last = last.parse().unwrap();
        request.headers_mut().insert("last-event-id", last);
    }
    stage.answer(request).await
}

impl Watching {
    /// Begins, and gives the place that is told first.
    async fn new(stage: &Stage, query: &str, last: Option<&str>) -> (Self, String) {
        let response = answer(stage, query, last).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut watching = Self {
            body: response.into_body().into_data_stream(),
            text: String::new(),
        };
        let first = watching.next().await.unwrap();
        assert_eq!(
            (first.name.as_str(), first.json()),
            ("place", json!({ "place": first.id }))
        );
        (watching, first.id)
    }

    async fn after(stage: &Stage, place: &str) -> Self {
        Self::new(stage, &format!("after={place}"), None).await.0
    }

    async fn next(&mut self) -> Option<Told> {
        let end = loop {
            if let Some(end) = self.text.find("\n\n") {
                break end;
            }
            let more = timeout(Duration::from_secs(60), self.body.next());
            let more = more.await.expect("nothing is told")?;
            self.text += std::str::from_utf8(&more.unwrap()).unwrap();
        };
        let frame: String = self.text.drain(..end + 2).collect();
        let field = |name: &str| {
            let mut lines = frame.lines();
            let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            value.unwrap_or_default().to_owned()
        };
        Some(Told {
            name: field("event"),
            id: field("id"),
            data: field("data"),
        })
    }
}

fn numbered(first: u64, count: u64) -> VeloMessage {
    let lines: Vec<String> = (first..first + count)
        .map(|n| format!("{{\"n\":{n}}}"))
        .collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    // Agents' times go up and down.
    rows(NAME, 1_000_000 * (1 + first * 7 % 50), &lines)
}

#[tokio::test]
async fn rows_are_told_as_they_arrive_and_as_the_list_has_them() {
    let stage = Stage::new().await;
    stage.arrive(CLIENT, [numbered(0, 2)]).await;
    let (mut watching, _) = Watching::new(&stage, "", None).await;
    let message = rows(
        NAME,
        5_250_000,
        &["{\"a\": 1.50}", "{\"_ts\":1}\r", "garbled"],
    );
    let log = logs(NAME, 9, &["a line"]);
    let other = rows("Custom.Tick", 1, &["{\"not\":\"ours\"}"]);
    stage.arrive(CLIENT, [other, log, message.clone()]).await;
    stage.store([message]).await;
    let stored = stage.get(&path("").replace("/watch?", "")).await;
    let mut stored = stored.text().lines();
    for _ in 0..3 {
        let told = watching.next().await.unwrap();
        assert_eq!(
            (told.name.as_str(), Some(told.data.as_str())),
            ("row", stored.next())
        );
    }
    let (mut watching, _) = Watching::new(&stage, "logs=true", None).await;
    stage
        .arrive(CLIENT, [numbered(9, 1), logs(NAME, 9, &["more"])])
        .await;
    let told = watching.next().await.unwrap();
    assert_eq!(
        told.data,
        "{\"client_time\":9,\"level\":\"INFO\",\"message\":\"more\"}"
    );
    stage.app.shutdown.cancel();
    assert!(watching.next().await.is_none());
    stage.end().await;
}

#[tokio::test]
async fn whoever_goes_on_from_a_place_misses_nothing_and_is_told_nothing_twice() {
    const MESSAGES: u64 = 200;
    let stage = Stage::new().await;
    let mut server = stage.another().await;
    stage.enrol(OTHER).await;
    // Something stood there before.
    stage.arrive(CLIENT, [numbered(5_000, 3)]).await;
    let (mut watching, mut place) = Watching::new(&server, "", None).await;
    let stage = Arc::new(stage);
    let writing = Arc::clone(&stage);
    let writer = tokio::spawn(async move {
        let mut first = 0;
        for turn in 0..MESSAGES {
            let count = 1 + turn % 4;
            let message = numbered(first, count);
            let mut record = vec![message.clone(), logs(NAME, turn, &["x"])];
            first += count;
            if turn % 3 == 0 {
                record.push(numbered(first, 2));
                first += 2;
            }
            writing.arrive(CLIENT, record.clone()).await;
            writing.arrive(OTHER, [numbered(9_000 + turn, 1)]).await;
            if turn % 5 == 0 {
                // The answer got lost: the agent sends it again, later and with more.
                record.insert(0, numbered(first, 1));
                first += 1;
                writing.arrive(CLIENT, record).await;
            }
            writing.store([message]).await;
            tokio::task::yield_now().await;
        }
        first
    });
    let mut told = Vec::new();
    let mut total = None;
    let mut writer = Some(writer);
    for turn in 0.. {
        // Some lines of this stream, then another stream, at another server now and then.
        for _ in 0..1 + turn % 6 {
            if total == Some(told.len() as u64) {
                break;
            }
            let event = watching.next().await.unwrap();
            if event.name == "row" {
                told.push(event.n());
            }
            place = event.id;
        }
        if told.len() > 150
            && let Some(writer) = writer.take()
        {
            total = Some(writer.await.unwrap());
        }
        if total == Some(told.len() as u64) {
            break;
        }
        if turn % 7 == 3 {
            server.end().await;
            server = stage.another().await;
        }
        watching = if turn % 2 == 0 {
            Watching::after(&server, &place).await
        } else {
            let stale = "after=1.0.0.0";
            Watching::new(&server, stale, Some(&place)).await.0
        };
    }
    let total = total.unwrap();
    assert!(total > 600, "{total}");
    assert_eq!(told, (0..total).collect::<Vec<_>>());
    // And nothing comes behind.
    let mut watching = Watching::after(&server, &place).await;
    stage.arrive(CLIENT, [numbered(total, 1)]).await;
    assert_eq!(watching.next().await.unwrap().n(), total);
    server.end().await;
}

#[tokio::test]
async fn what_the_log_no_longer_keeps_is_told_as_missed() {
    let stage = Stage::new().await;
    stage.arrive(CLIENT, [numbered(0, 1)]).await;
    // A place in a log that was made anew since.
    let mut watching = Watching::after(&stage, "0.7.0.0").await;
    let missed = watching.next().await.unwrap();
    assert_eq!(missed.name, "missed", "{missed:?}");
    assert!(missed.json()["what_to_do"].is_string());
    assert_eq!(watching.next().await.unwrap().n(), 0);
    // Whoever goes on from there is not told again.
    let mut watching = Watching::after(&stage, &missed.id).await;
    assert_eq!(watching.next().await.unwrap().n(), 0);
    stage.end().await;
}

#[tokio::test]
async fn damaged_records_are_passed_over_and_newer_ones_are_not() {
    let stage = Stage::new().await;
    let key = stage.app.client(CLIENT).unwrap();
    let (mut watching, _) = Watching::new(&stage, "", None).await;
    stage.arrive_raw(&key, "damaged".into()).await;
    stage.arrive(CLIENT, [numbered(0, 1)]).await;
    let last = watching.next().await.unwrap();
    assert_eq!(last.n(), 0);
    let mut newer = vec![0xc3, 0x01];
    newer.extend([7; 16]);
    stage.arrive_raw(&key, newer.into()).await;
    stage.arrive(CLIENT, [numbered(1, 1)]).await;
    let broken = watching.next().await.unwrap();
    assert_eq!((broken.name.as_str(), broken.id.as_str()), ("broken", ""));
    assert!(watching.next().await.is_none());
    let mut watching = Watching::after(&stage, &last.id).await;
    assert_eq!(watching.next().await.unwrap().name, "broken");
    stage.end().await;
}

#[tokio::test]
async fn a_place_or_client_that_is_none_is_refused_and_so_is_one_too_many() {
    let stage = Stage::new().await;
    for bad in [
        "after=x",
        "after=1.0.0",
        "after=1.99.0.0",
        "since=1",
        "after=2.0.0.0",
    ] {
        let response = answer(&stage, bad, None).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{bad}");
    }
    let response = answer(&stage, "", Some("x")).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    let nobody = path("").replace(CLIENT, "C.00000000000000bb");
    assert_eq!(stage.get(&nobody).await.status, StatusCode::NOT_FOUND);
    let mut open = Vec::new();
    for _ in 0..crate::tails::FOLLOWERS {
        open.push(Watching::new(&stage, "", None).await);
    }
    let response = answer(&stage, "", None).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    open.pop();
    let response = answer(&stage, "", None).await;
    assert_eq!(response.status(), StatusCode::OK);
    stage.end().await;
}
