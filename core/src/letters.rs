//! Dead letters: what names one, where it stands, and which of its states counts.
//!
//! A letter is named by its content, so what is put aside twice is one letter. All records of a
//! letter are in one partition of `dead-letters`; the last of them counts, except that a dropped
//! letter stays dropped whatever comes later.

use crate::ids::ContentId;
use crate::{fold, partition};
use bytes::Bytes;
use nublar_schemas::records::DeadLetter;

/// How the index calls the state of a letter that is to be seen.
pub const KEPT: &str = "kept";
/// The state of a letter whose copy was appended to its source again.
pub const RETRIED: &str = "retried";
/// The state of a letter that nobody is to see again.
pub const DROPPED: &str = "dropped";

/// Copies up to this many bytes stand in the letter itself.
const INLINE_BYTES: usize = 16 * 1024;
/// Above the version of every position: a topic is not made anew 16,384 times.
const FOR_GOOD: u64 = 1 << 62;

/// Gives a letter that is written for the first time its name, and says how large its copy is.
#[must_use]
pub fn named(mut letter: DeadLetter) -> DeadLetter {
    if letter.id.is_empty() {
        letter.id = id(&letter);
        letter.size = i64::try_from(letter.copy.len()).unwrap_or(i64::MAX);
    }
    letter
}

/// What names the letter: 32 hex digits.
pub fn id(letter: &DeadLetter) -> String {
    if !letter.id.is_empty() {
        return letter.id.clone();
    }
    let header = &letter.header;
    // Without a copy only the time tells two of them apart.
    let at_us = if letter.copy.is_empty() && letter.object.is_none() {
        header.at_us
    } else {
        0
    };
    let id = ContentId::of(&[
        b"letter",
        header.org.as_bytes(),
        header.client.as_bytes(),
        &header.generation.to_le_bytes(),
        letter.topic.as_bytes(),
        letter.reason.as_bytes(),
        &letter.copy,
        &at_us.to_le_bytes(),
    ]);
    id.to_string()
}

/// The letter's partition among so many of `dead-letters`.
pub fn partition(letter: &DeadLetter, partitions: u32) -> u32 {
    partition::of_key(&letter.header.org, &id(letter), partitions)
}

/// Which of a letter's records counts: the highest version does.
pub fn version(letter: &DeadLetter, log_generation: u16, offset: u64) -> u64 {
    if letter.state == DROPPED {
        FOR_GOOD
    } else {
        fold::version(log_generation, offset)
    }
}

/// The letter without a copy that is large, and that copy with its key in Objects.
pub fn slim(letter: DeadLetter) -> (DeadLetter, Option<(String, Bytes)>) {
    if letter.copy.len() <= INLINE_BYTES {
        return (letter, None);
    }
    let mut letter = named(letter);
    let copy = std::mem::take(&mut letter.copy);
    let key = format!("letters/{}", letter.id);
    letter.object = Some(key.clone());
    (letter, Some((key, copy)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nublar_schemas::records::Header;

    fn letter(copy: &'static [u8], at_us: i64) -> DeadLetter {
        DeadLetter {
            header: Header {
                client: "C.0123456789abcdef".to_owned(),
                at_us,
                ..Header::default()
            },
            topic: "results".to_owned(),
            reason: "undecodable".to_owned(),
            copy: Bytes::from_static(copy),
            ..DeadLetter::default()
        }
    }

    #[test]
    fn what_is_put_aside_twice_is_one_letter() {
        assert_eq!(id(&letter(b"a", 1)), id(&letter(b"a", 2)));
        assert_ne!(id(&letter(b"a", 1)), id(&letter(b"b", 1)));
        // Of a body that was too large nothing but its time is known.
        assert_ne!(id(&letter(b"", 1)), id(&letter(b"", 2)));
        let named = named(letter(b"a", 1));
        let dropped = DeadLetter {
            copy: Bytes::new(),
            state: DROPPED.to_owned(),
            ..named.clone()
        };
        assert_eq!(id(&dropped), id(&letter(b"a", 3)));
        assert_eq!(partition(&dropped, 4), partition(&named, 4));
    }

    #[test]
    fn the_last_state_counts_but_dropped_stays_dropped() {
        let with = |state: &str| DeadLetter {
            state: state.to_owned(),
            ..letter(b"a", 1)
        };
        assert!(version(&with(""), 0, 9) > version(&with(RETRIED), 0, 8));
        assert!(version(&with(DROPPED), 0, 1) > version(&with(""), u16::MAX >> 3, 1 << 47));
    }

    #[test]
    fn a_large_copy_goes_to_an_object_and_leaves_the_name_as_it_is() {
        let large = DeadLetter {
            copy: Bytes::from(vec![7; INLINE_BYTES + 1]),
            ..letter(b"", 1)
        };
        let (slimmed, object) = slim(large.clone());
        assert_eq!(id(&slimmed), id(&large));
        assert_eq!((slimmed.copy.len(), slimmed.size), (0, 16_385));
        assert_eq!(slimmed.object.as_ref(), object.as_ref().map(|(key, _)| key));
        assert_eq!(object.map(|(_, copy)| copy.len()), Some(INLINE_BYTES + 1));
        let (small, object) = slim(letter(b"a", 1));
        assert_eq!((small.copy.len(), object), (1, None));
    }
}
