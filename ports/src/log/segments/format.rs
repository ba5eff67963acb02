//! The bytes of a segment file.
//!
//! ```text
//! header | frame, record, record … | frame, record … |
//! ```
//!
//! A frame announces the records of one group commit and is only written after the frame before
//! it is durable: a damaged frame that is followed by an intact one is damage, not a torn tail.
//! Integers are little-endian. Every item carries a check that is seeded with the segment's random
//! salt, so that no payload can pass for an item.

use super::super::local::Point;
use bytes::Bytes;
use std::hash::{BuildHasher, RandomState};
use xxhash_rust::xxh3::xxh3_64_with_seed;

const MAGIC: [u8; 8] = *b"NUBLAR\x01L";
const FRAME: u32 = 0x4d52_464e;
const RECORD: u32 = 0x4345_524e;

/// Bytes before the body of an item: kind, length of the whole, check.
const ITEM_HEADER: usize = 16;
/// Bytes of a frame item.
pub(super) const FRAME_LEN: usize = ITEM_HEADER + 24;
/// Bytes of a record item without key and value.
pub(super) const RECORD_LEN: usize = ITEM_HEADER + 32;
/// Bytes of a segment header without the offsets of its partitions.
const HEADER_LEN: usize = 80;

/// What stands at the head of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) generation: u16,
    /// Number of the segment, counted from 1.
    pub(super) id: u64,
    /// The first segment whose records are in this one: itself unless it was compacted.
    pub(super) covers_from: u64,
    /// How often it was rewritten.
    pub(super) version: u32,
    /// Up to where the segment before this one is good: all that follows there was never
    /// acknowledged. 0 when there is none.
    pub(super) before_len: u64,
    pub(super) salt: u64,
    /// Where the topic stood at the beginning of the segment.
    pub(super) base: Point,
    /// Number of the last group commit before it.
    pub(super) base_commit: u64,
    /// Time of the last record before it.
    pub(super) base_time: i64,
}

impl Header {
    /// Bytes of a header for so many partitions.
    pub(super) fn len(partitions: u32) -> usize {
        HEADER_LEN + 8 * partitions as usize
    }

    /// Bytes of this header.
    pub(super) fn own_len(&self) -> u64 {
        (HEADER_LEN + 8 * self.base.offsets.len()) as u64
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let partitions = u32::try_from(self.base.offsets.len()).unwrap_or(u32::MAX);
        let mut out = Vec::with_capacity(Self::len(partitions));
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&partitions.to_le_bytes());
        out.extend_from_slice(&u32::from(self.generation).to_le_bytes());
        for number in [
            self.id,
            self.covers_from,
            self.before_len,
            self.salt,
            self.base.seq,
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.base_commit.to_le_bytes());
        out.extend_from_slice(&self.base_time.to_le_bytes());
        for offset in &self.base.offsets {
            out.extend_from_slice(&offset.to_le_bytes());
        }
        let check = xxh3_64_with_seed(&out[16..], u64::from(self.version));
        out[8..16].copy_from_slice(&check.to_le_bytes());
        out
    }

    /// Reads a header; the version is known from the name of the file. None when it is damaged.
    pub(super) fn decode(bytes: &[u8], version: u32) -> Option<Self> {
        let partitions = u32_at(bytes, 16)?;
        if partitions > 4096 {
            return None;
        }
        let bytes = bytes.get(..Self::len(partitions))?;
        let check = xxh3_64_with_seed(&bytes[16..], u64::from(version));
        if bytes[..8] != MAGIC || u64_at(bytes, 8)? != check {
            return None;
        }
        let offsets: Option<Box<[u64]>> = (0..partitions as usize)
            .map(|p| u64_at(bytes, HEADER_LEN + 8 * p))
            .collect();
        Some(Self {
            generation: u16::try_from(u32_at(bytes, 20)?).ok()?,
            id: u64_at(bytes, 24)?,
            covers_from: u64_at(bytes, 32)?,
            version,
            before_len: u64_at(bytes, 40)?,
            salt: u64_at(bytes, 48)?,
            base: Point {
                seq: u64_at(bytes, 56)?,
                offsets: offsets?,
            },
            base_commit: u64_at(bytes, 64)?,
            base_time: u64_at(bytes, 72)?.cast_signed(),
        })
    }
}

/// A salt that nobody can guess.
pub(super) fn salt() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

/// The announcement of a group commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) commit: u64,
    /// Bytes of its records, with their headers.
    pub(super) bytes: u64,
    pub(super) records: u32,
}

/// What a record says beside its key and value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) seq: u64,
    pub(super) offset: u64,
    pub(super) time: i64,
    pub(super) partition: u32,
}

/// A record in a segment, its check not looked at yet.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) meta: Meta,
    key_len: usize,
    item: Bytes,
}

impl Stored {
    pub(super) fn intact(&self, salt: u64) -> bool {
        intact(&self.item, salt)
    }

    /// Bytes of the whole item.
    pub(super) fn len(&self) -> usize {
        self.item.len()
    }

