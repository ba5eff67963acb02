//! An agent that sends more than it may waits, and nobody waits with it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use reqwest::StatusCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::agent::{TestAgent, buffer, check_in, noise, rows};
use support::socket::Socket;
use support::{Deployment, Running, eventually};

const KIB: usize = 1 << 10;

/// A frontend where an agent may send 512 KiB a second, and 256 KiB at once.
async fn start(deployment: &Deployment, hold: Duration) -> Running {
    deployment
        .start_with(|config| {
            config.agent_bytes_per_s = 512 * KIB;
            config.agent_burst = 256 * KIB;
            config.hold = hold;
            config.max_poll = Duration::from_millis(50);
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_held_and_counted_and_delays_nobody_else() {
    let deployment = Deployment::new().await;
    let running = start(&deployment, Duration::from_secs(30)).await;
    let flooder = TestAgent::enrolled(&deployment, &running).await;
    let quiet = TestAgent::enrolled(&deployment, &running).await;
    let bodies: Vec<_> = (0..8)
        .map(|n| flooder.seal(&[buffer(&flooder.flow(1), noise(n, 256 * KIB))]))
        .collect();
    let done = AtomicBool::new(false);
    let flood = async {
        let begin = Instant::now();
        for body in bodies {
            let answer = flooder.post_body("control", body).await;
            assert_eq!(answer.status(), StatusCode::OK, "held, not refused");
        }
        done.store(true, Ordering::Relaxed);
        begin.elapsed()
    };
    let others = async {
        let (mut posts, mut slowest) = (0, Duration::ZERO);
        while !done.load(Ordering::Relaxed) {
            let begin = Instant::now();
            quiet.control(&[rows("F.Monitoring", "A", "{}")]).await;
            let answer = quiet.post("reader", &[check_in(0)]).await;
            assert_eq!(answer.status(), StatusCode::OK);
            slowest = slowest.max(begin.elapsed());
            posts += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        (posts, slowest)
    };
    let (flood, (posts, slowest)) = tokio::join!(flood, others);
    // Eight bodies of 256 KiB, the first of them at once: 1,792 KiB at 512 KiB a second.
    assert!(flood >= Duration::from_millis(3_400), "{flood:?}");
    assert!(posts > 10, "{posts}");
    assert!(slowest < Duration::from_secs(2), "{slowest:?} of {flood:?}");
    let metrics = &running.metrics;
    assert_eq!(
        metrics.flood_held.get(),
        8,
        "the envelope is more than the burst"
    );
    assert!(metrics.flood_held_ms.get() >= 1_000);
    assert_eq!(metrics.refused_flood.get() + metrics.refused_busy.get(), 0);
    assert_eq!(deployment.messages("uploads").await.len(), 8);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_side_by_side_is_refused_beyond_what_can_be_held() {
    let deployment = Deployment::new().await;
    let running = start(&deployment, Duration::from_secs(2)).await;
    let flooder = TestAgent::enrolled(&deployment, &running).await;
    let posts = (0..20).map(|n| {
        let body = flooder.seal(&[buffer(&flooder.flow(1), noise(n, 256 * KIB))]);
        flooder.post_body("control", body)
    });
    let answers = futures::future::join_all(posts).await;
    let count = |status| {
        let of = answers.iter().filter(|answer| answer.status() == status);
        of.count()
    };
    let refused = count(StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused >= 10, "{refused}");
    assert_eq!(count(StatusCode::OK), 20 - refused);
    assert_eq!(running.metrics.refused_flood.get(), refused as i64);
    assert_eq!(deployment.messages("uploads").await.len(), 20 - refused);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_over_a_websocket_is_held_and_urgent_posts_are_not() {
    let deployment = Deployment::new().await;
    let running = start(&deployment, Duration::from_secs(30)).await;
    let flooder = TestAgent::enrolled(&deployment, &running).await;
    let mut socket = Socket::open(&running, "control").await;
    let begin = Instant::now();
    for n in 0..3 {
        let body = flooder.seal(&[buffer(&flooder.flow(1), noise(n, 256 * KIB))]);
        socket.send(&body).await;
        assert_eq!(socket.answer().await.code, 200);
    }
    assert!(begin.elapsed() >= Duration::from_millis(1_000));
    assert_eq!(running.metrics.flood_held.get(), 3);

    // In debt, which a bulk POST would wait for.
    let body = flooder.seal(&[buffer(&flooder.flow(1), noise(9, 256 * KIB))]);
    socket.send(&body).await;
    eventually(async || (running.metrics.flood_held.get() == 4).then_some(())).await;
    let urgent = flooder.seal(&[rows("F.Monitoring", "A", "{}")]);
    let request = flooder.http.post(format!("{}control", flooder.base));
    let answer = request.header("X-Priority", "urgent").body(urgent).send();
    assert_eq!(answer.await.unwrap().status(), StatusCode::OK);
    assert_eq!(running.metrics.flood_held.get(), 4);
    drop(socket);
    running.stop().await;
}
