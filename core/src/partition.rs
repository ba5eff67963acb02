//! Which partition a key belongs to. Computed by us: the defaults of log clients differ.

use crate::ids::ClientKey;
use xxhash_rust::xxh3::xxh3_64;

/// The partition of a client in every topic that is partitioned by clients.
pub fn of_client(key: &ClientKey, partitions: u32) -> u32 {
    of_key(key.org.as_str(), &key.client.to_string(), partitions)
}

/// The partition of any key of an organisation.
pub fn of_key(org: &str, key: &str, partitions: u32) -> u32 {
    let mut bytes = Vec::with_capacity(org.len() + key.len());
    bytes.extend_from_slice(org.as_bytes());
    bytes.extend_from_slice(key.as_bytes());
    (xxh3_64(&bytes) % u64::from(partitions.max(1))) as u32
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_partition_of_a_client_never_changes() {
        let key = ClientKey {
            org: "".parse().unwrap(),
            client: "C.dee8db84e4bcbdf1".parse().unwrap(),
        };
        assert_eq!(
            of_client(&key, 64),
            (xxh3_64(b"C.dee8db84e4bcbdf1") % 64) as u32
        );
        let counts = (0..6400u64).fold([0; 64], |mut counts, n| {
            let key = ClientKey {
                org: "".parse().unwrap(),
                client: crate::ids::ClientId::from_bytes(n.to_be_bytes()),
            };
            counts[of_client(&key, 64) as usize] += 1;
            counts
        });
        assert!(counts.iter().all(|n| (50..170).contains(n)), "{counts:?}");
    }
}
