//! A client that is deleted stays deleted, whatever becomes of the server, and who comes back
//! starts clean.

use nublar_core::ids::FlowId;
use nublar_ports::index::sqlite::SqliteIndex;
use nublar_ports::index::{Collection, Index, Query};
use nublar_simulator::{
    ARTIFACT, ARTIFACT_YAML, Agent, AgentConfig, Api, Ledger, Script, Trust, UploadScript,
    VARIABLE, agent_keys,
};
use nublar_tests::{Installation, Server, eventually};
use nublar_wire::AgentKey;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

const SETTINGS: &str = "[frontend]\nmax_poll_s = 1\n[workers]\nreport_ms = 100\n";

/// A server and two agents, one of which is to be deleted.
struct Stage {
    api: Api,
    trust: Trust,
    config: Arc<AgentConfig>,
    ledger: Arc<Ledger>,
    keys: tempfile::TempDir,
}

impl Stage {
    async fn new(server: &Server) -> Self {
        let secrets = server.secrets();
        let api = Api::new(&server.gui(), &secrets.api_token).unwrap();
        api.put_artifact(ARTIFACT_YAML).await.unwrap();
        let nonce = &secrets.orgs[0].nonce;
        let config = AgentConfig::new(server.agents().to_vec(), nonce.as_str());
        Self {
            api,
            trust: Trust::new(secrets.ca.certificate.as_bytes()).unwrap(),
            // Slow to enrol a second time, unless it is started anew, and quick to be there again.
            config: Arc::new(AgentConfig {
                max_poll: std::time::Duration::from_millis(500),
                max_poll_std: std::time::Duration::from_millis(100),
                min_poll: std::time::Duration::from_millis(50),
                ..config
            }),
            ledger: Arc::new(Ledger::new()),
            keys: tempfile::tempdir().unwrap(),
        }
    }

    async fn key(&self, n: usize) -> AgentKey {
        let folder = self.keys.path().join(n.to_string());
        let mut keys = agent_keys(Some(&folder), 1).await.unwrap();
        keys.remove(0)
    }

    /// Starts the agent of a key, and waits until it is known by its name.
    async fn start(&self, n: usize) -> Agent {
        let key = self.key(n).await;
        let agent = Agent::start(self.config.clone(), key, &self.trust, &self.ledger).unwrap();
        let id = agent.client_id().to_owned();
        eventually("the agent's host name is shown", async || {
            let shown = self.api.client(&id).await.unwrap().unwrap_or(Value::Null);
            let named = shown["hostname"]
                .as_str()
                .is_some_and(|name| !name.is_empty());
            named.then_some(()).ok_or(shown)
        })
        .await;
        agent
    }

    async fn collect(&self, client: &str, script: &Script, wish: &str) -> String {
        let orders = json!({ VARIABLE: serde_json::to_string(script).unwrap() });
        let asked = self
            .api
            .collect(client, ARTIFACT, &orders, false, wish)
            .await;
        asked.unwrap()
    }

    async fn finished(&self, client: &str, flow: &str) {
        eventually("the flow is finished", async || {
            let shown = self
                .api
                .flow(client, flow)
                .await
                .unwrap()
                .unwrap_or(Value::Null);
            (shown["state"] == "FINISHED").then_some(()).ok_or(shown)
        })
        .await;
    }

    async fn is_gone(&self, client: &str, flow: &str) {
        assert_eq!(self.api.client(client).await.unwrap(), None);
        assert_eq!(self.api.flow(client, flow).await.unwrap(), None);
        assert!(self.api.flows(client).await.is_err());
        let asked = json!({});
        let refused = self
            .api
            .collect(client, ARTIFACT, &asked, false, "late")
            .await;
        assert!(refused.is_err(), "it was given a task");
    }
}

/// Some of everything, large enough for objects.
fn script(rows: u64, duration_ms: u64) -> Script {
    Script {
        rows,
        rows_per_message: 50,
        logs: 5,
        uploads: vec![UploadScript {
            name: "/var/log/simulated.bin".to_owned(),
            size: 200_000,
            compress: false,
        }],
        duration_ms,
        ..Script::default()
    }
}

/// How many files there are in a folder and those below it.
fn files(folder: &Path) -> usize {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| entry.unwrap().path()),
        Err(_) => return 0,
    };
    entries
        .map(|path| if path.is_dir() { files(&path) } else { 1 })
        .sum()
}

