//! A frontend of its configuration and its ports: what is wrong with them, and its sockets.

use crate::config::{Config, Secrets};
use crate::error::FrontendError;
use crate::identity::Identity;
use crate::listen::{self, Bound};
use crate::metrics::Metrics;
use nublar_ports::{Log, Objects};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Runs a frontend until the shutdown: [`Frontend::bind`] and [`Frontend::serve`].
pub async fn run(
    config: Config,
    secrets: Secrets,
    log: Arc<dyn Log>,
    objects: Arc<dyn Objects>,
    shutdown: CancellationToken,
) -> Result<(), FrontendError> {
    Frontend::bind(config, secrets, log, objects)
        .await?
        .serve(shutdown)
        .await
}

/// A frontend whose sockets listen. Nobody is answered before [`serve`](Self::serve).
pub struct Frontend {
    pub(crate) config: Config,
    pub(crate) name: String,
    pub(crate) secrets: Secrets,
    pub(crate) identity: Arc<Identity>,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) objects: Arc<dyn Objects>,
    pub(crate) bound: Vec<Bound>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) ready: watch::Sender<bool>,
}

impl Frontend {
    /// Checks configuration and secrets and opens the sockets.
    ///
    /// # Errors
    /// Whatever is wrong with them, by name; an address that is taken.
    pub async fn bind(
        mut config: Config,
        secrets: Secrets,
        log: Arc<dyn Log>,
        objects: Arc<dyn Objects>,
    ) -> Result<Self, FrontendError> {
        let wrong = |text: &str| Err(FrontendError::Config(text.to_owned()));
        if config.listen.is_empty() {
            return wrong("listen is empty: give at least one address");
        }
        if !config.base_path.starts_with('/') {
            return wrong("base_path must begin with a slash");
        }
        if !config.base_path.ends_with('/') {
            config.base_path.push('/');
        }
        if config.proxy_protocol && config.trusted_proxies.is_empty() {
            return wrong(
                "proxy_protocol is on, but trusted_proxies is empty: list who may send the header",
            );
        }
        if secrets.orgs.is_empty() {
            return wrong("there is no org: give at least one nonce");
        }
        let identity = Arc::new(Identity::new(&secrets.credentials.borrow())?);
        let bound = listen::bind(&config.listen, &identity).await?;
        let name = format!("{}-{:08x}", config.name, random());
        let metrics = Arc::new(Metrics::default());
        let ready = watch::Sender::new(false);
        Ok(Self {
            config,
            name,
            secrets,
            identity,
            log,
            objects,
            bound,
            metrics,
            ready,
        })
    }

    /// The addresses that are listened on, in the order of the configuration.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.bound.iter().map(|bound| bound.addr).collect()
    }

    /// The name of this process in records: another one at every start.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it counts.
    pub fn metrics(&self) -> Arc<Metrics> {
        self.metrics.clone()
    }

    /// `true` once the registry was read, tasks are followed and agents can connect.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }
}

fn random() -> u32 {
    let mut bytes = [0; 4];
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        bytes = (crate::clock::now_us() as u32).to_be_bytes();
    }
    u32::from_be_bytes(bytes)
}
