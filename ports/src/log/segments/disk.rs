//! Every change of a file goes through here: one place that a test can make fail.

use super::super::LogError;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// What is done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Create,
    Write,
    Sync,
    Cut,
    Rename,
    Remove,
}

/// Asked before every change; an error is given back in place of it.
type Gate = Arc<dyn Fn(Op, &Path) -> io::Result<()> + Send + Sync>;

/// The file system.
#[derive(Clone, Default)]
pub(super) struct Disk {
    gate: Option<Gate>,
}

impl Disk {
    /// A disk on which an operation fails when the gate says so.
    #[cfg(test)]
    pub(super) fn with_gate(
        gate: impl Fn(Op, &Path) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self {
            gate: Some(Arc::new(gate)),
        }
    }

    fn ask(&self, op: Op, path: &Path) -> io::Result<()> {
        self.gate.as_ref().map_or(Ok(()), |gate| gate(op, path))
    }

    /// A new file for reading and writing, emptied if it was there.
    pub(super) fn create(&self, path: &Path) -> io::Result<File> {
        self.ask(Op::Create, path)?;
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)
    }

    pub(super) fn write(&self, path: &Path, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        self.ask(Op::Write, path)?;
        file.write_all_at(bytes, at)
    }

    /// Makes the contents of the file durable.
    pub(super) fn sync(&self, path: &Path, file: &File) -> io::Result<()> {
        self.ask(Op::Sync, path)?;
        file.sync_data()
    }

    pub(super) fn cut(&self, path: &Path, file: &File, len: u64) -> io::Result<()> {
        self.ask(Op::Cut, path)?;
        file.set_len(len)
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.ask(Op::Rename, from)?;
        fs::rename(from, to)
    }

    /// Removes a file; one that is gone already is as well.
    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        self.ask(Op::Remove, path)?;
        match fs::remove_file(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Makes the names in a folder durable.
    pub(super) fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.ask(Op::Sync, dir)?;
        File::open(dir)?.sync_all()
    }

    /// Writes a whole file so that after a crash either the old or the new one is there.
    pub(super) fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let new = path.with_extension("new");
        let written = self.create(&new).and_then(|file| {
            self.write(&new, &file, bytes, 0)?;
            self.sync(&new, &file)?;
            self.rename(&new, path)
        });
        if let Err(error) = written {
            // Gives the room back on a full disk; the file has no name that anyone reads.
            fs::remove_file(&new).ok();
            return Err(error);
        }
        path.parent().map_or(Ok(()), |dir| self.sync_dir(dir))
    }
}

/// What a failed operation means to a user of the log.
pub(super) fn failed(doing: &str, path: &Path, error: &io::Error) -> LogError {
    let text = format!("cannot {doing} {}: {error}", path.display());
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            LogError::Full(text)
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => LogError::Refused(text),
        _ => LogError::Unavailable(text),
    }
}
