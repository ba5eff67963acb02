//! Finds and loads the recorded traffic in `tests/data/interop`, for tests only.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde_json::Value;

/// One folder of recorded traffic.
#[derive(Debug, Clone)]
pub struct Capture {
    dir: PathBuf,
    /// `index.json`.
    pub index: Value,
    /// The frontend's private key, PEM.
    pub server_key: Vec<u8>,
    /// The frontend's certificate, PEM.
    pub server_certificate: Vec<u8>,
    /// The agent's private key, PEM.
    pub agent_key: Vec<u8>,
    /// The certificate authority's certificate, PEM.
    pub ca_certificate: Vec<u8>,
}

/// One HTTP exchange.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// Its number in the folder.
    pub number: u64,
    /// For example `/control`.
    pub path: String,
    /// The HTTP status of the answer.
    pub status: u16,
    /// The body of the request, empty for a GET.
    pub request: Bytes,
    /// The whole body of the answer.
    pub response: Bytes,
    /// The request as another program decoded it.
    pub request_decoded: Option<Value>,
    /// The answer as another program decoded it.
    pub response_decoded: Option<Value>,
}

impl Capture {
    /// Loads `collections`, `events` or `websocket`.
    pub fn load(name: &str) -> io::Result<Self> {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/interop");
        let dir = Path::new(root).join(name);
        Ok(Self {
            index: json(&dir.join("index.json"))?,
            server_key: fs::read(dir.join("server.key"))?,
            server_certificate: fs::read(dir.join("server.crt"))?,
            agent_key: fs::read(dir.join("agent.key"))?,
            ca_certificate: fs::read(dir.join("ca.crt"))?,
            dir,
        })
    }

    /// The client id that the recording names.
    pub fn client_id(&self) -> &str {
        self.index["client_id"].as_str().unwrap_or_default()
    }

    /// The HTTP exchanges, in their order.
    pub fn exchanges(&self) -> io::Result<Vec<Exchange>> {
        let listed = self.index["exchanges"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        listed.iter().map(|entry| self.exchange(entry)).collect()
    }

    fn exchange(&self, entry: &Value) -> io::Result<Exchange> {
        let number = entry["n"].as_u64().unwrap_or_default();
        let file = |end: &str| self.dir.join(format!("{number:04}-{end}"));
        Ok(Exchange {
            number,
            path: entry["path"].as_str().unwrap_or_default().into(),
            status: entry["status"]
                .as_u64()
                .and_then(|s| s.try_into().ok())
                .unwrap_or_default(),
            request: optional(fs::read(file("request.bin")))?
                .unwrap_or_default()
                .into(),
            response: optional(fs::read(file("response.bin")))?
                .unwrap_or_default()
                .into(),
            request_decoded: optional(json(&file("request.json")))?,
            response_decoded: optional(json(&file("response.json")))?,
        })
    }

    /// The raw stream of a WebSocket connection: from the agent, from the server.
    pub fn stream(&self, connection: u64) -> io::Result<(Bytes, Bytes)> {
        let read = |side: &str| fs::read(self.dir.join(format!("{connection:02}-from-{side}.bin")));
        Ok((read("agent")?.into(), read("server")?.into()))
    }
}

fn json(path: &Path) -> io::Result<Value> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

fn optional<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}
