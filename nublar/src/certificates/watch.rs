//! Looks at files and the clock again and again, and tells frontends of what has changed.

use super::Config;
use super::alarms::Alarm;
use super::keeper::{Keeper, Sources};
use crate::secrets::{Pair, Secrets};
use anyhow::{Context, Result, bail};
use nublar_frontend::Credentials;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often.
const EVERY: Duration = Duration::from_secs(2);

/// What the files held when they were last looked at.
type Texts = (Vec<u8>, Option<(Vec<u8>, Vec<u8>)>);

/// The files.
struct Files {
    secrets: PathBuf,
    tls: Option<(PathBuf, PathBuf)>,
}

impl Files {
    fn new(config: &Config, secrets: PathBuf) -> Result<Self> {
        let tls = match (&config.tls_chain, &config.tls_key) {
            (None, None) => None,
            (Some(chain), Some(key)) => Some((chain.clone(), key.clone())),
            (Some(_), None) => bail!("certificates.tls_chain is given without tls_key"),
            (None, Some(_)) => bail!("certificates.tls_key is given without tls_chain"),
        };
        Ok(Self { secrets, tls })
    }

    fn texts(&self) -> Result<Texts> {
        let tls = match &self.tls {
            Some((chain, key)) => Some((read(chain)?, read(key)?)),
            None => None,
        };
        Ok((read(&self.secrets)?, tls))
    }

    fn sources(&self) -> Result<Sources> {
        let tls = match &self.tls {
            Some((chain, key)) => Some(Pair {
                certificate: String::from_utf8(read(chain)?).context("no PEM text")?,
                key: String::from_utf8(read(key)?).context("no PEM text")?,
            }),
            None => None,
        };
        Ok(Sources::new(&Secrets::load(&self.secrets)?, tls))
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// What frontends are given, and the work that keeps it so.
pub(crate) struct Watch {
    /// What is shown.
    pub(crate) credentials: watch::Receiver<Credentials>,
    keeper: Keeper,
    files: Files,
    texts: Texts,
    sender: watch::Sender<Credentials>,
}

/// Reads everything for the first time.
///
/// # Errors
/// What cannot be read or used, by name.
pub(crate) fn watch(config: &Config, secrets: PathBuf) -> Result<Watch> {
    let files = Files::new(config, secrets)?;
    let texts = files.texts()?;
    let mut keeper = Keeper::new(files.sources()?, config.days)?;
    let (shown, alarms) = keeper.at(now_s())?;
    shown.check()?;
    alarms.iter().for_each(tell);
    let (sender, credentials) = watch::channel(shown);
    Ok(Watch {
        credentials,
        keeper,
        files,
        texts,
        sender,
    })
}

impl Watch {
    /// Keeps it so until the shutdown.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut trouble = (String::new(), 0);
        loop {
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = shutdown.cancelled() => return,
            }
            let said = match self.look(now_s()) {
                Ok(()) => String::new(),
                Err(error) => format!("{error:#}"),
            };
            let looks = if said == trouble.0 { trouble.1 + 1 } else { 1 };
            // Who replaces two files is between them for a moment.
            if looks == 2 && !said.is_empty() {
                tracing::error!(
                    error = said,
                    "keys and certificates stay as they are: what changed cannot be used"
                );
            }
            trouble = (said, looks);
        }
    }

    /// Reads small files, two seconds apart: no work for another thread.
    fn look(&mut self, now: i64) -> Result<()> {
        let texts = self.files.texts()?;
        if texts != self.texts {
            self.keeper.replace(self.files.sources()?, now)?;
            self.texts = texts;
            tracing::info!("keys and certificates were read again");
        }
        let (shown, alarms) = self.keeper.at(now)?;
        alarms.iter().for_each(tell);
        self.sender.send_if_modified(|old| {
            let changed = *old != shown;
            if changed {
                *old = shown;
            }
            changed
        });
        Ok(())
    }
}

fn tell(alarm: &Alarm) {
    let Alarm { what, days, until } = *alarm;
    let day = time::OffsetDateTime::from_unix_timestamp(until).map(|end| end.date().to_string());
    let day = day.unwrap_or_default();
    if days < 0 {
        tracing::error!("ended on {day}: {what}");
    } else if days <= 7 {
        tracing::error!("ends in {days} days, on {day}: {what}");
    } else {
        tracing::warn!("ends in {days} days, on {day}: {what}");
    }
}

fn now_s() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::testing::{START, made};
    use super::*;
    use crate::secrets::OrgNonce;

    #[test]
    fn files_are_read_again_when_they_change_and_only_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let (old, new) = (made(90, 3_650), made(90, 3_650));
        let secrets = |of: &Sources| {
            let root = OrgNonce {
                id: String::new(),
                nonce: "nonce".into(),
            };
            let (ca, agents, tls) = (of.ca.clone(), of.agents.clone(), of.tls.clone());
            let secrets = Secrets::of(ca, agents, tls, vec![root]).unwrap();
            secrets.write(&at("secrets.toml")).unwrap();
        };
        let put = |name: &str, text: &str| std::fs::write(at(name), text).unwrap();
        secrets(&old.sources);
        put("chain.pem", &old.of_another.certificate);
        put("key.pem", &old.of_another.key);
        let config = Config {
            tls_chain: Some(at("chain.pem")),
            tls_key: Some(at("key.pem")),
            ..Config::default()
        };
        let mut watched = watch(&config, at("secrets.toml")).unwrap();
        let mut seen = watched.credentials.clone();
        let leaf = |seen: &mut watch::Receiver<Credentials>| {
            seen.borrow_and_update().tls.clone().unwrap().chain_pem
        };
        assert_eq!(leaf(&mut seen), old.of_another.certificate);

        // Between two files nothing changes.
        put("chain.pem", &new.of_another.certificate);
        assert!(watched.look(START).is_err());
        assert!(!seen.has_changed().unwrap());
        put("key.pem", &new.of_another.key);
        watched.look(START).unwrap();
        assert!(seen.has_changed().unwrap());
        assert_eq!(leaf(&mut seen), new.of_another.certificate);
        watched.look(START).unwrap();
        assert!(!seen.has_changed().unwrap());

        put("secrets.toml", "api_token = 5\n");
        let error = watched.look(START).unwrap_err().to_string();
        assert!(error.contains("secrets.toml, line 1"), "{error}");
        std::fs::remove_file(at("secrets.toml")).unwrap();
        assert!(watched.look(START).is_err());
        assert!(!seen.has_changed().unwrap());
        secrets(&new.sources);
        watched.look(START).unwrap();
        let shown = seen.borrow_and_update().clone();
        assert_eq!(shown.agent_keys_pem, new.sources.agents.key);
    }

    #[test]
    fn one_file_alone_is_no_certificate() {
        let config = Config {
            tls_chain: Some("chain.pem".into()),
            ..Config::default()
        };
        let error = watch(&config, "secrets.toml".into()).err().unwrap();
        assert_eq!(
            error.to_string(),
            "certificates.tls_chain is given without tls_key"
        );
    }
}
