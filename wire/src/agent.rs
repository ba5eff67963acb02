//! The agent's side: its key, what it sends, and how it reads answers. For the simulator and for
//! tests.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use crate::enrol::make_csr;
use crate::envelope::Envelope;
use crate::error::WireError;
use crate::keys::{AgentPublicKey, PrivateKey, PublicKey};
use crate::message::{Message, messages};
use crate::outbound::Seal;
use crate::packed::{Packed, Plaintext};
use crate::session::Claim;

/// The key of an agent, and thereby its id. Cheap to clone.
#[derive(Clone)]
pub struct AgentKey {
    key: PrivateKey,
    public: AgentPublicKey,
}

impl AgentKey {
    /// Makes a new key of 2,048 bits: tens of milliseconds.
    pub fn generate() -> Result<Self, WireError> {
        Self::new(PrivateKey::generate()?)
    }

    /// Reads the first private key of a PEM text, PKCS#1 or PKCS#8.
    pub fn from_pem(pem: &[u8]) -> Result<Self, WireError> {
        Self::new(PrivateKey::from_pem(pem)?)
    }

    fn new(key: PrivateKey) -> Result<Self, WireError> {
        let public = key.public_key().clone().try_into()?;
        Ok(Self { key, public })
    }

    /// The key as PKCS#8 in PEM.
    pub fn to_pem(&self) -> Result<String, WireError> {
        self.key.to_pem()
    }

    /// The id that follows from the key.
    pub fn client_id(&self) -> &str {
        self.public.client_id()
    }

    /// The public half.
    pub fn public_key(&self) -> &AgentPublicKey {
        &self.public
    }

    /// A certificate request for this key's id, in PEM.
    pub fn csr_pem(&self) -> Result<String, WireError> {
        make_csr(&self.key, self.client_id())
    }

    /// A certificate request for any name, as only a hostile agent makes it.
    pub fn csr_pem_for(&self, common_name: &str) -> Result<String, WireError> {
        make_csr(&self.key, common_name)
    }
}

impl fmt::Debug for AgentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AgentKey").field(&self.client_id()).finish()
    }
}

/// What an answer says.
#[derive(Debug, Clone)]
pub enum Answer {
    /// Pads alone, or an empty body.
    Nothing,
    /// A message list of the server, possibly empty.
    Packed(Packed),
}

impl Answer {
    /// All messages of the answer, each list of at most `limit` bytes.
    pub fn messages(&self, limit: usize) -> Result<Vec<Message>, WireError> {
        let mut out = Vec::new();
        if let Self::Packed(packed) = self {
            for list in packed.lists(limit) {
                for message in messages(list?) {
                    out.push(message?);
                }
            }
        }
        Ok(out)
    }
}

/// A session of an agent with a server. A rekey is a new one.
pub struct AgentSession {
    key: AgentKey,
    server: PublicKey,
    seal: Seal,
    /// The server's session and the cipher it came under.
    answers: Mutex<Option<(Box<[u8]>, Claim)>>,
}

impl AgentSession {
    /// Makes the keys of a session; `server` is read from `server.pem` by
    /// [`PublicKey::from_certificate_pem`].
    pub fn new(key: &AgentKey, server: &PublicKey) -> Result<Self, WireError> {
        Self::with_source(key, server, key.client_id())
    }

    /// A session in the name of `source`, as only a hostile agent makes it.
    pub fn with_source(
        key: &AgentKey,
        server: &PublicKey,
        source: &str,
    ) -> Result<Self, WireError> {
        Ok(Self {
            seal: Seal::new(&key.key, server, source)?,
            key: key.clone(),
            server: server.clone(),
            answers: Mutex::new(None),
        })
    }

    /// Makes a body. Sealing the same plaintext again gives another body with the same messages:
    /// that is how an agent repeats itself after a failure, while its immediate retries are the
    /// same bytes.
    pub fn seal(&self, plain: &Plaintext) -> Result<Bytes, WireError> {
        self.seal.seal(plain.to_vec())
    }

    /// Reads an answer: pads, and the message behind them. The server's session is opened and its
    /// signature checked when it is new.
    ///
    /// Errors: broken, not for this agent, or not signed by the server.
    pub fn open(&self, body: Bytes) -> Result<Answer, WireError> {
        let envelope = Envelope::parse(body)?;
        if envelope.is_pad() {
            return Ok(Answer::Nothing);
        }
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let known = answers
            .as_ref()
            .filter(|(cipher, _)| **cipher == *envelope.cipher());
        let channel = match known {
            Some((_, claim)) => claim.channel.clone(),
            None => {
                let properties = self
                    .key
                    .key
                    .decrypt(envelope.cipher())
                    .ok_or(WireError::NotForUs)?;
                let claim = Claim::read(&envelope, properties)?;
                claim.check_signature(&self.server)?;
                let channel = claim.channel.clone();
                *answers = Some((envelope.cipher().into(), claim));
                channel
            }
        };
        drop(answers);
        channel.open(&envelope).map(Answer::Packed)
    }

    /// The name in which the server signed its session, once an answer has come.
    pub fn server_name(&self) -> Option<String> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.as_ref().map(|(_, claim)| claim.source.clone())
    }
}

impl fmt::Debug for AgentSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentSession")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}
