//! The program as processes: started, killed, stopped, and started again at the same addresses.

use crate::api::Api;
use crate::installation::{Installation, Secrets};
use crate::player::Player;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// How long a process may take until it is ready, and a command for all that it does.
const READY: Duration = Duration::from_secs(60);
/// How long a process may take to end when it is told to.
const END: Duration = Duration::from_secs(30);

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `nublar run` with so many frontends, every second one of them over plain HTTP.
    Run(usize),
    /// The same where there is nothing but IPv6.
    RunV6(usize),
    /// `nublar frontend`.
    Frontend,
    /// `nublar worker`.
    Worker,
    /// `nublar foreman`.
    Foreman,
    /// `nublar gui`.
    Gui,
}

/// A process that runs, and where it listens. It is killed when dropped.
#[derive(Debug)]
pub struct Server {
    process: Process,
    command: Vec<String>,
    log: PathBuf,
    gui: SocketAddr,
    agents: Vec<String>,
    secrets: Secrets,
}

/// A process that ended by itself.
#[derive(Debug)]
pub struct Ended {
    /// How.
    pub status: ExitStatus,
    /// What it wrote to its error output.
    pub errors: String,
}

/// The program, beside the test that runs: cargo builds both into one folder.
pub fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().and_then(Path::parent).unwrap();
    let program = folder.join("nublar");
    assert!(
        program.exists(),
        "{} is not there: `cargo build -p nublar` makes it",
        program.display()
    );
    program
}

/// A port that is free, below those that the system gives to connections: it stays free while a
/// process that listens there is started anew.
pub fn free_port() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let start = u16::try_from(std::process::id() % 400).unwrap() * 25;
        let port = 20_000 + (start + number) % 10_000;
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(addr).is_ok() {
            return addr;
        }
    }
}

fn command_line(
    installation: &Installation,
    role: Role,
    name: &str,
) -> (Vec<String>, SocketAddr, Vec<String>) {
    let free = || match role {
        Role::RunV6(_) => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), free_port().port()),
        _ => free_port(),
    };
    let gui = free();
    let mut agents = Vec::new();
    let mut more = String::new();
    let (word, addresses) = match role {
        Role::Run(frontends) | Role::RunV6(frontends) => {
            let mut addresses = vec!["--gui".to_owned(), gui.to_string()];
            for number in 0..frontends {
                let addr = free();
                let tls = number % 2 == 0;
                let (option, scheme) = if tls {
                    ("--frontend", "https")
                } else {
                    ("--frontend-http", "http")
                };
                addresses.extend([option.to_owned(), addr.to_string()]);
                agents.push(format!("{scheme}://{addr}/"));
            }
            ("run", addresses)
        }
        Role::Frontend => {
            let addr = free_port();
            agents.push(format!("https://{addr}/"));
            more = format!("[[frontend.listen]]\naddr = \"{addr}\"\ntls = true\n");
            ("frontend", Vec::new())
        }
        Role::Worker => ("worker", Vec::new()),
        Role::Foreman => ("foreman", Vec::new()),
        Role::Gui => {
            more = format!("[gui]\nlisten = \"{gui}\"\n");
            ("gui", Vec::new())
        }
    };
    let config = installation.write_config(name, &more);
    let mut command = vec![
        word.to_owned(),
        "--data".to_owned(),
        installation.data().display().to_string(),
        "--config".to_owned(),
        config.display().to_string(),
    ];
    command.extend(addresses);
    (command, gui, agents)
}

impl Server {
    /// `nublar run` with one frontend.
    pub async fn start(installation: &Installation) -> Self {
        Self::start_role(installation, Role::Run(1), "run").await
    }

    /// Starts a role under a name of its own and waits until it is ready.
    pub async fn start_role(installation: &Installation, role: Role, name: &str) -> Self {
        let (command, gui, agents) = command_line(installation, role, name);
        let log = installation.beside(&format!("{name}.log"));
        let process = Process::start(&command, &log).await;
        Self {
            process,
            command,
            log,
            gui,
            agents,
            secrets: Secrets::read(installation.data()),
        }
    }

    /// Starts `nublar run` where it must end by itself, with an error.
    pub async fn refused(installation: &Installation, name: &str) -> Ended {
        let (command, _, _) = command_line(installation, Role::Run(1), name);
        Self::ended(&command).await
    }

    /// `nublar setup`, which must succeed.
    pub async fn set_up(installation: &Installation) {
        let ended = Self::once(installation, "setup").await;
        assert!(ended.status.success(), "setup: {}", ended.errors);
    }

    /// Runs `nublar setup` or `nublar replay` to its end.
    pub async fn once(installation: &Installation, word: &str) -> Ended {
        let config = installation.write_config(word, "");
        let command = [word, "--data"].map(str::to_owned).into_iter();
        let data = installation.data().display().to_string();
        let rest = [data, "--config".to_owned(), config.display().to_string()];
        Self::ended(&command.chain(rest).collect::<Vec<_>>()).await
    }

