//! `clients` and `client`.

use super::output::{Output, text};
use super::rest::{Rest, escaped};
use super::table::Table;
use super::times::time;
use anyhow::Result;
use serde_json::Value;

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
    match (json, search.is_empty()) {
        (true, _) => Ok(()),
        (false, true) => out.table(&table, "no client has enrolled yet"),
        (false, false) => out.table(&table, "no client matches"),
    }
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
        ("address", named("last_ip")),
        ("mac addresses", named("mac_addresses")),
        ("first seen", moment("first_seen_at")),
        ("last seen", moment("last_seen_at")),
        ("interrogation", named("last_interrogate_flow_id")),
    ])
}
