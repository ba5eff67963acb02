//! The behaviour of every index, as tests: [`index_suite!`](crate::index_suite) runs them all on
//! one implementation.
//!
//! ```ignore
//! async fn stage() -> MyStage { … }      // MyStage: nublar_ports::index::suite::Stage
//! nublar_ports::index_suite!(stage);
//! nublar_ports::index_suite!(stage, #[ignore = "needs a server"]);
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bounds;
mod lists;
mod random;
mod removals;
mod writes;

pub use bounds::*;
pub use lists::*;
pub use removals::*;
pub use writes::*;

use super::{Bucket, Collection, Document, Index, Outcome, Query};
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;

/// A new, empty index that outlives the handles to it.
#[async_trait]
pub trait Stage: Send + Sync {
    /// Opens it. The suite drops every handle it has before it opens again.
    async fn open(&self) -> Arc<dyn Index>;
}

/// Makes a test of each behaviour. `$stage` names an async function without arguments that gives
/// a [`Stage`]; attributes that follow are put on every test.
#[macro_export]
macro_rules! index_suite {
    ($stage:expr $(, #[$attribute:meta])*) => {
        $crate::index_suite!(@tests $stage, [$(#[$attribute])*];
            prepare_is_safe_to_repeat,
            create_keeps_the_first,
            create_twice_in_one_bulk,
            create_together_writes_once,
            put_goes_by_version,
            put_together_ends_with_the_highest,
            get_sees_every_write_at_once,
            remove_takes_what_it_names,
            remove_leaves_higher_versions,
            what_was_removed_may_come_again,
            a_removal_outlives_a_restart,
            every_field_comes_back,
            a_bulk_of_thousands,
            an_empty_bulk,
            restart_keeps_everything,
            pages_equal_the_sorted_matches,
            pages_while_documents_come,
            pages_of_equal_orders,
            bodies_are_left_out_on_demand,
            words_by_their_beginnings,
            words_follow_a_put,
            buckets_are_apart,
            orgs_are_apart,
            odd_ids,
            poison_is_only_its_own,
            large_bodies,
        );
    };
    (@tests $stage:expr, $attributes:tt; $($name:ident,)*) => {
        $($crate::index_suite!(@test $stage, $attributes, $name);)*
    };
    (@test $stage:expr, [$(#[$attribute:meta])*], $name:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        $(#[$attribute])*
        async fn $name() {
            $crate::index::suite::$name(&$stage().await).await;
        }
    };
}

const ORG: &str = "o1";
const WEEK: Option<Bucket> = Some(Bucket::Week(2_900));

/// A document with an id, a place in the list and a body that names both.
fn document(collection: Collection, id: &str, order: i64) -> Document {
    Document {
        id: id.into(),
        bucket: if collection.weekly() { WEEK } else { None },
        client: "C.0123456789abcdef".into(),
        flow: "F.D8KK6H6D0S3Q2".into(),
        source: "Generic.Client.Info/BasicInformation".into(),
        order,
        text: String::new(),
        hashes: Vec::new(),
        version: 0,
        size: 1,
        body: Bytes::from(format!("body of {id} at {order}")),
    }
}

async fn create_one(index: &dyn Index, collection: Collection, org: &str, one: &Document) {
    let outcomes = index
        .create(collection, org, vec![one.clone()])
        .await
        .unwrap();
    assert_eq!(outcomes, [Outcome::Written]);
}

async fn put_one(index: &dyn Index, collection: Collection, one: &Document) -> Outcome {
    let outcomes = index.put(collection, ORG, vec![one.clone()]).await.unwrap();
    assert_eq!(outcomes.len(), 1);
    outcomes.into_iter().next().unwrap()
}

/// Ids of every page of a list, read with pages of `limit`.
async fn walk(
    index: &dyn Index,
    collection: Collection,
    query: &Query,
    limit: usize,
) -> Vec<String> {
    let mut query = Query {
        limit,
        ..query.clone()
    };
    let mut ids = Vec::new();
    loop {
        let page = index.query(collection, ORG, &query).await.unwrap();
        assert!(page.documents.len() <= limit);
        ids.extend(page.documents.into_iter().map(|one| one.id));
        match page.next {
            Some(next) => query.after = Some(next),
            None => return ids,
        }
    }
}
