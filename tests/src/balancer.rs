//! Load balancers as processes, from the files of `deploy/` that docs/load-balancers.md speaks of.

use crate::installation::{Installation, Pair};
use crate::server::{Server, free_port};
use crate::wait::eventually;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Where load balancers reach the server from; agents are elsewhere.
const FROM: &str = "127.0.0.2";

/// Which load balancer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// nginx, with the module for streams.
    Nginx,
    /// HAProxy.
    Haproxy,
    /// Envoy.
    Envoy,
}

/// Who ends an agent's TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// The load balancer: it speaks plain HTTP to the server.
    Ended,
    /// The server: the load balancer carries it there.
    Carried,
}

impl Tls {
    /// What the server is to be told, as lines of the table `frontend`.
    pub fn settings(self) -> String {
        let carried = self == Self::Carried;
        format!("trusted_proxies = [\"{FROM}\"]\nproxy_protocol = {carried}\n")
    }

    /// Where a server with a frontend of either kind takes what comes, without scheme and slash.
    fn listener(self, server: &Server) -> &str {
        let start = match self {
            Self::Ended => "http://",
            Self::Carried => "https://",
        };
        let mut urls = server.agents().iter();
        let address = urls.find_map(|url| url.strip_prefix(start)?.strip_suffix('/'));
        address.unwrap()
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
        }
    }

    /// Whether it tells the server of an agent on this machine that it is at 127.0.0.1. Envoy puts
    /// another address of the machine into `X-Forwarded-For`.
    pub fn tells_loopback(self, tls: Tls) -> bool {
        (self, tls) != (Self::Envoy, Tls::Ended)
    }

    /// Whether it can be run here; a note where it is not installed.
    pub fn is_installed(self) -> bool {
        self.program().is_some()
    }

    /// The program.
    fn program(self) -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
        let mut programs = folders.map(|folder| folder.join(self.name()));
        let program = programs.find(|program| program.is_file());
        if program.is_none() {
            eprintln!("not run: {} is not installed", self.name());
        }
        program
    }
}

/// One of our files, which is changed for a test.
#[derive(Debug)]
pub struct Text(String);

impl Text {
    /// Reads `deploy/{kind}/{file}`.
    fn read(kind: Kind, file: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
        Self(std::fs::read_to_string(folder.join(kind.name()).join(file)).unwrap())
    }

    /// Leaves out what stands from one text on to another, which both must be there.
    pub fn without(self, from: &str, to: &str) -> Self {
        let start = self.0.find(from).unwrap();
        let end = start + self.0[start..].find(to).unwrap();
        Self(format!("{}{}", &self.0[..start], &self.0[end..]))
    }

    /// Puts one text in the place of another, which must be there.
    pub fn with(self, from: &str, to: &str) -> Self {
        assert!(self.0.contains(from), "{from:?} is not in {}", self.0);
        Self(self.0.replace(from, to))
    }
}

