//! Objects as files below a directory.
//!
//! ```text
//!  <root>/objects/<part>/<part>/<last part>=   an object
//!  <root>/writing/<run>-<number>               a write in progress
//! ```
//!
//! A put writes a file of its own under `writing`, syncs it, links it to its name (which fails
//! when the name exists, so a first write stays) and syncs the folders. A process that is killed
//! at any instruction leaves the whole object or none; what it leaves under `writing` is removed
//! by the next [`Objects::prepare`]. The `=` keeps an object `a` apart from the folder of `a/b`.

mod folders;
mod listing;
#[cfg(test)]
mod tests;

pub(crate) use folders::make_folders;

use super::keys::{check_key, check_prefix};
use super::{ObjectEntry, Objects, ObjectsError};
use async_trait::async_trait;
use bytes::Bytes;
use folders::{Folders, sync_folder};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

/// Objects as files. Clones share the directory.
#[derive(Debug, Clone)]
pub struct DirectoryObjects {
    store: Arc<Store>,
}

#[derive(Debug)]
struct Store {
    objects: PathBuf,
    writing: PathBuf,
    folders: Folders,
}

impl DirectoryObjects {
    /// A store below `root`; nothing is read or made until [`Objects::prepare`]. The whole
    /// directory must be on one file system that has hard links.
    pub fn new(root: impl AsRef<Path>) -> Self {
        let root = root.as_ref();
        Self {
            store: Arc::new(Store {
                objects: root.join("objects"),
                writing: root.join("writing"),
                folders: Folders::default(),
            }),
        }
    }

    /// Runs `call` where waiting for the disk blocks nobody.
    async fn run<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Store) -> Result<T, ObjectsError> + Send + 'static,
    ) -> Result<T, ObjectsError> {
        let store = Arc::clone(&self.store);
        tokio::task::spawn_blocking(move || call(&store))
            .await
            .map_err(|error| {
                ObjectsError::Unavailable(format!("a call of the directory ended: {error}"))
            })?
    }
}

#[async_trait]
impl Objects for DirectoryObjects {
    async fn prepare(&self) -> Result<(), ObjectsError> {
        self.run(Store::prepare).await
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), ObjectsError> {
        check_key(key)?;
        let key = key.to_owned();
        self.run(move |store| store.put(&key, &bytes)).await
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes, ObjectsError> {
        check_key(key)?;
        let key = key.to_owned();
        self.run(move |store| store.get(&key, range)).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ObjectEntry>, ObjectsError> {
        check_prefix(prefix)?;
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        self.run(move |store| {
            listing::list(&store.objects, &prefix, after.as_deref(), limit)
                .map_err(|error| failure("list", &store.objects, &error))
        })
        .await
    }

    async fn delete(&self, key: &str) -> Result<(), ObjectsError> {
        check_key(key)?;
        let key = key.to_owned();
        self.run(move |store| store.delete(&key)).await
    }
}

impl Store {
    fn prepare(&self) -> Result<(), ObjectsError> {
        for folder in [&self.objects, &self.writing] {
            make_folders(folder).map_err(|error| failure("make", folder, &error))?;
        }
        self.sweep()
            .map_err(|error| failure("sweep", &self.writing, &error))
    }

    /// Removes what earlier processes left; the writes of this one go on.
    fn sweep(&self) -> std::io::Result<()> {
        for entry in std::fs::read_dir(&self.writing)? {
            let entry = entry?;
            if !entry.file_name().to_string_lossy().starts_with(run()) {
                gone_is_fine(std::fs::remove_file(entry.path()))?;
            }
        }
        Ok(())
    }

    fn path(&self, key: &str) -> PathBuf {
        self.objects.join(format!("{key}="))
    }

    fn put(&self, key: &str, bytes: &[u8]) -> Result<(), ObjectsError> {
        let path = self.path(key);
        let folder = path.parent().unwrap_or(&self.objects);
        self.folders
            .make(folder)
            .map_err(|error| failure("make", folder, &error))?;
        if !path.exists() {
            self.write_new(&path, bytes)?;
        }
        // Also when it was there: whoever wrote it may not have come so far.
        sync_folder(folder).map_err(|error| failure("sync", folder, &error))
    }

    fn write_new(&self, path: &Path, bytes: &[u8]) -> Result<(), ObjectsError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let unfinished = self.writing.join(format!("{}{number}", run()));
        let written = (|| {
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&unfinished)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            match std::fs::hard_link(&unfinished, path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
                linked => linked,
            }
        })();
        let removed = gone_is_fine(std::fs::remove_file(&unfinished));
        written
            .and(removed)
            .map_err(|error| failure("write", path, &error))
    }

    fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes, ObjectsError> {
        let path = self.path(key);
        let read = || {
            let mut file = File::open(&path)?;
            let size = file.metadata()?.len();
            let range = range.unwrap_or(0..size);
            let start = range.start.min(size);
            let length = range.end.min(size).saturating_sub(start);
            file.seek(SeekFrom::Start(start))?;
            let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
            file.take(length).read_to_end(&mut bytes)?;
            Ok(Bytes::from(bytes))
        };
        read().map_err(|error: std::io::Error| match error.kind() {
            ErrorKind::NotFound => ObjectsError::NotFound(key.to_owned()),
            _ => failure("read", &path, &error),
        })
    }

    fn delete(&self, key: &str) -> Result<(), ObjectsError> {
        let path = self.path(key);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed
                .and_then(|()| sync_folder(path.parent().unwrap_or(&self.objects)))
                .map_err(|error| failure("delete", &path, &error)),
        }
    }
}

/// What the names of this process's unfinished files begin with.
fn run() -> &'static str {
    static RUN: OnceLock<String> = OnceLock::new();
    RUN.get_or_init(|| {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        format!("{}-{}-", std::process::id(), now.as_nanos())
    })
}

fn gone_is_fine(removed: std::io::Result<()>) -> std::io::Result<()> {
    match removed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn failure(what: &str, path: &Path, error: &std::io::Error) -> ObjectsError {
    let text = format!("cannot {what} {}: {error}", path.display());
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => ObjectsError::Full(text),
        ErrorKind::PermissionDenied
        | ErrorKind::ReadOnlyFilesystem
        | ErrorKind::Unsupported
        | ErrorKind::CrossesDevices
        | ErrorKind::NotADirectory
        | ErrorKind::IsADirectory
        | ErrorKind::InvalidFilename => ObjectsError::Refused(text),
        _ => ObjectsError::Unavailable(text),
    }
}
