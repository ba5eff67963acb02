//! Sessions: the keys that two peers share for a while, and the proof of whose they are.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::cipher::{
    AES_128, DecryptionContext, EncryptionContext, PaddedBlockDecryptingKey,
    PaddedBlockEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;
use bytes::Bytes;
use nublar_schemas::agent::{CipherMetadata, CipherProperties, cipher_properties::HmacType};
use prost::Message as _;

use crate::envelope::{Authenticated, BLOCK, Envelope};
use crate::error::WireError;
use crate::keys::{AgentPublicKey, PublicKey, ServerKey, ServerKeys};
use crate::packed::Packed;

pub(crate) const CIPHER_NAME: &str = "aes_128_cbc";

/// The keys of a session, ready for use.
pub(crate) struct Channel {
    encrypting: PaddedBlockEncryptingKey,
    decrypting: PaddedBlockDecryptingKey,
    hmac: hmac::Key,
}

impl Channel {
    /// Takes the keys; what is not AES-128-CBC with a full HMAC and sound sizes is refused.
    pub(crate) fn new(properties: &CipherProperties) -> Result<Self, WireError> {
        if properties.name != CIPHER_NAME {
            // The name is the peer's: it is not repeated in full.
            let name: String = properties.name.chars().take(32).collect();
            return Err(WireError::Unsupported {
                what: format!("cipher {name:?}"),
            });
        }
        if properties.hmac_type != i32::from(HmacType::Full) {
            let what = format!("hmac type {}", properties.hmac_type);
            return Err(WireError::Unsupported { what });
        }
        for (field, value) in [
            ("key", &properties.key),
            ("metadata_iv", &properties.metadata_iv),
            ("hmac_key", &properties.hmac_key),
        ] {
            if value.len() != BLOCK {
                return Err(WireError::KeySize {
                    field,
                    len: value.len(),
                });
            }
        }
        let refused = |_| WireError::Crypto {
            what: "take an aes key",
        };
        let key = || UnboundCipherKey::new(&AES_128, &properties.key);
        Ok(Self {
            encrypting: key()
                .and_then(PaddedBlockEncryptingKey::cbc_pkcs7)
                .map_err(refused)?,
            decrypting: key()
                .and_then(PaddedBlockDecryptingKey::cbc_pkcs7)
                .map_err(refused)?,
            hmac: hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &properties.hmac_key),
        })
    }

    pub(crate) fn hmac(&self, parts: &Authenticated<'_>) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.hmac);
        for part in [
            parts.encrypted,
            parts.cipher,
            parts.metadata,
            parts.packet_iv,
        ] {
            context.update(part);
        }
        context.update(&parts.api_version.to_le_bytes());
        context.sign()
    }

    /// In constant time.
    pub(crate) fn check_hmac(&self, envelope: &Envelope) -> Result<(), WireError> {
        let tag = self.hmac(&envelope.authenticated());
        verify_slices_are_equal(tag.as_ref(), envelope.hmac()).map_err(|_| WireError::BadHmac)
    }

    /// Encrypts in place, with room made for the padding.
    pub(crate) fn encrypt(&self, iv: &[u8; BLOCK], plain: &mut Vec<u8>) -> Result<(), WireError> {
        self.encrypting
            .less_safe_encrypt(plain, EncryptionContext::Iv128(FixedLength::from(iv)))
            .map(|_| ())
            .map_err(|_| WireError::Crypto { what: "encrypt" })
    }

    pub(crate) fn decrypt(
        &self,
        what: &'static str,
        iv: &[u8; BLOCK],
        encrypted: &[u8],
    ) -> Result<Bytes, WireError> {
        if encrypted.is_empty() || !encrypted.len().is_multiple_of(BLOCK) {
            return Err(WireError::BadPadding { what });
        }
        let mut plain = encrypted.to_vec();
        let context = DecryptionContext::Iv128(FixedLength::from(iv));
        let len = self
            .decrypting
            .decrypt(&mut plain, context)
            .map_err(|_| WireError::BadPadding { what })?
            .len();
        plain.truncate(len);
        Ok(plain.into())
    }

    /// Checks the HMAC, decrypts, and reads what is inside.
    pub(crate) fn open(&self, envelope: &Envelope) -> Result<Packed, WireError> {
        if envelope.is_pad() {
            return Err(WireError::OnlyPadding);
        }
        self.check_hmac(envelope)?;
        let plain = self.decrypt("message list", envelope.packet_iv(), envelope.encrypted())?;
        Packed::parse(plain)
    }
}

/// The keys of a session with the claim whose they are, not yet believed.
pub(crate) struct Claim {
    pub(crate) channel: Arc<Channel>,
    /// As decrypted: the signature is over these bytes.
    properties: Vec<u8>,
    signature: Bytes,
    pub(crate) source: String,
}

impl Claim {
    /// Reads the decrypted cipher properties of an envelope and, once its HMAC holds under them,
    /// its metadata.
    pub(crate) fn read(envelope: &Envelope, properties: Vec<u8>) -> Result<Self, WireError> {
        let keys = CipherProperties::decode(properties.as_slice())
            .map_err(WireError::undecodable("CipherProperties"))?;
        let channel = Channel::new(&keys)?;
        channel.check_hmac(envelope)?;
        let metadata_iv = keys
            .metadata_iv
            .as_ref()
            .try_into()
            .map_err(|_| WireError::KeySize {
                field: "metadata_iv",
                len: keys.metadata_iv.len(),
            })?;
        let metadata = channel.decrypt("cipher metadata", metadata_iv, envelope.metadata())?;
        let metadata =
            CipherMetadata::decode(metadata).map_err(WireError::undecodable("CipherMetadata"))?;
        Ok(Self {
            channel: Arc::new(channel),
            properties,
            signature: metadata.signature,
            source: metadata.source,
        })
    }

