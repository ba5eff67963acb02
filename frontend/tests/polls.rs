//! Tasks reach agents through their polls: once, together, and never silently lost.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use nublar_core::ids::ContentId;
use nublar_ports::log::{LogError, Position};
use nublar_schemas::agent::VeloMessage;
use nublar_schemas::records::Scheduling;
use nublar_wire::{Envelope, pad};
use reqwest::{Response, StatusCode};
use std::sync::Arc;
use std::time::Duration;
use support::agent::{TestAgent, Version, check_in, rows};
use support::foreman::{held, request};
use support::{Deployment, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;

fn start_poll(agent: &Arc<TestAgent>) -> JoinHandle<Response> {
    let agent = agent.clone();
    tokio::spawn(async move { agent.poll().await })
}

fn unsent(flow: &str) -> impl Fn(&Scheduling) -> Option<i32> {
    move |record| match record {
        Scheduling::Unsent(unsent) if unsent.flow_id == flow => Some(unsent.attempt),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_granted_task_arrives_once_over_every_version_of_http() {
    let deployment = Deployment::new().await;
    let running = deployment.start().await;
    for version in [Version::Plain, Version::Tls1, Version::Tls2] {
        let agent = Arc::new(TestAgent::over(&deployment, &running, version));
        agent.enrol().await;
        let (client, flow) = (agent.client(), agent.flow(1));
        let poll = start_poll(&agent);
        let check_in = deployment
            .wait_scheduling(|record| match record {
                Scheduling::CheckIn(check_in)
                    if check_in.header.client == agent.key.client_id() =>
                {
                    Some(check_in.clone())
                }
                _ => None,
            })
            .await;
        assert_eq!(
            (check_in.address.as_str(), check_in.header.generation),
            ("127.0.0.1", 1)
        );
        let body = Envelope::parse(agent.seal(&[])).unwrap();
        let session = ContentId::of(&[body.cipher()]);
        assert_eq!(check_in.session_key, session.as_bytes()[..]);

        let wanted = request("somebody");
        let at = deployment.compiled(&wanted).await;
        deployment.offer(&client, &flow, 1).await;
        let claim = deployment.claim(&flow, 1).await;
        assert_eq!(claim.header.frontend, running.name);
        assert_eq!(claim.header.client, agent.key.client_id());
        deployment.grant(&client, &claim, &at).await;
        let answer = poll.await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        let messages = agent.read(answer).await;
        let [message] = &messages[..] else {
            panic!("{messages:?}")
        };
        assert_eq!(message.session_id, flow);
        assert_eq!(message.request_id, 1);
        assert_eq!(message.flow_request.as_ref(), Some(&wanted));

        // The same grant again: the next poll stays, and ends with what else is due.
        let poll = start_poll(&agent);
        held(&running, 1).await;
        deployment.grant(&client, &claim, &at).await;
        deployment.cancel(&client, &agent.flow(2)).await;
        let messages = agent.read(poll.await.unwrap()).await;
        let sessions: Vec<_> = messages.iter().map(|m| m.session_id.clone()).collect();
        assert_eq!(sessions, [agent.flow(2)]);
        assert!(messages[0].cancel.is_some() && messages[0].urgent);
    }
    assert_eq!(running.metrics.tasks_delivered.get(), 3);
    assert_eq!(
        running.metrics.unsent.get() + running.metrics.unsure.get(),
        0
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_request_is_opened_for_its_agent_alone() {
    let deployment = Deployment::new().await;
    let running = deployment.start().await;
    let agent = Arc::new(TestAgent::enrolled(&deployment, &running).await);
    let (client, flow) = (agent.client(), agent.flow(1));
    let wanted = request("correct-horse-battery");
    let at = deployment.sealed(&wanted).await;
    for record in deployment.records("requests").await {
        let mut parts = record.value.windows(21);
        assert!(!parts.any(|part| part == b"correct-horse-battery"));
    }
    // One that no key opens is not brought, and takes nothing with it.
    let mut foreign = b"\x00s1".to_vec();
    foreign.extend_from_slice(&[7; 60]);
    let foreign = deployment.stored(foreign.into()).await;
    for (number, place) in [(1, &at), (2, &foreign)] {
        let flow = agent.flow(number);
        deployment.offer(&client, &flow, 1).await;
        let poll = start_poll(&agent);
        let claim = deployment.claim(&flow, 1).await;
        deployment.grant(&client, &claim, place).await;
        if number == 1 {
            let messages = agent.read(poll.await.unwrap()).await;
            assert_eq!(messages[0].session_id, agent.flow(1));
            assert_eq!(messages[0].flow_request.as_ref(), Some(&wanted));
        } else {
            let answer = poll.await.unwrap();
            assert_eq!(answer.bytes().await.unwrap().len(), 0);
        }
    }
    assert_eq!(running.metrics.requests_missing.get(), 1);
    assert_eq!(running.metrics.tasks_delivered.get(), 1);
    assert!(deployment.claims(&flow).await.len() == 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_is_due_comes_in_one_answer() {
    let deployment = Deployment::new().await;
    let running = deployment.start().await;
    let agent = Arc::new(TestAgent::enrolled(&deployment, &running).await);
    let client = agent.client();
    let at = deployment.compiled(&request("x")).await;
    let flows: Vec<_> = (1..=3).map(|n| agent.flow(n)).collect();
    for flow in &flows {
        deployment.offer(&client, flow, 1).await;
    }
    let (once, asked) = (agent.flow(11), agent.flow(12));
    deployment.ask(&client, &[(&once, &asked)]).await;
    let poll = start_poll(&agent);
    let mut claims = Vec::new();
    for flow in &flows {
        claims.push(deployment.claim(flow, 1).await);
    }
    for claim in &claims {
        deployment.grant(&client, claim, &at).await;
    }
    let messages = agent.read(poll.await.unwrap()).await;
    let tasks: Vec<_> = messages
        .iter()
        .filter(|message| message.flow_request.is_some())
        .map(|message| message.session_id.clone())
        .collect();
    let of_asks = |message: &VeloMessage| message.flow_stats_request.clone();
    let asks: Vec<_> = messages.iter().filter_map(of_asks).collect();
    assert_eq!(asks.len(), 1);
    assert_eq!(asks[0].flow_id, [once, asked]);
    // A grant that comes late does not hold the others; here all came in time.
    assert_eq!(tasks, flows);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_before_the_first_pad_and_the_task_comes_behind_the_pads() {
    let deployment = Deployment::new().await;
    for version in [Version::Tls1, Version::Tls2] {
        let running = deployment
            .start_with(|config| config.pad_every = Duration::from_millis(60))
            .await;
        let agent = TestAgent::over(&deployment, &running, version);
        agent.enrol().await;
        let flow = agent.flow(1);
        let started = std::time::Instant::now();
        // Resolves with the header.
        let mut answer = agent.poll().await;
        assert!(started.elapsed() >= Duration::from_millis(60));
        assert_eq!(answer.status(), StatusCode::OK);
        let mut body = Vec::new();
        while body.len() < 2 * pad().len() {
            body.extend_from_slice(&answer.chunk().await.unwrap().unwrap());
        }
        assert_eq!(body, pad().repeat(2), "each is flushed by itself");
        let at = deployment.compiled(&request("y")).await;
        deployment.offer(&agent.client(), &flow, 1).await;
        let claim = deployment.claim(&flow, 1).await;
        deployment.grant(&agent.client(), &claim, &at).await;
        while let Some(chunk) = answer.chunk().await.unwrap() {
            body.extend_from_slice(&chunk);
        }
        let answer = agent.session.open(body.into()).unwrap();
        let messages = answer.messages(support::agent::LIMIT).unwrap();
        assert_eq!(messages.len(), 1);
        assert_eq!(messages[0].session_id(), flow);
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_poll_ends_with_nothing_before_max_poll_and_checks_in_once() {
    let deployment = Deployment::new().await;
    let running = deployment
        .start_with(|config| {
            config.max_poll = Duration::from_millis(300);
            config.pad_every = Duration::from_millis(100);
        })
        .await;
    let agent = TestAgent::enrolled(&deployment, &running).await;
    for _ in 0..3 {
        let started = std::time::Instant::now();
        let body = agent.poll().await.bytes().await.unwrap();
        let took = started.elapsed();
        assert!(took >= Duration::from_millis(240), "{took:?}");
        assert!(Envelope::parse(body.clone()).unwrap().is_pad(), "{body:?}");
        assert_eq!(body, pad().repeat(2));
    }
    assert_eq!(deployment.check_ins(&agent.client()).await, 1);
    // A new version of the event table is news, and so is a new session.
    agent
        .post("reader", &[check_in(9)])
        .await
        .bytes()
        .await
        .unwrap();
    assert_eq!(deployment.check_ins(&agent.client()).await, 2);
    agent
        .at(&deployment, &running)
        .poll()
        .await
        .bytes()
        .await
        .unwrap();
    assert_eq!(deployment.check_ins(&agent.client()).await, 3);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_with_a_poll_is_stored_before_it_is_held() {
    let deployment = Deployment::new().await;
    let running = deployment.start().await;
    let agent = Arc::new(TestAgent::enrolled(&deployment, &running).await);
    let poll = tokio::spawn({
        let agent = agent.clone();
        let info = rows(
            "F.Monitoring",
            "Server.Internal.ClientInfo",
            r#"{"hostname":"h"}"#,
        );
        async move { agent.post("reader", &[check_in(0), info]).await }
    });
    held(&running, 1).await;
    assert_eq!(deployment.messages("events").await.len(), 1);
    poll.abort();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_in_tells_whether_the_agent_said_who_it_is() {
    let deployment = Deployment::new().await;
    let running = deployment.start().await;
    let agent = TestAgent::enrolled(&deployment, &running).await;
    let info = |name: &str| rows("F.Monitoring", name, r#"{"hostname":"h"}"#);
    let mut told = Vec::new();
    for with in [
        vec![info("Server.Internal.ClientInfo")],
        vec![],
        vec![
            info("Generic.Client.Stats"),
            info("Server.Internal.ClientInfo/Other"),
        ],
    ] {
        // Each time a new session.
        let agent = Arc::new(agent.at(&deployment, &running));
        let messages = [vec![check_in(0)], with].concat();
        let poll = tokio::spawn(async move { agent.post("reader", &messages).await });
        let number = told.len();
        let new = eventually(async || {
            let check_ins = deployment.scheduling().await.into_iter();
            let mut check_ins = check_ins.filter_map(|record| match record {
                Scheduling::CheckIn(check_in) => Some(check_in),
                _ => None,
            });
            check_ins.nth(number)
        });
        told.push(new.await.introduces);
        poll.abort();
    }
    assert_eq!(told, [true, false, false]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_poll_of_a_client_wins() {
    let deployment = Deployment::new().await;
    let running = deployment.start().await;
    let agent = Arc::new(TestAgent::enrolled(&deployment, &running).await);
    let (client, flow) = (agent.client(), agent.flow(1));
    let first = start_poll(&agent);
    held(&running, 1).await;
    let second = start_poll(&agent);
    let answer = first.await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(answer.bytes().await.unwrap().is_empty());
    held(&running, 1).await;
    let at = deployment.compiled(&request("z")).await;
    deployment.offer(&client, &flow, 1).await;
    let claim = deployment.claim(&flow, 1).await;
    deployment.grant(&client, &claim, &at).await;
    assert_eq!(agent.read(second.await.unwrap()).await.len(), 1);
    assert_eq!(running.metrics.superseded.get(), 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_granted_to_a_poll_that_is_gone_is_reported_unsent() {
    let deployment = Deployment::new().await;
    let running = deployment.start().await;
    let agent = Arc::new(TestAgent::enrolled(&deployment, &running).await);
    let (client, flow) = (agent.client(), agent.flow(1));
    let poll = start_poll(&agent);
    let at = deployment.compiled(&request("w")).await;
    deployment.offer(&client, &flow, 1).await;
    let claim = deployment.claim(&flow, 1).await;
    poll.abort();
    held(&running, 0).await;
    // The report is not given up while the log is away.
    deployment.log.take_appends("scheduling");
    deployment.grant(&client, &claim, &at).await;
    eventually(async || (running.metrics.unsent.get() == 1).then_some(())).await;
    deployment.log.give_back();
    assert_eq!(deployment.wait_scheduling(unsent(&flow)).await, 1);

    // Another attempt, to the poll that lives.
    let poll = start_poll(&agent);
    deployment.offer(&client, &flow, 2).await;
    let claim = deployment.claim(&flow, 2).await;
    deployment.grant(&client, &claim, &at).await;
    assert_eq!(agent.read(poll.await.unwrap()).await[0].session_id, flow);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_behind_an_answer_leaves_it_unsure() {
    let deployment = Deployment::new().await;
    let running = deployment.start().await;
    let agent = TestAgent::enrolled(&deployment, &running).await;
    let (client, flow) = (agent.client(), agent.flow(1));
    let body = agent.seal(&[check_in(0)]);
    let mut stream = tokio::net::TcpStream::connect(running.http).await.unwrap();
    let head = format!(
        "POST /reader HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&body).await.unwrap();
    let at = deployment.compiled(&request("v")).await;
    deployment.offer(&client, &flow, 1).await;
    let claim = deployment.claim(&flow, 1).await;
    deployment.grant(&client, &claim, &at).await;
    eventually(async || (running.metrics.tasks_delivered.get() == 1).then_some(())).await;
    // Unread bytes make the system reset the connection instead of closing it.
    stream.readable().await.unwrap();
    drop(stream);
    let attempt = deployment
        .wait_scheduling(|record| match record {
            Scheduling::Unsure(unsure) if unsure.flow_id == flow => Some(unsure.attempt),
            _ => None,
        })
        .await;
    assert_eq!(attempt, 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_saw_nothing_of_an_answer_gets_it_at_any_frontend() {
    let deployment = Deployment::new().await;
    let (one, two) = (deployment.start().await, deployment.start().await);
    let agent = TestAgent::enrolled(&deployment, &one).await;
    let elsewhere = agent.at(&deployment, &two);
    let (client, flow) = (agent.client(), agent.flow(1));
    let at = deployment.compiled(&request("u")).await;
    let body = agent.seal(&[check_in(0)]);
    deployment.offer(&client, &flow, 1).await;
    let granting = async {
        let claim = deployment.claim(&flow, 1).await;
        deployment.grant(&client, &claim, &at).await;
        claim
    };
    let (answer, first) = tokio::join!(agent.post_body("reader", body.clone()), granting);
    assert_eq!(agent.read(answer).await[0].session_id, flow);
    // Each answer was swallowed: the agent repeats the bytes.
    for (to, frontend) in [(&agent, &one), (&elsewhere, &two)] {
        let polls = frontend.metrics.claims.get();
        let answer = to.post_body("reader", body.clone());
        let granting = async {
            eventually(async || (frontend.metrics.claims.get() > polls).then_some(())).await;
            let again = deployment.claims(&flow).await.pop().unwrap();
            assert_eq!((again.attempt, &again.packet_iv), (1, &first.packet_iv));
            assert_eq!(again.header.frontend, frontend.name);
            deployment.grant(&client, &again, &at).await;
        };
        let (answer, ()) = tokio::join!(answer, granting);
        assert_eq!(to.read(answer).await[0].session_id, flow);
    }
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_was_read_before_the_connection_closed_is_no_doubt() {
    let deployment = Deployment::new().await;
    let running = deployment.start().await;
    let agent = TestAgent::enrolled(&deployment, &running).await;
    let (client, flow) = (agent.client(), agent.flow(1));
    let body = agent.seal(&[check_in(0)]);
    let mut stream = tokio::net::TcpStream::connect(running.http).await.unwrap();
    let head = format!(
        "POST /reader HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&body).await.unwrap();
    let at = deployment.compiled(&request("v")).await;
    deployment.offer(&client, &flow, 1).await;
    let claim = deployment.claim(&flow, 1).await;
    deployment.grant(&client, &claim, &at).await;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 OK"));
    drop(stream);
    running.stop().await;
    assert!(
        !deployment
            .scheduling()
            .await
            .iter()
            .any(|record| { matches!(record, Scheduling::Unsure(_) | Scheduling::Unsent(_)) })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_can_not_be_read_is_not_delivered_and_the_rest_is() {
    let deployment = Deployment::new().await;
    let running = deployment.start().await;
    let agent = Arc::new(TestAgent::enrolled(&deployment, &running).await);
    let (client, good, bad) = (agent.client(), agent.flow(1), agent.flow(2));
    let at = deployment.compiled(&request("u")).await;
    let mut elsewhere = at.clone();
    elsewhere.hash = vec![9; 32].into();
    deployment.offer(&client, &good, 1).await;
    deployment.offer(&client, &bad, 1).await;
    let poll = start_poll(&agent);
    let (first, second) = (
        deployment.claim(&good, 1).await,
        deployment.claim(&bad, 1).await,
    );
    deployment.grant(&client, &first, &at).await;
    deployment.grant(&client, &second, &elsewhere).await;
    let messages = agent.read(poll.await.unwrap()).await;
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].session_id, good);
    assert_eq!(running.metrics.requests_missing.get(), 1);
    running.stop().await;
    let records = deployment.scheduling().await;
    assert_eq!(
        records.iter().find_map(unsent(&bad)),
        Some(1),
        "reported at the end at the latest"
    );
    assert_eq!(records.iter().find_map(unsent(&good)), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_in_and_a_claim_survive_a_short_outage_of_the_log() {
    let deployment = Deployment::new().await;
    let running = deployment
        .start_with(|config| config.max_poll = Duration::from_millis(500))
        .await;
    let agent = Arc::new(TestAgent::enrolled(&deployment, &running).await);
    let client = agent.client();
    deployment.log.take_appends("scheduling");
    agent.poll().await.bytes().await.unwrap();
    assert_eq!(deployment.check_ins(&client).await, 0);
    deployment.log.give_back();
    let poll = start_poll(&agent);
    eventually(async || (deployment.check_ins(&client).await == 1).then_some(())).await;
    poll.await.unwrap();

    let slow = deployment.start().await;
    let there = Arc::new(agent.at(&deployment, &slow));
    let poll = start_poll(&there);
    held(&slow, 1).await;
    deployment.log.take_appends("scheduling");
    let flow = agent.flow(1);
    deployment.offer(&client, &flow, 1).await;
    eventually(async || (slow.metrics.claims.get() == 1).then_some(())).await;
    deployment.log.give_back();
    deployment.claim(&flow, 1).await;
    poll.abort();
    running.stop().await;
    slow.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_tasks_were_missed_everybody_checks_in_again() {
    let deployment = Deployment::new().await;
    let running = deployment.start().await;
    let agent = Arc::new(TestAgent::enrolled(&deployment, &running).await);
    let client = agent.client();
    let poll = start_poll(&agent);
    eventually(async || (deployment.check_ins(&client).await == 1).then_some(())).await;
    let earliest = Position {
        generation: 1,
        offset: 0,
    };
    deployment
        .log
        .break_tail("tasks", LogError::OutOfRange { earliest });
    eventually(async || (deployment.check_ins(&client).await == 2).then_some(())).await;
    // An error that passes loses nothing and is no reason for it.
    deployment
        .log
        .break_tail("tasks", LogError::Unavailable("for a moment".into()));
    let flow = agent.flow(1);
    deployment.offer(&client, &flow, 1).await;
    deployment.claim(&flow, 1).await;
    assert_eq!(deployment.check_ins(&client).await, 2);
    poll.abort();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_frontend_ends_its_polls_in_order() {
    let deployment = Deployment::new().await;
    let running = deployment
        .start_with(|config| config.pad_every = Duration::from_millis(50))
        .await;
    let agent = Arc::new(TestAgent::enrolled(&deployment, &running).await);
    let other = Arc::new(TestAgent::over(&deployment, &running, Version::Tls2));
    other.enrol().await;
    let padded = agent.poll().await;
    let poll = start_poll(&other);
    held(&running, 2).await;
    let started = std::time::Instant::now();
    running.stop().await;
    assert!(
        started.elapsed() < Duration::from_secs(4),
        "nobody is waited for"
    );
    assert!(
        Envelope::parse(padded.bytes().await.unwrap())
            .unwrap()
            .is_pad()
    );
    assert_eq!(poll.await.unwrap().status(), StatusCode::OK);
}
