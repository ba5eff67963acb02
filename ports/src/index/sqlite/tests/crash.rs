//! A process killed while it writes loses nothing that it was told is durable.

use super::SqliteIndex;
use crate::index::{Bucket, Collection, Document, Index, Outcome, Query};
use crate::objects::killed::{content, directory, lines_of_killed, say};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

const ORG: &str = "o1";

fn row(id: &str) -> Document {
    let seed = content(id, 2);
    Document {
        id: id.into(),
        // A few buckets, so that their tables are made while others are written.
        bucket: Some(Bucket::Week(u32::from(seed[0]) % 8)),
        client: "C.1".into(),
        flow: "F.1".into(),
        source: String::new(),
        order: seed[0].into(),
        text: String::new(),
        hashes: Vec::new(),
        version: 0,
        size: 1,
        body: Bytes::from(content(id, usize::from(seed[1]) * 100)),
    }
}

fn client(id: &str, version: u64) -> Document {
    Document {
        id: id.into(),
        bucket: None,
        version,
        text: format!("version {version}"),
        ..row(&format!("{id} {version}"))
    }
}

/// The process that is killed.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a process that another test kills"]
async fn writes_until_killed() {
    let Some(directory) = directory() else { return };
    let index = Arc::new(SqliteIndex::open(directory.join("index.sqlite")).unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..6 {
        let index = Arc::clone(&index);
        tasks.spawn(async move {
            for number in 1..u64::MAX {
                let name = format!("{}-{task}-{number}", std::process::id());
                let rows: Vec<Document> = (0..1 + number % 4)
                    .map(|n| row(&format!("{name}-{n}")))
                    .collect();
                let outcomes = index
                    .create(Collection::Rows, ORG, rows.clone())
                    .await
                    .unwrap();
                assert_eq!(outcomes, vec![Outcome::Written; rows.len()]);
                for row in rows {
                    say(&format!("row {}", row.id));
                }
                let id = format!("{}-{task}", std::process::id());
                let outcomes = index
                    .put(Collection::Clients, ORG, vec![client(&id, number)])
                    .await
                    .unwrap();
                assert_eq!(outcomes, [Outcome::Written]);
                say(&format!("client {id} {number}"));
            }
        });
    }
    let _ = tokio::time::timeout(Duration::from_secs(60), tasks.join_all()).await;
}

#[tokio::test]
async fn kill_loses_nothing_that_was_answered() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("index.sqlite");
    let mut durable = Vec::new();
    for enough in [1, 10, 100, 300, 1_000, 2_000] {
        durable.extend(lines_of_killed(
            "index::sqlite::tests::crash::writes_until_killed",
            directory.path(),
            enough,
        ));
        let index = SqliteIndex::open(&path).unwrap();
        for line in &durable {
            holds(&index, line).await;
        }
        let rows = Query {
            limit: usize::MAX,
            ..Query::default()
        };
        let page = index.query(Collection::Rows, ORG, &rows).await.unwrap();
        for found in page.documents {
            assert!(found == row(&found.id), "{} is not whole", found.id);
        }
        drop(index);
        let sound: String = rusqlite::Connection::open(&path)
            .unwrap()
            .query_row("PRAGMA integrity_check", [], |row| row.get(0))
            .unwrap();
        assert_eq!(sound, "ok");
    }
}

async fn holds(index: &SqliteIndex, line: &str) {
    match line.split(' ').collect::<Vec<_>>()[..] {
        ["row", id] => {
            let expected = row(id);
            let found = index
                .get(Collection::Rows, ORG, expected.bucket, id)
                .await
                .unwrap();
            assert!(found == Some(expected), "row {id} is lost or changed");
        }
        ["client", id, version] => {
            let found = index.get(Collection::Clients, ORG, None, id).await.unwrap();
            let found = found.unwrap();
            assert!(found.version >= version.parse().unwrap(), "{line}");
            assert!(found == client(id, found.version), "{line}");
        }
        _ => panic!("unexpected line {line}"),
    }
}
