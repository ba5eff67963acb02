//! How fast the embedded log is, beside a plain loop of write and sync on the same disk.
//!
//! `cargo run --release -p nublar-ports --example log_bench -- [folder] [seconds]`
//!
//! Every record is durable when it is acknowledged. The ratios carry over to other machines, the
//! numbers do not.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use bytes::Bytes;
use nublar_ports::log::{Log, Retention, SegmentsConfig, SegmentsLog, TopicSpec};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of a record.
const RECORD: usize = 1024;
const PARTITIONS: u32 = 4;

fn main() {
    let mut args = std::env::args().skip(1);
    let parent = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let seconds = args.next().map_or(5, |text| text.parse().expect("seconds"));
    let dir = parent.join(format!("nublar-log-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let time = Duration::from_secs(seconds);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();

    println!("records of {RECORD} bytes, {seconds} s each");
    let one = plain(&dir, 1, time);
    let many = plain(&dir, 64, time);
    let log = SegmentsLog::open(SegmentsConfig::new(dir.join("log"))).unwrap();
    let spec = TopicSpec {
        name: "bench".into(),
        partitions: PARTITIONS,
        retention: Retention::Age(Duration::from_secs(3600)),
        groups: Vec::new(),
    };
    runtime.block_on(log.declare(&[spec])).unwrap();
    let alone = runtime.block_on(producers(&log, 1, 1, time));
    alone.print("log, 1 producer", &one);
    let crowd = runtime.block_on(producers(&log, 64, 1, time));
    crowd.print("log, 64 producers", &many);
    let batches = runtime.block_on(producers(&log, 4, 500, time));
    batches.print("log, 4 producers of 500 at once", &many);
    drop(log);

    let start = Instant::now();
    let log = SegmentsLog::open(SegmentsConfig::new(dir.join("log"))).unwrap();
    let records: u64 = (0..PARTITIONS)
        .map(|p| runtime.block_on(log.end("bench", p)).unwrap().offset)
        .sum();
    println!(
        "reopened {records} records in {:.0} ms",
        start.elapsed().as_secs_f64() * 1e3
    );
    drop(log);
    std::fs::remove_dir_all(&dir).unwrap();
}

/// Rate and latencies of one run.
struct Run {
    per_second: f64,
    p50: f64,
    p99: f64,
}

impl Run {
    fn of(records: usize, took: Duration, mut latencies: Vec<Duration>) -> Self {
        latencies.sort_unstable();
        let at = |percent: usize| {
            latencies[(latencies.len() * percent / 100).min(latencies.len() - 1)].as_secs_f64()
                * 1e3
        };
        let (p50, p99) = (at(50), at(99));
        Self {
            per_second: records as f64 / took.as_secs_f64(),
            p50,
            p99,
        }
    }

    fn print(&self, what: &str, baseline: &Self) {
        println!(
            "{what:36} {:>9.0} records/s, ack p50 {:.2} p99 {:.2} ms; ratio {:.2} of rate, {:.2} of p50",
            self.per_second,
            self.p50,
            self.p99,
            self.per_second / baseline.per_second,
            self.p50 / baseline.p50
        );
    }
}

/// The baseline: writes so many records in one piece, syncs, and again.
fn plain(dir: &Path, records: usize, time: Duration) -> Run {
    let path = dir.join("plain");
    let file = File::create(&path).unwrap();
    let bytes = vec![0x5a; RECORD * records];
    let (mut at, mut latencies) = (0, Vec::new());
    let start = Instant::now();
    while start.elapsed() < time {
        let begun = Instant::now();
        file.write_all_at(&bytes, at).unwrap();
        file.sync_data().unwrap();
        latencies.push(begun.elapsed());
        at += bytes.len() as u64;
        if at > 256 << 20 {
            file.set_len(0).unwrap();
            at = 0;
        }
    }
    let run = Run::of(latencies.len() * records, start.elapsed(), latencies);
    run.print(&format!("plain write and sync of {records}"), &run);
    std::fs::remove_file(path).unwrap();
    run
}

/// Producers that each append so many records at once, wait for all of them, and again.
async fn producers(log: &SegmentsLog, count: u32, at_once: usize, time: Duration) -> Run {
    let log: Arc<dyn Log> = Arc::new(log.clone());
    let value = Bytes::from(vec![0x5a; RECORD]);
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for producer in 0..count {
        let (log, value) = (Arc::clone(&log), value.clone());
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            while start.elapsed() < time {
                let begun = Instant::now();
                let appends: Vec<_> = (0..at_once)
                    .map(|_| {
                        log.append("bench", producer % PARTITIONS, Bytes::new(), value.clone())
                    })
                    .collect();
                for append in appends {
                    append.await.unwrap();
                }
                latencies.push(begun.elapsed());
            }
            latencies
        });
    }
    let mut latencies = Vec::new();
    while let Some(of_one) = tasks.join_next().await {
        latencies.extend(of_one.unwrap());
    }
    Run::of(latencies.len() * at_once, start.elapsed(), latencies)
}
