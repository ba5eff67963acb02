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
    /// The word that marks its documents.
    fn word(self) -> &'static str {
        match self {
            Self::Rows => EVENT_ROWS,
            Self::Logs => EVENT_LOGS,
        }
    }

    /// What a document's text says that it is, and the agent's session, empty where it is not known.
    pub(crate) fn of(text: &str) -> (Self, &str) {
        let (word, session) = text.split_once(' ').unwrap_or((text, ""));
        let told = match word {
            EVENT_LOGS => Self::Logs,
            _ => Self::Rows,
        };
        (told, session)
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
    /// Only what came under this session of the agent, all when it is empty.
    pub(crate) session: String,
    /// Whether rows tell the session: where machines share the client's key.
    pub(crate) with_sessions: bool,
    /// Agent times, microseconds: from, to (excluded).
    pub(crate) times: Option<(i64, i64)>,
}

impl Events {
    pub(crate) fn query(&self) -> Query {
        let session = (!self.session.is_empty()).then(|| self.session.clone());
        Query {
            client: Some(self.name.clone()),
            source: Some(self.source.clone()),
            words: [self.told.word().to_owned()]
                .into_iter()
                .chain(session)
                .collect(),
            order: self.times,
            ..Query::default()
        }
    }

    /// Whether a document with this source and text is one of them.
    pub(crate) fn hold(&self, source: &str, text: &str) -> bool {
        let (told, session) = Told::of(text);
        source == self.source
            && told == self.told
            && (self.session.is_empty() || session == self.session)
    }

    /// The lines of a message of these events, `text` being its document's; none when it tells of
    /// something else.
    pub(crate) fn lines(&self, text: &str, body: &Bytes) -> Answer<Block> {
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
            session: Some(Told::of(text).1).filter(|_| self.with_sessions),
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
            let block = events.lines(&document.text, &document.body)?;
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
    session: Option<&'a str>,
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
    #[serde(rename = "_Session", deserialize_with = "present")]
    session: bool,
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
        if let Some(session) = self.session.filter(|_| !has.session) {
            add("_Session", json!(session).to_string());
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
        tagged_with(None, line)
    }

    fn tagged_with(session: Option<&str>, line: &str) -> String {
        let tags = Tags {
            client: "C.1",
            source: "A/\"S\"",
            at_us: 1_795_515_463_765_820,
            session,
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
        assert_eq!(
            tagged_with(Some("c0de"), "{}"),
            format!("{{{ALL},\"_Session\":\"c0de\"}}")
        );
        let own = own.replace('}', r#","_Session":null}"#);
        assert_eq!(tagged_with(Some("c0de"), &own), own);
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
