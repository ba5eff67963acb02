//! Reads pages of a topic from where a cursor stands, waiting for more at the end.

use super::super::LogError;
use super::{Cursor, Entry, Limit, Progress, Store};
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinHandle;

type Fetched = (Cursor, Result<Vec<Entry>, LogError>);

/// A cursor with its store.
pub(crate) struct Reader {
    store: Arc<dyn Store>,
    cursor: Cursor,
    limit: Limit,
    progress: watch::Receiver<Progress>,
    /// A read from disk that is under way, kept here so that a cancelled wait loses nothing.
    fetching: Option<JoinHandle<Fetched>>,
}

impl Reader {
    pub(crate) fn new(store: Arc<dyn Store>, cursor: Cursor, limit: Limit) -> Self {
        let progress = store.progress();
        Self {
            store,
            cursor,
            limit,
            progress,
            fetching: None,
        }
    }

    pub(crate) fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// Whether everything durable was read.
    pub(crate) fn at_end(&self) -> bool {
        self.fetching.is_none() && self.cursor.seq >= self.progress.borrow().seq
    }

    /// The next records; returns as soon as the cursor has moved, also when none was wanted.
    /// Waits at the end of the topic. Cancel-safe.
    pub(crate) async fn page(&mut self) -> Result<Vec<Entry>, LogError> {
        loop {
            if let Some(fetching) = &mut self.fetching {
                let fetched = fetching.await;
                self.fetching = None;
                let (cursor, entries) = fetched
                    .map_err(|error| LogError::Unavailable(format!("read ended: {error}")))?;
                let entries = entries?;
                self.cursor = cursor;
                return Ok(entries);
            }
            let progress = *self.progress.borrow_and_update();
            if self.cursor.seq >= progress.seq {
                wait(&mut self.progress).await?;
                continue;
            }
            if let Some(entries) = self.store.recent(&mut self.cursor, self.limit)? {
                return Ok(entries);
            }
            let store = Arc::clone(&self.store);
            let mut cursor = self.cursor.clone();
            let limit = self.limit;
            self.fetching = Some(tokio::task::spawn_blocking(move || {
                let entries = store.stored(&mut cursor, limit);
                (cursor, entries)
            }));
        }
    }
}

/// Waits until the topic has got further.
pub(super) async fn wait(progress: &mut watch::Receiver<Progress>) -> Result<(), LogError> {
    let closed = || LogError::Unavailable("the log was closed".into());
    if progress.borrow().closed {
        return Err(closed());
    }
    progress.changed().await.map_err(|_| closed())
}
