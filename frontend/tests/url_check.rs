//! The frontend's side of `nublar check-url`: who is answered, how much, and what stays of it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use nublar_core::url_check::{Facts, Held, Read, ToldBy, pass};
use nublar_ports::Log as _;
use reqwest::{Client, Method, Response, StatusCode};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use support::agent::{Version, base, client};
use support::{Deployment, NONCE, Running};

struct Asker {
    http: Client,
    base: String,
    pass: String,
}

impl Asker {
    fn new(deployment: &Deployment, running: &Running, version: Version, nonce: &str) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Self {
            http: client(deployment, version),
            base: base(running, version),
            pass: pass(nonce, now.as_secs() as i64),
        }
    }

    async fn ask(&self, method: Method, what: &str, body: Vec<u8>) -> Response {
        let url = format!("{}check-url/{what}", self.base);
        let request = self.http.request(method, url).bearer_auth(&self.pass);
        request.body(body).send().await.unwrap()
    }
}

const SLOW: Held = Held {
    silent_ms: 300,
    lines: 3,
    every_ms: 200,
};

#[tokio::test(flavor = "multi_thread")]
async fn who_knows_a_nonce_is_told_how_his_requests_come() {
    let deployment = Deployment::new().await;
    let running = deployment.start().await;
    for (version, is) in [
        (Version::Plain, "HTTP/1.1"),
        (Version::Tls1, "HTTP/1.1"),
        (Version::Tls2, "HTTP/2.0"),
    ] {
        let asker = Asker::new(&deployment, &running, version, NONCE);
        let facts: Facts = asker
            .ask(Method::GET, "facts", vec![])
            .await
            .json()
            .await
            .unwrap();
        assert_eq!(
            (facts.version.as_str(), facts.address.as_str()),
            (is, "127.0.0.1")
        );
        assert_eq!(
            (facts.told_by, facts.body_limit),
            (ToldBy::Connection, 11 << 20)
        );

        let begun = Instant::now();
        let what = format!("answer?{}", SLOW.query());
        let mut answer = asker.ask(Method::POST, &what, vec![]).await;
        assert!(
            begun.elapsed() >= Duration::from_millis(300),
            "no head before the first line"
        );
        let mut lines = Vec::new();
        while let Some(line) = answer.chunk().await.unwrap() {
            lines.extend_from_slice(&line);
        }
        assert_eq!(lines, b"pad\npad\npad\n");
        assert!(begun.elapsed() >= Duration::from_millis(700));

        let body = vec![7; 3 << 20];
        let read: Read = asker
            .ask(Method::POST, "body", body)
            .await
            .json()
            .await
            .unwrap();
        assert_eq!(read.bytes, 3 << 20);
    }
    assert_eq!(running.metrics.url_checks.get(), 9);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_is_answered_few_at_once_and_nothing_is_stored() {
    let deployment = Deployment::new().await;
    let running = deployment.start().await;
    let records = deployment.log.inner().end("scheduling", 0).await.unwrap();
    let stranger = Asker::new(&deployment, &running, Version::Plain, "a guess");
    let mut asker = Asker::new(&deployment, &running, Version::Plain, NONCE);
    for (method, what) in [
        (Method::GET, "facts"),
        (Method::POST, "answer"),
        (Method::POST, "body"),
        (Method::GET, "socket"),
        (Method::GET, ""),
    ] {
        let answer = stranger.ask(method, what, vec![]).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{what}");
    }
    for (method, what) in [
        (Method::POST, "facts"),
        (Method::GET, "answer"),
        (Method::GET, "socket"),
        (Method::GET, "else"),
    ] {
        let answer = asker.ask(method, what, vec![]).await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{what}");
    }

    // Eight that are held; a ninth is not, and others are served as ever.
    let slow = Held {
        silent_ms: 2_000,
        ..SLOW
    };
    let what = format!("answer?{}", slow.query());
    let held = (0..8).map(|_| asker.ask(Method::POST, &what, vec![]));
    let (held, ()) = tokio::join!(futures::future::join_all(held), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let answer = asker.ask(Method::GET, "facts", vec![]).await;
        assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
        let health = asker.http.get(format!("{}healthz", asker.base)).send();
        assert_eq!(health.await.unwrap().status(), StatusCode::OK);
    });
    for answer in held {
        assert_eq!(answer.status(), StatusCode::OK);
        answer.bytes().await.unwrap();
    }
    support::eventually(async || {
        let answer = asker.ask(Method::GET, "facts", vec![]).await;
        (answer.status() == StatusCode::OK).then_some(())
    })
    .await;

    // An old pass.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    asker.pass = pass(NONCE, now.as_secs() as i64 - 3_600);
    let answer = asker.ask(Method::GET, "facts", vec![]).await;
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    let now = deployment.log.inner().end("scheduling", 0).await.unwrap();
    assert_eq!(now, records);
    assert!(deployment.dead_letters().await.is_empty());
    running.stop().await;
}
