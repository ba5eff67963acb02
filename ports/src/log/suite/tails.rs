//! Tails: where they begin, that they catch up once, that they wait.

use super::super::From;
use super::*;
use std::time::SystemTime;

pub async fn from_earliest_catches_up_once(factory: &dyn Factory) {
    let (subject, topic) = with_topic(factory, 3, &[]).await;
    let log = subject.log();
    for partition in 0..3 {
        fill(log.as_ref(), &topic, partition, 0, 10).await;
    }
    let mut tail = within(log.tail(&topic, &[0, 2], From::Earliest))
        .await
        .unwrap();
    fill(log.as_ref(), &topic, 0, 10, 20).await;
    let (mut seen, mut caught_up) = ([0_u64; 3], [None; 3]);
    while seen[0] < 20 || caught_up.iter().flatten().count() < 2 {
        match next(&mut tail).await {
            TailEvent::Record(record) => {
                let p = record.partition as usize;
                assert_eq!(record.value, numbered(seen[p]));
                if let Some(to) = caught_up[p] {
                    assert!(
                        record.position >= to,
                        "a record of the past after catching up"
                    );
                }
                seen[p] += 1;
            }
            TailEvent::CaughtUp { partition, to } => {
                let p = partition as usize;
                assert!(seen[p] >= 10, "caught up after {} of 10", seen[p]);
                assert!(caught_up[p].replace(to).is_none(), "caught up twice");
            }
        }
    }
    assert_eq!(seen, [20, 0, 10]);
    fill(log.as_ref(), &topic, 2, 10, 11).await;
    assert!(matches!(next(&mut tail).await, TailEvent::Record(r) if r.value == numbered(10)));
}

pub async fn an_empty_partition_catches_up(factory: &dyn Factory) {
    let (subject, topic) = with_topic(factory, 2, &[]).await;
    let log = subject.log();
    for from in [From::Earliest, From::Now, From::Time(0)] {
        let mut tail = within(log.tail(&topic, &[0, 1], from)).await.unwrap();
        let mut partitions = Vec::new();
        for _ in 0..2 {
            let TailEvent::CaughtUp { partition, to } = next(&mut tail).await else {
                panic!("a record in an empty topic");
            };
            assert_eq!(to, within(log.end(&topic, partition)).await.unwrap());
            partitions.push(partition);
        }
        partitions.sort_unstable();
        assert_eq!(partitions, [0, 1]);
    }
}

pub async fn from_now_yields_only_what_comes(factory: &dyn Factory) {
    let (subject, topic) = with_topic(factory, 1, &[]).await;
    let log = subject.log();
    fill(log.as_ref(), &topic, 0, 0, 10).await;
    let mut tail = within(log.tail(&topic, &[0], From::Now)).await.unwrap();
    let positions = fill(log.as_ref(), &topic, 0, 10, 12).await;
    assert_eq!(
        next(&mut tail).await,
        TailEvent::CaughtUp {
            partition: 0,
            to: positions[0]
        }
    );
    for (n, position) in (10..).zip(positions) {
        let record = next_record(&mut tail).await;
        assert_eq!((record.position, record.value), (position, numbered(n)));
    }
}

pub async fn from_a_position(factory: &dyn Factory) {
    let (mut subject, topic) = with_topic(factory, 2, &[]).await;
    let log = subject.log();
    let positions = fill(log.as_ref(), &topic, 1, 0, 3000).await;
    drop(log);
    for _ in 0..2 {
        let log = subject.log();
        for n in [0, 1, 1500, 2999] {
            let from = From::Position(positions[n]);
            let mut tail = within(log.tail(&topic, &[1], from)).await.unwrap();
            for (number, position) in (n as u64..).zip(&positions[n..]).take(3) {
                let record = next_record(&mut tail).await;
                assert_eq!(record.position, *position);
                assert_eq!(record.value, numbered(number));
            }
        }
        drop(log);
        if !subject.restart().await {
            return;
        }
    }
}

/// A time that is later than everything so far and earlier than everything to come, also for logs
/// that count in milliseconds.
async fn a_moment() -> i64 {
    let now = || {
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
    };
    let moment = now().as_millis() as i64 + 1;
    while (now().as_millis() as i64) <= moment {
        tokio::task::yield_now().await;
    }
    moment * 1000
}

