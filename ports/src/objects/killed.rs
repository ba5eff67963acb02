//! For tests: a process that writes until it is killed.
//!
//! The process is this test binary again, told to run one test that is ignored otherwise. That
//! test says what it was told is durable, a line each; the one who killed it holds the store to
//! every line.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const DIRECTORY: &str = "NUBLAR_TEST_DIRECTORY";
const MARK: &str = "durable: ";

/// Runs the ignored test `test` (its whole path) on `directory`, kills it once it has said
/// `enough` lines, and gives all that it said.
pub(crate) fn lines_of_killed(test: &str, directory: &Path, enough: usize) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(DIRECTORY, directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let mut said = Vec::new();
    for line in output.lines() {
        // The test harness begins the first line itself.
        if let Some((_, line)) = line.unwrap().split_once(MARK) {
            said.push(line.to_owned());
            if said.len() == enough {
                child.kill().unwrap();
            }
        }
    }
    let ended = child.wait().unwrap();
    assert!(!ended.success() && ended.code().is_none(), "{ended}");
    assert!(said.len() >= enough, "it ended before it was killed");
    said
}

/// In the process to be killed: where it writes. None when the test runs as any other.
pub(crate) fn directory() -> Option<PathBuf> {
    std::env::var_os(DIRECTORY).map(PathBuf::from)
}

/// In the process to be killed: says that something is durable.
pub(crate) fn say(line: &str) {
    let mut output = std::io::stdout().lock();
    output
        .write_all(format!("{MARK}{line}\n").as_bytes())
        .and_then(|()| output.flush())
        .unwrap();
}

/// Bytes made of a name, to tell whole contents from others.
pub(crate) fn content(name: &str, length: usize) -> Vec<u8> {
    let mut content = Vec::with_capacity(length + 32);
    let mut hash = blake3::hash(name.as_bytes());
    while content.len() < length {
        content.extend_from_slice(hash.as_bytes());
        hash = blake3::hash(hash.as_bytes());
    }
    content.truncate(length);
    content
}
