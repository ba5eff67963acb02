//! A process killed while it puts objects leaves each whole or not at all, and loses none that it
//! was told is durable.

use super::DirectoryObjects;
use crate::objects::Objects;
use crate::objects::killed::{content, directory, lines_of_killed, say};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// The process that is killed.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a process that another test kills"]
async fn puts_until_killed() {
    let Some(directory) = directory() else { return };
    let objects = Arc::new(DirectoryObjects::new(directory));
    objects.prepare().await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..4 {
        let objects = Arc::clone(&objects);
        tasks.spawn(async move {
            for number in 0..u32::MAX {
                let key = format!("{}/{task}/{number}", std::process::id());
                objects
                    .put(&key, Bytes::from(content(&key, size(&key))))
                    .await
                    .unwrap();
                say(&key);
            }
        });
    }
    let _ = tokio::time::timeout(Duration::from_secs(60), tasks.join_all()).await;
}

/// From nothing to 400 KB.
fn size(key: &str) -> usize {
    content(key, 1)[0] as usize * 1_600
}

#[tokio::test]
async fn kill_loses_nothing_that_was_answered() {
    let directory = tempfile::tempdir().unwrap();
    let mut durable = Vec::new();
    for enough in [1, 7, 20, 60, 150] {
        durable.extend(lines_of_killed(
            "objects::directory::tests::crash::puts_until_killed",
            directory.path(),
            enough,
        ));
        let objects = DirectoryObjects::new(directory.path());
        objects.prepare().await.unwrap();
        for key in &durable {
            let bytes = objects.get(key, None).await.unwrap();
            assert!(bytes == content(key, size(key)), "{key}");
        }
        let listed = objects.list("", None, usize::MAX).await.unwrap();
        assert!(listed.len() >= durable.len());
        for entry in listed {
            let bytes = objects.get(&entry.key, None).await.unwrap();
            assert!(
                bytes == content(&entry.key, size(&entry.key)),
                "{}",
                entry.key
            );
        }
        let writing = directory.path().join("writing");
        assert_eq!(std::fs::read_dir(writing).unwrap().count(), 0);
    }
}
