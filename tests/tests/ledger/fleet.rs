//! Gives the fleet its work while the server is disturbed, and collects what came of it.

use crate::plan::Plan;
use nublar_simulator::{
    ARTIFACT_YAML, Api, Audit, Done, Fleet, Known, Traffic, Trust, Work, agent_keys, audit,
    wait_until_final,
};
use nublar_tests::{Secrets, Server};
use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::time::sleep;

/// A fleet that is let in and has nothing to do yet.
pub(crate) struct Given<'a> {
    plan: &'a Plan,
    api: Api,
    fleet: Fleet,
}

/// What came of its work.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) done: Done,
    /// Flows that have not ended.
    pub(crate) open: usize,
    pub(crate) audit: Audit,
    pub(crate) traffic: Traffic,
    /// All flows that agents were given.
    pub(crate) flows: BTreeSet<String>,
}

/// How far the work has come.
pub(crate) struct Progress<'a> {
    fleet: &'a Fleet,
    until: Instant,
}

impl Progress<'_> {
    /// Waits until the time of this disturbance, from 1, or until the work's time is over.
    pub(crate) async fn until(&self, plan: &Plan, turn: usize) {
        let flows = plan.tasks * turn / (plan.kills + 1);
        while self.fleet.ended() < flows as u64 && Instant::now() < self.until {
            sleep(Duration::from_millis(5)).await;
        }
        eprintln!("{}: disturbance {turn} after {flows} flows", plan.name);
    }
}

/// Enrols a fleet with the server behind these URLs.
pub(crate) async fn give<'a>(plan: &'a Plan, gui: &Server, urls: &[String]) -> Given<'a> {
    let secrets: &Secrets = gui.secrets();
    let api = Api::new(&gui.gui(), &secrets.api_token).unwrap();
    let trust = Trust::new(secrets.ca.certificate.as_bytes()).unwrap();
    let keys = agent_keys(None, plan.agents).await.unwrap();
    api.put_artifact(ARTIFACT_YAML).await.unwrap();
    let config = plan.agents(urls, &secrets.orgs[0].nonce);
    let fleet = Fleet::start(&config, &trust, keys).unwrap();
    let until = Instant::now() + plan.settle;
    fleet.enrolled(&api, until).await.unwrap();
    let (_, nameless) = fleet.named(&api, until).await.unwrap();
    assert_eq!(nameless, 0, "agents without a host name");
    Given { plan, api, fleet }
}

impl Given<'_> {
    /// Gives the work, disturbs the server, and compares when all is quiet again.
    pub(crate) async fn under(self, disturb: impl AsyncFnOnce(&Progress)) -> Found {
        let Self { plan, api, fleet } = self;
        let until = Instant::now() + plan.within;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let work = Work {
            tasks: plan.tasks,
            outstanding: plan.agents * 6,
            scripts: Plan::scripts(),
            urgent_every: 10,
            cancel_every: 0,
            restart_every: 0,
            name: format!("ledger-{}", since.as_micros()),
            until,
        };
        let progress = Progress {
            fleet: &fleet,
            until,
        };
        let (done, ()) = tokio::join!(fleet.work(&api, &work), disturb(&progress));
        let ledger = fleet.ledger();
        let open = wait_until_final(&api, ledger, plan.settle).await.unwrap();
        let audit = audit(&api, ledger, &Known::new()).await.unwrap();
        let flows = ledger
            .books()
            .iter()
            .flat_map(|book| book.flows())
            .collect();
        let traffic = Traffic::of(ledger);
        fleet.stop().await;
        Found {
            done,
            open,
            audit,
            traffic,
            flows,
        }
    }
}
