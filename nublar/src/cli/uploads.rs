//! `uploads`: the list, and saving one file.

use super::OfFlow;
use super::flows::path;
use super::output::{Output, number, text};
use super::rest::{Rest, escaped};
use super::results::CUT;
use super::table::Table;
use super::times::size;
use anyhow::{Context, Result, bail};
use aws_lc_rs::digest;
use serde_json::Value;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

pub(super) async fn list(rest: &Rest, out: &mut Output, of: &OfFlow) -> Result<()> {
    let uploads = all(rest, of).await?;
    let mut table = Table::new([">SIZE", ">STORED", "STATE", "SHA256", "PATH"]).unbounded();
    for upload in &uploads {
        if out.json {
            out.value(upload)?;
            continue;
        }
        table.row([
            size(number(upload, "size")),
            size(number(upload, "stored")),
            state(upload),
            text(upload, "sha256"),
            text(upload, "path"),
        ]);
    }
    if out.json {
        Ok(())
    } else {
        out.table(&table, "no uploads")
    }
}

fn is_complete(upload: &Value) -> bool {
    upload.get("complete") == Some(&Value::Bool(true))
}

fn state(upload: &Value) -> String {
    let percent = upload.get("percent").and_then(Value::as_f64).unwrap_or(0.0);
    let sparse = upload.get("sparse") == Some(&Value::Bool(true));
    match (is_complete(upload), sparse) {
        (true, false) => "complete".to_owned(),
        (true, true) => "complete, sparse".to_owned(),
        (false, _) => format!("partial, {percent:.1} %"),
    }
}

async fn all(rest: &Rest, of: &OfFlow) -> Result<Vec<Value>> {
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
    pub(super) name: String,
    pub(super) file: PathBuf,
    pub(super) pad: bool,
    pub(super) partial: bool,
}

pub(super) async fn save(
    rest: &Rest,
    out: &mut Output,
    of: &OfFlow,
    wanted: &Wanted,
) -> Result<()> {
    let uploads = all(rest, of).await?;
    let upload = choose(&uploads, &wanted.name)?;
    if !is_complete(upload) && !wanted.partial {
        bail!(
            "{} is {}: --partial saves what is there, with zeros for what is missing",
            wanted.name,
            state(upload)
        );
    }
    let padded = wanted.pad && upload.get("sparse") == Some(&Value::Bool(true));
    let place = format!(
        "{}/uploads/{}?pad={padded}",
        path(of),
        escaped(&text(upload, "upload_id"))
    );
    let mut response = rest.stream(&place).await?;
    let mut context = digest::Context::new(&digest::SHA256);
    let mut written = 0u64;
    if wanted.file == Path::new("-") {
        while let Some(bytes) = response.chunk().await.context(CUT)? {
            out.bytes(&bytes)?;
        }
        return Ok(());
    }
    // A name of its own until it is whole, so that a part is never taken for the file.
    let draft = wanted.file.with_added_extension("part");
    let unwritten = || format!("cannot write {}", draft.display());
    let mut file = File::create(&draft).with_context(unwritten)?;
    while let Some(bytes) = response.chunk().await.context(CUT)? {
        file.write_all(&bytes).with_context(unwritten)?;
        context.update(&bytes);
        written += bytes.len() as u64;
    }
    file.sync_all().with_context(unwritten)?;
    let hash: String = context
        .finish()
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let expected = text(upload, "sha256");
    if !padded && !expected.is_empty() && expected != hash {
        bail!(
            "{} has the hash {hash} and not {expected}; it is kept as {}",
            wanted.name,
            draft.display()
        );
    }
    std::fs::rename(&draft, &wanted.file).with_context(|| {
        format!(
            "cannot rename {} to {}",
            draft.display(),
            wanted.file.display()
        )
    })?;
    if out.json {
        return out.document(&serde_json::json!({
            "name": text(upload, "name"),
            "path": text(upload, "path"),
            "file": wanted.file.display().to_string(),
            "size": written,
            "sha256": hash,
            "complete": is_complete(upload),
        }));
    }
    out.line(&format!(
        "{}: {}, sha256 {hash}",
        wanted.file.display(),
        size(written)
    ))
}

/// The one upload that is meant.
pub(super) fn choose<'a>(uploads: &'a [Value], name: &str) -> Result<&'a Value> {
    for field in ["upload_id", "path", "name"] {
        let matching: Vec<&Value> = uploads
            .iter()
            .filter(|upload| text(upload, field) == name)
            .collect();
        match matching.as_slice() {
            [] => {}
            [one] => return Ok(one),
            several => {
                let ids: Vec<String> = several
                    .iter()
                    .map(|upload| {
                        format!("{} ({})", text(upload, "upload_id"), text(upload, "path"))
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
