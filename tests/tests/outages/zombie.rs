//! A foreman that stands still for so long that another takes over, and then goes on as if nothing
//! had been.

use crate::cluster::{Cluster, PARTITIONS};
use crate::decisions::{assert_decided_once, assert_index_is_state, mac_keys};
use crate::load::rows;
use nublar_core::fold::FoldConfig;
use nublar_tests::{Role, Server, Services, eventually, is_long};
use std::time::{Duration, Instant};

/// How often a foreman has taken a partition over.
fn taken(foreman: &Server) -> usize {
    foreman.printed().matches("took the partition over").count()
}

async fn takes(foreman: &Server, partitions: usize, what: &str) {
    eventually(what, async || match taken(foreman) {
        taken if taken >= partitions => Ok(()),
        taken => Err(format!("{taken} of {partitions}")),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreman_that_wakes_after_another_took_over_only_repeats() {
    let Some(services) = Services::from_env() else {
        return;
    };
    let (rounds, stopped) = match is_long("a stopped foreman") {
        true => (4, Duration::from_secs(30)),
        // No longer than it takes until the other has everything and has worked.
        false => (1, Duration::ZERO),
    };
    let mut cluster = Cluster::start(&services, &[], "").await;
    takes(&cluster.foreman, PARTITIONS, "the first foreman has all").await;
    let other = Server::start_role(&cluster.installation, Role::Foreman, "other").await;
    takes(&other, 1, "the other foreman is given its share").await;
    let load = cluster.load(12).await;
    load.enrolled().await;
    let foremen = [&cluster.foreman, &other];
    load.during(&[rows(50)], 0, async {
        load.more_ended(24).await;
        for round in 0..rounds {
            let (zombie, heir) = (foremen[round % 2], foremen[(round + 1) % 2]);
            let (had, has) = (taken(zombie), taken(heir));
            zombie.signal("STOP");
            let since = Instant::now();
            takes(heir, has + 1, "the other takes over").await;
            // Wherever their clients are, and so in the partitions that moved too.
            load.more_ended(48).await;
            tokio::time::sleep(stopped.saturating_sub(since.elapsed())).await;
            zombie.signal("CONT");
            takes(zombie, had + 1, "it is given its share again").await;
            load.more_ended(24).await;
        }
    })
    .await;
    let audit = load.assert_kept().await;
    load.stop().await;
    cluster.gui.api().settled().await;
    let config = FoldConfig::new(mac_keys(cluster.gui.secrets()));
    let decisions = assert_decided_once(&cluster.storage, config).await;
    let documents = assert_index_is_state(&cluster.storage).await;
    assert_eq!(audit.finished, audit.flows, "{:?}", audit.reasons);
    let (put_out, repeats) = (decisions.records, decisions.repeats);
    eprintln!(
        "{} flows, {put_out} records, {repeats} repeats, {documents} documents",
        audit.flows
    );
    let mut other = other;
    other.stop().await;
    cluster.stop().await;
}
