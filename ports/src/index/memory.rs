//! An index in memory: for tests and simulation. Clones share what is stored.

use super::limits::check_bucket;
use super::{Bucket, Collection, Document, Index, IndexError, Outcome, Page, Query, Removal};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Key = (Option<Bucket>, String);
type Documents = BTreeMap<Key, Document>;

/// An index in memory. A write is seen by every later call, lists included.
#[derive(Debug, Clone, Default)]
pub struct MemoryIndex {
    lists: Arc<Mutex<BTreeMap<(Collection, String), Documents>>>,
}

impl MemoryIndex {
    /// An empty index.
    pub fn new() -> Self {
        Self::default()
    }

    /// Every document of a collection and org, by (bucket, id): for assertions.
    pub fn all(&self, collection: Collection, org: &str) -> Vec<Document> {
        self.lock()
            .get(&(collection, org.to_owned()))
            .map(|documents| documents.values().cloned().collect())
            .unwrap_or_default()
    }

    /// Drops a bucket of a weekly collection, in every org.
    pub fn drop_bucket(&self, collection: Collection, bucket: Bucket) {
        for ((of, _), documents) in self.lock().iter_mut() {
            if *of == collection {
                documents.retain(|(found, _), _| *found != Some(bucket));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Collection, String), Documents>> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(
        &self,
        collection: Collection,
        org: &str,
        documents: Vec<Document>,
        replaces: impl Fn(&Document, &Document) -> bool,
    ) -> Vec<Outcome> {
        let mut lists = self.lock();
        let list = lists.entry((collection, org.to_owned())).or_default();
        documents
            .into_iter()
            .map(|new| {
                if let Some(reason) = new.poison(collection) {
                    return Outcome::Poison(reason);
                }
                let key = (new.bucket, new.id.clone());
                match list.get(&key) {
                    Some(old) if !replaces(&new, old) => Outcome::Exists,
                    _ => {
                        list.insert(key, new);
                        Outcome::Written
                    }
                }
            })
            .collect()
    }
}

#[async_trait]
impl Index for MemoryIndex {
    async fn prepare(&self) -> Result<(), IndexError> {
        Ok(())
    }

    async fn create(
        &self,
        collection: Collection,
        org: &str,
        documents: Vec<Document>,
    ) -> Result<Vec<Outcome>, IndexError> {
        Ok(self.write(collection, org, documents, |_, _| false))
    }

    async fn put(
        &self,
        collection: Collection,
        org: &str,
        documents: Vec<Document>,
    ) -> Result<Vec<Outcome>, IndexError> {
        Ok(self.write(collection, org, documents, |new, old| {
            new.version >= old.version
        }))
    }

    async fn remove(
        &self,
        collection: Collection,
        org: &str,
        removals: Vec<Removal>,
    ) -> Result<(), IndexError> {
        let mut lists = self.lock();
        let list = lists.entry((collection, org.to_owned())).or_default();
        for removal in removals {
            let key = (removal.bucket, removal.id);
            let goes =
                |found: &Document| !collection.versioned() || found.version <= removal.version;
            if list.get(&key).is_some_and(goes) {
                list.remove(&key);
            }
        }
        Ok(())
    }

    async fn get(
        &self,
        collection: Collection,
        org: &str,
        bucket: Option<Bucket>,
        id: &str,
    ) -> Result<Option<Document>, IndexError> {
        check_bucket(collection, bucket)?;
        Ok(self
            .lock()
            .get(&(collection, org.to_owned()))
            .and_then(|documents| documents.get(&(bucket, id.to_owned())))
            .cloned())
    }

    async fn query(
        &self,
        collection: Collection,
        org: &str,
        query: &Query,
    ) -> Result<Page, IndexError> {
        let lists = self.lock();
        let mut found: Vec<&Document> = lists
            .get(&(collection, org.to_owned()))
            .into_iter()
            .flat_map(BTreeMap::values)
            .filter(|document| {
                query.matches(document) && query.is_after((document.order, &document.id))
            })
            .collect();
        found.sort_by(|a, b| query.compare((a.order, &a.id), (b.order, &b.id)));
        found.truncate(query.limit.saturating_add(1));
        let documents = found.into_iter().map(|document| query.shown(document));
        Ok(Page::cut(documents.collect(), query.limit))
    }

    async fn count(
        &self,
        collection: Collection,
        org: &str,
        query: &Query,
    ) -> Result<u64, IndexError> {
        let lists = self.lock();
        let matching = lists
            .get(&(collection, org.to_owned()))
            .into_iter()
            .flat_map(BTreeMap::values)
            .filter(|document| query.matches(document))
            .count();
        Ok(matching as u64)
    }

    async fn refresh(&self, _collection: Collection) -> Result<(), IndexError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::suite::Stage;

    #[async_trait]
    impl Stage for MemoryIndex {
        async fn open(&self) -> Arc<dyn Index> {
            Arc::new(self.clone())
        }
    }

    async fn stage() -> MemoryIndex {
        MemoryIndex::new()
    }

    crate::index_suite!(stage);
}
