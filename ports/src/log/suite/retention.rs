//! Retention: what no group has marked stays, what is marked goes, and who was overtaken is told.

use super::super::From;
use super::*;

/// A topic whose records may go at once.
async fn fleeting(factory: &dyn Factory, groups: &[&str]) -> (Box<dyn Subject>, String) {
    let subject = factory.fresh().await;
    let name = subject.name("fleeting");
    let spec = TopicSpec {
        retention: Retention::Age(Duration::ZERO),
        ..spec(name.clone(), 2, groups)
    };
    within(subject.log().declare(&[spec])).await.unwrap();
    (subject, name)
}

pub async fn unmarked_records_stay(factory: &dyn Factory) {
    let (mut subject, topic) = fleeting(factory, &["slow", "fast"]).await;
    let log = subject.log();
    let positions = fill(log.as_ref(), &topic, 0, 0, 10).await;
    let mut fast = within(log.group("fast", &topic)).await.unwrap();
    let mut ownership = Ownership::default();
    for _ in 0..10 {
        next_owned(&mut fast, &mut ownership).await;
    }
    fast.mark(0, ownership.epochs[&0], positions[9].after())
        .unwrap();
    within(fast.flush()).await.unwrap();
    if !subject.expire(&topic).await {
        return;
    }
    assert_eq!(
        read_all(log.as_ref(), &topic, &[0]).await.len(),
        10,
        "the slow group needs them"
    );
    let mut slow = within(log.group("slow", &topic)).await.unwrap();
    let mut ownership = Ownership::default();
    for n in 0..5 {
        assert_eq!(
            next_owned(&mut slow, &mut ownership).await.value,
            numbered(n)
        );
    }
    slow.mark(0, ownership.epochs[&0], positions[5]).unwrap();
    // Not flushed: what a crash would forget is not a reason to delete.
    subject.expire(&topic).await;
    for n in 5..10 {
        assert_eq!(
            next_owned(&mut slow, &mut ownership).await.value,
            numbered(n)
        );
    }
    drop((slow, fast, log));
    if !subject.restart().await {
        return;
    }
    let mut slow = within(subject.log().group("slow", &topic)).await.unwrap();
    let mut ownership = Ownership::default();
    let record = next_owned(&mut slow, &mut ownership).await;
    assert!(
        record.position <= positions[5],
        "nothing unmarked was deleted"
    );
}

pub async fn marked_records_go(factory: &dyn Factory) {
    let (mut subject, topic) = fleeting(factory, &["g"]).await;
    let log = subject.log();
    let positions = fill(log.as_ref(), &topic, 0, 0, 10).await;
    let mut group = within(log.group("g", &topic)).await.unwrap();
    let mut ownership = Ownership::default();
    for _ in 0..10 {
        next_owned(&mut group, &mut ownership).await;
    }
    let end = positions[9].after();
    // Not flushed: a mark that counts for retention must survive a crash as well.
    group.mark(0, ownership.epochs[&0], end).unwrap();
    if !subject.expire(&topic).await {
        return;
    }
    assert_eq!(read_all(log.as_ref(), &topic, &[0, 1]).await, []);
    assert_eq!(
        within(log.end(&topic, 0)).await,
        Ok(end),
        "the end stays where it is"
    );
    drop((group, log));
    subject.restart().await;
    let log = subject.log();
    assert_eq!(within(log.end(&topic, 0)).await, Ok(end));
    assert_eq!(fill(log.as_ref(), &topic, 0, 10, 11).await, [end]);
    assert_eq!(read_all(log.as_ref(), &topic, &[0, 1]).await.len(), 1);
    let mut group = within(log.group("g", &topic)).await.unwrap();
    assert_eq!(
        next_owned(&mut group, &mut Ownership::default())
            .await
            .value,
        numbered(10)
    );
}

pub async fn a_slow_reader_is_told(factory: &dyn Factory) {
    let (subject, topic) = fleeting(factory, &[]).await;
    let log = subject.log();
    let value = |n: u64| Bytes::from(format!("{n} {}", "x".repeat(20_000)));
    let append = |n| log.append(&topic, 0, Bytes::new(), value(n));
    for n in 0..200 {
        within(append(n)).await.unwrap();
    }
    let mut tail = within(log.tail(&topic, &[0, 1], From::Earliest))
        .await
        .unwrap();
    assert_eq!(next_record(&mut tail).await.value, value(0));
    for n in 200..400 {
        within(append(n)).await.unwrap();
    }
    let could = subject.expire(&topic).await;
    let last = within(append(400)).await.unwrap();
    let mut expected = 1;
    let overtaken = loop {
        match within(tail.next()).await {
            Ok(TailEvent::Record(record)) => {
                assert_eq!(record.value, value(expected), "a gap without a word");
                expected += 1;
                if record.position == last {
                    break false;
                }
            }
            Ok(TailEvent::CaughtUp { .. }) => {}
            Err(LogError::OutOfRange { earliest }) => {
                assert_eq!(earliest, last);
                break true;
            }
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!(overtaken, could);
}

pub async fn a_deleted_position_is_out_of_range(factory: &dyn Factory) {
    let (subject, topic) = fleeting(factory, &[]).await;
    let log = subject.log();
    let positions = fill(log.as_ref(), &topic, 0, 0, 10).await;
    let other = fill(log.as_ref(), &topic, 1, 0, 3).await;
    if !subject.expire(&topic).await {
        return;
    }
    let earliest = positions[9].after();
    for position in [positions[0], positions[9]] {
        let refused = within(log.tail(&topic, &[0], From::Position(position)))
            .await
            .map(|_| ());
        assert_eq!(refused, Err(LogError::OutOfRange { earliest }));
    }
    within(log.tail(&topic, &[0], From::Position(earliest)))
        .await
        .unwrap();
    let other = other[2].after();
    within(log.tail(&topic, &[1], From::Position(other)))
        .await
        .unwrap();
    let stale = Position {
        generation: earliest.generation.wrapping_sub(1),
        ..earliest
    };
    let refused = within(log.tail(&topic, &[0], From::Position(stale)))
        .await
        .map(|_| ());
    assert_eq!(
        refused,
        Err(LogError::OutOfRange { earliest }),
        "of another generation"
    );
}
