//! `results` and `logs`.

use super::OfFlow;
use super::flows::path;
use super::output::{Output, number, text};
use super::rest::{Rest, escaped, said};
use super::table::{Table, shown};
use super::times::time;
use anyhow::{Context, Result};
use clap::ValueEnum;
use reqwest::Response;
use serde_json::{Map, Value};

/// How many rows a table is aligned over.
const ALIGNED: usize = 1_000;

/// How to print rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A JSON object a line, as the client wrote it
    Jsonl,
    /// Comma-separated, with a head
    Csv,
    /// Aligned columns, long values cut
    Table,
}

impl Format {
    /// The one that was chosen, or what is usual there.
    pub(super) fn or_usual(chosen: Option<Self>, out: &Output) -> Self {
        chosen.unwrap_or(if out.json { Self::Jsonl } else { Self::Table })
    }

    /// What the server is asked for.
    pub(super) fn asked(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Jsonl | Self::Table => "jsonl",
        }
    }
}

/// Which rows to print, and how.
pub(super) struct Wanted {
    pub(super) name: Option<String>,
    pub(super) format: Option<Format>,
    pub(super) start: u64,
    pub(super) limit: Option<u64>,
}

pub(super) async fn print(
    rest: &Rest,
    out: &mut Output,
    of: &OfFlow,
    wanted: Wanted,
) -> Result<()> {
    let Some(name) = &wanted.name else {
        return list(rest, out, of).await;
    };
    let format = Format::or_usual(wanted.format, out);
    let written = format.asked();
    let limit = wanted
        .limit
        .map(|limit| format!("&limit={limit}"))
        .unwrap_or_default();
    let place = format!(
        "{}/results?name={}&format={written}&start={}{limit}",
        path(of),
        escaped(name),
        wanted.start
    );
    let response = rest.stream(&place).await?;
    if said(response.headers(), "x-nublar-ran-twice") == Some("true") {
        eprintln!(
            "nublar: the client ran this flow twice; rows of the second run are left out where they repeat"
        );
    }
    if format == Format::Table {
        table_of(out, response).await
    } else {
        copy(out, response).await
    }
}

async fn list(rest: &Rest, out: &mut Output, of: &OfFlow) -> Result<()> {
    let sets = rest.json(&format!("{}/results", path(of))).await?;
    let sets = sets.as_array().cloned().unwrap_or_default();
    let mut table = Table::new(["RESULTS", ">ROWS", "NOTE"]);
    for set in &sets {
        if out.json {
            out.value(set)?;
            continue;
        }
        let twice = set.get("ran_twice") == Some(&Value::Bool(true));
        let note = if twice { "ran twice" } else { "" };
        table.row([
            text(set, "name"),
            number(set, "rows").to_string(),
            note.to_owned(),
        ]);
    }
    out.listed(&table, "no rows")
}

/// Some rows of a result set; none of one that does not exist.
pub(super) async fn rows(
    rest: &Rest,
    of: &OfFlow,
    name: &str,
    start: u64,
    limit: u64,
) -> Result<Vec<Value>> {
    let place = format!(
        "{}/results?name={}&format=jsonl&start={start}&limit={limit}",
        path(of),
        escaped(name)
    );
    let mut lines = Lines::new(rest.stream(&place).await?);
    let mut rows = Vec::new();
    while let Some(more) = lines.next().await? {
        for line in more.iter().filter(|line| !line.is_empty()) {
            rows.push(serde_json::from_str(line).context("a row is no JSON")?);
        }
    }
    Ok(rows)
}

/// An answer as it comes.
pub(super) async fn copy(out: &mut Output, mut response: Response) -> Result<()> {
    while let Some(bytes) = response.chunk().await.context(CUT)? {
        out.bytes(&bytes)?;
    }
    Ok(())
}

pub(super) const CUT: &str = "the answer was cut off half-way; try again";

