//! How fast the log on Kafka is: `kafka_bench BROKERS`.
//!
//! Prints the latency from an append on a control topic to its record in a tail, and how many
//! appends of 1 KiB and of 100 KiB a data topic takes a second with 256 of them unacknowledged.

use bytes::Bytes;
use futures::StreamExt;
use nublar_ports::log::kafka::{KafkaConfig, KafkaLog};
use nublar_ports::log::{From, Log, LogError, Retention, Tail, TailEvent, TopicSpec};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const ROUND_TRIPS: usize = 2_000;
const UNACKNOWLEDGED: usize = 256;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let brokers = std::env::args()
        .nth(1)
        .ok_or("usage: kafka_bench BROKERS")?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    let log = KafkaLog::new(KafkaConfig {
        brokers,
        prefix: format!("bench-{now}."),
        replication: 1,
        min_insync: 1,
        ..KafkaConfig::default()
    })?;
    let spec = |name: &str| TopicSpec {
        name: name.to_owned(),
        partitions: 4,
        retention: Retention::Age(Duration::from_secs(600)),
        groups: Vec::new(),
    };
    log.declare(&[spec("scheduling"), spec("results")]).await?;

    let mut latencies = latencies(&log, "scheduling").await?;
    latencies.sort_unstable();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    println!(
        "append to tail, {ROUND_TRIPS} records one by one: p50 {:?}, p99 {:?}, max {:?}",
        at(0.5),
        at(0.99),
        at(1.0)
    );
    for (size, count) in [(1 << 10, 100_000), (100 << 10, 5_000)] {
        let took = appends(&log, "results", size, count).await?.as_secs_f64();
        let (rate, volume) = (count as f64 / took, (size * count) as f64 / took / 1e6);
        println!("appends of {size} bytes: {rate:.0}/s, {volume:.1} MB/s");
    }
    Ok(())
}

/// Times from an append to its record in a tail.
async fn latencies(log: &KafkaLog, topic: &str) -> Result<Vec<Duration>, LogError> {
    let mut tail = log.tail(topic, &[0, 1, 2, 3], From::Now).await?;
    let mut latencies = Vec::with_capacity(ROUND_TRIPS);
    for number in 0..ROUND_TRIPS + 100 {
        let begun = Instant::now();
        let append = log.append(
            topic,
            (number % 4) as u32,
            Bytes::new(),
            Bytes::from_static(b"x"),
        );
        record(&mut tail).await?;
        // The first are slower: connections and caches.
        if number >= 100 {
            latencies.push(begun.elapsed());
        }
        append.await?;
    }
    Ok(latencies)
}

async fn record(tail: &mut Box<dyn Tail>) -> Result<(), LogError> {
    loop {
        if let TailEvent::Record(_) = tail.next().await? {
            return Ok(());
        }
    }
}

async fn appends(
    log: &KafkaLog,
    topic: &str,
    size: usize,
    count: usize,
) -> Result<Duration, LogError> {
    // Compressible to about three quarters, and not by what other records of a batch have.
    let mut state = 1_u32;
    let values: Vec<Bytes> = (0..64)
        .map(|_| {
            let byte = |_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state.to_be_bytes()[0] & 0x3f
            };
            (0..size).map(byte).collect()
        })
        .collect();
    let begun = Instant::now();
    let mut acknowledged = futures::stream::iter(0..count)
        .map(|number| {
            let value = values[number % values.len()].clone();
            log.append(topic, (number % 4) as u32, Bytes::new(), value)
        })
        .buffer_unordered(UNACKNOWLEDGED);
    while let Some(result) = acknowledged.next().await {
        result?;
    }
    Ok(begun.elapsed())
}
