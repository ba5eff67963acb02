//! Client events that are stored: which there are, their rows and log lines.

use super::stage::{CLIENT, Stage};
use axum::http::StatusCode;
use nublar_schemas::agent::{LogMessage, VeloMessage, VqlRequest, VqlResponse};
use serde_json::{Value, json};

/// A message of rows, at a time in microseconds.
pub(super) fn rows(name: &str, at_us: u64, lines: &[&str]) -> VeloMessage {
    VeloMessage {
        session_id: "F.Monitoring".to_owned(),
        vql_response: Some(VqlResponse {
            query: Some(VqlRequest {
                name: name.to_owned(),
                vql: String::new(),
            }),
            timestamp: at_us,
            total_rows: lines.len() as u64,
            jsonl_response: lines.join("\n") + "\n",
            ..VqlResponse::default()
        }),
        ..VeloMessage::default()
    }
}

/// A message of log lines of a second.
pub(super) fn logs(name: &str, second: u64, lines: &[&str]) -> VeloMessage {
    let jsonl = lines.iter().map(|line| log_line(second, line) + "\n");
    VeloMessage {
        session_id: "F.Monitoring".to_owned(),
        log_message: Some(LogMessage {
            artifact: name.to_owned(),
            number_of_rows: lines.len() as u64,
            jsonl: jsonl.collect(),
            ..LogMessage::default()
        }),
        ..VeloMessage::default()
    }
}

fn log_line(second: u64, line: &str) -> String {
    format!("{{\"client_time\":{second},\"level\":\"INFO\",\"message\":\"{line}\"}}")
}

const TICK: &str = "Custom.Tick";
const PARTS: &str = "Custom.Parts/One";
/// Seconds near now, so that weeks are those of the agent's time.
fn now_s() -> u64 {
    u64::try_from(crate::clock::now_us() / 1_000_000).unwrap()
}

