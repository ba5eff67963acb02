//! Messages of rows and logs as lines of JSON, their bytes untouched.

use crate::refusal::{Answer, Refusal};
use bytes::Bytes;
use nublar_core::ingest::inflate;
use nublar_schemas::agent::{LogMessage, VeloMessage, VqlResponse};
use prost::Message;
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// Lines of one message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Block {
    /// Valid UTF-8; lines end with a line feed.
    text: String,
}

impl Block {
    /// Some of its lines; each is one JSON value.
    pub(crate) fn lines(&self, skip: u64, take: u64) -> impl Iterator<Item = &str> {
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        let take = usize::try_from(take).unwrap_or(usize::MAX);
        let lines = self
            .text
            .split('\n')
            .map(|line| line.strip_suffix('\r').unwrap_or(line));
        lines.filter(|line| !line.is_empty()).skip(skip).take(take)
    }

    /// Other lines, one for each.
    pub(super) fn map(&self, mut write: impl FnMut(&str, &mut String)) -> Self {
        let mut text = String::with_capacity(self.text.len());
        for line in self.lines(0, u64::MAX) {
            write(line, &mut text);
            text.push('\n');
        }
        Self { text }
    }
}

pub(super) fn message(body: &Bytes) -> Answer<VeloMessage> {
    VeloMessage::decode(body.clone())
        .map_err(|error| Refusal::fault(format!("a stored message cannot be read: {error}")))
}

/// The rows of a stored message.
pub(crate) fn row_lines(body: &Bytes) -> Answer<Block> {
    let message = message(body)?;
    message
        .vql_response
        .map_or_else(|| Ok(Block::default()), rows)
}

pub(super) fn rows(response: VqlResponse) -> Answer<Block> {
    if !response.compressed_json_response.is_empty() {
        let size = usize::try_from(response.uncompressed_size).unwrap_or(usize::MAX);
        let bytes = inflated(&response.compressed_json_response, size)?;
        return Ok(Block { text: text(bytes) });
    }
    if !response.jsonl_response.is_empty() || response.response.is_empty() {
        return Ok(Block {
            text: response.jsonl_response,
        });
    }
    // Agents of long ago send an array.
    let rows: Vec<&RawValue> = serde_json::from_str(&response.response)
        .map_err(|error| Refusal::fault(format!("stored rows cannot be read: {error}")))?;
    let mut text = String::with_capacity(response.response.len());
    for row in rows {
        if row.get().contains('\n') {
            let value: Value = serde_json::from_str(row.get()).unwrap_or_default();
            text.push_str(&value.to_string());
        } else {
            text.push_str(row.get());
        }
        text.push('\n');
    }
    Ok(Block { text })
}

/// The log lines of a stored message.
pub(crate) fn log_lines(body: &Bytes) -> Answer<Block> {
    let message = message(body)?;
    Ok(message.log_message.map(logs).unwrap_or_default())
}

pub(super) fn logs(log: LogMessage) -> Block {
    if !log.jsonl.is_empty() {
        return Block { text: log.jsonl };
    }
    if log.message.is_empty() {
        return Block::default();
    }
    let line = json!({
        "client_time": log.timestamp / 1_000_000,
        "level": if log.level.is_empty() { "DEFAULT" } else { &log.level },
        "message": log.message,
    });
    Block {
        text: format!("{line}\n"),
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

fn inflated(zlib: &[u8], size: usize) -> Answer<Vec<u8>> {
    inflate(zlib, size).map_err(|error| Refusal::fault(error.to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use libdeflater::{CompressionLvl, Compressor};

    fn lines(block: &Block) -> Vec<&str> {
        block.lines(0, u64::MAX).collect()
    }

    fn of(response: VqlResponse) -> Block {
        let message = VeloMessage {
            vql_response: Some(response),
            ..VeloMessage::default()
        };
        row_lines(&message.encode_to_vec().into()).unwrap()
    }

    #[test]
    fn rows_are_read_in_all_three_forms() {
        let text = "{\"b\": 1.50,\"a\":18446744073709551615}\n{\"b\":2}\n";
        let plain = of(VqlResponse {
            jsonl_response: text.into(),
            ..VqlResponse::default()
        });
        assert_eq!(
            lines(&plain),
            ["{\"b\": 1.50,\"a\":18446744073709551615}", "{\"b\":2}"]
        );

        let mut compressor = Compressor::new(CompressionLvl::default());
        let mut zlib = vec![0; 1000];
        let length = compressor
            .zlib_compress(text.as_bytes(), &mut zlib)
            .unwrap();
        zlib.truncate(length);
        for said in [text.len() as u64, 0, 3] {
            let packed = of(VqlResponse {
                compressed_json_response: zlib.clone().into(),
                uncompressed_size: said,
                ..VqlResponse::default()
            });
            assert_eq!(packed, plain, "said to be {said}");
        }

        let old = "[{\"b\": 1.50,\"a\":18446744073709551615},\n {\"b\"\n:2}]";
        let old = of(VqlResponse {
            response: old.into(),
            ..VqlResponse::default()
        });
        assert_eq!(lines(&old), lines(&plain));
    }

    #[test]
    fn some_lines_can_be_left_out() {
        let block = Block {
            text: "1\n2\n\n3\n4".into(),
        };
        assert_eq!(block.lines(1, 2).collect::<Vec<_>>(), ["2", "3"]);
        assert_eq!(block.lines(3, 9).collect::<Vec<_>>(), ["4"]);
    }

    #[test]
    fn damaged_streams_are_refused() {
        assert!(inflated(b"not zlib", 10).is_err());
        assert!(row_lines(&Bytes::from_static(&[0xff, 0xff])).is_err());
    }

    #[test]
    fn a_single_log_line_becomes_json() {
        let log = LogMessage {
            message: "a \"b\"".into(),
            timestamp: 7_000_000,
            ..LogMessage::default()
        };
        let message = VeloMessage {
            log_message: Some(log),
            ..VeloMessage::default()
        };
        let block = log_lines(&message.encode_to_vec().into()).unwrap();
        assert_eq!(
            lines(&block),
            ["{\"client_time\":7,\"level\":\"DEFAULT\",\"message\":\"a \\\"b\\\"\"}"]
        );
    }
}
