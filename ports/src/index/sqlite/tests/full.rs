//! A full disk: writes say so, reads go on, and writes go on when there is room again.

use super::SqliteIndex;
use crate::index::{Bucket, Collection, Document, Index, IndexError, Outcome, Query};
use crate::objects::killed::content;
use crate::objects::small_disk::SmallDisk;
use bytes::Bytes;

const ORG: &str = "o1";

fn row(number: i64) -> Document {
    Document {
        id: number.to_string(),
        bucket: Some(Bucket::Undated),
        client: "C.1".into(),
        flow: "F.1".into(),
        source: String::new(),
        order: number,
        text: String::new(),
        hashes: Vec::new(),
        version: 0,
        size: 1,
        body: Bytes::from(content(&number.to_string(), 200_000)),
    }
}

async fn create(index: &SqliteIndex, number: i64) -> Result<(), IndexError> {
    let outcomes = index
        .create(Collection::Rows, ORG, vec![row(number)])
        .await?;
    assert_eq!(outcomes, [Outcome::Written]);
    Ok(())
}

async fn reads(index: &SqliteIndex, durable: i64) {
    for number in 0..durable {
        let found = index
            .get(
                Collection::Rows,
                ORG,
                Some(Bucket::Undated),
                &number.to_string(),
            )
            .await
            .unwrap();
        assert!(found == Some(row(number)), "row {number}");
    }
    let query = Query {
        limit: 1_000,
        ..Query::default()
    };
    let page = index.query(Collection::Rows, ORG, &query).await.unwrap();
    let orders: Vec<i64> = page.documents.iter().map(|one| one.order).collect();
    assert!(orders.into_iter().eq(0..durable));
    let count = index.count(Collection::Rows, ORG, &query).await.unwrap();
    assert_eq!(count, durable.unsigned_abs());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_full_until_it_is_not() {
    let Some(disk) = SmallDisk::mount(72) else {
        return;
    };
    let other = disk.path().join("other");
    std::fs::write(&other, vec![1; 40 << 20]).unwrap();
    let path = disk.path().join("index.sqlite");
    let index = SqliteIndex::open(&path).unwrap();
    let mut durable = 0;
    let error = loop {
        match create(&index, durable).await {
            Ok(()) => durable += 1,
            Err(error) => break error,
        }
        assert!(durable < 1_000, "the disk is not small");
    };
    assert!(matches!(error, IndexError::Full(_)), "{error}");
    assert!(durable > 10);
    for _ in 0..3 {
        let created = create(&index, durable).await;
        assert!(matches!(created, Err(IndexError::Full(_))), "{created:?}");
        reads(&index, durable).await;
    }
    // The table of a bucket that found no room is made once there is some.
    let elsewhere = Document {
        bucket: Some(Bucket::Week(1)),
        ..row(0)
    };
    let created = index
        .create(Collection::Rows, ORG, vec![elsewhere.clone()])
        .await;
    assert!(matches!(created, Err(IndexError::Full(_))), "{created:?}");
    // What failed is not there.
    let found = index
        .get(
            Collection::Rows,
            ORG,
            Some(Bucket::Undated),
            &durable.to_string(),
        )
        .await;
    assert_eq!(found.unwrap(), None);

    // More than the write-ahead log, whose pages must find room in the file first.
    std::fs::remove_file(&other).unwrap();
    for _ in 0..100 {
        create(&index, durable).await.unwrap();
        durable += 1;
    }
    reads(&index, durable).await;
    let outcomes = index
        .create(Collection::Rows, ORG, vec![elsewhere])
        .await
        .unwrap();
    assert_eq!(outcomes, [Outcome::Written]);
    index
        .drop_bucket(Collection::Rows, Bucket::Week(1))
        .await
        .unwrap();
    drop(index);
    let index = SqliteIndex::open(&path).unwrap();
    reads(&index, durable).await;
}
