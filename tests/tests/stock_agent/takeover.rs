//! A stock server's agent is taken over while it runs, with its own configuration: it goes on here.

use crate::agent::{Agent, Home, homes};
use crate::bench::Bench;
use crate::deployment::Deployment;
use futures::future::join_all;
use nublar_tests::{Installation, Role, Server, eventually, program, within};
use serde_json::json;
use std::process::Command;
use std::time::{Duration, Instant};

/// Agents gather the rows of events for some two minutes.
const EVENTS: Duration = Duration::from_secs(200);
/// Until an agent has come back after its server was exchanged, and what it ran has ended.
const BACK: Duration = Duration::from_secs(120);
/// The rows of the collection that runs meanwhile, one a second.
const COUNTED: u64 = 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_servers_agent_is_taken_over_while_it_runs() {
    let homes = homes();
    join_all(homes.iter().map(take_over)).await;
}

async fn take_over(home: &Home) {
    let name = &home.name;
    let mut installation = Installation::empty();
    // What lets it come back in seconds, and is told; the rest is what the stock server chooses.
    let client = json!({"max_poll": 10, "max_poll_std": 5, "labels": ["veteran"]});
    let mut old = Deployment::start(&home.program, &installation, client).await;
    let config = old.file("client.config.yaml");
    let agent = Agent::run(home, &config, installation.beside("agent.log"));
    let id = agent.client_id().await;
    // A server of its kind hides what its queries are called.
    tells(&agent, 0, "monitoring query $").await;
    let table = old.table_version();
    let running = old.collect(
        &id,
        &format!(
            r#"SELECT count() AS N FROM clock(period=1) WHERE log(message="it counts") LIMIT {COUNTED}"#
        ),
    );
    tells(&agent, 0, "it counts").await;

    old.kill();
    let before = agent.said().len();
    import(&old, &installation);
    let ours = std::fs::read_to_string(installation.data().join("nublar.toml")).unwrap();
    installation = installation.configured(&ours);
    // No addresses but those that the import has found.
    let mut server = Server::start_role(&installation, Role::Run(0), "run").await;
    let changed = Instant::now();
    let bench = Bench {
        api: server.api(),
        client: id.clone(),
    };
    let known = within(BACK, "the agent's host name", async || {
        let known = bench.api.json(&format!("/clients/{id}")).await;
        known["hostname"]
            .is_string()
            .then(|| known.clone())
            .ok_or(known)
    })
    .await;
    println!(
        "{name}: known {:?} after the server's start",
        changed.elapsed()
    );
    assert_eq!(known["labels"], json!(["veteran"]), "{known}");
    ask(&bench).await;
    let rows = counted(&bench, &running).await;
    assert_eq!(rows, (1..=COUNTED).collect::<Vec<_>>());
    println!(
        "{name}: what it ran meanwhile is there after {:?}",
        changed.elapsed()
    );
    tells(&agent, before, "monitoring query Generic.Client.Stats").await;
    let reported = eventually("the version of our event table", async || {
        let known = bench.api.json(&format!("/clients/{id}")).await;
        let reported = known["last_event_table_version"].as_i64();
        reported.filter(|reported| *reported > table).ok_or(known)
    })
    .await;
    println!("{name}: event table {table} of the stock server, {reported} of ours");
    let rows = bench.events("Generic.Client.Stats", EVENTS).await;
    println!(
        "{name}: {rows} rows of events after {:?}",
        changed.elapsed()
    );
    let said = agent.said();
    assert!(said[before..].contains("status: 200"), "no status is told");
    assert!(
        !said[before..].contains("status: 406"),
        "it was told to enrol"
    );
    drop(agent);

    // One that starts anew goes on, too.
    let agent = Agent::run(home, &config, installation.beside("started anew.log"));
    ask(&bench).await;
    assert_eq!(agent.client_id().await, id);
    let clients = bench.api.json("/clients").await;
    assert_eq!(clients["clients"].as_array().unwrap().len(), 1, "{clients}");
    let printed = server.printed();
    assert!(!printed.contains("agent refused"), "{printed}");
    let letters = bench.api.json("/dead-letters").await;
    assert_eq!(letters["letters"], json!([]), "{letters}");
    server.stop().await;
}

/// Waits until an agent has said this, behind so many bytes of its log.
async fn tells(agent: &Agent, behind: usize, words: &str) {
    eventually(words, async || {
        let told = agent.said()[behind..].contains(words);
        told.then_some(()).ok_or("not yet")
    })
    .await;
}

/// Takes the deployment over, which knows one agent.
fn import(old: &Deployment, installation: &Installation) {
    let done = Command::new(program())
        .args(["import", "velociraptor"])
        .arg(old.file("server.config.yaml"))
        .arg("--datastore")
        .arg(old.file("data"))
        .arg("--data")
        .arg(installation.data())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{errors}");
    let printed = String::from_utf8(done.stdout).unwrap();
    let keys = "1 (root 1): 1 new, 0 known already";
    assert!(printed.contains(keys), "no {keys:?} in:\n{printed}");
}

/// What came of the collection, under whatever names the stock server gave it.
async fn counted(bench: &Bench, flow: &str) -> Vec<u64> {
    within(BACK, "the stock server's collection", async || {
        let listed = bench
            .api
            .json(&format!("/clients/{}/flows", bench.client))
            .await;
        let mut flows = listed["flows"].as_array().unwrap().iter();
        let found = flows.any(|listed| listed["flow_id"] == flow);
        found.then_some(()).ok_or(listed)
    })
    .await;
    let ended = bench.within(BACK, flow, "FINISHED").await;
    assert_eq!(ended["adopted"], true, "{ended}");
    let mut counted = Vec::new();
    for name in ended["artifacts_with_results"].as_array().unwrap() {
        let path = format!("/results/{}?format=json", name.as_str().unwrap());
        let rows = bench.of_flow(flow, &path).await;
        let rows = rows.as_array().unwrap().iter();
        counted.extend(rows.filter_map(|row| row["N"].as_u64()));
    }
    counted
}

/// A collection, which the agent must answer.
async fn ask(bench: &Bench) {
    let asked = bench.collect("Linux.Sys.Pslist", json!({})).await;
    let answered = bench.within(BACK, &asked, "FINISHED").await;
    let rows = answered["total_collected_rows"].as_u64();
    assert!(rows > Some(0), "{answered}");
}
