//! The ledger: a fleet whose network loses every second answer, while the server's processes are
//! killed and started again, and in the end everything is held against what the agents gave.
//!
//! Agents take another frontend for each request. Every flow must have ended, have run once, show
//! every row, log row and byte that its agent sent, and be announced once.
//!
//! And an agent is killed while flows wait for it; and a process that is not killed keeps its size,
//! for `NUBLAR_SOAK_MINUTES` of work.
//!
//! `NUBLAR_LONG=1` runs 10,000 flows over 200 agents, else a part of that; `NUBLAR_SEED` another
//! network than the usual one.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod fleet;
mod plan;
mod restarts;
mod soak;
mod verdict;

use fleet::{Progress, give};
use nublar_tests::{Installation, Role, Server, Services};
use plan::Plan;
use tokio::sync::Mutex;
use verdict::Peak;

/// Each of them takes the whole machine.
static ALONE: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_process_is_killed_again_and_again() {
    killed_again_and_again(Plan::from_env("one process", 6)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_on_websockets_see_one_process_killed_again_and_again() {
    let mut plan = Plan::from_env("websockets", 6);
    plan.websockets = true;
    killed_again_and_again(plan).await;
}

async fn killed_again_and_again(plan: Plan) {
    let _alone = ALONE.lock().await;
    let installation = Installation::empty()
        .with_first("partitions = 4\n")
        .with(&plan.settings());
    let mut server = Server::start_role(&installation, Role::Run(2), "run").await;
    let urls = server.agents().to_vec();
    let given = give(&plan, &server, &urls).await;
    let mut peak = Peak::default();
    let killing = async |progress: &Progress| {
        for turn in 1..=plan.kills {
            progress.until(&plan, turn).await;
            peak.see(&server);
            server.kill9().await;
            server.restart().await;
        }
    };
    let found = given.under(killing).await;
    peak.see(&server);
    server.stop().await;
    verdict::judge(&plan, &installation, found, &peak).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_on_real_services_are_killed_in_turn() {
    let Some(services) = Services::from_env() else {
        return;
    };
    let _alone = ALONE.lock().await;
    let plan = Plan::from_env("real services", 6);
    let storage = |installation: Installation| {
        let storage = services.storage(&installation.beside("keys"));
        installation.with(&storage)
    };
    let installation = storage(
        Installation::empty()
            .with_first("partitions = 4\n")
            .with(&plan.settings()),
    );
    Server::set_up(&installation).await;
    let start = |role, name| Server::start_role(&installation, role, name);
    let (gui, worker_1, worker_2, foreman_1, foreman_2, frontend_1, frontend_2) = tokio::join!(
        start(Role::Gui, "gui"),
        start(Role::Worker, "worker-1"),
        start(Role::Worker, "worker-2"),
        start(Role::Foreman, "foreman-1"),
        start(Role::Foreman, "foreman-2"),
        start(Role::Frontend, "frontend-1"),
        start(Role::Frontend, "frontend-2"),
    );
    let urls = [frontend_1.agents(), frontend_2.agents()].concat();
    let mut in_turn = [
        worker_1, frontend_1, foreman_1, worker_2, frontend_2, foreman_2,
    ];
    let mut peak = Peak::default();
    let killing = async |progress: &Progress| {
        for turn in 1..=plan.kills {
            progress.until(&plan, turn).await;
            let server = &mut in_turn[(turn - 1) % 6];
            peak.see(server);
            server.kill9().await;
            server.restart().await;
        }
    };
    let found = give(&plan, &gui, &urls).await.under(killing).await;
    for server in in_turn.iter_mut() {
        peak.see(server);
        server.stop().await;
    }
    peak.see(&gui);
    let mut gui = gui;
    gui.stop().await;
    verdict::judge(&plan, &installation, found, &peak).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_is_killed_again_and_again_while_its_flows_wait() {
    for websockets in [false, true] {
        let _alone = ALONE.lock().await;
        restarts::killed_while_flows_wait(websockets).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_process_keeps_its_size() {
    let _alone = ALONE.lock().await;
    let minutes = std::env::var("NUBLAR_SOAK_MINUTES").map_or(0, |text| text.parse().unwrap());
    soak::soak(&Plan::small("soak", 0, 1), minutes).await;
}
