//! An agent behind a proxy that ends TLS and misbehaves.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod scripted;

use nublar_schemas::agent::{FlowRequest, VeloMessage, VqlCollectorArgs, VqlEnv, VqlRequest};
use nublar_simulator::{Agent, AgentConfig, Event, Faults, Ledger, Proxy, Trust, VARIABLE};
use nublar_wire::AgentKey;
use scripted::Server;
use std::sync::Arc;
use std::time::Duration;

fn request(flow: &str, script: &str) -> VeloMessage {
    let env = VqlEnv {
        key: VARIABLE.into(),
        value: script.into(),
        ..VqlEnv::default()
    };
    let named = VqlRequest {
        name: "Test.Artifact".into(),
        vql: "SELECT 1".into(),
    };
    let args = VqlCollectorArgs {
        query: vec![named],
        env: vec![env],
        ..VqlCollectorArgs::default()
    };
    let request = FlowRequest {
        vql_client_actions: vec![args],
        ..FlowRequest::default()
    };
    VeloMessage {
        session_id: flow.into(),
        flow_request: Some(request),
        ..VeloMessage::default()
    }
}

async fn through(http2: bool) {
    let server = Server::start().await;
    let (chain, key) = server.leaf("proxy.example");
    let upstream = format!("http://{}", server.address);
    let listen = "127.0.0.1:0".parse().unwrap();
    let proxy = Proxy::start(listen, Some((&chain, &key)), &upstream, 1)
        .await
        .unwrap();
    let url = format!("https://{}/", proxy.address());
    let config = AgentConfig {
        speed: 200.0,
        http2,
        // Many posts.
        max_upload_size: 64 << 10,
        ..AgentConfig::new(vec![url], "nonce")
    };
    let trust = Trust::new(server.ca.as_bytes()).unwrap();
    let ledger = Ledger::new();
    let mut events = ledger.listen();
    let agent = Agent::start(
        Arc::new(config),
        AgentKey::generate().unwrap(),
        &trust,
        &ledger,
    )
    .unwrap();
    let client = agent.client_id().to_owned();
    assert_eq!(
        events.recv().await,
        Some(Event::Enrolled {
            client: client.clone()
        })
    );

    // Work is under way before anything goes wrong.
    server.deliver([request(
        "F.AAAA",
        r#"{"rows": 20000, "rows_per_message": 10, "row_bytes": 500}"#,
    )]);
    let book = ledger.book(&client);
    server
        .until("the task", |_| book.flow("F.AAAA").is_some())
        .await;
    proxy.set(Faults {
        lose_every: 2,
        repeat_every: 3,
        cut_every: 5,
        delay_ms: 5,
        ..Faults::NONE
    });
    let ended = tokio::time::timeout(Duration::from_secs(60), events.recv()).await;
    assert_eq!(
        ended,
        Ok(Some(Event::Ended {
            client,
            flow: "F.AAAA".into()
        }))
    );
    let [posts, lost, repeated, dropped, cut] = proxy.done();
    assert!(
        lost > 0 && repeated > 0 && cut > 0 && dropped == 0,
        "{posts} {lost} {repeated} {cut}"
    );
    let rows = |message: VeloMessage| {
        message
            .vql_response
            .map(|response| response.query_start_row)
    };
    let mut starts: Vec<u64> = server.kept().into_iter().filter_map(rows).collect();
    let all = starts.len();
    starts.sort_unstable();
    starts.dedup();
    assert_eq!(starts, (0..20_000).step_by(10).collect::<Vec<u64>>());
    assert!(all > starts.len(), "no message came twice");

    proxy.set(Faults::NONE);
    proxy.stall(true);
    let before = server.visits().1;
    // Whatever had passed before may still arrive; after that nothing does.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (settled, posts) = (server.visits().1, proxy.done()[0]);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(settled >= before);
    assert_eq!(server.visits().1, settled);
    assert!(proxy.done()[0] >= posts);
    proxy.stall(false);
    server
        .until("a poll", |server| server.visits().1 > settled)
        .await;
    assert_eq!(ledger.violations().0, 0, "{:?}", ledger.violations());
    agent.stop().await;
}

#[tokio::test]
async fn faults_pass_over_http2() {
    through(true).await;
}

#[tokio::test]
async fn faults_pass_over_http1() {
    through(false).await;
}
