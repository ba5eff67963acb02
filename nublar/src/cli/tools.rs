//! `tools`: list, show, add, fetch, remove.

use super::Tools;
use super::output::{Output, items, text};
use super::rest::{Rest, download, escaped, read};
use super::table::{Table, shown};
use super::times::size;
use anyhow::{Context, Result, bail};
use aws_lc_rs::digest;
use bytes::Bytes;
use futures::stream;
use nublar_core::artifact::{file_name, is_http};
use nublar_core::ids::hex;
use nublar_core::tools::MOST;
use reqwest::header::CONTENT_LENGTH;
use reqwest::{Body, Method};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use tempfile::NamedTempFile;

/// What is read of a file at once, bytes.
const STEP: usize = 256 << 10;

pub(super) async fn perform(rest: &Rest, out: &mut Output, command: Tools) -> Result<()> {
    match command {
        Tools::List { .. } => list(rest, out).await,
        Tools::Show { name, version, .. } => {
            let tool = rest.json(&path(&name, &version)).await?;
            if out.json {
                return out.document(&tool);
            }
            describe(out, &tool)
        }
        Tools::Add {
            name,
            file,
            version,
            filename,
            ..
        } => add(rest, out, (&name, &version), &file, filename).await,
        Tools::Fetch {
            name,
            version,
            url,
            filename,
            ..
        } => fetch(rest, out, (&name, &version), url, filename).await,
        Tools::Remove { name, version, .. } => remove(rest, out, (&name, &version)).await,
    }
}

fn path(name: &str, version: &str) -> String {
    format!("/tools/{}?version={}", escaped(name), escaped(version))
}

async fn list(rest: &Rest, out: &mut Output) -> Result<()> {
    let tools = rest.json("/tools").await?;
    let mut table = Table::new(["TOOL", "VERSION", "STATE", ">SIZE", "SHA-256", "NEEDED BY"]);
    for tool in tools.as_array().map_or(&[][..], Vec::as_slice) {
        if out.json {
            out.value(tool)?;
            continue;
        }
        let bytes = tool.get("size").and_then(Value::as_u64);
        table.row([
            text(tool, "name"),
            text(tool, "version"),
            text(tool, "state"),
            bytes.map(size).unwrap_or_default(),
            text(tool, "sha256"),
            text(tool, "needed_by"),
        ]);
    }
    out.listed(&table, "there is no tool, and no artifact needs one")
}

fn describe(out: &mut Output, tool: &Value) -> Result<()> {
    let names = [
        "name",
        "version",
        "state",
        "sha256",
        "filename",
        "size",
        "urls",
        "needed_by",
    ];
    out.fields(&names.map(|name| (name, text(tool, name))))?;
    let mut table = Table::new(["ARTIFACT", "URL", "EXPECTED SHA-256", "PROBLEM"]).unbounded();
    for definition in items(tool, "definitions") {
        let names = ["artifact", "url", "expected_hash", "problem"];
        table.row(names.map(|name| text(definition, name)));
    }
    if table.is_empty() {
        return Ok(());
    }
    out.line("")?;
    out.table(&table, "")
}

/// Sends a file. The server is told its hash before, and takes nothing else for it.
async fn add(
    rest: &Rest,
    out: &mut Output,
    (name, version): (&str, &str),
    file: &Path,
    filename: Option<String>,
) -> Result<()> {
    let unreadable = || format!("cannot read {}", file.display());
    let (hash, length) = hash(file).with_context(unreadable)?;
    if length == 0 {
        bail!("{} is empty", file.display());
    }
    let own = file.file_name().map(|name| name.to_string_lossy());
    let filename = filename.or(own.map(|name| name.into_owned()));
    let path = format!(
        "{}&sha256={hash}&filename={}",
        path(name, version),
        escaped(&filename.unwrap_or_default())
    );
    let source = File::open(file).with_context(unreadable)?;
    let steps = stream::unfold(source, |mut source| async move {
        let step = step(&mut source).transpose()?;
        Some((step, source))
    });
    let rest = rest.unhurried()?;
    let request = rest.request(Method::PUT, &path);
    let request = request
        .header(CONTENT_LENGTH, length)
        .body(Body::wrap_stream(steps));
    let answer = read(rest.send(request).await?).await?;
    if out.json {
        return out.document(&answer);
    }
    if answer.get("sha256").is_none() {
        return out.line(&format!(
            "{name}: on record, but the foreman has not answered yet"
        ));
    }
    out.line(&format!(
        "{name} is added: {} bytes, SHA-256 {hash}",
        length
    ))
}

