//! Groups: who owns what, marks, moves, pauses, lag.

use super::*;
use std::collections::{BTreeMap, BTreeSet};

/// Reads events until the member owns so many partitions.
async fn until_owned(group: &mut Box<dyn Group>, ownership: &mut Ownership, count: usize) {
    while ownership.epochs.len() != count {
        ownership.take(next_of(group).await);
    }
}

pub async fn every_partition_is_assigned_once(factory: &dyn Factory) {
    let (subject, topic) = with_topic(factory, 4, &["g"]).await;
    let log = subject.log();
    for partition in 0..4 {
        fill(log.as_ref(), &topic, partition, 0, 5).await;
    }
    let mut group = within(log.group("g", &topic)).await.unwrap();
    let mut ownership = Ownership::default();
    let mut seen = [0_u64; 4];
    while seen.iter().sum::<u64>() < 20 {
        let record = next_owned(&mut group, &mut ownership).await;
        let p = record.partition as usize;
        assert_eq!(record.value, numbered(seen[p]));
        seen[p] += 1;
    }
    assert_eq!(seen, [5; 4]);
    assert_eq!(ownership.epochs.len(), 4);
}

pub async fn marks_survive_a_restart(factory: &dyn Factory) {
    let (mut subject, topic) = with_topic(factory, 2, &["g"]).await;
    let log = subject.log();
    let positions = fill(log.as_ref(), &topic, 0, 0, 10).await;
    {
        let mut group = within(log.group("g", &topic)).await.unwrap();
        let mut ownership = Ownership::default();
        for n in 0..6 {
            assert_eq!(
                next_owned(&mut group, &mut ownership).await.value,
                numbered(n)
            );
        }
        group.mark(0, ownership.epochs[&0], positions[6]).unwrap();
        within(group.flush()).await.unwrap();
    }
    drop(log);
    if !subject.restart().await {
        return;
    }
    let mut group = within(subject.log().group("g", &topic)).await.unwrap();
    let mut ownership = Ownership::default();
    let record = next_owned(&mut group, &mut ownership).await;
    assert_eq!(record.value, numbered(6));
    assert_eq!(ownership.marks[&0], positions[6]);
}

pub async fn unmarked_is_given_again(factory: &dyn Factory) {
    let (mut subject, topic) = with_topic(factory, 1, &["g"]).await;
    fill(subject.log().as_ref(), &topic, 0, 0, 10).await;
    for _ in 0..2 {
        {
            let mut group = within(subject.log().group("g", &topic)).await.unwrap();
            let mut ownership = Ownership::default();
            for n in 0..10 {
                assert_eq!(
                    next_owned(&mut group, &mut ownership).await.value,
                    numbered(n)
                );
            }
        }
        if !subject.restart().await {
            return;
        }
    }
}

pub async fn partitions_move_with_new_epochs(factory: &dyn Factory) {
    let (subject, topic) = with_topic(factory, 4, &["g"]).await;
    let log = subject.log();
    let positions = fill(log.as_ref(), &topic, 0, 0, 4).await;
    for partition in 1..4 {
        fill(log.as_ref(), &topic, partition, 0, 4).await;
    }
    let mut first = within(log.group("g", &topic)).await.unwrap();
    let mut of_first = Ownership::default();
    until_owned(&mut first, &mut of_first, 4).await;
    let all = of_first.epochs.clone();
    for partition in 0..4 {
        first
            .mark(partition, all[&partition], positions[2])
            .unwrap();
    }
    within(first.flush()).await.unwrap();
    let mut second = within(log.group("g", &topic)).await.unwrap();
    let mut of_second = Ownership::default();
    // Both are polled: a log may need that to agree on who owns what.
    while of_first.epochs.len() != 2 || of_second.epochs.len() != 2 {
        within(async {
            tokio::select! {
                event = first.next() => { of_first.take(event.unwrap()); }
                event = second.next() => { of_second.take(event.unwrap()); }
            }
        })
        .await;
    }
    let owned: BTreeSet<u32> = of_first
        .epochs
        .keys()
        .chain(of_second.epochs.keys())
        .copied()
        .collect();
    assert_eq!(owned.len(), 4, "each partition has one owner");
    for (partition, epoch) in &of_second.epochs {
        assert!(!of_first.epochs.contains_key(partition));
        assert_ne!(all[partition], *epoch, "a move has a new epoch");
        assert_eq!(of_second.marks[partition], positions[2], "from the mark on");
        let stale = first.mark(*partition, all[partition], positions[3]);
        assert_eq!(stale, Err(LogError::StaleEpoch));
        second.mark(*partition, *epoch, positions[3]).unwrap();
    }
    for (partition, epoch) in &of_first.epochs {
        first.mark(*partition, *epoch, positions[3]).unwrap();
        assert_eq!(
            second.mark(*partition, *epoch, positions[3]),
            Err(LogError::StaleEpoch)
        );
    }
}

