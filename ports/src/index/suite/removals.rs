//! Removals: what goes, what stays, and what may come again.

use super::{ORG, Stage, create_one, document, put_one, walk};
use crate::index::{Bucket, Collection, Document, Index, Outcome, Query, Removal};

async fn remove(index: &dyn Index, collection: Collection, removals: &[Removal]) {
    let removed = index.remove(collection, ORG, removals.to_vec()).await;
    removed.unwrap();
}

/// What is named goes, from lists and counts too; nothing else does, and what is not there is no
/// error.
pub async fn remove_takes_what_it_names(stage: &dyn Stage) {
    let index = stage.open().await;
    index.prepare().await.unwrap();
    for collection in Collection::ALL {
        let (one, two) = (document(collection, "a", 1), document(collection, "b", 2));
        create_one(&*index, collection, ORG, &one).await;
        create_one(&*index, collection, ORG, &two).await;
        create_one(&*index, collection, "o2", &one).await;
        let elsewhere = Removal {
            bucket: collection.weekly().then_some(Bucket::Week(1)),
            ..Removal::of(&two)
        };
        let unknown = Removal {
            id: "c".into(),
            ..Removal::of(&one)
        };
        let mut removals = vec![Removal::of(&one), unknown];
        removals.extend(collection.weekly().then_some(elsewhere));
        remove(&*index, collection, &removals).await;
        remove(&*index, collection, &removals).await;
        remove(&*index, collection, &[]).await;

        let get = async |org, one: &Document| {
            let found = index.get(collection, org, one.bucket, &one.id).await;
            found.unwrap()
        };
        assert_eq!(get(ORG, &one).await, None, "{collection:?}");
        assert_eq!(get(ORG, &two).await, Some(two.clone()), "{collection:?}");
        assert_eq!(get("o2", &one).await, Some(one.clone()), "{collection:?}");
        index.refresh(collection).await.unwrap();
        let ids = walk(&*index, collection, &Query::default(), 10).await;
        assert_eq!(ids, ["b"], "{collection:?}");
        let count = index.count(collection, ORG, &Query::default()).await;
        assert_eq!(count.unwrap(), 1, "{collection:?}");
    }
}

/// A versioned document goes with its version or a higher one; a higher version of it stays.
pub async fn remove_leaves_higher_versions(stage: &dyn Stage) {
    let index = stage.open().await;
    index.prepare().await.unwrap();
    for collection in [Collection::Flows, Collection::Clients] {
        let one = Document {
            version: 5,
            text: "host".into(),
            ..document(collection, "a", 1)
        };
        assert_eq!(put_one(&*index, collection, &one).await, Outcome::Written);
        let of = |version| Removal {
            version,
            ..Removal::of(&one)
        };
        remove(&*index, collection, &[of(4)]).await;
        let found = index.get(collection, ORG, None, "a").await.unwrap();
        assert_eq!(found.as_ref(), Some(&one));
        remove(&*index, collection, &[of(5)]).await;
        assert_eq!(index.get(collection, ORG, None, "a").await.unwrap(), None);
        index.refresh(collection).await.unwrap();
        let by_word = Query {
            words: vec!["host".into()],
            ..Query::default()
        };
        let ids = walk(&*index, collection, &by_word, 10).await;
        assert!(ids.is_empty(), "{collection:?}: {ids:?}");
    }
}

/// An id that was removed is free again.
pub async fn what_was_removed_may_come_again(stage: &dyn Stage) {
    let index = stage.open().await;
    index.prepare().await.unwrap();
    for collection in Collection::ALL {
        let one = document(collection, "a", 1);
        create_one(&*index, collection, ORG, &one).await;
        remove(&*index, collection, &[Removal::of(&one)]).await;
        let again = Document {
            order: 2,
            version: u64::from(collection.versioned()) * 3,
            ..one
        };
        let outcome = if collection.versioned() {
            put_one(&*index, collection, &again).await
        } else {
            create_one(&*index, collection, ORG, &again).await;
            Outcome::Written
        };
        assert_eq!(outcome, Outcome::Written, "{collection:?}");
        let found = index.get(collection, ORG, again.bucket, "a").await;
        assert_eq!(found.unwrap(), Some(again), "{collection:?}");
    }
}

/// What was removed stays removed.
pub async fn a_removal_outlives_a_restart(stage: &dyn Stage) {
    let index = stage.open().await;
    index.prepare().await.unwrap();
    let one = document(Collection::Rows, "a", 1);
    create_one(&*index, Collection::Rows, ORG, &one).await;
    remove(&*index, Collection::Rows, &[Removal::of(&one)]).await;
    drop(index);
    let index = stage.open().await;
    let found = index.get(Collection::Rows, ORG, one.bucket, "a").await;
    assert_eq!(found.unwrap(), None);
}
