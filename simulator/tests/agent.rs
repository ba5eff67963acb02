//! An agent against a server that does what the test tells it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod scripted;

use nublar_schemas::agent::{
    Cancel, FlowRequest, FlowStatsRequest, VeloMessage, VqlCollectorArgs, VqlEnv, VqlRequest,
    flow_request, velo_status::ReturnedStatus,
};
use nublar_simulator::{Agent, AgentConfig, Event, Faults, Ledger, Stage, Trust, VARIABLE};
use nublar_wire::AgentKey;
use scripted::Server;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Two hundred times as fast as a real agent.
fn config(server: &Server) -> AgentConfig {
    AgentConfig {
        speed: 200.0,
        ..AgentConfig::new(vec![server.url()], "nonce")
    }
}

fn start(server: &Server, config: AgentConfig, ledger: &Ledger) -> Agent {
    let trust = Trust::new(server.ca.as_bytes()).unwrap();
    Agent::start(
        Arc::new(config),
        AgentKey::generate().unwrap(),
        &trust,
        ledger,
    )
    .unwrap()
}

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
        query: vec![VqlRequest::default(), named],
        env: vec![env],
        ..VqlCollectorArgs::default()
    };
    VeloMessage {
        session_id: flow.into(),
        flow_request: Some(FlowRequest {
            vql_client_actions: vec![args],
            compression: flow_request::Compression::Zlib.into(),
            ..FlowRequest::default()
        }),
        ..VeloMessage::default()
    }
}

fn ask(flows: &[&str]) -> VeloMessage {
    VeloMessage {
        session_id: "F.Status".into(),
        flow_stats_request: Some(FlowStatsRequest {
            flow_id: flows.iter().map(|&flow| flow.into()).collect(),
        }),
        ..VeloMessage::default()
    }
}

fn is_marker(message: &VeloMessage, flow: &str) -> bool {
    let complete = message
        .flow_stats
        .as_ref()
        .is_some_and(|stats| stats.flow_complete);
    message.session_id == flow && !message.urgent && complete
}

async fn until_marker(server: &Server, flow: &str) {
    server
        .until("the end", |server| {
            server.kept().iter().any(|message| is_marker(message, flow))
        })
        .await;
}

#[tokio::test]
async fn it_enrols_runs_a_flow_and_the_ledger_knows_all_of_it() {
    let server = Server::start().await;
    let ledger = Ledger::new();
    let mut events = ledger.listen();
    let agent = start(&server, config(&server), &ledger);
    let script = r#"{"rows": 25, "rows_per_message": 10, "logs": 150, "row_bytes": 100,
        "uploads": [{"name": "/a/b", "size": 1500000, "compress": true}, {"name": "/empty", "size": 0}]}"#;
    server.deliver([request("F.AAAA", script)]);
    until_marker(&server, "F.AAAA").await;
    assert_eq!(
        events.recv().await,
        Some(Event::Enrolled {
            client: agent.client_id().into()
        })
    );
    let ended = Event::Ended {
        client: agent.client_id().into(),
        flow: "F.AAAA".into(),
    };
    assert_eq!(events.recv().await, Some(ended));
    server
        .until("the last log rows", |server| {
            let kept = server.kept();
            let rows = kept
                .iter()
                .filter_map(|message| message.log_message.as_ref());
            rows.map(|log| log.number_of_rows).sum::<u64>() == 150
        })
        .await;
    // Whoever waits for logs before the answer went through would see them as sent only.
    let book = ledger.book(agent.client_id());
    let logs = || book.flow("F.AAAA").unwrap().runs[0].logs.clone();
    while logs().iter().any(|piece| piece.stage != Stage::Committed) {
        tokio::task::yield_now().await;
    }

    let kept = server.kept();
    let of_flow: Vec<&VeloMessage> = kept.iter().filter(|m| m.session_id == "F.AAAA").collect();
    let entry = book.flow("F.AAAA").unwrap();
    let run = &entry.runs[0];
    let rows: Vec<(u64, u64)> = of_flow
        .iter()
        .filter_map(|message| message.vql_response.as_ref())
        .map(|response| (response.query_start_row, response.total_rows))
        .collect();
    assert_eq!(rows, [(0, 10), (10, 10), (20, 5)]);
    let written: Vec<(u64, u64)> = run.sources["Test.Artifact"]
        .iter()
        .map(|piece| (piece.start, piece.count))
        .collect();
    assert_eq!(rows, written);
    let buffers: Vec<(i64, u64, u64, bool)> = of_flow
        .iter()
        .filter_map(|message| message.file_buffer.as_ref())
        .map(|part| {
            (
                part.upload_number,
                part.offset,
                part.uncompressed_length,
                part.eof,
            )
        })
        .collect();
    let (first, rest) = (1 << 20, 1_500_000 - (1 << 20));
    let whole = [
        (0, 0, first, false),
        (0, first, rest, false),
        (0, 1_500_000, 0, true),
        (1, 0, 0, true),
    ];
    assert_eq!(buffers, whole);
    assert!(
        run.uploads
            .values()
            .all(|upload| upload.eof == Stage::Committed)
    );
    let marker = of_flow
        .iter()
        .find(|message| is_marker(message, "F.AAAA"))
        .unwrap();
    let status = &marker.flow_stats.as_ref().unwrap().query_status[0];
    assert_eq!(status.status(), ReturnedStatus::Ok);
    assert_eq!((status.result_rows, status.log_rows), (25, 150));
    assert_eq!(
        (status.uploaded_files, status.uploaded_bytes),
        (2, 1_500_000)
    );
    assert_eq!(status.names_with_response, ["Test.Artifact"]);
    // The end comes behind what it counts, and the last log rows behind the end.
    let place = |wanted: &dyn Fn(&VeloMessage) -> bool| of_flow.iter().rposition(|m| wanted(m));
    let marker = place(&|message| is_marker(message, "F.AAAA"));
    assert!(place(&|message| message.vql_response.is_some()) < marker);
    assert!(place(&|message| message.file_buffer.is_some()) < marker);
    assert!(place(&|message| message.log_message.is_some()) > marker);
    assert_eq!(
        (run.reported.as_ref().unwrap().rows, run.marker),
        (25, Stage::Committed)
    );
    assert_eq!(ledger.violations().0, 0, "{:?}", ledger.violations());
    agent.stop().await;
}

