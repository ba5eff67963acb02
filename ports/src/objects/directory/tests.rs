//! Tests of the directory: the suite, crashes and full disks.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod crash;
mod full;

use super::DirectoryObjects;
use crate::objects::suite::Stage;
use crate::objects::{Objects, ObjectsError};
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;
use tempfile::TempDir;

async fn stage() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[async_trait]
impl Stage for TempDir {
    async fn open(&self) -> Arc<dyn Objects> {
        Arc::new(DirectoryObjects::new(self.path().join("new/folder")))
    }
}

crate::objects_suite!(stage);

/// What another process left unfinished is gone after prepare; finished objects and what this
/// process is writing stay.
#[tokio::test]
async fn prepare_sweeps_what_was_left() {
    let directory = tempfile::tempdir().unwrap();
    let objects = DirectoryObjects::new(directory.path());
    objects.prepare().await.unwrap();
    objects.put("a/b", Bytes::from_static(b"c")).await.unwrap();
    let left = directory.path().join("writing/1-2-3");
    let ours = directory.path().join(format!("writing/{}x", super::run()));
    std::fs::write(&left, "half").unwrap();
    std::fs::write(&ours, "half").unwrap();
    DirectoryObjects::new(directory.path())
        .prepare()
        .await
        .unwrap();
    assert!(!left.exists());
    assert!(ours.exists());
    assert_eq!(objects.get("a/b", None).await.unwrap(), "c");
}

/// A put leaves nothing beside the object.
#[tokio::test]
async fn puts_leave_nothing_unfinished() {
    let directory = tempfile::tempdir().unwrap();
    let objects = DirectoryObjects::new(directory.path());
    objects.prepare().await.unwrap();
    for bytes in ["first", "second"] {
        objects.put("a/b", Bytes::from(bytes)).await.unwrap();
    }
    let writing = directory.path().join("writing");
    assert_eq!(std::fs::read_dir(writing).unwrap().count(), 0);
}

/// Without prepare, writes say that the store cannot be reached; nothing is made by the way.
#[tokio::test]
async fn a_store_that_is_gone_is_unavailable() {
    let directory = tempfile::tempdir().unwrap();
    let objects = DirectoryObjects::new(directory.path().join("root"));
    objects.prepare().await.unwrap();
    objects.put("a/b", Bytes::from_static(b"c")).await.unwrap();
    std::fs::rename(
        directory.path().join("root"),
        directory.path().join("elsewhere"),
    )
    .unwrap();
    let put = objects.put("a/c", Bytes::from_static(b"c")).await;
    assert!(matches!(put, Err(ObjectsError::Unavailable(_))), "{put:?}");
    std::fs::rename(
        directory.path().join("elsewhere"),
        directory.path().join("root"),
    )
    .unwrap();
    objects.put("a/c", Bytes::from_static(b"c")).await.unwrap();
    assert_eq!(objects.get("a/b", None).await.unwrap(), "c");
}
