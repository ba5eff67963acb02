//! Stock servers as processes: the same program as the agent.

use nublar_tests::{Installation, eventually, free_port};
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A server with a configuration and a data folder of its own, on free ports. It is killed when
/// dropped.
pub(crate) struct Deployment {
    program: PathBuf,
    folder: PathBuf,
    process: Child,
}

impl Deployment {
    /// Configures one, with `client` over what it tells its agents, starts it and waits until it listens.
    pub(crate) async fn start(
        program: &Path,
        installation: &Installation,
        mut client: Value,
    ) -> Self {
        let folder = installation.beside("deployment");
        std::fs::create_dir(&folder).unwrap();
        let [frontend, api, gui, monitoring] = [(); 4].map(|()| free_port());
        let at =
            |address: SocketAddr| json!({"bind_address": "127.0.0.1", "bind_port": address.port()});
        let file = |name: &str| folder.join(name).display().to_string();
        client["server_urls"] = json!([format!("https://{frontend}/")]);
        client["use_self_signed_ssl"] = json!(true);
        client["writeback_linux"] = json!(file("writeback.yaml"));
        client["local_buffer"] = json!({"filename_linux": file("buffer")});
        let over = json!({
            "Client": client,
            "Frontend": at(frontend),
            "API": at(api),
            "GUI": at(gui),
            "Monitoring": at(monitoring),
            "Datastore": {"location": file("data"), "filestore_directory": file("data")},
            "Logging": {"output_directory": file("logs")},
        });
        std::fs::create_dir(folder.join("data")).unwrap();
        let run = |words: &[&str]| printed(program, words);
        let config = file("server.config.yaml");
        let text = run(&["config", "generate", "--merge", &over.to_string()]);
        std::fs::write(&config, text).unwrap();
        let text = run(&["--config", &config, "config", "client"]);
        std::fs::write(file("client.config.yaml"), text).unwrap();
        let person = ["--name", "tester", "--role", "administrator"];
        let words = ["--config", &config, "config", "api_client"];
        let key = file("api.config.yaml");
        run(&[&words[..], &person[..], &[&key]].concat());
        let log = std::fs::File::create(file("server.log")).unwrap();
        // It guards itself by a second process, which would outlive the first.
        let alone = "--disable-panic-guard";
        let process = Command::new(program)
            .args(["--nobanner", "--nocolor", "--config", &config])
            .args(["frontend", "-v", alone])
            .env("TMPDIR", &folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        let mut this = Self {
            program: program.to_owned(),
            process: process.unwrap(),
            folder,
        };
        eventually("the stock server listens", async || {
            if let Some(status) = this.process.try_wait().unwrap() {
                panic!("the stock server ended with {status}");
            }
            TcpStream::connect(frontend)
                .and(TcpStream::connect(api))
                .map(drop)
        })
        .await;
        this
    }

    /// A file of its folder, for example `server.config.yaml`.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Asks a client to run a query without single quotes; gives the flow.
    pub(crate) fn collect(&self, client: &str, query: &str) -> String {
        let call = format!(
            "SELECT collect_client(client_id='{client}', artifacts='Generic.Client.VQL', \
             spec=dict(`Generic.Client.VQL`=dict(Command='{query}'))).flow_id AS Flow FROM scope()"
        );
        let api = self.file("api.config.yaml").display().to_string();
        let words = ["--api_config", &api, "query", "--format", "jsonl", &call];
        let told: Value = serde_json::from_str(printed(&self.program, &words).trim()).unwrap();
        told["Flow"].as_str().unwrap().to_owned()
    }

    /// The version of its event table.
    pub(crate) fn table_version(&self) -> i64 {
        let text = std::fs::read(self.file("data/config/client_monitoring.json.db")).unwrap();
        let table: Value = serde_json::from_slice(&text).unwrap();
        table["version"].as_str().unwrap().parse().unwrap()
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            let said = std::fs::read_to_string(self.file("server.log")).unwrap_or_default();
            let lines: Vec<_> = said.lines().collect();
            eprintln!("--- the end of the stock server's log");
            for line in &lines[lines.len().saturating_sub(30)..] {
                eprintln!("{line}");
            }
        }
    }
}

/// What the program prints, given these words; it must succeed.
fn printed(program: &Path, words: &[&str]) -> String {
    let done = Command::new(program)
        .arg("--nobanner")
        .args(words)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{}: {errors}", words.join(" "));
    String::from_utf8(done.stdout).unwrap()
}
