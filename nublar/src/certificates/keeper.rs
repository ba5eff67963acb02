//! Decides what is shown at a time. No IO, no clock: the [`watch`](super::watch) gives both.

use super::alarms::{Alarm, Alarms};
use super::authority::{Authority, Dates};
use crate::secrets::{Pair, Secrets};
use anyhow::{Context, Result};
use nublar_frontend::{Credentials, TlsMaterial};
use rcgen::KeyPair;

const DAY: i64 = 86_400;

const CA: &str = "the agents' authority (ca.certificate): from then on agents trust nobody; give \
    them a configuration with a new one before";
const AGENTS: &str = "the certificate of server.pem (agents.certificate): agents refuse it from \
    then on, and it cannot be signed anew: put ca.key into the secrets file, or a new certificate \
    for the same key";
const TLS: &str = "the certificate of HTTPS: agents refuse it from then on, and it is not ours to \
    sign anew: put a new one in its place";

/// What everything is made of.
#[derive(Clone)]
pub(crate) struct Sources {
    pub(crate) ca: Pair,
    pub(crate) agents: Pair,
    /// What agents encrypt to from a time on, microseconds since 1970.
    pub(crate) next: Option<(i64, Pair)>,
    /// That of the secrets file, or of the files that are configured.
    pub(crate) tls: Pair,
}

impl Sources {
    /// `files` is the certificate for HTTPS that is configured, if one is.
    pub(crate) fn new(secrets: &Secrets, files: Option<Pair>) -> Self {
        Self {
            ca: secrets.ca.clone(),
            agents: secrets.agents.clone(),
            next: secrets
                .agents_next
                .as_ref()
                .map(|next| (next.from_us, next.pair())),
            tls: files.unwrap_or_else(|| secrets.tls.clone()),
        }
    }
}

/// A certificate that was signed here, in place of one of the sources.
struct Renewed {
    /// The key that stands in the sources: with another one this is not for it any more.
    instead_of: String,
    pair: Pair,
    dates: Dates,
}

/// See the [module](self).
pub(crate) struct Keeper {
    sources: Sources,
    authority: Option<Authority>,
    life: i64,
    agents: Option<Renewed>,
    tls: Option<Renewed>,
    alarms: Alarms,
}

impl Keeper {
    /// Certificates that are signed anew are good for `days`.
    ///
    /// # Errors
    /// The authority cannot be read.
    pub(crate) fn new(sources: Sources, days: u32) -> Result<Self> {
        Ok(Self {
            authority: Authority::of(&sources.ca)?,
            sources,
            life: i64::from(days) * DAY,
            agents: None,
            tls: None,
            alarms: Alarms::default(),
        })
    }

    /// Goes on with other sources, if they can be used.
    ///
    /// # Errors
    /// They cannot, and everything stays as it is.
    pub(crate) fn replace(&mut self, sources: Sources, now: i64) -> Result<()> {
        let authority = Authority::of(&sources.ca)?;
        let old = std::mem::replace(&mut self.sources, sources);
        let old_authority = std::mem::replace(&mut self.authority, authority);
        let checked = self
            .at(now)
            .and_then(|(credentials, _)| Ok(credentials.check()?));
        if checked.is_err() {
            self.sources = old;
            self.authority = old_authority;
        }
        // What the trial has told nobody is to be told.
        self.alarms = Alarms::default();
        checked
    }

    /// What is shown now, and what is to be told. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// A certificate cannot be read or signed.
    pub(crate) fn at(&mut self, now: i64) -> Result<(Credentials, Vec<Alarm>)> {
        let mut alarms = Vec::new();
        let ends = Dates::of(&self.sources.ca.certificate)
            .context("ca.certificate")?
            .until;
        alarms.extend(self.alarms.look(CA, ends, now));

        let current = &self.sources.agents;
        let (shown, behind) = match &self.sources.next {
            Some((from_us, next)) if *from_us <= now.saturating_mul(1_000_000) => {
                (next, Some(&current.key))
            }
            Some((_, next)) => (current, Some(&next.key)),
            None => (current, None),
        };
        let mut agent_keys_pem = shown.key.clone();
        if let Some(key) = behind {
            agent_keys_pem.push('\n');
            agent_keys_pem.push_str(key);
        }
        let signer = Signer {
            authority: self.authority.as_ref(),
            life: self.life,
            now,
        };
        let (certificate, ends) = signer.kept(shown, &mut self.agents, Anew::SameKey)?;
        if let Some(ends) = ends {
            alarms.extend(self.alarms.look(AGENTS, ends, now));
        }
        let (tls, ends) = signer.kept(&self.sources.tls, &mut self.tls, Anew::NewKey)?;
        if let Some(ends) = ends {
            alarms.extend(self.alarms.look(TLS, ends, now));
        }
        let credentials = Credentials {
            certificate_pem: certificate.certificate,
            agent_keys_pem,
            tls: Some(TlsMaterial {
                chain_pem: tls.certificate,
                key_pem: tls.key,
            }),
        };
        Ok((credentials, alarms))
    }
}

