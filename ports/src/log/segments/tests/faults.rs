//! Failing and full disks: nothing is acknowledged that is not durable, nothing acknowledged is
//! lost, and the log goes on by itself.

use super::super::disk::Op;
use super::*;
use crate::log::{From, LogError};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64};

type Gate = Box<dyn FnMut(Op, &Path) -> io::Result<()> + Send>;

/// A disk whose gate can be changed.
#[derive(Clone)]
struct Faulty(Arc<Mutex<Gate>>);

impl Faulty {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Box::new(|_, _| Ok(())))))
    }

    fn set(&self, gate: impl FnMut(Op, &Path) -> io::Result<()> + Send + 'static) {
        *self.0.lock().unwrap() = Box::new(gate);
    }

    fn open(&self, dir: &Path, segment_bytes: u64) -> Result<SegmentsLog, LogError> {
        let gate = Arc::clone(&self.0);
        let disk = Disk::with_gate(move |op, path| (gate.lock().unwrap())(op, path));
        let config = SegmentsConfig {
            segment_bytes,
            ..SegmentsConfig::new(dir)
        };
        SegmentsLog::open_on(config, disk)
    }
}

fn broken() -> io::Result<()> {
    Err(io::Error::other("injected"))
}

fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "log")
}

fn values(records: &[Record]) -> Vec<String> {
    records
        .iter()
        .map(|r| String::from_utf8(r.value.to_vec()).unwrap())
        .collect()
}

#[tokio::test]
async fn a_failed_sync_acknowledges_nothing_and_the_log_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Faulty::new();
    let log = disk.open(dir.path(), 1 << 20).unwrap();
    log.declare(&[topic(1, &[])]).await.unwrap();
    append(&log, "a").await.unwrap();
    disk.set(|op, path| {
        if op == Op::Sync && is_segment(path) {
            broken()
        } else {
            Ok(())
        }
    });
    for _ in 0..3 {
        assert!(matches!(
            append(&log, "lost").await,
            Err(LogError::Unavailable(_))
        ));
        assert_eq!(
            values(&read_all(&log, &[0]).await),
            ["a"],
            "nobody reads what is not durable"
        );
    }
    disk.set(|_, _| Ok(()));
    append(&log, "b").await.unwrap();
    assert_eq!(values(&read_all(&log, &[0]).await), ["a", "b"]);
    let next = dir.path().join("t/000000000002-0.log");
    assert!(next.exists(), "the file that failed is written no more");
    drop(log);
    assert_eq!(values(&read_all(&open(dir.path()), &[0]).await), ["a", "b"]);
}

#[tokio::test]
async fn a_failed_write_is_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Faulty::new();
    let log = disk.open(dir.path(), 1 << 20).unwrap();
    log.declare(&[topic(1, &[])]).await.unwrap();
    append(&log, "a").await.unwrap();
    for cut_works in [true, false] {
        disk.set(move |op, path| match op {
            Op::Write if is_segment(path) => Err(io::ErrorKind::StorageFull.into()),
            Op::Cut if !cut_works => broken(),
            _ => Ok(()),
        });
        assert!(matches!(append(&log, "lost").await, Err(LogError::Full(_))));
    }
    disk.set(|_, _| Ok(()));
    append(&log, "b").await.unwrap();
    assert_eq!(values(&read_all(&log, &[0]).await), ["a", "b"]);
}

#[tokio::test]
async fn a_segment_that_was_begun_in_vain_hides_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Faulty::new();
    let log = disk.open(dir.path(), 300).unwrap();
    log.declare(&[topic(1, &[])]).await.unwrap();
    let mut appended = Vec::new();
    for n in 0..3 {
        append(&log, &format!("before {n}")).await.unwrap();
        appended.push(format!("before {n}"));
    }
    // The new file is made and named, but that fails to become durable, and it cannot be removed.
    let folder = dir.path().join("t");
    disk.set(move |op, path| match op {
        Op::Sync if path == folder => broken(),
        Op::Remove => broken(),
        _ => Ok(()),
    });
    for n in 0..10 {
        append(&log, &format!("after {n}")).await.unwrap();
        appended.push(format!("after {n}"));
    }
    disk.set(|_, _| broken());
    drop(log);
    let log = open(dir.path());
    assert_eq!(values(&read_all(&log, &[0]).await), appended);
    append(&log, "more").await.unwrap();
    drop(log);
    assert_eq!(
        read_all(&open(dir.path()), &[0]).await.len(),
        appended.len() + 1
    );
}

