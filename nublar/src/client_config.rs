//! The configuration that an agent is started with.

use crate::secrets::Secrets;
use anyhow::{Result, bail};
use clap::Args;
use std::fmt::Write;
use std::time::Duration;

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
    /// Seconds that a poll may be held, and that an agent stays away after an outage; those of the
    /// frontends (`frontend.max_poll_s`) if left out
    #[arg(long, value_name = "SECONDS")]
    pub(crate) max_poll: Option<u32>,
    /// The URLs show a certificate of an authority that the machines trust, not one of ours: that of
    /// a load balancer, as a rule
    #[arg(long)]
    pub(crate) public_certificate: bool,
    /// The organisation
    #[arg(long, value_name = "ORG", default_value = "")]
    pub(crate) org: String,
}

impl AgentOptions {
    /// The YAML. Agents refuse a file with a key that they do not know. `held` is how long the
    /// frontends hold a poll.
    pub(crate) fn yaml(
        &self,
        secrets: &Secrets,
        default_url: Option<&str>,
        held: Duration,
    ) -> Result<String> {
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
        writeln!(yaml, "  use_self_signed_ssl: {}", !self.public_certificate)?;
        let max_poll = self.max_poll.unwrap_or_else(|| whole_seconds(held));
        writeln!(yaml, "  max_poll: {max_poll}")?;
        writeln!(yaml, "  max_poll_std: {}", (max_poll / 2).max(1))?;
        Ok(yaml)
    }
}

/// Rounded up: an agent must not give a poll up that is still held.
fn whole_seconds(time: Duration) -> u32 {
    let up = u64::from(time.subsec_nanos() > 0);
    u32::try_from(time.as_secs() + up)
        .unwrap_or(u32::MAX)
        .max(1)
}

/// A YAML string in single quotes.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_are_told_how_long_polls_are_held() {
        assert_eq!(whole_seconds(Duration::from_secs(10)), 10);
        assert_eq!(whole_seconds(Duration::from_millis(1_001)), 2);
        assert_eq!(whole_seconds(Duration::ZERO), 1);
        let usual = crate::config::Config::default().frontend.max_poll;
        assert_eq!(whole_seconds(usual), 10);
    }
}
