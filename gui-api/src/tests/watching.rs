//! A flow is watched; and the role as a whole, over a socket.

use super::reading::{FLOW, flow_body};
use super::stage::{CLIENT, Stage, TOKEN, declare, keys};
use crate::tails::Kind;
use crate::{Config, Gui};
use axum::body::Body;
use axum::http::Method;
use futures::StreamExt;
use nublar_ports::index::memory::MemoryIndex;
use nublar_ports::log::MemoryLog;
use nublar_ports::objects::memory::MemoryObjects;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn a_flow_is_told_of_at_once_and_until_it_ends() {
    let stage = Stage::new().await;
    let id = format!("{CLIENT}/{FLOW}");
    stage
        .project(Kind::Flow, &id, 1, "", &flow_body("RUNNING", 0))
        .await;
    let path = format!("/clients/{CLIENT}/flows/{FLOW}/watch");
    let response = stage
        .answer(Stage::request(Method::GET, &path, Body::empty()))
        .await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut events = response.into_body().into_data_stream();
    let mut event = async || {
        let next = tokio::time::timeout(Duration::from_secs(60), events.next())
            .await
            .unwrap();
        next.map(|bytes| String::from_utf8(bytes.unwrap().to_vec()).unwrap())
    };
    let first = event().await.unwrap();
    assert!(
        first.contains("event: flow\n") && first.contains("id: 1\n") && first.contains("RUNNING"),
        "{first}"
    );
    stage
        .tell(
            Kind::Flow,
            &format!("{CLIENT}/F.OTHER"),
            3,
            &flow_body("ERROR", 0),
        )
        .await;
    stage
        .tell(Kind::Flow, &id, 4, &flow_body("IN_PROGRESS", 3))
        .await;
    let second = event().await.unwrap();
    assert!(
        second.contains("id: 4\n") && second.contains("IN_PROGRESS"),
        "{second}"
    );
    stage
        .tell(Kind::Flow, &id, 2, &flow_body("WAITING", 3))
        .await;
    stage
        .tell(Kind::Flow, &id, 9, &flow_body("FINISHED", 3))
        .await;
    let last = event().await.unwrap();
    assert!(
        last.contains("event: end\n") && last.contains("id: 9\n"),
        "{last}"
    );
    assert_eq!(event().await, None);
    stage.end().await;
}

#[tokio::test]
async fn the_role_serves_a_socket_and_ends_when_told() {
    let log = Arc::new(MemoryLog::new());
    declare(&log).await;
    let config = Config::new(([127, 0, 0, 1], 0).into(), TOKEN);
    assert!(!format!("{config:?}").contains(TOKEN));
    let bind = |config| {
        Gui::bind(
            config,
            log.clone(),
            Arc::new(MemoryIndex::new()),
            Arc::new(MemoryObjects::new()),
            keys(),
        )
    };
    let error = bind(Config::new(([127, 0, 0, 1], 0).into(), " "))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("token"));
    let gui = bind(config.clone()).await.unwrap();
    let taken = bind(Config {
        listen: gui.address(),
        ..config
    })
    .await
    .unwrap_err();
    assert!(taken.to_string().contains("another server"), "{taken}");

    let (address, shutdown) = (gui.address(), CancellationToken::new());
    let serving = tokio::spawn(gui.serve(shutdown.clone()));
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET /api/v1/clients HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\nconnection: close\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n")
            && answer.contains("{\"clients\":[],\"next\":null}"),
        "{answer}"
    );
    shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(60), serving)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}
