//! What a frontend is told at its start: its configuration, and its secrets apart from it.

use crate::networks::Networks;
use nublar_core::ids::OrgId;
use nublar_core::mac::MacKeys;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::watch;

/// An address to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// Address and port; port 0 takes any free one.
    pub addr: SocketAddr,
    /// HTTPS with the TLS material of the secrets, or plain HTTP (behind a proxy, in tests).
    #[serde(default)]
    pub tls: bool,
}

/// Whether flows whose ids we did not make are taken (captures, fleets from another server).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum AdoptFlows {
    /// Always or never.
    Always(bool),
    /// Until this server time, seconds since 1970.
    Until(i64),
}

impl AdoptFlows {
    /// Whether such flows are taken at `now_us`, microseconds since 1970.
    pub(crate) fn at(self, now_us: i64) -> bool {
        match self {
            Self::Always(always) => always,
            Self::Until(seconds) => now_us / 1_000_000 < seconds,
        }
    }
}

/// Configuration of a frontend. Every field has a default but `listen`. Times are in seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Name of the process; eight hex digits are put behind it at every start.
    pub name: String,
    /// Addresses to listen on, at least one.
    pub listen: Vec<Listen>,
    /// Load balancers and proxies that are believed about whom they speak for, by
    /// `X-Forwarded-For` or by a PROXY header.
    pub trusted_proxies: Networks,
    /// Whether every connection of such a proxy begins with a PROXY header, of version 1 or 2.
    pub proxy_protocol: bool,
    /// Path under which the agents' URL points here, from slash to slash.
    pub base_path: String,
    /// Name by which agents know the server; their config may pin another one.
    pub server_name: String,
    /// Polls are held 0.8 to 0.99 of this.
    #[serde(rename = "max_poll_s", with = "seconds")]
    pub max_poll: Duration,
    /// Time between two pads of a held poll.
    #[serde(rename = "pad_every_s", with = "seconds")]
    pub pad_every: Duration,
    /// Time between two pings of a WebSocket; who has not answered one when the next is due is gone.
    #[serde(rename = "ping_every_s", with = "seconds")]
    pub ping_every: Duration,
    /// How long a POST waits for room, for the registry or for the log before it gets a 503.
    #[serde(rename = "hold_s", with = "seconds")]
    pub hold: Duration,
    /// A body that brings nothing for so long is given up.
    #[serde(rename = "body_idle_s", with = "seconds")]
    pub body_idle: Duration,
    /// A body that is not complete after so long is given up.
    #[serde(rename = "body_total_s", with = "seconds")]
    pub body_total: Duration,
    /// How long open POSTs may go on after the shutdown began.
    #[serde(rename = "drain_s", with = "seconds")]
    pub drain: Duration,
    /// The agents' `max_upload_size` in bytes; a body may have twice that and 1 MiB.
    pub max_upload_size: usize,
    /// Bytes of bodies that may be in work at once.
    pub byte_budget: usize,
    /// How much of the budget is kept for urgent POSTs and polls, bytes.
    pub byte_reserve: usize,
    /// Bytes of bodies that one agent may send a second, on average; no limit if 0. The answers to
    /// one that sends more are held.
    pub agent_bytes_per_s: usize,
    /// Bytes that it may send at once beyond that.
    pub agent_burst: usize,
    /// Connections at once; more wait to be accepted.
    pub max_connections: usize,
    /// How many agents' sessions are kept.
    pub sessions: u64,
    /// Bytes of compiled requests that are kept.
    pub request_cache: u64,
    /// Whether flows are taken whose ids are not ours: true, false, or until a time (seconds
    /// since 1970).
    pub adopt_flows: AdoptFlows,
    /// How often the foreman hears of a running flow's progress; 0: of all of it.
    #[serde(rename = "progress_every_s", with = "seconds")]
    pub progress_every: Duration,
    /// How often the workers' lag is looked at.
    #[serde(rename = "lag_every_s", with = "seconds")]
    pub lag_every: Duration,
    /// Retention of the data topics, where it is not that of the catalogue.
    #[serde(rename = "retention_s", with = "optional_seconds")]
    pub retention: Option<Duration>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: "frontend".into(),
            listen: Vec::new(),
            trusted_proxies: Networks::default(),
            proxy_protocol: false,
            base_path: "/".into(),
            server_name: nublar_wire::SERVER_NAME.into(),
            max_poll: Duration::from_secs(10),
            pad_every: Duration::from_secs(10),
            ping_every: Duration::from_secs(25),
            hold: Duration::from_secs(30),
            body_idle: Duration::from_secs(20),
            body_total: Duration::from_secs(300),
            drain: Duration::from_secs(10),
            max_upload_size: 5 << 20,
            byte_budget: 256 << 20,
            byte_reserve: 32 << 20,
            agent_bytes_per_s: 32 << 20,
            agent_burst: 128 << 20,
            max_connections: 100_000,
            sessions: 200_000,
            request_cache: 64 << 20,
            adopt_flows: AdoptFlows::Always(false),
            progress_every: Duration::from_secs(20),
            lag_every: Duration::from_secs(10),
            retention: None,
        }
    }
}

