//! Writes: which one stays, and when it is seen.

use super::{ORG, Stage, create_one, document, put_one, walk};
use crate::index::{Collection, Document, Outcome, Query};
use bytes::Bytes;
use std::sync::Arc;

/// The index may be prepared again at any time, and keeps what it has.
pub async fn prepare_is_safe_to_repeat(stage: &dyn Stage) {
    let index = stage.open().await;
    index.prepare().await.unwrap();
    let one = document(Collection::Rows, "a", 1);
    create_one(&*index, Collection::Rows, ORG, &one).await;
    index.prepare().await.unwrap();
    let found = index.get(Collection::Rows, ORG, one.bucket, "a").await;
    assert_eq!(found.unwrap(), Some(one));
}

/// A second create of an id changes nothing and says so.
pub async fn create_keeps_the_first(stage: &dyn Stage) {
    let index = stage.open().await;
    index.prepare().await.unwrap();
    for collection in Collection::ALL {
        let first = document(collection, "same", 1);
        create_one(&*index, collection, ORG, &first).await;
        let second = Document {
            order: 2,
            source: "other".into(),
            body: Bytes::from_static(b"other"),
            ..first.clone()
        };
        let other = document(collection, "other", 3);
        let outcomes = index
            .create(collection, ORG, vec![second, other.clone()])
            .await
            .unwrap();
        assert_eq!(
            outcomes,
            [Outcome::Exists, Outcome::Written],
            "{collection:?}"
        );
        let found = index.get(collection, ORG, first.bucket, "same").await;
        assert_eq!(found.unwrap(), Some(first), "{collection:?}");
        index.refresh(collection).await.unwrap();
        let ids = walk(&*index, collection, &Query::default(), 10).await;
        assert_eq!(ids, ["same", "other"], "{collection:?}");
    }
}

/// Within one bulk, too, the first of an id stays.
pub async fn create_twice_in_one_bulk(stage: &dyn Stage) {
    let index = stage.open().await;
    index.prepare().await.unwrap();
    let first = document(Collection::Events, "same", 1);
    let second = document(Collection::Events, "same", 2);
    let outcomes = index
        .create(Collection::Events, ORG, vec![first.clone(), second])
        .await
        .unwrap();
    assert_eq!(outcomes, [Outcome::Written, Outcome::Exists]);
    let found = index
        .get(Collection::Events, ORG, first.bucket, "same")
        .await;
    assert_eq!(found.unwrap(), Some(first));
}

