//! The configuration file: one for all roles, so that every process of an installation reads the same.

use crate::certificates;
use anyhow::{Context, Result};
use nublar_ports::StorageConfig;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The whole file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Folder of what is embedded, of the secrets and of the API's address.
    pub(crate) data: Option<PathBuf>,
    /// The secrets file; `secrets.toml` in the data folder if left out.
    pub(crate) secrets_file: Option<PathBuf>,
    /// Partitions of what is keyed by clients: fixed once the topics are made.
    pub(crate) partitions: Option<u32>,
    /// What stands behind log, index and objects.
    pub(crate) storage: StorageConfig,
    pub(crate) frontend: nublar_frontend::Config,
    pub(crate) certificates: certificates::Config,
    pub(crate) foreman: nublar_foreman::Config,
    pub(crate) workers: nublar_ingest_workers::Config,
    pub(crate) gui: Gui,
}

/// The people's side.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Gui {
    /// Where to listen.
    pub(crate) listen: SocketAddr,
    /// Where agents reach the frontends; `run` takes the addresses that it listens on if it is empty.
    pub(crate) agent_urls: Vec<String>,
}

impl Default for Gui {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8889)),
            agent_urls: Vec::new(),
        }
    }
}

impl Config {
    /// Reads the file, or takes the defaults; `data` of the command line wins.
    pub(crate) fn load(file: Option<&Path>, data: Option<&Path>) -> Result<Self> {
        let mut config = match file {
            None => Self::default(),
            Some(file) => {
                let text = std::fs::read_to_string(file)
                    .with_context(|| format!("cannot read the configuration {}", file.display()))?;
                toml::from_str(&text)
                    .with_context(|| format!("in the configuration {}", file.display()))?
            }
        };
        if let Some(data) = data {
            config.data = Some(data.to_owned());
        }
        Ok(config)
    }

    /// The data folder.
    pub(crate) fn data(&self) -> Result<&Path> {
        self.data
            .as_deref()
            .context("no data folder: give --data DIR, or `data` in the configuration")
    }

    /// The secrets file.
    pub(crate) fn secrets_path(&self) -> Result<PathBuf> {
        match &self.secrets_file {
            Some(path) => Ok(path.clone()),
            None => Ok(self.data()?.join("secrets.toml")),
        }
    }

    /// Partitions of what is keyed by clients: 4 in one process, 64 in many.
    pub(crate) fn partitions(&self) -> u32 {
        self.partitions
            .unwrap_or(if self.storage.is_shared() { 64 } else { 4 })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_wrong_key_is_named() {
        let error =
            toml::from_str::<Config>("[gui]\nlisten = \"127.0.0.1:1\"\nlisen = 1\n").unwrap_err();
        assert!(error.to_string().contains("lisen"), "{error}");
    }
}
