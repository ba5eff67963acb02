//! RSA keys: of frontends, of agents, and the id that an agent has by its key.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{
    KeyPair, KeySize, OAEP_SHA1_MGF1SHA1, OaepPrivateDecryptingKey, OaepPublicEncryptingKey,
    PrivateDecryptingKey, PublicEncryptingKey,
};
use aws_lc_rs::signature::{
    KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, UnparsedPublicKey,
};
use bytes::Bytes;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::public_key::RSAPublicKey;

use crate::enrol::client_id_of_modulus;
use crate::error::WireError;

/// Larger keys are no agent's and no frontend's; checking them would cost too much.
const MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=512;

/// An RSA public key of 2,048 to 4,096 bits.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    der: Bytes,
}

impl PublicKey {
    /// Reads a key in DER: PKCS#1 `RSAPublicKey` or `SubjectPublicKeyInfo`.
    ///
    /// Errors: no RSA key, or one of another size.
    pub fn from_der(der: &[u8]) -> Result<Self, WireError> {
        let key = aws_lc_rs::rsa::PublicKey::from_der(der)
            .map_err(|error| bad_key("public key", format!("no rsa key ({error})")))?;
        let key = Self {
            der: Bytes::copy_from_slice(key.as_ref()),
        };
        let bytes = key.modulus()?.len();
        if !MODULUS_BYTES.contains(&bytes) {
            return Err(bad_key(
                "public key",
                format!("{} bits, expected 2,048 to 4,096", bytes * 8),
            ));
        }
        Ok(key)
    }

    /// Reads the key of the first certificate in a PEM text, as `server.pem` is one. The
    /// certificate itself is not checked: that is an agent's business.
    ///
    /// Errors: no certificate, or none with an RSA key.
    pub fn from_certificate_pem(pem: &[u8]) -> Result<Self, WireError> {
        let block = pem_block(pem, "certificate", &["CERTIFICATE"])?;
        let (_, certificate) = X509Certificate::from_der(&block.contents)
            .map_err(|error| bad_key("certificate", error.to_string()))?;
        Self::from_der(certificate.public_key().raw)
    }

    /// The key as a PKCS#1 `RSAPublicKey` in DER, which [`from_der`](Self::from_der) reads.
    pub fn to_der(&self) -> Bytes {
        self.der.clone()
    }

    /// Checks an RSA PKCS#1 v1.5 signature with SHA-256.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.der)
            .verify(message, signature)
            .is_ok()
    }

    /// RSA-OAEP with SHA-1.
    pub(crate) fn encrypt(&self, message: &[u8]) -> Result<Bytes, WireError> {
        let refused = |_| WireError::Crypto {
            what: "encrypt to a public key",
        };
        let spki = self.spki()?;
        let key = PublicEncryptingKey::from_der(&spki).map_err(|_| refused(()))?;
        let key = OaepPublicEncryptingKey::new(key).map_err(|_| refused(()))?;
        let mut out = vec![0; key.ciphertext_size()];
        let len = key
            .encrypt(&OAEP_SHA1_MGF1SHA1, message, &mut out, None)
            .map_err(|_| refused(()))?
            .len();
        out.truncate(len);
        Ok(out.into())
    }

    /// The key as `SubjectPublicKeyInfo` in DER.
    pub(crate) fn spki(&self) -> Result<Vec<u8>, WireError> {
        let refused = |_| WireError::Crypto {
            what: "write a public key",
        };
        let key = aws_lc_rs::rsa::PublicKey::from_der(&self.der).map_err(|_| refused(()))?;
        Ok(key.as_der().map_err(|_| refused(()))?.as_ref().to_vec())
    }

    /// The modulus as minimal big-endian bytes.
    fn modulus(&self) -> Result<&[u8], WireError> {
        let (_, key) = RSAPublicKey::from_der(&self.der)
            .map_err(|error| bad_key("public key", error.to_string()))?;
        let zeros = key.modulus.iter().take_while(|byte| **byte == 0).count();
        Ok(&key.modulus[zeros..])
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublicKey").finish_non_exhaustive()
    }
}

/// An agent's public key, with the client id that it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentPublicKey {
    key: PublicKey,
    client_id: Box<str>,
}

impl AgentPublicKey {
    /// Reads a key as [`PublicKey::from_der`] does, for example one that was kept as
    /// [`to_der`](Self::to_der) gave it.
    pub fn from_der(der: &[u8]) -> Result<Self, WireError> {
        PublicKey::from_der(der)?.try_into()
    }

    /// The key as a PKCS#1 `RSAPublicKey` in DER: 270 bytes for 2,048 bits.
    pub fn to_der(&self) -> Bytes {
        self.key.to_der()
    }

    /// The id of the agent that has this key: `C.` and 16 hex digits.
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// The key alone.
    pub fn public_key(&self) -> &PublicKey {
        &self.key
    }
}