/// Downloads a tool from where artifacts say that it is, and adds it if it is what they expect.
async fn fetch(
    rest: &Rest,
    out: &mut Output,
    (name, version): (&str, &str),
    url: Option<String>,
    filename: Option<String>,
) -> Result<()> {
    let tool = rest.json(&path(name, version)).await?;
    let said = |what: &str| -> BTreeSet<String> {
        let definitions = items(&tool, "definitions").iter();
        let said = definitions.map(|definition| text(definition, what));
        said.filter(|text| !text.is_empty()).collect()
    };
    let urls: Vec<String> = url.map_or_else(|| said("url").into_iter().collect(), |url| vec![url]);
    let url = match urls.as_slice() {
        [url] if is_http(url) => url,
        [url] => bail!("{url} is no address for HTTP"),
        [] => bail!("no artifact says where {name} is: say it with --url"),
        _ => bail!(
            "artifacts say that {name} is in several places: choose one with --url: {}",
            urls.join(", ")
        ),
    };
    let mut response = download(url).await?;
    let mut file = NamedTempFile::new()?;
    let mut length = 0;
    let broken = || format!("{url} broke off");
    while let Some(bytes) = response.chunk().await.with_context(broken)? {
        length += bytes.len() as u64;
        if length > MOST {
            bail!("{url} has more than the {MOST} bytes that a tool may have");
        }
        file.write_all(&bytes)?;
    }
    let (found, _) = hash(file.path())?;
    let expected = said("expected_hash");
    if !expected
        .iter()
        .all(|hash| hash.eq_ignore_ascii_case(&found))
    {
        let expected: Vec<String> = expected.into_iter().collect();
        bail!(
            "{url} has the SHA-256 {found}, and artifacts expect {}: it is not added",
            expected.join(", ")
        );
    }
    if expected.is_empty() {
        eprintln!("warning: no artifact says which SHA-256 {name} has: compare it yourself");
    }
    let filename = filename.unwrap_or_else(|| file_name(url).to_owned());
    let filename = Some(filename).filter(|filename| !filename.is_empty());
    let filename = filename.unwrap_or_else(|| name.to_owned());
    add(rest, out, (name, version), file.path(), Some(filename)).await
}

/// The next bytes of a file, none at its end.
pub(super) fn step(file: &mut File) -> std::io::Result<Option<Bytes>> {
    let mut step = vec![0; STEP];
    let read = file.read(&mut step)?;
    step.truncate(read);
    Ok((read > 0).then(|| step.into()))
}

/// SHA-256 of a file in hex, and its length.
pub(super) fn hash(file: &Path) -> std::io::Result<(String, u64)> {
    let mut file = File::open(file)?;
    let mut context = digest::Context::new(&digest::SHA256);
    let mut length = 0;
    while let Some(step) = step(&mut file)? {
        length += step.len() as u64;
        context.update(&step);
    }
    Ok((hex(context.finish().as_ref()), length))
}

async fn remove(rest: &Rest, out: &mut Output, (name, version): (&str, &str)) -> Result<()> {
    let request = rest.request(Method::DELETE, &path(name, version));
    let answer = read(rest.send(request).await?).await?;
    if out.json {
        return out.document(&answer);
    }
    let done = match answer.get("removed").and_then(Value::as_bool) {
        Some(true) => "is removed",
        Some(false) => "was removed before",
        None => "on record, but the foreman has not answered yet",
    };
    out.line(&format!("{name} {done}"))?;
    let needed_by = text(&answer, "needed_by");
    if !needed_by.is_empty() {
        eprintln!("warning: needed by {}", shown(&needed_by));
    }
    Ok(())
}
