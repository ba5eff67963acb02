//! A store of objects that fails on demand: for tests. The switches are those of the
//! [faulty index](crate::index::faulty), and one set of them may serve both.

use super::{ObjectEntry, Objects, ObjectsError};
use crate::index::faulty::{Fault, Faults};
use async_trait::async_trait;
use bytes::Bytes;
use std::ops::Range;

/// Wraps a store; its [`Faults`] say what goes wrong.
#[derive(Debug, Clone)]
pub struct FaultyObjects<O> {
    inner: O,
    faults: Faults,
}

impl<O: Objects> FaultyObjects<O> {
    /// A store that works until a fault is set.
    pub fn new(inner: O, faults: Faults) -> Self {
        Self { inner, faults }
    }

    /// The store inside, which never fails by these switches.
    pub fn inner(&self) -> &O {
        &self.inner
    }

    /// The switches.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    async fn run<T: Send>(
        &self,
        write: bool,
        call: impl Future<Output = Result<T, ObjectsError>> + Send,
    ) -> Result<T, ObjectsError> {
        match self.faults.next(write) {
            None => call.await,
            Some(Fault::Unavailable) => Err(ObjectsError::Unavailable("a test said so".into())),
            Some(Fault::Refused) => Err(ObjectsError::Refused("a test said so".into())),
            Some(Fault::Full) => Err(ObjectsError::Full("a test said so".into())),
            Some(Fault::FailsAfterDone) => {
                call.await?;
                Err(ObjectsError::Unavailable(
                    "a test said so, once done".into(),
                ))
            }
            Some(Fault::Slow(by)) => {
                tokio::time::sleep(by).await;
                call.await
            }
        }
    }
}

#[async_trait]
impl<O: Objects> Objects for FaultyObjects<O> {
    async fn prepare(&self) -> Result<(), ObjectsError> {
        self.run(true, self.inner.prepare()).await
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), ObjectsError> {
        self.run(true, self.inner.put(key, bytes)).await
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes, ObjectsError> {
        self.run(false, self.inner.get(key, range)).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ObjectEntry>, ObjectsError> {
        self.run(false, self.inner.list(prefix, after, limit)).await
    }

    async fn delete(&self, key: &str) -> Result<(), ObjectsError> {
        self.run(true, self.inner.delete(key)).await
    }
}
