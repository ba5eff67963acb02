//! Bad input over the wire, and a program that is started wrongly: refused, said, and nothing else
//! is harmed by it.

use crate::agents::{body, csr, lists, row};
use bytes::Bytes;
use nublar_tests::{Installation, Player, Recorded, Role, Secrets, Server, eventually};
use nublar_wire::{AgentKey, AgentSession, message_list};
use serde_json::{Value, json};
use std::io::Write;

/// A server that knows the recorded agent and no flow yet.
struct Known {
    recorded: Recorded,
    // Dropped before the folder that it works in.
    server: Server,
    player: Player,
    installation: Installation,
}

impl Known {
    async fn start(adopt: bool) -> Self {
        let recorded = Recorded::load("collections");
        let installation = Installation::recorded(&recorded);
        let installation = if adopt {
            installation
        } else {
            installation.configured(
                "[frontend]\nmax_poll_s = 0.05\n[foreman]\ninterrogate = false\n[workers]\nreport_ms = 100\n",
            )
        };
        let server = Server::start_role(&installation, Role::Run(2), "run").await;
        let player = server.player();
        for letter in recorded.enrolment() {
            player.play(0, letter, 406).await;
        }
        player.play(0, &recorded.taken()[0], 200).await;
        Self {
            recorded,
            server,
            player,
            installation,
        }
    }

    async fn status(&self, body: Bytes) -> u16 {
        let answer = self.player.post(0, "/control", body).await;
        answer.unwrap().status
    }

    /// The number of records in each topic.
    async fn ends(&self) -> Vec<Value> {
        let api = self.server.api();
        api.settled().await;
        let topics = api.json("/topics").await;
        let topics = topics.as_array().unwrap().iter();
        topics.map(|topic| topic["ends"].clone()).collect()
    }

    /// It takes what is good as ever.
    async fn goes_on(&self) {
        for letter in &self.recorded.taken()[1..4] {
            self.player.play(0, letter, 200).await;
        }
    }
}

