//! Client events: where they are, and their rows and log lines.

use super::lines::{self, Block};
use super::{Piece, documents};
use crate::app::App;
use crate::refusal::{Answer, Refusal};
use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use nublar_core::ingest::{EVENT_LOGS, EVENT_ROWS};
use nublar_ports::index::{Collection, Query};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny};
use serde_json::json;
use std::sync::Arc;

/// How many bodies are read at once; most have some KiB, none more than a few MiB.
const READ: usize = 32;

/// What of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    Rows,
    Logs,
}

impl Told {
    /// The text that marks its documents.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Rows => EVENT_ROWS,
            Self::Logs => EVENT_LOGS,
        }
    }
}

/// The events of one name of a client.
#[derive(Debug, Clone)]
pub(crate) struct Events {
    pub(crate) client: String,
    /// What the client is called in documents.
    pub(crate) name: String,
    /// `Artifact` or `Artifact/Source`.
    pub(crate) source: String,
    pub(crate) told: Told,
    /// Agent times, microseconds: from, to (excluded).
    pub(crate) times: Option<(i64, i64)>,
}

impl Events {
    pub(crate) fn query(&self) -> Query {
        Query {
            client: Some(self.name.clone()),
            source: Some(self.source.clone()),
            words: vec![self.told.text().to_owned()],
            order: self.times,
            ..Query::default()
        }
    }

    /// The lines of a message of these events; none when it tells of something else.
    pub(crate) fn lines(&self, body: &Bytes) -> Answer<Block> {
        let message = lines::message(body)?;
        if self.told == Told::Logs {
            return Ok(message.log_message.map(lines::logs).unwrap_or_default());
        }
        let Some(response) = message.vql_response else {
            return Ok(Block::default());
        };
        let tags = Tags {
            client: &self.client,
            source: &self.source,
            at_us: response.timestamp,
        };
        let rows = lines::rows(response)?;
        Ok(rows.map(|line, out| tags.add(line, out)))
    }
}

/// The stored lines, by (order, id), at most so many.
pub(crate) fn event_lines(
    app: Arc<App>,
    events: Events,
    limit: u64,
) -> impl Stream<Item = Answer<(Piece, Block)>> + Send {
    let query = Query {
        limit: READ,
        ..events.query()
    };
    let found = Box::pin(documents(app, Collection::Events, query));
    futures::stream::try_unfold((found, limit), move |(mut found, left)| {
        let events = events.clone();
        async move {
            if left == 0 {
                return Ok(None);
            }
            let Some(document) = found.try_next().await? else {
                return Ok(None);
            };
            let block = events.lines(&document.body)?;
            let take = left.min(block.lines(0, left).count() as u64);
            let piece = Piece {
                id: document.id,
                order: document.order,
                skip: 0,
                take,
            };
            Ok::<_, Refusal>(Some(((piece, block), (found, left - take))))
        }
    })
}

/// What every row of an event has.
struct Tags<'a> {
    client: &'a str,
    source: &'a str,
    at_us: u64,
}

/// Which of them the agent has set.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Has {
    #[serde(rename = "ClientId", deserialize_with = "present")]
    client: bool,
    #[serde(rename = "_ts", deserialize_with = "present")]
    time: bool,
    #[serde(rename = "_Source", deserialize_with = "present")]
    source: bool,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

impl Tags<'_> {
    /// The row with what it lacks added at its end. What is no object stays as it is.
    fn add(&self, line: &str, out: &mut String) {
        const BLANKS: [char; 3] = [' ', '\t', '\r'];
        let row = line.trim_matches(BLANKS);
        let inner = row.strip_prefix('{').and_then(|row| row.strip_suffix('}'));
        let has = serde_json::from_str::<Has>(row);
        let (Some(inner), Ok(has)) = (inner, has) else {
            out.push_str(line);
            return;
        };
        let mut between = if inner.trim_matches(BLANKS).is_empty() {
            ""
        } else {
            ","
        };
        out.push('{');
        out.push_str(inner);
        let mut add = |name: &str, value: String| {
            out.push_str(between);
            out.push_str(&format!("\"{name}\":{value}"));
            between = ",";
        };
        if !has.client {
            add("ClientId", json!(self.client).to_string());
        }
        if !has.time {
            add("_ts", seconds(self.at_us));
        }
        if !has.source {
            add("_Source", json!(self.source).to_string());
        }
        out.push('}');
    }
}

/// Microseconds as seconds, to the digit; null when the agent told no time.
fn seconds(us: u64) -> String {
    if us == 0 {
        return "null".to_owned();
    }
    let (whole, rest) = (us / 1_000_000, us % 1_000_000);
    if rest == 0 {
        return whole.to_string();
    }
    let text = format!("{whole}.{rest:06}");
    text.trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tagged(line: &str) -> String {
        let tags = Tags {
            client: "C.1",
            source: "A/\"S\"",
            at_us: 1_795_515_463_765_820,
        };
        let mut out = String::new();
        tags.add(line, &mut out);
        out
    }

    const ALL: &str = r#""ClientId":"C.1","_ts":1795515463.76582,"_Source":"A/\"S\"""#;

    #[test]
    fn what_a_row_lacks_is_added_at_its_end() {
        assert_eq!(
            tagged(r#"{"b": 1.50, "a":18446744073709551615}"#),
            format!(r#"{{"b": 1.50, "a":18446744073709551615,{ALL}}}"#)
        );
        assert_eq!(tagged("{}"), format!("{{{ALL}}}"));
        assert_eq!(tagged(" { } \r"), format!("{{ {ALL}}}"));
        assert_eq!(
            tagged(r#"{"_ts":null,"x":{"_Source":1}}"#),
            r#"{"_ts":null,"x":{"_Source":1},"ClientId":"C.1","_Source":"A/\"S\""}"#
        );
        let own = r#"{"_Source":"mine","ClientId":"C.2","_ts":1}"#;
        assert_eq!(tagged(own), own);
    }

    #[test]
    fn what_is_no_object_stays_as_it_is() {
        for line in [
            "[1,2,3]",
            "null",
            "7",
            "{\"a\":",
            "{\"_ts\":1,\"_ts\":2}",
            "{x}",
        ] {
            assert_eq!(tagged(line), line);
        }
    }

    #[test]
    fn seconds_are_exact() {
        let times = [1, 1_000_000, 1_795_515_463_765_822, u64::MAX, 0];
        assert_eq!(
            times.map(seconds),
            [
                "0.000001",
                "1",
                "1795515463.765822",
                "18446744073709.551615",
                "null"
            ]
        );
    }
}
