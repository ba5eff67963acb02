//! Many small files in one flow.

use crate::agent::{Agent, File, ROWS, end, noise, rows, sealed, sha256};
use crate::figures::files;
use bytes::Bytes;
use nublar_tests::{Installation, Recorded, Server, is_long};
use std::collections::BTreeMap;
use std::time::Instant;

const FLOW: &str = "F.MANY";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_files_by_the_thousand_are_whole_and_cost_no_object_each() {
    let count: usize = if is_long("many uploads") { 1_000 } else { 150 };
    let recorded = Recorded::load("collections");
    let installation = Installation::recorded(&recorded);
    let mut server = Server::start(&installation).await;
    let client = recorded.client_id();
    let mut agent = Agent::enrolled(&recorded, &server, server.player()).await;

    let begun = Instant::now();
    let mut contents = BTreeMap::new();
    let (mut messages, mut reports, mut bytes): (Vec<Bytes>, _, _) = (Vec::new(), Vec::new(), 0);
    for number in 0..count {
        // Every seventh is empty, none is large.
        let length = number % 7 * 500;
        let data = noise(3, number as u64, length);
        let path = format!("/home/user/{number}.txt");
        let number = i64::try_from(number).unwrap();
        let file = File::plain(FLOW, &path, number, length as u64);
        reports.push(file.row(&sha256(&data)));
        if length > 0 {
            messages.push(file.packed(0, &data));
        }
        messages.push(file.end(length as u64, &[]));
        bytes += length as u64;
        contents.insert(path, data);
    }
    for some in messages.chunks(400) {
        agent.post(some).await;
    }
    let files_sent = i64::try_from(count).unwrap();
    let last = [
        rows(FLOW, ROWS, &reports),
        end(FLOW, files_sent, files_sent, bytes, &[ROWS]),
    ];
    agent.post(&last).await;
    let uploads = sealed(&server, client, FLOW).await;
    let took = begun.elapsed();
    assert_eq!(uploads.len(), count);
    for upload in &uploads {
        let data = &contents[upload["path"].as_str().unwrap()];
        assert_eq!(upload["sha256"], sha256(data), "{upload}");
        assert_eq!(upload["verdict"], "verified", "{upload}");
    }
    let listing = Instant::now();
    let listed = server.order(&installation, &["uploads", client, FLOW, "--json"]);
    let listing = listing.elapsed();
    assert_eq!(listed.lines().count(), count);
    let objects = files(&installation.data().join("objects"))
        .into_iter()
        .filter(|path| path.to_string_lossy().contains("uploads"))
        .count();
    println!(
        "uploads, many: {count} files: sent, stored and sealed in {:.2} s, listed in {:.2} s, {objects} objects",
        took.as_secs_f64(),
        listing.as_secs_f64(),
    );
    assert_eq!(objects, 0, "a small file costs an object");
    server.stop().await;
}
