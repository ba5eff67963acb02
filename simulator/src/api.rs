//! The REST API, as a client of it: what a server shows of what agents sent.

use crate::error::SimError;
use bytes::Bytes;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// What the API says of an upload.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ShownUpload {
    /// Names it within its flow.
    pub upload_id: String,
    /// As the agent gave it.
    pub path: String,
    /// Bytes that are stored.
    pub stored: u64,
    /// Whether all of it is there.
    pub complete: bool,
    /// Whether two buffers claimed the same place.
    pub sent_twice: bool,
    /// The file.
    #[serde(skip)]
    pub bytes: Bytes,
}

/// Everything that the API shows of a flow.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Shown {
    /// Its document.
    pub document: Value,
    /// The rows of each result set, as lines of JSON.
    pub results: BTreeMap<String, Bytes>,
    /// Log rows, as lines of JSON.
    pub logs: Bytes,
    /// Its files.
    pub uploads: Vec<ShownUpload>,
}

impl Shown {
    /// A text of the document.
    pub fn text(&self, name: &str) -> &str {
        self.document
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// A number of the document.
    pub fn number(&self, name: &str) -> u64 {
        self.document
            .get(name)
            .and_then(Value::as_u64)
            .unwrap_or_default()
    }

    /// Whether it has ended.
    pub fn is_final(&self) -> bool {
        matches!(self.text("state"), "FINISHED" | "ERROR")
    }
}

/// A client of the API.
#[derive(Debug, Clone)]
pub struct Api {
    base: String,
    token: String,
    client: reqwest::Client,
}

impl Api {
    /// The API at this URL, without a slash at its end and without `/api/v1`.
    pub fn new(url: &str, token: &str) -> Result<Self, SimError> {
        let tls = rustls::ClientConfig::builder_with_provider(
            rustls::crypto::aws_lc_rs::default_provider().into(),
        )
        .with_safe_default_protocol_versions()
        .map_err(|error| SimError::Certificate {
            what: "tls",
            reason: error.to_string(),
        })?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .no_proxy()
            .tcp_nodelay(true)
            .timeout(Duration::from_secs(120))
            .build()?;
        let base = format!("{}/api/v1", url.trim_end_matches('/'));
        Ok(Self {
            base,
            token: token.trim().to_owned(),
            client,
        })
    }

    fn call(&self, method: Method, path: &str) -> RequestBuilder {
        self.client
            .request(method, format!("{}{path}", self.base))
            .bearer_auth(&self.token)
    }

    async fn send(&self, what: &str, request: RequestBuilder) -> Result<Bytes, SimError> {
        let response = request.send().await?;
        let status = response.status();
        let body = response.bytes().await?;
        if status.is_success() {
            return Ok(body);
        }
        let body = String::from_utf8_lossy(&body).chars().take(500).collect();
        Err(SimError::Api {
            call: what.to_owned(),
            status: status.as_u16(),
            body,
        })
    }

    async fn get(&self, path: &str) -> Result<Bytes, SimError> {
        self.send(&format!("GET {path}"), self.call(Method::GET, path))
            .await
    }

    async fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T, SimError> {
        read(&format!("GET {path}"), &self.get(path).await?)
    }

    /// Adds or replaces an artifact.
    pub async fn put_artifact(&self, yaml: &str) -> Result<(), SimError> {
        let request = self.call(Method::PUT, "/artifacts").body(yaml.to_owned());
        self.send("PUT /artifacts", request).await.map(drop)
    }

    /// Asks for a flow; the same `wish` twice is one flow. Gives its id.
    pub async fn collect(
        &self,
        client: &str,
        artifact: &str,
        parameters: &Value,
        urgent: bool,
        wish: &str,
    ) -> Result<String, SimError> {
        #[derive(Deserialize)]
        struct Collected {
            flow_id: String,
        }
        let path = format!("/clients/{client}/flows");
        let body = json!({ "artifacts": [artifact], "parameters": parameters, "urgent": urgent });
        let request = self
            .call(Method::POST, &path)
            .header("Idempotency-Key", wish)
            .json(&body);
        let what = format!("POST {path}");
        let answer = self.send(&what, request).await?;
        read::<Collected>(&what, &answer).map(|collected| collected.flow_id)
    }

