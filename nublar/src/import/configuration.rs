//! The configuration file of an imported deployment: made, or held against what agents expect.

use super::deployment::Deployment;
use crate::config::Config;
use anyhow::{Context, Result, bail};
use nublar_frontend::AdoptFlows;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// How long agents may still send what they were asked for by the old server, seconds: results
/// older than that have no week to be put in.
const ADOPT: i64 = 35 * 86_400;

/// The file.
pub(super) struct Configuration {
    path: PathBuf,
    config: Config,
    /// What is to be written, if it is not there.
    text: Option<String>,
    /// What people should know of it.
    pub(super) notes: Vec<String>,
}

impl Configuration {
    /// Finds the file and reads it, or makes up what it is to hold.
    ///
    /// Errors: no data folder; a file that lacks what agents need, with the lines to put in.
    pub(super) fn find(
        file: Option<&Path>,
        data: Option<&Path>,
        deployment: &Deployment,
        now_s: i64,
    ) -> Result<Self> {
        let path = match (file, data) {
            (Some(file), _) => file.to_owned(),
            (None, Some(data)) => data.join("nublar.toml"),
            (None, None) => {
                bail!("no data folder: give --data DIR, or `data` in the configuration")
            }
        };
        let until = now_s + ADOPT;
        if !path.exists() {
            let data = data.context("no data folder: give --data DIR, where everything is kept")?;
            let text = document(&std::path::absolute(data)?, deployment, until)?;
            let config = toml::from_str(&text)?;
            return Ok(Self {
                path,
                config,
                text: Some(text),
                notes: Vec::new(),
            });
        }
        let config = Config::load(Some(&path), data)?;
        let (frontend, mut missing) = (&config.frontend, Vec::new());
        if frontend.server_name != deployment.server_name {
            missing.push(format!("server_name = {:?}", deployment.server_name));
        }
        let slashed = format!("/{}/", frontend.base_path.trim_matches('/')).replace("//", "/");
        if slashed != deployment.base_path {
            missing.push(format!("base_path = {:?}", deployment.base_path));
        }
        if frontend.max_poll.as_secs_f64() > deployment.max_poll as f64 {
            missing.push(format!("max_poll_s = {}", deployment.max_poll));
        }
        if (frontend.max_upload_size as u64) < deployment.max_upload_size {
            missing.push(format!("max_upload_size = {}", deployment.max_upload_size));
        }
        if !missing.is_empty() {
            bail!(
                "{} does not fit the agents: put this under [frontend] and import again; nothing was written\n{}",
                path.display(),
                missing.join("\n")
            );
        }
        let mut notes = Vec::new();
        if frontend.adopt_flows == AdoptFlows::Always(false) {
            notes.push(format!(
                "results of what the old server asked for are not taken: put `adopt_flows = {until}` under [frontend] of {} to take them for 35 days",
                path.display()
            ));
        }
        Ok(Self {
            path,
            config,
            text: None,
            notes,
        })
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What it says.
    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Writes the file if it was not there; says whether it did.
    pub(super) fn write(&self) -> Result<bool> {
        let Some(text) = &self.text else {
            return Ok(false);
        };
        let draft = self.path.with_extension("new");
        std::fs::write(&draft, text)
            .and_then(|()| std::fs::rename(&draft, &self.path))
            .with_context(|| format!("cannot write {}", self.path.display()))?;
        Ok(true)
    }
}

fn document(data: &Path, deployment: &Deployment, until: i64) -> Result<String> {
    let data = data
        .to_str()
        .context("the data folder's name is no UTF-8")?;
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let mut text = String::new();
    writeln!(text, "# Made by `nublar import`; it is yours now.")?;
    writeln!(text, "data = {}\n", quoted(data))?;
    writeln!(text, "[frontend]")?;
    writeln!(
        text,
        "listen = [{{ addr = \"{}\", tls = {} }}]",
        deployment.listen, deployment.tls_listener
    )?;
    writeln!(text, "base_path = {}", quoted(&deployment.base_path))?;
    writeln!(text, "server_name = {}", quoted(&deployment.server_name))?;
    writeln!(text, "max_poll_s = {}", deployment.max_poll)?;
    writeln!(text, "max_upload_size = {}", deployment.max_upload_size)?;
    writeln!(
        text,
        "# Agents may still hold results of what the old server asked for: taken for 35 days."
    )?;
    writeln!(text, "adopt_flows = {until}")?;
    Ok(text)
}
