//! Clients, flows, rows and logs; and who is let in.

use super::stage::{CLIENT, Stage, TOKEN};
use crate::tails::Kind;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use nublar_ports::index::faulty::{Calls, Fault};
use nublar_schemas::agent::{LogMessage, VeloMessage, VqlRequest, VqlResponse};
use serde_json::{Value, json};

pub(super) const FLOW: &str = "F.DC2M4H5TA9T34";

pub(super) fn flow_body(state: &str, rows: u64) -> Value {
    json!({
        "client_id": CLIENT, "flow_id": FLOW, "state": state, "create_time": 5,
        "artifacts": ["Generic.Client.Info"], "total_collected_rows": rows,
    })
}

pub(super) fn rows(name: &str, start: u64, lines: &[&str]) -> VeloMessage {
    VeloMessage {
        session_id: FLOW.to_owned(),
        vql_response: Some(VqlResponse {
            query: Some(VqlRequest {
                name: name.to_owned(),
                vql: String::new(),
            }),
            query_start_row: start,
            total_rows: lines.len() as u64,
            jsonl_response: lines.join("\n") + "\n",
            ..VqlResponse::default()
        }),
        ..VeloMessage::default()
    }
}

fn logs(id: i64, lines: &[&str]) -> VeloMessage {
    let jsonl: String = lines
        .iter()
        .map(|line| format!("{{\"client_time\":1,\"level\":\"INFO\",\"message\":\"{line}\"}}\n"))
        .collect();
    VeloMessage {
        session_id: FLOW.to_owned(),
        log_message: Some(LogMessage {
            id,
            number_of_rows: lines.len() as u64,
            jsonl,
            ..LogMessage::default()
        }),
        ..VeloMessage::default()
    }
}

fn at(path: &str) -> String {
    format!("/clients/{CLIENT}/flows/{FLOW}{path}")
}

#[tokio::test]
async fn only_the_token_opens_and_every_no_is_json() {
    let stage = Stage::new().await;
    for authorization in [
        None,
        Some("Bearer wrong".to_owned()),
        Some(TOKEN.to_owned()),
        Some("Bearer".to_owned()),
    ] {
        let mut request = Request::builder().uri("/api/v1/clients");
        if let Some(authorization) = &authorization {
            request = request.header("authorization", authorization);
        }
        let answered = stage.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(
            answered.status,
            StatusCode::UNAUTHORIZED,
            "{authorization:?}"
        );
        assert_eq!(answered.header("www-authenticate"), "Bearer");
        assert!(answered.json()["what_to_do"].is_string());
    }
    let nowhere = stage.get("/nothing").await;
    assert_eq!(nowhere.status, StatusCode::NOT_FOUND);
    assert!(
        nowhere.json()["error"]
            .as_str()
            .unwrap()
            .contains("/nothing")
    );
    let request = Stage::request(Method::DELETE, "/clients", Body::empty());
    let answered = stage.send(request).await;
    assert_eq!(answered.status, StatusCode::METHOD_NOT_ALLOWED);
    assert!(answered.json()["error"].is_string());
    for bad in [
        "/clients?limit=0",
        "/clients?limit=x",
        "/clients?sort=1",
        "/clients?after=x",
        "/clients/C.x",
    ] {
        let answered = stage.get(bad).await;
        assert_eq!(answered.status, StatusCode::BAD_REQUEST, "{bad}");
        assert!(answered.json()["error"].is_string(), "{bad}");
    }
    let health = Request::builder()
        .uri("/api/v1/health")
        .body(Body::empty())
        .unwrap();
    let answered = stage.send(health).await;
    assert_eq!(
        (answered.status, answered.json()["status"].as_str()),
        (StatusCode::OK, Some("ok"))
    );
    stage.end().await;
}

#[tokio::test]
async fn an_outage_is_said_as_one() {
    let stage = Stage::new().await;
    stage.faults.set(Fault::Unavailable, Calls::All);
    let answered = stage.get("/clients").await;
    assert_eq!(answered.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answered.json()["what_to_do"].is_string());
    let answered = stage.get("/health").await;
    assert_eq!(answered.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answered.json()["index"], json!(false));
    stage.end().await;
}

#[tokio::test]
async fn a_call_ends_at_its_deadline() {
    let stage = Stage::within(std::time::Duration::from_millis(100)).await;
    stage.faults.set(
        Fault::Slow(std::time::Duration::from_secs(3600)),
        Calls::All,
    );
    let answered = stage.get("/clients").await;
    assert_eq!(answered.status, StatusCode::GATEWAY_TIMEOUT);
    stage.end().await;
}