pub async fn a_leaver_is_replaced(factory: &dyn Factory) {
    let (subject, topic) = with_topic(factory, 2, &["g"]).await;
    let log = subject.log();
    let positions = fill(log.as_ref(), &topic, 0, 0, 4).await;
    let mut first = within(log.group("g", &topic)).await.unwrap();
    let mut ownership = Ownership::default();
    until_owned(&mut first, &mut ownership, 2).await;
    first.mark(0, ownership.epochs[&0], positions[1]).unwrap();
    within(first.flush()).await.unwrap();
    drop(first);
    let mut second = within(log.group("g", &topic)).await.unwrap();
    let mut ownership = Ownership::default();
    until_owned(&mut second, &mut ownership, 2).await;
    assert_eq!(ownership.marks[&0], positions[1]);
    assert_eq!(
        next_owned(&mut second, &mut ownership).await.value,
        numbered(1)
    );
}

pub async fn paused_partitions_wait(factory: &dyn Factory) {
    let (subject, topic) = with_topic(factory, 2, &["g"]).await;
    let log = subject.log();
    let mut group = within(log.group("g", &topic)).await.unwrap();
    let mut ownership = Ownership::default();
    until_owned(&mut group, &mut ownership, 2).await;
    group.pause(0, true);
    fill(log.as_ref(), &topic, 0, 0, 50).await;
    fill(log.as_ref(), &topic, 1, 0, 50).await;
    for n in 0..50 {
        let record = next_owned(&mut group, &mut ownership).await;
        assert_eq!((record.partition, record.value), (1, numbered(n)));
    }
    let quiet = tokio::time::timeout(Duration::from_millis(50), group.next()).await;
    assert!(quiet.is_err(), "a paused partition gave {quiet:?}");
    group.pause(0, false);
    for n in 0..50 {
        let record = next_owned(&mut group, &mut ownership).await;
        assert_eq!((record.partition, record.value), (0, numbered(n)));
    }
}

pub async fn a_pause_ends_with_the_ownership(factory: &dyn Factory) {
    let (subject, topic) = with_topic(factory, 2, &["g"]).await;
    let log = subject.log();
    let mut first = within(log.group("g", &topic)).await.unwrap();
    let mut of_first = Ownership::default();
    until_owned(&mut first, &mut of_first, 2).await;
    (0..2).for_each(|partition| first.pause(partition, true));
    let mut second = within(log.group("g", &topic)).await.unwrap();
    let mut of_second = Ownership::default();
    while of_first.epochs.len() != 1 || of_second.epochs.len() != 1 {
        within(async {
            tokio::select! {
                event = first.next() => { of_first.take(event.unwrap()); }
                event = second.next() => { of_second.take(event.unwrap()); }
            }
        })
        .await;
    }
    // One of them is not the first's any more.
    (0..2).for_each(|partition| first.pause(partition, false));
    drop(second);
    until_owned(&mut first, &mut of_first, 2).await;
    for partition in 0..2 {
        fill(log.as_ref(), &topic, partition, 0, 10).await;
    }
    let mut seen = [0; 2];
    while seen != [10; 2] {
        let record = next_owned(&mut first, &mut of_first).await;
        seen[record.partition as usize] += 1;
    }
}

