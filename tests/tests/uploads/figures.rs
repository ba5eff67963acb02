//! What the disk does by itself, and what stands in a folder.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// MB/s of writing so many bytes in pieces, each of which is synced before the next.
pub(crate) fn disk(folder: &Path, bytes: usize, piece: usize) -> f64 {
    let path = folder.join("baseline");
    let data = vec![0x5a; piece];
    let begun = Instant::now();
    let mut file = std::fs::File::create(&path).unwrap();
    for _ in 0..bytes / piece {
        file.write_all(&data).unwrap();
        file.sync_data().unwrap();
    }
    let rate = megabytes(bytes as u64) / begun.elapsed().as_secs_f64();
    std::fs::remove_file(&path).unwrap();
    rate
}

pub(crate) fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// Every file below a folder, by its path from there.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(within) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&within) else {
            continue;
        };
        for entry in entries.map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                files.push(entry.path().strip_prefix(folder).unwrap().to_owned());
            }
        }
    }
    files.sort();
    files
}

/// The most memory a process has had, bytes; none if it has ended.
pub(crate) fn peak_of(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib = line.trim().trim_end_matches("kB").trim();
    kib.parse::<u64>().ok().map(|kib| kib * 1024)
}
