//! Every fault that is planted is found, and where there is none nothing is.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::entries::Totals;
use crate::ledger::{Ledger, Tag, What};
use bytes::Bytes;
use serde_json::json;
use std::sync::Arc;
use std::time::Instant;

const FLOW: &str = "F.AAAA";

/// What a flow of two messages of rows, one of logs and one file of two parts looks like.
struct Planted {
    entry: FlowEntry,
    shown: Shown,
}

fn run_once(ledger: &Ledger, stage: Stage) -> FlowEntry {
    let book = ledger.book("C.1");
    let run = book.delivered(FLOW, 1, Instant::now());
    let source: Arc<str> = "S".into();
    let totals = Totals {
        rows: 3,
        logs: 1,
        files: 1,
        bytes: 5,
        ..Totals::default()
    };
    let whats = [
        book.made_buffer(FLOW, run, 0, "/f", 0, b"abc"),
        book.made_buffer(FLOW, run, 0, "/f", 3, b"de"),
        book.made_eof(FLOW, run, 0, "/f"),
        book.made_rows(FLOW, run, &source, 0, 2, b"{\"n\":0}\n{\"n\":1}\n"),
        book.made_rows(FLOW, run, &source, 2, 1, b"{\"n\":2}\n"),
        book.made_logs(FLOW, run, 0, 1, b"{\"l\":0}\n"),
        book.made_marker(FLOW, run, totals),
    ];
    let tags = whats.map(|what| Tag {
        flow: FLOW.into(),
        run,
        what,
    });
    book.advance(&tags, Stage::Sent);
    book.advance(&tags, stage);
    book.flow(FLOW).unwrap()
}

fn right() -> Planted {
    let entry = run_once(&Ledger::new(), Stage::Committed);
    let upload = ShownUpload {
        upload_id: "u".into(),
        path: "/f".into(),
        stored: 5,
        complete: true,
        sent_twice: false,
        bytes: Bytes::from_static(b"abcde"),
    };
    let shown = Shown {
        document: json!({
            "state": "FINISHED", "reason": "", "status": "", "end_time": 1, "ran_twice": false,
            "total_collected_rows": 3, "total_uploaded_files": 1, "total_uploaded_bytes": 5,
        }),
        results: [(
            "S".to_owned(),
            Bytes::from_static(b"{\"n\":0}\n{\"n\":1}\n{\"n\":2}\n"),
        )]
        .into(),
        logs: Bytes::from_static(b"{\"l\":0}\n"),
        uploads: vec![upload],
    };
    Planted { entry, shown }
}

fn rules(plant: impl FnOnce(&mut Planted)) -> Vec<&'static str> {
    let mut planted = right();
    plant(&mut planted);
    let found = check_flow("C.1", FLOW, &planted.entry, Some(&planted.shown));
    found.iter().map(|violation| violation.rule).collect()
}

fn rows(planted: &mut Planted, text: &'static str) {
    planted
        .shown
        .results
        .insert("S".to_owned(), Bytes::from_static(text.as_bytes()));
}

#[test]
fn what_is_right_passes() {
    assert!(rules(|_| {}).is_empty());
}

#[test]
fn a_missing_flow_is_found() {
    let found = check_flow("C.1", FLOW, &right().entry, None);
    assert_eq!(found[0].rule, "flow missing");
}

#[test]
fn lost_changed_doubled_and_swapped_rows_are_found() {
    for wrong in [
        "",
        "{\"n\":0}\n{\"n\":1}\n",
        "{\"n\":0}\n{\"n\":1}\n{\"n\":3}\n",
        "{\"n\":1}\n{\"n\":0}\n{\"n\":2}\n",
        "{\"n\":0}\n{\"n\":1}\n{\"n\":2}\n{\"n\":2}\n",
        "{\"n\":2}\n{\"n\":0}\n{\"n\":1}\n",
        "{\"n\":0}\n{\"n\":1}\n{\"n\":2}",
    ] {
        let found = rules(|planted| rows(planted, wrong));
        assert!(found.contains(&"rows differ"), "{wrong:?}: {found:?}");
    }
    let more = rules(|planted| {
        planted
            .shown
            .results
            .insert("T".to_owned(), Bytes::from_static(b"{}\n"));
    });
    assert_eq!(more, ["rows from nowhere", "totals differ"]);
}

#[test]
fn wrong_totals_are_found() {
    for name in [
        "total_collected_rows",
        "total_uploaded_files",
        "total_uploaded_bytes",
    ] {
        assert!(
            rules(|planted| planted.shown.document[name] = json!(7)).contains(&"totals differ"),
            "{name}"
        );
    }
}

#[test]
fn a_changed_byte_a_missing_part_and_a_doubled_file_are_found() {
    for wrong in ["abcdE", "abc", "abcdee", "deabc", ""] {
        let found =
            rules(|planted| planted.shown.uploads[0].bytes = Bytes::from_static(wrong.as_bytes()));
        assert_eq!(found, ["uploads differ"], "{wrong:?}");
    }
    assert_eq!(
        rules(|planted| planted.shown.uploads[0].complete = false),
        ["uploads differ"]
    );
    assert_eq!(
        rules(|planted| planted.shown.uploads[0].sent_twice = true),
        ["uploads differ"]
    );
    assert_eq!(
        rules(|planted| planted.shown.uploads.clear()),
        ["upload missing"]
    );
    let doubled = rules(|planted| {
        let twin = planted.shown.uploads[0].clone();
        planted.shown.uploads.push(twin);
    });
    assert_eq!(doubled, ["uploads differ"]);
    let foreign = rules(|planted| {
        let other = ShownUpload {
            path: "/other".into(),
            ..planted.shown.uploads[0].clone()
        };
        planted.shown.uploads.push(other);
    });
    assert_eq!(foreign, ["upload from nowhere"]);
}

