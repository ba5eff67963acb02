//! What a fleet costs and how fast it is served: memory for each connected agent, times until a
//! task is with its agent, rows stored in a second. In one process and, where
//! `NUBLAR_TEST_SERVICES` names them, by processes on real services.
//!
//! ```text
//! cargo run --release -p nublar-tests --example fleet
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used)]

use nublar_simulator::{
    ARTIFACT_YAML, AgentConfig, Api, Done, Fleet, Known, Script, Traffic, Trust, Work, agent_keys,
    audit, wait_until_final,
};
use nublar_tests::{Installation, Role, Server, Services};
use std::time::{Duration, Instant};

const AGENTS: usize = 500;
const TASKS: usize = 300;
const FLOWS: usize = 500;
const ROWS: u64 = 1_000;
const ROW_BYTES: usize = 200;
/// How many times faster than real ones the agents live.
const SPEED: f64 = 10.0;
const WITHIN: Duration = Duration::from_secs(300);

const SETTINGS: &str = "
[frontend]
max_poll_s = 10
";

#[tokio::main]
async fn main() {
    let installation = Installation::empty().with(SETTINGS);
    let mut server = Server::start_role(&installation, Role::Run(1), "run").await;
    let before = server.memory();
    measure("one process", &server, &server, before).await;
    server.stop().await;

    let Some(services) = Services::from_env() else {
        return;
    };
    let installation = Installation::empty().with(SETTINGS);
    let storage = services.storage(&installation.beside("keys"));
    let installation = installation.with(&storage);
    Server::set_up(&installation).await;
    let start = |role, name| Server::start_role(&installation, role, name);
    let (mut gui, mut worker, mut foreman, mut frontend) = tokio::join!(
        start(Role::Gui, "gui"),
        start(Role::Worker, "worker"),
        start(Role::Foreman, "foreman"),
        start(Role::Frontend, "frontend"),
    );
    let before = frontend.memory();
    measure("real services", &gui, &frontend, before).await;
    for server in [&mut frontend, &mut foreman, &mut worker, &mut gui] {
        server.stop().await;
    }
}

async fn measure(mode: &str, gui: &Server, frontend: &Server, before: u64) {
    let secrets = gui.secrets();
    let api = Api::new(&gui.gui(), &secrets.api_token).unwrap();
    api.put_artifact(ARTIFACT_YAML).await.unwrap();
    let trust = Trust::new(secrets.ca.certificate.as_bytes()).unwrap();
    let keys = agent_keys(None, AGENTS).await.unwrap();
    let config = AgentConfig {
        speed: SPEED,
        ..AgentConfig::new(frontend.agents().to_vec(), &secrets.orgs[0].nonce)
    };
    let fleet = Fleet::start(&config, &trust, keys).unwrap();
    let until = Instant::now() + WITHIN;
    fleet.enrolled(&api, until).await.unwrap();
    let (named, nameless) = fleet.named(&api, until).await.unwrap();
    assert_eq!(nameless, 0);
    let grown = frontend.memory().saturating_sub(before);
    println!(
        "{mode}: {AGENTS} agents named after {:.1} s, {} KiB for each",
        named.as_secs_f64(),
        (grown >> 10) / AGENTS as u64,
    );

    // One at a time, so that nothing waits for anything but its own way.
    let small = Script {
        rows: 1,
        logs: 0,
        ..Script::default()
    };
    let (_, seconds) = work(&fleet, &api, "wire", TASKS, 1, small).await;
    let wire = Traffic::of(fleet.ledger()).task_to_held_poll;
    println!(
        "{mode}: task with its agent {:.1} ms p50, {:.1} ms p99 over {} tasks, from the API's \
         answer; one after the other, each to its end, {:.0} in a second",
        wire.p50_ms,
        wire.p99_ms,
        wire.count,
        TASKS as f64 / seconds,
    );

    let large = Script {
        rows: ROWS,
        rows_per_message: ROWS,
        row_bytes: ROW_BYTES,
        logs: 0,
        ..Script::default()
    };
    let (done, seconds) = work(&fleet, &api, "rows", FLOWS, FLOWS, large).await;
    let rows = done.ended * ROWS;
    println!(
        "{mode}: {rows} rows of {ROW_BYTES} bytes in {} flows stored after {seconds:.1} s, {:.0} \
         in a second",
        done.ended,
        rows as f64 / seconds,
    );
    let found = audit(&api, fleet.ledger(), &Known::new()).await.unwrap();
    assert_eq!(found.violations, 0, "{:#?}", found.first);
    println!("{mode}: {} MiB at most", frontend.peak_memory() >> 20);
    fleet.stop().await;
}

/// Gives work and waits until all of it is final; what was done, and the seconds it took.
async fn work(
    fleet: &Fleet,
    api: &Api,
    name: &str,
    tasks: usize,
    outstanding: usize,
    script: Script,
) -> (Done, f64) {
    let begun = Instant::now();
    let work = Work {
        tasks,
        outstanding,
        scripts: vec![script],
        urgent_every: 0,
        cancel_every: 0,
        restart_every: 0,
        name: format!("{name}-{}", std::process::id()),
        until: begun + WITHIN,
    };
    let done = fleet.work(api, &work).await;
    assert_eq!(done.ended, tasks as u64, "{done:?}");
    let open = wait_until_final(api, fleet.ledger(), WITHIN).await.unwrap();
    assert_eq!(open, 0);
    (done, begun.elapsed().as_secs_f64())
}
