//! Stock agents as processes.

use nublar_tests::{Installation, Server, eventually};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// An agent to start.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    /// What it is called here.
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    /// Whether it speaks over WebSockets: agents of before 0.72 do not.
    pub(crate) sockets: bool,
    /// Whether it goes on with uploads when it is told to: agents of before 0.75 do not.
    pub(crate) resumes: bool,
    /// Where it connects; the server's own address if there is none.
    pub(crate) url: Option<String>,
    /// More words for `client-config`.
    pub(crate) options: Vec<String>,
    /// A file of authorities that it takes for the machine's own.
    pub(crate) authorities: Option<PathBuf>,
}

/// One home for every agent that `NUBLAR_AGENT` lists; none, and a note, when it is not set.
pub(crate) fn homes() -> Vec<Home> {
    let Some(list) = std::env::var_os("NUBLAR_AGENT") else {
        eprintln!("not run: NUBLAR_AGENT names no stock agent");
        return Vec::new();
    };
    let homes = std::env::split_paths(&list).map(|program| {
        let version = version(&program);
        let sockets = numbers(&version) >= vec![0, 72];
        let resumes = numbers(&version) >= vec![0, 75];
        if !sockets {
            eprintln!("not over WebSockets: {version}");
        }
        Home {
            name: version,
            program,
            sockets,
            resumes,
            url: None,
            options: Vec::new(),
            authorities: None,
        }
    });
    homes.collect()
}

impl Home {
    /// Whether it can connect to a URL, or by a scheme.
    pub(crate) fn speaks(&self, url: &str) -> bool {
        self.sockets || !url.starts_with("ws")
    }

    /// The same agent, connected to a URL.
    pub(crate) fn at(&self, kind: &str, url: &str) -> Self {
        Self {
            name: format!("{} {kind}", self.name),
            url: Some(url.to_owned()),
            ..self.clone()
        }
    }
}

/// What an agent says it is, for example `0.77.1`.
fn version(program: &Path) -> String {
    let told = Command::new(program).arg("version").output();
    let told = told.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix("version:"));
    line.unwrap_or_else(|| panic!("{} tells no version: {text}", program.display()))
        .trim()
        .to_owned()
}

/// The numbers of a version: `0.72.4` is newer than `0.7.1`, and that than `0.6.8-2`.
fn numbers(version: &str) -> Vec<u32> {
    let parts = version.split(['.', '-']);
    parts.map_while(|part| part.parse().ok()).collect()
}

fn is_client_id(word: &str) -> bool {
    let digits = word.strip_prefix("C.").unwrap_or_default();
    digits.len() == 16 && digits.chars().all(|c| c.is_ascii_hexdigit())
}

/// An agent's process. It is killed when dropped.
pub(crate) struct Agent {
    process: Child,
    log: PathBuf,
}

impl Agent {
    pub(crate) fn start(home: &Home, server: &Server, installation: &Installation) -> Self {
        let file = |end: &str| installation.beside(&format!("{}.{end}", home.name));
        let writeback = file("writeback.yaml").display().to_string();
        let mut words = vec!["client-config", "--writeback-linux", &writeback];
        if let Some(url) = &home.url {
            words.extend(["--url", url]);
        }
        words.extend(home.options.iter().map(String::as_str));
        let config = file("config.yaml");
        std::fs::write(&config, server.order(installation, &words)).unwrap();
        Self::run(home, &config, file("log"))
    }

    /// One with this configuration, which writes what it says to a log.
    pub(crate) fn run(home: &Home, config: &Path, log: PathBuf) -> Self {
        let mut command = Command::new(&home.program);
        command
            .args(["--nobanner", "--nocolor", "client", "-v", "--config"])
            .arg(config)
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap());
        if let Some(file) = &home.authorities {
            command.env("SSL_CERT_FILE", file);
        }
        let process = command.spawn().unwrap();
        Self { process, log }
    }

    /// Its id, once it has told it.
    pub(crate) async fn client_id(&self) -> String {
        eventually("the agent's id", async || {
            let said = self.said();
            let words = said.split(|c: char| c != '.' && !c.is_ascii_alphanumeric());
            let mut ids = words.filter(|word| is_client_id(word)).map(str::to_owned);
            ids.next().ok_or("not yet")
        })
        .await
    }

    /// How often it has begun to speak to the server anew.
    pub(crate) fn beginnings(&self) -> usize {
        let said = self.said();
        said.matches("Received PEM").count() + said.matches("Retrying connection").count()
    }

    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            let said = self.said();
            let lines: Vec<_> = said.lines().collect();
            eprintln!("--- the end of {}", self.log.display());
            for line in &lines[lines.len().saturating_sub(30)..] {
                eprintln!("{line}");
            }
        }
    }
}
