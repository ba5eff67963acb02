//! Recorded traffic of an unmodified agent becomes rows, logs, files, states and events.

use crate::expected::{Event, Expected, Flow, sha256};
use nublar_tests::{Api, Installation, Recorded, Server};
use serde_json::Value;
use std::collections::BTreeMap;

/// Plays a recording once: unknown, enrolled, then everything.
async fn play(recorded: &Recorded, server: &Server) {
    let player = server.player();
    assert_eq!(player.certificate().await.status, 200);
    for (turn, letter) in recorded.letters().iter().enumerate() {
        player.play(turn, letter, letter.status).await;
    }
    server.api().settled().await;
}

#[tokio::test]
async fn collections_become_rows_logs_files_and_states() {
    let recorded = Recorded::load("collections");
    let installation = Installation::recorded(&recorded);
    let mut server = Server::start(&installation).await;
    play(&recorded, &server).await;
    let (api, expected) = (server.api(), Expected::of(&recorded));
    check_flows(&api, recorded.client_id(), &expected).await;
    check_events(&api, &expected).await;
    check_messages(&api, &recorded).await;

    let named = recorded.index()["flows"].as_object().unwrap();
    let flow = |name: &str| -> &Flow {
        let id = named[name].as_str().unwrap();
        &expected.flows[&match id.strip_prefix("H.") {
            Some(hunt) => format!("F.{hunt}.H"),
            None => id.to_owned(),
        }]
    };
    // What the recording is known to hold, so that an empty one does not pass.
    let rows: Vec<_> = flow("rows2500")
        .rows
        .values()
        .map(|set| set.lines())
        .collect();
    let mut counts: Vec<_> = rows.iter().map(|lines| lines.lines().count()).collect();
    counts.sort_unstable();
    assert_eq!(counts, [1, 2500]);
    let big = flow("upload-big").files.values().next().unwrap();
    assert_eq!(big.bytes().len(), 2_300_000);
    assert!(flow("upload-sparse").files.values().next().unwrap().sparse);
    assert!(flow("upload-missing").files.is_empty());
    assert_eq!(flow("error").error.as_deref(), Some("about to fail x"));
    assert_eq!(flow("cancelled").error.as_deref(), Some("Cancelled"));
    assert!(!flow("shell").complete);
    assert!(flow("hunt").complete);
    server.stop().await;
}

#[tokio::test]
async fn no_event_is_lost() {
    let recorded = Recorded::load("events");
    let installation = Installation::recorded(&recorded);
    let mut server = Server::start(&installation).await;
    play(&recorded, &server).await;
    let (api, expected) = (server.api(), Expected::of(&recorded));
    let rows: u64 = expected.events.iter().map(|event| event.rows).sum();
    assert_eq!(
        (expected.events.len(), rows),
        (7, 12 + 63 + 5 + 2 + 2 + 1 + 1)
    );
    check_events(&api, &expected).await;
    check_flows(&api, recorded.client_id(), &expected).await;
    check_messages(&api, &recorded).await;
    server.stop().await;
}

#[tokio::test]
async fn a_session_over_websockets_becomes_rows_logs_files_and_states() {
    let recorded = Recorded::load("websocket");
    let installation = Installation::recorded(&recorded);
    let mut server = Server::start(&installation).await;
    play(&recorded, &server).await;
    let (api, expected) = (server.api(), Expected::of(&recorded));
    assert_eq!(recorded.letters().len(), 12);
    let file = &expected.flows["F.DC2MKE1JIDD2M"].files;
    assert_eq!(file.len(), 1);
    assert_eq!(expected.flows["F.DC2MKD2GP6D52"].total_rows, 31);
    check_flows(&api, recorded.client_id(), &expected).await;
    check_events(&api, &expected).await;
    check_messages(&api, &recorded).await;
    server.stop().await;
}

async fn check_flows(api: &Api, client: &str, expected: &Expected) {
    let listed = api.json(&format!("/clients/{client}/flows")).await;
    let mut ids: Vec<_> = listed["flows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|flow| flow["flow_id"].as_str().unwrap())
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, expected.flows.keys().collect::<Vec<_>>());
    for (id, flow) in &expected.flows {
        let base = format!("/clients/{client}/flows/{id}");
        check_state(id, &api.json(&base).await, flow);
        check_rows(api, &base, flow).await;
        let logs = api.text(&format!("{base}/logs")).await;
        let logs: Vec<Value> = logs
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(logs, flow.logs(), "{id}");
        check_files(api, &base, flow).await;
    }
}

