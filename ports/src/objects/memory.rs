//! Objects in memory: for tests and simulation. Clones share what is stored.

use super::keys::{check_key, check_prefix};
use super::{ObjectEntry, Objects, ObjectsError};
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A store in memory.
#[derive(Debug, Clone, Default)]
pub struct MemoryObjects {
    objects: Arc<Mutex<BTreeMap<String, Bytes>>>,
}

impl MemoryObjects {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Bytes>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Objects for MemoryObjects {
    async fn prepare(&self) -> Result<(), ObjectsError> {
        Ok(())
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), ObjectsError> {
        check_key(key)?;
        self.lock().entry(key.to_owned()).or_insert(bytes);
        Ok(())
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes, ObjectsError> {
        check_key(key)?;
        let objects = self.lock();
        let bytes = objects
            .get(key)
            .ok_or_else(|| ObjectsError::NotFound(key.to_owned()))?;
        let Some(range) = range else {
            return Ok(bytes.clone());
        };
        let clip = |at: u64| usize::try_from(at).map_or(bytes.len(), |at| at.min(bytes.len()));
        let start = clip(range.start);
        Ok(bytes.slice(start..clip(range.end).max(start)))
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ObjectEntry>, ObjectsError> {
        check_prefix(prefix)?;
        Ok(self
            .lock()
            .iter()
            .filter(|(key, _)| {
                key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after)
            })
            .take(limit)
            .map(|(key, bytes)| ObjectEntry {
                key: key.clone(),
                size: bytes.len() as u64,
            })
            .collect())
    }

    async fn delete(&self, key: &str) -> Result<(), ObjectsError> {
        check_key(key)?;
        self.lock().remove(key);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::suite::Stage;

    #[async_trait]
    impl Stage for MemoryObjects {
        async fn open(&self) -> Arc<dyn Objects> {
            Arc::new(self.clone())
        }
    }

    async fn stage() -> MemoryObjects {
        MemoryObjects::new()
    }

    crate::objects_suite!(stage);
}
