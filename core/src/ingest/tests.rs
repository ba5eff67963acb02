//! Records in, documents and totals out.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use crate::hidden::HiddenNames;
use crate::ids::Life;
use bytes::Bytes;
use nublar_schemas::agent::{
    FileBuffer, FlowStats, LogMessage, PathSpec, VeloMessage, VqlRequest, VqlResponse,
};
use nublar_schemas::records::{AgentMessage, Header, Messages, Stored};
use prost::Message;

const FLOW: &str = "F.DC2M4H5TA9T34";

fn key() -> ClientKey {
    ClientKey {
        org: "".parse().unwrap(),
        client: "C.dee8db84e4bcbdf1".parse().unwrap(),
    }
}

fn life() -> Life {
    Life {
        client: key(),
        generation: 1,
    }
}

fn record(messages: Vec<VeloMessage>) -> Messages {
    let header = Header {
        client: key().client.to_string(),
        generation: 1,
        at_us: 1_795_514_940_000_000,
        ..Header::default()
    };
    let messages = messages
        .into_iter()
        .map(|message| AgentMessage {
            session: message.session_id.clone(),
            bytes: message.encode_to_vec().into(),
            object: None,
        })
        .collect();
    Messages {
        header,
        messages,
        ..Messages::default()
    }
}

fn planned(record: &Messages) -> Plan {
    plan(&key(), record, &HiddenNames::default())
}

fn rows(start: u64, n: u64, timestamp: u64) -> VeloMessage {
    VeloMessage {
        session_id: FLOW.into(),
        vql_response: Some(VqlResponse {
            query: Some(VqlRequest {
                name: "A/S".into(),
                ..VqlRequest::default()
            }),
            query_start_row: start,
            total_rows: n,
            timestamp,
            jsonl_response: "{}\n".repeat(n as usize),
            ..VqlResponse::default()
        }),
        ..VeloMessage::default()
    }
}

fn marker() -> VeloMessage {
    let flow_stats = Some(FlowStats {
        flow_complete: true,
        ..FlowStats::default()
    });
    VeloMessage {
        session_id: FLOW.into(),
        flow_stats,
        ..VeloMessage::default()
    }
}

fn buffer(offset: u64, data: &[u8]) -> VeloMessage {
    VeloMessage {
        session_id: FLOW.into(),
        file_buffer: Some(FileBuffer {
            pathspec: Some(PathSpec {
                path: "/etc/../x".into(),
                ..PathSpec::default()
            }),
            offset,
            data: Bytes::copy_from_slice(data),
            data_length: data.len() as u64,
            ..FileBuffer::default()
        }),
        ..VeloMessage::default()
    }
}

fn store(sums: &mut Sums, messages: Vec<VeloMessage>) -> Plan {
    let plan = planned(&record(messages));
    sums.written(&life(), &plan);
    plan
}

fn report(sums: &mut Sums) -> Option<Stored> {
    sums.report(|_| Header::default())
        .pop()
        .map(|(_, stored)| stored)
}

#[test]
fn a_message_counts_once_however_often_it_comes() {
    let mut sums = Sums::new(Group::Results, 0, 100);
    let first = store(&mut sums, vec![rows(0, 5, 1), rows(5, 2, 2)]);
    let again = store(&mut sums, vec![rows(5, 2, 2), rows(0, 5, 1)]);
    assert_eq!(first.parts[0], again.parts[1]);
    let stored = report(&mut sums).unwrap();
    assert_eq!(
        (stored.rows, stored.closing, stored.ran_twice),
        (7, false, false)
    );
    assert!(report(&mut sums).is_none(), "nothing changed since");
}

#[test]
fn the_marker_closes_and_later_rows_are_told() {
    let mut sums = Sums::new(Group::Results, 0, 100);
    store(&mut sums, vec![marker()]);
    assert!(sums.urgent());
    let closing = report(&mut sums).unwrap();
    assert_eq!((closing.rows, closing.closing), (0, true), "zero included");
    store(&mut sums, vec![rows(0, 3, 1)]);
    assert_eq!(report(&mut sums).unwrap().rows, 3);
}

#[test]
fn rows_that_overlap_are_flagged_whatever_their_order() {
    for messages in [
        [rows(0, 5, 1), rows(5, 5, 2), rows(3, 1, 3)],
        [rows(3, 1, 3), rows(0, 5, 1), rows(5, 5, 2)],
        [rows(0, 5, 1), rows(5, 5, 2), rows(0, 5, 9)],
    ] {
        let mut sums = Sums::new(Group::Results, 0, 100);
        store(&mut sums, messages.to_vec());
        assert!(report(&mut sums).unwrap().ran_twice);
    }
    let mut sums = Sums::new(Group::Results, 0, 100);
    store(
        &mut sums,
        vec![rows(5, 5, 2), rows(0, 5, 1), rows(10, 1, 3)],
    );
    assert!(!report(&mut sums).unwrap().ran_twice);
}

