//! Services that do not answer, or refuse, are named and waited for; what waiting does not mend
//! ends the process.

use crate::orders::{assert_same, plain};
use nublar_tests::{Installation, Recorded, Role, Server, Services, eventually};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A service at an address of its own, that at first hangs up on everybody.
struct Service {
    port: u16,
    /// The status of every answer; 0 hangs up, and 1 forwards.
    mode: Arc<AtomicU16>,
    _serving: JoinSet<()>,
}

const HANGS_UP: u16 = 0;
const FORWARDS: u16 = 1;

impl Service {
    async fn start(forwards_to: Option<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mode = Arc::new(AtomicU16::new(HANGS_UP));
        let mut serving = JoinSet::new();
        let how = Arc::clone(&mode);
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                match (how.load(Ordering::SeqCst), forwards_to.clone()) {
                    (HANGS_UP, _) => drop(stream),
                    (FORWARDS, Some(to)) => {
                        connections.spawn(forward(stream, to));
                    }
                    _ => {
                        connections.spawn(answer(stream, Arc::clone(&how)));
                    }
                }
            }
        });
        Self {
            port,
            mode,
            _serving: serving,
        }
    }

    fn set(&self, mode: u16) {
        self.mode.store(mode, Ordering::SeqCst);
    }
}

async fn forward(mut stream: TcpStream, to: String) {
    if let Ok(mut service) = TcpStream::connect(to).await {
        let _ = copy_bidirectional(&mut stream, &mut service).await;
    }
}

/// Answers one request with the status and says nothing more.
async fn answer(mut stream: TcpStream, status: Arc<AtomicU16>) {
    let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
    let length = loop {
        let head = request.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(head) = head {
            let text = String::from_utf8_lossy(&request[..head]).to_lowercase();
            let length = text
                .lines()
                .find_map(|line| line.strip_prefix("content-length:"));
            break head + 4 + length.map_or(0, |length| length.trim().parse().unwrap());
        }
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(read) => request.extend_from_slice(&buffer[..read]),
        }
    };
    while request.len() < length {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(read) => request.extend_from_slice(&buffer[..read]),
        }
    }
    let status = status.load(Ordering::SeqCst);
    let head = format!("HTTP/1.1 {status} -\r\ncontent-length: 2\r\nconnection: close\r\n\r\n");
    let body = if request.starts_with(b"HEAD") {
        ""
    } else {
        "{}"
    };
    let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
}

fn storage_over_http(index: u16, objects: u16, keys_file: &Path) -> String {
    std::fs::write(keys_file, "key\nsecret\n").unwrap();
    format!(
        r#"
[storage.index]
kind = "opensearch"
url = "http://127.0.0.1:{index}"

[storage.objects]
kind = "s3"
endpoint = "http://127.0.0.1:{objects}"
bucket = "late"
keys_file = "{}"
"#,
        keys_file.display()
    )
}

/// What a process has said, to be waited for.
struct Said(PathBuf);

impl Said {
    fn lines(&self, part: &str) -> Vec<String> {
        let text = std::fs::read_to_string(&self.0).unwrap_or_default();
        let lines = text.lines().filter(|line| line.contains(part));
        lines.map(str::to_owned).collect()
    }

    /// Waits for a line with all these parts.
    async fn wait(&self, parts: &[&str]) {
        eventually(&format!("a line with {parts:?}"), async || {
            let lines = self.lines(parts[0]);
            let found = |line: &String| parts.iter().all(|part| line.contains(part));
            match lines.iter().any(found) {
                true => Ok(()),
                false => Err(std::fs::read_to_string(&self.0).unwrap_or_default()),
            }
        })
        .await;
    }
}