fn at(path: &str) -> String {
    format!("/clients/{CLIENT}/events{path}")
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

#[tokio::test]
async fn every_name_is_listed_with_its_rows_log_lines_and_times() {
    let stage = Stage::new().await;
    assert_eq!(stage.json(&at("")).await, json!([]));
    let now = now_s();
    stage
        .store([
            rows(TICK, now * 1_000_000 + 5, &["{\"n\":2}", "{\"n\":3}"]),
            // Another week, and no time at all.
            rows(TICK, (now - 700_000) * 1_000_000, &["{\"n\":1}"]),
            rows(TICK, 0, &["{\"n\":0}"]),
            logs(TICK, now + 1, &["a", "b", "c"]),
            rows(PARTS, 0, &["{}"]),
        ])
        .await;
    stage.faults.hide();
    let listed = stage.json(&at("")).await;
    let second = |seconds: u64| seconds * 1_000_000;
    assert_eq!(
        listed,
        json!([
            {"name": PARTS, "rows": 1, "log_lines": 0, "first_us": null, "last_us": null},
            {"name": TICK, "rows": 4, "log_lines": 3, "first_us": second(now - 700_000), "last_us": second(now + 1)},
        ])
    );
    let some = format!("?since={}&until={}", now - 700_001, now);
    assert_eq!(
        stage.json(&at(&some)).await,
        json!([{"name": TICK, "rows": 1, "log_lines": 0, "first_us": second(now - 700_000), "last_us": second(now - 700_000)}])
    );
    let answered = stage.get("/clients/C.00000000000000bb/events").await;
    assert_eq!(answered.status, StatusCode::NOT_FOUND);
    stage.end().await;
}

#[tokio::test]
async fn rows_come_by_time_as_they_were_written_with_what_they_lack() {
    let stage = Stage::new().await;
    let now = now_s();
    let own = format!("{{\"_ts\":7,\"ClientId\":\"{CLIENT}\",\"_Source\":\"mine\"}}");
    stage
        .store([
            rows(
                PARTS,
                now * 1_000_000 + 250_000,
                &["{\"b\": 1.50, \"a\":18446744073709551615}", "{}"],
            ),
            rows(PARTS, (now - 700_000) * 1_000_000, &[&own]),
            rows(PARTS, 0, &["{\"undated\":true}"]),
            rows("Custom.Parts/Two", now * 1_000_000, &["{\"other\":1}"]),
            logs(PARTS, now, &["a line"]),
        ])
        .await;
    stage.faults.hide();
    let tags = |time: &str| {
        format!("\"ClientId\":\"{CLIENT}\",\"_ts\":{time},\"_Source\":\"Custom.Parts/One\"")
    };
    let (dated, undated) = (tags(&format!("{now}.25")), tags("null"));
    let all = [
        format!("{{\"undated\":true,{undated}}}"),
        own.clone(),
        format!("{{\"b\": 1.50, \"a\":18446744073709551615,{dated}}}"),
        format!("{{{dated}}}"),
    ];
    let read = stage.get(&at("/Custom.Parts/One")).await;
    assert_eq!(read.status, StatusCode::OK);
    assert_eq!(read.header("content-type"), "application/jsonl");
    assert_eq!(read.text(), all.join("\n") + "\n");

    // A name is one whether its slash is a slash or written otherwise.
    let part = |query: String| {
        let path = at(&format!("/Custom.Parts%2FOne?{query}"));
        let stage = &stage;
        async move { stage.get(&path).await }
    };
    let since = part(format!("since={}.25", now)).await;
    assert_eq!(lines(since.text()), &all[2..]);
    let since = part(format!("since={}.250001", now)).await;
    assert_eq!(since.text(), "");
    let until = part(format!("since=1&until={}.25", now)).await;
    assert_eq!(lines(until.text()), &all[1..2]);
    for limit in 0..5 {
        let some = part(format!("limit={limit}")).await;
        assert_eq!(lines(some.text()), &all[..limit.min(4)], "{limit}");
    }
    let array = part("format=json&limit=3".to_owned()).await;
    assert_eq!(array.json().as_array().unwrap().len(), 3);
    let csv = part("format=csv".to_owned()).await;
    let csv = lines(csv.text());
    assert_eq!(csv[0], "undated,ClientId,_ts,_Source,b,a");
    assert_eq!(csv[1], format!("true,{CLIENT},,Custom.Parts/One,,"));
    assert_eq!(
        csv[3],
        format!(",{CLIENT},{now}.25,Custom.Parts/One,1.50,18446744073709551615")
    );
    let logs = part("logs=true".to_owned()).await;
    assert_eq!(logs.text(), log_line(now, "a line") + "\n");
    let logs = part(format!("logs=true&since={}", now + 1)).await;
    assert_eq!((logs.status, logs.text()), (StatusCode::OK, ""));
    stage.end().await;
}

#[tokio::test]
async fn many_messages_come_whole_and_in_order() {
    let stage = Stage::new().await;
    let now = now_s();
    let messages = (0..100u64).map(|n| {
        // Stored backwards, over several weeks.
        let time = (now - n * 20_000) * 1_000_000;
        let lines: Vec<String> = (0..3)
            .map(|row| format!("{{\"n\":{}}}", (99 - n) * 3 + row))
            .collect();
        rows(
            TICK,
            time,
            &lines.iter().map(String::as_str).collect::<Vec<_>>(),
        )
    });
    stage.store(messages).await;
    let read = stage.get(&at("/Custom.Tick")).await;
    let numbers: Vec<u64> = lines(read.text())
        .into_iter()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["n"]
                .as_u64()
                .unwrap()
        })
        .collect();
    assert_eq!(numbers, (0..300).collect::<Vec<_>>());
    let some = stage.get(&at("/Custom.Tick?limit=100&format=json")).await;
    assert_eq!(some.json().as_array().unwrap().len(), 100);
    stage.end().await;
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused() {
    let stage = Stage::new().await;
    stage.store([rows(TICK, 0, &["{}"])]).await;
    let missing = stage.get(&at("/Custom.Tock")).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    assert!(missing.json()["what_to_do"].is_string());
    let missing = stage.get(&at("/Custom.Tick?logs=true")).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    let missing = stage
        .get("/clients/C.00000000000000bb/events/Custom.Tick")
        .await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    assert!(missing.text().contains("no client"), "{missing:?}");
    for bad in [
        "since=yesterday",
        "until=-1",
        "limit=x",
        "logs=1",
        "after=3",
    ] {
        let answered = stage.get(&at(&format!("/Custom.Tick?{bad}"))).await;
        assert_eq!(answered.status, StatusCode::BAD_REQUEST, "{bad}");
    }
    // An artifact that is there may bring rows later.
    let later = stage.get(&at("/Server.Internal.ClientInfo")).await;
    assert_eq!(later.status, StatusCode::NOT_FOUND);
    let later = stage
        .get(&at("/Generic.Client.Info/BasicInformation"))
        .await;
    assert_eq!((later.status, later.text()), (StatusCode::OK, ""));
    stage.end().await;
}
