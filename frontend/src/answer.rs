//! Makes the messages of an answer to a poll.

use bytes::Bytes;
use nublar_core::delivery::Item;
use nublar_schemas::agent::{Cancel, FlowStatsRequest, VeloMessage};
use nublar_schemas::records::AskPair;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};

/// The field of a VeloMessage that holds a FlowRequest.
const FLOW_REQUEST: u32 = 42;

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
    let mut out = Vec::with_capacity(head.encoded_len() + request.len() + 16);
    // A Vec grows as needed.
    head.encode_raw(&mut out);
    encode_key(FLOW_REQUEST, WireType::LengthDelimited, &mut out);
    encode_varint(request.len() as u64, &mut out);
    out.extend_from_slice(request);
    out.into()
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
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use nublar_schemas::agent::FlowRequest;

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
