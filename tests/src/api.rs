//! The people's side of a server, as its users see it.

use crate::wait::eventually;
use nublar_simulator::Trust;
use serde_json::Value;
use std::time::Duration;

/// Where the API is, and what lets one in.
#[derive(Debug, Clone)]
pub struct Api {
    http: reqwest::Client,
    url: String,
    token: String,
}

/// A part of something.
#[derive(Debug, Clone)]
pub struct Part {
    /// The status: 206, or 416 where there is none.
    pub status: u16,
    /// Which part of how much.
    pub range: String,
    /// The bytes.
    pub body: Vec<u8>,
}

impl Api {
    /// At `url`, as `http://host:port`.
    pub fn new(url: &str, token: &str, ca_pem: &str) -> Self {
        let tls = Trust::new(ca_pem.as_bytes())
            .unwrap()
            .client_config(false)
            .unwrap();
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .no_proxy()
            .timeout(Duration::from_secs(50))
            .build()
            .unwrap();
        Self {
            http,
            url: url.to_owned(),
            token: token.to_owned(),
        }
    }

    /// `GET /api/v1{path}`: the status and the body.
    pub async fn try_get(&self, path: &str) -> Result<(u16, Vec<u8>), reqwest::Error> {
        let answer = self
            .http
            .get(format!("{}/api/v1{path}", self.url))
            .bearer_auth(&self.token)
            .send()
            .await?;
        let status = answer.status().as_u16();
        Ok((status, answer.bytes().await?.to_vec()))
    }

    /// `GET /api/v1{path}`, which must be answered with 200.
    pub async fn get(&self, path: &str) -> Vec<u8> {
        let (status, body) = self
            .try_get(path)
            .await
            .unwrap_or_else(|error| panic!("GET {path}: {error:?}"));
        assert_eq!(
            status,
            200,
            "GET {path}: {}",
            String::from_utf8_lossy(&body)
        );
        body
    }

    /// `GET /api/v1{path}` of a part: `range` as `bytes=0-9`.
    pub async fn part(&self, path: &str, range: &str) -> Part {
        let request = self
            .http
            .get(format!("{}/api/v1{path}", self.url))
            .bearer_auth(&self.token)
            .header("Range", range);
        let answer = request.send().await.unwrap();
        let said = answer.headers().get("Content-Range");
        Part {
            status: answer.status().as_u16(),
            range: said.map_or("", |said| said.to_str().unwrap()).to_owned(),
            body: answer.bytes().await.unwrap().to_vec(),
        }
    }

    /// As [`Api::get`], as text.
    pub async fn text(&self, path: &str) -> String {
        String::from_utf8(self.get(path).await).unwrap()
    }

    /// As [`Api::get`], as JSON.
    pub async fn json(&self, path: &str) -> Value {
        serde_json::from_slice(&self.get(path).await).unwrap()
    }

    /// `POST /api/v1{path}` of JSON: the status and the answer.
    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.post_under(None, path, body).await
    }

    /// The same under an Idempotency-Key.
    pub async fn post_under(&self, key: Option<&str>, path: &str, body: &Value) -> (u16, Value) {
        let mut request = self
            .http
            .post(format!("{}/api/v1{path}", self.url))
            .bearer_auth(&self.token)
            .json(body);
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.bytes().await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    /// `PUT /api/v1{path}` of a text: the status and the answer.
    pub async fn put(&self, path: &str, text: &str) -> (u16, Value) {
        let request = self
            .http
            .put(format!("{}/api/v1{path}", self.url))
            .bearer_auth(&self.token)
            .body(text.to_owned());
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.bytes().await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    /// Waits until everything that was taken is stored and folded: no group is behind, and nothing
    /// was appended between two looks.
    pub async fn settled(&self) {
        let mut before = None;
        eventually("every group has read everything", async || {
            let topics = self.json("/topics").await;
            let ends = resting(&topics)?;
            if before.replace(ends.clone()).as_ref() == Some(&ends) {
                Ok(())
            } else {
                Err("something was appended between two looks".to_owned())
            }
        })
        .await;
    }

    /// Everything that is stored, as lines of JSON that are the same wherever the same is stored.
    pub async fn dump(&self) -> String {
        self.settled().await;
        self.text("/dump").await
    }
}

/// The ends of all topics, if no group is behind.
fn resting(topics: &Value) -> Result<Vec<(String, u64)>, String> {
    let mut ends = Vec::new();
    for topic in topics.as_array().unwrap() {
        let name = topic["name"].as_str().unwrap();
        for group in topic["groups"].as_array().unwrap() {
            if group["lag"].as_u64() != Some(0) {
                return Err(format!("{name}: {group}"));
            }
        }
        ends.push((name.to_owned(), topic["end"].as_u64().unwrap()));
    }
    Ok(ends)
}