    /// Runs a command of the program to its end.
    pub async fn ended(command: &[String]) -> Ended {
        let mut process = Process::spawn(command, Stdio::null(), Stdio::piped());
        let mut errors = process.0.stderr.take().unwrap();
        let read = tokio::task::spawn_blocking(move || {
            let mut text = Vec::new();
            errors.read_to_end(&mut text).unwrap();
            String::from_utf8_lossy(&text).into_owned()
        });
        let status = process.end(READY).await;
        Ended {
            status,
            errors: read.await.unwrap(),
        }
    }

    /// Kills it with SIGKILL, in the middle of whatever it does.
    pub async fn kill9(&mut self) {
        self.process.0.kill().unwrap();
        self.process.end(END).await;
    }

    /// Tells it to end, and waits until it has; it must end well.
    pub async fn stop(&mut self) {
        self.signal("TERM");
        let status = self.process.end(END).await;
        assert!(status.success(), "{status}");
    }

    /// Sends it a signal, for example `STOP`.
    pub fn signal(&self, name: &str) {
        let pid = self.process.0.id().to_string();
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &pid])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    /// Starts it again, at the same addresses, after it has ended.
    pub async fn restart(&mut self) {
        let ended = self.process.0.try_wait().unwrap();
        assert!(ended.is_some(), "it still runs");
        self.process = Process::start(&self.command, &self.log).await;
    }

    /// The API.
    pub fn api(&self) -> Api {
        self.api_with(&self.secrets.api_token)
    }

    /// The API, shown another token.
    pub fn api_with(&self, token: &str) -> Api {
        Api::new(&self.gui(), token, &self.secrets.ca.certificate)
    }

    /// Where its API is, as `http://host:port`.
    pub fn gui(&self) -> String {
        format!("http://{}", self.gui)
    }

    /// Whether it still runs: nobody has ended it, and it has not ended by itself.
    pub fn runs(&mut self) -> bool {
        self.process.0.try_wait().unwrap().is_none()
    }

    /// The secrets of its installation.
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// The memory that it has, bytes.
    pub fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The most memory that it has had at once, bytes.
    pub fn peak_memory(&self) -> u64 {
        self.status("VmHWM:")
    }

    /// The files and sockets that it has open.
    pub fn open_files(&self) -> usize {
        let path = format!("/proc/{}/fd", self.process.0.id());
        std::fs::read_dir(path).unwrap().count()
    }

    fn status(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.process.0.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.unwrap().trim().trim_end_matches("kB").trim();
        kib.parse::<u64>().unwrap() * 1024
    }

    /// Where agents connect.
    pub fn agents(&self) -> &[String] {
        &self.agents
    }

    /// An agent's connections to all its frontends.
    pub fn player(&self) -> Player {
        Self::player_of(&[self])
    }

    /// An agent's connections to all frontends of these processes.
    pub fn player_of(servers: &[&Self]) -> Player {
        let urls: Vec<_> = servers.iter().flat_map(|server| &server.agents).collect();
        let urls: Vec<String> = urls.into_iter().cloned().collect();
        Player::new(&servers[0].secrets.ca.certificate, &urls)
    }

    /// What a command of the program prints, given this server's data folder; it must succeed.
    pub fn order(&self, installation: &Installation, words: &[&str]) -> String {
        let data = installation.data().as_os_str();
        let done = Command::new(program())
            .args(words)
            .arg("--data")
            .arg(data)
            .output();
        let done = done.unwrap();
        let errors = String::from_utf8_lossy(&done.stderr);
        assert!(
            done.status.success(),
            "nublar {}: {errors}",
            words.join(" ")
        );
        String::from_utf8(done.stdout).unwrap()
    }

    /// What it has printed.
    pub fn printed(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            show(&self.log);
        }
    }
}

fn show(log: &Path) {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    eprintln!("--- the end of {}", log.display());
    for line in &lines[lines.len().saturating_sub(60)..] {
        eprintln!("{line}");
    }
}

/// A process that does not outlive its owner.
#[derive(Debug)]
struct Process(Child);

impl Process {
    fn spawn(command: &[String], stdout: Stdio, stderr: Stdio) -> Self {
        let child = Command::new(program())
            .args(command)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .spawn();
        Self(child.unwrap())
    }

    /// Starts it and waits for the line `ready`.
    async fn start(command: &[String], log: &Path) -> Self {
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .unwrap();
        let mut process = Self::spawn(command, Stdio::piped(), file.into());
        let printed = process.0.stdout.take().unwrap();
        let (tell, ready) = oneshot::channel();
        std::thread::spawn(move || read(printed, tell));
        let how = match timeout(READY, ready).await {
            Ok(Ok(())) => return process,
            Ok(Err(_)) => "ended before it was ready",
            Err(_) => "was not ready in time",
        };
        show(log);
        panic!("`nublar {}` {how}", command.join(" "));
    }

    /// Waits until it has ended, which must be within this time.
    async fn end(&mut self, within: Duration) -> ExitStatus {
        let until = Instant::now() + within;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "it does not end");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Tells of the line `ready`, and reads on: what is printed must not block.
fn read(printed: ChildStdout, tell: oneshot::Sender<()>) {
    let mut tell = Some(tell);
    for line in BufReader::new(printed).lines() {
        match line {
            Ok(line) if line == "ready" => {
                if let Some(tell) = tell.take() {
                    let _ = tell.send(());
                }
            }
            Ok(_) => {}
            Err(_) => return,
        }
    }
}
