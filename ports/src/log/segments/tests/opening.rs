//! Opening and closing: one process at a time, quickly, and in the order of things.

use super::*;
use crate::log::{From, LogError};
use bytes::Bytes;
use std::time::Instant;

#[tokio::test]
async fn a_second_opener_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let refused = SegmentsLog::open(SegmentsConfig::new(dir.path())).map(|_| ());
    let Err(LogError::Refused(text)) = refused else {
        panic!("{refused:?}")
    };
    assert!(text.contains("another process") && text.contains(dir.path().to_str().unwrap()));
    log.declare(&[topic(1, &[])]).await.unwrap();
    let handle = log.clone();
    drop(log);
    assert!(
        SegmentsLog::open(SegmentsConfig::new(dir.path())).is_err(),
        "a handle is left"
    );
    append(&handle, "a").await.unwrap();
    drop(handle);
    assert_eq!(read_all(&open(dir.path()), &[0]).await.len(), 1);
}

#[tokio::test]
async fn a_closed_log_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.declare(&[topic(1, &["g"])]).await.unwrap();
    let mut tail = log.tail("t", &[0], From::Now).await.unwrap();
    assert!(matches!(tail.next().await, Ok(TailEvent::CaughtUp { .. })));
    let waiting = tokio::spawn(async move { tail.next().await });
    let mut group = log.group("g", "t").await.unwrap();
    let last = log.append("t", 0, Bytes::new(), Bytes::from("v"));
    log.close().await.unwrap();
    last.await.expect("what waited was written");
    assert!(matches!(waiting.await.unwrap(), Ok(TailEvent::Record(_))));
    let unavailable =
        |result: Result<(), LogError>| matches!(result, Err(LogError::Unavailable(_)));
    assert!(unavailable(append(&log, "late").await.map(|_| ())));
    assert!(unavailable(log.declare(&[topic(1, &[])]).await));
    while let Ok(event) = group.next().await {
        assert!(!matches!(event, crate::log::GroupEvent::Revoked { .. }));
    }
    log.close().await.unwrap();
    // The folder is free although a handle is left.
    assert_eq!(read_all(&open(dir.path()), &[0]).await.len(), 1);
}

#[tokio::test]
async fn a_hundred_thousand_records_are_opened_quickly() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.declare(&[topic(4, &[])]).await.unwrap();
    let value = Bytes::from(vec![7; 1024]);
    for _ in 0..100 {
        let appends = (0..1000).map(|n| log.append("t", n % 4, Bytes::new(), value.clone()));
        futures::future::try_join_all(appends).await.unwrap();
    }
    drop(log);
    let start = Instant::now();
    let log = open(dir.path());
    let took = start.elapsed();
    for partition in 0..4 {
        assert_eq!(log.end("t", partition).await.unwrap().offset, 25_000);
    }
    assert_eq!(read_all(&log, &[0, 1, 2, 3]).await.len(), 100_000);
    assert!(took < Duration::from_secs(5), "it took {took:?}");
}

#[tokio::test]
async fn another_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.declare(&[topic(1, &[])]).await.unwrap();
    drop(log);
    let path = dir.path().join("t/topic.json");
    let json = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, json.replace("\"format\": 1", "\"format\": 2")).unwrap();
    let refused = SegmentsLog::open(SegmentsConfig::new(dir.path())).map(|_| ());
    assert!(matches!(&refused, Err(LogError::Refused(text)) if text.contains("format 2")));
}

#[tokio::test]
async fn names_that_are_no_names_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    for name in ["", "..", "a/b", "A", "ä", "a b"] {
        let spec = TopicSpec {
            name: name.into(),
            ..topic(1, &[])
        };
        assert!(
            matches!(log.declare(&[spec]).await, Err(LogError::Refused(_))),
            "{name:?}"
        );
    }
    for partitions in [0, 5000] {
        assert!(matches!(
            log.declare(&[topic(partitions, &[])]).await,
            Err(LogError::Refused(_))
        ));
    }
}
