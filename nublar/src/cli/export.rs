//! `export`: a whole flow in a folder, for other programs and other times.
//!
//! ```text
//! flow.json            the flow's document
//! results/01-….jsonl   the rows of each result set
//! logs.jsonl           its log
//! uploads/ID           its files, as they are stored; of a sparse one also ID.ranges.json
//! manifest.jsonl       a line for each of them: what it is, its size and hash
//! SHA256SUMS           the same hashes, for `sha256sum -c`
//! ```
//! Files have names of ours: what agents call theirs stands in the manifest alone. A line is added
//! when its file is whole, so an export that was broken off goes on with what is missing, and
//! within a file behind what is there of it.

use super::OfFlow;
use super::download::into_file;
use super::flows::path;
use super::output::{Output, is_watched, number, text};
use super::rest::{Rest, escaped};
use super::results::CUT;
use super::table::shown;
use super::times::size;
use super::tools::{hash, step};
use super::uploads;
use anyhow::{Context, Result};
use aws_lc_rs::digest;
use nublar_core::ids::hex;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::sleep;

const MANIFEST: &str = "manifest.jsonl";
const SUMS: &str = "SHA256SUMS";
/// How often in a row an answer may be cut off without a line of it.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);
/// The longest part of a result set's name that its file is named after.
const NAMED: usize = 100;

/// Writes a flow into a folder.
pub(super) async fn perform(rest: &Rest, out: &mut Output, of: &OfFlow, to: &Path) -> Result<()> {
    let flow = rest.json(&path(of)).await?;
    let sets = rest.json(&format!("{}/results", path(of))).await?;
    let uploads = uploads::all(rest, of).await?;
    let mut folder = Folder::open(to)?;
    folder.document("flow.json", json!({ "kind": "flow" }), &flow)?;
    let sets = sets.as_array().map_or(&[][..], Vec::as_slice);
    for (place, set) in sets.iter().enumerate() {
        let name = text(set, "name");
        let file = format!("results/{:02}-{}.jsonl", place + 1, safe(&name));
        let what = json!({ "kind": "results", "name": name, "rows": number(set, "rows") });
        let source = format!("{}/results?name={}&", path(of), escaped(&name));
        folder.lines(rest, &file, what, &source).await?;
    }
    let what = json!({ "kind": "logs", "rows": number(&flow, "total_logs") });
    let source = format!("{}/logs?", path(of));
    folder.lines(rest, "logs.jsonl", what, &source).await?;
    for (done, upload) in uploads.iter().enumerate() {
        if is_watched() {
            let path = shown(&text(upload, "path"));
            eprintln!("nublar: file {} of {}: {path}", done + 1, uploads.len());
        }
        folder.upload(rest, of, upload).await?;
    }
    let (files, fetched) = (folder.now.len(), folder.fetched);
    let bytes = folder.finish()?;
    if flow.get("end_time").is_none_or(Value::is_null) {
        eprintln!("nublar: the flow has not ended; export it again for what is still to come");
    }
    if out.json {
        return out.document(&json!({
            "folder": to.display().to_string(),
            "files": files,
            "fetched": fetched,
            "bytes": bytes,
        }));
    }
    out.line(&format!(
        "{}: {files} files, {}; {fetched} of them fetched now",
        to.display(),
        size(bytes)
    ))
}

/// A name without anything that means something to a file system.
fn safe(name: &str) -> String {
    let safe = |character: char| match character {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '_' => character,
        _ => '-',
    };
    name.chars().take(NAMED).map(safe).collect()
}

/// Where an export is written.
struct Folder {
    to: PathBuf,
    /// What an earlier export has written, by its file.
    before: BTreeMap<String, Value>,
    /// What belongs to this one.
    now: BTreeMap<String, Value>,
    manifest: File,
    /// Files that were not there.
    fetched: usize,
}

