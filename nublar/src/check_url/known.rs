//! What agents know of the server, and what only the server knows.

use crate::compose::Api;
use crate::config::Config;
use crate::secrets::Secrets;
use crate::yaml::Yaml;
use anyhow::{Context, Result};
use nublar_wire::{PublicKey, SERVER_NAME};
use std::path::Path;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Known {
    /// Certificates of the authority that agents trust, PEM.
    pub(super) ca: String,
    pub(super) nonce: String,
    /// What `server.pem` must be named.
    pub(super) name: String,
    /// Whether agents trust the authorities of their machines too.
    pub(super) public: bool,
    /// The keys of this installation that `server.pem` may hold; none where they are not known.
    pub(super) keys: Vec<PublicKey>,
    /// Where agents are told to go.
    pub(super) urls: Vec<String>,
}

impl Known {
    /// By the secrets of the installation.
    pub(super) fn of_installation(config: &Config, org: &str, public: bool) -> Result<Self> {
        let secrets = Secrets::load(&config.secrets_path()?)?;
        let next = secrets.agents_next.as_ref().map(|next| next.pair());
        let pairs = [Some(secrets.agents.clone()), next];
        let keys = pairs.into_iter().flatten().map(|pair| {
            PublicKey::from_certificate_pem(pair.certificate.as_bytes())
                .context("the agents' certificate in the secrets file")
        });
        let mut urls = config.gui.agent_urls.clone();
        if urls.is_empty()
            && let Some(api) = config.data.as_deref().and_then(Api::read)
        {
            urls.extend(api.agents.iter().map(|url| crate::reachable(url)));
        }
        Ok(Self {
            nonce: secrets.nonce(org)?.to_owned(),
            keys: keys.collect::<Result<_>>()?,
            name: config.frontend.server_name.clone(),
            ca: secrets.ca.certificate,
            public,
            urls,
        })
    }

    /// By an agent's configuration.
    pub(super) fn of_agents(file: &Path) -> Result<Self> {
        let yaml = Yaml::read(file)?;
        let text = |key: &str| -> Result<String> {
            let text = yaml.text(key)?;
            let text = text.with_context(|| format!("{}: {key} is not there", yaml.file()))?;
            Ok(text.to_owned())
        };
        let name = yaml.text("Client.pinned_server_name")?;
        Ok(Self {
            ca: text("Client.ca_certificate")?,
            nonce: text("Client.nonce")?,
            name: name.unwrap_or(SERVER_NAME).to_owned(),
            public: !yaml.flag("Client.use_self_signed_ssl")?,
            keys: Vec::new(),
            urls: yaml
                .texts("Client.server_urls")?
                .into_iter()
                .map(str::to_owned)
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::client_config::AgentOptions;
    use std::time::Duration;

    #[test]
    fn an_agents_configuration_says_what_the_installation_does() {
        let dir = tempfile::tempdir().unwrap();
        let secrets = Secrets::load_or_make(&dir.path().join("secrets.toml")).unwrap();
        let options = AgentOptions {
            urls: vec!["https://one/".to_owned(), "wss://two/".to_owned()],
            public_certificate: true,
            ..AgentOptions::default()
        };
        let file = dir.path().join("client.config.yaml");
        let yaml = options
            .yaml(&secrets, None, Duration::from_secs(10))
            .unwrap();
        std::fs::write(&file, yaml).unwrap();
        let theirs = Known::of_agents(&file).unwrap();
        let config = Config {
            data: Some(dir.path().to_owned()),
            ..Config::default()
        };
        let ours = Known::of_installation(&config, "", true).unwrap();
        assert_eq!(theirs.ca.trim_end(), ours.ca.trim_end());
        assert_eq!((&theirs.nonce, &theirs.name), (&ours.nonce, &ours.name));
        assert!(theirs.public);
        assert_eq!(theirs.urls, options.urls);
        assert_eq!((theirs.keys.len(), ours.keys.len()), (0, 1));
    }
}
