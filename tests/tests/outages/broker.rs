//! The log itself is gone for a while: first it does not answer, then it is killed.

use crate::cluster::Cluster;
use crate::load::rows;
use nublar_tests::{Services, is_long};
use std::time::Duration;
use tokio::time::Instant;

/// A POST that cannot be stored is held for so long, in seconds, and then answered with 503.
const CONFIG: &str = "
[frontend]
max_poll_s = 5
hold_s = 2

[workers]
report_ms = 200
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_log_is_gone_agents_keep_what_they_have_and_nobody_is_a_stranger() {
    let Some(services) = Services::from_env() else {
        return;
    };
    let length = match is_long("an outage of the log") {
        true => Duration::from_secs(60),
        false => Duration::from_secs(12),
    };
    let services = services.with_own(&["kafka"]).await;
    let mut cluster = Cluster::start(&services, &[], CONFIG).await;
    let load = cluster.load(10).await;
    load.enrolled().await;
    let before = load.refusals();
    let mut strangers = Vec::new();
    load.during(&[rows(100)], 0, async {
        for (away, back) in [("pause", "resume"), ("kill", "start")] {
            load.more_ended(20).await;
            services.order(away, "kafka").await;
            let over = Instant::now() + length;
            let (ended, new) = (load.ended().len(), cluster.load(3).await);
            tokio::time::sleep_until(over).await;
            let (during, of_new) = (load.refusals(), new.refusals());
            assert_eq!(during.unknown, before.unknown, "a known agent had a 406");
            assert_eq!(during.refused, before.refused, "a known agent was refused");
            assert_eq!(of_new.unknown, 0, "a 406 without the registry");
            assert!(of_new.failed > 0, "the new agents did not ask");
            services.order(back, "kafka").await;
            let returned = Instant::now();
            load.more_ended(1).await;
            let first = returned.elapsed();
            new.enrolled().await;
            load.more_ended(20).await;
            let (all, passed) = (load.ended().len() - ended, returned.elapsed());
            eprintln!("{away}: {during:?}; the first flow after {first:?}, {all} after {passed:?}");
            strangers.push(new);
        }
    })
    .await;
    let audit = load.assert_kept().await;
    assert_eq!(audit.finished, audit.flows, "{:?}", audit.reasons);
    assert_eq!(
        load.refusals().unknown,
        before.unknown,
        "406 after the outage"
    );
    eprintln!(
        "{} flows, {} rows, {:?}",
        audit.flows,
        audit.rows,
        load.refusals()
    );
    load.stop().await;
    for new in strangers {
        new.stop().await;
    }
    let address = services.get("KAFKA").to_owned();
    for (name, process) in cluster.processes().into_iter().take(3) {
        let printed = process.printed();
        let warned = |line: &&str| line.contains("WARN") && line.contains(&address);
        assert!(
            printed.lines().any(|line| warned(&line)),
            "the {name} does not name {address}"
        );
    }
    cluster.stop().await;
}
