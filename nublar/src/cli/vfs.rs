//! `vfs`: the files of a client as a browser shows them. A directory is its newest listing, a file
//! its newest upload; either is collected anew when there is none, or when that is asked for.

use super::OfFlow;
use super::collect::{ended, send};
use super::output::{Output, number, text};
use super::rest::{Rest, escaped};
use super::results::rows;
use super::table::{Table, shown};
use super::target::Target;
use super::times::{size, time};
use super::uploads::{self, all, fetch};
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::path::PathBuf;

const LIST: &str = "System.VFS.ListDirectory";
const FETCH: &str = "System.VFS.DownloadFile";
/// How many of the client's newest flows are looked through for what is asked for.
const FLOWS: usize = 2_000;

/// A client's files.
#[derive(Debug, Subcommand)]
pub(crate) enum Vfs {
    /// List a directory: its newest listing, or a new one if there is none
    Ls {
        #[command(flatten)]
        of: OfFile,
    },
    /// Save a file: its newest upload, or a new one if there is none
    Get {
        #[command(flatten)]
        of: OfFile,
        /// Where to save it; - is standard output
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Write the holes of a sparse file as zeros
        #[arg(long, conflicts_with = "compact")]
        pad: bool,
        /// Leave the holes of a sparse file out, as it is stored; the default
        #[arg(long)]
        compact: bool,
    },
}

/// A file or directory of a client.
#[derive(Debug, Args)]
pub(crate) struct OfFile {
    #[command(flatten)]
    pub(super) target: Target,
    /// The client, C.…
    client: String,
    /// The path on the client, as its system writes it
    path: String,
    /// How the client reads it, for example file, ntfs or registry
    #[arg(long, value_name = "NAME", default_value = "auto")]
    accessor: String,
    /// Ask the client again, whatever is stored
    #[arg(long)]
    refresh: bool,
}

impl Vfs {
    pub(super) fn target(&self) -> &Target {
        match self {
            Self::Ls { of } | Self::Get { of, .. } => &of.target,
        }
    }
}

pub(super) async fn perform(rest: &Rest, out: &mut Output, command: Vfs) -> Result<()> {
    match command {
        Vfs::Ls { of } => list(rest, out, &of).await,
        Vfs::Get {
            of, out: file, pad, ..
        } => {
            let partial = false;
            get(rest, out, &of, &uploads::Wanted { file, pad, partial }).await
        }
    }
}

/// A directory within the rows of a listing.
struct Listing {
    flow: OfFlow,
    start: u64,
    end: u64,
}

async fn list(rest: &Rest, out: &mut Output, of: &OfFile) -> Result<()> {
    let mut listing = None;
    if !of.refresh {
        for flow in newest(rest, of, LIST, |_| true).await? {
            listing = directory(rest, of, &flow, false).await?;
            if listing.is_some() {
                told(&flow, "listed");
                break;
            }
        }
    }
    let listing = match listing {
        Some(listing) => listing,
        None => {
            let flow = collected(rest, of, LIST, out.json).await?;
            directory(rest, of, &flow, true).await?.with_context(|| {
                format!(
                    "the client lists nothing at {}: is it a directory?",
                    of.path
                )
            })?
        }
    };
    let Listing { flow, start, end } = &listing;
    let limit = end.saturating_sub(*start);
    let name = format!("{LIST}/Listing");
    let rows = rows(rest, flow, &name, *start, limit).await?;
    let mut table = Table::new(["MODE", ">SIZE", "MODIFIED", "NAME"]).unbounded();
    for row in &rows {
        if out.json {
            out.value(row)?;
            continue;
        }
        let is_directory = text(row, "Mode").starts_with('d');
        let bytes = if is_directory {
            String::new()
        } else {
            size(number(row, "Size"))
        };
        table.row([
            text(row, "Mode"),
            bytes,
            text(row, "mtime"),
            text(row, "Name"),
        ]);
    }
    out.listed(&table, "the directory is empty")
}

/// Where a listing has the directory; of a new one that which everything else is below.
async fn directory(
    rest: &Rest,
    of: &OfFile,
    flow: &Value,
    is_new: bool,
) -> Result<Option<Listing>> {
    let flow = of_flow(of, flow);
    let stats = rows(rest, &flow, &format!("{LIST}/Stats"), 0, u64::MAX).await?;
    let place = within(&stats, &parts(&of.path), is_new);
    Ok(place.map(|(start, end)| Listing { flow, start, end }))
}

