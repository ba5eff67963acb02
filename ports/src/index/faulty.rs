//! An index that fails on demand: for tests.

use super::{Bucket, Collection, Document, Index, IndexError, Outcome, Page, Query, Removal};
use async_trait::async_trait;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails as unavailable; nothing was done.
    Unavailable,
    /// It fails as refused; nothing was done.
    Refused,
    /// It fails as full; nothing was done. Only for writes; reads succeed.
    Full,
    /// It is done and then fails as unavailable all the same.
    FailsAfterDone,
    /// It takes so much longer (tokio's time), then succeeds.
    Slow(Duration),
}

/// Which calls a fault is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Calls {
    /// All.
    #[default]
    All,
    /// Writes (and deletions).
    Writes,
    /// Reads (and refreshes).
    Reads,
}

/// The switches of a faulty index or of faulty objects, shared by all clones. All off at first.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    fault: Option<(Fault, Calls)>,
    left: Option<u64>,
    writes: u64,
    reads: u64,
    hides: bool,
    poison: Option<Collection>,
}

impl Faults {
    /// All off.
    pub fn new() -> Self {
        Self::default()
    }

    /// Every such call goes wrong from now on, until [`Faults::clear`].
    pub fn set(&self, fault: Fault, calls: Calls) {
        let mut state = self.lock();
        state.fault = Some((fault, calls));
        state.left = None;
    }

    /// The next `times` such calls go wrong.
    pub fn set_times(&self, fault: Fault, calls: Calls, times: u64) {
        let mut state = self.lock();
        state.fault = Some((fault, calls));
        state.left = Some(times);
    }

    /// Nothing goes wrong any more.
    pub fn clear(&self) {
        self.lock().fault = None;
    }

    /// How many writes were asked for so far, those that went wrong included.
    pub fn writes(&self) -> u64 {
        self.lock().writes
    }

    /// How many reads were asked for so far, those that went wrong included.
    pub fn reads(&self) -> u64 {
        self.lock().reads
    }

    /// Queries of the index find nothing until it is refreshed, as one shows late what it has.
    pub fn hide(&self) {
        self.lock().hides = true;
    }

    /// Whether they find nothing now.
    pub fn hides(&self) -> bool {
        self.lock().hides
    }

    /// The index can store no document of this collection, however often it is tried.
    pub fn poison(&self, collection: Option<Collection>) {
        self.lock().poison = collection;
    }

    /// What becomes of these documents instead of being stored.
    fn poisoned(&self, collection: Collection, documents: usize) -> Option<Vec<Outcome>> {
        let poisoned = self.lock().poison == Some(collection);
        poisoned.then(|| vec![Outcome::Poison("a test said so".into()); documents])
    }

    /// What happens to the call that begins now.
    pub(crate) fn next(&self, write: bool) -> Option<Fault> {
        let mut state = self.lock();
        if write {
            state.writes += 1;
        } else {
            state.reads += 1;
        }
        let (fault, calls) = state.fault?;
        let meant = match calls {
            Calls::All => true,
            Calls::Writes => write,
            Calls::Reads => !write,
        };
        if !meant || (fault == Fault::Full && !write) {
            return None;
        }
        if let Some(left) = &mut state.left {
            *left = left.checked_sub(1)?;
        }
        Some(fault)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wraps an index; its [`Faults`] say what goes wrong.
#[derive(Debug, Clone)]
pub struct FaultyIndex<I> {
    inner: I,
    faults: Faults,
}

impl<I: Index> FaultyIndex<I> {
    /// An index that works until a fault is set.
    pub fn new(inner: I, faults: Faults) -> Self {
        Self { inner, faults }
    }

    /// The index inside, which never fails by these switches.
    pub fn inner(&self) -> &I {
        &self.inner
    }

    /// The switches.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    async fn run<T: Send>(
        &self,
        write: bool,
        call: impl Future<Output = Result<T, IndexError>> + Send,
    ) -> Result<T, IndexError> {
        match self.faults.next(write) {
            None => call.await,
            Some(Fault::Unavailable) => Err(IndexError::Unavailable("a test said so".into())),
            Some(Fault::Refused) => Err(IndexError::Refused("a test said so".into())),
            Some(Fault::Full) => Err(IndexError::Full("a test said so".into())),
            Some(Fault::FailsAfterDone) => {
                call.await?;
                Err(IndexError::Unavailable("a test said so, once done".into()))
            }
            Some(Fault::Slow(by)) => {
                tokio::time::sleep(by).await;
                call.await
            }
        }
    }
}

#[async_trait]
impl<I: Index> Index for FaultyIndex<I> {
    async fn prepare(&self) -> Result<(), IndexError> {
        self.run(true, self.inner.prepare()).await
    }

    async fn create(
        &self,
        collection: Collection,
        org: &str,
        documents: Vec<Document>,
    ) -> Result<Vec<Outcome>, IndexError> {
        if let Some(poisoned) = self.faults.poisoned(collection, documents.len()) {
            return Ok(poisoned);
        }
        self.run(true, self.inner.create(collection, org, documents))
            .await
    }

    async fn put(
        &self,
        collection: Collection,
        org: &str,
        documents: Vec<Document>,
    ) -> Result<Vec<Outcome>, IndexError> {
        if let Some(poisoned) = self.faults.poisoned(collection, documents.len()) {
            return Ok(poisoned);
        }
        self.run(true, self.inner.put(collection, org, documents))
            .await
    }

    async fn remove(
        &self,
        collection: Collection,
        org: &str,
        removals: Vec<Removal>,
    ) -> Result<(), IndexError> {
        self.run(true, self.inner.remove(collection, org, removals))
            .await
    }

    async fn get(
        &self,
        collection: Collection,
        org: &str,
        bucket: Option<Bucket>,
        id: &str,
    ) -> Result<Option<Document>, IndexError> {
        self.run(false, self.inner.get(collection, org, bucket, id))
            .await
    }

    async fn query(
        &self,
        collection: Collection,
        org: &str,
        query: &Query,
    ) -> Result<Page, IndexError> {
        let page = self.run(false, self.inner.query(collection, org, query));
        let page = page.await?;
        Ok(if self.faults.hides() {
            Page::default()
        } else {
            page
        })
    }

    async fn count(
        &self,
        collection: Collection,
        org: &str,
        query: &Query,
    ) -> Result<u64, IndexError> {
        self.run(false, self.inner.count(collection, org, query))
            .await
    }

    async fn refresh(&self, collection: Collection) -> Result<(), IndexError> {
        self.run(false, self.inner.refresh(collection)).await?;
        self.faults.lock().hides = false;
        Ok(())
    }
}
