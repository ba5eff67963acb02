//! Tests of the SQLite index: the suite, files of others, crashes and full disks.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::SqliteIndex;
use crate::index::Index;
use crate::index::suite::Stage;
use async_trait::async_trait;
use std::sync::Arc;
use tempfile::TempDir;

async fn stage() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[async_trait]
impl Stage for TempDir {
    async fn open(&self) -> Arc<dyn Index> {
        Arc::new(SqliteIndex::open(self.path().join("new/folder/index.sqlite")).unwrap())
    }
}

crate::index_suite!(stage);
