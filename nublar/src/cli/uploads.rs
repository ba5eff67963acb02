//! `uploads`: the list, and one file: saved, or looked at.

use super::OfFlow;
use super::download::{Download, into_file};
use super::flows::path;
use super::hex::Hex;
use super::output::{Output, number, text};
use super::rest::{Rest, escaped, read};
use super::table::{Table, shown};
use super::times::{size, time};
use anyhow::{Result, bail};
use reqwest::Method;
use serde_json::Value;
use std::path::{Path, PathBuf};

pub(super) async fn perform(
    rest: &Rest,
    out: &mut Output,
    of: &OfFlow,
    asked: super::Wanted,
) -> Result<()> {
    if asked.resume {
        return resume(rest, out, of, asked.timeout).await;
    }
    let Some(name) = asked.get else {
        return list(rest, out, of).await;
    };
    match asked.out {
        Some(file) => {
            let wanted = Wanted {
                file,
                pad: asked.pad,
                partial: asked.partial,
            };
            save(rest, out, of, &name, &wanted).await
        }
        None => {
            let bytes = Look {
                pad: asked.pad,
                offset: asked.offset,
                length: asked.length,
            };
            look(rest, out, of, &name, &bytes).await
        }
    }
}

async fn resume(rest: &Rest, out: &mut Output, of: &OfFlow, timeout: Option<u64>) -> Result<()> {
    let timeout = timeout.map(|seconds| format!("?timeout_s={seconds}"));
    let path = format!("{}/resume{}", path(of), timeout.unwrap_or_default());
    let answer = read(rest.send(rest.request(Method::POST, &path)).await?).await?;
    if out.json {
        return out.value(&answer);
    }
    let Some(uploads) = answer.get("uploads").and_then(Value::as_u64) else {
        return out.line(&format!(
            "the wish is on record, but the foreman has not answered yet; look again with: nublar flow {} {}",
            of.client, of.flow
        ));
    };
    let missing = size(number(&answer, "bytes"));
    out.line(&format!(
        "the agent is to go on with {uploads} uploads; {missing} are missing"
    ))?;
    match number(&answer, "left") {
        0 => Ok(()),
        left => out.line(&format!(
            "{left} more wait: resume again when these are done"
        )),
    }
}

async fn list(rest: &Rest, out: &mut Output, of: &OfFlow) -> Result<()> {
    let uploads = all(rest, of).await?;
    let mut table = Table::new([
        ">SIZE",
        ">STORED",
        "STATE",
        "MODIFIED",
        "SHA256",
        "AGENT SAYS",
        "PATH",
    ])
    .unbounded();
    for upload in &uploads {
        if out.json {
            out.value(upload)?;
            continue;
        }
        table.row([
            size(number(upload, "size")),
            size(number(upload, "stored")),
            state(upload),
            modified(upload),
            text(upload, "sha256"),
            text(upload, "verdict"),
            text(upload, "path"),
        ]);
    }
    out.listed(&table, "no uploads")
}

/// When the original was last changed.
fn modified(upload: &Value) -> String {
    time(upload.get("modified_us").and_then(Value::as_i64))
}

fn is_complete(upload: &Value) -> bool {
    upload.get("complete") == Some(&Value::Bool(true))
}

fn is_sparse(upload: &Value) -> bool {
    upload.get("sparse") == Some(&Value::Bool(true))
}

fn state(upload: &Value) -> String {
    let percent = upload.get("percent").and_then(Value::as_f64).unwrap_or(0.0);
    let note = if upload.get("replaced_by").is_some() {
        ", replaced"
    } else if upload.get("resumable") == Some(&Value::Bool(true)) {
        ", resumable"
    } else {
        ""
    };
    match (is_complete(upload), is_sparse(upload)) {
        (true, false) => "complete".to_owned(),
        (true, true) => "complete, sparse".to_owned(),
        (false, _) => format!("partial, {percent:.1} %{note}"),
    }
}

pub(super) async fn all(rest: &Rest, of: &OfFlow) -> Result<Vec<Value>> {
    const PAGE: usize = 500;
    let mut uploads = Vec::new();
    loop {
        let start = uploads.len();
        let page = rest
            .json(&format!("{}/uploads?start={start}&limit={PAGE}", path(of)))
            .await?;
        let page = page.as_array().cloned().unwrap_or_default();
        let last = page.len() < PAGE;
        uploads.extend(page);
        if last {
            return Ok(uploads);
        }
    }
}

/// Which file to save, and where.
pub(super) struct Wanted {
    pub(super) file: PathBuf,
    pub(super) pad: bool,
    pub(super) partial: bool,
}

/// Saves the upload of a flow that has this name.
async fn save(
    rest: &Rest,
    out: &mut Output,
    of: &OfFlow,
    name: &str,
    wanted: &Wanted,
) -> Result<()> {
    let uploads = all(rest, of).await?;
    fetch(rest, out, of, choose(&uploads, name)?, wanted).await
}

