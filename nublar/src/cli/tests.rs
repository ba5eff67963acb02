//! What is printed, and what is sent.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::artifacts::problem_line;
use super::dead_letters::{hex, runs};
use super::events::Event;
use super::results::{aligned, log_line};
use super::table::{Table, shown};
use super::times::{duration, size, time};
use super::{Command, collect, uploads};
use clap::Parser;
use serde_json::{Value, json};

#[derive(Debug, Parser)]
#[command(name = "nublar")]
struct Line {
    #[command(subcommand)]
    command: Command,
}

fn parse(line: &str) -> Result<Command, clap::Error> {
    Line::try_parse_from(line.split_whitespace()).map(|line| line.command)
}

#[test]
fn tables_are_aligned_and_have_no_trailing_blanks() {
    let mut table = Table::new(["NAME", ">ROWS", "NOTE"]);
    table.row(["é".to_owned(), "5".to_owned(), String::new()]);
    table.row(["日本".to_owned(), "12345".to_owned(), "x".to_owned()]);
    assert_eq!(
        table.to_string(),
        "NAME   ROWS  NOTE\né         5\n日本  12345  x\n"
    );
}

#[test]
fn long_cells_are_cut_and_paths_are_not() {
    let long = "a".repeat(200);
    let mut table = Table::new(["A"]);
    table.row([long.clone()]);
    let last = table.to_string().lines().last().unwrap().to_owned();
    assert_eq!((last.chars().count(), last.ends_with('…')), (80, true));
    let mut table = Table::new(["A"]).unbounded();
    table.row([long.clone()]);
    assert!(table.to_string().contains(&long));
}

#[test]
fn no_agent_writes_to_the_terminal() {
    assert_eq!(
        shown("a\x1b[31mb\r\n\u{202e}c"),
        "a\\u{1b}[31mb\\r\\n\\u{202e}c"
    );
    assert_eq!(shown("ünï 日本"), "ünï 日本");
    let rows = [json!({"\x1b]0;x\x07": "\x1b[2J"})];
    assert!(!aligned(&rows).to_string().contains('\x1b'));
    assert!(!log_line(&json!({"message": "\x1b[2J", "level": "\x1b"})).contains('\x1b'));
}

#[test]
fn rows_make_a_table_of_all_their_columns() {
    let rows = [
        json!({"n": 1, "name": "a"}),
        json!({"n": 20, "more": {"k": [1]}}),
        json!({"n": null, "name": null}),
    ];
    assert_eq!(
        aligned(&rows).to_string(),
        " n  name  more\n 1  a\n20        {\"k\":[1]}\n\n"
    );
}

#[test]
fn times_and_sizes_are_for_people() {
    assert_eq!(time(Some(0)), "");
    assert_eq!(time(None), "");
    assert_eq!(time(Some(1_795_514_940_444_042)), "2026-11-24T10:09:00Z");
    assert_eq!(time(Some(951_782_400_000_000)), "2000-02-29T00:00:00Z");
    assert_eq!(time(Some(4_102_444_799_000_000)), "2099-12-31T23:59:59Z");
    assert_eq!(
        [
            duration(0.25),
            duration(42.0),
            duration(185.0),
            duration(7620.0),
            duration(273_600.0)
        ],
        ["0.2 s", "42 s", "3 min 5 s", "2 h 7 min", "3 d 4 h"]
    );
    assert_eq!(
        [
            size(0),
            size(1023),
            size(1536),
            size(1_048_575),
            size(5 << 30),
            size(u64::MAX)
        ],
        ["0 B", "1023 B", "1.5 KiB", "1.0 MiB", "5.0 GiB", "16.0 EiB"]
    );
}

#[test]
fn log_lines_have_time_and_level() {
    let line = json!({"client_time": 1_795_514_940, "level": "INFO", "message": "hello\n"});
    assert_eq!(log_line(&line), "2026-11-24T10:09:00Z  INFO     hello");
}

#[test]
fn problems_read_like_a_compilers() {
    let problem = json!({"line": 8, "column": 3, "key": "sources[0].query", "message": "no"});
    assert_eq!(
        problem_line("a.yaml", &problem),
        "a.yaml:8:3: sources[0].query: no"
    );
    assert_eq!(
        problem_line("a.yaml", &json!({"line": 0, "message": "no"})),
        "a.yaml: no"
    );
}

#[test]
fn a_wish_says_what_the_line_says() {
    let line = "nublar collect C.1 A B/S --param X=1=2 --param Y= --wait=60 --urgent --timeout 5 --deadline 9";
    let Command::Collect { wish, .. } = parse(line).unwrap() else {
        panic!()
    };
    assert_eq!(wish.wait, Some(60));
    assert_eq!(
        collect::body(&wish).unwrap(),
        json!({"artifacts": ["A", "B/S"], "parameters": {"X": "1=2", "Y": ""}, "urgent": true, "timeout": 5, "deadline_s": 9})
    );
    let wish = |line: &str| match parse(line).unwrap() {
        Command::Collect { wish, .. } => wish,
        other => panic!("{other:?}"),
    };
    assert_eq!(wish("nublar collect C.1 A --wait").wait, Some(0));
    assert_eq!(wish("nublar collect C.1 A").wait, None);
    assert!(collect::body(&wish("nublar collect C.1 A --param X")).is_err());
    assert!(collect::body(&wish("nublar collect C.1 A --param X=1 --param X=2")).is_err());
    assert!(parse("nublar collect C.1").is_err());
    assert!(parse("nublar uploads C.1 F.1 --get x").is_err());
}