impl Config {
    /// The longest body that is read, bytes.
    pub(crate) fn body_limit(&self) -> usize {
        2 * self.max_upload_size + (1 << 20)
    }
}

/// An organisation and the nonce by which its agents name it.
#[derive(Clone)]
pub struct Org {
    /// The nonce in the agents' config: a secret.
    pub nonce: String,
    /// The organisation.
    pub id: OrgId,
}

/// Chain and key for HTTPS.
#[derive(Clone, PartialEq, Eq)]
pub struct TlsMaterial {
    /// Certificates, the leaf first, PEM.
    pub chain_pem: String,
    /// The leaf's private key, PEM.
    pub key_pem: String,
}

/// What a frontend shows of itself, and the keys for it. It may change while the frontend runs.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// What `server.pem` answers: a certificate of the agents' CA for the newest agent-facing key.
    pub certificate_pem: String,
    /// The agent-facing RSA keys, the newest first, PEM.
    pub agent_keys_pem: String,
    /// For the listeners that speak TLS.
    pub tls: Option<TlsMaterial>,
}

/// What must not be seen in a config file or a log.
#[derive(Clone)]
pub struct Secrets {
    /// What is shown, and what is to be shown from then on whenever it changes.
    pub credentials: watch::Receiver<Credentials>,
    /// The organisations.
    pub orgs: Vec<Org>,
    /// The keys of the ids that we make.
    pub mac: MacKeys,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({} orgs)", self.orgs.len())
    }
}

mod seconds {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::time::Duration;

    pub(super) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(time.as_secs_f64())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let seconds = Number::deserialize(from)?;
        Duration::try_from_secs_f64(seconds.0).map_err(D::Error::custom)
    }

    /// TOML tells 10 from 10.0.
    struct Number(f64);

    impl<'de> Deserialize<'de> for Number {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            #[derive(Deserialize)]
            #[serde(untagged)]
            enum Either {
                Whole(u32),
                Broken(f64),
            }
            Ok(Self(match Either::deserialize(from)? {
                Either::Whole(seconds) => f64::from(seconds),
                Either::Broken(seconds) => seconds,
            }))
        }
    }
}

mod optional_seconds {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::time::Duration;

    #[derive(Deserialize)]
    struct Seconds(#[serde(with = "super::seconds")] Duration);

    pub(super) fn serialize<S: Serializer>(
        time: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => to.serialize_some(&time.as_secs_f64()),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D>(from: D) -> Result<Option<Duration>, D::Error>
    where
        D: Deserializer<'de>,
    {
        Ok(Option::<Seconds>::deserialize(from)?.map(|seconds| seconds.0))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_config_is_read_and_a_wrong_key_is_named() {
        let text = r#"
            listen = [{ addr = "127.0.0.1:0", tls = true }]
            base_path = "/agents/"
            trusted_proxies = ["10.0.0.0/8", "2001:db8::1"]
            proxy_protocol = true
            max_poll_s = 10
            hold_s = 0.5
            adopt_flows = 1795514940
            retention_s = 60
        "#;
        let config: Config = toml::from_str(text).unwrap();
        assert_eq!(config.max_poll, Duration::from_secs(10));
        assert_eq!(config.hold, Duration::from_millis(500));
        assert_eq!(config.retention, Some(Duration::from_secs(60)));
        assert!(config.adopt_flows.at(1_795_514_939_000_000));
        assert!(!config.adopt_flows.at(1_795_514_940_000_000));
        assert_eq!(config.body_limit(), 11 << 20);
        let again: Config = toml::from_str(&toml::to_string(&config).unwrap()).unwrap();
        assert_eq!(again, config);
        let error = toml::from_str::<Config>("max_pol_s = 1").unwrap_err();
        assert!(error.to_string().contains("max_pol_s"), "{error}");
        assert!(toml::from_str::<Config>("hold_s = -1").is_err());
        let error = toml::from_str::<Config>("trusted_proxies = [\"proxy-1\"]").unwrap_err();
        assert!(
            error.to_string().contains("\"proxy-1\" is no network"),
            "{error}"
        );
    }
}
