//! `flows`, `flow` and `cancel`.

use super::OfFlow;
use super::output::{Output, number, text};
use super::rest::{Rest, escaped, read};
use super::table::Table;
use super::times::{duration, size, time};
use anyhow::Result;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use std::process::ExitCode;

/// The path of a flow.
pub(super) fn path(of: &OfFlow) -> String {
    format!(
        "/clients/{}/flows/{}",
        escaped(&of.client),
        escaped(&of.flow)
    )
}

pub(super) async fn list(
    rest: &Rest,
    out: &mut Output,
    client: &str,
    limit: Option<usize>,
) -> Result<()> {
    let mut table = Table::new([
        "FLOW",
        "STATE",
        "ARTIFACTS",
        "CREATED",
        ">ROWS",
        ">FILES",
        ">BYTES",
        "BY",
        "STATUS",
    ]);
    let json = out.json;
    let path = format!("/clients/{}/flows", escaped(client));
    rest.pages(&path, "", "flows", limit, |flow| {
        if json {
            return out.value(&flow);
        }
        let named = |name: &str| text(&flow, name);
        table.row([
            named("flow_id"),
            named("state"),
            named("artifacts"),
            time(flow.get("create_time").and_then(Value::as_i64)),
            number(&flow, "total_collected_rows").to_string(),
            number(&flow, "total_uploaded_files").to_string(),
            size(number(&flow, "total_uploaded_bytes")),
            named("creator"),
            named("status"),
        ]);
        Ok(())
    })
    .await?;
    out.listed(&table, "this client has no flows yet")
}

pub(super) async fn show(rest: &Rest, out: &mut Output, of: &OfFlow) -> Result<()> {
    let flow = rest.json(&path(of)).await?;
    if out.json {
        return out.document(&flow);
    }
    print(out, &flow)
}

fn print(out: &mut Output, flow: &Value) -> Result<()> {
    let named = |name: &str| text(flow, name);
    let moment = |name: &str| flow.get(name).and_then(Value::as_i64);
    let reported = flow.get("reported").cloned().unwrap_or(Value::Null);
    let of = |stored: u64, reported: u64| {
        if reported > stored {
            format!("{stored} of {reported}")
        } else {
            stored.to_string()
        }
    };
    let took = moment("create_time").zip(moment("end_time"));
    out.fields(&[
        ("flow", named("flow_id")),
        ("client", named("client_id")),
        ("artifacts", named("artifacts")),
        ("state", named("state")),
        ("status", named("status")),
        ("asked by", named("creator")),
        ("created", time(moment("create_time"))),
        ("started", time(moment("start_time"))),
        ("ended", time(moment("end_time"))),
        // Microseconds below 2^53.
        (
            "took",
            took.map_or_else(String::new, |(from, to)| duration((to - from) as f64 / 1e6)),
        ),
        (
            "rows",
            of(
                number(flow, "total_collected_rows"),
                number(&reported, "rows"),
            ),
        ),
        ("log lines", number(flow, "total_logs").to_string()),
        (
            "files",
            of(
                number(flow, "total_uploaded_files"),
                number(&reported, "files"),
            ),
        ),
        ("bytes", size(number(flow, "total_uploaded_bytes"))),
        ("results", named("artifacts_with_results")),
        (
            "ran twice",
            if flow.get("ran_twice") == Some(&Value::Bool(true)) {
                "yes".to_owned()
            } else {
                String::new()
            },
        ),
        ("backtrace", named("backtrace")),
        ("uploads resumed", resumed(flow)),
    ])?;
    let queries = flow
        .get("query_stats")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    if queries.is_empty() {
        return Ok(());
    }
    let mut table = Table::new([
        ">QUERY", "STATUS", ">ROWS", ">LOGS", ">FILES", ">TOOK", "RESULTS", "ERROR",
    ]);
    for (place, query) in queries.iter().enumerate() {
        let took = query.get("duration").and_then(Value::as_f64).unwrap_or(0.0);
        table.row([
            (place + 1).to_string(),
            text(query, "status"),
            number(query, "result_rows").to_string(),
            number(query, "log_rows").to_string(),
            number(query, "uploaded_files").to_string(),
            duration(took / 1e9),
            text(query, "names_with_response"),
            text(query, "error_message"),
        ]);
    }
    out.line("")?;
    out.table(&table, "")
}

/// Whether somebody had the agent go on with uploads, and how far that is.
fn resumed(flow: &Value) -> String {
    let Some(resumed) = flow.get("resumed").filter(|resumed| resumed.is_object()) else {
        return String::new();
    };
    let error = text(resumed, "error");
    let reason = if error.is_empty() {
        error
    } else {
        format!(": {error}")
    };
    let at = time(resumed.get("at").and_then(Value::as_i64));
    format!(
        "{}, {} of them, asked by {} at {at}{reason}",
        text(resumed, "state"),
        number(resumed, "uploads"),
        text(resumed, "by"),
    )
}

pub(super) async fn cancel(rest: &Rest, out: &mut Output, of: &OfFlow) -> Result<ExitCode> {
    let request = rest.request(Method::POST, &format!("{}/cancel", path(of)));
    let response = rest.send(request).await?;
    let status = response.status();
    let answer = read(response).await?;
    if out.json {
        out.document(&answer)?;
    } else if status == StatusCode::ACCEPTED {
        out.line(&format!(
            "{}: the wish to cancel is on record, but the foreman has not answered yet; look again with: nublar flow {} {}",
            of.flow, of.client, of.flow
        ))?;
    } else {
        out.line(&format!("{} is cancelled", of.flow))?;
    }
    Ok(ExitCode::SUCCESS)
}