#[tokio::test]
async fn is_named_and_waited_for() {
    let (index, objects) = (Service::start(None).await, Service::start(None).await);
    let recorded = Recorded::load("collections");
    let installation = Installation::recorded(&recorded);
    let storage = storage_over_http(index.port, objects.port, &installation.beside("keys"));
    let installation = installation.with(&storage);
    let said = Said(installation.beside("run.log"));
    let index_at = format!("opensearch at http://127.0.0.1:{}", index.port);
    let objects_at = format!("bucket late at http://127.0.0.1:{}", objects.port);
    let come = async {
        let advice = ["cannot be reached", "trying again until it answers"];
        said.wait(&[&index_at, advice[0], "[storage.index]", advice[1]])
            .await;
        said.wait(&[&objects_at, advice[0], "[storage.objects]", advice[1]])
            .await;
        index.set(401);
        objects.set(403);
        said.wait(&[&index_at, "401", "check user and password"])
            .await;
        said.wait(&[&objects_at, "403", "check the access key"])
            .await;
        // Each trouble once, however often it was tried.
        assert_eq!(
            said.lines(&index_at).len(),
            2,
            "{:?}",
            said.lines(&index_at)
        );
        assert_eq!(
            said.lines(&objects_at).len(),
            2,
            "{:?}",
            said.lines(&objects_at)
        );
        index.set(200);
        objects.set(200);
    };
    let starting = Server::start_role(&installation, Role::Run(1), "run");
    let (mut server, ()) = tokio::join!(starting, come);
    for name in ["index: answers now", "objects: answers now"] {
        assert_eq!(said.lines(name).len(), 1, "{name}");
    }
    assert_eq!(server.api().try_get("/topics").await.unwrap().0, 200);
    // A file is no terminal.
    assert!(said.lines("\x1b").is_empty());
    server.stop().await;
}

#[tokio::test]
async fn every_role_waits_for_the_log() {
    let recorded = Recorded::load("collections");
    let installation = Installation::recorded(&recorded);
    let storage = storage_over_http(1, 1, &installation.beside("keys"));
    let log = "[storage.log]\nkind = \"kafka\"\nbrokers = \"127.0.0.1:1\"\n";
    let installation = installation.with(&storage).with(log);
    let waits = async |role, name: &str| {
        let said = Said(installation.beside(&format!("{name}.log")));
        tokio::select! {
            _ = Server::start_role(&installation, role, name) => panic!("{name} is ready"),
            () = said.wait(&["kafka at 127.0.0.1:1", "[storage.log]", "trying again"]) => {}
        }
    };
    tokio::join!(
        waits(Role::Run(1), "run"),
        waits(Role::Frontend, "frontend"),
        waits(Role::Worker, "worker"),
        waits(Role::Foreman, "foreman"),
        waits(Role::Gui, "gui"),
    );
}

#[tokio::test]
async fn what_waiting_does_not_mend_ends_it() {
    for (config, named) in [
        (
            "[storage.index]\nkind = \"opensearch\"\nurl = \"search:9200\"\n",
            "storage.index.url",
        ),
        (
            "[storage.log]\nkind = \"kafka\"\nbrokers = \"kafka:port\"\n",
            "storage.log.brokers",
        ),
        ("[storage.index]\nkind = \"opensearch\"\n", "url"),
        ("[storage.log\n", "line 1"),
    ] {
        let ended = Server::refused(&Installation::empty().configured(config), "run").await;
        assert!(!ended.status.success(), "{config}");
        assert!(ended.errors.contains(named), "{config}: {}", ended.errors);
    }
}

// Commands block the thread that the test runs on: what forwards needs another.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn real_ones_may_come_late() {
    let Some(services) = Services::from_env() else {
        return;
    };
    let (recorded, plain) = plain("collections").await;
    let installation = Installation::recorded(&recorded);
    let mut storage = services.storage(&installation.beside("keys"));
    let mut late = Vec::new();
    for name in ["KAFKA", "OPENSEARCH", "S3"] {
        let address = services.address(name);
        let service = Service::start(Some(address.clone())).await;
        storage = storage.replace(&address, &format!("127.0.0.1:{}", service.port));
        late.push(service);
    }
    let installation = installation.with_first("partitions = 4\n").with(&storage);
    let said = Said(installation.beside("run.log"));
    let come = async {
        for service in &late {
            said.wait(&[&format!("127.0.0.1:{}", service.port), "trying again"])
                .await;
        }
        late.iter().for_each(|service| service.set(FORWARDS));
    };
    let starting = Server::start_role(&installation, Role::Run(1), "run");
    let (mut server, ()) = tokio::join!(starting, come);
    let player = server.player();
    for (turn, letter) in recorded.letters().iter().enumerate() {
        player.play(turn, letter, letter.status).await;
    }
    assert_same(plain, &server.api().dump().await, "late services");
    server.stop().await;

    // The people's side alone tells commands where it is, as `run` does.
    std::fs::remove_file(installation.data().join("api.json")).unwrap();
    let mut gui = Server::start_role(&installation, Role::Gui, "gui").await;
    let listed = gui.order(&installation, &["clients"]);
    assert!(listed.contains(recorded.client_id()), "{listed}");
    gui.stop().await;
}