    pub(super) fn key(&self) -> Bytes {
        self.item.slice(RECORD_LEN..RECORD_LEN + self.key_len)
    }

    pub(super) fn value(&self) -> Bytes {
        self.item.slice(RECORD_LEN + self.key_len..)
    }
}

/// What follows a header.
#[derive(Debug, Clone)]
pub(super) enum Item {
    Frame(Frame),
    Record(Stored),
}

/// The length of the item that begins with these bytes, none when no item does.
pub(super) fn item_len(bytes: &[u8]) -> Option<usize> {
    let len = u32_at(bytes, 4)? as usize;
    match u32_at(bytes, 0)? {
        FRAME if len == FRAME_LEN => Some(len),
        RECORD if len >= RECORD_LEN => Some(len),
        _ => None,
    }
}

/// Reads one whole item. None when it is damaged, as far as can be seen; of a record only
/// [`Stored::intact`] tells.
pub(super) fn decode(item: Bytes, salt: u64) -> Option<Item> {
    if u32_at(&item, 0)? == FRAME {
        if !intact(&item, salt) {
            return None;
        }
        return Some(Item::Frame(Frame {
            commit: u64_at(&item, 16)?,
            bytes: u64_at(&item, 24)?,
            records: u32_at(&item, 32)?,
        }));
    }
    let key_len = u32_at(&item, 44)? as usize;
    if RECORD_LEN + key_len > item.len() {
        return None;
    }
    let meta = Meta {
        seq: u64_at(&item, 16)?,
        offset: u64_at(&item, 24)?,
        time: u64_at(&item, 32)?.cast_signed(),
        partition: u32_at(&item, 40)?,
    };
    Some(Item::Record(Stored {
        meta,
        key_len,
        item,
    }))
}

/// Finds the first intact frame in `bytes` with at least this commit number.
pub(super) fn find_frame(bytes: &[u8], commit: u64, salt: u64) -> Option<usize> {
    let kind = FRAME.to_le_bytes();
    bytes.windows(FRAME_LEN).position(|item| {
        item[..4] == kind
            && item_len(item).is_some()
            && intact(item, salt)
            && u64_at(item, 16).is_some_and(|number| number >= commit)
    })
}

/// Puts the records of a group commit together.
#[derive(Debug)]
pub(super) struct Builder {
    bytes: Vec<u8>,
    records: u32,
    salt: u64,
}

impl Builder {
    pub(super) fn new(salt: u64, capacity: usize) -> Self {
        let mut bytes = Vec::with_capacity(FRAME_LEN + capacity);
        bytes.resize(FRAME_LEN, 0);
        Self {
            bytes,
            records: 0,
            salt,
        }
    }

    /// Bytes so far, the frame included.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records == 0
    }

    pub(super) fn push(&mut self, meta: Meta, key: &[u8], value: &[u8]) {
        let start = self.bytes.len();
        // Sizes were checked against a limit far below 4 GiB.
        let len = u32::try_from(RECORD_LEN + key.len() + value.len()).unwrap_or(u32::MAX);
        let key_len = u32::try_from(key.len()).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(&RECORD.to_le_bytes());
        self.bytes.extend_from_slice(&len.to_le_bytes());
        self.bytes.extend_from_slice(&[0; 8]);
        self.bytes.extend_from_slice(&meta.seq.to_le_bytes());
        self.bytes.extend_from_slice(&meta.offset.to_le_bytes());
        self.bytes.extend_from_slice(&meta.time.to_le_bytes());
        self.bytes.extend_from_slice(&meta.partition.to_le_bytes());
        self.bytes.extend_from_slice(&key_len.to_le_bytes());
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        seal(&mut self.bytes[start..], self.salt);
        self.records += 1;
    }

    /// The bytes to write.
    pub(super) fn finish(mut self, commit: u64) -> Vec<u8> {
        let body = (self.bytes.len() - FRAME_LEN) as u64;
        let frame = &mut self.bytes[..FRAME_LEN];
        frame[..4].copy_from_slice(&FRAME.to_le_bytes());
        frame[4..8].copy_from_slice(&(FRAME_LEN as u32).to_le_bytes());
        frame[16..24].copy_from_slice(&commit.to_le_bytes());
        frame[24..32].copy_from_slice(&body.to_le_bytes());
        frame[32..36].copy_from_slice(&self.records.to_le_bytes());
        seal(frame, self.salt);
        self.bytes
    }
}

fn check(item: &[u8], salt: u64) -> u64 {
    let head = u64_at(item, 0).unwrap_or(0);
    xxh3_64_with_seed(&item[ITEM_HEADER..], salt ^ head)
}

fn seal(item: &mut [u8], salt: u64) {
    let check = check(item, salt);
    item[8..16].copy_from_slice(&check.to_le_bytes());
}

fn intact(item: &[u8], salt: u64) -> bool {
    item.len() >= ITEM_HEADER && u64_at(item, 8) == Some(check(item, salt))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