#[tokio::test]
async fn three_attempts_carry_the_same_bytes_and_the_fourth_another_session() {
    let server = Server::start().await;
    let ledger = Ledger::new();
    let agent = start(&server, config(&server), &ledger);
    server
        .until("enrolment", |_| {
            ledger.book(agent.client_id()).is_enrolled()
        })
        .await;
    let sessions = server.visits().0;
    server.answer_with([503, 408, 503]);
    server.deliver([request("F.AAAA", r#"{"rows": 1}"#)]);
    until_marker(&server, "F.AAAA").await;
    let posts = server.posts();
    assert_eq!(
        posts
            .iter()
            .take(4)
            .map(|post| post.status)
            .collect::<Vec<_>>(),
        [503, 408, 503, 200]
    );
    assert_eq!(posts[0].body, posts[1].body);
    assert_eq!(posts[0].body, posts[2].body);
    assert_ne!(posts[0].body, posts[3].body);
    assert_eq!(posts[0].messages, posts[3].messages);
    assert!(
        server.visits().0 > sessions,
        "server.pem was not fetched anew"
    );
    assert_eq!(ledger.violations().0, 0);
    agent.stop().await;
}

#[tokio::test]
async fn a_refusal_that_loses_results_is_a_violation() {
    let server = Server::start().await;
    let ledger = Ledger::new();
    let agent = start(&server, config(&server), &ledger);
    server.answer_with([400]);
    server.deliver([request("F.AAAA", r#"{"rows": 1}"#)]);
    server
        .until("the refused post", |server| !server.posts().is_empty())
        .await;
    server
        .until("the violation", |server| {
            // It is written down after the answer has come: the next polls show that.
            server.visits().1 > 0 && ledger.violations().0 > 0
        })
        .await;
    assert_eq!(ledger.violations().1[0].rule, "lost by refusal");
    agent.stop().await;
}

#[tokio::test]
async fn a_task_that_comes_twice_is_a_violation_and_one_after_a_restart_is_not() {
    let server = Server::start().await;
    let ledger = Ledger::new();
    let agent = start(&server, config(&server), &ledger);
    let book = ledger.book(agent.client_id());
    server.deliver([request("F.AAAA", "{}")]);
    until_marker(&server, "F.AAAA").await;
    server.deliver([request("F.AAAA", "{}")]);
    server
        .until("the second run", |_| {
            book.flow("F.AAAA").unwrap().runs.len() == 2
        })
        .await;
    let (count, violations) = ledger.violations();
    assert_eq!((count, violations[0].rule), (1, "delivered twice"));

    agent.restart();
    let starts = || {
        book.counts
            .starts
            .load(std::sync::atomic::Ordering::Relaxed)
    };
    server.until("the restart", |_| starts() == 2).await;
    // It had lived: even a restart does not make it right to run it again.
    server.deliver([request("F.AAAA", "{}")]);
    server
        .until("the third run", |_| {
            book.flow("F.AAAA").unwrap().runs.len() == 3
        })
        .await;
    assert_eq!(ledger.violations().1[1].rule, "ran again after life");
    server.deliver([ask(&["F.BBBB", "F.AAAA"])]);
    server
        .until("answers", |server| {
            server.kept().iter().filter(|m| m.urgent).count() >= 2
        })
        .await;
    let urgent: Vec<VeloMessage> = server.kept().into_iter().filter(|m| m.urgent).collect();
    let unknown = ReturnedStatus::UnknownFlow;
    let status =
        |message: &VeloMessage| message.flow_stats.as_ref().unwrap().query_status[0].status();
    assert_eq!(
        (urgent[0].session_id.as_str(), status(&urgent[0])),
        ("F.BBBB", unknown)
    );
    assert_eq!(urgent[1].session_id, "F.AAAA");
    assert_ne!(status(&urgent[1]), unknown);
    let post = server
        .posts()
        .into_iter()
        .rfind(|post| post.urgent)
        .unwrap();
    assert_eq!(post.messages.len(), 2, "both answers are in one post");
    agent.stop().await;
}

#[tokio::test]
async fn a_cancelled_flow_says_so_and_its_rows_are_dropped() {
    let server = Server::start().await;
    let ledger = Ledger::new();
    let agent = start(&server, config(&server), &ledger);
    let book = ledger.book(agent.client_id());
    server.deliver([request("F.AAAA", r#"{"rows": 5, "duration_ms": 3600000}"#)]);
    server
        .until("progress", |server| !server.kept().is_empty())
        .await;
    // Its queries wait for the end of the hour; two more fit beside it only if they are urgent.
    server.deliver([
        request("F.BBBB", r#"{"duration_ms": 3600000}"#),
        request("F.CCCC", "{}"),
    ]);
    server.until("all", |_| book.flow("F.CCCC").is_some()).await;
    let cancel = VeloMessage {
        session_id: "F.AAAA".into(),
        cancel: Some(Cancel::default()),
        urgent: true,
        ..VeloMessage::default()
    };
    server.deliver([cancel]);
    until_marker(&server, "F.AAAA").await;
    let kept = server.kept();
    let marker = kept
        .iter()
        .find(|message| is_marker(message, "F.AAAA"))
        .unwrap();
    let status = &marker.flow_stats.as_ref().unwrap().query_status[0];
    assert_eq!(
        (status.status(), status.error_message.as_str()),
        (ReturnedStatus::GenericError, "Cancelled")
    );
    // The slot that became free is taken.
    until_marker(&server, "F.CCCC").await;
    assert_eq!(book.flow("F.AAAA").unwrap().cancels, 1);
    assert_eq!(ledger.violations().0, 0);
    agent.stop().await;
}

#[tokio::test]
async fn a_network_that_loses_and_repeats_makes_the_server_see_the_same_messages_again() {
    let server = Server::start().await;
    let ledger = Ledger::new();
    let faults = Faults {
        lose_every: 2,
        repeat_every: 3,
        cut_every: 7,
        ..Faults::NONE
    };
    let agent = start(
        &server,
        AgentConfig {
            faults,
            ..config(&server)
        },
        &ledger,
    );
    let mut events = ledger.listen();
    let mut flows = vec![
        "F.AAAA".to_owned(),
        "F.BBBB".to_owned(),
        "F.CCCC".to_owned(),
    ];
    let repeated = |server: &Server| {
        let posts = server.posts();
        let same = posts.windows(2).filter(|two| two[0].body == two[1].body);
        same.count()
    };
    let book = ledger.book(agent.client_id());
    let mut ended = 0;
    let deadline = Instant::now() + Duration::from_secs(60);
    // Chance may spare a few flows: there is work until something was repeated.
    while ended < flows.len() || repeated(&server) == 0 {
        assert!(Instant::now() < deadline, "{ended} flows ended");
        if ended == flows.len() {
            flows.push(format!("F.{ended:04}"));
        }
        // A poll's answer may be lost with its task: this server tells it again until it came.
        if server.all_delivered() {
            let missing = flows.iter().filter(|flow| book.flow(flow).is_none());
            server
                .deliver(missing.map(|flow| request(flow, r#"{"rows": 3000, "row_bytes": 300}"#)));
        }
        let waited = tokio::time::timeout(Duration::from_millis(500), events.recv()).await;
        ended += usize::from(matches!(waited, Ok(Some(Event::Ended { .. }))));
    }
    // What was repeated is the same message: without repeats every row is there once.
    let mut messages: Vec<VeloMessage> = server.kept();
    messages.retain(|message| message.vql_response.is_some());
    let mut distinct: Vec<String> = messages
        .iter()
        .map(|message| format!("{message:?}"))
        .collect();
    distinct.sort_unstable();
    distinct.dedup();
    let runs: usize = flows
        .iter()
        .map(|flow| book.flow(flow).unwrap().runs.len())
        .sum();
    assert_eq!(distinct.len(), 3 * runs);
    agent.stop().await;
}
