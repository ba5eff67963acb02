//! The configuration that an agent is started with.

use crate::secrets::Secrets;
use anyhow::{Result, bail};
use clap::Args;
use std::fmt::Write;

/// What to put into an agent's configuration.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct AgentOptions {
    /// A URL that agents reach the frontends by; several are tried in turn
    #[arg(long = "url", value_name = "URL")]
    pub(crate) urls: Vec<String>,
    /// A label that the agents carry
    #[arg(long = "label", value_name = "LABEL")]
    pub(crate) labels: Vec<String>,
    /// Where agents on Linux keep their key
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/velociraptor.writeback.yaml"
    )]
    pub(crate) writeback_linux: String,
    /// Where agents on macOS keep their key
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/velociraptor.writeback.yaml"
    )]
    pub(crate) writeback_darwin: String,
    /// Where agents on Windows keep their key
    #[arg(
        long,
        value_name = "FILE",
        default_value = r"$ProgramFiles\Velociraptor\velociraptor.writeback.yaml"
    )]
    pub(crate) writeback_windows: String,
    /// Seconds that a poll may be held, and that an agent stays away after an outage
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub(crate) max_poll: u32,
    /// The organisation
    #[arg(long, value_name = "ORG", default_value = "")]
    pub(crate) org: String,
}

impl AgentOptions {
    /// The YAML. Agents refuse a file with a key that they do not know.
    pub(crate) fn yaml(&self, secrets: &Secrets, default_url: Option<&str>) -> Result<String> {
        let mut urls: Vec<&str> = self.urls.iter().map(String::as_str).collect();
        if urls.is_empty() {
            urls.extend(default_url);
        }
        if urls.is_empty() {
            bail!(
                "no URL for the agents: give --url https://HOST:PORT/, or start the server with `nublar run` first"
            );
        }
        let mut yaml = String::from("Client:\n  server_urls:\n");
        for url in urls {
            let known = ["https://", "http://", "wss://", "ws://"]
                .iter()
                .any(|scheme| url.starts_with(scheme));
            if !known || !url.ends_with('/') {
                bail!(
                    "{url:?} is no URL for agents: it begins with https://, http://, wss:// or ws:// and ends with a slash"
                );
            }
            writeln!(yaml, "  - {}", quoted(url))?;
        }
        yaml.push_str("  ca_certificate: |\n");
        for line in secrets.ca.certificate.lines() {
            writeln!(yaml, "    {}", line.trim_end())?;
        }
        writeln!(yaml, "  nonce: {}", quoted(secrets.nonce(&self.org)?))?;
        if !self.labels.is_empty() {
            yaml.push_str("  labels:\n");
            for label in &self.labels {
                writeln!(yaml, "  - {}", quoted(label))?;
            }
        }
        writeln!(yaml, "  writeback_linux: {}", quoted(&self.writeback_linux))?;
        writeln!(
            yaml,
            "  writeback_darwin: {}",
            quoted(&self.writeback_darwin)
        )?;
        writeln!(
            yaml,
            "  writeback_windows: {}",
            quoted(&self.writeback_windows)
        )?;
        yaml.push_str("  use_self_signed_ssl: true\n");
        writeln!(yaml, "  max_poll: {}", self.max_poll)?;
        writeln!(yaml, "  max_poll_std: {}", (self.max_poll / 2).max(1))?;
        Ok(yaml)
    }
}

/// A YAML string in single quotes.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