#[test]
fn events_are_listed_read_or_followed() {
    assert!(parse("nublar events C.1 --since 5").is_ok());
    for line in [
        "nublar events",
        "nublar events C.1 --follow",
        "nublar events C.1 --limit 5",
        "nublar events C.1 --logs",
        "nublar events C.1 A --follow --since 5",
        "nublar events C.1 A --follow --limit 5",
        "nublar events C.1 A --format xml",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
    let line = "nublar events C.1 A/S --since 2026-11-24T10:09:00Z --until 7 --limit 3 --logs";
    assert!(parse(line).is_ok());
    assert!(parse("nublar events C.1 A/S --follow --logs --json").is_ok());
}

#[test]
fn a_stream_becomes_events() {
    let stream = ": alive\n\nevent: place\nid: 1.2.0.0\ndata: {}\n\n:\n\nid:1.3.0.1\nevent:row\ndata:  {\"a\": \"b: c\"}\n\n";
    let mut event = Event::default();
    let mut events = Vec::new();
    for line in stream.lines() {
        if event.add(line) {
            events.push(std::mem::take(&mut event));
        }
    }
    let of = |name: &str, id: &str, data: &str| Event {
        name: name.to_owned(),
        id: id.to_owned(),
        data: data.to_owned(),
    };
    assert_eq!(
        events,
        [
            of("place", "1.2.0.0", "{}"),
            of("row", "1.3.0.1", " {\"a\": \"b: c\"}")
        ]
    );
}

#[test]
fn an_upload_is_chosen_by_id_path_or_name() {
    let upload =
        |id: &str, path: &str, name: &str| json!({"upload_id": id, "path": path, "name": name});
    let uploads = [
        upload("1", "/a/x", "x"),
        upload("2", "/b/x", "x"),
        upload("3", "/b/y", "y"),
    ];
    let chosen = |name: &str| -> Result<Value, String> {
        uploads::choose(&uploads, name)
            .map(|upload| upload["upload_id"].clone())
            .map_err(|error| error.to_string())
    };
    assert_eq!(chosen("2").unwrap(), "2");
    assert_eq!(chosen("/b/x").unwrap(), "2");
    assert_eq!(chosen("y").unwrap(), "3");
    assert!(chosen("x").unwrap_err().contains("2 uploads"));
    assert!(chosen("z").unwrap_err().contains("there are: x, x, y"));
}

#[test]
fn a_server_that_is_not_there_says_how_to_start_it() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().display().to_string();
    let place = |line: &str| {
        parse(line)
            .unwrap()
            .target()
            .unwrap()
            .place()
            .map_err(|error| error.to_string())
    };
    let error = place(&format!("nublar clients --data {data}"))
        .err()
        .unwrap();
    assert!(
        error.contains(&format!("nublar run --data {data}")),
        "{error}"
    );
    std::fs::write(
        folder.path().join("api.json"),
        r#"{"url":"http://127.0.0.1:1","token":"t","agents":[]}"#,
    )
    .unwrap();
    let local = place(&format!("nublar clients --data {data}")).unwrap();
    assert_eq!(
        (local.url.as_str(), local.token.as_str()),
        ("http://127.0.0.1:1", "t")
    );
    let file = folder.path().join("token");
    std::fs::write(&file, "secret\n").unwrap();
    let remote = place(&format!(
        "nublar clients --server http://x:1/ --token-file {}",
        file.display()
    ))
    .unwrap();
    assert_eq!(
        (remote.url.as_str(), remote.token.as_str()),
        ("http://x:1", "secret")
    );
    let error = place("nublar clients --server x:1").err().unwrap();
    assert!(error.contains("http://"), "{error}");
}

#[test]
fn a_flow_is_summed_up_in_a_line() {
    let flow =
        json!({"state": "FINISHED", "status": "", "total_collected_rows": 1, "total_logs": 0});
    assert_eq!(collect::summary(&flow), "FINISHED (1 row, 0 log lines)");
    let flow = json!({
        "state": "ERROR", "status": "no\nway", "total_collected_rows": 0, "total_logs": 1,
        "total_uploaded_files": 2, "total_uploaded_bytes": 1536,
    });
    assert_eq!(
        collect::summary(&flow),
        "ERROR: no\\nway (0 rows, 2 files (1.5 KiB), 1 log line)"
    );
}

#[test]
fn copies_of_dead_letters_are_hex_or_what_of_them_is_text() {
    let bytes = b"\x0a\x0fF.DC2M4H5TA9T34\x00\x1b[31m\xffab{\"n\":1}";
    assert_eq!(
        hex(bytes),
        "00000000  0a 0f 46 2e 44 43 32 4d  34 48 35 54 41 39 54 33  ..F.DC2M4H5TA9T3\n\
         00000010  34 00 1b 5b 33 31 6d ff  61 62 7b 22 6e 22 3a 31  4..[31m.ab{\"n\":1\n\
         00000020  7d                                                }\n"
    );
    assert_eq!(runs(bytes), "F.DC2M4H5TA9T34\n[31m\nab{\"n\":1}\n");
    assert_eq!((hex(b""), runs(b"")), (String::new(), String::new()));
}

#[test]
fn dead_letters_are_named_by_id() {
    assert!(parse("nublar dead-letters retry a b").is_ok());
    assert!(parse("nublar dead-letters show a --copy hex").is_ok());
    for wrong in ["retry", "drop", "show a --copy html", "show"] {
        assert!(
            parse(&format!("nublar dead-letters {wrong}")).is_err(),
            "{wrong}"
        );
    }
}
