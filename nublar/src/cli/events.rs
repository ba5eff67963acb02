//! `events`: which client events there are, their rows and log lines, and following them.

use super::OfEvents;
use super::output::{Output, number, text};
use super::rest::{Refused, Rest, escaped};
use super::results::{Format, Lines, copy, log_line, table_of};
use super::table::Table;
use super::times::time;
use anyhow::{Result, bail};
use serde_json::Value;
use std::fmt::Write as _;
use std::time::Duration;
use tokio::time::sleep;

const RETRY: Duration = Duration::from_secs(1);

pub(super) async fn perform(rest: &Rest, out: &mut Output, of: &OfEvents) -> Result<()> {
    match &of.artifact {
        None => list(rest, out, of).await,
        Some(name) if of.follow => follow(rest, out, of, name).await,
        Some(name) => print(rest, out, of, name).await,
    }
}

/// `since` and `until`, as they stand.
fn between(of: &OfEvents) -> String {
    let mut query = String::new();
    for (name, moment) in [("since", &of.since), ("until", &of.until)] {
        if let Some(moment) = moment {
            // Writing to a string cannot fail.
            let _ = write!(query, "&{name}={}", escaped(moment));
        }
    }
    query
}

fn of_session(of: &OfEvents) -> String {
    let session = of.session.as_deref();
    session.map_or_else(String::new, |name| format!("&session={}", escaped(name)))
}

fn path(of: &OfEvents, name: &str) -> String {
    format!("/clients/{}/events/{}", escaped(&of.client), escaped(name))
}

async fn list(rest: &Rest, out: &mut Output, of: &OfEvents) -> Result<()> {
    let query = between(of).replacen('&', "?", 1);
    let listed = rest
        .json(&format!("/clients/{}/events{query}", escaped(&of.client)))
        .await?;
    let mut table = Table::new(["EVENTS", ">ROWS", ">LOG LINES", "FIRST", "LAST"]);
    for events in listed.as_array().map_or(&[][..], Vec::as_slice) {
        if out.json {
            out.value(events)?;
            continue;
        }
        let moment = |name: &str| time(events.get(name).and_then(Value::as_i64));
        table.row([
            text(events, "name"),
            number(events, "rows").to_string(),
            number(events, "log_lines").to_string(),
            moment("first_us"),
            moment("last_us"),
        ]);
    }
    out.listed(&table, "this client has sent no events")
}

async fn print(rest: &Rest, out: &mut Output, of: &OfEvents, name: &str) -> Result<()> {
    let format = Format::or_usual(of.format, out);
    let written = format.asked();
    let mut place = format!(
        "{}?format={written}&logs={}{}{}",
        path(of, name),
        of.logs,
        between(of),
        of_session(of)
    );
    if let Some(limit) = of.limit {
        let _ = write!(place, "&limit={limit}");
    }
    let response = rest.stream(&place).await?;
    match format {
        Format::Jsonl | Format::Csv => copy(out, response).await,
        Format::Table if !of.logs => table_of(out, response).await,
        Format::Table => {
            let mut lines = Lines::new(response);
            while let Some(more) = lines.next().await? {
                for line in more {
                    print_log(out, &line)?;
                }
            }
            Ok(())
        }
    }
}

fn print_log(out: &mut Output, line: &str) -> Result<()> {
    let line = serde_json::from_str(line).unwrap_or_else(|_| Value::String(line.to_owned()));
    out.line(&log_line(&line))
}

/// Prints what arrives until the command is ended. A stream that breaks is taken up again where it
/// broke; a server that ends is waited for.
async fn follow(rest: &Rest, out: &mut Output, of: &OfEvents, name: &str) -> Result<()> {
    if matches!(of.format, Some(Format::Csv | Format::Table)) {
        bail!("--follow prints a JSON object a line: leave --format out");
    }
    let mut following = Following {
        logs: of.logs && !out.json && of.format.is_none(),
        place: None,
        heard: false,
    };
    let mut waiting = false;
    loop {
        let mut path = format!(
            "{}/watch?logs={}{}",
            path(of, name),
            of.logs,
            of_session(of)
        );
        if let Some(place) = &following.place {
            let _ = write!(path, "&after={}", escaped(place));
        }
        let broken = match rest.stream(&path).await {
            Ok(response) => {
                let told = following.tell(out, Lines::new(response)).await;
                out.flush()?;
                told
            }
            Err(error) => Err(error),
        };
        waiting &= !std::mem::take(&mut following.heard);
        match broken {
            // Only a server that was there once is waited for.
            Err(error) if following.place.is_none() || !passes(&error) => return Err(error),
            Err(error) if !waiting => {
                eprintln!("nublar: {error} (waiting)");
                waiting = true;
            }
            Ok(()) | Err(_) => {}
        }
        sleep(RETRY).await;
    }
}

/// Whether a server may get over an error.
fn passes(error: &anyhow::Error) -> bool {
    if error.downcast_ref::<Final>().is_some() || error.downcast_ref::<std::io::Error>().is_some() {
        return false;
    }
    let refused = error.downcast_ref::<Refused>();
    refused.is_none_or(|refused| refused.status.is_server_error())
}

/// The server has nothing more to tell.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Final(String);

/// Where we are.
struct Following {
    /// Log lines are printed for people.
    logs: bool,
    /// Behind the last event that was printed.
    place: Option<String>,
    /// Something was told since this was last looked at.
    heard: bool,
}

impl Following {
    /// Prints what a stream tells until it ends.
    async fn tell(&mut self, out: &mut Output, mut lines: Lines) -> Result<()> {
        let mut event = Event::default();
        while let Some(more) = lines.next().await? {
            for line in more {
                if event.add(&line) {
                    self.one(out, &std::mem::take(&mut event))?;
                }
            }
            out.flush()?;
        }
        Ok(())
    }

    fn one(&mut self, out: &mut Output, event: &Event) -> Result<()> {
        self.heard = true;
        match event.name.as_str() {
            "row" if self.logs => print_log(out, &event.data)?,
            "row" => out.line(&event.data)?,
            "missed" => eprintln!("nublar: {}", said(&event.data)),
            "broken" => return Err(Final(said(&event.data)).into()),
            _ => {}
        }
        if !event.id.is_empty() {
            self.place = Some(event.id.clone());
        }
        Ok(())
    }
}

/// What is wrong and what to do, in one line.
fn said(data: &str) -> String {
    let data: Value = serde_json::from_str(data).unwrap_or_default();
    format!("{}; {}", text(&data, "error"), text(&data, "what_to_do"))
}

/// A server-sent event.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) name: String,
    pub(super) id: String,
    pub(super) data: String,
}

impl Event {
    /// Takes a line of the stream; true when the event is whole.
    pub(super) fn add(&mut self, line: &str) -> bool {
        if line.is_empty() {
            return !self.name.is_empty();
        }
        if let Some((name, value)) = line.split_once(':') {
            let value = value.strip_prefix(' ').unwrap_or(value);
            match name {
                "event" => value.clone_into(&mut self.name),
                "id" => value.clone_into(&mut self.id),
                "data" => value.clone_into(&mut self.data),
                _ => {}
            }
        }
        false
    }
}
