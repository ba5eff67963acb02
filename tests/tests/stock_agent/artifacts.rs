//! Artifacts that a stock agent runs: those that are built in, and a sample of others'.

use crate::agent::{Agent, homes};
use crate::bench::Bench;
use futures::future::join_all;
use nublar_simulator::Chance;
use nublar_tests::{Installation, Server, within};
use serde_json::{Value, json};
use std::time::Duration;

const SAMPLE: usize = 20;
const PATIENCE: Duration = Duration::from_secs(150);
/// How long one may run, seconds; then the agent ends it with an error of its own.
const LIMIT: u64 = 60;

/// Those of a list that a machine with Linux can be asked for without parameters.
fn eligible(listed: &[Value], built_in: bool) -> Vec<String> {
    let of = |artifact: &&Value| {
        let name = artifact["name"].as_str().unwrap();
        artifact["type"] == "client"
            && (artifact["origin"] == "built-in") == built_in
            && ["Linux.", "Generic.", "System."]
                .iter()
                .any(|start| name.starts_with(start))
            // It would be another client from then on.
            && name != "Generic.Client.Rekey"
    };
    let names = listed.iter().filter(of);
    names
        .map(|artifact| artifact["name"].as_str().unwrap().to_owned())
        .collect()
}

/// Runs one: its rows, or why there are none.
async fn run(bench: &Bench, artifact: &str) -> String {
    let wish = json!({"artifacts": [artifact], "timeout": LIMIT, "max_rows": 20_000});
    let path = format!("/clients/{}/flows", bench.client);
    let (status, answer) = bench.api.post(&path, &wish).await;
    if status != 201 {
        // It does not compile here, for example without a tool: with a reason.
        let why = answer["error"].as_str().unwrap_or_default();
        assert!(!why.is_empty(), "{artifact}: {answer}");
        return format!("not sent: {why}");
    }
    let flow = answer["flow_id"].as_str().unwrap().to_owned();
    let ended = within(PATIENCE, artifact, async || {
        let found = bench.flow(&flow).await;
        let has_ended = found["state"] == "FINISHED" || found["state"] == "ERROR";
        has_ended.then(|| found.clone()).ok_or(found)
    })
    .await;
    let rows = ended["total_collected_rows"].as_u64().unwrap();
    if ended["state"] == "FINISHED" {
        return format!("{rows} rows");
    }
    let why = ended["status"].as_str().unwrap_or_default();
    assert!(
        ended["reason"] == "failed" && !why.is_empty(),
        "{artifact}: {ended}"
    );
    format!("{rows} rows, and the agent says: {why}")
}

async fn run_all(bench: &Bench, artifacts: &[String]) {
    for some in artifacts.chunks(4) {
        let ran = join_all(some.iter().map(|artifact| run(bench, artifact))).await;
        for (artifact, ran) in some.iter().zip(ran) {
            println!("  {artifact}: {ran}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn artifacts_give_rows_or_a_reason() {
    for home in homes() {
        let installation = Installation::empty();
        let mut server = Server::start(&installation).await;
        let agent = Agent::start(&home, &server, &installation);
        let (api, client) = (server.api(), agent.client_id().await);
        let bench = Bench { api, client };
        within(PATIENCE, "the client", async || {
            let listed = bench.api.json("/clients").await;
            let known = !listed["clients"].as_array().unwrap().is_empty();
            known.then_some(()).ok_or(listed)
        })
        .await;
        let listed = async || -> Vec<Value> {
            let listed = bench.api.json("/artifacts").await;
            serde_json::from_value(listed).unwrap()
        };
        let ours = eligible(&listed().await, true);
        println!("{}: {} that are built in", home.name, ours.len());
        assert!(ours.len() >= 20, "{ours:?}");
        run_all(&bench, &ours).await;

        let Some(folder) = std::env::var_os("NUBLAR_ARTIFACTS") else {
            println!("not run: NUBLAR_ARTIFACTS names no folder of others' artifacts");
            continue;
        };
        let folder = folder.to_str().unwrap();
        println!(
            "{}",
            server
                .order(&installation, &["artifacts", "add", folder])
                .lines()
                .last()
                .unwrap()
        );
        let mut others = eligible(&listed().await, false);
        let seed = std::env::var("NUBLAR_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok());
        Chance::new(seed.unwrap_or(1)).shuffle(&mut others);
        others.truncate(SAMPLE);
        others.sort();
        assert_eq!(others.len(), SAMPLE);
        println!("{}: a sample of others'", home.name);
        run_all(&bench, &others).await;
        drop(agent);
        server.stop().await;
    }
}