/// Saves an upload of a flow.
pub(super) async fn fetch(
    rest: &Rest,
    out: &mut Output,
    of: &OfFlow,
    upload: &Value,
    wanted: &Wanted,
) -> Result<()> {
    if !is_complete(upload) && !wanted.partial {
        bail!(
            "{} is {}: --partial saves what is there, with zeros for what is missing",
            shown(&text(upload, "path")),
            state(upload)
        );
    }
    let padded = wanted.pad && is_sparse(upload);
    let place = place(of, upload);
    if wanted.file == Path::new("-") {
        let place = format!("{place}?pad={padded}");
        let mut download = Download::new(rest, place, 0, None);
        while let Some(bytes) = download.next().await? {
            out.bytes(&bytes)?;
        }
        return Ok(());
    }
    let holes = if padded {
        Some(rest.json(&format!("{place}/ranges")).await?)
    } else {
        None
    };
    let expected = text(upload, "sha256");
    let written = into_file(rest, place, &wanted.file, holes.as_ref(), &expected).await?;
    if text(upload, "verdict") == "differs" {
        eprintln!(
            "nublar: the client reported the hash {}: this is not the file that it read",
            text(upload, "reported_sha256")
        );
    }
    if out.json {
        return out.document(&serde_json::json!({
            "name": text(upload, "name"),
            "path": text(upload, "path"),
            "file": wanted.file.display().to_string(),
            "size": written.size,
            "sha256": written.sha256,
            "verdict": upload.get("verdict"),
            "complete": is_complete(upload),
        }));
    }
    out.line(&format!(
        "{}: {}, sha256 {}{}",
        wanted.file.display(),
        size(written.size),
        written.sha256,
        match text(upload, "verdict").as_str() {
            "" => String::new(),
            verdict => format!(" ({verdict})"),
        }
    ))
}

/// Which bytes to look at.
struct Look {
    pad: bool,
    offset: u64,
    length: u64,
}

/// Prints some bytes of the upload of a flow that has this name.
async fn look(rest: &Rest, out: &mut Output, of: &OfFlow, name: &str, look: &Look) -> Result<()> {
    let uploads = all(rest, of).await?;
    let upload = choose(&uploads, name)?;
    let pad = look.pad && is_sparse(upload);
    let whole = if pad { "padded_size" } else { "stored" };
    if number(upload, whole) == 0 {
        eprintln!("nublar: {} has no bytes", shown(&text(upload, "path")));
        return Ok(());
    }
    let place = format!("{}?pad={pad}", place(of, upload));
    let mut download = Download::new(rest, place, look.offset, Some(look.length));
    let mut hex = Hex::new(look.offset);
    let mut whole = None;
    while let Some(bytes) = download.next().await? {
        whole = download.whole().or(whole);
        hex.write(out, &bytes)?;
    }
    hex.end(out)?;
    let end = look.offset.saturating_add(look.length);
    if !out.json && whole.is_some_and(|whole| whole > end) {
        let whole = whole.unwrap_or_default();
        eprintln!("nublar: {end} of {whole} bytes; --offset and --length show others");
    }
    Ok(())
}

pub(super) fn place(of: &OfFlow, upload: &Value) -> String {
    let upload = text(upload, "upload_id");
    format!("{}/uploads/{}", path(of), escaped(&upload))
}

/// The one upload that is meant.
pub(super) fn choose<'a>(uploads: &'a [Value], name: &str) -> Result<&'a Value> {
    for field in ["upload_id", "path", "name"] {
        let matching: Vec<&Value> = uploads
            .iter()
            .filter(|upload| text(upload, field) == name)
            .collect();
        // Half a sparse file whose plain form came after it is not what is meant.
        let whole = |upload: &&Value| upload.get("replaced_by").is_none();
        let whole: Vec<&Value> = matching.iter().copied().filter(whole).collect();
        let matching = if whole.is_empty() { matching } else { whole };
        match matching.as_slice() {
            [] => {}
            [one] => return Ok(one),
            several => {
                let ids: Vec<String> = several
                    .iter()
                    .map(|upload| {
                        let (id, path) = (text(upload, "upload_id"), text(upload, "path"));
                        let of = [modified(upload), path].join(" ");
                        format!("{id} ({})", of.trim_start())
                    })
                    .collect();
                bail!(
                    "{name} names {} uploads; give an upload id: {}",
                    several.len(),
                    ids.join(", ")
                );
            }
        }
    }
    let names: Vec<String> = uploads
        .iter()
        .take(20)
        .map(|upload| text(upload, "name"))
        .collect();
    if names.is_empty() {
        bail!("this flow has no uploads");
    }
    bail!("no upload {name}; there are: {}", names.join(", "))
}
