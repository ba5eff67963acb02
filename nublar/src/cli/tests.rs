//! What is printed, and what is sent.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::artifacts::problem_line;
use super::dead_letters::runs;
use super::download::Places;
use super::events::Event;
use super::results::{aligned, log_line};
use super::table::{Table, shown};
use super::times::{duration, size, time};
use super::{Command, OfClient, collect, hex, shell, uploads, vfs};
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
    let versions = [1_764_500_000_000_000_i64, 1_764_500_001_000_000].map(|modified_us| {
        json!({"upload_id": modified_us.to_string(), "path": "/x", "modified_us": modified_us})
    });
    let told = uploads::choose(&versions, "/x").unwrap_err().to_string();
    assert!(told.contains("(2025-11-30T10:53:21Z /x)"), "{told}");
    assert!(chosen("z").unwrap_err().contains("there are: x, x, y"));

    let mut half = upload("4", "/b/y", "y");
    half["replaced_by"] = json!("3");
    let restarted = [half, upload("3", "/b/y", "y")];
    assert_eq!(uploads::choose(&restarted, "y").unwrap()["upload_id"], "3");
    let alone = &restarted[..1];
    assert_eq!(uploads::choose(alone, "y").unwrap()["upload_id"], "4");
}

#[test]
fn an_upload_is_saved_or_looked_at() {
    let base = "nublar uploads C.1 F.1";
    for good in [
        "",
        "--get x --out y --pad --partial",
        "--get x --out - --compact",
        "--get x --hex --offset 0x10 --length 64 --pad",
    ] {
        let parsed = parse(&format!("{base} {good}"));
        assert!(parsed.is_ok(), "{good}: {}", parsed.unwrap_err());
    }
    for bad in [
        "--get x",
        "--out y",
        "--hex",
        "--get x --out y --hex",
        "--get x --hex --partial",
        "--get x --out y --offset 5",
        "--get x --out y --pad --compact",
        "--get x --hex --offset -1",
        "--pad",
    ] {
        assert!(parse(&format!("{base} {bad}")).is_err(), "{bad}");
    }
    let Command::Uploads { wanted, .. } =
        parse(&format!("{base} --get x --hex --offset 0x1F")).unwrap()
    else {
        panic!()
    };
    assert_eq!((wanted.offset, wanted.length), (31, 512));
}

#[test]
fn bytes_are_shown_with_offset_digits_and_characters() {
    assert_eq!(
        hex::shown(16, b"hello\x00\x1b[2J\xff ~\n|"),
        "00000010  68 65 6c 6c 6f 00 1b 5b  32 4a ff 20 7e 0a 7c     |hello..[2J. ~.||"
    );
    assert_eq!(
        hex::shown(1 << 40, b"a"),
        format!("10000000000  61{:46}  |a|", "")
    );
}

#[test]
fn stored_bytes_go_to_their_places_in_a_file_with_holes() {
    let said = json!({"size": 20, "ranges": [[2, 0, 3], [10, 3, 2], [15, 3, 4]]});
    let places = Places::read(&said).unwrap();
    let whole = b"abcdefg";
    for cut in 0..=whole.len() {
        let mut file = std::io::Cursor::new(vec![b'.'; 20]);
        let (first, rest) = whole.split_at(cut);
        places.write(&mut file, 0, first).unwrap();
        places.write(&mut file, cut as u64, rest).unwrap();
        assert_eq!(file.into_inner(), b"..abc.....de...defg.", "cut at {cut}");
    }
    assert!(Places::read(&json!({"size": 1})).is_err());
}

#[test]
fn a_directory_is_found_within_a_listing() {
    assert_eq!(vfs::parts("/etc//x/"), ["etc", "x"]);
    assert_eq!(vfs::parts("C:\\Users\\a b"), ["C:", "Users", "a b"]);
    assert_eq!(vfs::parts("/with\\backslash"), ["with\\backslash"]);
    let stats = [
        json!({"Components": ["etc", "x"], "Stats": {"StartIdx": 5, "EndIdx": 9}}),
        json!({"Components": ["etc"], "Stats": {"start_idx": 0, "end_idx": 5}}),
    ];
    let of = |path, is_new| vfs::within(&stats, &vfs::parts(path), is_new);
    assert_eq!(of("/etc/x", false), Some((5, 9)));
    assert_eq!(of("/etc", false), Some((0, 5)));
    assert_eq!(of("/usr", false), None);
    // The agent has its own way to write what was asked for: the top is meant.
    assert_eq!(of("\\\\.\\C:", true), Some((0, 5)));
    assert_eq!(vfs::within(&[], &[], true), None);
}

#[test]
fn a_command_is_run_by_the_shell_of_its_system() {
    let artifact =
        |os, powershell| shell::artifact(os, powershell).map_err(|error| error.to_string());
    assert_eq!(artifact("linux", false).unwrap(), "Linux.Sys.BashShell");
    assert_eq!(artifact("darwin", false).unwrap(), "Linux.Sys.BashShell");
    assert_eq!(
        artifact("Windows", false).unwrap(),
        "Windows.System.CmdShell"
    );
    assert_eq!(
        artifact("windows", true).unwrap(),
        "Windows.System.PowerShell"
    );
    assert!(artifact("linux", true).unwrap_err().contains("Windows"));
    assert!(artifact("", false).unwrap_err().contains("not known yet"));
    assert!(artifact("plan9", false).is_err());
    for (code, exit) in [
        (0, 0),
        (7, 7),
        (255, 255),
        (256, 255),
        (-1, 255),
        (0xC000_0005, 255),
    ] {
        assert_eq!(shell::exit_code(code), exit, "{code}");
    }
    let rows = [
        json!({"Stdout": "a", "Stderr": "", "ReturnCode": -1, "Complete": false}),
        json!({"Stdout": "b\n", "Stderr": "e", "ReturnCode": 3, "Complete": true}),
    ];
    let given = shell::given(&rows);
    assert_eq!(
        (given.stdout.as_str(), given.stderr.as_str(), given.code),
        ("ab\n", "e", Some(3))
    );
    assert_eq!(shell::given(&rows[..1]).code, None);
    let words = |line| match parse(line).unwrap() {
        Command::Shell(shell) => shell.command,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        words("nublar shell --json C.1 ls --json -l"),
        ["ls", "--json", "-l"]
    );
    assert!(parse("nublar shell C.1").is_err());
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
fn of_copies_of_dead_letters_what_is_text_is_shown() {
    let bytes = b"\x0a\x0fF.DC2M4H5TA9T34\x00\x1b[31m\xffab{\"n\":1}";
    assert_eq!(runs(bytes), "F.DC2M4H5TA9T34\n[31m\nab{\"n\":1}\n");
    assert_eq!(runs(b""), "");
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

#[test]
fn a_client_is_shown_or_deleted() {
    let shown = parse("nublar client C.1 --json").unwrap();
    assert!(matches!(
        &shown,
        Command::Client { client: Some(client), action: None, .. } if client == "C.1"
    ));
    assert!(shown.target().unwrap().json);
    let removed = parse("nublar client rm C.1 --yes --json").unwrap();
    assert!(matches!(
        &removed,
        Command::Client { action: Some(OfClient::Rm { client, yes: true, .. }), .. }
            if client == "C.1"
    ));
    assert!(removed.target().unwrap().json);
    for bad in ["nublar client", "nublar client rm", "nublar client C.1 C.2"] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}
