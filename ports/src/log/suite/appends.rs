//! Appends: order, durability, refusals.

use super::*;
use std::collections::BTreeSet;

pub async fn order_within_a_partition(factory: &dyn Factory) {
    let (subject, topic) = with_topic(factory, 2, &[]).await;
    let log = subject.log();
    for n in 0..20 {
        within(log.append(&topic, 1, Bytes::new(), numbered(n)))
            .await
            .unwrap();
    }
    let records = read_all(log.as_ref(), &topic, &[1]).await;
    let values: Vec<_> = records.iter().map(|r| r.value.clone()).collect();
    assert_eq!(values, (0..20).map(numbered).collect::<Vec<_>>());
    assert!(
        records
            .windows(2)
            .all(|pair| pair[0].position < pair[1].position)
    );
}

pub async fn pipelined_appends_keep_their_order(factory: &dyn Factory) {
    let (subject, topic) = with_topic(factory, 1, &[]).await;
    let log = subject.log();
    let appends: Vec<_> = (0..500)
        .map(|n| log.append(&topic, 0, Bytes::new(), numbered(n)))
        .collect();
    // Polled in the opposite order of the calls.
    let mut positions = Vec::new();
    for append in appends.into_iter().rev() {
        positions.push(within(append).await.unwrap());
    }
    assert!(
        positions.windows(2).all(|pair| pair[0] > pair[1]),
        "order of the calls"
    );
    // Never polled at all, and dropped.
    drop(log.append(&topic, 0, Bytes::new(), numbered(500)));
    within(log.append(&topic, 0, Bytes::new(), numbered(501)))
        .await
        .unwrap();
    let records = read_all(log.as_ref(), &topic, &[0]).await;
    let values: Vec<_> = records.into_iter().map(|r| r.value).collect();
    assert_eq!(values, (0..502).map(numbered).collect::<Vec<_>>());
}

pub async fn acknowledged_is_readable_at_once(factory: &dyn Factory) {
    let (subject, topic) = with_topic(factory, 1, &[]).await;
    let log = subject.log();
    for n in 0..5 {
        let (key, value) = (Bytes::from("k"), numbered(n));
        let position = within(log.append(&topic, 0, key.clone(), value.clone()))
            .await
            .unwrap();
        let records = read_all(log.as_ref(), &topic, &[0]).await;
        assert_eq!(
            records.last(),
            Some(&Record {
                partition: 0,
                position,
                key,
                value
            })
        );
    }
}

pub async fn acknowledged_survives_a_restart(factory: &dyn Factory) {
    let (mut subject, topic) = with_topic(factory, 4, &[]).await;
    for partition in 0..4 {
        fill(subject.log().as_ref(), &topic, partition, 0, 50).await;
    }
    let before = read_all(subject.log().as_ref(), &topic, &[0, 1, 2, 3]).await;
    assert_eq!(before.len(), 200);
    if !subject.restart().await {
        return;
    }
    let log = subject.log();
    let mut again = read_all(log.as_ref(), &topic, &[0, 1, 2, 3]).await;
    let mut expected = before.clone();
    again.sort_by_key(|r| (r.partition, r.position));
    expected.sort_by_key(|r| (r.partition, r.position));
    assert_eq!(again, expected);
    let next = within(log.append(&topic, 2, Bytes::new(), numbered(50)))
        .await
        .unwrap();
    assert!(
        expected
            .iter()
            .all(|r| r.partition != 2 || r.position < next)
    );
}

pub async fn too_large_is_refused(factory: &dyn Factory) {
    let (subject, topic) = with_topic(factory, 1, &[]).await;
    let log = subject.log();
    let limit = subject.max_record_bytes();
    let refused = within(log.append(&topic, 0, Bytes::new(), vec![7; limit + 1].into())).await;
    assert!(
        matches!(refused, Err(LogError::TooLarge { .. })),
        "{refused:?}"
    );
    within(log.append(&topic, 0, Bytes::from("k"), vec![7; limit - 1].into()))
        .await
        .unwrap();
    let records = read_all(log.as_ref(), &topic, &[0]).await;
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].value.len(), limit - 1);
}