#[tokio::test]
async fn what_is_broken_or_forged_is_refused_and_leaves_no_trace() {
    let known = Known::start(true).await;
    let before = known.ends().await;
    let (recorded, nonce) = (&known.recorded, known.recorded.nonce());
    let content = [row("F.DC2M4H5TA9T34", "Rows", r#"{"n":1}"#)];
    let good = recorded.taken()[5].body.clone();

    // Every bit of a body is authenticated, in a session that is known and in one that is not.
    for whole in [&good, &body(&recorded.session(), nonce, &content)] {
        for place in (0..whole.len()).step_by(61) {
            let mut damaged = whole.to_vec();
            damaged[place] ^= 0x10;
            let status = known.status(damaged.into()).await;
            assert_eq!(status, 403, "damaged at {place}");
        }
        for length in (0..whole.len()).step_by(61) {
            let status = known.status(whole.slice(..length)).await;
            assert_eq!(status, 403, "cut to {length}");
        }
    }
    assert_eq!(
        known
            .status(Bytes::from_static(b"GET / HTTP/1.1\r\n"))
            .await,
        403
    );

    let session = recorded.session();
    assert_eq!(
        known
            .status(body(&session, "no such nonce", &content))
            .await,
        403
    );
    assert_eq!(known.status(body(&session, "", &content)).await, 403);

    // Somebody else in the agent's name: he is asked to enrol, which he cannot under that name.
    let stranger = AgentKey::generate().unwrap();
    let victim = recorded.client_id();
    let posing = AgentSession::with_source(&stranger, recorded.server(), victim).unwrap();
    for said in [&content[..], &[csr(&stranger, victim)]] {
        assert_eq!(known.status(body(&posing, nonce, said)).await, 406);
    }
    // Nor can he have the agent's name certified under his own, nor another one that is free.
    let own = AgentSession::new(&stranger, recorded.server()).unwrap();
    for name in [victim, "C.0123456789abcdef"] {
        assert_eq!(
            known
                .status(body(&own, nonce, &[csr(&stranger, name)]))
                .await,
            406
        );
    }
    assert_eq!(known.status(body(&own, nonce, &content)).await, 406);
    for name in ["../../etc/passwd", "", "C.xyz", "server"] {
        let named = AgentSession::with_source(&stranger, recorded.server(), name).unwrap();
        assert_eq!(
            known.status(body(&named, nonce, &content)).await,
            403,
            "{name}"
        );
    }
    // To a key that is not the server's.
    let elsewhere = AgentKey::generate().unwrap();
    let elsewhere = AgentSession::new(recorded.agent(), elsewhere.public_key().public_key());
    assert_eq!(
        known
            .status(body(&elsewhere.unwrap(), nonce, &content))
            .await,
        403
    );

    assert_eq!(known.ends().await, before, "something was stored");
    let clients = known.server.api().json("/clients").await;
    assert_eq!(clients["clients"].as_array().unwrap().len(), 1, "{clients}");
    known.goes_on().await;
}

#[tokio::test]
async fn a_body_that_ends_early_is_not_stored() {
    let known = Known::start(true).await;
    let before = known.ends().await;
    let whole = &known.recorded.taken()[13];
    assert!(whole.body.len() > 1_000_000);
    let plain = known.server.agents()[1].replace("http://", "");
    let address = plain.trim_end_matches('/').to_owned();
    for part in [0, 1, 1_000, whole.body.len() - 1] {
        let (address, body) = (address.clone(), whole.body.clone());
        let cut = tokio::task::spawn_blocking(move || {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            let length = body.len();
            let head =
                format!("POST /control HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(&body[..part]).unwrap();
        });
        cut.await.unwrap();
    }
    assert_eq!(known.ends().await, before, "something was stored");
    known.player.play(0, whole, 200).await;
    known.player.play(1, whole, 200).await;
}

#[tokio::test]
async fn a_bomb_costs_its_own_list_and_little_memory() {
    let known = Known::start(true).await;
    let (session, nonce) = (known.recorded.session(), known.recorded.nonce());
    let flow = "F.DC2M4H5TA9T34";
    let good = |name: &str| message_list(&[row(flow, name, r#"{"n":1}"#)]);
    let bomb = Bytes::from(vec![0; 500 << 20]);
    let body = lists(&session, nonce, &[good("Before"), bomb, good("Behind")]);
    assert!(body.len() < 3 << 20, "{} bytes", body.len());
    let idle = known.server.peak_memory();
    assert_eq!(known.status(body).await, 200);
    let grown = known.server.peak_memory() - idle;
    assert!(grown < 300 << 20, "{} MiB for one body", grown >> 20);

    let api = known.server.api();
    api.settled().await;
    let results = format!(
        "/clients/{}/flows/{flow}/results",
        known.recorded.client_id()
    );
    let results = api.json(&results).await;
    let names: Vec<_> = results
        .as_array()
        .unwrap()
        .iter()
        .map(|set| &set["name"])
        .collect();
    assert_eq!(names, ["Before", "Behind"]);
    let letters = api.json("/dead-letters").await;
    let reason = &letters["letters"][0]["reason"];
    assert_eq!(reason, "list too large", "{letters}");
    known.goes_on().await;
}

#[tokio::test]
async fn a_forged_flow_id_costs_its_own_message() {
    let known = Known::start(false).await;
    let (api, client) = (known.server.api(), known.recorded.client_id());
    let wish = json!({ "artifacts": ["Generic.Client.Info"] });
    let (status, made) = api.post(&format!("/clients/{client}/flows"), &wish).await;
    assert_eq!(status, 201, "{made}");
    let own = made["flow_id"].as_str().unwrap();
    let mut almost = own.to_owned();
    let last = if almost.pop() == Some('0') { '1' } else { '0' };
    almost.push(last);
    let forged = [
        "F.DC2M4H5TA9T34",
        &almost,
        "F.DC2M4UVJPNI1E.H",
        "F./../../x",
        "F.",
    ];

    let mut messages = vec![row(own, "Before", r#"{"n":1}"#)];
    messages.extend(forged.iter().map(|flow| row(flow, "Forged", r#"{"n":2}"#)));
    messages.push(row(own, "Behind", r#"{"n":3}"#));
    let body = body(&known.recorded.session(), known.recorded.nonce(), &messages);
    assert_eq!(known.status(body).await, 200);

    eventually("the rest is stored", async || {
        let results = api
            .json(&format!("/clients/{client}/flows/{own}/results"))
            .await;
        let mut stored = results.as_array().unwrap().iter();
        let names = ["Before", "Behind"];
        let all = names
            .iter()
            .all(|name| stored.any(|set| set["name"] == **name));
        if all { Ok(()) } else { Err(results) }
    })
    .await;
    let dump = api.text("/dump").await;
    assert!(dump.contains(own) && !dump.contains("Forged"), "{dump}");
    api.settled().await;
    let letters = api.json("/dead-letters").await;
    let mut reasons: Vec<_> = letters["letters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|letter| &letter["reason"])
        .collect();
    reasons.sort_by_key(|reason| reason.to_string());
    assert_eq!(
        reasons,
        [
            "bad session",
            "bad session",
            "foreign flow",
            "foreign flow",
            "foreign flow"
        ]
    );
    let listed = api.json(&format!("/clients/{client}/flows")).await;
    assert_eq!(listed["flows"].as_array().unwrap().len(), 1, "{listed}");
}

const CHOOSY: &str = "name: Custom.Choosy
parameters:
  - name: Colour
    type: choices
    default: red
    choices: [red, green]
  - name: Number
    default: '1'
    validating_regex: '^[0-9]+$'
sources:
  - query: SELECT Colour, Number FROM scope()
";

#[tokio::test]
async fn what_cannot_be_collected_is_said_at_once() {
    let known = Known::start(true).await;
    let api = known.server.api();
    let (status, answer) = api.put("/artifacts", CHOOSY).await;
    assert_eq!(status, 200, "{answer}");
    let client = known.recorded.client_id();
    let flows = format!("/clients/{client}/flows");
    let with = |name: &str, value: &str| json!({ "artifacts": ["Custom.Choosy"], "parameters": { name: value } });
    let wishes = [
        (json!({ "artifacts": ["Custom.Chosy"] }), "Custom.Chosy"),
        (with("Colour", "gren"), "gren"),
        (with("Number", "one"), "one"),
        (
            with("Numbr", "2"),
            "did you mean Number; it has Colour, Number",
        ),
        (json!({ "artifacts": [] }), "artifact"),
        (json!({ "artefacts": ["Custom.Choosy"] }), "artefacts"),
    ];
    for (wish, named) in wishes {
        let (status, answer) = api.post(&flows, &wish).await;
        assert_eq!(status, 400, "{wish}: {answer}");
        let error = answer["error"].as_str().unwrap();
        assert!(error.contains(named), "{wish}: {answer}");
    }
    // A person is told the same.
    let data = known.installation.data().display().to_string();
    let words = [
        "collect",
        client,
        "Custom.Choosy",
        "--param",
        "Numbr=2",
        "--data",
        &data,
    ];
    let ended = Server::ended(&words.map(str::to_owned)).await;
    let (status, errors) = (ended.status, ended.errors);
    assert!(!status.success(), "{errors}");
    assert!(
        errors.contains(
            "Custom.Choosy: no parameter Numbr: did you mean Number; it has Colour, Number"
        ),
        "{errors}"
    );
    let (status, answer) = api
        .post("/clients/C.0123456789abcdef/flows", &with("Number", "2"))
        .await;
    assert_eq!(status, 404, "{answer}");
    let listed = api.json(&flows).await;
    assert_eq!(listed["flows"], json!([]));
    let (status, answer) = api.post(&flows, &with("Number", "2")).await;
    assert_eq!(status, 201, "{answer}");
}

#[tokio::test]
async fn a_broken_artifact_is_refused_with_line_and_column() {
    let known = Known::start(true).await;
    let api = known.server.api();
    let broken = [
        ("name: Custom.Broken\nsources: [\n", 2),
        (
            "name: Custom.Broken\nsources:\n  - query: |\n      SELECT * FROM info(\n",
            4,
        ),
        (
            "name: Custom.Broken\nsources:\n  - query: |\n      LET X = 1\n      SELECT ) FROM info()\n",
            5,
        ),
        (
            "name: ../../Broken\nsources:\n  - query: SELECT 1 FROM scope()\n",
            1,
        ),
    ];
    for (yaml, line) in broken {
        let (status, answer) = api.put("/artifacts", yaml).await;
        assert_eq!(status, 400, "{yaml}: {answer}");
        let problem = &answer["problems"][0];
        assert_eq!(problem["line"], line, "{yaml}: {answer}");
        assert!(problem["column"].as_u64().unwrap() > 0, "{answer}");
        assert!(!problem["message"].as_str().unwrap().is_empty(), "{answer}");
    }
    let listed = api.text("/artifacts").await;
    assert!(!listed.contains("Broken"), "{listed}");
}

#[tokio::test]
async fn a_second_process_on_the_same_folder_is_refused() {
    let known = Known::start(true).await;
    let ended = Server::refused(&known.installation, "second").await;
    assert!(!ended.status.success());
    let folder = known.installation.data().display().to_string();
    let last = ended.errors.lines().last().unwrap_or_default();
    assert!(
        last.starts_with("nublar: ") && last.contains(&folder) && last.contains("another process"),
        "{}",
        ended.errors
    );
    known.goes_on().await;
}

#[tokio::test]
async fn what_is_wrong_in_a_file_is_named() {
    let wrong = [
        ("[gui]\nlisen = \"127.0.0.1:1\"\n", "lisen"),
        ("[frontent]\n", "frontent"),
        ("[frontend]\nhold_s = -1\n", "hold_s"),
        ("[foreman]\ninterrogate = \"yes\"\n", "interrogate"),
        ("[workers]\ngroups = [\"result\"]\n", "result"),
        ("[storage.log]\nkind = \"pigeon\"\n", "pigeon"),
        ("[storage.log]\nkind = \"kafka\"\n", "brokers"),
        ("[gui\n", "line 1"),
    ];
    for (text, named) in wrong {
        let installation = Installation::empty().configured(text);
        let ended = Server::refused(&installation, "wrong").await;
        assert!(!ended.status.success(), "{text}");
        assert!(ended.errors.contains(named), "{text}: {}", ended.errors);
    }
    let recorded = Recorded::load("collections");
    let installation = Installation::empty();
    let mut secrets = Secrets::recorded(&recorded);
    secrets.id_keys.clear();
    installation.write_secrets(&secrets);
    let ended = Server::refused(&installation, "wrong").await;
    assert!(!ended.status.success());
    assert!(ended.errors.contains("id_keys"), "{}", ended.errors);

    let path = installation.data().join("secrets.toml");
    std::fs::write(&path, "api_token = \"very secret\"\nagents = 5\n").unwrap();
    let ended = Server::refused(&installation, "wrong").await;
    assert!(!ended.status.success());
    let folder = path.display().to_string();
    assert!(
        ended.errors.contains(&folder) && ended.errors.contains("line"),
        "{}",
        ended.errors
    );
    assert!(!ended.errors.contains("very secret"), "{}", ended.errors);
}

#[tokio::test]
async fn nobody_gets_in_without_the_token() {
    let known = Known::start(true).await;
    let api = known.server.api_with("not the token");
    for path in [
        "/clients",
        "/dump",
        "/topics",
        "/dead-letters",
        "/artifacts",
    ] {
        let (status, answer) = api.try_get(path).await.unwrap();
        assert_eq!(status, 401, "{path}: {}", String::from_utf8_lossy(&answer));
    }
    let wrong = known.player.post(0, "/no/such/path", Bytes::new()).await;
    assert!(matches!(wrong, Ok(answer) if answer.status == 404));
}
