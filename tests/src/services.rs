//! Kafka, OpenSearch and an S3 server, where the environment names them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

/// The services of a `services.env`.
#[derive(Debug, Clone)]
pub struct Services {
    values: HashMap<String, String>,
    /// Those that are nobody else's end with the last copy of this.
    own: Option<Arc<Own>>,
}

/// A folder of services that end when it is dropped.
#[derive(Debug)]
struct Own(TempDir);

impl Drop for Own {
    fn drop(&mut self) {
        let stopped = script().arg("stop").arg(self.0.path()).output();
        if !stopped.is_ok_and(|output| output.status.success()) && !std::thread::panicking() {
            panic!("services of {} do not end", self.0.path().display());
        }
    }
}

fn script() -> Command {
    Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("services/services"))
}

/// Runs it to its end; it must succeed.
async fn carry_out(mut command: Command) {
    let done = tokio::task::spawn_blocking(move || (command.output(), command));
    let (output, command) = done.await.unwrap();
    let output = output.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
}

fn read(path: &Path) -> HashMap<String, String> {
    let text =
        std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

impl Services {
    /// Those that `NUBLAR_TEST_SERVICES` names; none, and a note, when it is not set.
    pub fn from_env() -> Option<Self> {
        let Some(path) = std::env::var_os("NUBLAR_TEST_SERVICES") else {
            eprintln!("not run: NUBLAR_TEST_SERVICES names no services.env");
            return None;
        };
        Some(Self {
            values: read(&PathBuf::from(path)),
            own: None,
        })
    }

    /// The same, but with the services of these names started anew for this alone: what
    /// [`Services::order`] does to them disturbs nobody else. They end when it is dropped.
    pub async fn with_own(mut self, names: &[&str]) -> Self {
        let own = Arc::new(Own(tempfile::tempdir().unwrap()));
        let folder = own.0.path().to_owned();
        self.own = Some(own);
        let mut start = script();
        start.arg("start").arg(&folder).args(names);
        carry_out(start).await;
        self.values.extend(read(&folder.join("services.env")));
        self
    }

    /// The same, but with another value.
    #[must_use]
    pub fn with(mut self, name: &str, value: String) -> Self {
        self.values.insert(name.to_owned(), value);
        self
    }

    /// A value, for example `KAFKA`.
    pub fn get(&self, name: &str) -> &str {
        self.values
            .get(name)
            .unwrap_or_else(|| panic!("services.env has no {name}"))
    }

    /// Where a service is, as `host:port`: `KAFKA`, `OPENSEARCH` or `S3`.
    pub fn address(&self, name: &str) -> String {
        let url = self.get(name);
        url.split_once("://")
            .map_or(url, |(_, address)| address)
            .to_owned()
    }

    /// Lines of a configuration that keep everything there, apart from all other tests. Writes the
    /// keys of the object store to `keys_file`.
    pub fn storage(&self, keys_file: &Path) -> String {
        let keys = format!(
            "{}\n{}\n",
            self.get("S3_ACCESS_KEY"),
            self.get("S3_SECRET_KEY")
        );
        std::fs::write(keys_file, keys).unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let own = format!("t{:x}-{:x}", now.as_micros(), std::process::id());
        format!(
            r#"
[storage.log]
kind = "kafka"
brokers = "{}"
prefix = "{own}."
replication = 1
min_insync = 1

[storage.index]
kind = "opensearch"
url = "{}"
prefix = "{own}-"
replicas = 0

[storage.objects]
kind = "s3"
endpoint = "{}"
region = "{}"
bucket = "{own}"
keys_file = "{}"
"#,
            self.get("KAFKA"),
            self.get("OPENSEARCH"),
            self.get("S3"),
            self.get("S3_REGION"),
            keys_file.display(),
        )
    }

    /// Does something to a service that is this one's own: `pause`, `resume`, `kill`, `restart`,
    /// `start`.
    pub async fn order(&self, what: &str, name: &str) {
        let own = self.own.as_ref();
        let own = own.unwrap_or_else(|| panic!("{name} is shared with other tests"));
        let mut command = script();
        command.arg(what).arg(own.0.path()).arg(name);
        carry_out(command).await;
    }
}
