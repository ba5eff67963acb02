//! Names that mean harm are data: each comes back byte for byte, and none becomes a name of ours.

use crate::agent::{Agent, File, ROWS, end, noise, rows, sealed, sha256};
use crate::figures::files;
use nublar_tests::{Installation, Recorded, Server};
use std::collections::{BTreeMap, BTreeSet};

const FLOW: &str = "F.NAMES";

/// A hundred names, and the lists of names that say the same.
fn hostile() -> Vec<(String, Vec<String>)> {
    let long_unicode = "ü日本語🦀".repeat(4096 / 14);
    let mut names: Vec<String> = [
        "",
        ".",
        "..",
        "/",
        "//",
        "\\",
        "../../../../etc/passwd",
        "/../..",
        "..\\..\\x",
        "a/../../b",
        "a",
        "A",
        "a.",
        "a..",
        "a ",
        " a",
        "a\t",
        "a\n",
        "a\r\n",
        "\u{0}",
        "a\u{0}b",
        "\u{1b}[2J",
        "C:",
        "c:",
        "C:\\",
        "C:\\Windows\\System32\\config\\SAM",
        "\\\\.\\PhysicalDrive0",
        "\\\\?\\C:\\x",
        "\\\\server\\share\\x",
        "CON",
        "con",
        "NUL",
        "nul.txt",
        "COM1",
        "LPT9.log",
        "AUX",
        "$MFT",
        "file:stream",
        "file::$DATA",
        "%2e%2e%2f",
        "%00",
        "%",
        "%zz",
        "a%2Fb",
        "?",
        "*",
        "a?b*c",
        "<>|\"",
        "'",
        "\"",
        "`id`",
        "$(id)",
        ";rm -rf ~",
        "|",
        "&",
        "~",
        "~root",
        "-rf",
        "--help",
        "-",
        "seals",
        "uploads/root/aa/bb",
        "objects",
        "data.part",
        "a=",
        "\u{202e}gpj.exe",
        "\u{200b}",
        "\u{feff}",
        "e\u{301}",
        "é",
        "ß",
        "SS",
        "İ",
        "ı",
        "ﬁ",
        "Ａ",
        "🦀",
        "\u{10ffff}",
        "\u{e000}",
        "{}",
        "{\"a\":1}",
        "[1]",
        "null",
        "true",
        "0",
        "1e999",
        "NaN",
        "\\u0000",
        "\\",
        "a\\",
        "a/",
        ".htaccess",
        ".git/config",
        "index.html#x",
        "http://x/y?z=1",
        "data:,x",
    ]
    .into_iter()
    .map(str::to_owned)
    .collect();
    names.push(long_unicode);
    names.push("x".repeat(10_000));
    names.push("d/".repeat(5_000));
    names.push("../".repeat(3_000));
    let mut seen = BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    let mut number = 0;
    while names.len() < 100 {
        names.push(format!(
            "../twin{}{number}",
            if number % 2 == 0 { "." } else { " " }
        ));
        number += 1;
    }
    names
        .into_iter()
        .map(|name| {
            let parts = name.split('/').map(str::to_owned).collect();
            (name, parts)
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_names_come_back_to_the_byte_and_name_nothing_here() {
    let recorded = Recorded::load("collections");
    let installation = Installation::recorded(&recorded);
    let mut server = Server::start(&installation).await;
    let client = recorded.client_id();
    let mut agent = Agent::enrolled(&recorded, &server, server.player()).await;
    let beside = |installation: &Installation| {
        let folder = installation.data().parent().unwrap().to_owned();
        let entries = std::fs::read_dir(folder).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name());
        names.collect::<BTreeSet<_>>()
    };
    let before = beside(&installation);

    let names = hostile();
    assert!(names.len() >= 100);
    let (mut reports, mut bytes, mut contents) = (Vec::new(), 0, BTreeMap::new());
    for (number, (path, components)) in names.iter().enumerate() {
        // Half of them are large enough for an object.
        let length = if number % 2 == 0 { 40_000 } else { 100 };
        let data = noise(5, number as u64, length);
        let number = i64::try_from(number).unwrap();
        let file = File {
            components: components.clone(),
            ..File::plain(FLOW, path, number, length as u64)
        };
        reports.push(file.row(&sha256(&data)));
        bytes += length as u64;
        agent
            .post(&[file.part(0, data.clone()), file.end(length as u64, &[])])
            .await;
        let earlier = contents.insert(path.clone(), (components.clone(), data));
        assert!(earlier.is_none(), "{path:?} is there twice");
    }
    let count = i64::try_from(names.len()).unwrap();
    let last = [
        rows(FLOW, ROWS, &reports),
        end(FLOW, count, count, bytes, &[ROWS]),
    ];
    agent.post(&last).await;
    let uploads = sealed(&server, client, FLOW).await;
    assert_eq!(uploads.len(), names.len());
    let api = server.api();
    for upload in &uploads {
        let path = upload["path"].as_str().unwrap();
        let (components, data) = &contents[path];
        let shown: Vec<String> = serde_json::from_value(upload["components"].clone()).unwrap();
        assert_eq!(&shown, components, "{path:?}");
        // What has no name cannot be reported by it.
        let verdict = if path.is_empty() {
            "not reported"
        } else {
            "verified"
        };
        assert_eq!(upload["verdict"], verdict, "{path:?}");
        let id = upload["upload_id"].as_str().unwrap();
        let base = format!("/clients/{client}/flows/{FLOW}/uploads");
        let body = api.get(&format!("{base}/{id}")).await;
        assert!(body == *data, "{path:?} differs");
    }
    // People save one under the name that they choose, whatever it is called there.
    for path in ["../../../../etc/passwd", "C:", "\u{1b}[2J"] {
        let saved = installation.beside("saved");
        let words = ["uploads", client, FLOW, "--out", saved.to_str().unwrap()];
        let get = format!("--get={path}");
        let told = server.order(&installation, &[&words[..], &[&get]].concat());
        assert!(!told.contains('\u{1b}'), "{told:?}");
        assert!(
            std::fs::read(&saved).unwrap() == contents[path].1,
            "{path:?}"
        );
        std::fs::remove_file(saved).unwrap();
    }
    let listed = server.order(&installation, &["uploads", client, FLOW]);
    assert!(
        !listed.contains('\u{1b}') && !listed.contains('\u{202e}'),
        "{listed}"
    );

    assert_eq!(
        beside(&installation),
        before,
        "something stands beside the data"
    );
    let objects = files(&installation.data().join("objects"));
    let of_uploads: Vec<_> = objects
        .iter()
        .map(|path| path.to_str().unwrap())
        .filter(|path| path.contains("uploads"))
        .collect();
    assert_eq!(of_uploads.len(), names.len().div_ceil(2));
    for path in of_uploads {
        let (_, key) = path.rsplit_once('/').unwrap();
        let key = key.strip_suffix('=').unwrap();
        let opaque = key.len() == 32 && key.bytes().all(|byte| byte.is_ascii_hexdigit());
        assert!(opaque, "{path}");
    }
    server.stop().await;
}
