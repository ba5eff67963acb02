//! Uploads and the dump.

use super::reading::{FLOW, flow_body, rows};
use super::stage::{CLIENT, Stage, header};
use crate::stored::{Within, find};
use crate::tails::Kind;
use aws_lc_rs::digest;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode};
use libdeflater::{CompressionLvl, Compressor};
use nublar_core::ids::{FlowId, Life};
use nublar_core::ingest::{SEALS, Seal, Verdict, week_of};
use nublar_ports::index::{Bucket, Collection, Document, Index as _};
use nublar_ports::objects::Objects as _;
use nublar_schemas::agent::{FileBuffer, Index, PathSpec, Range, VeloMessage};
use serde_json::{Value, json};

fn at(path: &str) -> String {
    format!("/clients/{CLIENT}/flows/{FLOW}{path}")
}

fn sha256(bytes: &[u8]) -> String {
    let hash = digest::digest(&digest::SHA256, bytes);
    hash.as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0; bytes.len() + 100];
    let length = Compressor::new(CompressionLvl::default())
        .zlib_compress(bytes, &mut out)
        .unwrap();
    out.truncate(length);
    out
}

/// Bytes that do not compress, always the same.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(next).collect()
}

#[derive(Clone, Copy)]
struct File {
    path: &'static str,
    number: i64,
    sparse: bool,
}

impl File {
    fn buffer(&self, offset: u64, data: &[u8]) -> FileBuffer {
        FileBuffer {
            pathspec: Some(PathSpec {
                path: self.path.to_owned(),
                accessor: "file".to_owned(),
                components: Vec::new(),
            }),
            offset,
            upload_number: self.number,
            is_sparse: self.sparse,
            data_length: data.len() as u64,
            uncompressed_length: data.len() as u64,
            data: if data.is_empty() {
                Vec::new()
            } else {
                zlib(data)
            }
            .into(),
            ..FileBuffer::default()
        }
    }

    fn eof(&self, offset: u64, size: u64) -> FileBuffer {
        FileBuffer {
            eof: true,
            size,
            stored_size: offset,
            ..self.buffer(offset, b"")
        }
    }
}

fn message(buffer: FileBuffer) -> VeloMessage {
    VeloMessage {
        session_id: FLOW.to_owned(),
        file_buffer: Some(buffer),
        ..VeloMessage::default()
    }
}

async fn staged() -> Stage {
    let stage = Stage::new().await;
    stage
        .tell(
            Kind::Flow,
            &format!("{CLIENT}/{FLOW}"),
            1,
            &flow_body("FINISHED", 0),
        )
        .await;
    stage
}

async fn listed(stage: &Stage, name: &str) -> Value {
    let uploads = stage.json(&at("/uploads")).await;
    let upload = uploads
        .as_array()
        .unwrap()
        .iter()
        .find(|upload| upload["name"] == name);
    upload.unwrap_or_else(|| panic!("{uploads}")).clone()
}

