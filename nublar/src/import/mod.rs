//! `import velociraptor`: takes a running deployment over, so that its agents connect here
//! unchanged. Everything is read and checked before anything is written, and repeating it changes
//! nothing.

mod configuration;
mod credentials;
mod datastore;
mod deployment;
mod registry;
mod report;
mod secret;

use crate::setup;
use crate::yaml::Yaml;
use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use configuration::Configuration;
use datastore::Datastore;
use deployment::Deployment;
use report::Report;
use std::path::PathBuf;

/// From what.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// From a Velociraptor server: its agents then connect here unchanged
    Velociraptor(Options),
}

/// What is imported, and into which installation.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The old server's server.config.yaml
    #[arg(value_name = "SERVER.CONFIG.YAML")]
    file: PathBuf,
    /// The folder where it keeps its data (Datastore.location), or a copy: for the agents' keys
    /// and the organisations
    #[arg(long, value_name = "DIR")]
    datastore: Option<PathBuf>,
    /// Folder of what is kept
    #[arg(long, value_name = "DIR", env = "NUBLAR_DATA")]
    data: Option<PathBuf>,
    /// Configuration file; made if it is not there; `nublar.toml` in the data folder if left out
    #[arg(long, value_name = "FILE", env = "NUBLAR_CONFIG")]
    config: Option<PathBuf>,
}

/// Imports, and prints what was taken and what was not.
pub(crate) async fn execute(command: Command) -> Result<()> {
    let Command::Velociraptor(options) = command;
    let now_us = setup::now_us();
    let deployment = Deployment::read(&Yaml::read(&options.file)?, now_us / 1_000_000)?;
    let datastore = options.datastore.as_deref().map(Datastore::open);
    let datastore = datastore.transpose()?;
    let keys = datastore.as_ref().map(Datastore::keys).transpose()?;
    let left = datastore.as_ref().map(Datastore::left).transpose()?;

    let configuration = Configuration::find(
        options.config.as_deref(),
        options.data.as_deref(),
        &deployment,
        now_us / 1_000_000,
    )?;
    let config = configuration.config();
    let orgs = datastore.as_ref().map_or(&[][..], |store| &store.orgs);
    let secrets = secret::Merged::with(config.secrets_path()?, &deployment, orgs)?;

    let data = config.data()?;
    std::fs::create_dir_all(data)
        .with_context(|| format!("cannot make the data folder {}", data.display()))?;
    let taken = match &keys {
        Some(keys) => {
            let storage = config.storage.open(data)?;
            setup::prepare(config, &storage).await?;
            let log = storage.log.as_ref();
            Some(registry::append(log, &keys.keys, now_us).await?)
        }
        None => None,
    };
    // Last: an import that ended before is repeated as if there had been none.
    let secrets_written = secrets.write()?;
    let config_written = configuration.write()?;
    let report = Report {
        options: &options,
        deployment: &deployment,
        orgs,
        keys: keys.as_ref().zip(taken.as_ref()),
        left: left.as_deref().unwrap_or_default(),
        configuration: &configuration,
        config_written,
        secrets: secrets.path(),
        secrets_written,
    };
    print!("{report}");
    Ok(())
}