    /// Cancels a flow.
    pub async fn cancel(&self, client: &str, flow: &str) -> Result<(), SimError> {
        let path = format!("/clients/{client}/flows/{flow}/cancel");
        self.send(&format!("POST {path}"), self.call(Method::POST, &path))
            .await
            .map(drop)
    }

    /// A client's document, if it is known.
    pub async fn client(&self, client: &str) -> Result<Option<Value>, SimError> {
        missing_is_none(self.json(&format!("/clients/{client}")).await)
    }

    /// The documents of all flows of a client, by flow id.
    pub async fn flows(&self, client: &str) -> Result<BTreeMap<String, Value>, SimError> {
        #[derive(Deserialize)]
        struct Page {
            flows: Vec<Value>,
            next: Option<String>,
        }
        let mut flows = BTreeMap::new();
        let mut path = format!("/clients/{client}/flows?limit=1000");
        loop {
            let page: Page = self.json(&path).await?;
            for flow in page.flows {
                let id = flow
                    .get("flow_id")
                    .and_then(Value::as_str)
                    .unwrap_or_default();
                flows.insert(id.to_owned(), flow);
            }
            let Some(next) = page.next else {
                return Ok(flows);
            };
            path = format!("/clients/{client}/flows?limit=1000&after={next}");
        }
    }

    /// Everything that is shown of a flow, whose document the caller has.
    pub async fn shown(
        &self,
        client: &str,
        flow: &str,
        document: Value,
    ) -> Result<Shown, SimError> {
        #[derive(Deserialize)]
        struct Set {
            name: String,
        }
        let path = format!("/clients/{client}/flows/{flow}");
        let mut results = BTreeMap::new();
        for Set { name } in self.json::<Vec<Set>>(&format!("{path}/results")).await? {
            let rows = self.get(&format!("{path}/results/{name}")).await?;
            results.insert(name, rows);
        }
        let logs = self.get(&format!("{path}/logs")).await?;
        let mut uploads: Vec<ShownUpload> = self.json(&format!("{path}/uploads")).await?;
        for upload in &mut uploads {
            upload.bytes = self
                .get(&format!("{path}/uploads/{}", upload.upload_id))
                .await?;
        }
        Ok(Shown {
            document,
            results,
            logs,
            uploads,
        })
    }

    /// A flow's document, if there is one.
    pub async fn flow(&self, client: &str, flow: &str) -> Result<Option<Value>, SimError> {
        missing_is_none(self.json(&format!("/clients/{client}/flows/{flow}")).await)
    }

    /// How many records each topic has.
    pub async fn topics(&self) -> Result<BTreeMap<String, u64>, SimError> {
        #[derive(Deserialize)]
        struct Topic {
            name: String,
            end: u64,
        }
        let topics: Vec<Topic> = self.json("/topics").await?;
        Ok(topics
            .into_iter()
            .map(|topic| (topic.name, topic.end))
            .collect())
    }
}

fn read<T: DeserializeOwned>(call: &str, body: &[u8]) -> Result<T, SimError> {
    serde_json::from_slice(body).map_err(|error| SimError::Api {
        call: call.to_owned(),
        status: 200,
        body: format!(
            "{error}: {}",
            String::from_utf8_lossy(body)
                .chars()
                .take(200)
                .collect::<String>()
        ),
    })
}

fn missing_is_none<T>(answer: Result<T, SimError>) -> Result<Option<T>, SimError> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(SimError::Api { status, .. }) if status == StatusCode::NOT_FOUND.as_u16() => Ok(None),
        Err(error) => Err(error),
    }
}
