//! Folders that survive a power cut: each is synced into the one above it.

use std::collections::HashSet;
use std::fs::File;
use std::io::{ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Above so many folders the memory of them begins anew.
const REMEMBERED: usize = 100_000;

/// Remembers which folders are safe, so that only the first write into one pays for it.
#[derive(Debug, Default)]
pub(super) struct Folders {
    safe: Mutex<HashSet<PathBuf>>,
}

impl Folders {
    /// Makes a folder and all above it, and sees to it that they survive.
    pub(super) fn make(&self, folder: &Path) -> Result<()> {
        if self.lock().contains(folder) {
            return Ok(());
        }
        if let Some(above) = above(folder) {
            self.make(&above)?;
            make_one(folder, &above)?;
        }
        let mut safe = self.lock();
        if safe.len() >= REMEMBERED {
            safe.clear();
        }
        safe.insert(folder.to_owned());
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<PathBuf>> {
        self.safe.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a folder and those above it that are missing.
pub(crate) fn make_folders(folder: &Path) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let Some(above) = above(folder) else {
        return Ok(());
    };
    make_folders(&above)?;
    make_one(folder, &above)
}

/// Writes a folder's list of names to the disk.
pub(super) fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder)?.sync_all()
}

fn make_one(folder: &Path, above: &Path) -> Result<()> {
    match std::fs::create_dir(folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        // Also when it was there: whoever made it may not have come so far.
        _ => sync_folder(above),
    }
}

fn above(folder: &Path) -> Option<PathBuf> {
    let above = folder.parent()?;
    Some(if above.as_os_str().is_empty() {
        PathBuf::from(".")
    } else {
        above.to_owned()
    })
    .filter(|above| above != folder)
}