    pub(crate) fn check_signature(&self, key: &PublicKey) -> Result<(), WireError> {
        if key.verifies(&self.properties, &self.signature) {
            Ok(())
        } else {
            Err(WireError::BadSignature {
                source_name: self.source.chars().take(64).collect(),
            })
        }
    }
}

impl Envelope {
    /// Opens the session of a body that no cached session is for: one RSA decryption per valid key
    /// until one fits. The HMAC is checked before anything else is decrypted.
    ///
    /// Errors: [`WireError::NotForUs`] if no key fits; anything unsound inside.
    pub fn unwrap_session(&self, keys: &ServerKeys) -> Result<UnverifiedSession, WireError> {
        if self.is_pad() {
            return Err(WireError::OnlyPadding);
        }
        let (server_key, properties) = keys.decrypt(self.cipher()).ok_or(WireError::NotForUs)?;
        Ok(UnverifiedSession {
            claim: Claim::read(self, properties)?,
            server_key: server_key.clone(),
        })
    }
}

/// A session whose sender may be anybody.
pub struct UnverifiedSession {
    claim: Claim,
    server_key: ServerKey,
}

impl UnverifiedSession {
    /// Who the sender claims to be. Not checked in any way: see [`is_client_id`](crate::is_client_id).
    pub fn source(&self) -> &str {
        &self.claim.source
    }

    /// Opens a body of a sender who may be anybody: only a certificate request may be taken from it.
    ///
    /// Errors: as [`Session::open`].
    pub fn open(&self, envelope: &Envelope) -> Result<Packed, WireError> {
        self.claim.channel.open(envelope)
    }

    /// Believes the sender if `key` signed the session and is the key of the id it claims.
    ///
    /// Errors: [`WireError::BadSignature`], [`WireError::WrongSource`]: the sender is nobody.
    pub fn verify(&self, key: &AgentPublicKey) -> Result<Session, WireError> {
        if self.claim.source != key.client_id() {
            return Err(WireError::WrongSource {
                source_name: self.claim.source.chars().take(64).collect(),
                key_id: key.client_id().into(),
            });
        }
        self.claim.check_signature(key.public_key())?;
        Ok(Session {
            channel: self.claim.channel.clone(),
            source: key.client_id().into(),
            server_key: self.server_key.clone(),
        })
    }
}

impl fmt::Debug for UnverifiedSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnverifiedSession")
            .field("source", &self.source())
            .finish_non_exhaustive()
    }
}

/// The session of an agent that is known to be who it says. Cheap to clone; some 2 KiB to keep.
#[derive(Clone)]
pub struct Session {
    channel: Arc<Channel>,
    source: Arc<str>,
    server_key: ServerKey,
}

impl Session {
    /// The client id of the agent: the sender of every message in every body of this session.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The one of our keys to which the agent encrypted: it believes answers of that one alone.
    pub fn server_key(&self) -> &ServerKey {
        &self.server_key
    }

    /// Checks a body's HMAC, decrypts it and reads what is inside; no list is inflated yet.
    ///
    /// Errors: [`WireError::BadHmac`] for anything that this session did not seal.
    pub fn open(&self, envelope: &Envelope) -> Result<Packed, WireError> {
        self.channel.open(envelope)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::packed::{Compression, Plaintext};

    /// A body of an agent that writes the properties of its cipher in its own way.
    fn sealed(agent: &crate::keys::PrivateKey, source: &str, server: &ServerKey) -> Bytes {
        let properties = CipherProperties {
            name: CIPHER_NAME.into(),
            key: vec![1; BLOCK].into(),
            metadata_iv: vec![2; BLOCK].into(),
            hmac_key: vec![3; BLOCK].into(),
            hmac_type: HmacType::Full.into(),
        };
        let channel = Channel::new(&properties).unwrap();
        // A field of a later protocol stands first: a decoder that writes it anew leaves it out.
        let mut odd = vec![15 << 3, 1];
        odd.extend(properties.encode_to_vec());
        let again = CipherProperties::decode(&odd[..]).unwrap().encode_to_vec();
        assert_ne!(again, odd);
        let claim = CipherMetadata {
            source: source.into(),
            signature: agent.sign(&odd).unwrap().into(),
        };
        let mut metadata = claim.encode_to_vec();
        channel.encrypt(&[2; BLOCK], &mut metadata).unwrap();
        let mut plain = Plaintext::new(&[], Compression::Zlib, "nonce", 1).into_vec();
        channel.encrypt(&[4; BLOCK], &mut plain).unwrap();
        let cipher = server.public_key().encrypt(&odd).unwrap();
        let parts = Authenticated {
            encrypted: &plain,
            cipher: &cipher,
            metadata: &metadata,
            packet_iv: &[4; BLOCK],
            api_version: crate::envelope::API_VERSION,
        };
        parts.write(channel.hmac(&parts).as_ref())
    }

    #[test]
    fn a_signature_is_over_the_bytes_as_they_came() {
        let agent = crate::keys::PrivateKey::generate().unwrap();
        let public = AgentPublicKey::try_from(agent.public_key().clone()).unwrap();
        let server = ServerKey::generate().unwrap();
        let body = sealed(&agent, public.client_id(), &server);
        let envelope = Envelope::parse(body).unwrap();
        let unverified = envelope.unwrap_session(&server.into()).unwrap();
        let session = unverified.verify(&public).unwrap();
        assert_eq!(session.open(&envelope).unwrap().nonce(), "nonce");
    }
}
