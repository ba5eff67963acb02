//! The marks of a topic's groups on disk.
//!
//! One file of two slots that are written in turn, in place: saving needs no room, so that a full
//! disk does not keep retention from making some. Of the two the newer whole one counts.

use super::super::LogError;
use super::disk::{Disk, failed};
use super::recovery::{Durable, damaged};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_64;

/// Slots are a multiple of this.
const BLOCK: usize = 4096;
/// Check and length.
const SLOT_HEADER: usize = 16;

/// What is saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Saved {
    /// Counts the savings.
    pub(super) number: u64,
    /// Up to where the topic was durable, at least: segment and bytes.
    pub(super) durable: Durable,
    /// The mark of every partition, by group.
    pub(super) marks: BTreeMap<String, Vec<u64>>,
}

/// The file.
pub(super) struct MarksFile {
    path: PathBuf,
    file: File,
    slot: usize,
    saved: Saved,
    disk: Disk,
}

impl MarksFile {
    /// A new file, in place of the one that is there.
    pub(super) fn create(dir: &Path, mut saved: Saved, disk: &Disk) -> Result<Self, LogError> {
        saved.number += 1;
        let path = dir.join("marks");
        let slot = needed(&saved).next_multiple_of(BLOCK);
        let mut bytes = encode(&saved, slot);
        bytes.extend(encode(&saved, slot));
        disk.replace(&path, &bytes)
            .map_err(|error| failed("write", &path, &error))?;
        let file = open(&path)?;
        Ok(Self {
            path,
            file,
            slot,
            saved,
            disk: disk.clone(),
        })
    }

    pub(super) fn open(dir: &Path, disk: &Disk) -> Result<Self, LogError> {
        let path = dir.join("marks");
        let mut file = open(&path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)
            .map_err(|error| failed("read", &path, &error))?;
        let slot = bytes.len() / 2;
        let newest = bytes
            .chunks_exact(slot.max(1))
            .filter_map(decode)
            .max_by_key(|s| s.number);
        let saved = newest.ok_or_else(|| damaged(&path, 0, "neither of its slots is whole"))?;
        Ok(Self {
            path,
            file,
            slot,
            saved,
            disk: disk.clone(),
        })
    }

    /// What was saved last.
    pub(super) fn saved(&self) -> &Saved {
        &self.saved
    }

    /// Saves, durably.
    pub(super) fn save(
        &mut self,
        durable: Durable,
        marks: BTreeMap<String, Vec<u64>>,
    ) -> Result<(), LogError> {
        let next = Saved {
            number: self.saved.number + 1,
            durable,
            marks,
        };
        if needed(&next) > self.slot {
            let dir = self.path.parent().unwrap_or(Path::new("."));
            *self = Self::create(dir, next, &self.disk)?;
            return Ok(());
        }
        let at = (next.number % 2) * self.slot as u64;
        let bytes = encode(&next, self.slot);
        self.disk
            .write(&self.path, &self.file, &bytes, at)
            .and_then(|()| self.disk.sync(&self.path, &self.file))
            .map_err(|error| failed("write", &self.path, &error))?;
        self.saved = next;
        Ok(())
    }
}

fn open(path: &Path) -> Result<File, LogError> {
    let opened = OpenOptions::new().read(true).write(true).open(path);
    opened.map_err(|error| failed("open", path, &error))
}

/// Bytes that a slot needs at most while its groups stay the same: numbers may grow to 20 digits.
fn needed(saved: &Saved) -> usize {
    let groups: usize = saved
        .marks
        .iter()
        .map(|(name, m)| name.len() + 8 + 21 * m.len())
        .sum();
    SLOT_HEADER + 128 + groups
}

fn encode(saved: &Saved, slot: usize) -> Vec<u8> {
    // A map of strings and numbers always has a JSON form.
    let json = serde_json::to_vec(saved).unwrap_or_default();
    let mut bytes = Vec::with_capacity(slot);
    bytes.extend_from_slice(&xxh3_64(&json).to_le_bytes());
    bytes.extend_from_slice(&(json.len() as u64).to_le_bytes());
    bytes.extend(json);
    bytes.resize(slot, b'\n');
    bytes
}

fn decode(slot: &[u8]) -> Option<Saved> {
    let check = u64::from_le_bytes(*slot.first_chunk()?);
    let len = u64::from_le_bytes(*slot.get(8..)?.first_chunk()?);
    let json = slot.get(SLOT_HEADER..)?.get(..usize::try_from(len).ok()?)?;
    if xxh3_64(json) != check {
        return None;
    }
    serde_json::from_slice(json).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use std::os::unix::fs::FileExt;

    fn marks(mark: u64) -> BTreeMap<String, Vec<u64>> {
        BTreeMap::from([("g".to_owned(), vec![mark; 4])])
    }

    #[test]
    fn a_torn_slot_leaves_the_marks_before() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::default();
        let saved = Saved {
            number: 0,
            durable: (1, 0),
            marks: marks(0),
        };
        let mut file = MarksFile::create(dir.path(), saved, &disk).unwrap();
        for mark in 1..10 {
            file.save((1, mark), marks(mark)).unwrap();
            let again = MarksFile::open(dir.path(), &disk).unwrap();
            assert_eq!(again.saved().marks, marks(mark));
        }
        let newest = (file.saved.number % 2) * file.slot as u64;
        file.file.write_all_at(b"torn", newest + 20).unwrap();
        let again = MarksFile::open(dir.path(), &disk).unwrap();
        assert_eq!(again.saved().marks, marks(8));
        file.file
            .write_all_at(b"torn", (file.slot as u64 - newest) + 20)
            .unwrap();
        assert!(matches!(
            MarksFile::open(dir.path(), &disk),
            Err(LogError::Refused(_))
        ));
    }

    #[test]
    fn marks_of_any_size_fit() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::default();
        let saved = Saved {
            number: 0,
            durable: (1, 0),
            marks: marks(0),
        };
        let mut file = MarksFile::create(dir.path(), saved, &disk).unwrap();
        let many: BTreeMap<_, _> = (0..9)
            .map(|g| (format!("g{g}"), vec![u64::MAX; 64]))
            .collect();
        file.save((u64::MAX, u64::MAX), many.clone()).unwrap();
        assert_eq!(
            MarksFile::open(dir.path(), &disk).unwrap().saved().marks,
            many
        );
    }
}