/// The lines of an answer.
pub(super) struct Lines {
    response: Response,
    buffer: Vec<u8>,
    over: bool,
}

impl Lines {
    pub(super) fn new(response: Response) -> Self {
        Self {
            response,
            buffer: Vec::new(),
            over: false,
        }
    }

    /// The next lines, some at a time; none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<String>>> {
        while !self.over {
            match self.response.chunk().await.context(CUT)? {
                Some(bytes) => self.buffer.extend_from_slice(&bytes),
                None => self.over = true,
            }
            let whole = if self.over {
                self.buffer.len()
            } else {
                self.buffer
                    .iter()
                    .rposition(|byte| *byte == b'\n')
                    .map_or(0, |place| place + 1)
            };
            if whole > 0 {
                let rest = self.buffer.split_off(whole);
                let lines = String::from_utf8_lossy(&self.buffer);
                let lines = lines.lines().map(str::to_owned).collect();
                self.buffer = rest;
                return Ok(Some(lines));
            }
        }
        Ok(None)
    }
}

/// Rows as tables, some at a time.
pub(super) async fn table_of(out: &mut Output, response: Response) -> Result<()> {
    let mut lines = Lines::new(response);
    let (mut block, mut any) = (Vec::new(), false);
    while let Some(more) = lines.next().await? {
        for line in more {
            block.push(serde_json::from_str(&line).unwrap_or(Value::String(line)));
            if block.len() == ALIGNED {
                out.table(&aligned(&std::mem::take(&mut block)), "")?;
                any = true;
            }
        }
    }
    if !block.is_empty() {
        return out.table(&aligned(&block), "");
    }
    if any { Ok(()) } else { out.line("no rows") }
}

/// Rows as a table whose columns are those of all of them.
pub(super) fn aligned(rows: &[Value]) -> Table {
    let empty = Map::new();
    let fields = |row: &Value| row.as_object().cloned().unwrap_or_else(|| empty.clone());
    let mut names: Vec<String> = Vec::new();
    let mut numeric: Vec<bool> = Vec::new();
    for row in rows {
        for (name, value) in fields(row) {
            let place = names
                .iter()
                .position(|known| *known == name)
                .unwrap_or_else(|| {
                    names.push(name.clone());
                    numeric.push(true);
                    names.len() - 1
                });
            if let Some(numeric) = numeric.get_mut(place) {
                *numeric &= value.is_number() || value.is_null();
            }
        }
    }
    let head = names.iter().zip(&numeric).map(|(name, numeric)| {
        if *numeric {
            format!(">{}", shown(name))
        } else {
            shown(name)
        }
    });
    let mut table = Table::new(head.collect::<Vec<_>>());
    for row in rows {
        let fields = fields(row);
        table.row(names.iter().map(|name| match fields.get(name) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        }));
    }
    table
}

pub(super) async fn logs(rest: &Rest, out: &mut Output, of: &OfFlow) -> Result<()> {
    let response = rest.stream(&format!("{}/logs", path(of))).await?;
    if out.json {
        return copy(out, response).await;
    }
    let mut lines = Lines::new(response);
    let mut any = false;
    while let Some(more) = lines.next().await? {
        for line in more {
            let line: Value = serde_json::from_str(&line).unwrap_or(Value::String(line));
            out.line(&log_line(&line))?;
            any = true;
        }
    }
    if any {
        Ok(())
    } else {
        out.line("no log lines")
    }
}

/// A log line for people.
pub(super) fn log_line(line: &Value) -> String {
    // Agents write whole seconds, some with a fraction; both are far below 2^53.
    let seconds = line
        .get("client_time")
        .and_then(Value::as_f64)
        .unwrap_or(0.0);
    let moment = time(Some((seconds * 1e6) as i64));
    let message = text(line, "message");
    format!(
        "{moment:20}  {:7}  {}",
        shown(&text(line, "level")),
        shown(message.trim_end())
    )
}
