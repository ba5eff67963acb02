//! Agents over WebSockets get what they would get over HTTP, and no less safely.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use nublar_schemas::agent::VeloMessage;
use nublar_schemas::records::Scheduling;
use nublar_wire::{Answer, Frame, Message};
use std::time::Duration;
use support::agent::{LIMIT, TestAgent, check_in, noise, rows};
use support::foreman::{held, request};
use support::socket::{Heard, Socket, WRITER};
use support::{Deployment, eventually};

fn read(agent: &TestAgent, frame: Frame) -> Vec<VeloMessage> {
    assert_eq!(frame.code, 200, "{}", frame.error);
    let answer: Answer = agent.session.open(frame.data).unwrap();
    let decode = |message: Message| message.decode().unwrap();
    let messages = answer.messages(LIMIT).unwrap();
    messages.into_iter().map(decode).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_let_in_and_given_work_over_sockets_alone() {
    let deployment = Deployment::new().await;
    let running = deployment.start().await;
    let agent = TestAgent::new(&deployment, &running);
    for (path, messages) in [("reader", [check_in(0)]), ("control", [agent.csr()])] {
        let mut socket = Socket::open(&running, path).await;
        socket.send(&agent.seal(&messages)).await;
        let refused = socket.answer().await;
        assert_eq!(refused, Frame::error(406, "please enrol"), "{path}");
        assert_eq!(socket.hear().await, Heard::End);
    }

    let mut reader = Socket::open(&running, "reader").await;
    reader.send(&agent.seal(&[check_in(0)])).await;
    held(&running, 1).await;
    assert_eq!(running.metrics.sockets.get(), 1);
    let (client, flow) = (agent.client(), agent.flow(1));
    let at = deployment.compiled(&request("somebody")).await;
    deployment.offer(&client, &flow, 1).await;
    let claim = deployment.claim(&flow, 1).await;
    deployment.grant(&client, &claim, &at).await;
    let given = read(&agent, reader.answer().await);
    assert_eq!(given[0].session_id, flow);
    assert_eq!(given[0].flow_request.as_ref(), Some(&request("somebody")));

    // One answer for one check-in: what is due meanwhile waits for the next one.
    deployment.cancel(&client, &flow).await;
    let mut control = Socket::open(&running, "control").await;
    for n in 0..3 {
        let row = rows(&flow, "R", &format!("{{\"n\":{n}}}\n"));
        control.send(&agent.seal(&[row])).await;
        assert_eq!(control.answer().await, Frame::ok());
        let stored: usize = deployment
            .messages("results")
            .await
            .iter()
            .map(|record| record.messages.len())
            .sum();
        assert_eq!(stored, n + 1, "it is durable when it is answered");
    }
    reader.send(&agent.seal(&[check_in(0)])).await;
    let given = read(&agent, reader.answer().await);
    assert!(given[0].cancel.is_some(), "{given:?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_message_comes_in_parts_and_pings_go_between() {
    let deployment = Deployment::new().await;
    let running = deployment.start().await;
    let agent = TestAgent::enrolled(&deployment, &running).await;
    let mut control = Socket::open(&running, "send_messages").await;
    let large = support::agent::buffer(&agent.flow(1), noise(3, 1 << 20));
    let frames = WRITER().message_in_parts(&agent.seal(&[large]), 4096);
    // A ping between two parts of a message.
    let (first, rest) = frames.split_at(4096 + 8);
    control.write(first).await;
    control.write(&WRITER().ping()).await;
    assert_eq!(control.hear().await, Heard::Pong);
    control.write(rest).await;
    assert_eq!(control.answer().await, Frame::ok());
    assert_eq!(deployment.messages("uploads").await.len(), 1);
    eventually(async || (running.metrics.admitted_bytes.get() == 0).then_some(())).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_said_and_ends_the_socket_unless_it_is_one_body() {
    let deployment = Deployment::new().await;
    let running = deployment
        .start_with(|config| config.hold = Duration::from_millis(200))
        .await;
    let agent = TestAgent::enrolled(&deployment, &running).await;
    let row = || rows("F.Monitoring", "R", "{}");

    let mut socket = Socket::open(&running, "control").await;
    socket.send(b"what is this").await;
    assert_eq!(socket.answer().await.code, 403);
    assert_eq!(socket.hear().await, Heard::End);

    let mut socket = Socket::open(&running, "control").await;
    socket.send(&agent.seal(&[row()])).await;
    assert_eq!(socket.answer().await, Frame::ok());
    let poison = agent.session.seal(&nublar_wire::Plaintext::new(
        &[bytes::Bytes::from_static(b"no zlib")],
        nublar_wire::Compression::Zlib,
        &agent.nonce,
        7,
    ));
    // Authentic and broken: recorded, answered, and the socket lives.
    socket.send(&poison.unwrap()).await;
    assert_eq!(socket.answer().await, Frame::ok());
    assert_eq!(deployment.dead_letters().await.len(), 1);
    socket.send(&agent.seal(&[row()])).await;
    assert_eq!(socket.answer().await, Frame::ok());

    deployment.log.take_appends("events");
    socket.send(&agent.seal(&[row()])).await;
    assert_eq!(socket.answer().await.code, 503);
    assert_eq!(socket.hear().await, Heard::End);
    deployment.log.give_back();

    // A frame that is not masked, one of an extension, one that never ends.
    for bytes in [
        &[0x82, 1, 0][..],
        &[0xc2, 0x81, 0, 0, 0, 0, 1],
        &[
            0x82, 0xff, 0x7f, 255, 255, 255, 255, 255, 255, 255, 1, 2, 3, 4,
        ],
    ] {
        let mut socket = Socket::open(&running, "control").await;
        socket.write(bytes).await;
        assert_eq!(socket.hear().await, Heard::End, "{bytes:?}");
    }
    eventually(async || (running.metrics.sockets.get() == 0).then_some(())).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_on_a_socket_that_breaks_is_unsure() {
    let deployment = Deployment::new().await;
    let running = deployment.start().await;
    let agent = TestAgent::enrolled(&deployment, &running).await;
    let (client, flow) = (agent.client(), agent.flow(1));
    let mut reader = Socket::open(&running, "reader").await;
    reader.send(&agent.seal(&[check_in(0)])).await;
    let at = deployment.compiled(&request("v")).await;
    deployment.offer(&client, &flow, 1).await;
    let claim = deployment.claim(&flow, 1).await;
    deployment.grant(&client, &claim, &at).await;
    eventually(async || (running.metrics.tasks_delivered.get() == 1).then_some(())).await;
    drop(reader);
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
async fn the_newest_poll_wins_and_the_older_socket_ends() {
    let deployment = Deployment::new().await;
    let running = deployment.start().await;
    let agent = TestAgent::enrolled(&deployment, &running).await;
    let mut first = Socket::open(&running, "reader").await;
    first.send(&agent.seal(&[check_in(0)])).await;
    held(&running, 1).await;
    let mut second = Socket::open(&running, "reader").await;
    second.send(&agent.seal(&[check_in(0)])).await;
    assert_eq!(first.hear().await, Heard::End);
    let (client, flow) = (agent.client(), agent.flow(1));
    let at = deployment.compiled(&request("w")).await;
    deployment.offer(&client, &flow, 1).await;
    let claim = deployment.claim(&flow, 1).await;
    deployment.grant(&client, &claim, &at).await;
    assert_eq!(read(&agent, second.answer().await).len(), 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_pings_and_gives_up_who_is_silent() {
    let deployment = Deployment::new().await;
    let running = deployment
        .start_with(|config| config.ping_every = Duration::from_millis(300))
        .await;
    let agent = TestAgent::enrolled(&deployment, &running).await;
    let mut lively = Socket::open(&running, "reader").await;
    lively.send(&agent.seal(&[check_in(0)])).await;
    let mut silent = Socket::open(&running, "control").await;
    // For longer than a silent one is kept.
    for _ in 0..4 {
        assert_eq!(lively.hear().await, Heard::Ping);
        lively.write(&WRITER().pong(&[])).await;
    }
    assert_eq!(silent.hear().await, Heard::Ping);
    assert_eq!(silent.hear().await, Heard::End);
    assert_eq!(running.metrics.sockets.get(), 1);
    running.stop().await;
    assert_eq!(lively.hear().await, Heard::End);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_is_none_is_refused() {
    let deployment = Deployment::new().await;
    let running = deployment.start().await;
    let http = reqwest::Client::new();
    for (path, version, expected) in [
        ("reader", Some("8"), 400),
        ("control", None, 400),
        ("server.pem", Some("13"), 200),
        ("elsewhere", Some("13"), 404),
    ] {
        let mut get = http
            .get(format!("http://{}/{path}", running.http))
            .header("connection", "upgrade")
            .header("upgrade", "WebSocket");
        if let Some(version) = version {
            get = get.header("sec-websocket-version", version);
        }
        let answer = get.send().await.unwrap();
        assert_eq!(answer.status(), expected, "{path}");
    }
    running.stop().await;
}
