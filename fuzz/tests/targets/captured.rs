//! Seeds: what a stock agent sent.

use bytes::Bytes;
use nublar_wire::testing::Capture;
use nublar_wire::{AgentKey, Envelope, Packed, ServerKeys, Session};
use std::sync::LazyLock;

/// Recorded traffic, with what opens it.
pub(crate) struct Captured {
    pub(crate) keys: ServerKeys,
    pub(crate) agent: AgentKey,
    /// Bodies with the sessions that open them, and what stands in them.
    pub(crate) bodies: Vec<(Bytes, Session, Packed)>,
    /// The streams of WebSockets behind their heads: from agents, from servers.
    pub(crate) streams: Vec<(Bytes, Bytes)>,
}

pub(crate) static CAPTURED: LazyLock<Captured> = LazyLock::new(|| {
    let capture = Capture::load("collections").unwrap();
    let keys = ServerKeys::from_pem(&capture.server_key).unwrap();
    let agent = AgentKey::from_pem(&capture.agent_key).unwrap();
    let exchanges = capture.exchanges().unwrap().into_iter();
    let bodies = exchanges
        .map(|exchange| exchange.request)
        .filter(|body| !body.is_empty() && body.len() <= nublar_fuzz::LARGEST)
        .map(|body| {
            let envelope = Envelope::parse(body.clone()).unwrap();
            let unverified = envelope.unwrap_session(&keys).unwrap();
            let session = unverified.verify(agent.public_key()).unwrap();
            let packed = session.open(&envelope).unwrap();
            (body, session, packed)
        })
        .collect();
    let sockets = Capture::load("websocket").unwrap();
    let streams = (2..=5).map(|number| {
        let (agent, server) = sockets.stream(number).unwrap();
        (behind_head(agent), behind_head(server))
    });
    Captured {
        keys,
        agent,
        bodies,
        streams: streams.collect(),
    }
});

fn behind_head(stream: Bytes) -> Bytes {
    let head = stream.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
    stream.slice(head..)
}
