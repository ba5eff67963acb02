//! Crashes and damage: a torn end is cut, anything else is named and refused, and what was
//! acknowledged is there.

use super::*;
use crate::log::LogError;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The segment that is written on.
fn last_segment(dir: &Path) -> PathBuf {
    let mut paths: Vec<_> = fs::read_dir(dir.join("t"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    paths.sort();
    paths.pop().unwrap()
}

/// The files of a log, as a kill at this moment leaves them.
fn snapshot(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fs::read_dir(dir.join("t"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            (
                PathBuf::from(path.file_name().unwrap()),
                fs::read(&path).unwrap(),
            )
        })
        .collect()
}

fn restore(files: &BTreeMap<PathBuf, Vec<u8>>) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("t")).unwrap();
    for (name, bytes) in files {
        fs::write(dir.path().join("t").join(name), bytes).unwrap();
    }
    dir
}

fn values(records: &[Record]) -> Vec<&str> {
    records
        .iter()
        .map(|record| std::str::from_utf8(&record.value).unwrap())
        .collect()
}

/// The files of a log with one record a commit, and where each commit begins in the segment.
async fn written(count: usize) -> (BTreeMap<PathBuf, Vec<u8>>, PathBuf, Vec<usize>) {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.declare(&[topic(1, &[])]).await.unwrap();
    let path = last_segment(dir.path());
    let mut begins = Vec::new();
    for n in 0..count {
        begins.push(fs::metadata(&path).unwrap().len() as usize);
        append(&log, &format!("v{n}")).await.unwrap();
    }
    (
        snapshot(dir.path()),
        path.file_name().unwrap().into(),
        begins,
    )
}

#[tokio::test]
async fn a_torn_end_is_cut_at_every_byte() {
    let (files, name, begins) = written(3).await;
    let whole = &files[&name];
    for torn in begins[2]..=whole.len() {
        for zeros in [false, true] {
            let mut files = files.clone();
            let bytes = files.get_mut(&name).unwrap();
            bytes.truncate(torn);
            if zeros {
                bytes.resize(whole.len() + 100, 0);
            }
            let dir = restore(&files);
            let log = open(dir.path());
            let kept = if torn == whole.len() { 3 } else { 2 };
            assert_eq!(
                values(&read_all(&log, &[0]).await),
                ["v0", "v1", "v2"][..kept]
            );
            assert_eq!(append(&log, "next").await.unwrap().offset, kept as u64);
            drop(log);
            let again = read_all(&open(dir.path()), &[0]).await;
            assert_eq!(again.len(), kept + 1);
            assert_eq!(values(&again).last(), Some(&"next"));
        }
    }
}

#[tokio::test]
async fn a_damaged_byte_before_other_commits_is_refused_by_file_and_byte() {
    let (files, name, begins) = written(3).await;
    for byte in 0..begins[2] {
        let mut files = files.clone();
        files.get_mut(&name).unwrap()[byte] ^= 0x10;
        let dir = restore(&files);
        let refused = SegmentsLog::open(SegmentsConfig::new(dir.path())).map(|_| ());
        let commit = begins
            .iter()
            .rev()
            .find(|begin| **begin <= byte)
            .unwrap_or(&0);
        let Err(LogError::Refused(text)) = refused else {
            panic!("byte {byte}: {refused:?}");
        };
        assert!(
            text.contains(&format!("byte {commit}:")),
            "byte {byte}: {text}"
        );
        assert!(text.contains(name.to_str().unwrap()), "{text}");
        assert_eq!(snapshot(dir.path()), files, "nothing was changed");
    }
}

#[tokio::test]
async fn after_a_close_the_last_commit_is_known_to_be_durable() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.declare(&[topic(1, &[])]).await.unwrap();
    append(&log, "a").await.unwrap();
    append(&log, "b").await.unwrap();
    log.close().await.unwrap();
    drop(log);
    let path = last_segment(dir.path());
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let refused = SegmentsLog::open(SegmentsConfig::new(dir.path())).map(|_| ());
    assert!(matches!(refused, Err(LogError::Refused(_))), "{refused:?}");
    fs::write(&path, &bytes).unwrap();
    assert_eq!(values(&read_all(&open(dir.path()), &[0]).await), ["a", "b"]);
}

/// A log of several sealed segments.
async fn sealed() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let config = SegmentsConfig {
        segment_bytes: 1000,
        ..SegmentsConfig::new(dir.path())
    };
    let log = SegmentsLog::open(config).unwrap();
    log.declare(&[topic(1, &[])]).await.unwrap();
    for n in 0..40 {
        append(&log, &format!("value number {n}")).await.unwrap();
    }
    log.close().await.unwrap();
    dir
}