#[tokio::test]
async fn a_file_comes_back_as_it_was_sent_whatever_was_sent_twice() {
    let stage = staged().await;
    let big = noise(300_000);
    let file = File {
        path: "/data/ü big\".bin",
        number: 3,
        sparse: false,
    };
    let parts = [
        file.buffer(200_000, &big[200_000..]),
        file.buffer(0, &big[..100_000]),
        file.buffer(100_000, &big[100_000..200_000]),
        // Cut elsewhere by a second try.
        file.buffer(150_000, &big[150_000..250_000]),
        file.eof(300_000, 300_000),
    ];
    stage.store(parts.iter().cloned().map(message)).await;
    stage.store(parts.iter().cloned().map(message)).await;
    let upload = listed(&stage, "ü big\".bin").await;
    assert_eq!(upload["sha256"], json!(sha256(&big)));
    for (field, value) in [
        ("path", json!("/data/ü big\".bin")),
        ("size", json!(300_000)),
        ("stored", json!(300_000)),
        ("complete", json!(true)),
        ("percent", json!(100.0)),
        ("gaps", json!([])),
        ("sent_twice", json!(true)),
        ("accessor", json!("file")),
    ] {
        assert_eq!(upload[field], value, "{field}");
    }
    let place = at(&format!(
        "/uploads/{}",
        upload["upload_id"].as_str().unwrap()
    ));
    let answered = stage.get(&place).await;
    assert!(answered.body == big, "the file differs");
    assert_eq!(answered.header("content-length"), "300000");
    assert!(
        answered
            .header("content-disposition")
            .contains("%C3%BC%20big%22.bin")
    );

    let ranged = |range: &str| {
        let mut request = Stage::request(Method::GET, &place, Body::empty());
        request
            .headers_mut()
            .insert("range", range.parse().unwrap());
        request
    };
    let part = stage.send(ranged("bytes=99990-200009")).await;
    assert_eq!(part.status, StatusCode::PARTIAL_CONTENT);
    assert_eq!(part.header("content-range"), "bytes 99990-200009/300000");
    assert!(part.body == big[99_990..200_010], "the range differs");
    let part = stage.send(ranged("bytes=-10")).await;
    assert!(part.body == big[299_990..]);
    let outside = stage.send(ranged("bytes=300000-")).await;
    assert_eq!(outside.status, StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(outside.header("content-range"), "bytes */300000");

    assert_eq!(
        stage.get(&at("/uploads/00")).await.status,
        StatusCode::NOT_FOUND
    );
    stage.end().await;
}

#[tokio::test]
async fn a_part_is_shown_as_a_part() {
    let stage = staged().await;
    let file = File {
        path: "C:\\x\\part.bin",
        number: 1,
        sparse: false,
    };
    let whole = |buffer| FileBuffer {
        size: 1000,
        ..buffer
    };
    stage
        .store([
            message(whole(file.buffer(0, &[1; 100]))),
            message(whole(file.buffer(300, &[2; 100]))),
        ])
        .await;
    let upload = listed(&stage, "part.bin").await;
    for (field, value) in [
        ("size", json!(1000)),
        ("stored", json!(200)),
        ("complete", json!(false)),
        ("percent", json!(20.0)),
        ("gaps", json!([[100, 300]])),
        ("sha256", Value::Null),
    ] {
        assert_eq!(upload[field], value, "{field}");
    }
    let place = at(&format!(
        "/uploads/{}",
        upload["upload_id"].as_str().unwrap()
    ));
    let answered = stage.get(&place).await;
    let expected: Vec<u8> = [vec![1; 100], vec![0; 200], vec![2; 100]].concat();
    assert_eq!(answered.body, expected);
    assert_eq!(answered.header("x-nublar-partial"), "true");
    stage.end().await;
}

#[tokio::test]
async fn an_empty_file_is_whole() {
    let stage = staged().await;
    let file = File {
        path: "/empty",
        number: 1,
        sparse: false,
    };
    stage.store([message(file.eof(0, 0))]).await;
    let upload = listed(&stage, "empty").await;
    assert_eq!(
        (&upload["complete"], &upload["percent"]),
        (&json!(true), &json!(100.0))
    );
    assert_eq!(upload["sha256"], json!(sha256(b"")));
    let place = at(&format!(
        "/uploads/{}",
        upload["upload_id"].as_str().unwrap()
    ));
    let answered = stage.get(&place).await;
    assert_eq!((answered.status, answered.body.len()), (StatusCode::OK, 0));
    stage.end().await;
}

#[tokio::test]
async fn a_sparse_file_is_compact_or_padded_and_apart_from_its_plain_twin() {
    let stage = staged().await;
    let file = File {
        path: "/s.bin",
        number: 5,
        sparse: true,
    };
    let plain = File {
        sparse: false,
        ..file
    };
    let range = |file_offset, original_offset, file_length, length| Range {
        file_offset,
        original_offset,
        file_length,
        length,
    };
    let ranges = vec![
        range(0, 0, 10, 10),
        range(10, 10, 0, 100_000),
        range(10, 100_010, 5, 5),
    ];
    let file = File {
        sparse: true,
        ..plain
    };
    let eof = FileBuffer {
        index: Some(Index { ranges }),
        ..file.eof(15, 100_015)
    };
    stage
        .store([
            message(file.buffer(0, &[1; 10])),
            message(file.buffer(10, &[2; 5])),
            message(eof),
        ])
        .await;
    stage
        .store([message(plain.buffer(0, &[9; 4])), message(plain.eof(4, 4))])
        .await;

    let uploads = stage.json(&at("/uploads")).await;
    let uploads = uploads.as_array().unwrap();
    assert_eq!(uploads.len(), 2);
    let sparse = uploads
        .iter()
        .find(|upload| upload["sparse"] == json!(true))
        .unwrap();
    for (field, value) in [
        ("size", json!(100_015)),
        ("stored", json!(15)),
        ("complete", json!(true)),
        ("padded_size", json!(100_015)),
        (
            "sha256",
            json!(sha256(&[[1u8; 10].as_slice(), &[2; 5]].concat())),
        ),
    ] {
        assert_eq!(sparse[field], value, "{field}");
    }
    let place = at(&format!(
        "/uploads/{}",
        sparse["upload_id"].as_str().unwrap()
    ));
    assert_eq!(
        stage.get(&place).await.body,
        [[1u8; 10].as_slice(), &[2; 5]].concat()
    );
    let padded = stage.get(&format!("{place}?pad=true")).await;
    assert_eq!(padded.header("content-length"), "100015");
    let expected = [[1u8; 10].as_slice(), &[0; 100_000], &[2; 5]].concat();
    assert!(padded.body == expected, "the padded file differs");
    stage.end().await;
}

fn with_header(path: &str, name: &'static str, value: &str) -> Request<Body> {
    let mut request = Stage::request(Method::GET, path, Body::empty());
    request.headers_mut().insert(name, value.parse().unwrap());
    request
}

/// A terabyte of which two pieces of 5 bytes exist.
async fn store_terabyte(stage: &Stage) -> String {
    let file = File {
        path: "/dev/sparse",
        number: 1,
        sparse: true,
    };
    let range = |file_offset, original_offset, file_length, length| Range {
        file_offset,
        original_offset,
        file_length,
        length,
    };
    let ranges = vec![
        range(0, 0, 5, 5),
        range(5, 5, 0, TERABYTE - 10),
        range(5, TERABYTE - 5, 5, 5),
    ];
    let eof = FileBuffer {
        index: Some(Index { ranges }),
        ..file.eof(10, TERABYTE.unsigned_abs())
    };
    let parts = [file.buffer(0, b"begin"), file.buffer(5, b"(end)"), eof];
    stage.store(parts.map(message)).await;
    let upload = listed(stage, "sparse").await;
    assert_eq!(upload["padded_size"], json!(TERABYTE));
    at(&format!(
        "/uploads/{}",
        upload["upload_id"].as_str().unwrap()
    ))
}

const TERABYTE: i64 = 1 << 40;

#[tokio::test]
async fn any_part_of_a_sparse_terabyte_is_read_at_once() {
    let stage = staged().await;
    let place = store_terabyte(&stage).await;
    let padded = format!("{place}?pad=true");
    for (range, expected, said) in [
        ("bytes=0-7", "begin\0\0\0", "bytes 0-7/1099511627776"),
        (
            "bytes=-7",
            "\0\0(end)",
            "bytes 1099511627769-1099511627775/1099511627776",
        ),
        (
            "bytes=549755813888-549755813890",
            "\0\0\0",
            "bytes 549755813888-549755813890/1099511627776",
        ),
    ] {
        let part = stage.send(with_header(&padded, "range", range)).await;
        assert_eq!(part.status, StatusCode::PARTIAL_CONTENT);
        assert_eq!(
            (part.text(), part.header("content-range")),
            (expected, said)
        );
    }
    let outside = stage
        .send(with_header(&padded, "range", "bytes=1099511627776-"))
        .await;
    assert_eq!(outside.status, StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(outside.header("content-range"), "bytes */1099511627776");
    let head = Stage::request(Method::HEAD, &padded, Body::empty());
    let head = stage.send(head).await;
    assert_eq!(head.header("content-length"), "1099511627776");
    let compact = stage.send(with_header(&place, "range", "bytes=3-6")).await;
    assert_eq!(compact.text(), "in(e");
    let ranges = stage.json(&format!("{place}/ranges")).await;
    let last = TERABYTE - 5;
    assert_eq!(
        ranges,
        json!({"size": TERABYTE, "ranges": [[0, 0, 5], [last, 5, 5]]})
    );
    stage.end().await;
}

#[tokio::test]
async fn what_one_has_is_not_sent_again_and_parts_of_two_states_are_not_mixed() {
    let stage = staged().await;
    let file = File {
        path: "/growing",
        number: 1,
        sparse: false,
    };
    stage.store([message(file.buffer(0, b"0123456789"))]).await;
    let upload = listed(&stage, "growing").await;
    let place = at(&format!(
        "/uploads/{}",
        upload["upload_id"].as_str().unwrap()
    ));
    let first = stage.get(&place).await;
    let tag = first.header("etag").to_owned();
    assert!(tag.starts_with('"') && tag.ends_with('"'), "{tag}");
    let known = stage.send(with_header(&place, "if-none-match", &tag)).await;
    assert_eq!(
        (known.status, known.body.len()),
        (StatusCode::NOT_MODIFIED, 0)
    );
    let go_on = || {
        let mut request = with_header(&place, "range", "bytes=5-");
        request
            .headers_mut()
            .insert("if-range", tag.parse().unwrap());
        request
    };
    let rest = stage.send(go_on()).await;
    assert_eq!(
        (rest.status, rest.text()),
        (StatusCode::PARTIAL_CONTENT, "56789")
    );
    assert_eq!(rest.header("etag"), tag);

    stage.store([message(file.buffer(10, b"ab"))]).await;
    let whole = stage.send(go_on()).await;
    assert_eq!(
        (whole.status, whole.text()),
        (StatusCode::OK, "0123456789ab")
    );
    assert_ne!(whole.header("etag"), tag);
    let changed = stage.send(with_header(&place, "if-none-match", &tag)).await;
    assert_eq!(changed.status, StatusCode::OK);
    stage.end().await;
}

#[tokio::test]
async fn half_a_sparse_file_is_replaced_by_the_plain_one_that_follows() {
    let stage = staged().await;
    let plain = File {
        path: "/restarted",
        number: 7,
        sparse: false,
    };
    let sparse = File {
        sparse: true,
        ..plain
    };
    let half = FileBuffer {
        stored_size: 8,
        size: 8,
        ..sparse.buffer(0, b"part")
    };
    let whole = [
        plain.buffer(0, b"0123"),
        plain.buffer(4, b"4567"),
        plain.eof(8, 8),
    ];
    stage.store([message(half)]).await;
    let alone = stage.json(&at("/uploads")).await;
    assert!(alone[0].get("replaced_by").is_none(), "{alone}");
    stage.store(whole.map(message)).await;
    let both = stage.json(&at("/uploads")).await;
    let of = |sparse: bool| {
        let mut both = both.as_array().unwrap().iter();
        both.find(|upload| upload["sparse"] == json!(sparse))
            .unwrap()
    };
    let (half, whole) = (of(true), of(false));
    assert_eq!(
        (&half["percent"], &half["sha256"]),
        (&json!(50.0), &Value::Null)
    );
    assert_eq!(half["replaced_by"], whole["upload_id"]);
    assert!(whole.get("replaced_by").is_none());
    assert_eq!(whole["sha256"], json!(sha256(b"01234567")));
    stage.end().await;
}

#[tokio::test]
async fn each_version_of_a_file_that_events_upload_is_there() {
    let stage = staged().await;
    stage.enrol(CLIENT).await;
    let file = File {
        path: "/var/log/x",
        number: 0,
        sparse: false,
    };
    // Of each event query the first file is number 0, and so it is after a restart.
    let of_event = |buffer: FileBuffer, mtime: i64, size: u64| VeloMessage {
        session_id: "F.Monitoring".to_owned(),
        ..message(FileBuffer {
            mtime,
            size,
            ..buffer
        })
    };
    let old = [
        of_event(file.buffer(0, b"old"), 1_000_000, 3),
        of_event(file.eof(3, 3), 1_000_000, 3),
    ];
    let new = [
        of_event(file.buffer(0, b"new"), 2_000_000, 3),
        of_event(file.eof(3, 3), 2_000_000, 3),
    ];
    let begun = of_event(file.buffer(0, b"par"), 3_000_000, 6);
    stage.store(old.into_iter().chain(new).chain([begun])).await;

    let at = format!("/clients/{CLIENT}/flows/F.Monitoring/uploads");
    let uploads = stage.json(&at).await;
    let mut shown: Vec<_> = uploads.as_array().unwrap().iter().collect();
    shown.sort_by_key(|upload| upload["modified_us"].as_i64());
    let told: Vec<_> = shown
        .iter()
        .map(|upload| (&upload["complete"], &upload["sha256"], &upload["verdict"]))
        .collect();
    let (yes, no, none) = (json!(true), json!(false), Value::Null);
    let hashes = [json!(sha256(b"old")), json!(sha256(b"new"))];
    let expected = [
        (&yes, &hashes[0], &none),
        (&yes, &hashes[1], &none),
        (&no, &none, &none),
    ];
    assert_eq!(told, expected);
    let id = shown[1]["upload_id"].as_str().unwrap();
    assert_eq!(stage.get(&format!("{at}/{id}")).await.text(), "new");
    // They are no flow's, and a flow's are not theirs.
    assert_eq!(stage.json(&self::at("/uploads")).await, json!([]));
    let missing = stage.get(&self::at(&format!("/uploads/{id}"))).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    let stranger = "/clients/C.00000000000000ff/flows/F.Monitoring/uploads";
    assert_eq!(stage.get(stranger).await.status, StatusCode::NOT_FOUND);
    let dump = stage.get("/dump").await;
    let times = dump.text().matches("\"/var/log/x\"").count();
    assert_eq!(times, 3, "{}", dump.text());
    stage.end().await;
}

#[tokio::test]
async fn a_seal_is_shown_while_it_is_of_what_is_there() {
    let stage = staged().await;
    let file = File {
        path: "/sealed",
        number: 1,
        sparse: false,
    };
    stage
        .store([message(file.buffer(0, b"hello")), message(file.eof(5, 5))])
        .await;
    let unsealed = listed(&stage, "sealed").await;
    assert_eq!(unsealed["verdict"], Value::Null);
    let upload = unsealed["upload_id"].as_str().unwrap();
    let flow: FlowId = FLOW.parse().unwrap();
    let life = Life::of(&header()).unwrap();
    let within = Within::flow(&life, &flow);
    let found = find(&stage.app, &within, upload).await.unwrap().unwrap();
    let put = async |content: String| {
        let seal = Seal {
            upload_id: upload.to_owned(),
            content,
            sha256: sha256(b"hello"),
            size: 5,
            reported: Some(sha256(b"hallo")),
            verdict: Verdict::Differs,
        };
        let document = Document {
            id: Seal::id(&life.client, &flow, upload).to_string(),
            bucket: Some(Bucket::Week(week_of(&flow).unwrap())),
            client: CLIENT.to_owned(),
            flow: FLOW.to_owned(),
            source: SEALS.to_owned(),
            order: 0,
            text: String::new(),
            hashes: Vec::new(),
            version: 1,
            size: 0,
            body: serde_json::to_vec(&seal).unwrap().into(),
        };
        let put = stage.index.put(Collection::Buffers, "", vec![document]);
        put.await.unwrap();
        stage.json(&at("/uploads")).await
    };
    let sealed = put(found.arranged.content().to_string()).await;
    // A seal is no file.
    assert_eq!(sealed.as_array().unwrap().len(), 1);
    assert_eq!(sealed[0]["verdict"], "differs");
    assert_eq!(sealed[0]["reported_sha256"], json!(sha256(b"hallo")));
    let other = put("of something else".to_owned()).await;
    assert_eq!(other[0]["verdict"], Value::Null);
    assert_eq!(other[0]["sha256"], json!(sha256(b"hello")));
    assert_eq!(
        stage.get(&at("/uploads/seals")).await.status,
        StatusCode::NOT_FOUND
    );
    stage.end().await;
}

#[tokio::test]
async fn an_agent_cannot_have_an_object_shown_that_is_not_its_own() {
    let stage = staged().await;
    let file = File {
        path: "/mine",
        number: 1,
        sparse: false,
    };
    stage
        .objects
        .put("uploads/root/aa/theirs", zlib(b"secret").into())
        .await
        .unwrap();
    let stolen = FileBuffer {
        reference: "uploads/root/aa/theirs".to_owned(),
        uncompressed_length: 6,
        data: zlib(b"mine!!").into(),
        ..file.buffer(0, b"")
    };
    let empty = FileBuffer {
        reference: "uploads/root/aa/theirs".to_owned(),
        uncompressed_length: 6,
        ..File { number: 2, ..file }.buffer(0, b"")
    };
    stage.store([message(stolen), message(empty)]).await;
    let uploads = stage.json(&at("/uploads")).await;
    for upload in uploads.as_array().unwrap() {
        let place = at(&format!(
            "/uploads/{}",
            upload["upload_id"].as_str().unwrap()
        ));
        let request = Stage::request(Method::GET, &place, Body::empty());
        let answered = stage.answer(request).await;
        // What holds less than it says is cut off.
        let body = to_bytes(answered.into_body(), usize::MAX).await;
        let body = body.unwrap_or_default();
        assert!(!body.windows(6).any(|bytes| bytes == b"secret"), "{body:?}");
    }
    stage.end().await;
}

#[tokio::test]
async fn a_dump_is_the_same_wherever_the_same_is_stored() {
    let mut dumps = Vec::new();
    for backwards in [false, true] {
        let stage = Stage::new().await;
        let file = File {
            path: "/a/b",
            number: 1,
            sparse: false,
        };
        let event = VeloMessage {
            session_id: "F.Monitoring".into(),
            ..rows("Custom.Tick", 0, &["{}"])
        };
        let mut messages = vec![
            rows("A", 0, &["{\"n\":1}"]),
            rows("A", 1, &["{\"n\":2}"]),
            message(file.buffer(0, b"hello")),
            message(file.eof(5, 5)),
            event,
        ];
        if backwards {
            messages.reverse();
        }
        stage.store(messages).await;
        let mut body = flow_body("FINISHED", 2);
        body["create_time"] = json!(if backwards { 99 } else { 11 });
        body["attempt"] = json!(if backwards { 2 } else { 1 });
        stage
            .project(Kind::Flow, &format!("{CLIENT}/{FLOW}"), 1, "", &body)
            .await;
        stage
            .project(
                Kind::Client,
                CLIENT,
                1,
                "",
                &json!({"client_id": CLIENT, "first_seen_at": 1}),
            )
            .await;
        let answered = stage.get("/dump").await;
        assert_eq!(answered.status, StatusCode::OK);
        dumps.push(answered.text().to_owned());
        stage.end().await;
    }
    assert_eq!(dumps[0], dumps[1]);
    let lines: Vec<Value> = dumps[0]
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let kinds: Vec<_> = lines
        .iter()
        .map(|line| line["kind"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        ["client", "flow", "rows", "rows", "upload", "events"]
    );
    assert_eq!(lines[1]["body"]["state"], "FINISHED");
    assert!(lines[1]["body"].get("create_time").is_none());
    assert_eq!(
        (lines[4]["path"].as_str(), &lines[4]["sha256"]),
        (Some("/a/b"), &json!(sha256(b"hello")))
    );
}
