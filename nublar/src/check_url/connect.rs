//! URLs of agents, and connections to them.

use anyhow::{Context, Result, bail};
use nublar_wire::Trust;
use reqwest::{Client, Response, redirect, retry};
use std::net::IpAddr;
use std::time::Duration;

/// Whoever does not take a connection in this time is not there.
const CONNECT: Duration = Duration::from_secs(10);

/// A URL that agents are given.
#[derive(Debug)]
pub(super) struct Url {
    given: String,
    /// Where its documents are: by `http` or `https`, with a slash at its end.
    base: reqwest::Url,
    sockets: bool,
}

impl Url {
    pub(super) fn read(given: &str) -> Result<Self> {
        let schemes = [
            ("https", "https", false),
            ("http", "http", false),
            ("wss", "https", true),
            ("ws", "http", true),
        ];
        let known = schemes.into_iter().find_map(|(scheme, base, sockets)| {
            let rest = given.strip_prefix(scheme)?.strip_prefix("://")?;
            Some((format!("{base}://{rest}"), sockets))
        });
        let Some((base, sockets)) = known.filter(|_| given.ends_with('/')) else {
            bail!(
                "{given:?} is no URL for agents: it begins with https://, http://, wss:// or ws:// and ends with a slash"
            );
        };
        let base = base
            .parse()
            .with_context(|| format!("{given:?} is no URL"))?;
        Ok(Self {
            given: given.to_owned(),
            base,
            sockets,
        })
    }

    pub(super) fn given(&self) -> &str {
        &self.given
    }

    /// Whether agents speak over WebSockets there.
    pub(super) fn is_for_sockets(&self) -> bool {
        self.sockets
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.base.scheme() == "https"
    }

    pub(super) fn below(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// Without the brackets of an address.
    pub(super) fn host(&self) -> &str {
        self.base
            .host_str()
            .unwrap_or_default()
            .trim_matches(['[', ']'])
    }

    /// The addresses of its host.
    pub(super) async fn addresses(&self) -> std::io::Result<Vec<IpAddr>> {
        let port = self.base.port_or_known_default().unwrap_or(443);
        let found = tokio::net::lookup_host((self.host(), port)).await?;
        let mut addresses: Vec<_> = found.map(|address| address.ip()).collect();
        addresses.dedup();
        Ok(addresses)
    }

    /// Proxies of the environment are for other machines.
    fn is_here(&self) -> bool {
        let address = self.host().parse::<IpAddr>();
        self.host() == "localhost" || address.is_ok_and(|address| address.is_loopback())
    }
}

/// Connections that are made in one way.
#[derive(Debug, Clone)]
pub(super) struct Clients {
    /// Those of POSTs and documents.
    pub(super) http: Client,
    /// HTTP/1.1, for WebSockets.
    pub(super) sockets: Client,
}

impl Clients {
    /// To whoever shows a certificate of the agents' authority, under any name; without one to
    /// whoever the authorities of this machine know.
    pub(super) fn new(url: &Url, trust: Option<&Trust>) -> Result<Self> {
        // Another part of the process may have chosen already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let builder = |http2| -> Result<_> {
            let mut builder = Client::builder()
                .connect_timeout(CONNECT)
                .redirect(redirect::Policy::none())
                .retry(retry::never())
                .user_agent("nublar check-url")
                .tls_info(true);
            if let Some(trust) = trust {
                builder = builder.tls_backend_preconfigured(trust.client_config(http2)?);
            }
            if url.is_here() {
                builder = builder.no_proxy();
            }
            Ok(builder)
        };
        Ok(Self {
            http: builder(true)?.build()?,
            sockets: builder(false)?.http1_only().build()?,
        })
    }

    pub(super) async fn get(&self, url: &str) -> reqwest::Result<Response> {
        self.http.get(url).timeout(CONNECT * 2).send().await
    }
}

/// The deepest cause of an error, which alone says what it is.
pub(super) fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
