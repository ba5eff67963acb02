//! Whether everything that was given is there, once; and the figures.

use crate::fleet::Found;
use crate::plan::Plan;
use nublar_tests::{Installation, Server, news};
use std::collections::BTreeMap;

/// The most memory that any process has had.
#[derive(Debug, Default)]
pub(crate) struct Peak(u64);

impl Peak {
    /// Looks at a process, which must run.
    pub(crate) fn see(&mut self, server: &Server) {
        self.0 = self.0.max(server.peak_memory());
    }
}

/// Fails unless all is well. The processes must have ended.
pub(crate) async fn judge(plan: &Plan, installation: &Installation, found: Found, peak: &Peak) {
    let ends = news(installation, "flow_completion").await;
    let Found {
        done,
        open,
        audit,
        traffic,
        flows,
    } = found;
    println!(
        "ledger, {}: {} agents, {} flows, {} kills, seed {}: {:.0} tasks/s, {} violations, \
         {} deliveries, {} asks, {} POSTs answered and {} not, {} rows, {} log rows, {} bytes, \
         {} announcements of {} ends, {} MiB at most",
        plan.name,
        plan.agents,
        audit.flows,
        plan.kills,
        plan.seed,
        done.ended as f64 / done.seconds,
        audit.violations,
        audit.deliveries,
        traffic.asks,
        traffic.accepted,
        traffic.failed,
        audit.rows,
        audit.logs,
        audit.bytes,
        ends.records,
        ends.keys.len(),
        peak.0 >> 20,
    );
    let tasks = plan.tasks as u64;
    assert_eq!(audit.violations, 0, "{:?}\n{:#?}", audit.rules, audit.first);
    assert_eq!(open, 0, "flows have not ended");
    assert_eq!((done.created, done.ended), (tasks, tasks), "{done:?}");
    // Each agent was asked who it is besides.
    let all = tasks + plan.agents as u64;
    assert_eq!(audit.clients, plan.agents as u64);
    assert_eq!(
        audit.flows, all,
        "flows that nobody asked for, or lost ones"
    );
    assert_eq!(flows.len() as u64, all);
    assert_eq!(audit.deliveries, all, "flows came to agents");
    assert_eq!(audit.finished + audit.failed, all);
    // No agent was started anew: nothing but its own word may make a flow fail.
    let failing = BTreeMap::from([("failed".to_owned(), plan.failing())]);
    assert_eq!(audit.reasons, failing);
    assert_eq!(traffic.refused, 0, "{traffic:?}");
    let announced: Vec<&String> = ends.keys.keys().collect();
    assert_eq!(announced, flows.iter().collect::<Vec<_>>());
    let twice = ends.keys.iter().find(|(_, keys)| keys.len() != 1);
    assert_eq!(twice, None, "an end with several keys");
}
