//! How fast the embedded index is, beside a plain loop of inserts into an SQLite table of two
//! columns with the same durability on the same disk.
//!
//! `cargo run --release -p nublar-ports --example index_bench -- [folder] [seconds]`
//!
//! Every document is durable when it is answered. The ratios carry over to other machines, the
//! numbers do not.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use bytes::Bytes;
use nublar_ports::index::sqlite::SqliteIndex;
use nublar_ports::index::{Bucket, Collection, Document, Index, Query};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const ORG: &str = "root";
const WEEK: Bucket = Bucket::Week(2_900);
const COLLECTION: Collection = Collection::Rows;
/// Documents of one flow and result set: a list.
const LIST: usize = 200;

/// What is written: bodies of so many bytes with so many rows, so many at once.
struct Load {
    name: &'static str,
    body: usize,
    rows: usize,
    bulk: usize,
}

const LOADS: [Load; 2] = [
    Load {
        name: "100 KB of 100 rows",
        body: 100_000,
        rows: 100,
        bulk: 50,
    },
    Load {
        name: "1 KB of 1 row",
        body: 1_000,
        rows: 1,
        bulk: 1_000,
    },
];

fn main() {
    let mut args = std::env::args().skip(1);
    let parent = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let seconds = args.next().map_or(5, |text| text.parse().expect("seconds"));
    let folder = parent.join(format!("nublar-index-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let time = Duration::from_secs(seconds);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    for load in &LOADS {
        println!("bodies of {}, {seconds} s each", load.name);
        let plain = plain(&folder.join("plain.sqlite"), load, time);
        print("plain table, 1 writer", load, plain, None);
        for (name, callers, bulk) in [
            ("index, 1 caller", 1, load.bulk),
            ("index, 4 callers", 4, load.bulk),
            ("index, 64 callers of 1 document", 64, 1),
        ] {
            let path = folder.join("index.sqlite");
            let index = Arc::new(SqliteIndex::open(&path).unwrap());
            let (written, pace) = runtime.block_on(create(&index, load, callers, bulk, time));
            print(name, load, pace, Some(plain));
            if callers == 4 {
                runtime.block_on(read(&index, written));
                let start = Instant::now();
                runtime
                    .block_on(index.drop_bucket(COLLECTION, WEEK))
                    .unwrap();
                println!(
                    "    bucket of {} MB dropped in {:.0} ms",
                    written * load.body / 1_000_000,
                    start.elapsed().as_secs_f64() * 1e3
                );
            }
            drop(index);
            remove(&path);
        }
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

/// Documents a second.
fn plain(path: &Path, load: &Load, time: Duration) -> f64 {
    let mut connection = rusqlite::Connection::open(path).unwrap();
    connection
        .pragma_update(None, "journal_mode", "wal")
        .unwrap();
    connection
        .pragma_update(None, "synchronous", "full")
        .unwrap();
    connection
        .execute_batch("CREATE TABLE plain (id TEXT PRIMARY KEY, body BLOB NOT NULL)")
        .unwrap();
    let body = body(load.body);
    let start = Instant::now();
    let mut written = 0;
    while start.elapsed() < time {
        let transaction = connection.transaction().unwrap();
        let mut insert = transaction
            .prepare_cached("INSERT INTO plain (id, body) VALUES (?1, ?2) ON CONFLICT DO NOTHING")
            .unwrap();
        for _ in 0..load.bulk {
            insert.execute((id(written), body.as_ref())).unwrap();
            written += 1;
        }
        drop(insert);
        transaction.commit().unwrap();
    }
    let pace = written as f64 / start.elapsed().as_secs_f64();
    drop(connection);
    remove(path);
    pace
}

/// How many documents were written, and how many a second.
async fn create(
    index: &Arc<SqliteIndex>,
    load: &Load,
    callers: usize,
    bulk: usize,
    time: Duration,
) -> (usize, f64) {
    let body = body(load.body);
    let next = Arc::new(AtomicUsize::new(0));
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..callers {
        let (index, next, body) = (Arc::clone(index), Arc::clone(&next), body.clone());
        tasks.spawn(async move {
            while start.elapsed() < time {
                let first = next.fetch_add(bulk, Ordering::Relaxed);
                let documents = (first..first + bulk)
                    .map(|number| document(number, body.clone()))
                    .collect();
                index.create(COLLECTION, ORG, documents).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    let written = next.load(Ordering::Relaxed);
    (written, written as f64 / start.elapsed().as_secs_f64())
}

async fn read(index: &SqliteIndex, written: usize) {
    let lists = written / LIST;
    for (name, without_bodies) in [("with bodies", false), ("without bodies", true)] {
        let mut took = Vec::new();
        for number in 0..300 {
            let list = number * 7_919 % lists.max(1);
            let query = Query {
                client: Some(client(list)),
                flow: Some(flow(list)),
                source: Some("Windows.System.Pslist".into()),
                without_bodies,
                limit: 50,
                ..Query::default()
            };
            let start = Instant::now();
            let page = index.query(COLLECTION, ORG, &query).await.unwrap();
            took.push(start.elapsed());
            assert_eq!(page.documents.len(), 50.min(written));
        }
        quantiles(&format!("page of 50 {name}"), took);
    }
    let mut took = Vec::new();
    for number in 0..300 {
        let id = id(number * 7_919 % written);
        let start = Instant::now();
        let found = index.get(COLLECTION, ORG, Some(WEEK), &id).await.unwrap();
        took.push(start.elapsed());
        assert!(found.is_some());
    }
    quantiles("get", took);
}

fn document(number: usize, body: Bytes) -> Document {
    Document {
        id: id(number),
        bucket: Some(WEEK),
        client: client(number / LIST),
        flow: flow(number / LIST),
        source: "Windows.System.Pslist".into(),
        order: (number % LIST) as i64,
        text: String::new(),
        hashes: Vec::new(),
        version: 0,
        size: 1,
        body,
    }
}

fn id(number: usize) -> String {
    let hash = blake3::hash(&number.to_le_bytes());
    hex::encode(&hash.as_bytes()[..16])
}

fn client(list: usize) -> String {
    format!("C.{list:016x}")
}

fn flow(list: usize) -> String {
    format!("F.{list:013}")
}

fn body(length: usize) -> Bytes {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes.into()
}

fn print(name: &str, load: &Load, pace: f64, plain: Option<f64>) {
    let ratio = plain.map_or_else(String::new, |plain| {
        format!(", {:.2} of the plain table", pace / plain)
    });
    println!(
        "  {name}: {pace:.0} documents/s, {:.0} rows/s, {:.0} MB/s{ratio}",
        pace * load.rows as f64,
        pace * load.body as f64 / 1e6
    );
}

fn quantiles(name: &str, mut took: Vec<Duration>) {
    took.sort();
    let at = |part: usize| took[took.len() * part / 100].as_secs_f64() * 1e3;
    println!("    {name}: p50 {:.3} ms, p99 {:.3} ms", at(50), at(99));
}

fn remove(path: &Path) {
    for end in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        let _ = std::fs::remove_file(PathBuf::from(name));
    }
}
