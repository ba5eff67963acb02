//! Recorded traffic, opened: its requests in their order, and the messages inside them.

use bytes::Bytes;
use nublar_wire::testing::{Capture, Exchange};
use nublar_wire::{
    AgentKey, AgentSession, Compression, Envelope, Message, Plaintext, PublicKey, ServerKeys,
    message_list, messages,
};
use serde_json::Value;

const LIST: usize = 64 << 20;

/// A recorded request.
#[derive(Debug, Clone)]
pub struct Letter {
    /// Its number in the recording, 0 for one that was made of others.
    pub number: u64,
    /// Where it goes, for example `/control`.
    pub path: String,
    /// The body as it was on the wire.
    pub body: Bytes,
    /// What the recorded server answered.
    pub status: u16,
    /// What another program read in it.
    pub decoded: Value,
}

/// A recording.
#[derive(Debug, Clone)]
pub struct Recorded {
    capture: Capture,
    letters: Vec<Letter>,
    nonce: String,
    agent: AgentKey,
    server: PublicKey,
}

fn text(pem: &[u8]) -> String {
    String::from_utf8(pem.to_vec()).unwrap()
}

impl Recorded {
    /// Loads `collections`, `events` or `websocket`.
    pub fn load(name: &str) -> Self {
        let capture = Capture::load(name).unwrap();
        let exchanges = [capture.exchanges().unwrap(), capture.frames().unwrap()];
        let letters: Vec<_> = exchanges
            .into_iter()
            .flatten()
            .filter(|exchange| !exchange.request.is_empty())
            .map(letter)
            .collect();
        let nonce = letters[0].decoded["nonce"].as_str().unwrap().to_owned();
        let agent = AgentKey::from_pem(&capture.agent_key).unwrap();
        let server = PublicKey::from_certificate_pem(&capture.server_certificate).unwrap();
        Self {
            capture,
            letters,
            nonce,
            agent,
            server,
        }
    }

    /// Everything that was posted, in its order.
    pub fn letters(&self) -> &[Letter] {
        &self.letters
    }

    /// The two before which the agent was not known: both were answered with 406.
    pub fn enrolment(&self) -> &[Letter] {
        let (first, _) = self.letters.split_at(2);
        assert!(first.iter().all(|letter| letter.status == 406));
        first
    }

    /// What was taken, in its order.
    pub fn taken(&self) -> &[Letter] {
        let (_, rest) = self.letters.split_at(2);
        assert!(rest.iter().all(|letter| letter.status == 200));
        rest
    }

    /// The messages of a letter, as the agent serialized them.
    pub fn messages(&self, letter: &Letter) -> Vec<Message> {
        let keys = ServerKeys::from_pem(&self.capture.server_key).unwrap();
        let envelope = Envelope::parse(letter.body.clone()).unwrap();
        let unverified = envelope.unwrap_session(&keys).unwrap();
        let session = unverified.verify(self.agent.public_key()).unwrap();
        let packed = session.open(&envelope).unwrap();
        packed
            .lists(LIST)
            .flat_map(|list| messages(list.unwrap()))
            .map(Result::unwrap)
            .collect()
    }

    /// The agent's id.
    pub fn client_id(&self) -> &str {
        self.capture.client_id()
    }

    /// The nonce in the agent's config.
    pub fn nonce(&self) -> &str {
        &self.nonce
    }

    /// `index.json`.
    pub fn index(&self) -> &Value {
        &self.capture.index
    }

    /// A new session of the recorded agent.
    pub fn session(&self) -> AgentSession {
        AgentSession::new(&self.agent, &self.server).unwrap()
    }

    /// The agent's key.
    pub fn agent(&self) -> &AgentKey {
        &self.agent
    }

    /// The key that it encrypts to.
    pub fn server(&self) -> &PublicKey {
        &self.server
    }

    /// A body of these messages, sealed as the agent does it.
    pub fn seal(&self, session: &AgentSession, messages: &[Bytes]) -> Bytes {
        let list = message_list(messages);
        let plain = Plaintext::new(
            &[list],
            Compression::Zlib,
            &self.nonce,
            1_795_515_000_000_000,
        );
        session.seal(&plain).unwrap()
    }

    pub(crate) fn server_certificate(&self) -> String {
        text(&self.capture.server_certificate)
    }

    pub(crate) fn server_key(&self) -> String {
        text(&self.capture.server_key)
    }

    pub(crate) fn ca_certificate(&self) -> String {
        text(&self.capture.ca_certificate)
    }
}

fn letter(exchange: Exchange) -> Letter {
    Letter {
        number: exchange.number,
        path: exchange.path,
        body: exchange.request,
        status: exchange.status,
        decoded: exchange.request_decoded.unwrap(),
    }
}
