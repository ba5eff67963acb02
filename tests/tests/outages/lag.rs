//! Workers that are away until what they have not read is half as old as it may become: agents
//! are held back, and nothing is dropped.

use crate::cluster::Cluster;
use crate::load::rows;
use nublar_ports::Log;
use nublar_schemas::topics::RESULTS;
use nublar_tests::{Role, Server, Services, is_long, within};
use std::time::Duration;

/// Seconds that records are kept, as frontends are told.
const fn retention_s(long: bool) -> u64 {
    if long { 120 } else { 16 }
}

async fn end(log: &dyn Log) -> u64 {
    let mut end = 0;
    for partition in 0..log.partitions(RESULTS.name).await.unwrap() {
        end += log.end(RESULTS.name, partition).await.unwrap().offset;
    }
    end
}

async fn oldest(log: &dyn Log) -> Duration {
    let lags = log.lag("results", RESULTS.name).await.unwrap();
    let ages = lags.iter().filter_map(|lag| lag.oldest_unmarked);
    ages.max().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_are_held_back_before_what_is_unread_could_be_deleted() {
    let Some(services) = Services::from_env() else {
        return;
    };
    let retention = Duration::from_secs(retention_s(is_long("workers that are away")));
    let config = format!(
        "[frontend]\nmax_poll_s = 5\nhold_s = 1\nlag_every_s = 0.25\nretention_s = {}\n\n\
         [workers]\nreport_ms = 200\n",
        retention.as_secs()
    );
    let mut cluster = Cluster::start(&services, &[], &config).await;
    let load = cluster.load(8).await;
    load.enrolled().await;
    let log = cluster.storage.log.clone();
    let before = load.refusals();
    load.during(&[rows(100)], 0, async {
        load.more_ended(16).await;
        assert_eq!(load.refusals(), before, "held back with no need");
        cluster.worker.stop().await;
        let patience = retention + Duration::from_secs(30);
        within(
            patience,
            "half of the retention is gone",
            async || match oldest(log.as_ref()).await {
                age if age > retention / 2 + Duration::from_secs(2) => Ok(()),
                age => Err(age),
            },
        )
        .await;
        let (held, at) = (load.refusals(), end(log.as_ref()).await);
        // Agents try and are refused, each of them, and not one record comes of it.
        within(patience, "agents are held back", async || {
            match load.refusals().failed - held.failed {
                24.. => Ok(()),
                few => Err(few),
            }
        })
        .await;
        assert_eq!(
            end(log.as_ref()).await,
            at,
            "records came although workers are behind"
        );
        let now = load.refusals();
        assert_eq!((now.unknown, now.refused), (before.unknown, before.refused));
        let [first, _] = &cluster.frontends;
        assert!(
            first.printed().contains("workers are behind"),
            "it does not say why"
        );
        cluster.worker = Server::start_role(&cluster.installation, Role::Worker, "worker-2").await;
        load.more_ended(16).await;
    })
    .await;
    let audit = load.assert_kept().await;
    assert_eq!(audit.finished, audit.flows, "{:?}", audit.reasons);
    eprintln!(
        "{} flows, {} rows, {:?}",
        audit.flows,
        audit.rows,
        load.refusals()
    );
    load.stop().await;
    cluster.stop().await;
}