impl TryFrom<PublicKey> for AgentPublicKey {
    type Error = WireError;

    fn try_from(key: PublicKey) -> Result<Self, WireError> {
        let client_id = client_id_of_modulus(key.modulus()?).into();
        Ok(Self { key, client_id })
    }
}

/// An RSA private key that decrypts and signs.
#[derive(Clone)]
pub(crate) struct PrivateKey {
    key: Arc<(OaepPrivateDecryptingKey, KeyPair)>,
    public: PublicKey,
}

impl PrivateKey {
    pub(crate) fn generate() -> Result<Self, WireError> {
        let pair = KeyPair::generate(KeySize::Rsa2048).map_err(|_| WireError::Crypto {
            what: "generate an rsa key",
        })?;
        Self::from_pair(pair)
    }

    /// Reads the first private key of a PEM text, PKCS#1 or PKCS#8.
    pub(crate) fn from_pem(pem: &[u8]) -> Result<Self, WireError> {
        Self::from_block(&pem_block(pem, "private key", &PRIVATE_KEY_LABELS)?)
    }

    fn from_block(block: &Pem) -> Result<Self, WireError> {
        let pair = match block.label.as_str() {
            "RSA PRIVATE KEY" => KeyPair::from_der(&block.contents),
            _ => KeyPair::from_pkcs8(&block.contents),
        };
        Self::from_pair(pair.map_err(|error| bad_key("private key", error.to_string()))?)
    }

    fn from_pair(pair: KeyPair) -> Result<Self, WireError> {
        let refused = |_| WireError::Crypto {
            what: "use a private key",
        };
        let public = PublicKey::from_der(pair.public_key().as_ref())?;
        let pkcs8 = pair.as_der().map_err(|_| refused(()))?;
        let decrypting =
            PrivateDecryptingKey::from_pkcs8(pkcs8.as_ref()).map_err(|_| refused(()))?;
        let decrypting = OaepPrivateDecryptingKey::new(decrypting).map_err(|_| refused(()))?;
        Ok(Self {
            key: Arc::new((decrypting, pair)),
            public,
        })
    }

    pub(crate) fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// The key as PKCS#8 in PEM.
    pub(crate) fn to_pem(&self) -> Result<String, WireError> {
        let der = self.key.1.as_der().map_err(|_| WireError::Crypto {
            what: "write a private key",
        })?;
        Ok(crate::der::pem("PRIVATE KEY", der.as_ref()))
    }

    /// RSA-OAEP with SHA-1; nothing if it was not encrypted to this key.
    pub(crate) fn decrypt(&self, message: &[u8]) -> Option<Vec<u8>> {
        let key = &self.key.0;
        if message.len() != key.key_size_bytes() {
            return None;
        }
        let mut out = vec![0; key.min_output_size()];
        let len = key
            .decrypt(&OAEP_SHA1_MGF1SHA1, message, &mut out, None)
            .ok()?
            .len();
        out.truncate(len);
        Some(out)
    }

    /// RSA PKCS#1 v1.5 with SHA-256.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, WireError> {
        let pair = &self.key.1;
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(
            &RSA_PKCS1_SHA256,
            &SystemRandom::new(),
            message,
            &mut signature,
        )
        .map_err(|_| WireError::Crypto { what: "sign" })?;
        Ok(signature)
    }
}

/// The private key of a frontend: agents encrypt to it, and it signs what we answer. Cheap to
/// clone.
#[derive(Clone)]
pub struct ServerKey(pub(crate) PrivateKey);

impl ServerKey {
    /// Makes a new key of 2,048 bits.
    pub fn generate() -> Result<Self, WireError> {
        PrivateKey::generate().map(Self)
    }

    /// Reads the first private key of a PEM text, PKCS#1 or PKCS#8.
    ///
    /// Errors: no key in it, or none that is RSA of 2,048 to 4,096 bits.
    pub fn from_pem(pem: &[u8]) -> Result<Self, WireError> {
        PrivateKey::from_pem(pem).map(Self)
    }

    /// The key as PKCS#8 in PEM: a secret.
    pub fn to_pem(&self) -> Result<String, WireError> {
        self.0.to_pem()
    }

    /// The key that agents know it by.
    pub fn public_key(&self) -> &PublicKey {
        self.0.public_key()
    }
}

impl fmt::Debug for ServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerKey").finish_non_exhaustive()
    }
}

/// The keys that are valid at once: one, or two during a roll. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ServerKeys(Arc<[ServerKey]>);

impl ServerKeys {
    /// The newest key first: the one that `server.pem` shows.
    ///
    /// Errors: no key at all.
    pub fn new(keys: Vec<ServerKey>) -> Result<Self, WireError> {
        if keys.is_empty() {
            return Err(bad_key(
                "server keys",
                "there is none, give at least one".into(),
            ));
        }
        Ok(Self(keys.into()))
    }