/// How many documents the index has of a client in its first generation.
async fn documents(installation: &Installation, client: &str) -> Vec<(Collection, u64)> {
    let index = SqliteIndex::open(installation.data().join("index").join("index.sqlite")).unwrap();
    let query = Query {
        client: Some(client.to_owned()),
        ..Query::default()
    };
    let mut found = Vec::new();
    for collection in Collection::ALL {
        let count = index.count(collection, "", &query).await.unwrap();
        found.push((collection, count));
    }
    // What came late is told in dead letters.
    found.retain(|(of, count)| *of != Collection::DeadLetters && *count > 0);
    found
}

#[tokio::test]
async fn a_client_deleted_under_traffic_stays_deleted_and_may_come_back() {
    let installation = Installation::empty().configured(SETTINGS);
    let mut server = Server::start(&installation).await;
    let stage = Stage::new(&server).await;
    let (victim, other) = (stage.start(0).await, stage.start(1).await);
    let (gone, stays) = (victim.client_id().to_owned(), other.client_id().to_owned());

    // One flow is stored, others are under way.
    let folder = installation.data().join("objects/objects/uploads");
    let kept = stage.collect(&stays, &script(100, 0), "kept").await;
    stage.finished(&stays, &kept).await;
    let of_the_other = files(&folder);
    assert!(of_the_other > 0, "no object in {}", folder.display());
    let first = stage.collect(&gone, &script(200, 0), "first").await;
    stage.finished(&gone, &first).await;
    assert!(files(&folder) > of_the_other);
    for n in 0..4 {
        stage
            .collect(&gone, &script(2_000, 3_000), &format!("busy {n}"))
            .await;
    }
    eventually("the agent works", async || {
        let flows = stage.api.flows(&gone).await.unwrap();
        let works = |flow: &Value| flow["state"] == "IN_PROGRESS";
        flows.values().any(works).then_some(()).ok_or(flows)
    })
    .await;

    let printed = server.order(&installation, &["client", "rm", &gone, "--yes", "--json"]);
    let printed: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(printed["client_id"], json!(gone));
    victim.stop().await;
    stage.is_gone(&gone, &first).await;
    server.kill9().await;
    server.restart().await;
    stage.is_gone(&gone, &first).await;
    let api = server.api();
    let dump = api.dump().await;
    assert!(!dump.contains(&gone), "something of it is stored");
    assert!(dump.contains(&stays) && dump.contains(&kept));

    // Not only out of sight: nothing of it is left.
    server.stop().await;
    let left = documents(&installation, &gone).await;
    assert_eq!(left, [], "documents are left");
    assert_eq!(files(&folder), of_the_other, "objects are left");
    let of_the_other = documents(&installation, &stays).await;
    assert!(of_the_other.len() >= 4, "{of_the_other:?}");
    server.restart().await;
    stage.is_gone(&gone, &first).await;

    // The agent comes back: it enrols, is asked who it is, and has nothing of its former life.
    let back = stage.start(0).await;
    assert_eq!(back.client_id(), gone);
    let flow = stage.collect(&gone, &script(200, 0), "first").await;
    assert_ne!(flow, first, "a wish of its former life counts no more");
    stage.finished(&gone, &flow).await;
    let check = async |when: &str| {
        let flows = stage.api.flows(&gone).await.unwrap();
        assert!(flows.contains_key(&flow), "{when}");
        assert_eq!(
            flows.len(),
            2,
            "{when}: it and the interrogation: {flows:?}"
        );
        let shown = flows[&flow].clone();
        let shown = stage.api.shown(&gone, &flow, shown).await.unwrap();
        let rows = shown
            .results
            .values()
            .map(|rows| rows.split(|byte| *byte == b'\n').count() - 1);
        assert_eq!(rows.sum::<usize>(), 200, "{when}");
        assert_eq!(shown.uploads.len(), 1, "{when}");
        assert_eq!(shown.uploads[0].bytes.len(), 200_000, "{when}");
    };
    check("at once").await;
    server.kill9().await;
    server.restart().await;
    server.api().settled().await;
    check("after a kill").await;
    let begun = |id: &str| id.parse::<FlowId>().unwrap();
    assert!(begun(&flow) > begun(&first), "ids go on");
    stage.finished(&stays, &kept).await;

    // Deleted once more, after a life of its own.
    let printed = server.order(&installation, &["client", "rm", &gone, "--yes"]);
    assert!(printed.contains("is deleted"), "{printed}");
    back.stop().await;
    stage.is_gone(&gone, &flow).await;
    other.stop().await;
    server.stop().await;
}
