//! Which server is meant, and where it is.

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Which server, and how to print.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Target {
    /// Data folder of a server that runs on this machine
    #[arg(long, value_name = "DIR", env = "NUBLAR_DATA")]
    pub(super) data: Option<PathBuf>,
    /// Address of a server's API, for example http://127.0.0.1:8889
    #[arg(long, value_name = "URL", env = "NUBLAR_SERVER")]
    pub(super) server: Option<String>,
    /// File that holds the token of that server
    #[arg(long, value_name = "FILE", env = "NUBLAR_TOKEN_FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// Where a server is, and what lets one in.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) url: String,
    pub(super) token: String,
    /// What to do when nobody answers there.
    pub(super) unanswered: String,
}

/// What a running server leaves in its data folder.
#[derive(Deserialize)]
struct Left {
    url: String,
    token: String,
}

impl Target {
    /// Where the server is. An address wins over a data folder.
    pub(super) fn place(&self) -> Result<Place> {
        if let Some(server) = &self.server {
            return self.remote(server);
        }
        let Some(data) = &self.data else {
            bail!(
                "which server? give --data DIR of one on this machine, or --server URL with --token-file FILE (or set NUBLAR_DATA, or NUBLAR_SERVER and NUBLAR_TOKEN_FILE)"
            );
        };
        local(data)
    }

    fn remote(&self, server: &str) -> Result<Place> {
        let url = server.trim_end_matches('/');
        if !url.starts_with("http://") && !url.starts_with("https://") {
            bail!("--server {server} is no address: it begins with http:// or https://");
        }
        let unanswered = "is the address right, and does the server run there?".to_owned();
        let url = url.to_owned();
        if let Some(file) = &self.token_file {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("cannot read the token in {}", file.display()))?;
            return Ok(Place {
                url,
                token: text.trim().to_owned(),
                unanswered,
            });
        }
        // The folder of the server itself will do.
        match &self.data {
            Some(data) => Ok(Place {
                url,
                unanswered,
                ..local(data)?
            }),
            None => bail!("--server needs --token-file FILE with the server's token"),
        }
    }
}

fn local(data: &Path) -> Result<Place> {
    let start = format!(
        "start the server with: nublar run --data {}",
        data.display()
    );
    let file = data.join("api.json");
    let text = match std::fs::read(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!(
                "no server has run with --data {} yet; {start}",
                data.display()
            );
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
    };
    let left: Left = serde_json::from_slice(&text).with_context(|| {
        format!(
            "{} is not what a server leaves there; {start}",
            file.display()
        )
    })?;
    Ok(Place {
        url: left.url,
        token: left.token,
        unanswered: start,
    })
}