impl Folder {
    fn open(to: &Path) -> Result<Self> {
        for folder in [to.to_owned(), to.join("results"), to.join("uploads")] {
            std::fs::create_dir_all(&folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let path = to.join(MANIFEST);
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            read => read.with_context(|| format!("cannot read {}", path.display()))?,
        };
        // The last line may be half of one.
        let lines = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let manifest = OpenOptions::new().create(true).append(true).open(&path);
        let mut manifest = manifest.with_context(|| format!("cannot write {}", path.display()))?;
        if !text.is_empty() && !text.ends_with('\n') {
            manifest.write_all(b"\n")?;
        }
        Ok(Self {
            to: to.to_owned(),
            before: lines
                .map(|entry| (self::text(&entry, "file"), entry))
                .collect(),
            now: BTreeMap::new(),
            manifest,
            fetched: 0,
        })
    }

    /// Whether a file is there already, by what it is.
    fn has(&mut self, file: &str, what: &Value) -> bool {
        let Some(entry) = self.before.get(file) else {
            return false;
        };
        let same = what.as_object().is_some_and(|fields| {
            fields
                .iter()
                .all(|(name, value)| entry.get(name) == Some(value))
        });
        let length = std::fs::metadata(self.to.join(file)).map(|found| found.len());
        let there = same && length.is_ok_and(|length| length == number(entry, "size"));
        if there {
            self.now.insert(file.to_owned(), entry.clone());
        }
        there
    }

    /// A file is whole.
    fn add(&mut self, file: &str, mut what: Value, size: u64, sha256: &str) -> Result<()> {
        let said = json!({ "file": file, "size": size, "sha256": sha256 });
        if let (Some(what), Value::Object(said)) = (what.as_object_mut(), said) {
            what.extend(said);
        }
        self.manifest.write_all(format!("{what}\n").as_bytes())?;
        self.manifest.sync_data()?;
        self.now.insert(file.to_owned(), what);
        self.fetched += 1;
        Ok(())
    }

    fn document(&mut self, file: &str, what: Value, document: &Value) -> Result<()> {
        let text = format!("{document:#}\n");
        write(&self.to.join(file), text.as_bytes())?;
        let sha256 = hex(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
        self.add(file, what, text.len() as u64, &sha256)
    }

    /// Rows or log lines, `source` with a query that goes on; an answer that is cut off is gone on with behind its last whole line.
    async fn lines(&mut self, rest: &Rest, file: &str, what: Value, source: &str) -> Result<()> {
        if self.has(file, &what) {
            return Ok(());
        }
        let path = self.to.join(file);
        let draft = path.with_added_extension("part");
        let unwritten = || format!("cannot write {}", draft.display());
        let mut written = Lines::left(&draft).with_context(unwritten)?;
        let goes_on = written.rows > 0;
        written.fetch_all(rest, source).await?;
        if goes_on && written.rows != number(&what, "rows") {
            // What was there is of another time.
            (written.whole, written.rows) = (0, 0);
            written.fetch_all(rest, source).await?;
        }
        written.file.sync_all().with_context(unwritten)?;
        let (sha256, _) = hash(&draft).with_context(unwritten)?;
        std::fs::rename(&draft, &path).with_context(unwritten)?;
        self.add(file, what, written.whole, &sha256)
    }

    /// A file of the flow, so far as it is there.
    async fn upload(&mut self, rest: &Rest, of: &OfFlow, upload: &Value) -> Result<()> {
        let file = format!("uploads/{}", safe(&text(upload, "upload_id")));
        let mut what = json!({ "kind": "upload" });
        for name in [
            "upload_id",
            "path",
            "components",
            "accessor",
            "stored",
            "complete",
            "sparse",
            "verdict",
        ] {
            what[name] = upload.get(name).cloned().unwrap_or(Value::Null);
        }
        let sparse = upload.get("sparse") == Some(&Value::Bool(true));
        let ranges_file = format!("{file}.ranges.json");
        let ranges_are = json!({ "kind": "ranges", "upload_id": upload.get("upload_id") });
        if self.has(&file, &what) && (!sparse || self.has(&ranges_file, &ranges_are)) {
            return Ok(());
        }
        let place = uploads::place(of, upload);
        let path = self.to.join(&file);
        let expected = text(upload, "sha256");
        if sparse {
            let ranges = rest.json(&format!("{place}/ranges")).await?;
            self.document(&ranges_file, ranges_are, &ranges)?;
        }
        let written = into_file(rest, place, &path, None, &expected).await?;
        self.add(&file, what, written.size, &written.sha256)
    }

    /// Writes the manifest anew, without what does not belong to this export any more; the bytes of
    /// all files.
    fn finish(self) -> Result<u64> {
        let (mut manifest, mut sums, mut bytes) = (String::new(), String::new(), 0);
        for (file, entry) in &self.now {
            manifest += &format!("{entry}\n");
            sums += &format!("{}  {file}\n", text(entry, "sha256"));
            bytes += number(entry, "size");
        }
        write(&self.to.join(SUMS), sums.as_bytes())?;
        write(&self.to.join(MANIFEST), manifest.as_bytes())?;
        Ok(bytes)
    }
}

/// Lines that are fetched into a file.
struct Lines {
    file: File,
    /// Bytes of whole lines.
    whole: u64,
    rows: u64,
}

impl Lines {
    /// What an earlier export has left of a file: its whole lines.
    fn left(draft: &Path) -> std::io::Result<Self> {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false);
        let mut left = Self {
            file: options.open(draft)?,
            whole: 0,
            rows: 0,
        };
        let mut at = 0;
        while let Some(read) = step(&mut left.file)? {
            if let Some(last) = read.iter().rposition(|byte| *byte == b'\n') {
                left.whole = at + last as u64 + 1;
                left.rows += read.iter().filter(|byte| **byte == b'\n').count() as u64;
            }
            at += read.len() as u64;
        }
        Ok(left)
    }

    /// Fetches what is not there yet, however often the answer is cut off.
    async fn fetch_all(&mut self, rest: &Rest, source: &str) -> Result<()> {
        let mut failures = 0;
        loop {
            let before = self.rows;
            match self.fetch(rest, source).await {
                Err(error) if Rest::is_lost(&error) && failures < TRIES => {
                    failures = if self.rows > before { 0 } else { failures + 1 };
                    sleep(PAUSE).await;
                }
                fetched => return fetched,
            }
        }
    }

    /// Fetches what is not there yet, as far as one answer goes.
    async fn fetch(&mut self, rest: &Rest, source: &str) -> Result<()> {
        self.file.set_len(self.whole)?;
        self.file.seek(SeekFrom::Start(self.whole))?;
        let from = format!("{source}format=jsonl&start={}", self.rows);
        let mut response = rest.stream(&from).await?;
        let mut begun = 0;
        while let Some(bytes) = response.chunk().await.context(CUT)? {
            self.file.write_all(&bytes)?;
            let rows = bytes.iter().filter(|byte| **byte == b'\n').count();
            match bytes.iter().rposition(|byte| *byte == b'\n') {
                Some(last) => {
                    self.whole += begun + last as u64 + 1;
                    begun = (bytes.len() - last - 1) as u64;
                }
                None => begun += bytes.len() as u64,
            }
            self.rows += rows as u64;
        }
        // Whatever the last line ends with.
        self.whole += begun;
        Ok(())
    }
}

/// Writes a file, whole or not at all.
fn write(path: &Path, content: &[u8]) -> Result<()> {
    let draft = path.with_added_extension("part");
    let unwritten = || format!("cannot write {}", draft.display());
    let mut file = File::create(&draft).with_context(unwritten)?;
    file.write_all(content).with_context(unwritten)?;
    file.sync_all().with_context(unwritten)?;
    std::fs::rename(&draft, path).with_context(unwritten)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_nothing_to_a_file_system() {
        assert_eq!(
            safe("Linux.Sys.Pslist/Processes"),
            "Linux.Sys.Pslist-Processes"
        );
        assert_eq!(safe("../../etc/passwd\0:x"), "..-..-etc-passwd--x");
        assert_eq!(safe(&"ä".repeat(1_000)).len(), NAMED);
    }
}