/// What a certificate is signed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Anew {
    /// Agents' sessions are encrypted to it.
    SameKey,
    NewKey,
}

struct Signer<'a> {
    authority: Option<&'a Authority>,
    life: i64,
    now: i64,
}

impl Signer<'_> {
    /// The certificate that is shown in place of `given`: that itself, or what was signed here
    /// since. Also its end, where that can not be put off.
    fn kept(
        &self,
        given: &Pair,
        held: &mut Option<Renewed>,
        anew: Anew,
    ) -> Result<(Pair, Option<i64>)> {
        let dates = Dates::of(&given.certificate)?;
        let authority = self
            .authority
            .filter(|authority| authority.signed(&given.certificate));
        let Some(authority) = authority else {
            *held = None;
            return Ok((given.clone(), Some(dates.until)));
        };
        held.take_if(|renewed| renewed.instead_of != given.key);
        let shown = held.as_ref().map_or(dates, |renewed| renewed.dates);
        let until = authority.until(self.now, self.life);
        // At the authority's own end there is nothing to win.
        if self.now >= shown.renewal() && until > shown.until && until > self.now {
            let key = match anew {
                Anew::SameKey => KeyPair::from_pem(&given.key)?,
                Anew::NewKey => KeyPair::generate()?,
            };
            let pair = Pair {
                certificate: authority.sign(&key, &given.certificate, until)?,
                key: key.serialize_pem(),
            };
            let from = self.now;
            *held = Some(Renewed {
                instead_of: given.key.clone(),
                pair,
                dates: Dates { from, until },
            });
        }
        let pair = held.as_ref().map_or(given, |renewed| &renewed.pair);
        Ok((pair.clone(), None))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::testing::{self, Made, START};
    use super::*;
    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier as _;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _};
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use std::time::Duration;

    /// As an agent checks it, at a time of its own.
    fn verify(ca: &Pair, pem: &str, name: &'static str, now: i64) -> Result<(), rustls::Error> {
        let read = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(read(&ca.certificate)).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider);
        let now = Duration::from_secs(now.try_into().unwrap());
        let verified = verifier.build().unwrap().verify_server_cert(
            &read(pem),
            &[],
            &ServerName::try_from(name).unwrap(),
            &[],
            UnixTime::since_unix_epoch(now),
        );
        verified.map(drop)
    }

    fn days(alarms: &[Alarm], what: &str) -> Vec<i64> {
        let of = alarms.iter().filter(|alarm| alarm.what == what);
        of.map(|alarm| alarm.days).collect()
    }

    #[test]
    fn certificates_of_ours_are_renewed_at_two_thirds_of_their_life_through_many_ends() {
        let Made { sources, .. } = testing::made(90, 3_650);
        let mut keeper = Keeper::new(sources.clone(), 90).unwrap();
        let (mut leaves, mut certificates, mut told) = (BTreeSet::new(), BTreeSet::new(), 0);
        let mut changed = Vec::new();
        for day in 0..400 {
            let now = START + day * DAY;
            let (shown, alarms) = keeper.at(now).unwrap();
            told += alarms.len();
            shown.check().unwrap();
            let leaf = shown.tls.unwrap().chain_pem;
            verify(&sources.ca, &leaf, "localhost", now).unwrap();
            verify(
                &sources.ca,
                &shown.certificate_pem,
                "VelociraptorServer",
                now,
            )
            .unwrap();
            assert_eq!(
                shown.agent_keys_pem, sources.agents.key,
                "sessions stay good"
            );
            certificates.insert(shown.certificate_pem);
            if leaves.insert(leaf) {
                changed.push(day);
            }
        }
        assert_eq!(changed, [0, 60, 120, 180, 240, 300, 360]);
        assert_eq!(certificates.len(), leaves.len());
        assert_eq!(told, 0, "nothing ends");
    }

    #[test]
    fn what_cannot_be_renewed_is_told_90_30_and_7_days_before_its_end() {
        let Made { mut sources, .. } = testing::made(100, 120);
        sources.ca.key = String::new();
        let given = sources.clone();
        let mut keeper = Keeper::new(sources, 90).unwrap();
        let mut told = Vec::new();
        for day in 0..120 {
            let (shown, alarms) = keeper.at(START + day * DAY).unwrap();
            assert_eq!(shown.certificate_pem, given.agents.certificate);
            assert_eq!(shown.tls.unwrap().chain_pem, given.tls.certificate);
            told.extend(alarms);
        }
        for what in [AGENTS, TLS] {
            let told = days(&told, what);
            assert_eq!(told[..4], [90, 30, 7, 6]);
            assert_eq!(told.last(), Some(&-19), "it goes on when it has ended");
        }
        assert_eq!(days(&told, CA), [90, 30, 7, 6, 5, 4, 3, 2, 1]);
    }

    #[test]
    fn nothing_outlasts_the_authority_and_its_end_is_told() {
        let Made { sources, .. } = testing::made(90, 200);
        let mut keeper = Keeper::new(sources.clone(), 90).unwrap();
        let (mut leaves, mut told) = (BTreeSet::new(), Vec::new());
        for day in 0..199 {
            let now = START + day * DAY;
            let (shown, alarms) = keeper.at(now).unwrap();
            let leaf = shown.tls.unwrap().chain_pem;
            verify(&sources.ca, &leaf, "localhost", now).unwrap();
            assert!(Dates::of(&leaf).unwrap().until <= START + 200 * DAY);
            leaves.insert(leaf);
            told.extend(alarms);
        }
        // 0, 60, 120: until the end; after that there is nothing to win.
        assert_eq!(leaves.len(), 3);
        assert_eq!(days(&told, CA)[..3], [90, 30, 7]);
        assert_eq!(told.len(), days(&told, CA).len());
    }

    #[test]
    fn a_certificate_of_somebody_else_is_left_alone() {
        let Made { mut sources, .. } = testing::made(90, 3_650);
        sources.tls = testing::made(90, 3_650).of_another;
        let given = sources.tls.certificate.clone();
        let mut keeper = Keeper::new(sources, 90).unwrap();
        let (shown, alarms) = keeper.at(START + 61 * DAY).unwrap();
        assert_eq!(shown.tls.unwrap().chain_pem, given);
        assert_eq!(days(&alarms, TLS), [29]);
    }

    #[test]
    fn a_new_key_is_shown_from_its_time_on_and_both_are_good() {
        let Made { mut sources, .. } = testing::made(3_000, 3_650);
        let (old, new) = (sources.agents.clone(), testing::agents_like(&sources));
        sources.next = Some(((START + 600) * 1_000_000, new.clone()));
        let mut keeper = Keeper::new(sources, 90).unwrap();
        for (now, first, second) in [(START, &old, &new), (START + 600, &new, &old)] {
            let (shown, _) = keeper.at(now).unwrap();
            shown.check().unwrap();
            assert_eq!(shown.certificate_pem, first.certificate);
            let keys = [first.key.as_str(), second.key.as_str()].join("\n");
            assert_eq!(shown.agent_keys_pem, keys);
        }
    }

    #[test]
    fn sources_that_cannot_be_used_change_nothing() {
        let Made { sources, .. } = testing::made(3_000, 3_650);
        let mut keeper = Keeper::new(sources.clone(), 90).unwrap();
        let before = keeper.at(START).unwrap().0;
        let mut mixed = sources.clone();
        mixed.tls.key = testing::made(90, 3_650).of_another.key;
        assert!(keeper.replace(mixed, START).is_err());
        let mut mixed = sources.clone();
        mixed.agents.key = testing::agents_like(&sources).key;
        let error = keeper.replace(mixed, START).unwrap_err();
        assert!(error.to_string().contains("not for the newest"), "{error}");
        assert!(keeper.at(START).unwrap().0 == before);
        let mut good = sources.clone();
        good.agents = testing::agents_like(&sources);
        keeper.replace(good.clone(), START).unwrap();
        assert_eq!(keeper.at(START).unwrap().0.agent_keys_pem, good.agents.key);
    }
}
