//! What people do with one client.

use nublar_tests::{Api, Installation, PATIENCE, Server, within};
use serde_json::{Value, json};
use std::time::Duration;

/// A client, and the API.
pub(crate) struct Bench {
    pub(crate) api: Api,
    pub(crate) client: String,
}

impl Bench {
    pub(crate) async fn collect(&self, artifact: &str, parameters: Value) -> String {
        let wish = json!({"artifacts": [artifact], "parameters": parameters});
        let path = format!("/clients/{}/flows", self.client);
        let (status, answer) = self.api.post(&path, &wish).await;
        assert_eq!(status, 201, "{answer}");
        answer["flow_id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn cancel(&self, flow: &str) {
        let path = format!("/clients/{}/flows/{flow}/cancel", self.client);
        let (status, answer) = self.api.post(&path, &json!({})).await;
        assert_eq!(status, 200, "{answer}");
    }

    pub(crate) async fn flow(&self, flow: &str) -> Value {
        self.of_flow(flow, "").await
    }

    /// What is found behind a flow's path.
    pub(crate) async fn of_flow(&self, flow: &str, rest: &str) -> Value {
        let path = format!("/clients/{}/flows/{flow}{rest}", self.client);
        self.api.json(&path).await
    }

    /// Waits until a flow is in a state.
    pub(crate) async fn until(&self, flow: &str, state: &str) -> Value {
        self.within(PATIENCE, flow, state).await
    }

    /// The same, for so long.
    pub(crate) async fn within(&self, patience: Duration, flow: &str, state: &str) -> Value {
        within(patience, "the flow's state", async || {
            let found = self.flow(flow).await;
            if found["state"] == state {
                Ok(found)
            } else {
                Err(found)
            }
        })
        .await
    }

    /// An upload, byte for byte.
    pub(crate) async fn upload(&self, flow: &str, id: &str) -> Vec<u8> {
        let path = format!("/clients/{}/flows/{flow}/uploads/{id}", self.client);
        self.api.get(&path).await
    }

    /// Waits for rows of events of a name.
    pub(crate) async fn events(&self, name: &str, patience: Duration) -> u64 {
        within(patience, "rows of events", async || {
            let path = format!("/clients/{}/events", self.client);
            let listed = self.api.json(&path).await;
            let rows = listed.as_array().unwrap().iter();
            let mut rows = rows.filter(|listed| listed["name"] == name);
            let rows = rows.find_map(|listed| listed["rows"].as_u64());
            rows.filter(|rows| *rows > 0).ok_or(listed)
        })
        .await
    }
}

/// Adds an artifact of one source.
pub(crate) fn add_artifact(
    server: &Server,
    installation: &Installation,
    name: &str,
    head: &str,
    query: &str,
) {
    let yaml = format!("name: {name}\n{head}sources:\n  - query: |\n      {query}\n");
    let file = installation.beside(name);
    std::fs::write(&file, yaml).unwrap();
    let file = file.display().to_string();
    server.order(installation, &["artifacts", "add", &file]);
}
