//! Tests of the SQLite index: the suite, files of others, crashes and full disks.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod crash;
mod full;

use super::SqliteIndex;
use crate::index::suite::Stage;
use crate::index::{Bucket, Collection, Document, Index, IndexError, Outcome, Query};
use async_trait::async_trait;
use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

async fn stage() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[async_trait]
impl Stage for TempDir {
    async fn open(&self) -> Arc<dyn Index> {
        Arc::new(SqliteIndex::open(self.path().join("new/folder/index.sqlite")).unwrap())
    }
}

crate::index_suite!(stage);

/// A file that a newer release wrote, or that is none of ours, is refused and left alone.
#[tokio::test]
async fn files_of_others_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let newer = directory.path().join("newer.sqlite");
    drop(SqliteIndex::open(&newer).unwrap());
    let version = |path: &Path, version: i64| {
        let connection = rusqlite::Connection::open(path).unwrap();
        connection
            .pragma_update(None, "user_version", version)
            .unwrap();
    };
    version(&newer, 2);
    let other = directory.path().join("other.sqlite");
    rusqlite::Connection::open(&other)
        .unwrap()
        .execute_batch("CREATE TABLE theirs (a)")
        .unwrap();
    let text = directory.path().join("text.sqlite");
    std::fs::write(
        &text,
        "not a database at all, but long enough to be one".repeat(99),
    )
    .unwrap();
    for (path, says) in [
        (&newer, "schema version 2"),
        (&other, "no index of nublar"),
        (&text, "not a database"),
    ] {
        let before = std::fs::read(path).unwrap();
        match SqliteIndex::open(path) {
            Err(IndexError::Refused(why)) => assert!(why.contains(says), "{why}"),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("{} was opened", path.display()),
        }
        assert_eq!(std::fs::read(path).unwrap(), before);
    }
    version(&newer, 1);
    SqliteIndex::open(&newer).unwrap();
}

/// A dropped bucket is gone in every org, the others stay, and it can be made again, also while
/// others write and read.
#[tokio::test(flavor = "multi_thread")]
async fn buckets_are_dropped_whole() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("index.sqlite");
    let index = Arc::new(SqliteIndex::open(&path).unwrap());
    let weeks = [Bucket::Week(7), Bucket::Week(30), Bucket::Undated];
    let row = |bucket, id: &str| Document {
        id: id.into(),
        bucket: Some(bucket),
        client: String::new(),
        flow: String::new(),
        source: String::new(),
        order: 0,
        text: String::new(),
        hashes: Vec::new(),
        version: 0,
        size: 0,
        body: Bytes::new(),
    };
    let rows = Collection::Rows;
    assert_eq!(index.buckets(rows).await.unwrap(), []);
    for org in ["o1", "o2"] {
        for bucket in weeks {
            let documents = (0..100).map(|n| row(bucket, &n.to_string())).collect();
            index.create(rows, org, documents).await.unwrap();
        }
    }
    assert_eq!(index.buckets(rows).await.unwrap(), weeks);
    assert_eq!(index.buckets(Collection::Logs).await.unwrap(), []);
    assert_eq!(index.buckets(Collection::Flows).await.unwrap(), []);

    let busy = {
        let index = Arc::clone(&index);
        tokio::spawn(async move {
            for number in 0..200 {
                let id = format!("busy-{number}");
                let one = row(Bucket::Undated, &id);
                index.create(rows, "o1", vec![one]).await.unwrap();
                let query = Query {
                    limit: 1_000,
                    ..Query::default()
                };
                let page = index.query(rows, "o1", &query).await.unwrap();
                assert!(page.documents.iter().any(|found| found.id == id));
            }
        })
    };
    for _ in 0..20 {
        index.drop_bucket(rows, Bucket::Week(30)).await.unwrap();
        let gone = index.get(rows, "o1", Some(Bucket::Week(30)), "1").await;
        assert_eq!(gone.unwrap(), None);
        let one = row(Bucket::Week(30), "1");
        let outcomes = index.create(rows, "o2", vec![one]).await.unwrap();
        assert_eq!(outcomes, [Outcome::Written]);
    }
    busy.await.unwrap();
    index.drop_bucket(rows, Bucket::Week(30)).await.unwrap();
    index.drop_bucket(rows, Bucket::Week(30)).await.unwrap();
    index.drop_bucket(rows, Bucket::Week(99)).await.unwrap();
    let left = [Bucket::Week(7), Bucket::Undated];
    assert_eq!(index.buckets(rows).await.unwrap(), left);
    for (org, count) in [("o1", 400), ("o2", 200)] {
        let found = index.count(rows, org, &Query::default()).await.unwrap();
        assert_eq!(found, count);
    }
    drop(index);
    let index = SqliteIndex::open(&path).unwrap();
    assert_eq!(index.buckets(rows).await.unwrap(), left);
}

/// Lists and searches go by an index, never over a whole table with a sort.
#[test]
fn lists_go_by_an_index() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("index.sqlite");
    drop(SqliteIndex::open(&path).unwrap());
    let connection = rusqlite::Connection::open(&path).unwrap();
    let plan = |sql: &str| -> String {
        let mut statement = connection
            .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
            .unwrap();
        let lines = statement
            .query_map([], |row| row.get::<_, String>(3))
            .unwrap();
        lines.map(Result::unwrap).collect::<Vec<_>>().join("; ")
    };
    for (conditions, index) in [
        ("client = 'c' AND flow = 'f' AND source = 's'", "flows_list"),
        (
            "client = 'c' AND flow = 'f' AND source = 's' AND (ord, id) > (1, '')",
            "flows_list",
        ),
        ("client = 'c' AND flow = 'f'", "flows_flow"),
        (
            "client = 'c' AND flow = 'f' AND (ord, id) > (1, '')",
            "flows_flow",
        ),
        ("ord >= 1 AND ord < 5", "flows_order"),
        ("(ord, id) < (1, '')", "flows_order"),
        ("1", "flows_order"),
    ] {
        for direction in ["ASC", "DESC"] {
            let plan = plan(&format!(
                "SELECT ord, id, number FROM flows WHERE org = 'o' AND {conditions} \
                 ORDER BY ord {direction}, id {direction} LIMIT 51"
            ));
            assert!(
                plan.contains(&format!("USING COVERING INDEX {index}")),
                "{plan}"
            );
            assert!(!plan.contains("TEMP B-TREE"), "{plan}");
        }
    }
}

/// The table of clients' words holds those of the present texts and no others.
#[tokio::test]
async fn old_words_are_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("index.sqlite");
    let index = SqliteIndex::open(&path).unwrap();
    for (version, text) in [(1, "alpha beta"), (2, "beta gamma gamma"), (1, "delta")] {
        let one = Document {
            id: "one".into(),
            bucket: None,
            client: String::new(),
            flow: String::new(),
            source: String::new(),
            order: 0,
            text: text.into(),
            hashes: Vec::new(),
            version,
            size: 0,
            body: Bytes::new(),
        };
        index
            .put(Collection::Clients, "o1", vec![one])
            .await
            .unwrap();
    }
    let connection = rusqlite::Connection::open(&path).unwrap();
    let mut statement = connection
        .prepare("SELECT CAST(word AS TEXT) FROM clients_words ORDER BY word")
        .unwrap();
    let words = statement.query_map([], |row| row.get::<_, String>(0));
    let words: Vec<String> = words.unwrap().map(Result::unwrap).collect();
    assert_eq!(words, ["beta", "gamma"]);
}