/// Kills the log at every single change of a file that `act` makes, and gives the folder to
/// `check` after each. Ends when `act` gets through.
async fn killed_at_every_step<A, C>(prepare: impl AsyncFn(&SegmentsLog), act: A, check: C)
where
    A: AsyncFn(&SegmentsLog) -> Result<(), LogError>,
    C: AsyncFn(&SegmentsLog, bool),
{
    for step in 1.. {
        let dir = tempfile::tempdir().unwrap();
        let disk = Faulty::new();
        let log = disk.open(dir.path(), 2000).unwrap();
        prepare(&log).await;
        let left = Arc::new(AtomicU32::new(step));
        let counter = Arc::clone(&left);
        disk.set(move |_, _| {
            let left = counter.load(Ordering::SeqCst);
            counter.store(left.saturating_sub(1), Ordering::SeqCst);
            if left <= 1 { broken() } else { Ok(()) }
        });
        let acted = act(&log).await;
        let through = left.load(Ordering::SeqCst) > 0;
        disk.set(|_, _| broken());
        drop(log);
        let log = open(dir.path());
        check(&log, acted.is_ok()).await;
        drop(log);
        if through {
            assert!(acted.is_ok());
            assert!(step > 3, "there was nothing to kill");
            return;
        }
    }
}

#[tokio::test]
async fn a_compaction_may_be_killed_at_every_step() {
    let compacted = || TopicSpec {
        retention: Retention::Compacted,
        ..topic(2, &[])
    };
    let prepare = async |log: &SegmentsLog| {
        log.declare(&[compacted()]).await.unwrap();
        for n in 0..60_u32 {
            let (key, value) = (format!("k{}", n % 7), format!("value number {n}"));
            log.append("t", n % 2, key.into(), value.into())
                .await
                .unwrap();
        }
    };
    let act = async |log: &SegmentsLog| log.compact("t").await;
    let check = async |log: &SegmentsLog, compacted: bool| {
        let records = read_all(log, &[0, 1]).await;
        let newest: BTreeMap<_, _> = records
            .iter()
            .map(|r| ((r.partition, r.key.clone()), r.value.clone()))
            .collect();
        assert_eq!(newest.len(), 14);
        for n in 46..60_u32 {
            let key = (n % 2, Bytes::from(format!("k{}", n % 7)));
            assert_eq!(newest[&key], format!("value number {n}"));
        }
        assert!(!compacted || records.len() == 14, "{}", records.len());
        assert_eq!(log.end("t", 1).await.unwrap().offset, 30);
        log.append("t", 0, "k".into(), "v".into()).await.unwrap();
        log.compact("t").await.unwrap();
        assert_eq!(read_all(log, &[0, 1]).await.len(), 15);
    };
    killed_at_every_step(prepare, act, check).await;
}

#[tokio::test]
async fn a_declaration_may_be_killed_at_every_step() {
    let prepare = async |_: &SegmentsLog| {};
    let act = async |log: &SegmentsLog| log.declare(&[topic(3, &["a", "b"])]).await;
    let check = async |log: &SegmentsLog, declared: bool| {
        if declared {
            assert_eq!(log.partitions("t").await, Ok(3));
            log.group("b", "t").await.unwrap();
        }
        log.declare(&[topic(3, &["a", "b"])]).await.unwrap();
        append(log, "v").await.unwrap();
        assert_eq!(log.lag("a", "t").await.unwrap()[0].mark.offset, 0);
        assert_eq!(read_all(log, &[0]).await.len(), 1);
    };
    killed_at_every_step(prepare, act, check).await;
}

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) % n
    }
}

