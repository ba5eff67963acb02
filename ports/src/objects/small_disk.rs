//! For tests: a file system that is soon full.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// A mounted file system in memory, gone when dropped.
pub(crate) struct SmallDisk {
    directory: TempDir,
}

impl SmallDisk {
    /// One of so many MiB. None, and a note, where mounting is not permitted.
    pub(crate) fn mount(mebibytes: u32) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "tmpfs"])
            .arg(directory.path())
            .output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self { directory });
        }
        eprintln!("not tested: mounting a small file system is not permitted here");
        None
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.directory.path()).status();
        if !unmounted.is_ok_and(|status| status.success()) && !std::thread::panicking() {
            panic!("cannot unmount {}", self.directory.path().display());
        }
    }
}
