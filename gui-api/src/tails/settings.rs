//! The artifacts and the tools, as the settings have them.

use super::follow::Progress;
use nublar_core::artifact::{Repository, Tool, Tools, load};
use nublar_ports::log::Record;
use nublar_schemas::codec::{CodecError, Record as _};
use nublar_schemas::records::Setting;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// What the body of an artifact's setting holds.
#[derive(Debug, Deserialize)]
struct Text {
    yaml: String,
}

/// What the body of a tool's setting holds. Its id is the tool's name, and behind an `@` its
/// version if it has one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ToolFile {
    /// SHA-256 in hex.
    pub(crate) hash: String,
    /// The name of the file on the machine.
    pub(crate) filename: String,
    /// Bytes.
    pub(crate) size: u64,
}

#[derive(Debug, Default)]
struct State {
    /// The highest version of each setting, by `kind/id`.
    versions: HashMap<String, i64>,
    artifacts: Arc<Repository>,
    tools: Arc<Tools>,
    files: HashMap<String, ToolFile>,
}

/// The settings of the root organisation.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) progress: Progress,
    /// Where agents fetch tools: behind each stands a hash.
    urls: Vec<String>,
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

impl Settings {
    pub(crate) fn new(agent_urls: &[String]) -> Self {
        let urls = agent_urls.iter().map(|url| public(url));
        Self {
            progress: Progress::default(),
            urls: urls.collect(),
            state: Mutex::default(),
            changed: watch::Sender::new(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn apply(&self, record: &Record) -> Result<(), CodecError> {
        if record.value.is_empty() {
            return Ok(());
        }
        let setting = Setting::decode(&record.value)?;
        if !setting.header.org.is_empty() {
            return Ok(());
        }
        {
            let mut state = self.lock();
            let target = format!("{}/{}", setting.kind, setting.id);
            let known = state.versions.entry(target).or_insert(i64::MIN);
            if setting.version <= *known {
                return Ok(());
            }
            *known = setting.version;
            match setting.kind.as_str() {
                "artifact" => state.artifact(&setting),
                "tool" => state.tool(&setting, &self.urls),
                _ => {}
            }
        }
        self.changed.send_replace(());
        Ok(())
    }

    /// The artifacts as they are now.
    pub(crate) fn artifacts(&self) -> Arc<Repository> {
        Arc::clone(&self.lock().artifacts)
    }

    /// The tools that agents can fetch now.
    pub(crate) fn tools(&self) -> Arc<Tools> {
        Arc::clone(&self.lock().tools)
    }

    /// The files of the tools, by the ids of their settings.
    pub(crate) fn files(&self) -> HashMap<String, ToolFile> {
        self.lock().files.clone()
    }

    /// Whether a setting was ever made, be it gone since.
    pub(crate) fn is_known(&self, target: &str) -> bool {
        self.lock().versions.contains_key(target)
    }

    /// Waits until a setting has at least this version here.
    pub(crate) async fn reach(&self, target: &str, version: i64) {
        let reached = |(): &()| {
            let state = self.lock();
            state
                .versions
                .get(target)
                .is_some_and(|known| *known >= version)
        };
        // The sender lives as long as `self`: waiting cannot fail.
        let _ = self.changed.subscribe().wait_for(reached).await;
    }
}

impl State {
    fn artifact(&mut self, setting: &Setting) {
        let repository = Arc::make_mut(&mut self.artifacts);
        if setting.body.is_empty() {
            repository.remove(&setting.id);
            return;
        }
        let text = serde_json::from_str::<Text>(&setting.body);
        let yaml = text.map(|text| text.yaml).unwrap_or_default();
        match load(&format!("{}.yaml", setting.id), &yaml) {
            Ok(loaded) => repository.insert(loaded.definition),
            Err(error) => {
                tracing::error!(artifact = setting.id, %error, "a setting is no artifact");
            }
        }
    }

    fn tool(&mut self, setting: &Setting, urls: &[String]) {
        let (name, version) = setting.id.split_once('@').unwrap_or((&setting.id, ""));
        let tools = Arc::make_mut(&mut self.tools);
        tools.remove(name, version);
        self.files.remove(&setting.id);
        if setting.body.is_empty() {
            return;
        }
        match serde_json::from_str::<ToolFile>(&setting.body) {
            Ok(file) => {
                let tool = Tool {
                    hash: file.hash.clone(),
                    filename: file.filename.clone(),
                    urls: urls
                        .iter()
                        .map(|url| format!("{url}{}", file.hash))
                        .collect(),
                    path: String::new(),
                };
                tools.insert(name, version, tool);
                self.files.insert(setting.id.clone(), file);
            }
            Err(error) => tracing::error!(tool = setting.id, %error, "a setting is no tool"),
        }
    }
}

/// Where the frontends behind a URL have what is public. Agents fetch by HTTP, also those that
/// otherwise speak over WebSockets.
fn public(url: &str) -> String {
    let http = match url.strip_prefix("ws") {
        Some(rest) => format!("http{rest}"),
        None => url.to_owned(),
    };
    let slash = if http.ends_with('/') { "" } else { "/" };
    format!("{http}{slash}public/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_are_fetched_by_http_below_the_agents_urls() {
        assert_eq!(public("wss://a:8000/x/"), "https://a:8000/x/public/");
        assert_eq!(public("ws://a/"), "http://a/public/");
        assert_eq!(public("https://a"), "https://a/public/");
    }
}