#[tokio::test]
async fn whatever_fails_and_whenever_it_is_killed_the_acknowledged_is_there() {
    let mut failures = 0;
    for seed in 0..60 {
        let mut dice = Dice(seed);
        let dir = tempfile::tempdir().unwrap();
        let disk = Faulty::new();
        let mut log = disk.open(dir.path(), 700).unwrap();
        log.declare(&[topic(2, &[])]).await.unwrap();
        // What was acknowledged, by place; and all that was ever tried, by value.
        let mut acked: BTreeMap<(u32, u64), String> = BTreeMap::new();
        let mut tried = 0_u64;
        for _ in 0..6 {
            let rate = 2 + dice.below(8);
            let faults = Mutex::new(Dice(dice.below(1 << 30)));
            disk.set(move |_, _| {
                let mut faults = faults.lock().unwrap();
                if faults.below(rate) == 0 {
                    broken()
                } else {
                    Ok(())
                }
            });
            for _ in 0..dice.below(12) {
                let appends: Vec<_> = (0..1 + dice.below(4))
                    .map(|_| {
                        tried += 1;
                        let (partition, value) = ((tried % 2) as u32, format!("value {tried}"));
                        (
                            value.clone(),
                            partition,
                            log.append("t", partition, "k".into(), value.into()),
                        )
                    })
                    .collect();
                for (value, partition, append) in appends {
                    match append.await {
                        Ok(position) => {
                            assert_eq!(acked.insert((partition, position.offset), value), None);
                        }
                        Err(_) => failures += 1,
                    }
                }
                check(&log, &acked, tried).await;
            }
            disk.set(|_, _| broken());
            drop(log);
            // Opening may fail half-way as well, and is tried again.
            let mut left = dice.below(6);
            disk.set(move |_, _| {
                left = left.saturating_sub(1);
                if left == 1 { broken() } else { Ok(()) }
            });
            log = match disk.open(dir.path(), 700) {
                Ok(log) => log,
                Err(LogError::Unavailable(_)) => {
                    disk.set(|_, _| Ok(()));
                    disk.open(dir.path(), 700).unwrap()
                }
                Err(other) => panic!("seed {seed}: {other}"),
            };
            check(&log, &acked, tried).await;
        }
    }
    assert!(failures > 500, "only {failures} appends failed");
}

/// Every acknowledged record is in its place, and nothing is there that was never appended.
async fn check(log: &SegmentsLog, acked: &BTreeMap<(u32, u64), String>, tried: u64) {
    let records = read_all(log, &[0, 1]).await;
    let mut last = [0; 2];
    let mut found = BTreeMap::new();
    for record in records {
        let value = String::from_utf8(record.value.to_vec()).unwrap();
        let number: u64 = value.strip_prefix("value ").unwrap().parse().unwrap();
        assert!(number <= tried);
        let last = &mut last[record.partition as usize];
        assert!(number > *last, "in the order of the calls, none twice");
        *last = number;
        found.insert((record.partition, record.position.offset), value);
    }
    for (place, value) in acked {
        assert_eq!(found.get(place), Some(value), "acknowledged and lost");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_refuses_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Faulty::new();
    let gate = Arc::clone(&disk.0);
    let hook = Disk::with_gate(move |op, path| (gate.lock().unwrap())(op, path));
    let config = SegmentsConfig {
        queue_bytes: 10_000,
        ..SegmentsConfig::new(dir.path())
    };
    let log = SegmentsLog::open_on(config, hook).unwrap();
    log.declare(&[topic(1, &[])]).await.unwrap();
    let value = || Bytes::from(vec![7; 4000]);
    let (first, second, third) = {
        // The disk hangs while this is held.
        let _hanging = disk.0.lock().unwrap();
        let append = || log.append("t", 0, "k".into(), value());
        (append(), append(), append())
    };
    assert!(matches!(third.await, Err(LogError::Full(_))));
    first.await.unwrap();
    second.await.unwrap();
    log.append("t", 0, "k".into(), value()).await.unwrap();
    let huge = log.append("t", 0, "k".into(), vec![7; 1 << 20].into());
    huge.await
        .expect("alone a record passes whatever the limit");
    assert_eq!(read_all(&log, &[0]).await.len(), 4);
}

/// A file system of 8 MiB; none where mounting is not permitted.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"])
            .arg(dir.path())
            .output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(dir));
        }
        println!("skipped: mounting a small file system is not permitted here");
        None
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg(self.0.path()).status().ok();
    }
}

