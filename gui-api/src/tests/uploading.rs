//! Uploads and the dump.

use super::reading::{FLOW, flow_body, rows};
use super::stage::{CLIENT, Stage};
use crate::tails::Kind;
use aws_lc_rs::digest;
use axum::body::Body;
use axum::http::{Method, StatusCode};
use libdeflater::{CompressionLvl, Compressor};
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
