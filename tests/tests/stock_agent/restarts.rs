//! Agents that are started anew, and machines that were copied with an agent's key in them.

use crate::agent::{Agent, Home, homes};
use crate::bench::{Bench, add_artifact};
use nublar_tests::{Installation, Server, within};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(120);

/// A client of an agent that runs, once it is in the list.
async fn known(server: &Server, agent: &Agent) -> Bench {
    let (api, client) = (server.api(), agent.client_id().await);
    within(PATIENCE, "the client", async || {
        let listed = clients(server).await;
        listed.contains(&client).then_some(()).ok_or(listed)
    })
    .await;
    Bench { api, client }
}

/// The clients that have said their name.
async fn clients(server: &Server) -> BTreeSet<String> {
    let listed = server.api().json("/clients?limit=100").await;
    let listed = listed["clients"].as_array().cloned().unwrap_or_default();
    let named = listed.iter().filter(|client| {
        client["hostname"]
            .as_str()
            .is_some_and(|name| !name.is_empty())
    });
    let ids = named.map(|client| client["client_id"].as_str().unwrap().to_owned());
    ids.collect()
}

/// The agent answers, whatever it is at.
async fn answer(bench: &Bench) {
    let wish = json!({"artifacts": ["Generic.Client.Info"], "urgent": true});
    let path = format!("/clients/{}/flows", bench.client);
    let (status, told) = bench.api.post(&path, &wish).await;
    assert_eq!(status, 201, "{told}");
    let flow = told["flow_id"].as_str().unwrap();
    bench.within(PATIENCE, flow, "FINISHED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_was_at_is_lost_when_it_is_started_anew_and_only_then() {
    for home in homes() {
        let installation = Installation::empty();
        let mut server = Server::start(&installation).await;
        add_artifact(
            &server,
            &installation,
            "Custom.Slow",
            "",
            "SELECT * FROM clock(period=1)",
        );
        let agent = Agent::start(&home, &server, &installation);
        let bench = known(&server, &agent).await;
        let mut running = Vec::new();
        for _ in 0..3 {
            running.push(bench.collect("Custom.Slow", json!({})).await);
        }
        bench.until(&running[0], "IN_PROGRESS").await;

        // The server was away: nothing is lost by that.
        let beginnings = agent.beginnings();
        server.stop().await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        server.restart().await;
        answer(&bench).await;
        let beginnings = agent.beginnings() - beginnings;
        let goes_on = bench.flow(&running[0]).await;
        assert_eq!(goes_on["state"], "IN_PROGRESS", "{goes_on}");

        drop(agent);
        let begun = Instant::now();
        let agent = Agent::start(&home, &server, &installation);
        let lost = bench.within(PATIENCE, &running[0], "ERROR").await;
        assert_eq!(lost["reason"], "lost", "{lost}");
        let took = begun.elapsed();
        // Those that never showed life are given to it again, or lost; nobody waits for them.
        for flow in &running[1..] {
            let ended = bench.flow(flow).await["state"] == "ERROR";
            if !ended {
                bench.cancel(flow).await;
            }
        }
        let next = bench.collect("Generic.Client.Info", json!({})).await;
        bench.within(PATIENCE, &next, "FINISHED").await;
        println!(
            "{}: {beginnings} new sessions by an outage, lost {:.1} s after it was started anew",
            home.name,
            took.as_secs_f64()
        );
        drop(agent);
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn copied_machines_make_keys_of_their_own() {
    for home in homes() {
        let installation = Installation::empty().with("[foreman]\nrekey_clones = true\n");
        let mut server = Server::start(&installation).await;
        let agent = Agent::start(&home, &server, &installation);
        let shared = known(&server, &agent).await.client;
        drop(agent);
        let copy = Home {
            name: format!("{} copy", home.name),
            ..home.clone()
        };
        let writeback = |home: &Home| installation.beside(&format!("{}.writeback.yaml", home.name));
        std::fs::copy(writeback(&home), writeback(&copy)).unwrap();
        let begun = Instant::now();
        let agents = [&home, &copy].map(|home| Agent::start(home, &server, &installation));
        let seen = within(PATIENCE * 2, "two clients", async || {
            let listed = clients(&server).await;
            if listed.len() >= 2 {
                Ok(listed)
            } else {
                Err(listed)
            }
        })
        .await;
        let took = begun.elapsed();
        let of_shared = server.api().json(&format!("/clients/{shared}")).await;
        let addresses = of_shared["conflict"]["addresses"].as_array();
        assert!(
            addresses.is_some_and(|seen| !seen.is_empty()),
            "{of_shared}"
        );
        assert!(seen.contains(&shared));
        println!(
            "{}: a key of its own after {:.0} s",
            home.name,
            took.as_secs_f64()
        );
        drop(agents);
        server.stop().await;
    }
}
