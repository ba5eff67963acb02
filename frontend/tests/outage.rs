//! When the log is away, slow or full of unread records: nobody loses what was answered 200, and
//! nobody is sent away who is registered.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use bytes::Bytes;
use nublar_frontend::Config;
use nublar_schemas::records::Scheduling;
use reqwest::StatusCode;
use std::time::Duration;
use support::agent::{TestAgent, Version, client, rows, stats};
use support::{Deployment, Running, eventually};

/// POSTs that wait for what does not come are soon answered.
fn impatient(config: &mut Config) {
    config.hold = Duration::from_millis(1_500);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_registry_nobody_gets_a_406_and_known_agents_go_on() {
    let deployment = Deployment::new().await;
    let running = deployment.start_with(impatient).await;
    let known = TestAgent::enrolled(&deployment, &running).await;
    let seen = TestAgent::enrolled(&deployment, &running).await;
    eventually(async || (running.metrics.registered.get() == 2).then_some(())).await;
    seen.control(&[rows("F.Monitoring", "R", "{}")]).await;

    deployment.log.take_reads("registry");
    // From memory: with a session that is kept, and with a new one.
    seen.control(&[rows("F.Monitoring", "R", "{}")]).await;
    known.control(&[rows("F.Monitoring", "R", "{}")]).await;
    let stranger = TestAgent::new(&deployment, &running);
    for message in [rows("F.Monitoring", "R", "{}"), stranger.csr()] {
        let answer = stranger.post("control", &[message]).await;
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
    let odd = TestAgent {
        nonce: "wrong".into(),
        ..known.at(&deployment, &running)
    };
    assert_eq!(odd.poll().await.status(), StatusCode::SERVICE_UNAVAILABLE);
    // A foreign flow id is not refused before it is sure that it is one.
    let foreign = rows(&stranger.flow(1), "R", "{}");
    let answer = known.post("control", &[foreign]).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(deployment.dead_letters().await.is_empty());
    assert_eq!(running.metrics.refused_registry.get(), 4);
    assert_eq!(running.metrics.refused_unknown.get(), 0);

    deployment.log.give_back();
    assert_eq!(stranger.poll().await.status(), StatusCode::NOT_ACCEPTABLE);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_outage_of_the_registry_is_waited_out() {
    let deployment = Deployment::new().await;
    let running = deployment.start().await;
    let other = deployment.start().await;
    deployment.log.take_reads("registry");
    let agent = TestAgent::new(&deployment, &running);
    let csr = [agent.csr()];
    let (answer, ()) = tokio::join!(agent.post("control", &csr), async {
        eventually(async || (running.metrics.position_reads.get() > 2).then_some(())).await;
        deployment.log.give_back();
    });
    assert_eq!(answer.status(), StatusCode::NOT_ACCEPTABLE);
    assert_eq!(deployment.registry().await.len(), 1);
    running.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_share_reads_of_the_registrys_end() {
    let deployment = Deployment::new().await;
    let running = deployment.start().await;
    let agents: Vec<_> = (0..4)
        .map(|_| TestAgent::new(&deployment, &running))
        .collect();
    let before = running.metrics.position_reads.get();
    let posts = (0..60).map(|n| agents[n % 4].poll());
    let started = std::time::Instant::now();
    for answer in futures::future::join_all(posts).await {
        assert_eq!(answer.status(), StatusCode::NOT_ACCEPTABLE);
    }
    let windows = started.elapsed().as_millis() as i64 / 50 + 2;
    let reads = running.metrics.position_reads.get() - before;
    assert!(reads <= windows * 4, "{reads} reads in {windows} windows");
    running.stop().await;
}

async fn statistics(deployment: &Deployment) -> Vec<Bytes> {
    let of = |record| match record {
        Scheduling::FlowStatsSeen(seen) => seen.stats,
        _ => Vec::new(),
    };
    let told = deployment.scheduling().await.into_iter().flat_map(of);
    told.map(|seen| seen.bytes).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_is_answered_200_only_when_everything_is_in_the_log() {
    let deployment = Deployment::new().await;
    let running = deployment.start_with(impatient).await;
    let agent = TestAgent::enrolled(&deployment, &running).await;
    let flow = agent.flow(1);
    let sent = [
        rows(&flow, "R", "{}"),
        stats(&flow, true, 0, false),
        rows("F.Monitoring", "R", ""),
    ];
    for topic in ["results", "uploads", "events", "scheduling"] {
        deployment.log.take_appends(topic);
        let answer = agent.post("control", &sent).await;
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{topic}");
        let told = statistics(&deployment).await;
        assert!(
            told.iter().all(|stats| stats.is_empty()),
            "the foreman hears of it only when all else is durable: until then that it lives"
        );
        deployment.log.give_back();
    }
    deployment.log.take_appends("dead-letters");
    let forged = rows(&TestAgent::new(&deployment, &running).flow(1), "R", "{}");
    let answer = agent.post("control", &[forged]).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    deployment.log.take_appends("registry");
    let stranger = TestAgent::new(&deployment, &running);
    let answer = stranger.post("control", &[stranger.csr()]).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(running.metrics.refused_log.get(), 6);
    deployment.log.give_back();
    agent.control(&sent).await;
    let told = statistics(&deployment).await;
    let ends = told.iter().filter(|stats| !stats.is_empty()).count();
    assert_eq!(ends, 1, "the end was not forgotten");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn posts_are_held_while_workers_are_half_a_retention_behind() {
    let deployment = Deployment::new().await;
    let running = deployment
        .start_with(|config| {
            config.retention = Some(Duration::from_millis(200));
            config.lag_every = Duration::from_millis(20);
            config.hold = Duration::from_millis(300);
        })
        .await;
    let agent = TestAgent::enrolled(&deployment, &running).await;
    let event = [rows("F.Monitoring", "R", "{}")];
    agent.control(&event).await;
    eventually(async || (running.metrics.pressure.get() == 1).then_some(())).await;
    let answer = agent.post("control", &event).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    let url = format!("{}control", agent.base);
    let urgent = agent
        .http
        .post(url)
        .header("X-Priority", "urgent")
        .body(agent.seal(&event));
    assert_eq!(
        urgent.send().await.unwrap().status(),
        StatusCode::OK,
        "answers go on"
    );

    // The workers catch up.
    use nublar_ports::Log;
    use nublar_ports::log::{GroupEvent, Position};
    let mut group = deployment.log.group("events", "events").await.unwrap();
    let mut epochs = [0; support::PARTITIONS as usize];
    let mut read = 0;
    while read < 2 {
        match group.next().await.unwrap() {
            GroupEvent::Assigned {
                partition, epoch, ..
            } => epochs[partition as usize] = epoch,
            GroupEvent::Record(record) => {
                let next = Position {
                    offset: record.position.offset + 1,
                    ..record.position
                };
                group
                    .mark(record.partition, epochs[record.partition as usize], next)
                    .unwrap();
                read += 1;
            }
            GroupEvent::Revoked { .. } => panic!("nobody else reads"),
        }
    }
    group.flush().await.unwrap();
    eventually(async || (running.metrics.pressure.get() == 0).then_some(())).await;
    agent.control(&event).await;
    running.stop().await;
}

/// Status and words of `healthz`, or of something below it.
async fn healthz(deployment: &Deployment, running: &Running, below: &str) -> (u16, String) {
    let http = client(deployment, Version::Plain);
    let url = format!("http://{}/healthz{below}", running.http);
    let answer = http.get(url).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_ready_when_the_registry_was_read_and_says_what_it_waits_for() {
    let deployment = Deployment::new().await;
    deployment.log.take_reads("registry");
    let running = deployment.start_unready(|_| {}).await;
    let (status, words) = healthz(&deployment, &running, "").await;
    let expected = "not ready\nthe registry of clients is not read yet\n";
    assert_eq!((status, words.as_str()), (503, expected));
    let (status, _) = healthz(&deployment, &running, "/live").await;
    assert_eq!(status, 200, "it lives all the same");
    assert!(!*running.ready.borrow());
    deployment.log.give_back();
    running
        .ready
        .clone()
        .wait_for(|ready| *ready)
        .await
        .unwrap();
    let (status, words) = healthz(&deployment, &running, "").await;
    assert_eq!((status, words.as_str()), (200, "ok\n"));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_turns_red_while_the_log_fails_and_says_why() {
    let deployment = Deployment::new().await;
    let running = deployment.start_with(impatient).await;
    let agent = TestAgent::enrolled(&deployment, &running).await;
    let event = [rows("F.Monitoring", "R", "{}")];
    agent.control(&event).await;
    deployment.log.take_appends("events");
    let words = eventually(async || {
        let answer = agent.post("control", &event).await;
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        let (status, words) = healthz(&deployment, &running, "").await;
        (status == 503).then_some(words)
    })
    .await;
    assert!(
        words.starts_with("not ready\nthe log fails since "),
        "{words}"
    );
    assert!(words.contains("a test said so"), "{words}");
    deployment.log.give_back();
    agent.control(&event).await;
    assert_eq!(healthz(&deployment, &running, "").await.0, 200);
    running.stop().await;
}
