//! What the log does by itself: expire, compact, save marks.

use super::super::keep;
use super::*;
use bytes::Bytes;

#[tokio::test]
async fn what_is_old_and_marked_goes_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let aged = |seconds| TopicSpec {
        retention: Retention::Age(Duration::from_secs(seconds)),
        ..topic(1, &["g"])
    };
    log.declare(&[aged(3600)]).await.unwrap();
    let topic = log.inner.topic("t").unwrap();
    append(&log, "a").await.unwrap();
    let mut group = log.group("g", "t").await.unwrap();
    let crate::log::GroupEvent::Assigned { epoch, mark, .. } = group.next().await.unwrap() else {
        panic!("no assignment");
    };
    let keep = async || {
        let topic = Arc::clone(&topic);
        tokio::task::spawn_blocking(move || keep::keep(&topic))
            .await
            .unwrap()
            .unwrap();
        read_all(&log, &[0]).await.len()
    };
    let end = Position { offset: 1, ..mark };
    assert_eq!(keep().await, 1, "young");
    log.declare(&[aged(0)]).await.unwrap();
    assert_eq!(keep().await, 1, "not marked");
    group.mark(0, epoch, end).unwrap();
    log.declare(&[aged(3600)]).await.unwrap();
    assert_eq!(keep().await, 1, "marked but young");
    log.declare(&[aged(0)]).await.unwrap();
    assert_eq!(keep().await, 0);
}

#[tokio::test]
async fn a_topic_is_compacted_when_it_is_worth_its_while() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let spec = TopicSpec {
        retention: Retention::Compacted,
        ..topic(1, &[])
    };
    log.declare(&[spec]).await.unwrap();
    let topic = log.inner.topic("t").unwrap();
    let keep = async || {
        let topic = Arc::clone(&topic);
        tokio::task::spawn_blocking(move || keep::keep(&topic))
            .await
            .unwrap()
            .unwrap();
        read_all(&log, &[0]).await.len()
    };
    let fill = async |records: u8| {
        let value = |n| Bytes::from(vec![n; 1 << 20]);
        let appends = (0..records).map(|n| log.append("t", 0, vec![n % 3].into(), value(n)));
        futures::future::try_join_all(appends).await.unwrap();
    };
    fill(10).await;
    assert_eq!(keep().await, 10, "not worth it");
    fill(10).await;
    assert_eq!(keep().await, 3);
    fill(10).await;
    assert_eq!(keep().await, 13, "not worth it again");
}

#[tokio::test]
async fn marks_are_saved_by_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.declare(&[topic(1, &["g"])]).await.unwrap();
    append(&log, "a").await.unwrap();
    let mut group = log.group("g", "t").await.unwrap();
    let crate::log::GroupEvent::Assigned { epoch, mark, .. } = group.next().await.unwrap() else {
        panic!("no assignment");
    };
    group
        .mark(0, epoch, Position { offset: 1, ..mark })
        .unwrap();
    let saved = || std::fs::read(dir.path().join("t/marks")).unwrap();
    let marked = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).contains(r#""g":[1]"#);
    let waiting = async {
        while !marked(saved()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting)
        .await
        .expect("the mark was saved");
}
