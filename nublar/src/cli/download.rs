//! Fetching an upload: an answer that is cut off is gone on with where it stopped.

use super::rest::{Rest, said};
use super::tools::step;
use anyhow::{Context, Result, bail};
use aws_lc_rs::digest;
use nublar_core::ids::hex;
use reqwest::header::{CONTENT_RANGE, ETAG, IF_RANGE, RANGE};
use reqwest::{Method, Response, StatusCode};
use serde_json::Value;
use std::fs::OpenOptions;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;
use tokio::time::sleep;

/// How often in a row an answer may be cut off without a byte of it.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);

/// Bytes of a place, from an offset on, whatever happens to the connection.
pub(super) struct Download<'a> {
    rest: &'a Rest,
    path: String,
    at: u64,
    /// Until before this offset.
    end: Option<u64>,
    tag: Option<String>,
    response: Option<Response>,
    failures: u32,
}

impl<'a> Download<'a> {
    /// Of a path below `/api/v1`, from `at` on, so many bytes at most.
    pub(super) fn new(rest: &'a Rest, path: String, at: u64, length: Option<u64>) -> Self {
        Self {
            rest,
            path,
            at,
            end: length.map(|length| at.saturating_add(length)),
            tag: None,
            response: None,
            failures: 0,
        }
    }

