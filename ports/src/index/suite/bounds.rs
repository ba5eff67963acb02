//! Bounds: between buckets, between orgs, of ids and of sizes.

use super::{ORG, Stage, create_one, document, walk};
use crate::index::limits::MAX_ID;
use crate::index::{Bucket, Collection, Document, IndexError, Outcome, Query};
use bytes::Bytes;

/// Buckets hold documents of their own; lists go over all of them or over one.
pub async fn buckets_are_apart(stage: &dyn Stage) {
    let index = stage.open().await;
    index.prepare().await.unwrap();
    let buckets = [Bucket::Week(1), Bucket::Week(2_900), Bucket::Undated];
    let collection = Collection::Rows;
    for (number, bucket) in (0..).zip(buckets) {
        for order in 0..4 {
            let one = Document {
                bucket: Some(bucket),
                ..document(collection, &format!("{order}-{number}"), order)
            };
            create_one(&*index, collection, ORG, &one).await;
        }
        let one = Document {
            bucket: Some(bucket),
            ..document(collection, "same", 100 + number)
        };
        create_one(&*index, collection, ORG, &one).await;
    }
    index.refresh(collection).await.unwrap();
    for (number, bucket) in (0..).zip(buckets) {
        let found = index.get(collection, ORG, Some(bucket), "same").await;
        let found = found.unwrap().unwrap();
        assert_eq!((found.order, found.bucket), (100 + number, Some(bucket)));
        let query = Query {
            bucket: Some(bucket),
            ..Query::default()
        };
        let ids: Vec<String> = (0..4)
            .map(|order| format!("{order}-{number}"))
            .chain(["same".into()])
            .collect();
        assert_eq!(walk(&*index, collection, &query, 2).await, ids);
        assert_eq!(index.count(collection, ORG, &query).await.unwrap(), 5);
    }
    let ids = walk(&*index, collection, &Query::default(), 4).await;
    let mut expected: Vec<String> = (0..4)
        .flat_map(|order| (0..3).map(move |number| format!("{order}-{number}")))
        .collect();
    expected.extend(vec!["same".into(); 3]);
    assert_eq!(ids, expected);

    let nowhere = Some(Bucket::Week(77));
    assert_eq!(
        index.get(collection, ORG, nowhere, "same").await.unwrap(),
        None
    );
    let query = Query {
        bucket: nowhere,
        limit: 5,
        ..Query::default()
    };
    let page = index.query(collection, ORG, &query).await.unwrap();
    assert_eq!((page.documents.len(), page.next), (0, None));
    let without = index.get(collection, ORG, None, "same").await;
    assert!(
        matches!(without, Err(IndexError::Refused(_))),
        "{without:?}"
    );
}

/// No call sees or touches documents of another org, whatever the orgs are called.
pub async fn orgs_are_apart(stage: &dyn Stage) {
    let index = stage.open().await;
    index.prepare().await.unwrap();
    let orgs = ["o1", "o2", "o", "O1", "o1 o2", "o1/o2", "o*", "ö"];
    for collection in [
        Collection::Rows,
        Collection::Clients,
        Collection::DeadLetters,
    ] {
        for org in orgs {
            let one = Document {
                text: format!("word {}", org.replace(' ', "_")),
                body: Bytes::from(org.to_owned()),
                ..document(collection, "same", 0)
            };
            create_one(&*index, collection, org, &one).await;
        }
        index.refresh(collection).await.unwrap();
        for org in orgs {
            let query = Query {
                words: vec!["wo".into()],
                limit: 10,
                ..Query::default()
            };
            let page = index.query(collection, org, &query).await.unwrap();
            let bodies: Vec<Bytes> = page.documents.into_iter().map(|one| one.body).collect();
            assert_eq!(bodies, [org], "{collection:?}");
            assert_eq!(index.count(collection, org, &query).await.unwrap(), 1);
            let bucket = document(collection, "same", 0).bucket;
            let found = index.get(collection, org, bucket, "same").await.unwrap();
            assert_eq!(found.unwrap().body, org);
        }
        let query = Query {
            limit: 10,
            ..Query::default()
        };
        let page = index.query(collection, "o3", &query).await.unwrap();
        assert_eq!((page.documents.len(), page.next), (0, None));
        assert_eq!(index.count(collection, "o3", &query).await.unwrap(), 0);
    }
    let higher = Document {
        version: 5,
        ..document(Collection::Flows, "flow", 0)
    };
    let lower = Document {
        version: 4,
        ..higher.clone()
    };
    for (org, one) in [("o1", higher), ("o2", lower)] {
        let outcomes = index.put(Collection::Flows, org, vec![one]).await.unwrap();
        assert_eq!(outcomes, [Outcome::Written]);
    }
}