#[tokio::test]
async fn clients_are_found_and_paged_with_what_just_happened_on_top() {
    let stage = Stage::new().await;
    let client = |n: u64, host: &str| {
        let id = format!("C.{n:016x}");
        (
            id.clone(),
            json!({ "client_id": id, "hostname": host, "labels": [format!("L{n}")], "first_seen_at": n }),
        )
    };
    for n in 1..=5u64 {
        let (id, body) = client(n, &format!("host-{n}"));
        let text = format!("{} host-{n} label:l{n}", id.to_lowercase());
        stage.project(Kind::Client, &id, n, &text, &body).await;
    }
    // One that the index has not, and one that has a new name since.
    let (six, body) = client(6, "host-6");
    stage.tell(Kind::Client, &six, 60, &body).await;
    let (two, body) = client(2, "renamed");
    stage.tell(Kind::Client, &two, 20, &body).await;
    // An older word about another is not believed.
    let (three, _) = client(3, "");
    stage
        .tell(
            Kind::Client,
            &three,
            1,
            &json!({"hostname": "stale", "first_seen_at": 3}),
        )
        .await;

    let names = |page: &Value| -> Vec<String> {
        let clients = page["clients"].as_array().unwrap();
        clients
            .iter()
            .map(|client| client["hostname"].as_str().unwrap().to_owned())
            .collect()
    };
    let all = stage.json("/clients").await;
    assert_eq!(
        names(&all),
        ["host-6", "host-5", "host-4", "host-3", "renamed", "host-1"]
    );
    assert_eq!(all["next"], Value::Null);

    let mut paged = Vec::new();
    let mut next = String::new();
    loop {
        let page = stage.json(&format!("/clients?limit=2{next}")).await;
        paged.extend(names(&page));
        match page["next"].as_str() {
            Some(place) => next = format!("&after={place}"),
            None => break,
        }
    }
    assert_eq!(paged, names(&all));

    let found = |q: &'static str| {
        let stage = &stage;
        async move { names(&stage.json(&format!("/clients?q={q}")).await) }
    };
    assert_eq!(found("host-").await.len(), 5);
    assert_eq!(found("host:host-2").await, Vec::<String>::new());
    assert_eq!(found("host:renamed").await, ["renamed"]);
    assert_eq!(found("label:L6").await, ["host-6"]);
    assert_eq!(found("l4").await, ["host-4"]);
    assert_eq!(found("client:C.0000000000000001").await, ["host-1"]);
    assert_eq!(found("*-3%20label:l*").await, ["host-3"]);
    let two_of = stage.json("/clients?q=host-&limit=2").await;
    assert_eq!(names(&two_of), ["host-6", "host-5"]);
    assert!(two_of["next"].is_string());

    assert_eq!(
        stage.json(&format!("/clients/{two}")).await["hostname"],
        "renamed"
    );
    // Enrolled, but nothing is known of it yet.
    assert_eq!(
        stage.json(&format!("/clients/{CLIENT}")).await["client_id"],
        CLIENT
    );
    assert_eq!(
        stage.get("/clients/C.00000000000000ff").await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        stage.get("/clients/C.00000000000000ff/flows").await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        stage.json(&format!("/clients/{CLIENT}/flows")).await["flows"],
        json!([])
    );
    stage.end().await;
}

#[tokio::test]
async fn flows_are_seen_at_once_and_never_go_backwards() {
    let stage = Stage::new().await;
    assert_eq!(stage.get(&at("")).await.status, StatusCode::NOT_FOUND);
    let id = format!("{CLIENT}/{FLOW}");
    stage
        .tell(Kind::Flow, &id, 7, &flow_body("FINISHED", 0))
        .await;
    stage
        .project(Kind::Flow, &id, 6, "", &flow_body("RUNNING", 0))
        .await;
    assert_eq!(stage.json(&at("")).await["state"], "FINISHED");
    let listed = stage.json(&format!("/clients/{CLIENT}/flows")).await;
    assert_eq!(listed["flows"][0]["state"], "FINISHED");
    stage
        .project(Kind::Flow, &id, 8, "", &flow_body("ERROR", 0))
        .await;
    assert_eq!(stage.json(&at("")).await["state"], "ERROR");
    let listed = stage.json(&format!("/clients/{CLIENT}/flows")).await;
    assert_eq!(
        (
            listed["flows"].as_array().unwrap().len(),
            &listed["flows"][0]["state"]
        ),
        (1, &json!("ERROR"))
    );
    stage.end().await;
}

