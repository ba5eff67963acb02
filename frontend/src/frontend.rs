//! Builds a frontend of its configuration and its ports, runs it, and ends it in order.

use crate::admission::Admission;
use crate::allowance::Allowances;
use crate::authenticate::{Authenticator, Parts};
use crate::config::{Config, Secrets};
use crate::cut::Throttle;
use crate::deliver::Deliveries;
use crate::error::FrontendError;
use crate::front::Front;
use crate::health::{Health, Read};
use crate::identity::Identity;
use crate::listen::{self, Bound};
use crate::metrics::Metrics;
use crate::pressure;
use crate::public::Public;
use crate::registry::Registry;
use crate::requests::Requests;
use crate::scheduling::Appender;
use crate::store::Store;
use crate::tasks;
use crate::url_check::UrlCheck;
use nublar_core::sealed::SealKeys;
use nublar_ports::log::LogError;
use nublar_ports::{Log, Objects};
use nublar_schemas::topics::{EVENTS, REGISTRY, RESULTS, SCHEDULING, TASKS, UPLOADS};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const RETRY: Duration = Duration::from_millis(500);

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
    config: Config,
    name: String,
    secrets: Secrets,
    identity: Arc<Identity>,
    log: Arc<dyn Log>,
    objects: Arc<dyn Objects>,
    bound: Vec<Bound>,
    metrics: Arc<Metrics>,
    ready: watch::Sender<bool>,
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

    /// Serves agents until the shutdown, then lets open POSTs end.
    ///
    /// # Errors
    /// The log refuses its topics, or they do not fit each other.
    pub async fn serve(self, shutdown: CancellationToken) -> Result<(), FrontendError> {
        let partitions = tokio::select! {
            partitions = partitions(&*self.log) => partitions?,
            () = shutdown.cancelled() => return Ok(()),
        };
        let Self {
            config,
            name,
            secrets,
            identity,
            log,
            objects,
            bound,
            metrics,
            ready,
        } = self;
        let tracker = TaskTracker::new();
        let (closing, background) = (shutdown.child_token(), CancellationToken::new());
        let _cancel_what_is_left = background.clone().drop_guard();

        let registry = Arc::new(Registry::new(log.clone(), partitions, metrics.clone()));
        let appender = Appender {
            log: log.clone(),
            partitions,
            tracker: tracker.clone(),
            shutdown: background.clone(),
        };
        let deliveries = Arc::new(Deliveries::new(
            registry.clone(),
            appender,
            name.clone(),
            metrics.clone(),
        ));
        let nonces = secrets.orgs.iter().map(|org| org.nonce.clone());
        let url_check = UrlCheck::new(nonces.collect());
        let (pressed, is_pressed) = watch::channel(false);
        let authenticator = Authenticator::new(Parts {
            identity: identity.clone(),
            server_name: config.server_name.clone(),
            orgs: secrets.orgs,
            registry: registry.clone(),
            log: log.clone(),
            name: name.clone(),
            sessions: config.sessions,
            metrics: metrics.clone(),
        });
        let seal = SealKeys::of(&secrets.mac);
        let store = Store {
            log: log.clone(),
            objects: objects.clone(),
            registry: registry.clone(),
            mac: Arc::new(secrets.mac),
            adopt: config.adopt_flows,
            throttle: Throttle::new(config.progress_every),
            name: name.clone(),
            partitions,
            cutters: Arc::new(Semaphore::new(cores())),
            wait: config.hold,
            metrics: metrics.clone(),
        };

        let mut work = JoinSet::new();
        let (reading, is_reading) = watch::channel(false);
        work.spawn({
            let (registry, background) = (registry.clone(), background.clone());
            let deliveries = deliveries.clone();
            async move {
                let ended = |client: &_, life| deliveries.end_life(client, life);
                registry.run(ended, background).await;
            }
        });
        work.spawn(tasks::run(
            log.clone(),
            partitions,
            deliveries.clone(),
            metrics.clone(),
            reading,
            background.clone(),
        ));
        work.spawn(deliveries.clone().run());
        work.spawn({
            let (identity, background) = (identity.clone(), background.clone());
            async move { identity.follow(secrets.credentials, background).await }
        });
        work.spawn(pressure::watch(
            log.clone(),
            config.retention,
            config.lag_every,
            pressed,
            metrics.clone(),
            background.clone(),
        ));

        let drain = config.drain;
        let connections = Arc::new(Semaphore::new(config.max_connections));
        let health = Arc::new(Health::new());
        let front = Arc::new(Front {
            admission: Admission::new(&config, is_pressed, metrics.clone()),
            allowances: Allowances::new(&config),
            health: health.clone(),
            identity,
            requests: Requests::new(log, config.request_cache, seal),
            public: Public::new(objects.clone()),
            url_check,
            name,
            metrics,
            authenticator,
            store,
            deliveries,
            closing: closing.clone(),
            config,
        });
        let mut listeners = JoinSet::new();
        for bound in bound {
            tracing::info!(addr = %bound.addr, tls = bound.tls.is_some(), "listening for agents");
            let (front, limit) = (front.clone(), connections.clone());
            listeners.spawn(listen::accept(bound, front, limit, tracker.clone()));
        }
        let all_read = async {
            let mut is_reading = is_reading;
            registry.caught_up().await;
            health.has_read(Read::Registry);
            // It is closed only when the work ended, which ends this too.
            let _ = is_reading.wait_for(|reading| *reading).await;
            health.has_read(Read::Everything);
            ready.send_replace(true);
            shutdown.cancelled().await;
        };
        let stopped = tokio::select! {
            () = all_read => None,
            ended = work.join_next() => ended.and_then(Result::err),
        };
        ready.send_replace(false);
        closing.cancel();
        while listeners.join_next().await.is_some() {}
        tracker.close();
        if timeout(drain, tracker.wait()).await.is_err() {
            tracing::warn!(
                left = tracker.len(),
                "connections were still open at the end"
            );
        }
        background.cancel();
        while work.join_next().await.is_some() {}
        match stopped {
            Some(error) => Err(FrontendError::Stopped(error.to_string())),
            None => Ok(()),
        }
    }
}

/// The partitions of clients; waits for the log.
async fn partitions(log: &dyn Log) -> Result<u32, FrontendError> {
    let of = async |topic: &'static str| {
        loop {
            match log.partitions(topic).await {
                Err(error @ (LogError::Unavailable(_) | LogError::Full(_))) => {
                    tracing::warn!(%error, topic, "waiting for the log");
                    sleep(RETRY).await;
                }
                other => return other,
            }
        }
    };
    let expected = of(SCHEDULING.name).await?;
    for topic in [RESULTS, UPLOADS, EVENTS, TASKS, REGISTRY] {
        let found = of(topic.name).await?;
        if found != expected {
            return Err(FrontendError::Partitions {
                topic: topic.name,
                found,
                expected,
            });
        }
    }
    Ok(expected)
}

fn cores() -> usize {
    std::thread::available_parallelism()
        .map_or(2, usize::from)
        .max(2)
}

fn random() -> u32 {
    let mut bytes = [0; 4];
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        bytes = (crate::clock::now_us() as u32).to_be_bytes();
    }
    u32::from_be_bytes(bytes)
}
