//! `collect`: a wish, and waiting for its end.

use super::Wish;
use super::output::{Output, is_watched, number, text};
use super::rest::{Rest, escaped, read};
use super::results::Lines;
use super::table::shown;
use super::times::{duration, size};
use anyhow::{Result, bail};
use aws_lc_rs::rand;
use nublar_core::ids::hex;
use reqwest::Method;
use serde_json::{Map, Value, json};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

const RETRY: Duration = Duration::from_secs(1);
/// How often a server that does not answer is tried again.
const TRIES: u32 = 5;

pub(super) async fn collect(rest: &Rest, out: &mut Output, wish: Wish) -> Result<ExitCode> {
    let body = body(&wish)?;
    let answer = send(rest, &wish.client, &body).await?;
    let flow = text(&answer, "flow_id");
    let Some(seconds) = wish.wait else {
        if out.json {
            out.document(&answer)?;
        } else {
            out.line(&format!(
                "{flow}: collecting {} from {}",
                text(&answer, "artifacts"),
                wish.client
            ))?;
            out.line(&format!(
                "watch it with: nublar flow {} {flow}",
                wish.client
            ))?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    if !out.json {
        eprintln!(
            "{flow}: collecting {} from {}",
            text(&answer, "artifacts"),
            wish.client
        );
    }
    let within = (seconds > 0).then(|| Duration::from_secs(seconds));
    let flow = ended(rest, &wish.client, &flow, within, out.json).await?;
    let finished = text(&flow, "state") == "FINISHED";
    if out.json {
        out.document(&flow)?;
    } else {
        report(out, &wish.client, &flow, finished)?;
    }
    Ok(if finished {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Waits for a flow's end, and shows meanwhile how far it is unless it is to be quiet.
pub(super) async fn ended(
    rest: &Rest,
    client: &str,
    flow: &str,
    within: Option<Duration>,
    quiet: bool,
) -> Result<Value> {
    let path = format!("/clients/{}/flows/{flow}", escaped(client));
    let mut progress = Progress {
        quiet,
        shown: String::new(),
        begun: Instant::now(),
    };
    let watching = watch(rest, &path, &mut progress);
    let ended = match within {
        None => watching.await,
        Some(within) => match timeout(within, watching).await {
            Ok(ended) => ended,
            Err(_) => {
                progress.over();
                bail!(
                    "{flow} has not ended within {} s; it goes on, watch it with: nublar flow {client} {flow}",
                    within.as_secs()
                );
            }
        },
    };
    progress.over();
    ended
}

fn report(out: &mut Output, client: &str, flow: &Value, finished: bool) -> Result<()> {
    let id = text(flow, "flow_id");
    if !finished {
        eprintln!("nublar: {id} failed: {}", shown(&text(flow, "status")));
    }
    out.line(&format!("{id}  {}  {}", text(flow, "state"), counts(flow)))?;
    let names = flow.get("artifacts_with_results").and_then(Value::as_array);
    for name in names.into_iter().flatten().filter_map(Value::as_str) {
        out.line(&format!("  nublar results {client} {id} {}", shown(name)))?;
    }
    if number(flow, "total_uploaded_files") > 0 {
        out.line(&format!("  nublar uploads {client} {id}"))?;
    }
    Ok(())
}

/// What a flow has brought so far.
fn counts(flow: &Value) -> String {
    let many = |count: u64, what: &str| match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    };
    let mut counts = vec![many(number(flow, "total_collected_rows"), "row")];
    let files = number(flow, "total_uploaded_files");
    let bytes = number(flow, "total_uploaded_bytes");
    if files > 0 || bytes > 0 {
        counts.push(format!("{} ({})", many(files, "file"), size(bytes)));
    }
    counts.push(many(number(flow, "total_logs"), "log line"));
    counts.join(", ")
}

/// A flow in one line.
pub(super) fn summary(flow: &Value) -> String {
    let status = shown(&text(flow, "status"));
    let colon = if status.is_empty() { "" } else { ": " };
    format!("{}{colon}{status} ({})", text(flow, "state"), counts(flow))
}

/// What `--param` says, each name once.
pub(super) fn parameters(given: &[String]) -> Result<Map<String, Value>> {
    let mut parameters = Map::new();
    for parameter in given {
        let Some((name, value)) = parameter
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
        else {
            bail!("--param {parameter} is not NAME=VALUE");
        };
        if parameters.insert(name.to_owned(), json!(value)).is_some() {
            bail!("--param {name} is given twice");
        }
    }
    Ok(parameters)
}

/// The wish as the API has it.
pub(super) fn body(wish: &Wish) -> Result<Value> {
    let mut body = json!({
        "artifacts": wish.artifacts,
        "parameters": parameters(&wish.parameters)?,
        "urgent": wish.urgent,
    });
    let limits = [
        ("timeout", wish.timeout),
        ("max_rows", wish.max_rows),
        ("max_upload_bytes", wish.max_upload_bytes),
        ("deadline_s", wish.deadline),
    ];
    if let Some(fields) = body.as_object_mut() {
        let set = limits
            .into_iter()
            .filter_map(|(name, limit)| Some((name.to_owned(), json!(limit?))));
        fields.extend(set);
    }
    Ok(body)
}

/// Tells the server, again if the answer got lost: under one key it makes one flow.
pub(super) async fn send(rest: &Rest, client: &str, body: &Value) -> Result<Value> {
    let mut key = [0; 16];
    if rand::fill(&mut key).is_err() {
        bail!("the system gives no random bytes");
    }
    let key = hex(&key);
    let path = format!("/clients/{}/flows", escaped(client));
    let mut tries = 1;
    loop {
        let request = rest
            .request(Method::POST, &path)
            .header("idempotency-key", &key)
            .json(body);
        let sent = match rest.send(request).await {
            Ok(response) => read(response).await,
            Err(error) => Err(error),
        };
        match sent {
            Err(error) if Rest::is_lost(&error) && tries < TRIES => {
                tries += 1;
                sleep(RETRY).await;
            }
            sent => return sent,
        }
    }
}

/// The flow as it ends. A stream that breaks is taken up again.
async fn watch(rest: &Rest, path: &str, progress: &mut Progress) -> Result<Value> {
    let mut failures = 0;
    loop {
        match events(rest, path, progress, &mut failures).await {
            Ok(Some(flow)) => return Ok(flow),
            Ok(None) => {}
            Err(error) if !Rest::is_lost(&error) => return Err(error),
            Err(error) if failures >= TRIES => return Err(error),
            Err(_) => {}
        }
        failures += 1;
        sleep(RETRY).await;
    }
}

async fn events(
    rest: &Rest,
    path: &str,
    progress: &mut Progress,
    failures: &mut u32,
) -> Result<Option<Value>> {
    let mut lines = Lines::new(rest.stream(&format!("{path}/watch")).await?);
    let mut name = String::new();
    while let Some(more) = lines.next().await? {
        for line in more {
            if let Some(event) = line.strip_prefix("event:") {
                event.trim().clone_into(&mut name);
            } else if let Some(data) = line.strip_prefix("data:") {
                let flow: Value = serde_json::from_str(data.trim())?;
                *failures = 0;
                progress.show(&flow);
                if name == "end" {
                    return Ok(Some(flow));
                }
            }
        }
    }
    Ok(None)
}

/// What a person sees while waiting.
struct Progress {
    quiet: bool,
    shown: String,
    begun: Instant,
}

impl Progress {
    fn show(&mut self, flow: &Value) {
        let line = summary(flow);
        if self.quiet || line == self.shown {
            return;
        }
        let elapsed = duration(self.begun.elapsed().as_secs_f64());
        if is_watched() {
            // One line that changes.
            eprint!("\r\x1b[K{elapsed:>8}  {line}");
        } else {
            eprintln!("{elapsed:>8}  {line}");
        }
        self.shown = line;
    }

    /// Ends the line that changes.
    fn over(&self) {
        if !self.quiet && !self.shown.is_empty() && is_watched() {
            eprintln!();
        }
    }
}
