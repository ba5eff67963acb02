//! The same under the same name of many, and rows of any size.

use crate::puppet::{Puppet, QUICK};
use nublar_simulator::agent_keys;
use nublar_tests::{Installation, Server};

const CLIENTS: usize = 40;
const FLOW: &str = "F.DC2M4H5TA9T34";

#[tokio::test]
async fn one_flow_id_of_many_clients_and_organisations_is_a_flow_of_each() {
    let installation = Installation::empty().with(QUICK);
    // A second organisation, whose nonce is known from the next start on.
    let mut server = Server::start(&installation).await;
    server.stop().await;
    let mut secrets = std::fs::read_to_string(installation.data().join("secrets.toml")).unwrap();
    secrets.push_str("\n[[orgs]]\nid = \"OTHER\"\nnonce = \"of the other\"\n");
    std::fs::write(installation.data().join("secrets.toml"), secrets).unwrap();
    server.restart().await;
    let keys = agent_keys(None, CLIENTS).await.unwrap();
    let tell = async |agent: &Puppet, number: usize| {
        // The same rows, so far as there are that many, and the same file.
        let lines: String = (0..=number).map(|n| format!("{{\"n\":{n}}}\n")).collect();
        let file = b"the same everywhere";
        let said = [
            agent.rows(FLOW, "Rows", 0, &lines),
            agent.file(FLOW, "/etc/same", file),
            agent.end(FLOW, number as u64 + 1, &[file]),
        ];
        agent.send(&said).await;
        agent.send(&said).await;
        lines
    };
    let mut told = Vec::new();
    for (number, key) in keys.into_iter().enumerate() {
        let agent = Puppet::start(&server, key.clone(), 0).await;
        told.push((agent.client().to_owned(), tell(&agent, number).await));
        if number % 8 == 0 {
            // The same machine in another organisation has said more.
            let nonce = "of the other".to_owned();
            let other = Puppet::of_org(&server, key, nonce, 0).await;
            tell(&other, number + 100).await;
        }
    }
    let api = server.api();
    api.settled().await;
    for (number, (client, lines)) in told.iter().enumerate() {
        let place = format!("/clients/{client}/flows/{FLOW}");
        let flow = api.json(&place).await;
        assert_eq!(flow["state"], "FINISHED", "{flow}");
        assert_eq!(flow["total_collected_rows"], number + 1, "{flow}");
        assert_eq!(flow["total_uploaded_files"], 1, "{flow}");
        let rows = api
            .text(&format!("{place}/results/Rows?format=jsonl"))
            .await;
        assert_eq!(&rows, lines);
        let listed = api.json(&format!("/clients/{client}/flows")).await;
        assert_eq!(listed["flows"].as_array().unwrap().len(), 1);
    }
    assert_eq!(
        api.json("/clients").await["clients"]
            .as_array()
            .unwrap()
            .len(),
        CLIENTS
    );
    server.stop().await;
}

#[tokio::test]
async fn hosts_of_one_name_are_each_their_own_and_a_new_installation_is_let_in() {
    let installation = Installation::empty().with(QUICK);
    let mut server = Server::start(&installation).await;
    let (hosts, again) = (30, 10);
    let keys = agent_keys(None, hosts + again).await.unwrap();
    let mut told = Vec::new();
    for (number, key) in keys.into_iter().enumerate() {
        // The last ones are machines of before, installed anew: the same name, another key.
        let agent = Puppet::start(&server, key, 0).await;
        let facts = "{\"hostname\":\"workstation\",\"fqdn\":\"workstation.example\"}\n";
        let own = format!("{{\"number\":{number}}}\n");
        let said = [
            agent.rows("F.Monitoring", "Server.Internal.ClientInfo", 0, facts),
            agent.rows(FLOW, "Rows", 0, &own),
            agent.end(FLOW, 1, &[]),
        ];
        agent.send(&said).await;
        // One that comes back with the key that it has is let in as it is.
        assert_eq!(agent.poll().await, 200);
        told.push((agent.client().to_owned(), own));
    }
    let api = server.api();
    api.settled().await;
    let found = api.json("/clients?q=host:workstation&limit=100").await;
    let found = found["clients"].as_array().unwrap();
    assert_eq!(found.len(), hosts + again);
    for client in found {
        assert_eq!(client["hostname"], "workstation");
        assert!(client["conflict"].is_null(), "{client}");
    }
    for (client, own) in told {
        let place = format!("/clients/{client}/flows/{FLOW}/results/Rows?format=jsonl");
        assert_eq!(api.text(&place).await, own);
    }
    server.stop().await;
}

/// Text that does not compress well.
fn noise(bytes: usize, seed: u64) -> String {
    let mut text = String::with_capacity(bytes);
    nublar_simulator::Chance::new(seed).text(bytes, &mut text);
    text
}

#[tokio::test]
async fn rows_of_any_size_are_kept_and_their_neighbours_are_undisturbed() {
    let installation = Installation::empty().with(QUICK);
    let mut server = Server::start(&installation).await;
    let key = agent_keys(None, 1).await.unwrap().remove(0);
    let agent = Puppet::start(&server, key, 0).await;
    let padded = |pad: String| format!("{{\"pad\":\"{pad}\"}}\n");
    let sizes = [
        "{}\n".to_owned(),
        padded(noise((4 << 20) + 1, 1)),
        "{\"n\":1}\n".to_owned(),
        // More than a record of the log may have.
        padded(noise(9 << 20, 2)),
        "{\"n\":2}\n".to_owned(),
        padded("a".repeat(30_000_000)),
        "{\"n\":3}\n".to_owned(),
    ];
    for (first, line) in sizes.iter().enumerate() {
        agent
            .send(&[agent.rows(FLOW, "Rows", first as u64, line)])
            .await;
    }
    // All of them in one body with what other flows say.
    let other = "F.DC2M4H5TA9T35";
    let giant = agent.rows(other, "Rows", 1, &sizes[5]);
    let said = [
        agent.rows(other, "Rows", 0, "{\"before\":1}\n"),
        giant,
        agent.rows(other, "Rows", 2, "{\"after\":1}\n"),
        agent.end(other, 3, &[]),
        agent.end(FLOW, sizes.len() as u64, &[]),
    ];
    agent.send(&said).await;
    let api = server.api();
    api.settled().await;
    let client = agent.client();
    for (flow, lines) in [
        (FLOW, sizes.concat()),
        (
            other,
            format!("{{\"before\":1}}\n{}{{\"after\":1}}\n", sizes[5]),
        ),
    ] {
        let place = format!("/clients/{client}/flows/{flow}");
        let shown = api.json(&place).await;
        assert_eq!(shown["state"], "FINISHED", "{shown}");
        assert_eq!(
            shown["total_collected_rows"],
            lines.lines().count(),
            "{shown}"
        );
        let rows = api
            .text(&format!("{place}/results/Rows?format=jsonl"))
            .await;
        assert!(
            rows == lines,
            "{flow}: {} bytes, not {}",
            rows.len(),
            lines.len()
        );
        // A page behind the giant is read without it.
        let last = lines.lines().count() - 1;
        let page = api
            .text(&format!("{place}/results/Rows?format=jsonl&start={last}"))
            .await;
        assert_eq!(Some(page.trim_end()), lines.lines().last());
    }
    assert_eq!(
        api.json("/dead-letters").await["letters"]
            .as_array()
            .unwrap()
            .len(),
        0
    );
    server.stop().await;
}
