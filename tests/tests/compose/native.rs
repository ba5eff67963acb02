//! An installation of plain processes: the configuration of compose with other addresses.

use crate::process::{PATIENCE, Process, nublar};
use reqwest::{Certificate, Client, StatusCode};
use std::collections::HashMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use toml::{Table, Value};

/// The addresses of the real services, none when they are not there.
pub(crate) fn services() -> Option<HashMap<String, String>> {
    let path = std::env::var_os("NUBLAR_TEST_SERVICES")?;
    let text = std::fs::read_to_string(&path).unwrap();
    let values = text.lines().filter_map(|line| line.split_once('='));
    Some(
        values
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
    )
}

/// Its folder, and the ports of its listeners.
pub(crate) struct Installation {
    folder: TempDir,
    config: Table,
    frontends: HashMap<&'static str, u16>,
    people: u16,
}

/// A port that nobody has now, below those that outgoing connections take.
fn free_port() -> u16 {
    let start = 20_000 + (std::process::id() % 8_000) as u16;
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let taken = |port: &u16| TAKEN.lock().unwrap().contains(port);
    let port = (start..32_000)
        .find(|port| !taken(port) && free(port))
        .unwrap();
    TAKEN.lock().unwrap().push(port);
    port
}

static TAKEN: std::sync::Mutex<Vec<u16>> = std::sync::Mutex::new(Vec::new());

fn set(table: &mut Table, path: &[&str], value: impl Into<Value>) {
    let (last, parents) = path.split_last().unwrap();
    let mut table = table;
    for parent in parents {
        table = table[*parent].as_table_mut().unwrap();
    }
    table.insert((*last).to_owned(), value.into());
}

impl Installation {
    /// The given configuration, with names of its own in the given services.
    pub(crate) fn new(config: &Table, services: &HashMap<String, String>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_micros();
        let name = format!("compose-{now:x}");
        let mut config = config.clone();
        set(&mut config, &["data"], path("data"));
        set(&mut config, &["secrets_file"], path("secrets.toml"));
        set(&mut config, &["partitions"], 4);
        set(
            &mut config,
            &["storage", "log", "brokers"],
            services["KAFKA"].clone(),
        );
        set(
            &mut config,
            &["storage", "log", "prefix"],
            format!("{name}."),
        );
        set(
            &mut config,
            &["storage", "index", "url"],
            services["OPENSEARCH"].clone(),
        );
        set(
            &mut config,
            &["storage", "index", "prefix"],
            format!("{name}-"),
        );
        set(
            &mut config,
            &["storage", "objects", "endpoint"],
            services["S3"].clone(),
        );
        set(&mut config, &["storage", "objects", "bucket"], name);
        set(
            &mut config,
            &["storage", "objects", "keys_file"],
            path("s3-keys"),
        );
        let keys = format!(
            "{}\n{}\n",
            services["S3_ACCESS_KEY"], services["S3_SECRET_KEY"]
        );
        std::fs::write(folder.path().join("s3-keys"), keys).unwrap();
        let people = free_port();
        set(
            &mut config,
            &["gui", "listen"],
            format!("127.0.0.1:{people}"),
        );
        let frontends = ["frontend-1", "frontend-2"]
            .map(|name| (name, free_port()))
            .into();
        Self {
            folder,
            config,
            frontends,
            people,
        }
    }

    /// The configuration file of one service: they differ in nothing but a frontend's address.
    fn config_of(&self, service: &str) -> PathBuf {
        let mut config = self.config.clone();
        if let Some(port) = self.frontends.get(service) {
            let listen = config["frontend"]["listen"][0].as_table_mut().unwrap();
            set(listen, &["addr"], format!("127.0.0.1:{port}"));
        }
        let path = self.folder.path().join(format!("{service}.toml"));
        std::fs::write(&path, config.to_string()).unwrap();
        path
    }

    fn secrets(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("secrets.toml")).unwrap()
    }
}

/// Sets up, twice, then runs the others until each has answered for its health.
pub(crate) async fn run(installation: &Installation, commands: &[(&str, Vec<String>)]) {
    let folder = installation.folder.path();
    let start = |name: &str, words: &[String]| {
        let mut command = nublar(words);
        command.arg("--config").arg(installation.config_of(name));
        Process::start(name, command, folder)
    };
    let ((setup, words), others) = commands.split_first().unwrap();
    assert_eq!(*setup, "setup");
    start(setup, words).ended();
    let secrets = installation.secrets();
    start(setup, words).ended();
    assert_eq!(installation.secrets(), secrets, "setup made new secrets");

    let processes: Vec<_> = others
        .iter()
        .map(|(name, words)| start(name, words))
        .collect();
    for process in &processes {
        process.ready();
    }
    answers(installation, &secrets).await;
    for process in &processes {
        process.terminate();
    }
    for process in processes {
        process.ended();
    }
}

/// All listeners answer, and the frontends are one server to agents.
async fn answers(installation: &Installation, secrets: &str) {
    let secrets: Table = secrets.parse().unwrap();
    let authority = secrets["ca"]["certificate"].as_str().unwrap();
    // Fails when another test of this program was first: that one chose the same.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = Client::builder()
        .tls_certs_only([Certificate::from_pem(authority.as_bytes()).unwrap()])
        .no_proxy()
        .timeout(Duration::from_secs(10))
        .build()
        .unwrap();

    let mut certificates = Vec::new();
    for port in installation.frontends.values() {
        let base = format!("https://127.0.0.1:{port}");
        healthy(&client, &format!("{base}/healthz")).await;
        let pem = client
            .get(format!("{base}/server.pem"))
            .send()
            .await
            .unwrap();
        certificates.push(pem.text().await.unwrap());
    }
    assert!(certificates[0].contains("BEGIN CERTIFICATE"));
    assert_eq!(certificates[0], certificates[1]);

    let api = format!("http://127.0.0.1:{}/api/v1", installation.people);
    healthy(&client, &format!("{api}/health")).await;
    let topics = client.get(format!("{api}/topics"));
    let refused = topics.try_clone().unwrap().send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    let token = secrets["api_token"].as_str().unwrap();
    let shown = topics.bearer_auth(token).send().await.unwrap();
    assert_eq!(shown.status(), StatusCode::OK);
}

async fn healthy(client: &Client, url: &str) {
    let until = Instant::now() + PATIENCE;
    loop {
        let answer = client.get(url).send().await;
        if answer
            .as_ref()
            .is_ok_and(|answer| answer.status().is_success())
        {
            return;
        }
        assert!(Instant::now() < until, "{url}: {answer:?}");
        sleep(Duration::from_millis(100)).await;
    }
}