#[test]
fn lost_log_rows_are_found() {
    assert_eq!(rules(|planted| planted.shown.logs = Bytes::new()), [LOGS]);
}

#[test]
fn wrong_ends_are_found() {
    assert_eq!(
        rules(|planted| planted.shown.document["state"] = json!("IN_PROGRESS")),
        ["not final"]
    );
    assert_eq!(
        rules(|planted| planted.shown.document["state"] = json!("ERROR")),
        ["not finished"]
    );
    assert_eq!(
        rules(|planted| planted.shown.document["end_time"] = json!(null)),
        ["no end"]
    );
    let cancelled = |ordered| {
        rules(move |planted| {
            planted.entry.cancel_ordered = ordered;
            planted.shown.document["state"] = json!("ERROR");
            planted.shown.document["reason"] = json!("cancelled");
        })
    };
    assert!(cancelled(true).is_empty());
    assert_eq!(cancelled(false), ["cancelled by nobody"]);
    let early = rules(|planted| planted.entry.runs[0].marker = Stage::Queued);
    assert_eq!(early, ["finished too early"]);
    let failed = |state: &'static str, status: &'static str| {
        rules(move |planted| {
            let run = &mut planted.entry.runs[0];
            run.reported.as_mut().unwrap().error = "no such table".into();
            planted.shown.document["state"] = json!(state);
            planted.shown.document["status"] = json!(status);
        })
    };
    assert_eq!(failed("FINISHED", ""), ["error lost"]);
    assert_eq!(failed("ERROR", "something"), ["error lost"]);
    assert!(failed("ERROR", "query: no such table").is_empty());
    assert_eq!(
        rules(|planted| planted.shown.document["ran_twice"] = json!(true)),
        ["said to have run twice"]
    );
}

#[test]
fn what_was_sent_and_never_answered_may_be_there_or_not() {
    let entry = run_once(&Ledger::new(), Stage::Sent);
    let ends = |shown: Shown| check_flow("C.1", FLOW, &entry, Some(&shown));
    assert!(ends(right().shown).is_empty());
    let mut shown = right().shown;
    shown.results.clear();
    shown.uploads.clear();
    shown.logs = Bytes::new();
    shown.document["state"] = json!("ERROR");
    for name in [
        "total_collected_rows",
        "total_uploaded_files",
        "total_uploaded_bytes",
    ] {
        shown.document[name] = json!(0);
    }
    assert_eq!(ends(shown.clone()), []);
    // Half of a message can not be there.
    shown
        .results
        .insert("S".to_owned(), Bytes::from_static(b"{\"n\":0}\n"));
    shown.document["total_collected_rows"] = json!(1);
    assert_eq!(ends(shown)[0].rule, "rows differ");
}

#[test]
fn a_double_run_is_found_when_it_happens() {
    let ledger = Ledger::new();
    run_once(&ledger, Stage::Committed);
    let book = ledger.book("C.1");
    book.delivered(FLOW, 1, Instant::now());
    assert_eq!(ledger.violations().1[0].rule, "delivered twice");
    book.delivered(FLOW, 2, Instant::now());
    assert_eq!(ledger.violations().1[1].rule, "ran again after life");

    let ledger = Ledger::new();
    let book = ledger.book("C.1");
    book.delivered(FLOW, 1, Instant::now());
    // It never lived, and its agent has forgotten it; that something was sent does not mean that
    // it arrived.
    let message = |run| {
        [Tag {
            flow: FLOW.into(),
            run,
            what: What::Other,
        }]
    };
    book.advance(&message(0), Stage::Sent);
    book.delivered(FLOW, 2, Instant::now());
    assert_eq!(ledger.violations().0, 0);
    book.advance(&message(1), Stage::Committed);
    book.delivered(FLOW, 3, Instant::now());
    assert_eq!(ledger.violations().1[0].rule, "ran again after life");
}

#[test]
fn a_run_that_died_before_it_lived_leaves_nothing() {
    let ledger = Ledger::new();
    let book = ledger.book("C.1");
    let source: Arc<str> = "S".into();
    let made = |start, stage| {
        let run = book.delivered(FLOW, start, Instant::now());
        let row = format!("{{\"run\":{run}}}\n");
        let whats = [
            book.made_rows(FLOW, run, &source, 0, 1, row.as_bytes()),
            book.made_marker(
                FLOW,
                run,
                Totals {
                    rows: 1,
                    ..Totals::default()
                },
            ),
        ];
        let tags = whats.map(|what| Tag {
            flow: FLOW.into(),
            run,
            what,
        });
        book.advance(&tags, stage);
        row
    };
    let (first, second) = (made(1, Stage::Sent), made(2, Stage::Committed));
    let rules = |row: &str| {
        let mut shown = Shown {
            document: right().shown.document,
            ..Shown::default()
        };
        shown.document["total_collected_rows"] = json!(1);
        shown.document["total_uploaded_files"] = json!(0);
        shown.document["total_uploaded_bytes"] = json!(0);
        shown
            .results
            .insert("S".to_owned(), Bytes::from(row.to_owned()));
        let found = check_flow("C.1", FLOW, &book.flow(FLOW).unwrap(), Some(&shown));
        found
            .iter()
            .map(|violation| violation.rule)
            .collect::<Vec<_>>()
    };
    assert!(rules(&second).is_empty());
    assert_eq!(rules(&first), ["rows differ"]);
}
