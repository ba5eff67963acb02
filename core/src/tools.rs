//! How files that agents fetch stand in the objects: as pieces named by their content, and a list of
//! them named by the content of the whole.
//!
//! A piece that is written twice, or belongs to two files, is the same object; the list is written
//! last, so a file is there whole or not at all.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::ops::Range;

/// Bytes of every piece but the last.
pub const PIECE: usize = 1 << 20;

/// Bytes of the largest tool.
pub const MOST: u64 = 8 << 30;

/// A file's pieces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Bytes of the whole.
    pub size: u64,
    /// SHA-256 of each piece in hex, in order; each has [`PIECE`] bytes but for the last.
    pub pieces: Vec<String>,
}

/// A part of a piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The key of its object.
    pub key: String,
    /// Which of its bytes.
    pub range: Range<usize>,
}

/// Why a list is none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// No such document.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// Its size and its pieces contradict each other.
    #[error("{pieces} pieces can not have {size} bytes")]
    Pieces {
        /// How many it names.
        pieces: usize,
        /// What they would be together.
        size: u64,
    },
}

/// Whether it is a SHA-256, in 64 small hex digits.
pub(crate) fn is_hash(name: &str) -> bool {
    name.len() == 64
        && name
            .bytes()
            .all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

/// The key of a piece's object.
#[must_use]
pub fn piece_key(hash: &str) -> String {
    format!("tools/pieces/{}/{hash}", hash.get(..2).unwrap_or("00"))
}

impl Manifest {
    /// The key of the list of a file of this SHA-256, which is 64 small hex digits; none for any
    /// other name.
    #[must_use]
    pub fn key(hash: &str) -> Option<String> {
        is_hash(hash).then(|| format!("tools/files/{hash}"))
    }

    /// Reads a list.
    ///
    /// # Errors
    /// When it is none.
    pub fn read(bytes: &[u8]) -> Result<Self, ManifestError> {
        let read: Self = serde_json::from_slice(bytes)?;
        let pieces = read.pieces.len();
        if pieces as u64 != read.size.div_ceil(PIECE as u64)
            || !read.pieces.iter().all(|piece| is_hash(piece))
        {
            let size = read.size;
            return Err(ManifestError::Pieces { pieces, size });
        }
        Ok(read)
    }

    /// The list as it is stored.
    ///
    /// # Errors
    /// Never, as far as JSON goes.
    pub fn write(&self) -> Result<Vec<u8>, ManifestError> {
        Ok(serde_json::to_vec(self)?)
    }

    /// The parts that make up some bytes of the file, in order.
    #[must_use]
    pub fn pieces(&self, range: &Range<u64>) -> VecDeque<Piece> {
        let end = range.end.min(self.size);
        let mut parts = VecDeque::new();
        let mut start = 0_u64;
        for hash in &self.pieces {
            let after = start.saturating_add(PIECE as u64).min(self.size);
            let (from, to) = (range.start.max(start), end.min(after));
            if from < to {
                let within = |at: u64| usize::try_from(at - start).unwrap_or(PIECE);
                parts.push_back(Piece {
                    key: piece_key(hash),
                    range: within(from)..within(to),
                });
            }
            start = after;
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn parts_of_a_file_are_found_in_its_pieces() {
        let size = 2 * PIECE as u64 + 10;
        let pieces: Vec<String> = ["a", "b", "c"].map(|digit| digit.repeat(64)).into();
        let manifest = Manifest { size, pieces };
        let read = Manifest::read(&manifest.write().unwrap()).unwrap();
        assert_eq!(read, manifest);
        let of = |range: Range<u64>| -> Vec<(char, Range<usize>)> {
            let parts = manifest.pieces(&range).into_iter();
            parts
                .map(|piece| (piece.key.chars().last().unwrap(), piece.range))
                .collect()
        };
        assert_eq!(
            of(0..size),
            [('a', 0..PIECE), ('b', 0..PIECE), ('c', 0..10)]
        );
        let middle = PIECE as u64 - 1..PIECE as u64 + 1;
        assert_eq!(of(middle), [('a', PIECE - 1..PIECE), ('b', 0..1)]);
        assert_eq!(of(size - 3..size + 50), [('c', 7..10)]);
        assert_eq!(of(5..5), []);
    }

    #[test]
    fn only_hashes_name_files_and_lists_that_contradict_themselves_are_refused() {
        let good = "0123456789abcdef".repeat(4);
        assert_eq!(Manifest::key(&good), Some(format!("tools/files/{good}")));
        for name in ["", "../../etc/passwd", &good[1..], &good.to_uppercase()] {
            assert_eq!(Manifest::key(name), None);
        }
        assert!(Manifest::read(br#"{"size":1,"pieces":[]}"#).is_err());
        assert!(Manifest::read(br#"{"size":1,"pieces":["../x"]}"#).is_err());
        assert!(Manifest::read(br#"{"size":0,"pieces":[]}"#).is_ok());
    }
}
