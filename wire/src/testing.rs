//! Finds and loads the recorded traffic in `tests/data/interop`, for tests only.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use serde_json::Value;

use crate::{Incoming, Side, SocketReader};

/// No recorded message is larger.
const LARGEST: usize = 16 << 20;

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

    /// What the agent said over WebSockets, in its order over all connections: requests whose
    /// answers are statuses without a body.
    pub fn frames(&self) -> io::Result<Vec<Exchange>> {
        let listed = self.index["connections"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let sockets = listed.iter().filter(|c| c.get("from_agent").is_some());
        let mut frames = Vec::new();
        for socket in sockets {
            frames.extend(self.frames_of(socket)?);
        }
        frames.sort_by_key(|(at_ms, _)| *at_ms);
        let numbered = frames.into_iter().zip(1..);
        Ok(numbered
            .map(|((_, exchange), number)| Exchange { number, ..exchange })
            .collect())
    }

    fn frames_of(&self, socket: &Value) -> io::Result<Vec<(u64, Exchange)>> {
        let broken = |error: &dyn std::fmt::Display| io::Error::other(error.to_string());
        let list = |name: &str| {
            socket[name]
                .as_array()
                .map(Vec::as_slice)
                .unwrap_or_default()
        };
        let number = socket["connection"].as_u64().unwrap_or_default();
        let head = socket["request_head"][0].as_str().unwrap_or_default();
        let path = head.split(' ').nth(1).unwrap_or_default();
        let refused = list("from_server")
            .iter()
            .find(|frame| frame["code"] == 406);
        let (stream, _) = self.stream(number)?;
        let end = stream.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.ok_or_else(|| broken(&"a stream without a head"))? + 4;
        let mut input = BytesMut::from(&stream[end..]);
        let mut reader = SocketReader::new(Side::Agent, LARGEST);
        let mut decoded = list("from_agent")
            .iter()
            .filter(|frame| frame["opcode"] == 2);
        let mut frames = Vec::new();
        while !input.is_empty() {
            let before = input.len();
            match reader.read(&mut input).map_err(|error| broken(&error))? {
                Some(Incoming::Message(request)) => {
                    let behind = (stream.len() - input.len()) as u64;
                    let exchange = Exchange {
                        number: 0,
                        path: path.to_owned(),
                        status: if refused.is_some() { 406 } else { 200 },
                        request,
                        response: Bytes::new(),
                        request_decoded: decoded.next().map(|frame| frame["decoded"].clone()),
                        response_decoded: None,
                    };
                    frames.push((when(list("timing"), behind), exchange));
                }
                Some(_) => {}
                // The recording may end within a frame.
                None if input.len() == before => break,
                None => {}
            }
        }
        Ok(frames)
    }

    /// The raw stream of a WebSocket connection: from the agent, from the server.
    pub fn stream(&self, connection: u64) -> io::Result<(Bytes, Bytes)> {
        let read = |side: &str| fs::read(self.dir.join(format!("{connection:02}-from-{side}.bin")));
        Ok((read("agent")?.into(), read("server")?.into()))
    }
}

/// When the agent had sent so many bytes, milliseconds.
fn when(timing: &[Value], bytes: u64) -> u64 {
    let mut sent = 0;
    let of_agent = timing.iter().filter(|entry| entry[1] == "agent");
    for entry in of_agent {
        sent += entry[2].as_u64().unwrap_or_default();
        if sent >= bytes {
            return (entry[0].as_f64().unwrap_or_default() * 1_000.0) as u64;
        }
    }
    u64::MAX
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