#[tokio::test]
async fn rows_come_in_their_order_and_once() {
    let stage = Stage::new().await;
    let id = format!("{CLIENT}/{FLOW}");
    stage
        .tell(Kind::Flow, &id, 1, &flow_body("FINISHED", 5))
        .await;
    let row = |n: u64| format!("{{\"z\": {n}, \"a\":\"r{n}\"}}");
    let lines: Vec<String> = (0..5).map(row).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let parts = [
        rows("A/One", 3, &lines[3..]),
        rows("A/One", 0, &lines[..3]),
        rows("B", 0, &lines[..1]),
    ];
    stage.store(parts.clone()).await;
    stage.store(parts).await;

    assert_eq!(
        stage.json(&at("/results")).await,
        json!([{"name": "A/One", "rows": 5, "ran_twice": false}, {"name": "B", "rows": 1, "ran_twice": false}])
    );
    let answered = stage.get(&at("/results/A/One")).await;
    assert_eq!(answered.text(), lines.join("\n") + "\n");
    assert_eq!(answered.header("content-type"), "application/jsonl");
    assert_eq!(
        (
            answered.header("x-nublar-rows"),
            answered.header("x-nublar-total")
        ),
        ("5", "5")
    );
    let some = stage.get(&at("/results/A%2FOne?start=2&limit=2")).await;
    assert_eq!(some.text(), lines[2..4].join("\n") + "\n");
    let csv = stage.get(&at("/results/A/One?format=csv&limit=2")).await;
    assert_eq!(csv.text(), "z,a\n0,r0\n1,r1\n");
    let array = stage.get(&at("/results/A/One?format=json&start=4")).await;
    assert_eq!(array.json(), json!([{"z": 4, "a": "r4"}]));
    assert_eq!(
        stage
            .get(&at("/results/A/One?format=json&start=9"))
            .await
            .json(),
        json!([])
    );

    // It ran again, with other rows: the first come first, and it is said.
    stage
        .store([rows("A/One", 0, &["{\"z\":\"again\"}"; 6])])
        .await;
    let answered = stage.get(&at("/results/A/One")).await;
    assert_eq!(answered.text().lines().count(), 6);
    assert_eq!(answered.header("x-nublar-ran-twice"), "true");
    let sets = stage.json(&at("/results")).await;
    assert_eq!(
        sets[0],
        json!({"name": "A/One", "rows": 6, "ran_twice": true})
    );

    let missing = stage.get(&at("/results/C")).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    assert!(
        missing.json()["what_to_do"]
            .as_str()
            .unwrap()
            .contains("A/One, B")
    );
    // What the artifact could give, and did not.
    let empty = stage
        .get(&at("/results/Generic.Client.Info/BasicInformation"))
        .await;
    assert_eq!((empty.status, empty.text()), (StatusCode::OK, ""));
    assert_eq!(
        stage.get(&at("/results/B?format=xml")).await.status,
        StatusCode::BAD_REQUEST
    );
    stage.end().await;
}

#[tokio::test]
async fn many_messages_are_read_page_by_page() {
    let stage = Stage::new().await;
    stage
        .tell(
            Kind::Flow,
            &format!("{CLIENT}/{FLOW}"),
            1,
            &flow_body("FINISHED", 100),
        )
        .await;
    let lines: Vec<String> = (0..100).map(|n| format!("{{\"n\":{n}}}")).collect();
    let messages = lines.chunks(3).enumerate().map(|(n, chunk)| {
        let chunk: Vec<&str> = chunk.iter().map(String::as_str).collect();
        rows("A", n as u64 * 3, &chunk)
    });
    stage.store(messages).await;
    assert_eq!(
        stage.get(&at("/results/A")).await.text(),
        lines.join("\n") + "\n"
    );
    let some = stage.get(&at("/results/A?start=50&limit=40")).await;
    assert_eq!(some.text(), lines[50..90].join("\n") + "\n");
    stage.end().await;
}

#[tokio::test]
async fn a_late_index_is_asked_to_show_what_it_has() {
    let stage = Stage::new().await;
    stage.store([rows("A", 0, &["{\"n\":0}"])]).await;
    stage.faults.hide();
    stage
        .tell(
            Kind::Flow,
            &format!("{CLIENT}/{FLOW}"),
            1,
            &flow_body("FINISHED", 1),
        )
        .await;
    assert_eq!(stage.get(&at("/results/A")).await.text(), "{\"n\":0}\n");
    assert!(!stage.faults.hides());
    stage.end().await;
}

#[tokio::test]
async fn all_log_lines_are_there() {
    let stage = Stage::new().await;
    stage
        .tell(
            Kind::Flow,
            &format!("{CLIENT}/{FLOW}"),
            1,
            &flow_body("FINISHED", 0),
        )
        .await;
    // The agent's own lines have number 0 like the first batch.
    stage
        .store([
            logs(2, &["three"]),
            logs(0, &["one", "two"]),
            logs(0, &["own"]),
        ])
        .await;
    let text = stage.get(&at("/logs")).await.text().to_owned();
    let messages: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["message"].clone())
        .collect();
    assert_eq!(messages.len(), 4);
    assert_eq!(messages[3], "three");
    let csv = stage.get(&at("/logs?format=csv&start=3")).await;
    assert_eq!(csv.text(), "client_time,level,message\n1,INFO,three\n");
    stage.end().await;
}

#[tokio::test]
async fn topics_are_shown() {
    use bytes::Bytes;
    let stage = Stage::new().await;
    stage
        .log
        .append("results", 2, Bytes::new(), Bytes::from_static(b"x"))
        .await
        .unwrap();
    let topics = stage.json("/topics").await;
    let topics = topics.as_array().unwrap();
    assert_eq!(topics.len(), nublar_schemas::topics::ALL.len());
    let results = topics
        .iter()
        .find(|topic| topic["name"] == "results")
        .unwrap();
    assert_eq!(
        (&results["end"], &results["partitions"]),
        (&json!(1), &json!(4))
    );
    assert_eq!(results["groups"][0]["lag"], 1);
    assert!(results["groups"][0]["oldest_unmarked_s"].is_number());
    stage.end().await;
}
