//! Kafka, OpenSearch and an S3 server, where the environment names them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The services of a `services.env`.
#[derive(Debug, Clone)]
pub struct Services {
    values: HashMap<String, String>,
    folder: PathBuf,
}

impl Services {
    /// Those that `NUBLAR_TEST_SERVICES` names; none, and a note, when it is not set.
    pub fn from_env() -> Option<Self> {
        let Some(path) = std::env::var_os("NUBLAR_TEST_SERVICES") else {
            eprintln!("not run: NUBLAR_TEST_SERVICES names no services.env");
            return None;
        };
        let path = PathBuf::from(path);
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let values = text
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        Some(Self {
            values: values.collect(),
            folder: path.parent().unwrap().to_owned(),
        })
    }

    fn get(&self, name: &str) -> &str {
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

    /// Does something to a service: `pause`, `resume`, `kill`, `restart`, `start`.
    pub async fn order(&self, what: &str, name: &str) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("services/services");
        let mut command = std::process::Command::new(script);
        command.arg(what).arg(&self.folder).arg(name);
        let done = tokio::task::spawn_blocking(move || command.output())
            .await
            .unwrap()
            .unwrap();
        assert!(
            done.status.success(),
            "{what} {name}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
    }
}
