//! `tools`: list, show, add, remove.

use super::Tools;
use super::output::{Output, text};
use super::rest::{Rest, escaped, read};
use super::table::{Table, shown};
use super::times::size;
use anyhow::{Context, Result, bail};
use aws_lc_rs::digest;
use bytes::Bytes;
use futures::stream;
use nublar_core::ids::hex;
use reqwest::header::CONTENT_LENGTH;
use reqwest::{Body, Method};
use serde_json::Value;
use std::fs::File;
use std::io::Read;
use std::path::Path;

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
    out.fields(&names.map(|name| (name, text(tool, name))))
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
        match step(&mut source) {
            Ok(step) if step.is_empty() => None,
            Ok(step) => Some((Ok(step), source)),
            Err(error) => Some((Err(error), source)),
        }
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

fn step(file: &mut File) -> std::io::Result<Bytes> {
    let mut step = vec![0; STEP];
    let read = file.read(&mut step)?;
    step.truncate(read);
    Ok(step.into())
}

/// SHA-256 in hex, and the length.
fn hash(file: &Path) -> std::io::Result<(String, u64)> {
    let mut file = File::open(file)?;
    let mut context = digest::Context::new(&digest::SHA256);
    let mut length = 0;
    loop {
        let step = step(&mut file)?;
        if step.is_empty() {
            break;
        }
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
