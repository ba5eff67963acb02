//! A few connections for reading, used on threads where waiting for the disk blocks nobody.

use super::failure::index_error;
use super::schema::open_reader;
use crate::index::IndexError;
use rusqlite::{Connection, Transaction};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;

/// Reads at the same time.
const READERS: usize = 4;

/// The connections. Clones share them.
#[derive(Clone)]
pub(super) struct Readers {
    path: PathBuf,
    idle: Arc<Mutex<Vec<Connection>>>,
    turns: Arc<Semaphore>,
}

impl Readers {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            idle: Arc::default(),
            turns: Arc::new(Semaphore::new(READERS)),
        }
    }

    /// Runs `read` inside one snapshot.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, IndexError> {
        let gone = |_| IndexError::Unavailable("the index is closed".into());
        let turn = Arc::clone(&self.turns)
            .acquire_owned()
            .await
            .map_err(gone)?;
        let readers = self.clone();
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let mut connection = readers.take()?;
            let answer = connection
                .transaction()
                .and_then(|transaction| read(&transaction))
                .map_err(index_error);
            // After an error a new connection is the safer one.
            if answer.is_ok() {
                readers.give_back(connection);
            }
            answer
        })
        .await
        .map_err(|error| IndexError::Unavailable(format!("a read of the index ended: {error}")))?
    }

    /// Closes the connections that are idle; no read begins any more.
    pub(super) fn close(&self) {
        self.turns.close();
        self.lock().clear();
    }

    fn take(&self) -> Result<Connection, IndexError> {
        let idle = self.lock().pop();
        idle.map_or_else(|| open_reader(&self.path), Ok)
    }

    fn give_back(&self, connection: Connection) {
        if !self.turns.is_closed() {
            self.lock().push(connection);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
