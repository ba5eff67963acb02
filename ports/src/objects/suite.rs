//! The behaviour of every store of objects, as tests: [`objects_suite!`](crate::objects_suite)
//! runs them all on one implementation.
//!
//! ```ignore
//! async fn stage() -> MyStage { … }      // MyStage: nublar_ports::objects::suite::Stage
//! nublar_ports::objects_suite!(stage);
//! nublar_ports::objects_suite!(stage, #[ignore = "needs a server"]);
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::{ObjectEntry, Objects, ObjectsError};
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;

/// A new, empty store that outlives the handles to it.
#[async_trait]
pub trait Stage: Send + Sync {
    /// Opens it. The suite drops every handle it has before it opens again.
    async fn open(&self) -> Arc<dyn Objects>;
}

/// Makes a test of each behaviour. `$stage` names an async function without arguments that gives
/// a [`Stage`]; attributes that follow are put on every test.
#[macro_export]
macro_rules! objects_suite {
    ($stage:expr $(, #[$attribute:meta])*) => {
        $crate::objects_suite!(@tests $stage, [$(#[$attribute])*];
            prepare_is_safe_to_repeat,
            what_was_put_is_got,
            nothing_is_not_found,
            ranges_are_clipped,
            the_first_put_stays,
            puts_together_leave_one_whole,
            an_empty_object,
            a_large_object,
            lists_in_the_order_of_keys,
            lists_page_by_page,
            lists_begin_anywhere,
            deleting,
            keys_that_are_refused,
            keys_that_are_allowed,
            restart_keeps_everything,
        );
    };
    (@tests $stage:expr, $attributes:tt; $($name:ident,)*) => {
        $($crate::objects_suite!(@test $stage, $attributes, $name);)*
    };
    (@test $stage:expr, [$(#[$attribute:meta])*], $name:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        $(#[$attribute])*
        async fn $name() {
            $crate::objects::suite::$name(&$stage().await).await;
        }
    };
}

async fn open(stage: &dyn Stage) -> Arc<dyn Objects> {
    let objects = stage.open().await;
    objects.prepare().await.unwrap();
    objects
}

async fn put(objects: &dyn Objects, key: &str, bytes: &'static str) {
    objects.put(key, Bytes::from(bytes)).await.unwrap();
}

async fn list(
    objects: &dyn Objects,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> Vec<String> {
    let entries = objects.list(prefix, after, limit).await.unwrap();
    entries.into_iter().map(|entry| entry.key).collect()
}

fn pattern(length: usize, seed: u32) -> Bytes {
    let mut state = seed;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        })
        .collect()
}

/// The store may be prepared again at any time, and keeps what it has.
pub async fn prepare_is_safe_to_repeat(stage: &dyn Stage) {
    let objects = open(stage).await;
    put(&*objects, "a/b", "c").await;
    objects.prepare().await.unwrap();
    assert_eq!(objects.get("a/b", None).await.unwrap(), "c");
}

/// An object is seen as soon as its put was answered.
pub async fn what_was_put_is_got(stage: &dyn Stage) {
    let objects = open(stage).await;
    for number in 0..20 {
        let key = format!("o1/chunks/{number:02x}/object");
        let bytes = pattern(1_000 + number, 7);
        objects.put(&key, bytes.clone()).await.unwrap();
        assert_eq!(objects.get(&key, None).await.unwrap(), bytes);
        let size = bytes.len() as u64;
        assert_eq!(
            objects.list(&key, None, 9).await.unwrap(),
            [ObjectEntry { key, size }]
        );
    }
}

/// A key without an object is told apart from every other failure.
pub async fn nothing_is_not_found(stage: &dyn Stage) {
    let objects = open(stage).await;
    put(&*objects, "folder/object", "here").await;
    for key in ["folder", "folder/other", "folder/object/below", "nowhere/x"] {
        for range in [None, Some(0..3)] {
            let got = objects.get(key, range).await;
            assert_eq!(got, Err(ObjectsError::NotFound(key.to_owned())));
        }
    }
}

/// A range gives what there is of it.
pub async fn ranges_are_clipped(stage: &dyn Stage) {
    let objects = open(stage).await;
    put(&*objects, "digits", "0123456789").await;
    put(&*objects, "empty", "").await;
    for (range, expected) in [
        (0..10, "0123456789"),
        (0..1, "0"),
        (3..7, "3456"),
        (9..10, "9"),
        (8..100, "89"),
        (0..u64::MAX, "0123456789"),
        (5..5, ""),
        (10..11, ""),
        (10..10, ""),
        (500..600, ""),
        (u64::MAX - 1..u64::MAX, ""),
    ] {
        let got = objects.get("digits", Some(range.clone())).await.unwrap();
        assert_eq!(got, expected, "{range:?}");
        let got = objects.get("empty", Some(range.clone())).await.unwrap();
        assert_eq!(got, "", "{range:?} of nothing");
    }
    // One that ends before it begins holds nothing.
    let backwards = std::ops::Range { start: 7, end: 3 };
    assert_eq!(objects.get("digits", Some(backwards)).await.unwrap(), "");
}

/// A second put succeeds and changes nothing.
pub async fn the_first_put_stays(stage: &dyn Stage) {
    let objects = open(stage).await;
    put(&*objects, "a/key", "first").await;
    put(&*objects, "a/key", "the second, which is longer").await;
    put(&*objects, "a/key", "").await;
    assert_eq!(objects.get("a/key", None).await.unwrap(), "first");
}

/// Of many puts of a key at once one stays, whole, and every reader sees the same.
pub async fn puts_together_leave_one_whole(stage: &dyn Stage) {
    let objects = open(stage).await;
    for round in 0..4 {
        let key = format!("same/{round}");
        let mut tasks = tokio::task::JoinSet::new();
        for seed in 0..12_u32 {
            let (objects, key) = (Arc::clone(&objects), key.clone());
            tasks.spawn(async move {
                let length = 50_000 + seed as usize;
                objects.put(&key, pattern(length, seed)).await.unwrap();
                objects.get(&key, None).await.unwrap()
            });
        }
        let seen = tasks.join_all().await;
        let stays = objects.get(&key, None).await.unwrap();
        let seed = u32::try_from(stays.len() - 50_000).unwrap();
        assert!(stays == pattern(stays.len(), seed), "mixed or cut");
        assert!(seen.iter().all(|bytes| *bytes == stays));
    }
    assert_eq!(list(&*objects, "", None, 100).await.len(), 4);
}

/// Nothing is a content, too.
pub async fn an_empty_object(stage: &dyn Stage) {
    let objects = open(stage).await;
    put(&*objects, "a/empty", "").await;
    assert_eq!(objects.get("a/empty", None).await.unwrap(), "");
    let entry = ObjectEntry {
        key: "a/empty".into(),
        size: 0,
    };
    assert_eq!(objects.list("a/", None, 9).await.unwrap(), [entry]);
}

/// 32 MiB come back byte by byte, whole and in parts.
pub async fn a_large_object(stage: &dyn Stage) {
    let objects = open(stage).await;
    let bytes = pattern(32 << 20, 3);
    objects.put("large/object", bytes.clone()).await.unwrap();
    // Not assert_eq: nobody wants to read 32 MiB.
    assert!(objects.get("large/object", None).await.unwrap() == bytes);
    let part = 8_388_607_u64..25_165_825;
    let got = objects.get("large/object", Some(part)).await.unwrap();
    assert!(got == bytes.slice(8_388_607..25_165_825));
    let entries = objects.list("large/", None, 9).await.unwrap();
    assert_eq!(entries[0].size, 32 << 20);
}

const KEYS: [&str; 16] = [
    "a",
    "a-b",
    "a.b",
    "a/b",
    "a/b/c",
    "a/b-c",
    "a/b.c",
    "a0",
    "a_b",
    "ab",
    "b/a",
    "b/a/a/a/a",
    "b/b",
    "b0/a",
    "c/.hidden",
    "c/x",
];

/// Keys are listed byte by byte, whatever their folders.
pub async fn lists_in_the_order_of_keys(stage: &dyn Stage) {
    let objects = open(stage).await;
    for key in KEYS.iter().rev() {
        put(&*objects, key, "x").await;
    }
    let mut sorted = KEYS;
    sorted.sort_unstable();
    assert_eq!(list(&*objects, "", None, 100).await, sorted);
    for prefix in [
        "a", "a/", "a/b", "a/b/", "b", "b/a/a/", "c/.", "c/x", "d", "a/b/c/d",
    ] {
        let expected: Vec<&str> = sorted
            .into_iter()
            .filter(|key| key.starts_with(prefix))
            .collect();
        assert_eq!(
            list(&*objects, prefix, None, 100).await,
            expected,
            "{prefix}"
        );
    }
}

/// Pages of any size neither repeat nor miss a key.
pub async fn lists_page_by_page(stage: &dyn Stage) {
    let objects = open(stage).await;
    for key in KEYS {
        put(&*objects, key, "x").await;
    }
    let mut sorted = KEYS;
    sorted.sort_unstable();
    for limit in 1..=KEYS.len() + 1 {
        let mut found: Vec<String> = Vec::new();
        loop {
            let page = list(&*objects, "", found.last().map(String::as_str), limit).await;
            assert!(page.len() <= limit);
            if page.is_empty() {
                break;
            }
            found.extend(page);
        }
        assert_eq!(found, sorted, "pages of {limit}");
    }
    assert_eq!(list(&*objects, "", None, 0).await, Vec::<String>::new());
}

/// A list begins after any text, a key or not.
pub async fn lists_begin_anywhere(stage: &dyn Stage) {
    let objects = open(stage).await;
    for key in KEYS {
        put(&*objects, key, "x").await;
    }
    for after in [
        "0", "a", "a/", "a/a", "a/b/", "a/b/z", "a/z", "b", "b/a/a", "b/a/b", "c/x", "z",
    ] {
        for prefix in ["", "a/", "b/a"] {
            let mut expected: Vec<&str> = KEYS
                .into_iter()
                .filter(|key| *key > after && key.starts_with(prefix))
                .collect();
            expected.sort_unstable();
            let found = list(&*objects, prefix, Some(after), 100).await;
            assert_eq!(found, expected, "{prefix} after {after}");
        }
    }
}

/// What was deleted is gone; deleting nothing succeeds; the key can be put again.
pub async fn deleting(stage: &dyn Stage) {
    let objects = open(stage).await;
    put(&*objects, "a/b", "first").await;
    put(&*objects, "a/c", "stays").await;
    for _ in 0..2 {
        objects.delete("a/b").await.unwrap();
        let got = objects.get("a/b", None).await;
        assert_eq!(got, Err(ObjectsError::NotFound("a/b".into())));
        assert_eq!(list(&*objects, "", None, 9).await, ["a/c"]);
    }
    objects.delete("never/was").await.unwrap();
    objects.delete("a").await.unwrap();
    put(&*objects, "a/b", "second").await;
    assert_eq!(objects.get("a/b", None).await.unwrap(), "second");
    assert_eq!(objects.get("a/c", None).await.unwrap(), "stays");
}

/// Keys that could leave the store, or that some store cannot hold, are refused by every call.
pub async fn keys_that_are_refused(stage: &dyn Stage) {
    let objects = open(stage).await;
    let long = "a/".repeat(256) + "a";
    let long_part = "a".repeat(201);
    for key in [
        "", "/", "/a", "a/", "a//b", "..", "../a", "a/..", "a/../b", "a/..b", "a/b..", ".", "./a",
        "a/./b", "A", "a b", "a\\b", "a:b", "a=", "~", "a\0b", "ä", "a\nb", "a%2fb", "*", &long,
        &long_part,
    ] {
        let put = objects.put(key, Bytes::from_static(b"x")).await;
        assert!(matches!(put, Err(ObjectsError::Refused(_))), "put {key:?}");
        let got = objects.get(key, None).await;
        assert!(matches!(got, Err(ObjectsError::Refused(_))), "get {key:?}");
        let deleted = objects.delete(key).await;
        assert!(
            matches!(deleted, Err(ObjectsError::Refused(_))),
            "delete {key:?}"
        );
    }
    for prefix in ["../", "A", "a b", "a\\", "ä"] {
        let listed = objects.list(prefix, None, 9).await;
        assert!(
            matches!(listed, Err(ObjectsError::Refused(_))),
            "list {prefix:?}"
        );
    }
    assert_eq!(list(&*objects, "", None, 9).await, Vec::<String>::new());
}

/// Every character that is allowed works, up to the longest key; an object's key may go on.
pub async fn keys_that_are_allowed(stage: &dyn Stage) {
    let objects = open(stage).await;
    let part = "b".repeat(200);
    let longest = format!("{part}/{part}/{}", "c".repeat(512 - 402));
    assert_eq!(longest.len(), 512);
    let keys = [
        "abcdefghijklmnopqrstuvwxyz0123456789/_.-",
        "-",
        "_",
        ".a",
        "a.",
        "a.b.c",
        "a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p",
        "a/b",
        "a",
        &longest,
    ];
    for key in keys {
        objects
            .put(key, Bytes::from(key.to_owned()))
            .await
            .unwrap_or_else(|error| panic!("put {key}: {error}"));
    }
    for key in keys {
        assert_eq!(objects.get(key, None).await.unwrap(), key);
    }
    let mut sorted = keys;
    sorted.sort_unstable();
    assert_eq!(list(&*objects, "", None, 100).await, sorted);
}

/// Everything that was answered is there after the store was closed and opened.
pub async fn restart_keeps_everything(stage: &dyn Stage) {
    let objects = open(stage).await;
    for key in KEYS {
        put(&*objects, key, "x").await;
    }
    objects.delete("b/a").await.unwrap();
    drop(objects);
    let objects = open(stage).await;
    let mut expected = KEYS.to_vec();
    expected.retain(|key| *key != "b/a");
    expected.sort_unstable();
    assert_eq!(list(&*objects, "", None, 100).await, expected);
    for key in expected {
        assert_eq!(objects.get(key, None).await.unwrap(), "x");
    }
}
