//! The secrets file of an imported deployment: made, or found to hold the same already.

use super::datastore::Org;
use super::deployment::Deployment;
use crate::secrets::{OrgNonce, Pair, Secrets};
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};

/// What the file will hold.
pub(super) struct Merged {
    path: PathBuf,
    secrets: Secrets,
    changed: bool,
}

impl Merged {
    /// Holds the deployment against the file, if there is one. What stands there and is not the
    /// deployment's (the API's token, keys of ids, further organisations) stays.
    ///
    /// Errors: the file belongs to another deployment.
    pub(super) fn with(path: PathBuf, deployment: &Deployment, orgs: &[Org]) -> Result<Self> {
        let mut wanted = vec![OrgNonce {
            id: String::new(),
            nonce: deployment.nonce.clone(),
        }];
        wanted.extend(orgs.iter().map(|org| OrgNonce {
            id: org.id.to_string(),
            nonce: org.nonce.clone(),
        }));
        if !path.exists() {
            let mut secrets = Secrets::of(
                deployment.ca.clone(),
                deployment.agents.clone(),
                deployment.tls.clone(),
                wanted,
            )?;
            secrets.obfuscation_nonces = vec![deployment.obfuscation_nonce.clone()];
            return Ok(Self {
                path,
                secrets,
                changed: true,
            });
        }
        let mut secrets = Secrets::load(&path)?;
        let differs = |what: &str| -> Result<Self> {
            bail!(
                "{} holds {what} already: import into another data folder, or move the file away if no agent knows it; nothing was written",
                path.display()
            )
        };
        if !same(&secrets.ca.certificate, &deployment.ca.certificate) {
            return differs("another CA");
        }
        if !same_pair(&secrets.agents, &deployment.agents) {
            return differs("another key for agents");
        }
        if !same_pair(&secrets.tls, &deployment.tls) {
            return differs("another certificate for HTTPS");
        }
        let mut changed = false;
        if !deployment.ca.key.is_empty() && !same(&secrets.ca.key, &deployment.ca.key) {
            if !secrets.ca.key.is_empty() {
                return differs("another key of the CA");
            }
            secrets.ca.key.clone_from(&deployment.ca.key);
            changed = true;
        }
        for org in wanted {
            match secrets.orgs.iter().find(|known| known.id == org.id) {
                Some(known) if known.nonce == org.nonce => {}
                Some(_) if org.id.is_empty() => return differs("another nonce of the root"),
                Some(_) => return differs(&format!("another nonce of organisation {}", org.id)),
                None => {
                    secrets.orgs.push(org);
                    changed = true;
                }
            }
        }
        if !secrets
            .obfuscation_nonces
            .contains(&deployment.obfuscation_nonce)
        {
            let nonce = deployment.obfuscation_nonce.clone();
            secrets.obfuscation_nonces.push(nonce);
            changed = true;
        }
        Ok(Self {
            path,
            secrets,
            changed,
        })
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes it if it is not as it should be; says whether it did.
    pub(super) fn write(&self) -> Result<bool> {
        if self.changed {
            self.secrets.write(&self.path)?;
        }
        Ok(self.changed)
    }
}

fn same_pair(one: &Pair, other: &Pair) -> bool {
    same(&one.certificate, &other.certificate) && same(&one.key, &other.key)
}

/// Blank space at the ends is no part of a PEM text.
fn same(one: &str, other: &str) -> bool {
    one.trim() == other.trim()
}
