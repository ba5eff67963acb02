//! `check-url`: goes to the server as agents do, through whatever stands in between, and says what
//! it saw and what is to be changed.
//!
//! ```text
//! known (installation, or an agent's configuration) ─▶ check ── probe by probe ─▶ findings
//!                                                        │ connect, way
//!                                                        ▼
//!                          load balancer … ─▶ frontend: server.pem, check-url/…
//! ```

mod check;
mod connect;
mod finding;
mod known;
mod way;

use crate::At;
use anyhow::{Result, bail};
use clap::Args;
use finding::Report;
use known::Known;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Which URLs, and what agents know of the server.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    at: At,
    /// An agent's configuration, on a machine that has no secrets of the server
    #[arg(long, value_name = "FILE", conflicts_with_all = ["data", "config", "org", "public_certificate"])]
    client_config: Option<PathBuf>,
    /// The URLs show a certificate of an authority that the machines trust, as for `client-config`
    #[arg(long)]
    public_certificate: bool,
    /// The organisation
    #[arg(long, value_name = "ORG", default_value = "")]
    org: String,
    /// Try how a connection fares on which nothing is said for so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=120))]
    idle: u16,
    /// Print JSON, a line for each finding
    #[arg(long)]
    json: bool,
    /// URLs by which agents reach the server; those of the configuration if left out
    #[arg(value_name = "URL")]
    urls: Vec<String>,
}

/// Checks all URLs. The exit code says whether agents can live with what was found.
pub(crate) async fn execute(options: Options) -> Result<ExitCode> {
    let known = match &options.client_config {
        Some(file) => Known::of_agents(file)?,
        None => Known::of_installation(
            &options.at.load()?,
            &options.org,
            options.public_certificate,
        )?,
    };
    let urls = if options.urls.is_empty() {
        known.urls.clone()
    } else {
        options.urls
    };
    if urls.is_empty() {
        bail!("which URL? give the one by which agents reach the server, from https:// to a slash");
    }
    let urls = urls.iter().map(|url| connect::Url::read(url));
    let urls: Vec<_> = urls.collect::<Result<_>>()?;
    let mut report = Report::new(options.json);
    for url in urls {
        report.begin(url.given())?;
        check::check(
            &url,
            &known,
            Duration::from_secs(options.idle.into()),
            &mut report,
        )
        .await?;
    }
    Ok(if report.is_good() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