/// An id is any text: what is special elsewhere is not here.
pub async fn odd_ids(stage: &dyn Stage) {
    let index = stage.open().await;
    index.prepare().await.unwrap();
    let mut ids: Vec<String> = [
        " ",
        "a b",
        "a/b",
        "a%2fb",
        "..",
        "_id",
        "'; DROP TABLE rows; --",
        "\"quoted\"",
        "{\"a\":1}",
        "größe",
        "東京",
        "\u{1f600}",
        "a\nb",
        "a\\b",
        "*",
        "?q=1&r=2",
        "#x",
        "nul\u{0}inside",
        "ID",
        "id",
    ]
    .map(str::to_owned)
    .to_vec();
    ids.push("x".repeat(MAX_ID));
    ids.push("é".repeat(MAX_ID / 2));
    for collection in [Collection::Rows, Collection::Flows] {
        let documents: Vec<Document> = (0..)
            .zip(&ids)
            .map(|(order, id)| document(collection, id, order))
            .collect();
        let outcomes = index
            .create(collection, ORG, documents.clone())
            .await
            .unwrap();
        assert_eq!(outcomes, vec![Outcome::Written; ids.len()]);
        index.refresh(collection).await.unwrap();
        assert_eq!(walk(&*index, collection, &Query::default(), 3).await, ids);
        for one in documents {
            let found = index.get(collection, ORG, one.bucket, &one.id).await;
            assert_eq!(found.unwrap().as_ref(), Some(&one));
            let id = one.id.clone();
            let outcomes = index.put(collection, ORG, vec![one]).await.unwrap();
            assert_eq!(outcomes, [Outcome::Written], "{collection:?} {id:?}");
        }
    }
}

/// A document that cannot be stored is told apart from its neighbours, which are stored.
pub async fn poison_is_only_its_own(stage: &dyn Stage) {
    let index = stage.open().await;
    index.prepare().await.unwrap();
    for (name, collection) in [("rows", Collection::Rows), ("flows", Collection::Flows)] {
        let good = |id: &str| document(collection, id, 0);
        let bulk = vec![
            good("first"),
            good(&"x".repeat(MAX_ID + 1)),
            good("second"),
            good(&"é".repeat(MAX_ID / 2 + 1)),
            good(""),
            Document {
                bucket: if collection.weekly() {
                    None
                } else {
                    Some(Bucket::Undated)
                },
                ..good("bucket")
            },
            Document {
                version: 1 << 63,
                ..good("version")
            },
            good("third"),
        ];
        let poisoned: Vec<bool> = bulk
            .iter()
            .map(|one| one.poison(collection).is_some())
            .collect();
        assert_eq!(
            poisoned,
            [false, true, false, true, true, true, true, false]
        );
        for written in [Outcome::Written, Outcome::Exists] {
            let outcomes = index.create(collection, ORG, bulk.clone()).await.unwrap();
            assert_eq!(outcomes.len(), bulk.len(), "{name}");
            for (outcome, poisoned) in outcomes.iter().zip(&poisoned) {
                match outcome {
                    Outcome::Poison(reason) => assert!(*poisoned && !reason.is_empty()),
                    other => assert!(!*poisoned && *other == written, "{other:?}"),
                }
            }
        }
        let outcomes = index.put(collection, ORG, bulk.clone()).await.unwrap();
        for (outcome, poisoned) in outcomes.iter().zip(&poisoned) {
            assert_eq!(
                matches!(outcome, Outcome::Poison(_)),
                *poisoned,
                "put {name}"
            );
        }
        index.refresh(collection).await.unwrap();
        let ids = walk(&*index, collection, &Query::default(), 10).await;
        assert_eq!(ids, ["first", "second", "third"], "{name}");
    }
}

/// Bodies of 8 MiB come back byte by byte.
pub async fn large_bodies(stage: &dyn Stage) {
    let index = stage.open().await;
    index.prepare().await.unwrap();
    let large = |seed: u8| -> Bytes {
        let mut state = u32::from(seed) + 1;
        (0..8 << 20)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state.to_be_bytes()[0]
            })
            .collect()
    };
    let documents: Vec<Document> = (0..3_u8)
        .map(|number| Document {
            body: large(number),
            size: 8 << 20,
            ..document(Collection::Buffers, &number.to_string(), number.into())
        })
        .collect();
    let outcomes = index
        .create(Collection::Buffers, ORG, documents.clone())
        .await
        .unwrap();
    assert_eq!(outcomes, vec![Outcome::Written; 3]);
    for one in &documents {
        let found = index
            .get(Collection::Buffers, ORG, one.bucket, &one.id)
            .await;
        // Not assert_eq: nobody wants to read 8 MiB.
        assert!(found.unwrap().as_ref() == Some(one), "{}", one.id);
    }
    index.refresh(Collection::Buffers).await.unwrap();
    let query = Query {
        limit: 3,
        ..Query::default()
    };
    let page = index.query(Collection::Buffers, ORG, &query).await.unwrap();
    assert!(page.documents == documents);
    assert_eq!(page.next, None);
}
