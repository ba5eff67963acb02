//! Posts letters to frontends, over HTTPS and plain HTTP.

use crate::recorded::Letter;
use bytes::Bytes;
use nublar_simulator::{Broken, Faults, Transport, Trust};

pub use nublar_simulator::Reply;

/// An agent's connections to one or several frontends.
#[derive(Debug)]
pub struct Player {
    transport: Transport,
    urls: Vec<String>,
}

impl Player {
    /// To the frontends at these URLs, which end with a slash; trusts the CA, PEM.
    pub fn new(ca_pem: &str, urls: &[String]) -> Self {
        let trust = Trust::new(ca_pem.as_bytes()).unwrap();
        assert!(!urls.is_empty(), "no frontend to play to");
        Self {
            transport: Transport::new(&trust, false, Faults::NONE, 0).unwrap(),
            urls: urls.to_vec(),
        }
    }

    /// Posts a body to the frontend of this turn: they alternate.
    pub async fn post(&self, turn: usize, path: &str, body: Bytes) -> Result<Reply, Broken> {
        let url = self.urls[turn % self.urls.len()].trim_end_matches('/');
        let urgent = path == "/reader";
        self.transport
            .post(&format!("{url}{path}"), body, urgent)
            .await
    }

    /// What `server.pem` says.
    pub async fn certificate(&self) -> Reply {
        let url = self.urls[0].trim_end_matches('/');
        self.transport
            .get(&format!("{url}/server.pem"))
            .await
            .unwrap()
    }

    /// Posts a letter; it must be answered with this status.
    pub async fn play(&self, turn: usize, letter: &Letter, status: u16) {
        let answer = self
            .post(turn, &letter.path, letter.body.clone())
            .await
            .unwrap_or_else(|broken| panic!("request {}: {broken:?}", letter.number));
        assert_eq!(answer.status, status, "request {}", letter.number);
    }
}
