//! `dead-letters`: list, show, retry, drop.

use super::DeadLetters;
use super::hex::Hex;
use super::output::{Output, number, text};
use super::rest::{Rest, escaped, read};
use super::table::Table;
use super::times::{size, time};
use anyhow::{Result, bail};
use reqwest::Method;
use serde_json::Value;
use std::process::ExitCode;

/// How a copy is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum CopyFormat {
    /// Offsets, hex digits and what of it is ASCII
    Hex,
    /// What of it is printable text, line by line
    Text,
    /// The bytes as they are, to be saved
    Raw,
}

/// The shortest run of printable characters that counts as text.
const RUN: usize = 4;

pub(super) async fn perform(
    rest: &Rest,
    out: &mut Output,
    command: DeadLetters,
) -> Result<ExitCode> {
    match command {
        DeadLetters::List { client, limit, .. } => {
            list(rest, out, client.as_deref(), limit).await?;
        }
        DeadLetters::Show { id, copy, .. } => match copy {
            None => show(rest, out, &id).await?,
            Some(format) => print_copy(rest, out, &id, format).await?,
        },
        DeadLetters::Retry { ids, .. } => return each(rest, out, &ids, Method::POST).await,
        DeadLetters::Drop { ids, .. } => return each(rest, out, &ids, Method::DELETE).await,
    }
    Ok(ExitCode::SUCCESS)
}

fn moment(letter: &Value) -> String {
    time(letter.get("time").and_then(Value::as_i64))
}

/// Where the letter stood: `results/3/1207`; of one that never was in a topic, which may still have
/// been going to one, what is known.
fn place(letter: &Value) -> String {
    let topic = text(letter, "topic");
    match letter.get("offset").and_then(Value::as_u64) {
        Some(offset) => format!("{topic}/{}/{offset}", number(letter, "partition")),
        None => topic,
    }
}

async fn list(
    rest: &Rest,
    out: &mut Output,
    client: Option<&str>,
    limit: Option<usize>,
) -> Result<()> {
    let query = client.map_or_else(String::new, |client| format!("&client={}", escaped(client)));
    let mut table = Table::new([
        "ID", "TIME", "CLIENT", "REASON", "TOPIC", ">TRIED", ">SIZE", "TEXT",
    ]);
    rest.pages("/dead-letters", &query, "letters", limit, |letter| {
        if out.json {
            return out.value(&letter);
        }
        table.row([
            text(&letter, "id"),
            moment(&letter),
            text(&letter, "client_id"),
            text(&letter, "reason"),
            place(&letter),
            number(&letter, "attempts").to_string(),
            size(number(&letter, "size")),
            text(&letter, "text"),
        ]);
        Ok(())
    })
    .await?;
    out.listed(&table, "no dead letters")
}

async fn show(rest: &Rest, out: &mut Output, id: &str) -> Result<()> {
    let letter = rest.json(&format!("/dead-letters/{}", escaped(id))).await?;
    if out.json {
        return out.document(&letter);
    }
    let retry = match text(&letter, "not_to_be_retried") {
        no if no.is_empty() => format!("nublar dead-letters retry {}", text(&letter, "id")),
        no => format!("no: {no}"),
    };
    out.fields(&[
        ("letter", text(&letter, "id")),
        ("time", moment(&letter)),
        ("reason", text(&letter, "reason")),
        ("text", text(&letter, "text")),
        ("client", text(&letter, "client_id")),
        ("generation", text(&letter, "generation")),
        ("process", text(&letter, "frontend")),
        ("topic", place(&letter)),
        ("state", text(&letter, "state")),
        ("tried", number(&letter, "attempts").to_string()),
        ("copy", size(number(&letter, "size"))),
        ("retry", retry),
    ])?;
    let messages = letter.get("messages").and_then(Value::as_array);
    for message in messages.map_or(&[][..], Vec::as_slice) {
        out.fields(&[(
            "message",
            format!(
                "{} of session {}, {}",
                text(message, "kind"),
                text(message, "session"),
                size(number(message, "size"))
            ),
        )])?;
    }
    Ok(())
}

async fn print_copy(rest: &Rest, out: &mut Output, id: &str, format: CopyFormat) -> Result<()> {
    let answer = rest
        .stream(&format!("/dead-letters/{}/copy", escaped(id)))
        .await?;
    let copy = answer.bytes().await?;
    match format {
        CopyFormat::Raw => out.bytes(&copy),
        CopyFormat::Hex => {
            let mut hex = Hex::new(0);
            hex.write(out, &copy)?;
            hex.end(out)
        }
        CopyFormat::Text => out.bytes(runs(&copy).as_bytes()),
    }
}

/// The runs of printable characters, one a line.
pub(super) fn runs(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let harmless =
        |character: char| !character.is_control() && character != char::REPLACEMENT_CHARACTER;
    let runs = text.split(|character| !harmless(character));
    let mut out = String::new();
    for run in runs.filter(|run| run.chars().count() >= RUN) {
        out.push_str(&super::table::shown(run));
        out.push('\n');
    }
    out
}

/// Retries or drops letters, as many of them as can be.
async fn each(rest: &Rest, out: &mut Output, ids: &[String], method: Method) -> Result<ExitCode> {
    let mut failed = 0;
    for id in ids {
        let place = match method {
            Method::DELETE => format!("/dead-letters/{}", escaped(id)),
            _ => format!("/dead-letters/{}/retry", escaped(id)),
        };
        let done = async { read(rest.send(rest.request(method.clone(), &place)).await?).await };
        match done.await {
            Ok(done) if out.json => out.value(&done)?,
            Ok(_) if method == Method::DELETE => out.line(&format!("{id} is dropped"))?,
            Ok(done) => out.line(&format!("{id} stands in {} again", text(&done, "topic")))?,
            Err(error) if ids.len() == 1 => return Err(error),
            Err(error) => {
                eprintln!("nublar: {id}: {error}");
                failed += 1;
            }
        }
    }
    if failed > 0 {
        bail!("{failed} of {} letters are as they were", ids.len());
    }
    Ok(ExitCode::SUCCESS)
}