#[test]
fn an_object_is_named_by_the_server_alone() {
    let named = |data: &[u8]| {
        let mut message = buffer(0, data);
        if let Some(buffer) = &mut message.file_buffer {
            buffer.reference = "uploads/root/aa/of-somebody-else".to_owned();
        }
        let plan = planned(&record(vec![message]));
        FileBuffer::decode(plan.parts[0].body.clone())
            .unwrap()
            .reference
    };
    assert_eq!(named(b"small"), "");
    let large = named(&vec![0; 20_000]);
    assert!(
        large.starts_with("uploads/root/") && !large.contains("somebody"),
        "{large}"
    );
}

#[test]
fn a_seal_counts_for_nothing_in_a_flows_totals() {
    let mut sum = FlowSum::default();
    let id = |text: &str| ContentId::of(&[text.as_bytes()]);
    sum.add(Collection::Buffers, id("eof"), "an upload", 0, 0);
    sum.add(Collection::Buffers, id("seal"), SEALS, 0, 0);
    let mut sums = Sums::new(Group::Uploads, 0, 10);
    sums.load(&life(), FLOW.parse().unwrap(), sum);
    store(&mut sums, vec![marker()]);
    let stored = sums.report(|_| Header::default());
    assert_eq!((stored[0].1.files, stored[0].1.bytes), (1, 0));
}

#[test]
fn large_data_goes_to_an_object_and_names_are_only_data() {
    let mut sums = Sums::new(Group::Uploads, 0, 100);
    let plan = store(
        &mut sums,
        vec![buffer(0, &[7; 100_000]), buffer(100_000, b"end")],
    );
    let (object, data) = plan.parts[0].object.clone().unwrap();
    assert!(
        object.starts_with("uploads/root/") && !object.contains(".."),
        "{object}"
    );
    assert_eq!(data.len(), 100_000);
    let document = FileBuffer::decode(plan.parts[0].body.clone()).unwrap();
    assert_eq!((document.reference, document.data.len()), (object, 0));
    assert_eq!(document.pathspec.unwrap().path, "/etc/../x");
    assert!(plan.parts[1].object.is_none());
    assert_eq!(plan.parts[0].source, plan.parts[1].source, "one upload");
    let stored = report(&mut sums).unwrap();
    assert_eq!((stored.files, stored.bytes), (1, 100_003));
}

#[test]
fn an_agent_names_no_object() {
    let mut small = buffer(0, b"abc");
    let named = "snapshots/g00001/p00000/x".to_owned();
    small.file_buffer.as_mut().unwrap().reference = named;
    let plan = planned(&record(vec![small]));
    let document = FileBuffer::decode(plan.parts[0].body.clone()).unwrap();
    assert_eq!(
        (document.reference.as_str(), &document.data[..]),
        ("", &b"abc"[..])
    );
}

#[test]
fn a_sparse_upload_that_starts_over_is_another_upload() {
    let mut sparse = buffer(0, b"abc");
    sparse.file_buffer.as_mut().unwrap().is_sparse = true;
    let plan = planned(&record(vec![sparse, buffer(0, b"abc")]));
    assert_ne!(plan.parts[0].source, plan.parts[1].source);
}

#[test]
fn who_a_client_is_is_read_from_its_rows_and_events() {
    let json = "{\"Hostname\":\"box\"}\n";
    let mut response = rows(0, 1, 1);
    let inner = response.vql_response.as_mut().unwrap();
    inner.query.as_mut().unwrap().name = "Generic.Client.Info/BasicInformation".into();
    let mut compressor = libdeflater::Compressor::new(libdeflater::CompressionLvl::default());
    let mut packed = vec![0; 200];
    let n = compressor
        .zlib_compress(json.as_bytes(), &mut packed)
        .unwrap();
    packed.truncate(n);
    (
        inner.jsonl_response,
        inner.compressed_json_response,
        inner.uncompressed_size,
    ) = (String::new(), packed.into(), json.len() as u64);
    let info = planned(&record(vec![response.clone()]));
    assert_eq!(
        info.facts,
        [Fact {
            source: "Generic.Client.Info/BasicInformation".into(),
            facts: json.trim().into()
        }]
    );

    let mut event = rows(0, 1, 1_795_514_940_000_000);
    event.session_id = "F.Monitoring".into();
    let inner = event.vql_response.as_mut().unwrap();
    inner.query.as_mut().unwrap().name = "Server.Internal.ClientInfo".into();
    inner.jsonl_response = "{\"hostname\":\"vm\"}\n".into();
    let info = planned(&record(vec![event]));
    assert_eq!(info.facts.len(), 1);
    assert_eq!(
        (info.parts[0].collection, info.parts[0].week),
        (Collection::Events, Some(2968))
    );
}