pub async fn lag_is_told(factory: &dyn Factory) {
    let (subject, topic) = with_topic(factory, 2, &["g"]).await;
    let log = subject.log();
    let lag = within(log.lag("g", &topic)).await.unwrap();
    assert_eq!(lag.len(), 2);
    assert!(
        lag.iter()
            .all(|lag| lag.oldest_unmarked.is_none() && lag.mark == lag.end)
    );
    let positions = fill(log.as_ref(), &topic, 1, 0, 10).await;
    let lag = within(log.lag("g", &topic)).await.unwrap();
    let by: BTreeMap<u32, _> = lag.iter().map(|lag| (lag.partition, lag)).collect();
    assert_eq!(by[&1].mark, positions[0]);
    assert_eq!(by[&1].end, positions[9].after());
    assert!(by[&1].oldest_unmarked.unwrap() < PATIENCE);
    assert_eq!(by[&0].oldest_unmarked, None);
    let mut group = within(log.group("g", &topic)).await.unwrap();
    let mut ownership = Ownership::default();
    until_owned(&mut group, &mut ownership, 2).await;
    let end = positions[9].after();
    group.mark(1, ownership.epochs[&1], end).unwrap();
    within(group.flush()).await.unwrap();
    let lag = within(log.lag("g", &topic)).await.unwrap();
    assert!(
        lag.iter()
            .all(|lag| lag.oldest_unmarked.is_none() && lag.mark == lag.end)
    );
}

pub async fn groups_are_independent(factory: &dyn Factory) {
    let (subject, topic) = with_topic(factory, 1, &["a", "b"]).await;
    let log = subject.log();
    let positions = fill(log.as_ref(), &topic, 0, 0, 3).await;
    let mut a = within(log.group("a", &topic)).await.unwrap();
    let mut of_a = Ownership::default();
    until_owned(&mut a, &mut of_a, 1).await;
    a.mark(0, of_a.epochs[&0], positions[2]).unwrap();
    within(a.flush()).await.unwrap();
    let mut b = within(log.group("b", &topic)).await.unwrap();
    let mut of_b = Ownership::default();
    assert_eq!(next_owned(&mut b, &mut of_b).await.value, numbered(0));
    assert_eq!(
        next_owned(&mut a, &mut of_a).await.value,
        numbered(0),
        "a read on from its start"
    );
    assert_eq!(
        within(log.lag("a", &topic)).await.unwrap()[0].mark,
        positions[2]
    );
    assert_eq!(
        within(log.lag("b", &topic)).await.unwrap()[0].mark,
        positions[0]
    );
}

pub async fn new_groups_start_at_the_earliest(factory: &dyn Factory) {
    let (subject, topic) = with_topic(factory, 1, &["a"]).await;
    let log = subject.log();
    fill(log.as_ref(), &topic, 0, 0, 3).await;
    within(log.declare(&[spec(topic.clone(), 1, &["a", "late"])]))
        .await
        .unwrap();
    let mut late = within(log.group("late", &topic)).await.unwrap();
    let mut ownership = Ownership::default();
    for n in 0..3 {
        assert_eq!(
            next_owned(&mut late, &mut ownership).await.value,
            numbered(n)
        );
    }
}

pub async fn a_rewound_group_is_given_everything_again(factory: &dyn Factory) {
    let (mut subject, topic) = with_topic(factory, 2, &["g", "other"]).await;
    let log = subject.log();
    for partition in 0..2 {
        fill(log.as_ref(), &topic, partition, 0, 10).await;
    }
    let drain = async |log: Arc<dyn Log>, name: &str, count: usize| {
        let mut group = within(log.group(name, &topic)).await.unwrap();
        let mut ownership = Ownership::default();
        for _ in 0..count {
            let record = next_owned(&mut group, &mut ownership).await;
            let epoch = ownership.epochs[&record.partition];
            let next = record.position.after();
            group.mark(record.partition, epoch, next).unwrap();
        }
        within(group.flush()).await.unwrap();
        group
    };
    let at_work = drain(log.clone(), "g", 20).await;
    drop(drain(log.clone(), "other", 20).await);
    let refused = within(log.rewind("g", &topic)).await;
    assert!(is_refused(&refused), "{refused:?}");
    assert!(is_refused(&within(log.rewind("nobody", &topic)).await));
    drop(at_work);
    // A member may be gone a little later than it left.
    let mut rewound = within(log.rewind("g", &topic)).await;
    for _ in 0..100 {
        if rewound.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        rewound = within(log.rewind("g", &topic)).await;
    }
    rewound.unwrap();
    drop(log);
    subject.restart().await;
    let log = subject.log();
    let left = |lags: Vec<Lag>| -> u64 {
        let left = lags.iter().map(|lag| lag.end.offset - lag.mark.offset);
        left.sum()
    };
    assert_eq!(left(within(log.lag("g", &topic)).await.unwrap()), 20);
    assert_eq!(left(within(log.lag("other", &topic)).await.unwrap()), 0);
    drain(log, "g", 20).await;
}
