//! Requests that hold secrets: sealed before they are put into any topic, opened by a frontend just
//! before they are delivered.
//!
//! A sealed body is `00`, `s`, the version `1`, a nonce of 12 bytes, and the AES-256-GCM-SIV of the
//! request with its tag. No serialized message begins with `00`, so one tells them apart. Key and
//! nonce come of the installation's keys of ids (the secrets file) and of the request: equal wishes
//! give equal bytes, and whoever sees them learns no more than that.

use crate::mac::{MacKey, MacKeys};
use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use bytes::Bytes;
use std::fmt;

/// What a sealed body begins with.
const HEAD: &[u8; 3] = b"\x00s1";
/// What the keys are derived for.
const KEY: &str = "nublar 2026 sealed requests: key";
const NONCE: &str = "nublar 2026 sealed requests: nonce";
const HASH: &str = "nublar 2026 sealed requests: hashes of wishes";

/// Why a request cannot be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// None of the keys fits.
    #[error("no key of this process opens the request: is its secrets file that of the others?")]
    NoKey,
    /// It is cut off, or sealed by another version.
    #[error("the request is sealed in a way that this program does not know")]
    Unknown,
    /// The cipher fails.
    #[error("the cipher fails")]
    Cipher,
}

struct Key {
    from_us: i64,
    secret: [u8; 32],
    nonce: [u8; 32],
    hash: [u8; 32],
}

impl Key {
    fn cipher(&self) -> Result<LessSafeKey, SealError> {
        let key = UnboundKey::new(&AES_256_GCM_SIV, &self.secret);
        Ok(LessSafeKey::new(key.map_err(|_| SealError::Cipher)?))
    }
}

/// Seals by the newest key that is in force, opens by any.
pub struct SealKeys {
    /// The newest first; at least one.
    keys: Vec<Key>,
}

impl fmt::Debug for SealKeys {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "SealKeys({})", self.keys.len())
    }
}

impl SealKeys {
    /// The keys that belong to those of ids.
    #[must_use]
    pub fn of(keys: &MacKeys) -> Self {
        let keys = keys.newest_first().map(|MacKey { from_us, secret }| Key {
            from_us: *from_us,
            secret: blake3::derive_key(KEY, secret),
            nonce: blake3::derive_key(NONCE, secret),
            hash: blake3::derive_key(HASH, secret),
        });
        Self {
            keys: keys.collect(),
        }
    }

    fn in_force(&self, at_us: i64) -> Result<&Key, SealError> {
        let in_force = self.keys.iter().find(|key| key.from_us <= at_us);
        in_force.or(self.keys.last()).ok_or(SealError::Cipher)
    }

    /// Seals a serialized request at a time, microseconds since 1970.
    ///
    /// # Errors
    /// When the cipher fails.
    pub fn seal(&self, at_us: i64, request: &[u8]) -> Result<Bytes, SealError> {
        let key = self.in_force(at_us)?;
        let mut nonce = [0; NONCE_LEN];
        let hash = blake3::keyed_hash(&key.nonce, request);
        nonce.copy_from_slice(&hash.as_bytes()[..NONCE_LEN]);
        let mut body = request.to_vec();
        let nonce_used = Nonce::assume_unique_for_key(nonce);
        key.cipher()?
            .seal_in_place_append_tag(nonce_used, Aad::from(HEAD), &mut body)
            .map_err(|_| SealError::Cipher)?;
        let mut sealed = HEAD.to_vec();
        sealed.extend_from_slice(&nonce);
        sealed.append(&mut body);
        Ok(sealed.into())
    }

    /// The request behind a body, which may be one that was never sealed.
    ///
    /// # Errors
    /// When no key opens it.
    pub fn open(&self, body: &Bytes) -> Result<Bytes, SealError> {
        if body.first() != Some(&0) {
            return Ok(body.clone());
        }
        let sealed = body.strip_prefix(HEAD).ok_or(SealError::Unknown)?;
        let (nonce, sealed) = sealed
            .split_first_chunk::<NONCE_LEN>()
            .ok_or(SealError::Unknown)?;
        for key in &self.keys {
            let mut open = sealed.to_vec();
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let opened = key
                .cipher()?
                .open_in_place(nonce, Aad::from(HEAD), &mut open);
            if let Ok(length) = opened.map(|plain| plain.len()) {
                open.truncate(length);
                return Ok(open.into());
            }
        }
        Err(SealError::NoKey)
    }

    /// A hash of a wish by which nobody without the keys can try out what it holds. It is made by
    /// the oldest key, so that it stays the same while keys are added.
    ///
    /// # Errors
    /// When there is no key.
    pub fn hash(&self, wish: &[u8]) -> Result<[u8; 16], SealError> {
        let oldest = self.keys.last().ok_or(SealError::Cipher)?;
        let hash = blake3::keyed_hash(&oldest.hash, wish);
        let mut short = [0; 16];
        short.copy_from_slice(&hash.as_bytes()[..16]);
        Ok(short)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn keys(secrets: &[u8]) -> SealKeys {
        let mut keys = (0..).zip(secrets).map(|(from_us, secret)| MacKey {
            from_us,
            secret: [*secret; 32],
        });
        let first = keys.next().unwrap();
        SealKeys::of(&MacKeys::new(first, keys))
    }

    #[test]
    fn what_is_sealed_is_opened_by_old_and_new_keys_and_by_no_others() {
        let request = Bytes::from_static(b"\x0a\x05the secret is here");
        let (old, rolled, other) = (keys(&[1]), keys(&[1, 2]), keys(&[3]));
        let sealed = old.seal(5, &request).unwrap();
        assert!(!sealed.windows(6).any(|part| part == b"secret"));
        assert_eq!(sealed, old.seal(5, &request).unwrap());
        // The second key is in force from 1 on.
        assert_eq!(sealed, rolled.seal(0, &request).unwrap());
        let newer = rolled.seal(1, &request).unwrap();
        assert_ne!(sealed, newer);
        assert_eq!(old.open(&sealed), Ok(request.clone()));
        assert_eq!(rolled.open(&sealed), Ok(request.clone()));
        assert_eq!(other.open(&sealed), Err(SealError::NoKey));
        assert_eq!(old.open(&newer), Err(SealError::NoKey));
        assert_eq!(rolled.open(&newer), Ok(request.clone()));
        assert_eq!(other.open(&request), Ok(request));
    }

    #[test]
    fn what_was_changed_is_not_opened() {
        let keys = keys(&[1]);
        let sealed = keys.seal(0, b"\x0a\x01x").unwrap();
        for place in 0..sealed.len() {
            let mut damaged = sealed.to_vec();
            damaged[place] ^= 1;
            let opened = keys.open(&damaged.clone().into());
            // Without its first byte it is no sealed body: a message that no agent can read.
            assert!(place == 0 || opened.is_err(), "{place}");
            assert!(keys.open(&sealed.slice(..place.max(1))).is_err());
        }
        assert_ne!(keys.hash(b"a").unwrap(), keys.hash(b"b").unwrap());
    }
}