/// Of many creates of an id at once exactly one writes, and its document stays.
pub async fn create_together_writes_once(stage: &dyn Stage) {
    let index = stage.open().await;
    index.prepare().await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for order in 0..24 {
        let index = Arc::clone(&index);
        tasks.spawn(async move {
            let one = document(Collection::Rows, "same", order);
            let outcomes = index
                .create(Collection::Rows, ORG, vec![one.clone()])
                .await
                .unwrap();
            (outcomes, one)
        });
    }
    let mut written = Vec::new();
    for (outcomes, one) in tasks.join_all().await {
        match outcomes.as_slice() {
            [Outcome::Written] => written.push(one),
            [Outcome::Exists] => {}
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!(written.len(), 1);
    let found = index
        .get(Collection::Rows, ORG, written[0].bucket, "same")
        .await;
    assert_eq!(found.unwrap(), written.pop());
}

/// A put replaces lower and equal versions, never a higher one.
pub async fn put_goes_by_version(stage: &dyn Stage) {
    let index = stage.open().await;
    index.prepare().await.unwrap();
    for collection in [Collection::Flows, Collection::Clients] {
        let version = |version: u64, body: &'static str| Document {
            version,
            order: version.cast_signed(),
            source: body.into(),
            body: Bytes::from_static(body.as_bytes()),
            ..document(collection, "one", 0)
        };
        let generation = 1 << 48;
        let steps = [
            (version(generation + 5, "first"), Outcome::Written, "first"),
            (version(generation + 4, "lower"), Outcome::Exists, "first"),
            (version(7, "much lower"), Outcome::Exists, "first"),
            (version(generation + 5, "equal"), Outcome::Written, "equal"),
            (
                version(generation + 6, "higher"),
                Outcome::Written,
                "higher",
            ),
            (version(3 * generation, "newer"), Outcome::Written, "newer"),
            (version(generation + 6, "late"), Outcome::Exists, "newer"),
        ];
        for (one, outcome, stays) in steps {
            assert_eq!(put_one(&*index, collection, &one).await, outcome, "{one:?}");
            let found = index.get(collection, ORG, None, "one").await.unwrap();
            let found = found.unwrap();
            assert_eq!(found.body, stays, "after {one:?}");
            assert_eq!(found.source, stays, "after {one:?}");
            index.refresh(collection).await.unwrap();
            let query = Query {
                source: Some(stays.into()),
                ..Query::default()
            };
            assert_eq!(walk(&*index, collection, &query, 10).await, ["one"]);
            assert_eq!(
                index
                    .count(collection, ORG, &Query::default())
                    .await
                    .unwrap(),
                1
            );
        }
    }
}

/// Whatever the order in which puts arrive, the highest version is there at the end.
pub async fn put_together_ends_with_the_highest(stage: &dyn Stage) {
    let index = stage.open().await;
    index.prepare().await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..8_u64 {
        let index = Arc::clone(&index);
        tasks.spawn(async move {
            for step in 0..5_u64 {
                // Every version from 1 to 40 once, in no order.
                let version = (task * 5 + step) * 11 % 40 + 1;
                let one = Document {
                    version,
                    body: Bytes::from(format!("version {version}")),
                    ..document(Collection::Flows, "one", 0)
                };
                let outcome = put_one(&*index, Collection::Flows, &one).await;
                assert!(
                    matches!(outcome, Outcome::Written | Outcome::Exists),
                    "{outcome:?}"
                );
                let found = index
                    .get(Collection::Flows, ORG, None, "one")
                    .await
                    .unwrap();
                assert!(found.unwrap().version >= version);
            }
        });
    }
    tasks.join_all().await;
    let found = index
        .get(Collection::Flows, ORG, None, "one")
        .await
        .unwrap();
    let found = found.unwrap();
    assert_eq!(found.version, 40);
    assert_eq!(found.body, "version 40");
}

/// A get that begins after a write was answered sees it; before it there is nothing.
pub async fn get_sees_every_write_at_once(stage: &dyn Stage) {
    let index = stage.open().await;
    index.prepare().await.unwrap();
    for collection in Collection::ALL {
        for number in 0..10 {
            let id = format!("id-{number}");
            let one = document(collection, &id, number);
            let before = index.get(collection, ORG, one.bucket, &id).await;
            assert_eq!(before.unwrap(), None);
            create_one(&*index, collection, ORG, &one).await;
            let found = index.get(collection, ORG, one.bucket, &id).await;
            assert_eq!(found.unwrap(), Some(one));
        }
    }
    for version in 1..20 {
        let one = Document {
            version,
            ..document(Collection::Clients, "put", version.cast_signed())
        };
        let outcome = put_one(&*index, Collection::Clients, &one).await;
        assert_eq!(outcome, Outcome::Written);
        let found = index.get(Collection::Clients, ORG, None, "put").await;
        assert_eq!(found.unwrap(), Some(one));
    }
}

/// Nothing of a document is changed by keeping it, whether it is read by id or in a list.
pub async fn every_field_comes_back(stage: &dyn Stage) {
    let index = stage.open().await;
    index.prepare().await.unwrap();
    let plain = document(Collection::Flows, "plain", 0);
    let documents = [
        Document {
            client: String::new(),
            flow: String::new(),
            source: String::new(),
            order: i64::MIN,
            size: 0,
            body: Bytes::new(),
            id: "empty".into(),
            ..plain.clone()
        },
        Document {
            id: "full".into(),
            source: "Ä \"quoted\" 'name' \\ with / and \u{0}, \u{1f600} and\nlines".into(),
            order: i64::MAX,
            text: "größe \u{1f600} o'neill".into(),
            hashes: vec![0, 1, u64::MAX, 0x0123_4567_89ab_cdef],
            version: i64::MAX as u64,
            size: i64::MAX as u64,
            body: Bytes::from((0..=255).cycle().take(70_000).collect::<Vec<u8>>()),
            ..plain.clone()
        },
        plain,
    ];
    for one in &documents {
        assert_eq!(
            put_one(&*index, Collection::Flows, one).await,
            Outcome::Written
        );
        let found = index.get(Collection::Flows, ORG, None, &one.id).await;
        assert_eq!(found.unwrap().as_ref(), Some(one));
    }
    index.refresh(Collection::Flows).await.unwrap();
    let query = Query {
        limit: 10,
        ..Query::default()
    };
    let page = index.query(Collection::Flows, ORG, &query).await.unwrap();
    let [empty, full, plain] = documents;
    assert_eq!(page.documents, [empty, plain, full]);
    assert_eq!(page.next, None);
}

/// A bulk of 5,000 documents is written as a whole, and repeated as a whole.
pub async fn a_bulk_of_thousands(stage: &dyn Stage) {
    let index = stage.open().await;
    index.prepare().await.unwrap();
    let bulk: Vec<Document> = (0..5_000)
        .map(|number| document(Collection::Rows, &format!("{number:05}"), number))
        .collect();
    for outcome in [Outcome::Written, Outcome::Exists] {
        let outcomes = index
            .create(Collection::Rows, ORG, bulk.clone())
            .await
            .unwrap();
        assert_eq!(outcomes, vec![outcome; 5_000]);
    }
    index.refresh(Collection::Rows).await.unwrap();
    let all = Query::default();
    assert_eq!(
        index.count(Collection::Rows, ORG, &all).await.unwrap(),
        5_000
    );
    let ids = walk(&*index, Collection::Rows, &all, 999).await;
    assert!(ids.iter().eq(bulk.iter().map(|one| &one.id)));
}

/// A bulk of nothing succeeds.
pub async fn an_empty_bulk(stage: &dyn Stage) {
    let index = stage.open().await;
    index.prepare().await.unwrap();
    for collection in Collection::ALL {
        assert_eq!(index.create(collection, ORG, vec![]).await.unwrap(), []);
        assert_eq!(index.put(collection, ORG, vec![]).await.unwrap(), []);
    }
}

/// Everything that was answered is there after the index was closed and opened.
pub async fn restart_keeps_everything(stage: &dyn Stage) {
    let index = stage.open().await;
    index.prepare().await.unwrap();
    for collection in Collection::ALL {
        let documents = (0..50)
            .map(|number| document(collection, &format!("{number:02}"), number))
            .collect();
        index.create(collection, ORG, documents).await.unwrap();
    }
    let newest = Document {
        version: 9,
        ..document(Collection::Flows, "07", 7)
    };
    put_one(&*index, Collection::Flows, &newest).await;
    drop(index);

    let index = stage.open().await;
    index.prepare().await.unwrap();
    for collection in Collection::ALL {
        index.refresh(collection).await.unwrap();
        let ids = walk(&*index, collection, &Query::default(), 7).await;
        let expected: Vec<String> = (0..50).map(|number| format!("{number:02}")).collect();
        assert_eq!(ids, expected, "{collection:?}");
        let one = document(collection, "31", 31);
        let found = index.get(collection, ORG, one.bucket, "31").await.unwrap();
        assert_eq!(found, Some(one));
    }
    let stale = Document {
        version: 8,
        ..newest.clone()
    };
    assert_eq!(
        put_one(&*index, Collection::Flows, &stale).await,
        Outcome::Exists
    );
    let found = index.get(Collection::Flows, ORG, None, "07").await.unwrap();
    assert_eq!(found, Some(newest));
}
