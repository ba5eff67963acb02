//! Makes the messages of an answer to a poll.

use bytes::Bytes;
use nublar_core::delivery::Item;
use nublar_schemas::agent::{Cancel, FlowStatsRequest, VeloMessage};
use nublar_schemas::records::AskPair;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};

/// The field of a VeloMessage that holds a FlowRequest.
const FLOW_REQUEST: u32 = 42;
/// The field of a VeloMessage that holds a ResumeTransactions.
const RESUME_TRANSACTIONS: u32 = 45;
/// The field of a VeloMessage that holds a VQLEventTable, and the version's field in that.
const UPDATE_EVENT_TABLE: u32 = 31;
const VERSION: u32 = 2;

/// The message that starts a flow; `request` is a serialized FlowRequest and goes in as it is.
pub(crate) fn task(flow: &str, org: &str, urgent: bool, at_us: i64, request: &Bytes) -> Bytes {
    let head = VeloMessage {
        session_id: flow.to_owned(),
        request_id: 1,
        task_id: task_id(at_us),
        org_id: org.to_owned(),
        urgent,
        ..Default::default()
    };
    within(&head, FLOW_REQUEST, request)
}

/// The message that asks: each flow right behind the id that no agent knows.
pub(crate) fn ask(pairs: &[AskPair], at_us: i64) -> Bytes {
    let ids = |pair: &AskPair| [pair.once.clone(), pair.flow_id.clone()];
    let message = VeloMessage {
        session_id: "F.Status".to_owned(),
        request_id: 1,
        task_id: task_id(at_us),
        urgent: true,
        flow_stats_request: Some(FlowStatsRequest {
            flow_id: pairs.iter().flat_map(ids).collect(),
        }),
        ..Default::default()
    };
    message.encode_to_vec().into()
}

/// The message that stops a flow.
pub(crate) fn cancel(flow: &str, at_us: i64) -> Bytes {
    let message = VeloMessage {
        session_id: flow.to_owned(),
        task_id: task_id(at_us),
        urgent: true,
        cancel: Some(Cancel::default()),
        ..Default::default()
    };
    message.encode_to_vec().into()
}

/// The message that tells to go on with uploads; `request` is a serialized ResumeTransactions.
pub(crate) fn resume(flow: &str, at_us: i64, request: &Bytes) -> Bytes {
    let head = VeloMessage {
        session_id: flow.to_owned(),
        request_id: 1,
        task_id: task_id(at_us),
        ..Default::default()
    };
    within(&head, RESUME_TRANSACTIONS, request)
}

/// The message that tells which event queries to run; `table` is a serialized VQLEventTable
/// without a version.
pub(crate) fn event_table(version: i64, at_us: i64, table: &Bytes) -> Bytes {
    let head = VeloMessage {
        session_id: "F.Monitoring".to_owned(),
        request_id: 1,
        task_id: task_id(at_us),
        urgent: true,
        ..Default::default()
    };
    let mut content = Vec::with_capacity(table.len() + 12);
    content.extend_from_slice(table);
    encode_key(VERSION, WireType::Varint, &mut content);
    encode_varint(u64::try_from(version).unwrap_or(0), &mut content);
    within(&head, UPDATE_EVENT_TABLE, &content)
}

/// A message with one more field, whose bytes go in as they are.
fn within(head: &VeloMessage, field: u32, content: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(head.encoded_len() + content.len() + 16);
    // A Vec grows as needed.
    head.encode_raw(&mut out);
    encode_key(field, WireType::LengthDelimited, &mut out);
    encode_varint(content.len() as u64, &mut out);
    out.extend_from_slice(content);
    out.into()
}

/// Nanoseconds, as agents are used to.
fn task_id(at_us: i64) -> u64 {
    u64::try_from(at_us).unwrap_or(0).saturating_mul(1000)
}

/// What an item is for in a log line.
pub(crate) fn kind(item: &Item) -> &'static str {
    match item {
        Item::Task { .. } => "task",
        Item::Ask(_) => "ask",
        Item::Cancel(_) => "cancel",
        Item::Resume { .. } => "resume",
        Item::Table { .. } => "event table",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use nublar_schemas::agent::{FlowRequest, ResumeTransactions, VqlCollectorArgs, VqlEventTable};

    #[test]
    fn a_request_goes_in_byte_by_byte() {
        let request = FlowRequest {
            log_batch_time: 5,
            max_rows: 7,
            ..Default::default()
        };
        let mut bytes = request.encode_to_vec();
        // A field of a later version.
        encode_key(99, WireType::LengthDelimited, &mut bytes);
        encode_varint(3, &mut bytes);
        bytes.extend_from_slice(b"new");
        let message = task("F.A", "O1", true, 7, &bytes.clone().into());
        assert!(message.ends_with(&bytes));
        let message = VeloMessage::decode(message).unwrap();
        assert_eq!(message.session_id, "F.A");
        assert_eq!((message.request_id, message.task_id), (1, 7_000));
        assert!(message.urgent);
        assert_eq!(message.flow_request, Some(request));
    }

    #[test]
    fn an_event_table_goes_in_byte_by_byte_under_its_version() {
        let table = VqlEventTable {
            event: vec![VqlCollectorArgs {
                timeout: 7,
                ..Default::default()
            }],
            version: 0,
        };
        let version = 1_795_514_940_444_042_568;
        let message = event_table(version, 7, &table.encode_to_vec().into());
        let message = VeloMessage::decode(message).unwrap();
        assert_eq!(message.session_id, "F.Monitoring");
        let told = message.update_event_table.unwrap();
        assert_eq!(told.event, table.event);
        assert_eq!(told.version, version as u64);
    }

    #[test]
    fn uploads_are_gone_on_with_under_the_flows_session() {
        let request = ResumeTransactions {
            flow_id: "F.A".to_owned(),
            timeout: 5,
            ..Default::default()
        };
        let message = resume("F.A", 7, &request.encode_to_vec().into());
        let message = VeloMessage::decode(message).unwrap();
        assert_eq!(
            (message.session_id.as_str(), message.urgent),
            ("F.A", false)
        );
        assert_eq!(message.resume_transactions, Some(request));
    }

    #[test]
    fn questions_keep_their_order() {
        let pair = |n: u8| AskPair {
            once: format!("F.once{n}"),
            flow_id: format!("F.{n}"),
        };
        let message = VeloMessage::decode(ask(&[pair(2), pair(1)], 1)).unwrap();
        assert_eq!(message.session_id, "F.Status");
        assert!(message.urgent);
        let asked = message.flow_stats_request.unwrap().flow_id;
        assert_eq!(asked, ["F.once2", "F.2", "F.once1", "F.1"]);
        let message = VeloMessage::decode(cancel("F.9", 1)).unwrap();
        assert_eq!((message.session_id.as_str(), message.urgent), ("F.9", true));
        assert!(message.cancel.is_some());
    }
}
