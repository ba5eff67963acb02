//! `clients`, `client` and `client rm`.

use super::output::{Output, text};
use super::rest::{Rest, escaped, read};
use super::table::{Table, shown};
use super::times::{duration, time};
use anyhow::{Result, bail};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

pub(super) async fn list(
    rest: &Rest,
    out: &mut Output,
    search: &[String],
    limit: Option<usize>,
) -> Result<()> {
    let query = format!("&q={}", escaped(&search_box(search)));
    let mut table = Table::new([
        "CLIENT",
        "HOSTNAME",
        "OS",
        "RELEASE",
        "LAST SEEN",
        "ADDRESS",
        "LABELS",
    ]);
    let json = out.json;
    rest.pages("/clients", &query, "clients", limit, |client| {
        if json {
            return out.value(&client);
        }
        let named = |name: &str| text(&client, name);
        table.row([
            named("client_id"),
            named("hostname"),
            named("os"),
            named("release"),
            time(client.get("last_seen_at").and_then(Value::as_i64)),
            named("last_ip"),
            named("labels"),
        ]);
        Ok(())
    })
    .await?;
    let when_empty = match search {
        [] => "no client has enrolled yet",
        _ => "no client matches",
    };
    out.listed(&table, when_empty)
}

/// The words as they stand in the box; one that the shell kept together stays together.
fn search_box(words: &[String]) -> String {
    let quoted = words.iter().map(|word| {
        if word.contains(char::is_whitespace) && !word.contains('"') && words.len() > 1 {
            format!("\"{word}\"")
        } else {
            word.clone()
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

pub(super) async fn show(rest: &Rest, out: &mut Output, client: &str) -> Result<()> {
    let found = rest.json(&format!("/clients/{}", escaped(client))).await?;
    if out.json {
        return out.document(&found);
    }
    let named = |name: &str| text(&found, name);
    let moment = |name: &str| time(found.get(name).and_then(Value::as_i64));
    out.fields(&[
        ("client", named("client_id")),
        ("hostname", named("hostname")),
        ("fqdn", named("fqdn")),
        ("os", named("os")),
        ("release", named("release")),
        (
            "platform",
            [named("platform"), named("platform_version")]
                .join(" ")
                .trim()
                .to_owned(),
        ),
        ("kernel", named("kernel_version")),
        ("architecture", named("architecture")),
        (
            "agent",
            [named("client_name"), named("client_version")]
                .join(" ")
                .trim()
                .to_owned(),
        ),
        ("built", named("build_time")),
        ("labels", named("labels")),
        ("address", address(&found)),
        ("before", before(&found)),
        ("mac addresses", named("mac_addresses")),
        ("first seen", moment("first_seen_at")),
        ("last seen", moment("last_seen_at")),
        ("clock", clock(&found)),
        ("interrogation", named("last_interrogate_flow_id")),
        ("conflict", conflict(&found)),
    ])
}

/// Where it is, and by whom it comes.
fn address(client: &Value) -> String {
    let (address, via) = (text(client, "last_ip"), text(client, "last_via"));
    match via.as_str() {
        "" => address,
        via => format!("{address} by {via}"),
    }
}

/// Where else it was lately, and when last.
fn before(client: &Value) -> String {
    let now = text(client, "last_ip");
    let seen = client.get("addresses").and_then(Value::as_array);
    let others = seen
        .map_or(&[][..], Vec::as_slice)
        .iter()
        .filter_map(|seen| {
            let address = text(seen, "address");
            let last = time(seen.get("last_seen_at").and_then(Value::as_i64));
            (address != now).then(|| format!("{address} until {last}"))
        });
    others.collect::<Vec<_>>().join(", ")
}

/// How far its clock is off, if it is by more than a minute.
fn clock(client: &Value) -> String {
    let skew_ms = client.get("clock_skew_ms").and_then(Value::as_i64);
    let skew_ms = skew_ms.unwrap_or(0);
    if skew_ms.abs() < 60_000 {
        return String::new();
    }
    // Far below 2^53.
    let off = duration((skew_ms.unsigned_abs() as f64 / 1_000.0).round());
    let way = if skew_ms > 0 { "ahead" } else { "behind" };
    format!("{off} {way}")
}

/// When agents of this client's key last took turns, and where they are.
fn conflict(client: &Value) -> String {
    let Some(conflict) = client
        .get("conflict")
        .filter(|conflict| conflict.is_object())
    else {
        return String::new();
    };
    let list = |name: &str| conflict.get(name).and_then(Value::as_array);
    let addresses = list("addresses").map_or(&[][..], Vec::as_slice);
    let addresses: Vec<_> = addresses.iter().map(|side| text(side, "address")).collect();
    let sessions = list("sessions").map_or(&[][..], Vec::as_slice);
    let sessions: String = sessions.iter().map(side).collect();
    format!(
        "a clone: agents of several machines have this key, last seen in turn {}, at {} (hosts: {}){sessions}",
        time(conflict.get("last").and_then(Value::as_i64)),
        addresses.join(", "),
        text(conflict, "hosts")
    )
}

/// One of the sessions that take turns.
fn side(session: &Value) -> String {
    let named = match text(session, "host") {
        host if host.is_empty() => "a machine that has not said its name".to_owned(),
        host => host,
    };
    let at = match text(session, "address") {
        // Its polls were refused: only what it sends is known.
        address if address.is_empty() => String::new(),
        address => format!(" at {address}"),
    };
    let name = text(session, "session");
    let last = time(session.get("last_seen_at").and_then(Value::as_i64));
    format!("; session {name} is {named}{at}, last {last}")
}

pub(super) async fn remove(
    rest: &Rest,
    out: &mut Output,
    client: &str,
    yes: bool,
) -> Result<ExitCode> {
    let path = format!("/clients/{}", escaped(client));
    if !yes {
        // Whoever is asked is shown whom it is about.
        let found = rest.json(&path).await?;
        if !confirmed(client, &shown(&text(&found, "hostname")))? {
            bail!("{client} is not deleted");
        }
    }
    let response = rest.send(rest.request(Method::DELETE, &path)).await?;
    let status = response.status();
    let answer = read(response).await?;
    if out.json {
        out.document(&answer)?;
    } else if status == StatusCode::ACCEPTED {
        out.line(&format!(
            "{client}: the wish to delete is on record, but it is not done yet; look again with: nublar client {client}"
        ))?;
    } else {
        out.line(&format!(
            "{client} is deleted; its agent enrols anew if it still runs"
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks on the terminal. Where there is none nobody can say yes.
fn confirmed(client: &str, hostname: &str) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("deleting {client} is to be confirmed: repeat it with --yes");
    }
    let host = match hostname {
        "" => String::new(),
        name => format!(" ({name})"),
    };
    eprint!("Delete {client}{host} with everything that was collected from it? [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