    /// Reads every private key of a PEM text, the newest first; other blocks are passed over.
    ///
    /// Errors: no key in it, or one that can not be read.
    pub fn from_pem(pem: &[u8]) -> Result<Self, WireError> {
        let mut keys = Vec::new();
        for block in Pem::iter_from_buffer(pem) {
            let block = block.map_err(|error| bad_key("server keys", error.to_string()))?;
            if PRIVATE_KEY_LABELS.contains(&block.label.as_str()) {
                keys.push(ServerKey(PrivateKey::from_block(&block)?));
            }
        }
        Self::new(keys)
    }

    /// The key that `server.pem` shows.
    pub fn newest(&self) -> &ServerKey {
        // Never empty: `new` sees to that.
        &self.0[0]
    }

    /// Whether this is one of them.
    pub fn contain(&self, key: &ServerKey) -> bool {
        self.0
            .iter()
            .any(|known| known.public_key() == key.public_key())
    }

    /// Opens what was encrypted to one of the keys, and says to which.
    pub(crate) fn decrypt(&self, message: &[u8]) -> Option<(&ServerKey, Vec<u8>)> {
        self.0
            .iter()
            .find_map(|key| Some((key, key.0.decrypt(message)?)))
    }
}

impl From<ServerKey> for ServerKeys {
    fn from(key: ServerKey) -> Self {
        Self(Arc::new([key]))
    }
}

const PRIVATE_KEY_LABELS: [&str; 2] = ["RSA PRIVATE KEY", "PRIVATE KEY"];

/// The first block with one of these labels.
pub(crate) fn pem_block(pem: &[u8], what: &'static str, labels: &[&str]) -> Result<Pem, WireError> {
    for block in Pem::iter_from_buffer(pem) {
        let block = block.map_err(|error| bad_key(what, error.to_string()))?;
        if labels.contains(&block.label.as_str()) {
            return Ok(block);
        }
    }
    Err(bad_key(
        what,
        format!("no pem block {}", labels.join(" or ")),
    ))
}

fn bad_key(what: &'static str, reason: String) -> WireError {
    WireError::BadKey { what, reason }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn a_key_goes_through_pem_and_der_unchanged() {
        let key = ServerKey::generate().unwrap();
        let again = ServerKey::from_pem(key.to_pem().unwrap().as_bytes()).unwrap();
        assert_eq!(again.public_key(), key.public_key());
        let der = key.public_key().to_der();
        assert_eq!(&PublicKey::from_der(&der).unwrap(), key.public_key());
        let spki = key.public_key().spki().unwrap();
        assert_eq!(&PublicKey::from_der(&spki).unwrap(), key.public_key());
        let signature = again.0.sign(b"message").unwrap();
        assert!(key.public_key().verifies(b"message", &signature));
        assert!(!key.public_key().verifies(b"messagf", &signature));
    }

    #[test]
    fn both_keys_of_a_roll_open_and_it_is_known_which() {
        let (old, new) = (
            ServerKey::generate().unwrap(),
            ServerKey::generate().unwrap(),
        );
        let pem = format!(
            "-----BEGIN X-----\nAAAA\n-----END X-----\n{}{}",
            new.to_pem().unwrap(),
            old.to_pem().unwrap()
        );
        let keys = ServerKeys::from_pem(pem.as_bytes()).unwrap();
        assert_eq!(keys.newest().public_key(), new.public_key());
        for key in [&old, &new] {
            let encrypted = key.public_key().encrypt(b"secret").unwrap();
            let (opened_by, plain) = keys.decrypt(&encrypted).unwrap();
            assert_eq!(plain, b"secret");
            assert_eq!(opened_by.public_key(), key.public_key());
        }
        let stranger = ServerKey::generate().unwrap();
        let encrypted = stranger.public_key().encrypt(b"secret").unwrap();
        assert!(keys.decrypt(&encrypted).is_none());
        assert!(keys.decrypt(&encrypted[1..]).is_none());
        assert!(keys.contain(&old) && keys.contain(&new) && !keys.contain(&stranger));
    }

    #[test]
    fn what_is_no_key_is_refused_with_a_word_why() {
        let error = ServerKeys::from_pem(b"").unwrap_err();
        assert_eq!(
            error.to_string(),
            "server keys: there is none, give at least one"
        );
        let error = ServerKey::from_pem(b"nothing").unwrap_err();
        assert_eq!(
            error.to_string(),
            "private key: no pem block RSA PRIVATE KEY or PRIVATE KEY"
        );
        let garbage = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        assert!(matches!(
            ServerKey::from_pem(garbage),
            Err(WireError::BadKey { .. })
        ));
        assert!(matches!(
            PublicKey::from_der(b"\x30\x00"),
            Err(WireError::BadKey { .. })
        ));
        let certificate = PublicKey::from_certificate_pem(garbage).unwrap_err();
        assert_eq!(
            certificate.to_string(),
            "certificate: no pem block CERTIFICATE"
        );
    }
}