fn check_state(id: &str, document: &Value, flow: &Flow) {
    let state = match (&flow.error, flow.complete) {
        (Some(_), _) => "ERROR",
        (None, true) => "FINISHED",
        (None, false) => "IN_PROGRESS",
    };
    assert_eq!(document["state"], state, "{document}");
    assert_eq!(document["adopted"], true, "{id}");
    if let Some(error) = &flow.error {
        assert_eq!(document["status"], **error, "{document}");
    }
    let sums = [
        ("total_collected_rows", flow.total_rows),
        ("total_uploaded_bytes", flow.total_bytes),
        ("total_uploaded_files", flow.total_files),
        ("total_logs", flow.logs().len() as u64),
    ];
    for (name, sum) in sums {
        assert_eq!(document[name], sum, "{name} of {document}");
    }
    assert_eq!(document["reported"]["rows"], flow.total_rows, "{document}");
    let names: Vec<_> = flow.rows.keys().collect();
    assert_eq!(document["artifacts_with_results"], serde_json::json!(names));
}

async fn check_rows(api: &Api, base: &str, flow: &Flow) {
    let listed = api.json(&format!("{base}/results")).await;
    let mut sets: BTreeMap<&str, u64> = BTreeMap::new();
    for set in listed.as_array().unwrap() {
        assert_eq!(set["ran_twice"], false, "{set}");
        sets.insert(set["name"].as_str().unwrap(), set["rows"].as_u64().unwrap());
    }
    assert!(
        sets.keys()
            .copied()
            .eq(flow.rows.keys().map(String::as_str))
    );
    for (name, rows) in &flow.rows {
        let lines = rows.lines();
        assert_eq!(sets[name.as_str()], lines.lines().count() as u64);
        let path = format!("{base}/results/{name}");
        assert_eq!(api.text(&path).await, lines, "{path}: to the byte");
        let csv = api.text(&format!("{path}?format=csv")).await;
        assert_eq!(csv.lines().next().unwrap(), rows.columns().join(","));
        let part = api.text(&format!("{path}?start=1&limit=2")).await;
        let some: Vec<_> = lines.lines().skip(1).take(2).collect();
        assert_eq!(part.lines().collect::<Vec<_>>(), some, "{path}");
    }
}

async fn check_files(api: &Api, base: &str, flow: &Flow) {
    let listed = api.json(&format!("{base}/uploads?hash=true")).await;
    let listed = listed.as_array().unwrap();
    assert_eq!(listed.len(), flow.files.len(), "{base}");
    for upload in listed {
        let file = &flow.files[upload["path"].as_str().unwrap()];
        let bytes = file.bytes();
        assert!(file.eof);
        assert_eq!(upload["complete"], true, "{upload}");
        assert_eq!(upload["sparse"], file.sparse, "{upload}");
        assert_eq!(upload["size"], file.size, "{upload}");
        assert_eq!(upload["stored"], bytes.len() as u64, "{upload}");
        assert_eq!(upload["sha256"], sha256(&bytes), "{upload}");
        assert_eq!(upload["gaps"], serde_json::json!([]), "{upload}");
        // The agent's own hash stands in the row of its `upload()`.
        assert_eq!(upload["verdict"], "verified", "{upload}");
        let path = format!("{base}/uploads/{}", upload["upload_id"].as_str().unwrap());
        assert!(api.get(&path).await == bytes, "{path}");
        if file.sparse {
            let padded = api.get(&format!("{path}?pad=true")).await;
            assert!(padded == file.padded(), "{path}, padded");
        }
    }
}

/// The lines of a dump of one kind.
fn of_kind<'a>(dump: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    dump.iter().filter(move |line| line["kind"] == kind)
}

async fn read_dump(api: &Api) -> Vec<Value> {
    let dump = api.dump().await;
    dump.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

async fn check_events(api: &Api, expected: &Expected) {
    let dump = read_dump(api).await;
    let mut events: Vec<_> = of_kind(&dump, "events")
        .map(|line| Event {
            source: line["source"].as_str().unwrap().to_owned(),
            at_us: line["order"].as_u64().unwrap(),
            rows: line["size"].as_u64().unwrap(),
        })
        .collect();
    events.sort();
    assert_eq!(events, expected.events);
}

/// Every message that is content is stored once, as the very bytes that the agent sent.
async fn check_messages(api: &Api, recorded: &Recorded) {
    let mut sent = Vec::new();
    for letter in recorded.taken() {
        let content = recorded.messages(letter).into_iter().filter(|message| {
            matches!(
                message.kind,
                nublar_wire::Kind::VqlResponse | nublar_wire::Kind::LogMessage
            )
        });
        sent.extend(content.map(|message| sha256(&message.bytes)));
    }
    sent.sort();
    let dump = read_dump(api).await;
    let mut stored: Vec<_> = ["rows", "logs", "events"]
        .into_iter()
        .flat_map(|kind| of_kind(&dump, kind))
        .map(|line| line["sha256"].as_str().unwrap().to_owned())
        .collect();
    stored.sort();
    assert_eq!(stored, sent);
    let letters = api.json("/dead-letters").await;
    assert_eq!(letters["letters"], serde_json::json!([]));
}