#[test]
fn log_lines_of_events_stand_at_the_time_of_their_first_line() {
    let log = |timestamp, jsonl: &str| VeloMessage {
        session_id: "F.Monitoring".into(),
        log_message: Some(LogMessage {
            artifact: "A/S".into(),
            timestamp,
            number_of_rows: 2,
            jsonl: jsonl.into(),
            ..LogMessage::default()
        }),
        ..VeloMessage::default()
    };
    let lines = "{\"client_time\":1795514940,\"message\":\"a\"}\n{\"client_time\":5}\n";
    let mut row = rows(0, 1, 1);
    row.session_id = "F.Monitoring".into();
    let messages = vec![
        log(0, lines),
        log(1_795_514_941_000_000, lines),
        log(0, "{\"client_time\":1795514940.25}"),
        log(0, "{\"client_time\":-1}"),
        log(0, "garbled"),
        row,
    ];
    let plan = planned(&record(messages));
    assert!(plan.refused.is_empty());
    let parts: Vec<_> = plan
        .parts
        .iter()
        .map(|part| (part.order, part.week, part.text.as_str()))
        .collect();
    assert_eq!(
        parts,
        [
            (1_795_514_940_000_000, Some(2968), EVENT_LOGS),
            (1_795_514_941_000_000, Some(2968), EVENT_LOGS),
            (1_795_514_940_250_000, Some(2968), EVENT_LOGS),
            (0, None, EVENT_LOGS),
            (0, None, EVENT_LOGS),
            (1, None, EVENT_ROWS),
        ]
    );
}

#[test]
fn a_file_that_a_client_event_uploads_is_kept_without_a_flow() {
    let mut large = buffer(0, &vec![7; 100_000]);
    let mut last = buffer(100_000, b"end");
    for message in [&mut large, &mut last] {
        message.session_id = "F.Monitoring".into();
    }
    let plan = planned(&record(vec![large, last]));
    assert!(plan.refused.is_empty());
    for part in &plan.parts {
        assert_eq!((part.collection, part.week), (Collection::Buffers, None));
        assert!(part.flow.is_none());
    }
    assert_eq!(plan.parts[0].source, plan.parts[1].source);
    assert_eq!(plan.parts[1].order, 100_000);
    assert_eq!(plan.parts[0].object.as_ref().unwrap().1.len(), 100_000);
}

#[test]
fn versions_of_a_file_that_client_events_upload_are_files_of_their_own() {
    let of_event = |size: u64, mtime: i64, sparse: bool| {
        let mut message = buffer(0, b"part");
        message.session_id = "F.Monitoring".into();
        let buffer = message.file_buffer.as_mut().unwrap();
        (buffer.size, buffer.mtime, buffer.is_sparse) = (size, mtime, sparse);
        planned(&record(vec![message])).parts[0].source.clone()
    };
    let known = of_event(4, 1_000, false);
    assert_eq!(of_event(4, 1_000, false), known);
    for other in [(4, 2_000, false), (5, 1_000, false), (4, 1_000, true)] {
        assert_ne!(of_event(other.0, other.1, other.2), known, "{other:?}");
    }
    // The buffer with a sparse file's index has no time of change.
    assert_eq!(of_event(4, 0, true), of_event(4, 1_000, true));
}

#[test]
fn what_cannot_be_stored_is_refused_alone() {
    let mut messages = record(vec![
        rows(0, 1, 1),
        VeloMessage {
            session_id: FLOW.into(),
            ..VeloMessage::default()
        },
    ]);
    messages.messages.push(AgentMessage {
        session: FLOW.into(),
        bytes: Bytes::from_static(&[0xff]),
        object: None,
    });
    messages.messages.push(AgentMessage {
        session: "F.Status".into(),
        bytes: Bytes::new(),
        object: None,
    });
    let plan = planned(&messages);
    assert_eq!(plan.parts.len(), 1);
    let reasons: Vec<_> = plan.refused.iter().map(|refused| refused.reason).collect();
    assert_eq!(reasons, ["unknown_payload", "undecodable", "session"]);
}

#[test]
fn only_flows_that_may_have_been_here_before_are_counted_anew() {
    let began = i64::from(crate::mac::seconds_of(&FLOW.parse().unwrap()).unwrap()) * 1_000_000;
    let one = planned(&record(vec![rows(0, 1, 1)]));
    let hour = 3_600_000_000;
    assert_eq!(
        Sums::new(Group::Results, began + hour, 9)
            .unknown(&life(), &one)
            .len(),
        1
    );
    assert_eq!(
        Sums::new(Group::Results, began - hour, 9)
            .unknown(&life(), &one)
            .len(),
        0
    );
    let mut loaded = Sums::new(Group::Results, began + hour, 9);
    let mut sum = FlowSum::default();
    sum.add(Collection::Rows, one.parts[0].id, "A/S", 0, 1);
    loaded.load(&life(), FLOW.parse().unwrap(), sum);
    assert!(loaded.unknown(&life(), &one).is_empty());
    loaded.written(&life(), &one);
    assert_eq!(report(&mut loaded).unwrap().rows, 1);
}

#[test]
fn log_lines_count_by_their_number() {
    let log = LogMessage {
        id: 3,
        number_of_rows: 4,
        jsonl: "{}\n".repeat(4),
        ..LogMessage::default()
    };
    let message = VeloMessage {
        session_id: FLOW.into(),
        log_message: Some(log),
        ..VeloMessage::default()
    };
    let plan = planned(&record(vec![message]));
    assert_eq!((plan.parts[0].order, plan.parts[0].size), (3, 4));
}