#[tokio::test]
async fn a_full_disk_refuses_reads_on_and_comes_back() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    std::fs::write(disk.path("ballast"), vec![1; 3 << 20]).unwrap();
    let config = SegmentsConfig {
        segment_bytes: 1 << 20,
        ..SegmentsConfig::new(disk.path("log"))
    };
    let log = SegmentsLog::open(config.clone()).unwrap();
    let spec = TopicSpec {
        retention: Retention::Age(Duration::ZERO),
        ..topic(1, &["g"])
    };
    log.declare(&[spec]).await.unwrap();
    let count = AtomicU64::new(0);
    let append = async |bytes: usize| {
        let value = format!("{} {}", count.load(Ordering::SeqCst), "x".repeat(bytes));
        let appended = log.append("t", 0, "k".into(), value.into()).await;
        count.fetch_add(u64::from(appended.is_ok()), Ordering::SeqCst);
        appended
    };
    let until_full = async || loop {
        match append(50_000).await {
            Ok(_) => {}
            Err(LogError::Full(text)) => break text,
            Err(other) => panic!("{other}"),
        }
    };
    let numbers = |records: &[Record]| -> Vec<u64> {
        let number = |r: &Record| String::from_utf8(r.value.to_vec()).unwrap();
        records
            .iter()
            .map(|r| number(r).split(' ').next().unwrap().parse().unwrap())
            .collect()
    };

    let text = until_full().await;
    assert!(text.contains(disk.path("log").to_str().unwrap()), "{text}");
    let appended = count.load(Ordering::SeqCst);
    assert!(appended > 50, "{appended}");
    for _ in 0..20 {
        assert!(matches!(append(50_000).await, Err(LogError::Full(_))));
    }
    assert_eq!(
        numbers(&read_all(&log, &[0]).await),
        (0..appended).collect::<Vec<_>>()
    );

    // Room comes back from outside: no restart, no command.
    std::fs::remove_file(disk.path("ballast")).unwrap();
    append(50_000).await.unwrap();
    until_full().await;

    // Or from the log itself: marks are saved although the disk is full, and retention unlinks.
    let mut group = log.group("g", "t").await.unwrap();
    let (mut epoch, total) = (0, count.load(Ordering::SeqCst));
    let mut last = None;
    while last.is_none_or(|last: Position| last.offset + 1 < total) {
        match group.next().await.unwrap() {
            crate::log::GroupEvent::Assigned { epoch: new, .. } => epoch = new,
            crate::log::GroupEvent::Record(record) => last = Some(record.position),
            crate::log::GroupEvent::Revoked { .. } => panic!("revoked"),
        }
    }
    let next = Position {
        offset: total,
        ..last.unwrap()
    };
    group.mark(0, epoch, next).unwrap();
    group.flush().await.unwrap();
    log.expire("t")
        .await
        .or_else(|error| match error {
            // The segment that is written on could not be sealed for want of room.
            LogError::Full(_) => Ok(()),
            other => Err(other),
        })
        .unwrap();
    for _ in 0..40 {
        append(50_000).await.unwrap();
    }
    let kept = numbers(&read_all(&log, &[0]).await);
    drop((group, log));
    let log = SegmentsLog::open(config).unwrap();
    assert_eq!(numbers(&read_all(&log, &[0]).await), kept);
    assert_eq!(kept.last(), Some(&(count.load(Ordering::SeqCst) - 1)));
    assert!(log.tail("t", &[0], From::Earliest).await.is_ok());
}