    /// The next bytes, none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        loop {
            match self.some().await {
                Ok(Some(bytes)) if bytes.is_empty() => {}
                Ok(bytes) => {
                    self.at += bytes.as_ref().map_or(0, Vec::len) as u64;
                    self.failures = 0;
                    return Ok(bytes);
                }
                Err(error)
                    if Rest::is_lost(&error) && !error.is::<Changed>() && self.failures < TRIES =>
                {
                    self.failures += 1;
                    self.response = None;
                    sleep(PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn some(&mut self) -> Result<Option<Vec<u8>>> {
        if self.response.is_none() {
            if self.end.is_some_and(|end| self.at >= end) {
                return Ok(None);
            }
            self.response = Some(self.ask().await?);
        }
        match &mut self.response {
            Some(response) => {
                let bytes = response.chunk().await.context(super::results::CUT)?;
                Ok(bytes.map(|bytes| bytes.to_vec()))
            }
            None => Ok(None),
        }
    }

    async fn ask(&mut self) -> Result<Response> {
        let mut request = self.rest.request(Method::GET, &self.path);
        let is_part = self.at > 0 || self.end.is_some();
        if is_part {
            let end = self.end.map(|end| (end - 1).to_string());
            let range = format!("bytes={}-{}", self.at, end.unwrap_or_default());
            request = request.header(RANGE, range);
        }
        if let Some(tag) = &self.tag {
            request = request.header(IF_RANGE, tag);
        }
        let response = self.rest.send(request).await?;
        if is_part && response.status() != StatusCode::PARTIAL_CONTENT {
            bail!(Changed);
        }
        let tag = said(response.headers(), ETAG.as_str()).map(str::to_owned);
        self.tag = self.tag.take().or(tag);
        Ok(response)
    }

    /// The bytes of the whole, as the last answer to a request for a part has it.
    pub(super) fn whole(&self) -> Option<u64> {
        let headers = self.response.as_ref()?.headers();
        said(headers, CONTENT_RANGE.as_str())?
            .rsplit_once('/')?
            .1
            .parse()
            .ok()
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the file changed while it was read; try again")]
struct Changed;

/// What was written into a file.
pub(super) struct Written {
    /// Bytes of the file.
    pub(super) size: u64,
    /// SHA-256 of the bytes that were fetched, hex.
    pub(super) sha256: String,
}

/// Fetches an upload into a file, which has a name of its own until it is whole, so that a part is
/// never taken for it; a part that is there is gone on with, if a hash can tell whether it was one.
/// The holes of a sparse file, which are given as `ranges` with the file's size, are not fetched
/// and take no room.
pub(super) async fn into_file(
    rest: &Rest,
    path: String,
    file: &Path,
    holes: Option<&Value>,
    expected: &str,
) -> Result<Written> {
    let draft = file.with_added_extension("part");
    let unwritten = || format!("cannot write {}", draft.display());
    let mut places = holes.map(Places::read).transpose()?;
    let may_go_on = places.is_none() && !expected.is_empty();
    let mut context = digest::Context::new(&digest::SHA256);
    let mut options = OpenOptions::new();
    let options = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(!may_go_on);
    let mut drafted = options.open(&draft).with_context(unwritten)?;
    let mut size = 0;
    while let Some(read) = step(&mut drafted).with_context(unwritten)? {
        context.update(&read);
        size += read.len() as u64;
    }
    let is_whole = size > 0 && hex(context.clone().finish().as_ref()) == expected;
    let mut download = Download::new(rest, path.clone(), size, is_whole.then_some(0));
    let mut first = download.next().await;
    let is_refused = |error: &anyhow::Error| !Rest::is_lost(error) || error.is::<Changed>();
    if size > 0 && first.as_ref().is_err_and(is_refused) {
        // It was no part of this file.
        drafted.set_len(0).with_context(unwritten)?;
        drafted.rewind().with_context(unwritten)?;
        (context, size) = (digest::Context::new(&digest::SHA256), 0);
        download = Download::new(rest, path, 0, None);
        first = download.next().await;
    }
    let mut next = first?;
    while let Some(bytes) = next {
        context.update(&bytes);
        match &mut places {
            None => drafted.write_all(&bytes).with_context(unwritten)?,
            Some(places) => places
                .write(&mut drafted, size, &bytes)
                .with_context(unwritten)?,
        }
        size += bytes.len() as u64;
        next = download.next().await?;
    }
    if let Some(places) = &places {
        size = places.size;
        drafted.set_len(size).with_context(unwritten)?;
    }
    drafted.sync_all().with_context(unwritten)?;
    let sha256 = hex(context.finish().as_ref());
    if !expected.is_empty() && expected != sha256 {
        let wrong = file.with_added_extension("wrong");
        std::fs::rename(&draft, &wrong).with_context(unwritten)?;
        bail!(
            "{} has the hash {sha256} and not {expected}; it is kept as {}",
            file.display(),
            wrong.display()
        );
    }
    std::fs::rename(&draft, file)
        .with_context(|| format!("cannot rename {} to {}", draft.display(), file.display()))?;
    Ok(Written { size, sha256 })
}

/// Where the stored bytes of a sparse file belong.
pub(super) struct Places {
    size: u64,
    /// By (offset, stored offset, length).
    ranges: Vec<(u64, u64, u64)>,
}

impl Places {
    pub(super) fn read(said: &Value) -> Result<Self> {
        let odd = "the server's list of ranges cannot be read";
        let size = said.get("size").and_then(Value::as_u64).context(odd)?;
        let ranges = said.get("ranges").cloned().context(odd)?;
        let ranges = serde_json::from_value(ranges).context(odd)?;
        Ok(Self { size, ranges })
    }

    /// Writes bytes that are stored from `at` on to their places.
    pub(super) fn write(
        &self,
        file: &mut (impl Write + Seek),
        at: u64,
        bytes: &[u8],
    ) -> std::io::Result<()> {
        let end = at + bytes.len() as u64;
        for (offset, stored, length) in &self.ranges {
            let (first, last) = (at.max(*stored), end.min(stored.saturating_add(*length)));
            // Within the bytes: both are between `at` and `end`.
            if first < last
                && let Some(bytes) = bytes.get((first - at) as usize..(last - at) as usize)
            {
                file.seek(SeekFrom::Start(offset + (first - stored)))?;
                file.write_all(bytes)?;
            }
        }
        Ok(())
    }
}