/// The rows of a directory among those of its listing, from one to another.
pub(super) fn within(stats: &[Value], wanted: &[String], is_new: bool) -> Option<(u64, u64)> {
    let components = |row: &Value| -> Vec<String> {
        let list = row.get("Components").and_then(Value::as_array);
        let names = list.into_iter().flatten().filter_map(Value::as_str);
        names
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let exact = stats.iter().find(|row| components(row) == wanted);
    // The client may know the directory under another name, for example that of a device.
    let top = || stats.iter().min_by_key(|row| components(row).len());
    let row = exact.or_else(|| if is_new { top() } else { None })?;
    let stats = row.get("Stats").filter(|stats| stats.is_object());
    let stats = stats.unwrap_or(row).as_object()?;
    let field = |wanted: &str| {
        let mut fields = stats.iter();
        fields
            .find(|(name, _)| name.replace('_', "").eq_ignore_ascii_case(wanted))
            .and_then(|(_, value)| value.as_u64())
            .unwrap_or(0)
    };
    Some((field("startidx"), field("endidx")))
}

/// The names of a path from the top, of either kind of system.
pub(super) fn parts(path: &str) -> Vec<String> {
    let drive = path.as_bytes().get(1) == Some(&b':');
    let separators: &[char] = if drive || path.contains('\\') && !path.starts_with('/') {
        &['/', '\\']
    } else {
        &['/']
    };
    path.split(separators)
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect()
}

async fn get(rest: &Rest, out: &mut Output, of: &OfFile, wanted: &uploads::Wanted) -> Result<()> {
    if !of.refresh {
        let same = |parameters: &Value| text(parameters, "Path") == of.path;
        for flow in newest(rest, of, FETCH, same).await? {
            let place = of_flow(of, &flow);
            let uploads = all(rest, &place).await?;
            let complete = |upload: &&Value| upload.get("complete") == Some(&Value::Bool(true));
            if let Some(upload) = uploads.iter().find(complete) {
                told(&flow, "fetched");
                return fetch(rest, out, &place, upload, wanted).await;
            }
        }
    }
    let flow = collected(rest, of, FETCH, out.json).await?;
    let place = of_flow(of, &flow);
    let uploads = all(rest, &place).await?;
    let path = &of.path;
    let upload = match uploads.as_slice() {
        [] => {
            let rows = rows(rest, &place, FETCH, 0, 1).await?;
            let error = rows.first().map(|row| text(row, "Error"));
            match error.filter(|error| !error.is_empty()) {
                Some(error) => bail!("the client cannot read {path}: {}", shown(&error)),
                None => bail!("the client finds no file at {path}"),
            }
        }
        [upload] => upload,
        _ => uploads::choose(&uploads, path)?,
    };
    fetch(rest, out, &place, upload, wanted).await
}

fn of_flow(of: &OfFile, flow: &Value) -> OfFlow {
    OfFlow {
        target: of.target.clone(),
        client: of.client.clone(),
        flow: text(flow, "flow_id"),
    }
}

/// Says of when what is shown is.
fn told(flow: &Value, what: &str) {
    let at = time(flow.get("end_time").and_then(Value::as_i64));
    let id = text(flow, "flow_id");
    eprintln!("nublar: {what} at {at} in {id}; --refresh asks the client again");
}

/// The client's finished flows of an artifact with this accessor, newest first, whose parameters
/// are as wanted.
async fn newest(
    rest: &Rest,
    of: &OfFile,
    artifact: &str,
    wanted: impl Fn(&Value) -> bool,
) -> Result<Vec<Value>> {
    let mut flows = Vec::new();
    let path = format!("/clients/{}/flows", escaped(&of.client));
    rest.pages(&path, "", "flows", Some(FLOWS), |flow| {
        let finished = text(&flow, "state") == "FINISHED";
        if finished
            && parameters(&flow, artifact).is_some_and(|parameters| {
                let accessor = text(parameters, "Accessor");
                let accessor = if accessor.is_empty() {
                    "auto"
                } else {
                    &accessor
                };
                accessor == of.accessor && wanted(parameters)
            })
        {
            flows.push(flow);
        }
        Ok(())
    })
    .await?;
    Ok(flows)
}

/// What a flow gives an artifact.
fn parameters<'a>(flow: &'a Value, artifact: &str) -> Option<&'a Value> {
    let artifacts = flow.get("request")?.get("artifacts")?.as_array()?;
    let asked = artifacts
        .iter()
        .find(|asked| text(asked, "name") == artifact)?;
    asked.get("parameters")
}

/// Asks the client and waits for what it says.
async fn collected(rest: &Rest, of: &OfFile, artifact: &str, quiet: bool) -> Result<Value> {
    let body = json!({
        "artifacts": [artifact],
        "parameters": { "Path": of.path, "Accessor": of.accessor },
        "urgent": true,
    });
    let answer = send(rest, &of.client, &body).await?;
    let id = text(&answer, "flow_id");
    let flow = ended(rest, &of.client, &id, None, quiet).await?;
    if text(&flow, "state") != "FINISHED" {
        bail!("{id} failed: {}", shown(&text(&flow, "status")));
    }
    Ok(flow)
}