pub async fn from_a_time(factory: &dyn Factory) {
    let (mut subject, topic) = with_topic(factory, 2, &[]).await;
    let log = subject.log();
    let mut moments = vec![0];
    for round in 0..4 {
        fill(log.as_ref(), &topic, 0, round * 100, round * 100 + 100).await;
        fill(log.as_ref(), &topic, 1, round * 100, round * 100 + 100).await;
        moments.push(a_moment().await);
    }
    drop(log);
    for _ in 0..2 {
        let log = subject.log();
        for (round, moment) in moments.iter().enumerate() {
            let mut tail = within(log.tail(&topic, &[0, 1], From::Time(*moment)))
                .await
                .unwrap();
            let (mut seen, mut behind) = ([0_u64; 2], 2);
            while behind > 0 {
                match next(&mut tail).await {
                    TailEvent::Record(record) => {
                        let p = record.partition as usize;
                        assert_eq!(record.value, numbered(round as u64 * 100 + seen[p]));
                        seen[p] += 1;
                    }
                    TailEvent::CaughtUp { .. } => behind -= 1,
                }
            }
            assert_eq!(seen, [(4 - round as u64) * 100; 2]);
        }
        drop(log);
        if !subject.restart().await {
            return;
        }
    }
}

pub async fn beyond_the_end_waits(factory: &dyn Factory) {
    let (subject, topic) = with_topic(factory, 1, &[]).await;
    let log = subject.log();
    fill(log.as_ref(), &topic, 0, 0, 3).await;
    let end = within(log.end(&topic, 0)).await.unwrap();
    let mut tail = within(log.tail(&topic, &[0], From::Position(end)))
        .await
        .unwrap();
    assert_eq!(
        next(&mut tail).await,
        TailEvent::CaughtUp {
            partition: 0,
            to: end
        }
    );
    let waiting = tokio::spawn(async move {
        let record = next_record(&mut tail).await;
        (tail, record)
    });
    fill(log.as_ref(), &topic, 0, 3, 4).await;
    let (_tail, record) = within(waiting).await.unwrap();
    assert_eq!((record.position, record.value), (end, numbered(3)));
}

pub async fn a_cancelled_wait_loses_nothing(factory: &dyn Factory) {
    let (subject, topic) = with_topic(factory, 2, &["g"]).await;
    let log = subject.log();
    let mut tail = within(log.tail(&topic, &[0, 1], From::Earliest))
        .await
        .unwrap();
    let mut group = within(log.group("g", &topic)).await.unwrap();
    let (mut tailed, mut grouped) = (Vec::new(), Vec::new());
    for n in 0..200 {
        within(log.append(&topic, (n % 2) as u32, Bytes::new(), numbered(n)))
            .await
            .unwrap();
        // Polled once and dropped, over and over.
        for _ in 0..3 {
            if let Some(Ok(TailEvent::Record(r))) = futures::FutureExt::now_or_never(tail.next()) {
                tailed.push(r.value);
            }
            if let Some(Ok(GroupEvent::Record(r))) = futures::FutureExt::now_or_never(group.next())
            {
                grouped.push(r.value);
            }
        }
    }
    while tailed.len() < 200 {
        tailed.push(next_record(&mut tail).await.value);
    }
    while grouped.len() < 200 {
        if let GroupEvent::Record(record) = next_of(&mut group).await {
            grouped.push(record.value);
        }
    }
    for mut values in [tailed, grouped] {
        values.sort();
        let mut expected: Vec<_> = (0..200).map(numbered).collect();
        expected.sort();
        assert_eq!(values, expected);
    }
}

pub async fn tails_are_independent(factory: &dyn Factory) {
    let (subject, topic) = with_topic(factory, 1, &[]).await;
    let log = subject.log();
    fill(log.as_ref(), &topic, 0, 0, 5).await;
    let mut first = within(log.tail(&topic, &[0], From::Earliest))
        .await
        .unwrap();
    for n in 0..5 {
        assert_eq!(next_record(&mut first).await.value, numbered(n));
    }
    let mut second = within(log.tail(&topic, &[0], From::Earliest))
        .await
        .unwrap();
    for n in 0..5 {
        assert_eq!(next_record(&mut second).await.value, numbered(n));
    }
}

pub async fn large_records_pass(factory: &dyn Factory) {
    let (subject, topic) = with_topic(factory, 1, &[]).await;
    let log = subject.log();
    let largest = subject.max_record_bytes().min(1 << 20);
    let sizes = [
        0,
        1,
        1000,
        largest / 3,
        largest,
        10,
        largest,
        largest / 2,
        0,
    ];
    for (n, size) in sizes.iter().enumerate() {
        within(log.append(&topic, 0, Bytes::new(), vec![n as u8; *size].into()))
            .await
            .unwrap();
    }
    let records = read_all(log.as_ref(), &topic, &[0]).await;
    assert_eq!(records.len(), sizes.len());
    for ((n, size), record) in sizes.iter().enumerate().zip(records) {
        assert_eq!(record.value, vec![n as u8; *size]);
    }
}
