//! The artifacts, as the settings have them.

use super::follow::Progress;
use nublar_core::artifact::{Repository, load};
use nublar_ports::log::Record;
use nublar_schemas::codec::{CodecError, Record as _};
use nublar_schemas::records::Setting;
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// What the body of an artifact's setting holds.
#[derive(Debug, Deserialize)]
struct Text {
    yaml: String,
}

/// The settings of the root organisation.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) progress: Progress,
    /// The highest version of each setting, by `kind/id`.
    versions: Mutex<HashMap<String, i64>>,
    artifacts: watch::Sender<Arc<Repository>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            progress: Progress::default(),
            versions: Mutex::default(),
            artifacts: watch::Sender::new(Arc::new(Repository::builtin())),
        }
    }
}

impl Settings {
    pub(super) fn apply(&self, record: &Record) -> Result<(), CodecError> {
        if record.value.is_empty() {
            return Ok(());
        }
        let setting = Setting::decode(&record.value)?;
        if !setting.header.org.is_empty() || setting.kind != "artifact" {
            return Ok(());
        }
        {
            let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
            let target = format!("{}/{}", setting.kind, setting.id);
            let known = versions.entry(target).or_insert(i64::MIN);
            if setting.version <= *known {
                return Ok(());
            }
            *known = setting.version;
        }
        let mut repository = Repository::clone(&self.artifacts.borrow());
        if setting.body.is_empty() {
            repository.remove(&setting.id);
        } else {
            let text = serde_json::from_str::<Text>(&setting.body);
            let yaml = text.map(|text| text.yaml).unwrap_or_default();
            match load(&format!("{}.yaml", setting.id), &yaml) {
                Ok(loaded) => repository.insert(loaded.definition),
                Err(error) => {
                    tracing::error!(artifact = setting.id, %error, "a setting is no artifact");
                }
            }
        }
        self.artifacts.send_replace(Arc::new(repository));
        Ok(())
    }

    /// The artifacts as they are now.
    pub(crate) fn artifacts(&self) -> Arc<Repository> {
        self.artifacts.borrow().clone()
    }

    /// Whether a setting was ever made, be it gone since.
    pub(crate) fn is_known(&self, target: &str) -> bool {
        let versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        versions.contains_key(target)
    }

    /// Waits until a setting has at least this version here.
    pub(crate) async fn reach(&self, target: &str, version: i64) {
        let reached = || {
            let versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
            versions.get(target).is_some_and(|known| *known >= version)
        };
        // The sender lives as long as `self`: waiting cannot fail.
        let _ = self.artifacts.subscribe().wait_for(|_| reached()).await;
    }
}
