//! The sealing side: a session of our own making, and bodies under it.

use std::fmt;

use aws_lc_rs::rand;
use bytes::Bytes;
use nublar_schemas::agent::{CipherMetadata, CipherProperties, cipher_properties::HmacType};
use prost::Message as _;

use crate::envelope::{API_VERSION, Authenticated, BLOCK};
use crate::error::WireError;
use crate::keys::{AgentPublicKey, PrivateKey, PublicKey, ServerKey};
use crate::packed::{Compression, Plaintext, message_list};
use crate::session::{CIPHER_NAME, Channel};

/// The name by which a server signs, unless the agents' config pins another one.
pub const SERVER_NAME: &str = "VelociraptorServer";

/// A session that we made: its keys, and what every body under it repeats.
pub(crate) struct Seal {
    channel: Channel,
    cipher: Bytes,
    metadata: Vec<u8>,
}

impl Seal {
    /// Makes keys, encrypts them to the receiver and signs them: two RSA operations, once.
    pub(crate) fn new(from: &PrivateKey, to: &PublicKey, source: &str) -> Result<Self, WireError> {
        let metadata_iv = random()?;
        let properties = CipherProperties {
            name: CIPHER_NAME.into(),
            key: Bytes::copy_from_slice(&random()?),
            metadata_iv: Bytes::copy_from_slice(&metadata_iv),
            hmac_key: Bytes::copy_from_slice(&random()?),
            hmac_type: HmacType::Full.into(),
        };
        let channel = Channel::new(&properties)?;
        let properties = properties.encode_to_vec();
        let claim = CipherMetadata {
            source: source.into(),
            signature: from.sign(&properties)?.into(),
        };
        let mut metadata = claim.encode_to_vec();
        channel.encrypt(&metadata_iv, &mut metadata)?;
        Ok(Self {
            channel,
            cipher: to.encrypt(&properties)?,
            metadata,
        })
    }

    /// Encrypts and authenticates, with a fresh IV.
    pub(crate) fn seal(&self, mut plain: Vec<u8>) -> Result<Bytes, WireError> {
        let packet_iv = random()?;
        self.channel.encrypt(&packet_iv, &mut plain)?;
        let parts = Authenticated {
            encrypted: &plain,
            cipher: &self.cipher,
            metadata: &self.metadata,
            packet_iv: &packet_iv,
            api_version: API_VERSION,
        };
        Ok(parts.write(self.channel.hmac(&parts).as_ref()))
    }
}

fn random() -> Result<[u8; BLOCK], WireError> {
    let mut bytes = [0; BLOCK];
    rand::fill(&mut bytes).map_err(|_| WireError::Crypto {
        what: "give random bytes",
    })?;
    Ok(bytes)
}

/// Our session with one agent. Making it costs an RSA signature: make one per agent, keep it, and
/// drop it when the client is deleted.
pub struct OutboundSession {
    seal: Seal,
}

impl OutboundSession {
    /// `server_key` is the one the agent encrypted to (see
    /// [`Session::server_key`](crate::Session::server_key)); `source` is our name, as a rule
    /// [`SERVER_NAME`].
    pub fn new(
        server_key: &ServerKey,
        agent: &AgentPublicKey,
        source: &str,
    ) -> Result<Self, WireError> {
        Ok(Self {
            seal: Seal::new(&server_key.0, agent.public_key(), source)?,
        })
    }

    /// Makes a body of serialized `VeloMessage`s, none of them for an empty answer. `nonce` is that
    /// of the agent's org, `timestamp_us` in microseconds since 1970.
    pub fn seal(
        &self,
        messages: &[Bytes],
        nonce: &str,
        timestamp_us: u64,
    ) -> Result<Bytes, WireError> {
        let list = message_list(messages);
        self.seal
            .seal(Plaintext::new(&[list], Compression::None, nonce, timestamp_us).into_vec())
    }
}

impl fmt::Debug for OutboundSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutboundSession").finish_non_exhaustive()
    }
}
