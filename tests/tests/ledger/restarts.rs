//! One agent with a long queue, which is killed again and again: what was in its hands may be lost,
//! and says so; what was not, waits; and nothing runs again.

use crate::plan::Plan;
use nublar_simulator::{
    ARTIFACT, ARTIFACT_YAML, AgentConfig, Api, Faults, Fleet, Known, Script, Trust, VARIABLE,
    agent_keys, audit, wait_until_final,
};
use nublar_tests::{Installation, Role, Server};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::time::sleep;

const FLOWS: usize = 50;
const KILLS: usize = 10;
const LONG: Duration = Duration::from_secs(120);

/// Kills the agent ten times, while it works on some of fifty flows.
pub(crate) async fn killed_while_flows_wait(websockets: bool) {
    let plan = Plan::small("restarts", 0, 1);
    let installation = Installation::empty().with(&plan.settings());
    let mut server = Server::start_role(&installation, Role::Run(2), "run").await;
    let api = Api::new(&server.gui(), &server.secrets().api_token).unwrap();
    api.put_artifact(ARTIFACT_YAML).await.unwrap();
    let trust = Trust::new(server.secrets().ca.certificate.as_bytes()).unwrap();
    let config = AgentConfig {
        websockets,
        faults: Faults::NONE,
        ..plan.agents(server.agents(), &server.secrets().orgs[0].nonce)
    };
    let keys = agent_keys(None, 1).await.unwrap();
    let fleet = Fleet::start(&config, &trust, keys).unwrap();
    fleet.named(&api, Instant::now() + LONG).await.unwrap();
    let agent = &fleet.agents()[0];

    let script = Script {
        rows: 20,
        rows_per_message: 5,
        duration_ms: 2_000,
        ..Script::default()
    };
    let parameters = json!({ VARIABLE: serde_json::to_string(&script).unwrap() });
    let mut flows = Vec::new();
    for number in 0..FLOWS {
        let begun = Instant::now();
        let wish = format!("restarts-{number}");
        let collected = api.collect(agent.client_id(), ARTIFACT, &parameters, false, &wish);
        let flow = collected.await.unwrap();
        agent.book().ordered(&flow, begun, Instant::now());
        flows.push(flow);
    }
    let delivered = || {
        let book = agent.book();
        let seen = flows.iter().filter_map(|flow| book.flow(flow));
        seen.filter(|entry| !entry.deliveries.is_empty()).count()
    };
    for kill in 1..=KILLS {
        // Each while others than the last time are in its hands, and some are not.
        let until = Instant::now() + LONG;
        let wanted = kill * FLOWS / (KILLS + 2);
        while delivered() < wanted {
            assert!(
                Instant::now() < until,
                "{} of {wanted} flows came",
                delivered()
            );
            sleep(Duration::from_millis(2)).await;
        }
        assert!(delivered() < FLOWS, "nothing waits any more");
        agent.restart();
    }
    let open = wait_until_final(&api, fleet.ledger(), LONG).await.unwrap();
    assert_eq!(open, 0, "flows without an end");
    let audit = audit(&api, fleet.ledger(), &Known::new()).await.unwrap();
    // Among them: a flow that has lived does not run again.
    assert_eq!(audit.violations, 0, "{:?}\n{:#?}", audit.rules, audit.first);
    assert_eq!(audit.flows, FLOWS as u64 + 1);
    assert_eq!(audit.finished + audit.failed, audit.flows);
    let lost = audit.reasons.get("lost").copied().unwrap_or(0);
    assert_eq!(lost, audit.failed, "{:?}", audit.reasons);
    println!(
        "restarts, websockets {websockets}: {FLOWS} flows, {KILLS} kills, {} finished, {lost} lost, {} deliveries",
        audit.finished, audit.deliveries
    );
    assert!(lost > 0, "no kill met a flow");
    assert!(
        audit.finished >= (FLOWS - 4 * KILLS) as u64,
        "{:?}",
        audit.reasons
    );
    fleet.stop().await;
    server.stop().await;
}