pub async fn unknown_is_refused(factory: &dyn Factory) {
    let (subject, topic) = with_topic(factory, 2, &["known"]).await;
    let log = subject.log();
    let unknown = subject.name("unknown");
    assert!(is_refused(
        &within(log.append(&unknown, 0, Bytes::new(), numbered(0))).await
    ));
    assert!(is_refused(
        &within(log.append(&topic, 2, Bytes::new(), numbered(0))).await
    ));
    assert!(is_refused(&within(log.end(&unknown, 0)).await));
    assert!(is_refused(&within(log.end(&topic, 2)).await));
    assert!(is_refused(&within(log.partitions(&unknown)).await));
    assert!(is_refused(
        &within(log.tail(&unknown, &[0], super::super::From::Now)).await
    ));
    assert!(is_refused(
        &within(log.tail(&topic, &[0, 2], super::super::From::Now)).await
    ));
    assert!(is_refused(&within(log.group("known", &unknown)).await));
    assert!(is_refused(&within(log.group("unknown", &topic)).await));
    assert!(is_refused(&within(log.lag("unknown", &topic)).await));
}

pub async fn redeclaring_is_safe(factory: &dyn Factory) {
    let (mut subject, topic) = with_topic(factory, 3, &["a"]).await;
    fill(subject.log().as_ref(), &topic, 0, 0, 5).await;
    for _ in 0..2 {
        let log = subject.log();
        within(log.declare(&[spec(topic.clone(), 3, &["a"])]))
            .await
            .unwrap();
        let other = within(log.declare(&[spec(topic.clone(), 4, &["a"])])).await;
        assert!(
            is_refused(&other),
            "another number of partitions: {other:?}"
        );
        assert_eq!(within(log.partitions(&topic)).await, Ok(3));
        assert_eq!(read_all(log.as_ref(), &topic, &[0, 1, 2]).await.len(), 5);
        drop(log);
        if !subject.restart().await {
            return;
        }
    }
}

pub async fn many_producers_lose_nothing(factory: &dyn Factory) {
    let (subject, topic) = with_topic(factory, 4, &[]).await;
    let mut producers = tokio::task::JoinSet::new();
    for producer in 0..16_u64 {
        let (log, topic) = (subject.log(), topic.clone());
        producers.spawn(async move {
            let partition = (producer % 4) as u32;
            for n in 0..50 {
                let value = numbered(producer * 1000 + n);
                within(log.append(&topic, partition, Bytes::new(), value))
                    .await
                    .unwrap();
            }
        });
    }
    while let Some(done) = within(producers.join_next()).await {
        done.unwrap();
    }
    let records = read_all(subject.log().as_ref(), &topic, &[0, 1, 2, 3]).await;
    let places: BTreeSet<_> = records.iter().map(|r| (r.partition, r.position)).collect();
    assert_eq!(places.len(), 800, "every record has a place of its own");
    for producer in 0..16_u64 {
        let mine: Vec<_> = (0..50).map(|n| numbered(producer * 1000 + n)).collect();
        let found: Vec<_> = records
            .iter()
            .map(|r| r.value.clone())
            .filter(|v| mine.contains(v))
            .collect();
        assert_eq!(found, mine, "in the order of the producer");
    }
}

pub async fn end_is_after_the_acknowledged(factory: &dyn Factory) {
    let (subject, topic) = with_topic(factory, 2, &[]).await;
    let log = subject.log();
    let empty = within(log.end(&topic, 0)).await.unwrap();
    for n in 0..10 {
        let position = within(log.append(&topic, 0, Bytes::new(), numbered(n)))
            .await
            .unwrap();
        assert!(within(log.end(&topic, 0)).await.unwrap() > position);
    }
    assert_eq!(within(log.end(&topic, 1)).await.unwrap(), empty);
}
