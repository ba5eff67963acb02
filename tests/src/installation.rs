//! A data folder with its configuration and secrets.

use crate::recorded::Recorded;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use tempfile::TempDir;

/// A certificate and its private key, PEM.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: String,
}

/// An organisation's nonce.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OrgNonce {
    /// Empty for the root.
    pub id: String,
    /// The nonce.
    pub nonce: String,
}

/// A key of ids.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IdKey {
    /// Signs from this time on, microseconds since 1970.
    pub from_us: i64,
    /// 64 hex digits.
    pub secret: String,
}

/// `secrets.toml`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Secrets {
    /// What lets one in at the API.
    pub api_token: String,
    /// The agents' authority.
    pub ca: Pair,
    /// What agents encrypt to.
    pub agents: Pair,
    /// The leaf of HTTPS.
    pub tls: Pair,
    /// The organisations.
    pub orgs: Vec<OrgNonce>,
    /// The keys of ids.
    pub id_keys: Vec<IdKey>,
}

impl Secrets {
    /// Those under which a recording was made; the ids' key is of the tests.
    pub fn recorded(recorded: &Recorded) -> Self {
        let agents = Pair {
            certificate: recorded.server_certificate(),
            key: recorded.server_key(),
        };
        Self {
            api_token: "a token of the tests".to_owned(),
            ca: Pair {
                certificate: recorded.ca_certificate(),
                key: String::new(),
            },
            tls: agents.clone(),
            agents,
            orgs: vec![OrgNonce {
                id: String::new(),
                nonce: recorded.nonce().to_owned(),
            }],
            id_keys: vec![IdKey {
                from_us: 0,
                secret: "5a".repeat(32),
            }],
        }
    }

    /// What a server made for itself.
    pub fn read(data: &Path) -> Self {
        let path = data.join("secrets.toml");
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        toml::from_str(&text).unwrap()
    }
}

/// What adopts recorded flows, asks nobody who he is, and is quick to report. A poll ends at
/// once, and everything that agents report of a flow reaches its document.
const RECORDED: &str = "
[frontend]
adopt_flows = true
max_poll_s = 0.05
progress_every_s = 0
hold_s = 5

[foreman]
interrogate = false
monitor = false

[workers]
report_ms = 100
";

/// A data folder; what is configured stands beside it.
#[derive(Debug)]
pub struct Installation {
    /// What is kept of the processes beside the data: configuration and what they print.
    beside: TempDir,
    data: PathBuf,
    config: String,
}

impl Installation {
    /// An empty one, with nothing configured: the server makes its secrets.
    pub fn empty() -> Self {
        let beside = tempfile::tempdir().unwrap();
        let data = beside.path().join("data");
        Self::at(beside, data)
    }

    /// One whose data is in a folder of somebody else's.
    pub fn within(data: &Path) -> Self {
        Self::at(tempfile::tempdir().unwrap(), data.to_owned())
    }

    fn at(beside: TempDir, data: PathBuf) -> Self {
        std::fs::create_dir_all(&data).unwrap();
        Self {
            beside,
            data,
            config: String::new(),
        }
    }

    /// One that can take a recording.
    pub fn recorded(recorded: &Recorded) -> Self {
        Self::empty().take_recording(recorded)
    }

    /// Puts the keys of a recording into it, and the configuration that it needs.
    #[must_use]
    pub fn take_recording(mut self, recorded: &Recorded) -> Self {
        self.write_secrets(&Secrets::recorded(recorded));
        self.config.push_str(RECORDED);
        self
    }

    /// Puts secrets into it.
    pub fn write_secrets(&self, secrets: &Secrets) {
        let text = toml::to_string(secrets).unwrap();
        std::fs::write(self.data.join("secrets.toml"), text).unwrap();
    }

    /// Puts a line before all tables of the configuration.
    #[must_use]
    pub fn with_first(mut self, line: &str) -> Self {
        self.config.insert_str(0, line);
        self
    }

    /// Adds lines to the configuration: whole tables that are not there yet.
    #[must_use]
    pub fn with(mut self, lines: &str) -> Self {
        self.config.push_str(lines);
        self
    }

    /// Another configuration altogether.
    #[must_use]
    pub fn configured(mut self, text: &str) -> Self {
        text.clone_into(&mut self.config);
        self
    }

    /// The data folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// What is configured, without what each process adds.
    pub(crate) fn config(&self) -> &str {
        &self.config
    }

    /// Writes the configuration, with `more` behind it, into a file of this name.
    pub(crate) fn write_config(&self, name: &str, more: &str) -> PathBuf {
        let path = self.beside.path().join(format!("{name}.toml"));
        std::fs::write(&path, format!("{}\n{more}", self.config)).unwrap();
        path
    }

    /// Writes a text into a new file beside the data, and says where it is.
    pub fn keep(&self, text: &str) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = self.beside(&format!("{number}.txt"));
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// A file beside the data.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.beside.path().join(name)
    }
}
