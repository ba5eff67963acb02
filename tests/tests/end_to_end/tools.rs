//! Tools by URL: agents fetch them from there, or somebody fetches them for all.

use aws_lc_rs::digest::{SHA256, digest};
use nublar_simulator::Trust;
use nublar_tests::{Installation, Recorded, Server};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;

const FILE: &[u8] = b"a scanner of the tests";

fn sha256() -> String {
    hex::encode(digest(&SHA256, FILE))
}

/// Serves [`FILE`] at `/scan.exe`, a part of it at `/cut.exe`, and nothing else.
fn maker() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (mut asked, mut byte) = (Vec::new(), [0]);
            while !asked.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() > 0 {
                asked.extend_from_slice(&byte);
            }
            let (status, body) = match asked.split(|byte| *byte == b' ').nth(1) {
                Some(b"/scan.exe") => ("200 OK", FILE),
                Some(b"/cut.exe") => ("200 OK", &FILE[..5]),
                _ => ("404 Not Found", &b""[..]),
            };
            let length = FILE.len();
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(body).unwrap();
        }
    });
    address
}

/// An artifact that needs a tool of its own name.
fn artifact(name: &str, tool: &str) -> String {
    format!(
        "name: Custom.{name}\ntools: [{{name: {name}, {tool}}}]\n\
         sources: [{{query: SELECT * FROM scope()}}]\n"
    )
}

#[tokio::test]
async fn tools_by_url_are_fetched_by_agents_or_for_them() {
    let maker = maker();
    let installation = Installation::recorded(&Recorded::load("collections"));
    let mut server = Server::start(&installation).await;
    let (api, sha256) = (server.api(), sha256());
    let upper = sha256.to_uppercase();
    let at = |path: &str| format!("url: 'http://{maker}/{path}'");
    let artifacts = [
        (
            "Remote",
            format!("{}, expected_hash: {sha256}", at("scan.exe")),
        ),
        (
            "Local",
            format!(
                "{}, serve_locally: true, expected_hash: {upper}",
                at("scan.exe")
            ),
        ),
        ("Unhashed", at("scan.exe")),
        (
            "Other",
            format!(
                "{}, serve_locally: true, expected_hash: {}",
                at("scan.exe"),
                "0".repeat(64)
            ),
        ),
        ("Cut", at("cut.exe")),
        ("Gone", at("gone.exe")),
        ("Nowhere", "github_project: a/b".to_owned()),
    ];
    for (name, tool) in &artifacts {
        let (status, answer) = api.put("/artifacts", &artifact(name, tool)).await;
        assert_eq!(status, 200, "{answer}");
    }
    let listed = || {
        let lines = server.order(&installation, &["tools", "list", "--json"]);
        let tools = lines.lines().map(|line| {
            let tool: Value = serde_json::from_str(line).unwrap();
            let text = |name: &str| tool[name].as_str().unwrap().to_owned();
            (text("name"), text("state"))
        });
        tools.collect::<Vec<_>>()
    };
    let states = |ready: &[&str]| {
        let names = [
            "Cut", "Gone", "Local", "Nowhere", "Other", "Remote", "Unhashed",
        ];
        let state = |name: &str| match name {
            name if ready.contains(&name) => "ready",
            "Remote" => "remote",
            _ => "missing",
        };
        names.map(|name| (name.to_owned(), state(name).to_owned()))
    };
    assert_eq!(listed(), states(&[]));
    let compile = async |name: &str| {
        let path = format!("/artifacts/Custom.{name}/compile");
        let (status, answer) = api
            .post(&path, &Value::Object(serde_json::Map::new()))
            .await;
        let env = answer["VQLClientActions"][0]["env"].as_array().cloned();
        let url = env.and_then(|env| {
            let mut env = env.into_iter();
            env.find(|of| of["key"] == format!("Tool_{name}_URL"))
        });
        (status, url.map(|url| url["value"].clone()), answer)
    };
    let (status, url, answer) = compile("Remote").await;
    assert_eq!(
        (status, url),
        (200, Some(format!("http://{maker}/scan.exe").into())),
        "{answer}"
    );
    for name in ["Local", "Unhashed"] {
        let (status, _, answer) = compile(name).await;
        let error = answer["error"].as_str().unwrap();
        let fetch = format!("nublar tools fetch {name}");
        assert!(status == 400 && error.contains(&fetch), "{answer}");
        let printed = server.order(&installation, &["tools", "fetch", name]);
        assert!(printed.contains(&sha256), "{printed}");
    }
    assert_eq!(listed(), states(&["Local", "Unhashed"]));
    let (status, url, answer) = compile("Local").await;
    assert_eq!(status, 200, "{answer}");
    let public = format!("{}public/{sha256}", server.agents()[0]);
    assert_eq!(url, Some(public.clone().into()), "{answer}");
    let trust = Trust::new(server.secrets().ca.certificate.as_bytes()).unwrap();
    let http =
        reqwest::Client::builder().tls_backend_preconfigured(trust.client_config(false).unwrap());
    let http = http.no_proxy().build().unwrap();
    let served = http.get(&public).send().await.unwrap();
    let served = served.bytes().await.unwrap();
    assert_eq!(served, FILE);

    // Nothing else gets in.
    let data = installation.data().display().to_string();
    for (name, said) in [
        ("Other", sha256.as_str()),
        ("Cut", "broke off"),
        ("Gone", "404"),
        ("Nowhere", "--url"),
        ("Unnamed", "no tool Unnamed"),
    ] {
        let words = ["tools", "fetch", name, "--data", &data];
        let ended = Server::ended(&words.map(str::to_owned)).await;
        assert!(!ended.status.success());
        assert!(ended.errors.contains(said), "{name}: {}", ended.errors);
    }
    assert_eq!(listed(), states(&["Local", "Unhashed"]));
    let url = format!("http://{maker}/scan.exe");
    server.order(&installation, &["tools", "fetch", "Nowhere", "--url", &url]);
    let shown = server.order(&installation, &["tools", "show", "Nowhere"]);
    assert!(
        shown.contains("ready") && shown.contains("scan.exe"),
        "{shown}"
    );
    server.stop().await;
}
