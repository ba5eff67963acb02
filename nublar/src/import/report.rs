//! What people are told after an import.

use super::Options;
use super::configuration::Configuration;
use super::datastore::{Keys, Org};
use super::deployment::Deployment;
use super::registry::Taken;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// Everything that is worth a line.
pub(super) struct Report<'a> {
    pub(super) options: &'a Options,
    pub(super) deployment: &'a Deployment,
    pub(super) orgs: &'a [Org],
    pub(super) keys: Option<(&'a Keys, &'a Taken)>,
    pub(super) left: &'a [(String, String)],
    pub(super) configuration: &'a Configuration,
    pub(super) config_written: bool,
    pub(super) secrets: &'a Path,
    pub(super) secrets_written: bool,
}

/// Lines of one kind beyond which they are counted only.
const SHOWN: usize = 10;

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.taken(f)?;
        self.written(f)?;
        self.left(f)?;
        self.notes(f)?;
        self.next(f)
    }
}

impl Report<'_> {
    fn taken(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let deployment = self.deployment;
        writeln!(f, "taken from {}", self.options.file.display())?;
        let key = if deployment.ca.key.is_empty() {
            "without its private key"
        } else {
            "with its private key"
        };
        let ca = &deployment.ca_certificate;
        let until = &ca.until_day;
        field(
            f,
            "CA",
            format_args!("{}, until {until}, {key}", ca.subject),
        )?;
        let agents = &deployment.agents_certificate;
        let until = &agents.until_day;
        field(
            f,
            "agents' key",
            format_args!("{}, until {until}", agents.subject),
        )?;
        field(f, "HTTPS", format_args!("{}", deployment.tls_from))?;
        field(f, "root's nonce", format_args!("taken"))?;
        field(
            f,
            "polls",
            format_args!("held up to {} s", deployment.max_poll),
        )?;
        field(
            f,
            "obfuscation",
            format_args!("nonce kept, for the names of event queries that agents still run"),
        )?;
        let (Some(datastore), Some((keys, taken))) = (&self.options.datastore, self.keys) else {
            return Ok(());
        };
        writeln!(f, "taken from {}", datastore.display())?;
        for org in self.orgs {
            field(f, "organisation", format_args!("{} ({})", org.id, org.name))?;
        }
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (client, _) in &keys.keys {
            *counts.entry(client.org.as_str()).or_default() += 1;
        }
        let counts = counts.iter().map(|(org, count)| match *org {
            "" => format!("root {count}"),
            org => format!("{org} {count}"),
        });
        let counts = counts.collect::<Vec<_>>().join(", ");
        field(
            f,
            "clients' keys",
            format_args!(
                "{} ({}): {} new, {} known already",
                keys.keys.len(),
                if counts.is_empty() { "none" } else { &counts },
                taken.new,
                taken.known
            ),
        )
    }

    fn written(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "files")?;
        let how = |written| if written { "written" } else { "unchanged" };
        let path = self.secrets.display();
        field(
            f,
            "secrets",
            format_args!("{path}: {}", how(self.secrets_written)),
        )?;
        let path = self.configuration.path().display();
        field(
            f,
            "configuration",
            format_args!("{path}: {}", how(self.config_written)),
        )
    }

    fn left(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "not taken")?;
        if self.keys.is_none() {
            let place = self.deployment.location.as_deref().unwrap_or("DIR");
            writeln!(
                f,
                "  clients' keys and organisations: give --datastore {place}; without, each agent enrols again by itself, and its first message is lost"
            )?;
        }
        for (what, then) in self.deployment.left.iter().chain(self.left) {
            writeln!(f, "  {what}: {then}")?;
        }
        if self.keys.is_some()
            && let Some(files) = &self.deployment.files
        {
            writeln!(
                f,
                "  what stands in {files} (Datastore.filestore_directory) was not looked at"
            )?;
        }
        writeln!(
            f,
            "  results, labels and metadata of clients: they stay in the old server; host names and the agents' own labels come with each first check-in"
        )?;
        let Some((keys, taken)) = self.keys else {
            return Ok(());
        };
        let unreadable = keys
            .unreadable
            .iter()
            .map(|(file, why)| format!("key {}: {why}", file.display()));
        let kept = taken.kept.iter().map(|line| format!("client {line}"));
        let lines: Vec<_> = unreadable.chain(kept).collect();
        for line in lines.iter().take(SHOWN) {
            writeln!(f, "  {line}")?;
        }
        if lines.len() > SHOWN {
            writeln!(f, "  and {} more clients", lines.len() - SHOWN)?;
        }
        Ok(())
    }

    fn notes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let notes = self.deployment.notes.iter();
        for note in notes.chain(&self.configuration.notes) {
            writeln!(f, "note: {note}")?;
        }
        Ok(())
    }

    fn next(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "agents call")?;
        for url in &self.deployment.server_urls {
            writeln!(f, "  {url}")?;
        }
        if self.deployment.server_urls.is_empty() {
            writeln!(f, "  unknown: Client.server_urls is empty")?;
        }
        writeln!(
            f,
            "next: stop the old server, see that these lead here (the base path is {}), then\n  nublar run --config {}",
            self.deployment.base_path,
            self.configuration.path().display()
        )
    }
}

fn field(f: &mut fmt::Formatter<'_>, name: &str, value: fmt::Arguments<'_>) -> fmt::Result {
    writeln!(f, "  {name:<14} {value}")
}
