//! A terabyte of which ten megabytes exist.

use crate::agent::{Agent, File, ROWS, end, noise, rows, sealed, sha256};
use nublar_tests::{Installation, Recorded, Server};
use serde_json::json;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;

const FLOW: &str = "F.SPARSE";
const TERABYTE: i64 = 1 << 40;
const PIECE: i64 = 1 << 20;
const PIECES: i64 = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sparse_terabyte_takes_the_room_of_what_exists() {
    let recorded = Recorded::load("collections");
    let installation = Installation::recorded(&recorded);
    let mut server = Server::start(&installation).await;
    let client = recorded.client_id();
    let mut agent = Agent::enrolled(&recorded, &server, server.player()).await;

    let file = File {
        sparse: true,
        ..File::plain(FLOW, "/dev/vast", 0, TERABYTE.unsigned_abs())
    };
    // A piece at the beginning of each tenth, and the last one at the very end.
    let place = |piece: i64| {
        if piece + 1 == PIECES {
            TERABYTE - PIECE
        } else {
            TERABYTE / PIECES * piece
        }
    };
    let (mut ranges, mut at, mut whole) = (Vec::new(), 0, Vec::new());
    for piece in 0..PIECES {
        let (original, stored) = (place(piece), piece * PIECE);
        if original > at {
            ranges.push((stored, at, 0, original - at));
        }
        ranges.push((stored, original, PIECE, PIECE));
        at = original + PIECE;
        let data = noise(4, piece.unsigned_abs(), usize::try_from(PIECE).unwrap());
        whole.extend_from_slice(&data);
        agent.post(&[file.part(stored.unsigned_abs(), data)]).await;
    }
    let stored = (PIECES * PIECE).unsigned_abs();
    let hash = sha256(&whole);
    let ends = [
        file.end(stored, &ranges),
        rows(FLOW, ROWS, &[file.row(&hash)]),
        end(FLOW, 1, 1, stored, &[ROWS]),
    ];
    agent.post(&ends).await;
    let uploads = sealed(&server, client, FLOW).await;
    let upload = &uploads[0];
    for (field, value) in [
        ("size", json!(TERABYTE)),
        ("padded_size", json!(TERABYTE)),
        ("stored", json!(stored)),
        ("sha256", json!(hash)),
        ("verdict", json!("verified")),
    ] {
        assert_eq!(upload[field], value, "{upload}");
    }

    // Any part of it is there at once.
    let id = upload["upload_id"].as_str().unwrap();
    let path = format!("/clients/{client}/flows/{FLOW}/uploads/{id}?pad=true");
    let api = server.api();
    for piece in 0..PIECES {
        let begins = place(piece);
        let from = (begins - 3).max(0);
        let range = format!("bytes={from}-{}", begins + 4);
        let part = api.part(&path, &range).await;
        let said = format!("bytes {from}-{}/{TERABYTE}", begins + 4);
        assert_eq!((part.status, part.range.as_str()), (206, said.as_str()));
        let zeros = usize::try_from(begins - from).unwrap();
        let data = usize::try_from(piece * PIECE).unwrap();
        let expected = [&[0; 3][..zeros], &whole[data..data + 5]].concat();
        assert_eq!(part.body, expected, "piece {piece}");
    }
    let middle = api.part(&path, "bytes=600000000000-600001048575").await;
    assert!(middle.body.len() == 1 << 20 && middle.body.iter().all(|byte| *byte == 0));
    let beyond = api.part(&path, &format!("bytes={TERABYTE}-")).await;
    assert_eq!(
        (beyond.status, beyond.range),
        (416, format!("bytes */{TERABYTE}"))
    );

    // Saved with its holes it is as long as the original, and takes no more room than what exists.
    let saved = installation.beside("vast");
    let name = saved.to_str().unwrap().to_owned();
    let words = [
        "uploads",
        client,
        FLOW,
        "--get",
        "/dev/vast",
        "--out",
        &name,
    ];
    server.order(&installation, &[&words[..], &["--pad"]].concat());
    let metadata = std::fs::metadata(&saved).unwrap();
    assert_eq!(metadata.len(), TERABYTE.unsigned_abs());
    let room = metadata.blocks() * 512;
    assert!(room < 2 * stored, "{room} bytes on the disk");
    let mut vast = std::fs::File::open(&saved).unwrap();
    let mut last = vec![0; usize::try_from(PIECE).unwrap()];
    vast.seek(SeekFrom::End(-PIECE)).unwrap();
    vast.read_exact(&mut last).unwrap();
    assert!(whole.ends_with(&last), "the last piece differs");
    std::fs::remove_file(&saved).unwrap();
    server.order(&installation, &[&words[..], &["--compact"]].concat());
    assert!(
        std::fs::read(&saved).unwrap() == whole,
        "the compact file differs"
    );

    let at = (TERABYTE - PIECE).to_string();
    let words = [
        "uploads", client, FLOW, "--get", "vast", "--hex", "--pad", "--length", "16",
    ];
    let looked = server.order(&installation, &[&words[..], &["--offset", &at]].concat());
    let first = &whole[whole.len() - usize::try_from(PIECE).unwrap()..][..16];
    let digits: Vec<String> = first.iter().map(|byte| format!("{byte:02x}")).collect();
    let expected = format!(
        "fffff00000  {}  {}",
        digits[..8].join(" "),
        digits[8..].join(" ")
    );
    assert!(looked.starts_with(&expected), "{looked}");
    server.stop().await;
}
