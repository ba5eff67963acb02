//! Compacted topics: the newest of each key stays, whenever it is compacted.

use super::super::From;
use super::*;
use std::collections::BTreeMap;

async fn compacted(factory: &dyn Factory, partitions: u32) -> (Box<dyn Subject>, String) {
    let subject = factory.fresh().await;
    let name = subject.name("compacted");
    let spec = TopicSpec {
        name: name.clone(),
        partitions,
        retention: Retention::Compacted,
        groups: Vec::new(),
    };
    within(subject.log().declare(&[spec])).await.unwrap();
    (subject, name)
}

/// Key and value of the newest record of each key, by partition.
type Newest = BTreeMap<(u32, Bytes), Bytes>;

fn newest(records: &[Record]) -> Newest {
    records
        .iter()
        .map(|r| ((r.partition, r.key.clone()), r.value.clone()))
        .collect()
}

pub async fn the_newest_of_each_key_stays(factory: &dyn Factory) {
    let (mut subject, topic) = compacted(factory, 2).await;
    let mut expected = Newest::new();
    let mut all = 0;
    for round in 0..6_u64 {
        let log = subject.log();
        for n in 0..60_u64 {
            // Some keys are only written in the first rounds, and the same key is in both.
            let key = Bytes::from(format!("key {}", n % (30 - 4 * round)));
            let partition = (n / 30) as u32;
            let value = numbered(round * 1000 + n);
            within(log.append(&topic, partition, key.clone(), value.clone()))
                .await
                .unwrap();
            expected.insert((partition, key), value);
            all += 1;
        }
        let could = subject.compact(&topic).await;
        let records = read_all(log.as_ref(), &topic, &[0, 1]).await;
        assert_eq!(newest(&records), expected);
        if could && round == 5 {
            assert!(records.len() < all, "nothing was compacted");
        }
        for partition in 0..2 {
            let of: Vec<_> = records
                .iter()
                .filter(|r| r.partition == partition)
                .collect();
            assert!(
                of.windows(2)
                    .all(|pair| pair[0].position < pair[1].position)
            );
        }
        drop(log);
        if round % 2 == 1 && !subject.restart().await {
            continue;
        }
        assert_eq!(
            newest(&read_all(subject.log().as_ref(), &topic, &[0, 1]).await),
            expected
        );
    }
}

pub async fn compaction_under_readers(factory: &dyn Factory) {
    let (subject, topic) = compacted(factory, 1).await;
    let log = subject.log();
    let mut positions = Vec::new();
    let value = |n: u64| Bytes::from(format!("{n} {}", "x".repeat(2000)));
    for n in 0..1000_u64 {
        let key = Bytes::from(format!("{}", n % 10));
        positions.push(within(log.append(&topic, 0, key, value(n))).await.unwrap());
    }
    let mut early = within(log.tail(&topic, &[0], From::Earliest))
        .await
        .unwrap();
    assert_eq!(next_record(&mut early).await.value, value(0));
    let middle = From::Position(positions[500]);
    let mut halfway = within(log.tail(&topic, &[0], middle)).await.unwrap();
    subject.compact(&topic).await;
    // A position that was compacted away is still one to read on from.
    let mut late = within(log.tail(&topic, &[0], middle)).await.unwrap();
    let last = within(log.append(&topic, 0, Bytes::from("end"), value(1000)))
        .await
        .unwrap();
    for tail in [&mut early, &mut halfway, &mut late] {
        let mut seen: Vec<Record> = Vec::new();
        while seen.last().is_none_or(|record| record.position < last) {
            seen.push(next_record(tail).await);
        }
        assert!(
            seen.windows(2)
                .all(|pair| pair[0].position < pair[1].position)
        );
        let newest = newest(&seen);
        for n in 990..1000_u64 {
            let key = (0, Bytes::from(format!("{}", n % 10)));
            assert_eq!(
                newest.get(&key),
                Some(&value(n)),
                "a newest record was missed"
            );
        }
    }
}

pub async fn a_key_is_needed(factory: &dyn Factory) {
    let (subject, topic) = compacted(factory, 1).await;
    let log = subject.log();
    assert!(is_refused(
        &within(log.append(&topic, 0, Bytes::new(), numbered(0))).await
    ));
    within(log.append(&topic, 0, Bytes::from("k"), numbered(1)))
        .await
        .unwrap();
    assert_eq!(read_all(log.as_ref(), &topic, &[0]).await.len(), 1);
}
