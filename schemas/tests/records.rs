//! Every record survives its encoding, and what is not ours is refused with a reason.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use bytes::Bytes;
use nublar_schemas::codec::{CodecError, Record};
use nublar_schemas::records::*;

fn header() -> Header {
    Header {
        org: "O1".into(),
        client: "C.0123456789abcdef".into(),
        generation: 3,
        at_us: 1_795_514_940_323_798,
        frontend: "fe-1".into(),
        trace: String::new(),
    }
}

fn request() -> RequestRef {
    RequestRef {
        hash: Bytes::from_static(&[7; 32]),
        log_generation: 1,
        partition: 2,
        offset: 1 << 40,
    }
}

#[test]
fn the_union_finds_its_record_by_fingerprint() {
    let records = vec![
        Scheduling::from(CheckIn {
            header: header(),
            session_key: Bytes::from_static(b"0123456789abcdef"),
            table_version: i64::MAX,
            address: "[::1]:5".into(),
            via: String::new(),
            clock_skew_ms: None,
            introduces: false,
        }),
        FlowStatsSeen {
            header: header(),
            stats: vec![SeenStats {
                session: "F.1".into(),
                urgent: true,
                bytes: Bytes::from_static(&[0, 255]),
            }],
        }
        .into(),
        FlowCreated {
            header: header(),
            flow_id: "F.X".into(),
            request: request(),
            creator: "admin".into(),
            artifacts: vec!["A.B".into(), "C".into()],
            spec: "{}".into(),
            queries: 2,
            urgent: false,
            execve: true,
            deadline_us: 5,
        }
        .into(),
        Tick {
            header: header(),
            epoch: 1,
            elapsed_ms: 2,
            wall_us: 3,
        }
        .into(),
    ];
    for record in records {
        assert_eq!(
            Scheduling::decode(&record.encode().unwrap()).unwrap(),
            record
        );
    }
}

#[test]
fn a_record_of_an_older_schema_is_read_with_defaults() {
    #[derive(serde::Serialize)]
    struct ClaimV1 {
        header: Header,
        flow_id: &'static str,
        attempt: i32,
        poll: i64,
    }
    let text = include_str!("../avro/claim.v1.avsc");
    let schema = apache_avro::Schema::parse_str(text).unwrap();
    let mut writer =
        apache_avro::GenericSingleObjectWriter::new_with_capacity(&schema, 100).unwrap();
    let value = apache_avro::to_value(ClaimV1 {
        header: header(),
        flow_id: "F.1",
        attempt: 2,
        poll: 3,
    });
    let mut encoded = Vec::new();
    writer.write_value(value.unwrap(), &mut encoded).unwrap();
    let expected = Claim {
        header: header(),
        flow_id: "F.1".into(),
        attempt: 2,
        poll: 3,
        packet_iv: Bytes::new(),
    };
    assert_eq!(Scheduling::decode(&encoded).unwrap(), expected.into());
}

#[test]
fn optional_and_large_values_survive() {
    let messages = Messages {
        header: header(),
        messages: vec![
            AgentMessage {
                session: "F.1".into(),
                bytes: Bytes::from(vec![9; 3 << 20]),
                object: None,
            },
            AgentMessage {
                session: "F.2".into(),
                bytes: Bytes::new(),
                object: Some("big/1".into()),
            },
        ],
        session_key: Bytes::from_static(b"0123456789abcdef"),
    };
    assert_eq!(
        Messages::decode(&messages.encode().unwrap()).unwrap(),
        messages
    );
}

#[test]
fn a_foreign_value_is_refused_with_its_reason() {
    assert!(matches!(Tasks::decode(b"{}"), Err(CodecError::NotAvro(2))));
    let tick = Tick {
        header: header(),
        epoch: 1,
        elapsed_ms: 2,
        wall_us: 3,
    }
    .encode()
    .unwrap();
    let refused = Tasks::decode(&tick).unwrap_err();
    assert!(
        matches!(refused, CodecError::UnknownFingerprint(_)),
        "{refused}"
    );
    assert!(matches!(
        Tick::decode(&tick[..tick.len() - 1]),
        Err(CodecError::Damaged { record: "Tick", .. })
    ));
}

#[test]
fn keys_of_the_registry_have_one_writer_each_and_hold_the_generation() {
    let of = |generation| Header {
        generation,
        ..header()
    };
    let key = |generation| {
        ClientKey {
            header: of(generation),
            public_key: Bytes::new(),
        }
        .name()
    };
    let life = |generation| {
        ClientLife {
            header: of(generation),
        }
        .name()
    };
    let names = [key(1), key(2), life(1), life(2)];
    let distinct: std::collections::BTreeSet<_> = names.iter().collect();
    assert_eq!(distinct.len(), names.len(), "{names:?}");
    assert_eq!(key(3), "O1/C.0123456789abcdef/key/3");
    assert_eq!(life(3), "O1/C.0123456789abcdef/life/3");
}
