//! `topics` and `dump`.

use super::output::{Output, number, text};
use super::rest::Rest;
use super::results::copy;
use super::table::Table;
use super::times::duration;
use anyhow::Result;
use serde_json::Value;

pub(super) async fn list(rest: &Rest, out: &mut Output) -> Result<()> {
    let topics = rest.json("/topics").await?;
    let mut table = Table::new([
        "TOPIC",
        ">PARTITIONS",
        ">RECORDS",
        "GROUP",
        ">LAG",
        ">OLDEST",
    ]);
    for topic in topics.as_array().map_or(&[][..], Vec::as_slice) {
        if out.json {
            out.value(topic)?;
            continue;
        }
        let groups = topic
            .get("groups")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let mut head = [
            text(topic, "name"),
            number(topic, "partitions").to_string(),
            number(topic, "end").to_string(),
        ];
        if groups.is_empty() {
            let [name, partitions, end] = head;
            table.row([
                name,
                partitions,
                end,
                String::new(),
                String::new(),
                String::new(),
            ]);
            continue;
        }
        for group in &groups {
            let [name, partitions, end] = std::mem::take(&mut head);
            let (lag, oldest) = if group.get("error").is_some() {
                ("?".to_owned(), text(group, "error"))
            } else {
                let oldest = group.get("oldest_unmarked_s").and_then(Value::as_f64);
                (
                    number(group, "lag").to_string(),
                    oldest.map(duration).unwrap_or_default(),
                )
            };
            table.row([name, partitions, end, text(group, "name"), lag, oldest]);
        }
    }
    out.listed(&table, "no topics")
}

pub(super) async fn dump(rest: &Rest, out: &mut Output) -> Result<()> {
    copy(out, rest.stream("/dump").await?).await
}
