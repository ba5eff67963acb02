//! Ids that carry a MAC: a forged flow id is refused without asking anybody.
//!
//! The body of such an id is 13 bytes in base32hex: 4 of seconds since 1970, 4 random or from the
//! hash of a cause, 5 of MAC over (kind, org, client, generation, the first 8). They sort among the
//! ids of existing deployments, which begin with the same seconds.

use crate::ids::{ClientKey, FlowId};
use data_encoding::BASE32HEX_NOPAD;
use serde::{Deserialize, Serialize};

const PLAIN: usize = 8;
const MAC: usize = 5;

/// One key. Several are valid at once during a roll.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MacKey {
    /// Signs ids made from this server time on (microseconds since 1970), until a later key does.
    pub from_us: i64,
    /// The secret.
    pub secret: [u8; 32],
}

impl std::fmt::Debug for MacKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MacKey {{ from_us: {}, secret: hidden }}", self.from_us)
    }
}

/// The deployment's keys. Which one signs depends on the time of the cause alone, so whoever
/// replays a cause makes the same id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MacKeys {
    keys: Vec<MacKey>,
}

impl MacKeys {
    /// Takes at least one key.
    pub fn new(first: MacKey, others: impl IntoIterator<Item = MacKey>) -> Self {
        let mut keys: Vec<_> = std::iter::once(first).chain(others).collect();
        keys.sort_by_key(|key| key.from_us);
        Self { keys }
    }

    /// The keys, the one that signs the newest ids first.
    pub(crate) fn newest_first(&self) -> impl Iterator<Item = &MacKey> {
        self.keys.iter().rev()
    }

    fn signing(&self, at_us: i64) -> &MacKey {
        let valid = self.keys.iter().rev().find(|key| key.from_us <= at_us);
        valid.unwrap_or(&self.keys[0])
    }

    /// A flow id for a client, made at `at_us` from four bytes that tell it from others.
    pub fn flow_id(&self, key: &ClientKey, generation: i64, at_us: i64, tell: [u8; 4]) -> FlowId {
        let seconds = u32::try_from(at_us / 1_000_000).unwrap_or(0);
        let mut bytes = [0; PLAIN + MAC];
        bytes[..4].copy_from_slice(&seconds.to_be_bytes());
        bytes[4..PLAIN].copy_from_slice(&tell);
        let mac = mac(
            &self.signing(at_us).secret,
            key,
            generation,
            &bytes[..PLAIN],
        );
        bytes[PLAIN..].copy_from_slice(&mac);
        match format!("F.{}", BASE32HEX_NOPAD.encode(&bytes)).parse() {
            Ok(id) => id,
            Err(error) => unreachable!("base32 is alphanumeric: {error}"),
        }
    }

    /// Whether we made this id for this client in this generation.
    pub fn made_for(&self, id: &FlowId, key: &ClientKey, generation: i64) -> bool {
        let Ok(bytes) = BASE32HEX_NOPAD.decode(id.body().as_bytes()) else {
            return false;
        };
        bytes.len() == PLAIN + MAC
            && !id.of_hunt()
            && self.keys.iter().any(|k| {
                let expected = mac(&k.secret, key, generation, &bytes[..PLAIN]);
                // 40 bits guard a name, not a secret; still no early exit.
                expected
                    .iter()
                    .zip(&bytes[PLAIN..])
                    .fold(0, |diff, (a, b)| diff | (a ^ b))
                    == 0
            })
    }
}

fn mac(secret: &[u8; 32], key: &ClientKey, generation: i64, plain: &[u8]) -> [u8; MAC] {
    let mut hasher = blake3::Hasher::new_keyed(secret);
    let client = key.client.to_bytes();
    for part in [
        b"flow".as_slice(),
        key.org.as_str().as_bytes(),
        &client,
        &generation.to_le_bytes(),
        plain,
    ] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let mut out = [0; MAC];
    out.copy_from_slice(&hasher.finalize().as_bytes()[..MAC]);
    out
}

/// The time that an id of ours or of an existing deployment begins with, seconds since 1970.
pub fn seconds_of(id: &FlowId) -> Option<u32> {
    // Eight characters hold the first five bytes.
    let head = id.body().get(..8)?;
    let bytes = BASE32HEX_NOPAD.decode(head.as_bytes()).ok()?;
    bytes
        .first_chunk::<4>()
        .map(|seconds| u32::from_be_bytes(*seconds))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn client(id: &str) -> ClientKey {
        ClientKey {
            org: "".parse().unwrap(),
            client: id.parse().unwrap(),
        }
    }

    #[test]
    fn an_id_is_good_for_its_client_and_generation_only() {
        let keys = MacKeys::new(
            MacKey {
                from_us: 0,
                secret: [1; 32],
            },
            [],
        );
        let (a, b) = (client("C.00000000000000aa"), client("C.00000000000000bb"));
        let id = keys.flow_id(&a, 1, 1_795_514_940_000_000, [1, 2, 3, 4]);
        assert!(keys.made_for(&id, &a, 1));
        assert!(!keys.made_for(&id, &b, 1));
        assert!(!keys.made_for(&id, &a, 2));
        assert!(!keys.made_for(&"F.DC2M4H5TA9T34".parse().unwrap(), &a, 1));
        assert_eq!(seconds_of(&id), Some(1_795_514_940));
    }

    #[test]
    fn ids_sort_among_those_of_existing_deployments() {
        let keys = MacKeys::new(
            MacKey {
                from_us: 0,
                secret: [1; 32],
            },
            [],
        );
        // Two captured ids, about 25 s apart.
        let (early, late) = (
            "F.DC2M4H5TA9T34".parse().unwrap(),
            "F.DC2M4N49VAPOO".parse().unwrap(),
        );
        let (from, to) = (seconds_of(&early).unwrap(), seconds_of(&late).unwrap());
        assert!(from + 20 < to && to < from + 40, "{from} {to}");
        let between = keys.flow_id(
            &client("C.00000000000000aa"),
            1,
            i64::from(from + 10) * 1_000_000,
            [9; 4],
        );
        assert!(early < between && between < late);
    }

    #[test]
    fn a_roll_keeps_old_ids_good_and_replays_to_the_same_ids() {
        let old = MacKey {
            from_us: 0,
            secret: [1; 32],
        };
        let new = MacKey {
            from_us: 2_000_000,
            secret: [2; 32],
        };
        let before = MacKeys::new(old.clone(), []);
        let after = MacKeys::new(new, [old]);
        let a = client("C.00000000000000aa");
        let id = before.flow_id(&a, 1, 1_000_000, [0; 4]);
        assert!(after.made_for(&id, &a, 1));
        assert_eq!(after.flow_id(&a, 1, 1_000_000, [0; 4]), id);
        assert!(!before.made_for(&after.flow_id(&a, 1, 3_000_000, [0; 4]), &a, 1));
    }
}
