//! Machines that share a key, as copied images do: they are one client, and none of their rows is of
//! two machines.

use crate::puppet::{Puppet, QUICK};
use nublar_simulator::agent_keys;
use nublar_tests::{Api, Installation, Server, within};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);
const HOSTS: [&str; 3] = ["first", "second", "third"];
const ROWS: usize = 5;

#[tokio::test]
async fn events_of_machines_that_share_a_key_are_told_apart() {
    let installation = Installation::empty().with(QUICK);
    let mut server = Server::start(&installation).await;
    let api = server.api();
    let key = agent_keys(None, 1).await.unwrap().remove(0);
    let first = Puppet::start(&server, key, 0).await;
    let (second, third) = (first.copy(&server), first.copy(&server));
    let machines = [first, second, third];
    let client = format!("/clients/{}", machines[0].client());

    // Before anybody knows that there are several of them.
    tell(&machines, 0).await;
    api.settled().await;
    let rows = lines(&api, &format!("{client}/events/Some.Event")).await;
    assert_eq!(rows.len(), HOSTS.len());
    assert!(rows.iter().all(|row| row.get("_Session").is_none()));

    within(LONG, "it is seen that they take turns", async || {
        for machine in &machines {
            machine.poll().await;
        }
        let shown = api.json(&client).await;
        shown["conflict"].is_object().then_some(()).ok_or(shown)
    })
    .await;
    // Whoever is refused by now is heard all the same, and named by what it says.
    for n in 1..ROWS {
        tell(&machines, n).await;
    }
    api.settled().await;
    let shown = within(LONG, "each of them has said its name", async || {
        let shown = api.json(&client).await;
        let sessions = shown["conflict"]["sessions"].as_array().unwrap();
        let named = sessions.iter().filter(|session| session["host"] != "");
        match named.count() == HOSTS.len() {
            true => Ok(shown),
            false => Err(shown),
        }
    })
    .await;
    let sessions = shown["conflict"]["sessions"].as_array().unwrap();
    let hosts: BTreeMap<&str, &str> = sessions
        .iter()
        .map(|side| {
            (
                side["session"].as_str().unwrap(),
                side["host"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(hosts.len(), HOSTS.len(), "{shown}");

    // Each row is its machine's, also those of before.
    let all = lines(&api, &format!("{client}/events/Some.Event")).await;
    assert_eq!(all.len(), HOSTS.len() * ROWS);
    for row in &all {
        let session = row["_Session"].as_str().unwrap();
        assert_eq!(row["from"], hosts[session], "{row}");
    }
    for (session, host) in &hosts {
        let path = format!("{client}/events/Some.Event?session={session}");
        let of_one = lines(&api, &path).await;
        let expected: Vec<_> = (0..ROWS).map(|n| (json!(host), json!(n))).collect();
        let told: Vec<_> = of_one
            .iter()
            .map(|row| (row["from"].clone(), row["n"].clone()))
            .collect();
        assert_eq!(told, expected);
    }
    server.stop().await;
}

/// Each says who it is, and one row.
async fn tell(machines: &[Puppet], n: usize) {
    for (machine, host) in machines.iter().zip(HOSTS) {
        let name = json!({ "hostname": host }).to_string() + "\n";
        let row = json!({ "from": host, "n": n }).to_string() + "\n";
        machine
            .send(&[
                machine.rows("F.Monitoring", "Server.Internal.ClientInfo", 0, &name),
                machine.rows("F.Monitoring", "Some.Event", 0, &row),
            ])
            .await;
    }
}

async fn lines(api: &Api, path: &str) -> Vec<Value> {
    let text = api.text(path).await;
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}