#[tokio::test]
async fn damage_in_a_sealed_segment_is_never_passed_over() {
    let dir = sealed().await;
    let path = dir.path().join("t/000000000002-0.log");
    let mut bytes = fs::read(&path).unwrap();
    let byte = bytes.len() - 3;
    bytes[byte] ^= 1;
    fs::write(&path, &bytes).unwrap();
    // Its summary spares reading it at start; a reader notices.
    let log = open(dir.path());
    let mut tail = log
        .tail("t", &[0], crate::log::From::Earliest)
        .await
        .unwrap();
    let refused = loop {
        match tail.next().await {
            Ok(TailEvent::Record(record)) => assert!(record.position.offset < 30),
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
    };
    assert!(matches!(&refused, LogError::Refused(text) if text.contains("000000000002-0.log")));
    drop((tail, log));
    fs::remove_file(path.with_extension("idx")).unwrap();
    let refused = SegmentsLog::open(SegmentsConfig::new(dir.path())).map(|_| ());
    assert!(matches!(refused, Err(LogError::Refused(_))), "{refused:?}");
    bytes[byte] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert_eq!(read_all(&open(dir.path()), &[0]).await.len(), 40);
    fs::remove_file(&path).unwrap();
    let refused = SegmentsLog::open(SegmentsConfig::new(dir.path())).map(|_| ());
    assert!(matches!(&refused, Err(LogError::Refused(text)) if text.contains("missing")));
}

#[tokio::test]
async fn a_payload_that_looks_like_a_segment_is_only_a_payload() {
    let (files, name, _) = written(5).await;
    let copy = files[&name].clone();
    let dir = restore(&files);
    let log = open(dir.path());
    let path = last_segment(dir.path());
    // The bytes of whole later commits stand inside a torn one.
    log.append("t", 0, "k".into(), copy.into()).await.unwrap();
    let mut files = snapshot(dir.path());
    drop(log);
    let bytes = files.get_mut(Path::new(path.file_name().unwrap())).unwrap();
    bytes.pop();
    let dir = restore(&files);
    assert_eq!(read_all(&open(dir.path()), &[0]).await.len(), 5);
}

/// The environment variable that makes [`child_that_is_killed`] one.
const CHILD: &str = "NUBLAR_TEST_LOG_DIR";
const CHILD_PRODUCERS: u64 = 16;

/// Appends and tells what was acknowledged until it is killed. Alone it has nothing to do: it is
/// run by [`a_kill_loses_nothing_acknowledged`].
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_is_killed() {
    let Some(dir) = std::env::var_os(CHILD) else {
        return;
    };
    let config = SegmentsConfig {
        segment_bytes: 20_000,
        ..SegmentsConfig::new(dir)
    };
    let log = SegmentsLog::open(config).unwrap();
    log.declare(&[topic(4, &["g"])]).await.unwrap();
    let start = log.end("t", 0).await.unwrap().offset;
    let mut producers = tokio::task::JoinSet::new();
    for producer in 0..CHILD_PRODUCERS {
        let log = log.clone();
        producers.spawn(async move {
            let partition = (producer % 4) as u32;
            for n in 0_u64.. {
                let value = format!("{start} {producer} {n} {}", "x".repeat((n % 100) as usize));
                let position = log
                    .append("t", partition, "k".into(), value.clone().into())
                    .await;
                println!("acked {partition} {} {value}", position.unwrap().offset);
            }
        });
    }
    let mut group = log.group("g", "t").await.unwrap();
    let mut epochs = BTreeMap::new();
    loop {
        match group.next().await.unwrap() {
            crate::log::GroupEvent::Assigned {
                partition, epoch, ..
            } => {
                epochs.insert(partition, epoch);
            }
            crate::log::GroupEvent::Record(record) if record.position.offset % 50 == 0 => {
                let (partition, position) = (record.partition, record.position);
                group.mark(partition, epochs[&partition], position).unwrap();
                group.flush().await.unwrap();
                println!("marked {partition} {}", position.offset);
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_kill_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let (mut acked, mut marked) = (BTreeMap::new(), BTreeMap::new());
    for round in 1..=4 {
        let module = module_path!().split_once("::").unwrap().1;
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                &format!("{module}::child_that_is_killed"),
                "--exact",
                "--nocapture",
            ])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).split(b'\n');
        let mut of_round = 0;
        // After the kill what is in the pipe is read, and a last line that is cut off is left.
        let mut killed = false;
        for line in &mut lines {
            let line = String::from_utf8(line.unwrap()).unwrap();
            let words: Vec<&str> = line.splitn(4, ' ').collect();
            match words[..] {
                ["acked", partition, offset, value] if value.ends_with('x') => {
                    let place: (u32, u64) = (partition.parse().unwrap(), offset.parse().unwrap());
                    let before = acked.insert(place, value.to_owned());
                    assert_eq!(before, None, "a place was given twice");
                    of_round += 1;
                }
                ["marked", partition, offset] if !killed => {
                    marked.insert(
                        partition.parse::<u32>().unwrap(),
                        offset.parse::<u64>().unwrap(),
                    );
                }
                _ => {}
            }
            if of_round >= 1500 * round && !killed {
                child.kill().unwrap();
                killed = true;
            }
        }
        child.wait().unwrap();
        assert!(killed, "the child ended by itself after {of_round}");
        let log = open(dir.path());
        let found: BTreeMap<(u32, u64), String> = read_all(&log, &[0, 1, 2, 3])
            .await
            .into_iter()
            .map(|r| {
                (
                    (r.partition, r.position.offset),
                    String::from_utf8(r.value.into()).unwrap(),
                )
            })
            .collect();
        for (place, value) in &acked {
            assert_eq!(found.get(place), Some(value), "acknowledged and lost");
        }
        for lag in log.lag("g", "t").await.unwrap() {
            let marked = marked.get(&lag.partition).copied().unwrap_or(0);
            assert!(lag.mark.offset >= marked, "a flushed mark was lost");
        }
    }
    assert!(!marked.is_empty());
}
