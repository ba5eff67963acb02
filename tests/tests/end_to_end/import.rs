//! A deployment of another server, made here by hand, is taken over: its agents go on as if
//! nothing had happened.

use crate::puppet::Puppet;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nublar_simulator::{ARTIFACT, ARTIFACT_YAML, Agent, AgentConfig, Ledger, Trust};
use nublar_tests::{Installation, Secrets, Server, Services, eventually, program};
use nublar_wire::AgentKey;
use prost::Message;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const ROOT_NONCE: &str = "a nonce of the root";
const ORG_NONCE: &str = "a nonce of OBRANCH";

/// `key.db`.
#[derive(Clone, PartialEq, Message)]
struct KeyRecord {
    #[prost(bytes = "vec", tag = "1")]
    pem: Vec<u8>,
    #[prost(uint64, tag = "2")]
    enroll_time: u64,
}

/// What an old server leaves: its configuration and its data.
struct Deployment {
    folder: tempfile::TempDir,
    /// Its certificates and keys: any server's will do.
    secrets: Secrets,
}

struct Import {
    ok: bool,
    printed: String,
    errors: String,
}

impl Deployment {
    async fn new() -> Self {
        let keys = Installation::empty();
        Server::set_up(&keys).await;
        let folder = tempfile::tempdir().unwrap();
        let this = Self {
            folder,
            secrets: Secrets::read(keys.data()),
        };
        for path in [
            "config",
            "users",
            "orgs",
            "clients/server",
            "artifact_definitions/Custom",
        ] {
            fs::create_dir_all(this.datastore().join(path)).unwrap();
        }
        this.file("users/eve.db", b"");
        this.file(
            "artifact_definitions/Custom/Own.yaml",
            b"name: Custom.Own\n",
        );
        let org = format!(r#"{{"name":"Branch","nonce":"{ORG_NONCE}","id":"OBRANCH"}}"#);
        this.file("orgs/OBRANCH.json.db", org.as_bytes());
        this.write_yaml(&this.yaml());
        this
    }

    fn datastore(&self) -> PathBuf {
        self.folder.path().join("datastore")
    }

    fn yaml_file(&self) -> PathBuf {
        self.folder.path().join("server.config.yaml")
    }

    fn file(&self, path: &str, bytes: &[u8]) {
        let path = self.datastore().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Puts a client's key where the old server would have.
    fn enrolled(&self, folder: &str, name: &str, key: &AgentKey) {
        let der = STANDARD.encode(key.public_key().to_der());
        let mut pem = String::from("-----BEGIN RSA PUBLIC KEY-----\n");
        for line in der.as_bytes().chunks(64) {
            pem.push_str(std::str::from_utf8(line).unwrap());
            pem.push('\n');
        }
        pem.push_str("-----END RSA PUBLIC KEY-----\n");
        let record = KeyRecord {
            pem: pem.into(),
            enroll_time: 1_795_579_655_178_918,
        };
        self.file(
            &format!("{folder}clients/{name}/key.db"),
            &record.encode_to_vec(),
        );
    }

    fn yaml(&self) -> String {
        let block = |pem: &str| pem.replace('\n', "\n    ").trim_end().to_owned();
        let (ca, agents) = (&self.secrets.ca, &self.secrets.agents);
        format!(
            "Client:
  server_urls:
  - https://localhost:8000/
  ca_certificate: |
    {}
  nonce: {ROOT_NONCE}
  use_self_signed_ssl: true
  max_poll: 5
CA:
  private_key: |
    {}
Frontend:
  bind_address: 127.0.0.1
  bind_port: 8000
  certificate: |
    {}
  private_key: |
    {}
GUI:
  authenticator:
    type: Basic
obfuscation_nonce: hidden
",
            block(&ca.certificate),
            block(&ca.key),
            block(&agents.certificate),
            block(&agents.key)
        )
    }

    fn write_yaml(&self, yaml: &str) {
        fs::write(self.yaml_file(), yaml).unwrap();
    }

    fn import(&self, data: &Path, more: &[&str]) -> Import {
        let done = Command::new(program())
            .args(["import", "velociraptor"])
            .arg(self.yaml_file())
            .args(["--data".as_ref(), data.as_os_str()])
            .args(more)
            .output()
            .unwrap();
        Import {
            ok: done.status.success(),
            printed: String::from_utf8(done.stdout).unwrap(),
            errors: String::from_utf8(done.stderr).unwrap(),
        }
    }

    fn import_all(&self, data: &Path) -> String {
        let datastore = self.datastore();
        let done = self.import(data, &["--datastore", datastore.to_str().unwrap()]);
        assert!(done.ok, "{}", done.errors);
        done.printed
    }
}

fn has(text: &str, part: &str) {
    assert!(text.contains(part), "no {part:?} in:\n{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_go_on() {
    let deployment = Deployment::new().await;
    let [known, of_org, stranger] = [(); 3].map(|()| AgentKey::generate().unwrap());
    let client = known.client_id().to_owned();
    deployment.enrolled("", &client, &known);
    deployment.enrolled("orgs/OBRANCH/", of_org.client_id(), &of_org);
    // One whose file holds somebody else's key.
    deployment.enrolled("", "C.0123456789abcdef", &known);

    let installation = Installation::empty();
    let data = installation.data();
    let printed = deployment.import_all(data);
    has(&printed, "2 (root 1, OBRANCH 1): 2 new, 0 known already");
    has(&printed, &format!("this is the key of {client}"));
    has(&printed, "OBRANCH (Branch)");
    has(&printed, "users (eve)");
    has(&printed, "artifacts that people wrote (1)");
    has(&printed, "https://localhost:8000/");

    let files = ["secrets.toml", "nublar.toml"].map(|name| data.join(name));
    let before = files.clone().map(|file| fs::read_to_string(file).unwrap());
    let printed = deployment.import_all(data);
    has(&printed, "0 new, 2 known already");
    let after = files.map(|file| fs::read_to_string(file).unwrap());
    assert!(before == after, "a second import changed the files");
    let secrets: toml::Table = toml::from_str(&before[0]).unwrap();
    assert_eq!(secrets["obfuscation_nonces"][0].as_str(), Some("hidden"));
    let config: toml::Table = toml::from_str(&before[1]).unwrap();
    assert_eq!(config["frontend"]["max_poll_s"].as_integer(), Some(5));

    let installation = installation.configured(&before[1]);
    let mut server = Server::start(&installation).await;
    // The data belongs to the server now.
    let datastore = deployment.datastore();
    let refused = deployment.import(
        installation.data(),
        &["--datastore", datastore.to_str().unwrap()],
    );
    assert!(!refused.ok);
    has(&refused.errors, "another process uses the log");

    let trust = Trust::new(deployment.secrets.ca.certificate.as_bytes()).unwrap();
    let ledger = Ledger::new();
    let agent = |nonce: &str, key: AgentKey| {
        let mut config = AgentConfig::new(server.agents().to_vec(), nonce);
        config.speed = 10.0;
        Agent::start(Arc::new(config), key, &trust, &ledger).unwrap()
    };
    let known = agent(ROOT_NONCE, known);
    let of_org = agent(ORG_NONCE, of_org);
    let stranger = agent(ROOT_NONCE, stranger);

    let api = server.api();
    let (status, answer) = api.put("/artifacts", ARTIFACT_YAML).await;
    assert_eq!(status, 200, "{answer}");
    for agent in [&known, &stranger] {
        eventually("the client's name", async || {
            let clients = api.json("/clients").await;
            let mut all = clients["clients"].as_array().unwrap().iter();
            let found =
                all.any(|c| c["client_id"] == agent.client_id() && c["hostname"].is_string());
            if found { Ok(()) } else { Err(clients) }
        })
        .await;
    }
    let path = format!("/clients/{client}/flows");
    let wish = json!({"artifacts": [ARTIFACT], "parameters": {"SIM": r#"{"rows": 7}"#}});
    let (status, answer) = api.post(&path, &wish).await;
    assert_eq!(status, 201, "{answer}");
    let flow = format!("{path}/{}", answer["flow_id"].as_str().unwrap());
    let flow = eventually("the collection's end", async || {
        let found = api.json(&flow).await;
        if found["state"] == "FINISHED" {
            Ok(found)
        } else {
            Err(found)
        }
    })
    .await;
    assert_eq!(flow["total_collected_rows"], 7, "{flow}");
    eventually("a POST of the organisation's client", async || match of_org
        .book()
        .counts
        .accepted
        .load(Ordering::Relaxed)
    {
        0 => Err("not yet"),
        _ => Ok(()),
    })
    .await;

    let unknown = |agent: &Agent| agent.book().counts.unknown.load(Ordering::Relaxed);
    assert_eq!(unknown(&known), 0, "the known agent had to enrol");
    assert_eq!(unknown(&of_org), 0, "the organisation's agent had to enrol");
    assert!(
        unknown(&stranger) > 0,
        "a stranger was let in without a key"
    );
    for agent in [known, of_org, stranger] {
        let refused = agent.book().counts.refused.load(Ordering::Relaxed);
        assert_eq!(refused, 0, "{}", agent.client_id());
        agent.stop().await;
    }
    server.stop().await;
}

/// What agents run for the old server when they are taken over says its names as that server hid
/// them: made with openssl under its nonce.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_old_server_hid_has_its_own_name() {
    const HUNT: &str = "$9a8198e0399d75040213f5ba1b79180f083c76302d5b04bdfda8deb49bfff813";
    const WATCH: &str = "$e7367a605a090ccb768401f996f9176eeb51d9b24bc23661583549e0d8d698f1";
    const FLOW: &str = "F.DC2M4H5TA9T30";
    let deployment = Deployment::new().await;
    let known = AgentKey::generate().unwrap();
    deployment.enrolled("", known.client_id(), &known);
    let installation = Installation::empty();
    deployment.import_all(installation.data());
    let config = fs::read_to_string(installation.data().join("nublar.toml")).unwrap();
    let installation = installation.configured(&config);
    let mut server = Server::start(&installation).await;
    let agent = Puppet::stranger(&server, known, ROOT_NONCE.to_owned(), 0);
    assert_eq!(agent.poll().await, 200);

    let mut end = agent.end(FLOW, 2, &[]);
    let stats = end.flow_stats.as_mut().unwrap();
    stats.query_status[0].names_with_response = vec![HUNT.to_owned()];
    let said = [
        agent.rows(FLOW, HUNT, 0, "{\"n\":1}\n{\"n\":2}\n"),
        end,
        agent.rows("F.Monitoring", WATCH, 0, "{\"e\":1}\n"),
    ];
    agent.send(&said).await;
    let (api, client) = (server.api(), format!("/clients/{}", agent.client()));
    let flow = eventually("the adopted flow's end", async || {
        let found = api.json(&format!("{client}/flows/{FLOW}")).await;
        (found["state"] == "FINISHED")
            .then(|| found.clone())
            .ok_or(found)
    })
    .await;
    assert_eq!(
        flow["artifacts_with_results"],
        json!(["Custom.Old.Hunt/All"])
    );
    let results = format!("{client}/flows/{FLOW}/results/Custom.Old.Hunt/All");
    assert_eq!(api.text(&results).await, "{\"n\":1}\n{\"n\":2}\n");
    api.settled().await;
    let row = api.text(&format!("{client}/events/Custom.Old.Watch")).await;
    let row: Value = serde_json::from_str(&row).unwrap();
    assert_eq!(
        (&row["e"], &row["_Source"]),
        (&json!(1), &json!("Custom.Old.Watch"))
    );
    server.stop().await;
}

/// Over shared storage the keys go through the log, and frontends that run take them up.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_server_takes_clients_up() {
    let Some(services) = Services::from_env() else {
        return;
    };
    let deployment = Deployment::new().await;
    let known = AgentKey::generate().unwrap();
    deployment.enrolled("", known.client_id(), &known);

    let installation = Installation::empty();
    let storage = services.storage(&installation.beside("keys"));
    let text = format!("{storage}\n[frontend]\nmax_poll_s = 5\nadopt_flows = true\n");
    let config = installation.beside("imported.toml");
    fs::write(&config, &text).unwrap();
    let config = config.to_str().unwrap();
    let done = deployment.import(installation.data(), &["--config", config]);
    assert!(done.ok, "{}", done.errors);
    has(&done.printed, "imported.toml: unchanged");

    let installation = installation.configured(&text);
    let mut server = Server::start(&installation).await;
    let datastore = deployment.datastore();
    let more = [
        "--config",
        config,
        "--datastore",
        datastore.to_str().unwrap(),
    ];
    let done = deployment.import(installation.data(), &more);
    assert!(done.ok, "{}", done.errors);
    has(&done.printed, "1 (root 1): 1 new, 0 known already");

    let trust = Trust::new(deployment.secrets.ca.certificate.as_bytes()).unwrap();
    let mut agent = AgentConfig::new(server.agents().to_vec(), ROOT_NONCE);
    agent.speed = 10.0;
    let agent = Agent::start(Arc::new(agent), known, &trust, &Ledger::new()).unwrap();
    eventually("a POST of the client", async || {
        match agent.book().counts.accepted.load(Ordering::Relaxed) {
            0 => Err("not yet"),
            _ => Ok(()),
        }
    })
    .await;
    assert_eq!(agent.book().counts.unknown.load(Ordering::Relaxed), 0);
    agent.stop().await;
    server.stop().await;
}

#[tokio::test]
async fn what_is_wrong_is_said_and_nothing_is_written() {
    let deployment = Deployment::new().await;
    let (good, key) = (deployment.yaml(), &deployment.secrets.agents.key);
    let first = key.lines().nth(1).unwrap();
    let other = deployment.secrets.tls.certificate.replace('\n', "\n    ");
    let encrypted = good.replacen("PRIVATE KEY", "ENCRYPTED PRIVATE KEY", 4);
    let agents_line = good
        .lines()
        .position(|line| line == "  certificate: |")
        .unwrap()
        + 1;
    let tls = |name: &str| deployment.folder.path().join(name);
    let with_tls = good.replace(
        "  bind_port: 8000",
        &format!(
            "  tls_certificate_filename: {}\n  tls_private_key_filename: {}",
            tls("tls.pem").display(),
            tls("tls.key").display()
        ),
    );
    let without = |from: &str, to: &str| {
        let (head, rest) = good.split_once(from).unwrap();
        let (_, tail) = rest.split_once(to).unwrap();
        format!("{head}{to}{tail}")
    };
    let ec = {
        let (head, rest) = good.split_once("  certificate: |\n").unwrap();
        let (_, tail) = rest.split_once("  private_key").unwrap();
        format!(
            "{head}  certificate: |\n    {}\n  private_key{tail}",
            other.trim_end()
        )
    };
    let cases = [
        (
            without("Frontend:", "GUI:"),
            "Frontend.certificate is missing: this is no configuration of a server".to_owned(),
        ),
        (
            without("  ca_certificate", "  nonce"),
            "Client.ca_certificate: is missing or empty".to_owned(),
        ),
        (
            good.replace(ROOT_NONCE, "''"),
            "Client.nonce: is missing or empty".to_owned(),
        ),
        (
            encrypted,
            "CA.private_key: the private key is encrypted".to_owned(),
        ),
        (
            good.replace(first, "AAAA"),
            "Frontend.private_key: ".to_owned(),
        ),
        (ec, format!("line {agents_line}: Frontend.")),
        (
            good.replace("max_poll: 5", "max_poll: often"),
            "Client.max_poll: expected a whole number".to_owned(),
        ),
        (
            good.replace("use_self_signed_ssl: true", "pinned_server_name: Somebody"),
            "agents expect \"Somebody\" (Client.pinned_server_name)".to_owned(),
        ),
        (
            good.replace("  server_urls:", "  server_urls: ["),
            ", line ".to_owned(),
        ),
    ];
    let cases = cases
        .into_iter()
        .chain([(with_tls.clone(), "cannot read ".to_owned())]);
    let data = deployment.folder.path().join("data");
    for (number, (yaml, said)) in cases.enumerate() {
        deployment.write_yaml(&yaml);
        let done = deployment.import(&data, &[]);
        assert!(!done.ok, "case {number} was taken:\n{}", done.printed);
        has(&done.errors, &said);
        has(&done.errors, "server.config.yaml");
        assert!(!data.exists(), "case {number} wrote something");
    }

    // A data folder of somebody else stays as it is.
    let others = Installation::empty();
    Server::set_up(&others).await;
    let secrets = others.data().join("secrets.toml");
    let before = fs::read_to_string(&secrets).unwrap();
    deployment.write_yaml(&good);
    let done = deployment.import(others.data(), &[]);
    assert!(!done.ok);
    has(&done.errors, "holds another CA already");
    assert_eq!(fs::read_to_string(&secrets).unwrap(), before);
    assert!(!others.data().join("nublar.toml").exists());

    // A configuration that agents would not accept is not touched, and the lines are said.
    let config = deployment.folder.path().join("own.toml");
    fs::write(
        &config,
        "[frontend]\nbase_path = \"/agents/\"\nmax_poll_s = 60\n",
    )
    .unwrap();
    let done = deployment.import(&data, &["--config", config.to_str().unwrap()]);
    assert!(!done.ok);
    has(&done.errors, "base_path = \"/\"\nmax_poll_s = 5");
    assert!(!data.join("secrets.toml").exists());

    // A certificate for HTTPS alone comes along.
    let pair = &deployment.secrets.tls;
    fs::write(tls("tls.pem"), &pair.certificate).unwrap();
    fs::write(tls("tls.key"), &pair.key).unwrap();
    deployment.write_yaml(&with_tls);
    let done = deployment.import(&data, &[]);
    assert!(done.ok, "{}", done.errors);
    has(&done.printed, "give --datastore");
    let imported = Secrets::read(&data);
    assert_eq!(imported.tls.certificate.trim(), pair.certificate.trim());
    assert_eq!(imported.agents.key.trim(), key.trim());
    assert_eq!(imported.orgs[0].nonce, ROOT_NONCE);
}
