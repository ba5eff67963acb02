//! Names that another server hid from its agents.
//!
//! Velociraptor sends its queries to agents under names of the form `$` and hex: the name in
//! AES-256-CBC under the SHA-256 of the deployment's obfuscation nonce. Agents say them back, so what
//! a fleet that was taken over still runs for its old server comes here under them.

use aws_lc_rs::cipher::{AES_256, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey};
use aws_lc_rs::digest;
use aws_lc_rs::iv::FixedLength;
use data_encoding::HEXLOWER_PERMISSIVE;
use std::fmt;
use std::sync::Arc;

/// The keys of all deployments that were taken over.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct HiddenNames {
    keys: Arc<[[u8; 32]]>,
}

impl fmt::Debug for HiddenNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HiddenNames({} keys)", self.keys.len())
    }
}

impl HiddenNames {
    /// Those that were hidden under these nonces.
    pub fn new<'a>(nonces: impl IntoIterator<Item = &'a str>) -> Self {
        let key = |nonce: &str| {
            let mut key = [0; 32];
            key.copy_from_slice(digest::digest(&digest::SHA256, nonce.as_bytes()).as_ref());
            key
        };
        Self {
            keys: nonces.into_iter().map(key).collect(),
        }
    }

    /// The name that was hidden; what no known deployment has hidden stays as it is.
    ///
    /// ```
    /// # use nublar_core::hidden::HiddenNames;
    /// let names = HiddenNames::new(["a nonce"]);
    /// assert_eq!(names.reveal("$beef".to_owned()), "$beef");
    /// ```
    pub fn reveal(&self, name: String) -> String {
        match self.hidden_in(&name) {
            Some(revealed) => revealed,
            None => name,
        }
    }

    fn hidden_in(&self, name: &str) -> Option<String> {
        let hidden = name.strip_prefix('$')?;
        let hidden = HEXLOWER_PERMISSIVE.decode(hidden.as_bytes()).ok()?;
        self.keys.iter().find_map(|key| decrypted(key, &hidden))
    }
}

/// None when it was encrypted under another key: its padding, or what it says, is then no text.
fn decrypted(key: &[u8; 32], hidden: &[u8]) -> Option<String> {
    let unbound = UnboundCipherKey::new(&AES_256, key).ok()?;
    let iv = FixedLength::from(key.first_chunk::<16>()?);
    let mut text = hidden.to_vec();
    let text = PaddedBlockDecryptingKey::cbc_pkcs7(unbound)
        .and_then(|key| key.decrypt(&mut text, DecryptionContext::Iv128(iv)))
        .ok()?;
    let text = std::str::from_utf8(text).ok()?;
    (!text.is_empty() && !text.chars().any(char::is_control)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with openssl under the nonces "hidden" and "other".
    const HIDDEN: &str = "$9a8198e0399d75040213f5ba1b79180f083c76302d5b04bdfda8deb49bfff813";
    const OTHER: &str = "$ee54b429c307503045026d0f8c26b10179e61b4bfdb119a005717ac00bd9a914";

    #[test]
    fn a_name_is_revealed_by_its_deployments_nonce() {
        let both = HiddenNames::new(["hidden", "other"]);
        for name in [HIDDEN, OTHER, &HIDDEN.to_uppercase()] {
            assert_eq!(both.reveal(name.to_owned()), "Custom.Old.Hunt/All");
        }
        let one = HiddenNames::new(["hidden"]);
        assert_eq!(one.reveal(OTHER.to_owned()), OTHER);
        assert_eq!(HiddenNames::default().reveal(HIDDEN.to_owned()), HIDDEN);
        assert!(!format!("{both:?}").contains("hidden"));
    }

    #[test]
    fn what_was_not_hidden_stays_as_it_is() {
        let names = HiddenNames::new(["hidden"]);
        for name in [
            "",
            "$",
            "$3",
            "$3f",
            "$zz",
            "Generic.Client.Info",
            &HIDDEN[1..],
            &HIDDEN[..33],
            &format!("{HIDDEN}00"),
            "$3f6d20f47d3a66dc1e74378916882a74899f0503ec650795d284403286b9fd79",
        ] {
            assert_eq!(names.reveal(name.to_owned()), name);
        }
    }
}