/// A load balancer that runs. It ends when dropped.
#[derive(Debug)]
pub struct Balancer {
    process: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Balancer {
    /// Starts one before a server, by the file for this. Where it ends TLS it shows a certificate.
    pub async fn before(
        server: &Server,
        installation: &Installation,
        (kind, tls): (Kind, Tls),
        shown: &Pair,
        change: impl FnOnce(Text) -> Text,
    ) -> Self {
        let listener = tls.listener(server);
        let own = |port| format!("server one 127.0.0.1:{port}");
        let (bind, from) = (
            format!("proxy_bind {FROM};\nproxy_pass"),
            format!("server one {listener} source {FROM}"),
        );
        let Pair { certificate, key } = shown;
        let text = match (kind, tls) {
            (Kind::Nginx, Tls::Ended) => Text::read(kind, "terminate.conf")
                .with("127.0.0.1:8001", listener)
                .with("proxy_pass", &bind)
                .with("/etc/nginx/nublar.pem", &installation.keep(certificate))
                .with("/etc/nginx/nublar.key", &installation.keep(key)),
            (Kind::Nginx, Tls::Carried) => Text::read(kind, "passthrough.conf")
                .with("127.0.0.1:8000", listener)
                .with("proxy_pass", &bind),
            (Kind::Haproxy, Tls::Ended) => {
                let both = installation.keep(&format!("{certificate}{key}"));
                Text::read(kind, "terminate.cfg")
                    .with(&own(8001), &from)
                    .with("/etc/haproxy/nublar.pem", &both)
            }
            (Kind::Haproxy, Tls::Carried) => {
                Text::read(kind, "passthrough.cfg").with(&own(8000), &from)
            }
            (Kind::Envoy, tls) => {
                let (host, port) = listener.rsplit_once(':').unwrap();
                let place =
                    |host: &str, port: &str| format!("{{ address: {host}, port_value: {port} }}");
                let source = format!(
                    "upstream_bind_config: {{ source_address: {} }}",
                    place(FROM, "0")
                );
                let ended = tls == Tls::Ended;
                let (file, usual) = if ended {
                    ("terminate.yaml", "8001")
                } else {
                    ("passthrough.yaml", "8000")
                };
                let text = Text::read(kind, file)
                    .with(&place("127.0.0.1", usual), &place(host, port))
                    .with(
                        "connect_timeout: 5s",
                        &format!("connect_timeout: 5s\n    {source}"),
                    );
                if ended {
                    text.with("/etc/envoy/nublar.pem", &installation.keep(certificate))
                        .with("/etc/envoy/nublar.key", &installation.keep(key))
                } else {
                    text
                }
            }
        };
        Self::start(kind, installation, change(text)).await
    }

    /// Starts one; its text listens at 443.
    async fn start(kind: Kind, installation: &Installation, text: Text) -> Self {
        let program = kind.program().unwrap();
        let address = free_port();
        let name = format!("{}-{}", kind.name(), address.port());
        let file = |end: &str| installation.beside(&format!("{name}.{end}"));
        let end = if kind == Kind::Envoy { "yaml" } else { "conf" };
        let (config, log) = (file(end), file("log"));
        let mut command = Command::new(program);
        let text = match kind {
            Kind::Nginx => {
                command.arg("-c");
                let text = text.with("listen 443", &format!("listen {address}"));
                whole_nginx(&text.0, &file("folder"), &log)
            }
            Kind::Haproxy => {
                command.args(["-db", "-f"]);
                let text = text.with("bind :443", &format!("bind {address}"));
                text.with("    user haproxy\n    group haproxy\n", "").0
            }
            Kind::Envoy => {
                let quiet = ["--disable-hot-restart", "--concurrency", "1", "-l", "warn"];
                command.args(quiet).arg("-c");
                let everywhere = "address: 0.0.0.0, port_value: 443";
                let here = format!("address: {}, port_value: {}", address.ip(), address.port());
                text.with(everywhere, &here).0
            }
        };
        std::fs::write(&config, text).unwrap();
        let output = std::fs::File::create(file("out")).unwrap();
        command.arg(&config).stdin(Stdio::null());
        command.stdout(output.try_clone().unwrap()).stderr(output);
        let process = command.spawn().unwrap();
        let log = match kind {
            Kind::Nginx => log,
            Kind::Haproxy | Kind::Envoy => file("out"),
        };
        let mut balancer = Self {
            process,
            address,
            log,
        };
        eventually("the load balancer listens", async || {
            if let Some(status) = balancer.process.try_wait().unwrap() {
                let said = std::fs::read_to_string(file("out")).unwrap();
                panic!("{} ended with {status}: {said}", config.display());
            }
            TcpStream::connect(address).map(drop)
        })
        .await;
        balancer
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        // Told so, nginx ends its workers too.
        let pid = self.process.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let _ = self.process.wait();
        if std::thread::panicking() {
            let said = std::fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<_> = said.lines().collect();
            eprintln!("--- the end of {}", self.log.display());
            for line in &lines[lines.len().saturating_sub(30)..] {
                eprintln!("{line}");
            }
        }
    }
}

/// What stands around a file for the `http` or the `stream` block; whatever nginx writes goes into
/// a folder.
fn whole_nginx(text: &str, folder: &Path, log: &Path) -> String {
    std::fs::create_dir_all(folder).unwrap();
    let stream = text.contains("proxy_timeout");
    let block = if stream { "stream" } else { "http" };
    let file = folder.join("included.conf");
    let start = text.find("access_log").unwrap();
    let named = text[start..].split_whitespace().nth(1).unwrap();
    std::fs::write(&file, text.replace(named, &log.display().to_string())).unwrap();
    let (folder, file) = (folder.display(), file.display());
    let bodies =
        format!("client_body_temp_path {folder}/bodies; proxy_temp_path {folder}/answers;");
    let bodies = if stream { "" } else { &bodies };
    format!(
        "include /etc/nginx/modules-enabled/*.conf;\nuser root;\ndaemon off;\nworker_processes 1;\n\
         pid {folder}/pid;\nerror_log {folder}/errors warn;\nevents {{}}\n\
         {block} {{\n{bodies}\ninclude {file};\n}}\n"
    )
}
