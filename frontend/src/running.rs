//! A frontend at work: what its requests share, what follows the log beside them, and how all of
//! it ends in order.

use crate::admission::Admission;
use crate::allowance::Allowances;
use crate::authenticate::{Authenticator, Parts};
use crate::config::{Config, Credentials, Org};
use crate::cut::Throttle;
use crate::deliver::Deliveries;
use crate::error::FrontendError;
use crate::front::Front;
use crate::frontend::Frontend;
use crate::health::{Health, Read};
use crate::identity::Identity;
use crate::listen;
use crate::metrics::Metrics;
use crate::pressure;
use crate::public::Public;
use crate::registry::Registry;
use crate::requests::Requests;
use crate::scheduling::Appender;
use crate::store::Store;
use crate::tasks;
use crate::url_check::UrlCheck;
use nublar_core::mac::MacKeys;
use nublar_core::sealed::SealKeys;
use nublar_ports::log::LogError;
use nublar_ports::{Log, Objects};
use nublar_schemas::topics::{EVENTS, REGISTRY, RESULTS, SCHEDULING, TASKS, UPLOADS};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

const RETRY: Duration = Duration::from_millis(500);

impl Frontend {
    /// Serves agents until the shutdown, then lets open POSTs end.
    ///
    /// # Errors
    /// The log refuses its topics, or they do not fit each other.
    pub async fn serve(self, shutdown: CancellationToken) -> Result<(), FrontendError> {
        let partitions = tokio::select! {
            partitions = partitions(&*self.log) => partitions?,
            () = shutdown.cancelled() => return Ok(()),
        };
        Running::start(self, partitions, shutdown.child_token())
            .until(shutdown)
            .await
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

/// A frontend that answers agents.
pub(crate) struct Running {
    /// What follows the log beside the requests, until the guard is dropped.
    work: JoinSet<()>,
    background: DropGuard,
    /// What accepts connections, until it is closing; polls end then too.
    listeners: JoinSet<()>,
    closing: CancellationToken,
    /// Connections, and records of theirs that are still being appended.
    tracker: TaskTracker,
    start: Start,
    drain: Duration,
}

/// What is read before agents can be served.
struct Start {
    registry: Arc<Registry>,
    follows_tasks: watch::Receiver<bool>,
    health: Arc<Health>,
    ready: watch::Sender<bool>,
}

/// What the parts of a frontend share.
struct Shared {
    name: String,
    partitions: u32,
    log: Arc<dyn Log>,
    metrics: Arc<Metrics>,
    registry: Arc<Registry>,
    deliveries: Arc<Deliveries>,
    background: CancellationToken,
}

impl Running {
    /// Starts whatever a frontend consists of.
    ///
    /// `partitions` are those of clients.
    pub(crate) fn start(frontend: Frontend, partitions: u32, closing: CancellationToken) -> Self {
        let (tracker, background) = (TaskTracker::new(), CancellationToken::new());
        let shared = Shared::new(&frontend, partitions, &tracker, &background);
        let Frontend {
            config,
            name,
            secrets,
            identity,
            log,
            objects,
            bound,
            metrics,
            ready,
        } = frontend;
        let (pressed, is_pressed) = watch::channel(false);
        let (following, follows_tasks) = watch::channel(false);
        let nonces = secrets.orgs.iter().map(|org| org.nonce.clone());
        let url_check = UrlCheck::new(nonces.collect());
        let seal = SealKeys::of(&secrets.mac);
        let work = shared.work(&config, &identity, secrets.credentials, following, pressed);

        let drain = config.drain;
        let connections = Arc::new(Semaphore::new(config.max_connections));
        let health = Arc::new(Health::new());
        let front = Arc::new(Front {
            admission: Admission::new(&config, is_pressed, metrics.clone()),
            allowances: Allowances::new(&config),
            authenticator: shared.authenticator(&config, &identity, secrets.orgs),
            store: shared.store(&config, objects.clone(), secrets.mac),
            deliveries: shared.deliveries,
            requests: Requests::new(log, config.request_cache, seal),
            public: Public::new(objects),
            health: health.clone(),
            closing: closing.clone(),
            url_check,
            identity,
            name,
            metrics,
            config,
        });
        let mut listeners = JoinSet::new();
        for bound in bound {
            tracing::info!(addr = %bound.addr, tls = bound.tls.is_some(), "listening for agents");
            let (front, limit) = (front.clone(), connections.clone());
            listeners.spawn(listen::accept(bound, front, limit, tracker.clone()));
        }
        let start = Start {
            registry: shared.registry,
            follows_tasks,
            health,
            ready,
        };
        Self {
            work,
            background: background.drop_guard(),
            listeners,
            closing,
            tracker,
            start,
            drain,
        }
    }

    /// Serves until the shutdown, then lets open POSTs end.
    pub(crate) async fn until(mut self, shutdown: CancellationToken) -> Result<(), FrontendError> {
        let served = async {
            self.start.all_read().await;
            shutdown.cancelled().await;
        };
        let stopped = tokio::select! {
            () = served => None,
            ended = self.work.join_next() => ended.and_then(Result::err),
        };
        self.start.ready.send_replace(false);
        self.closing.cancel();
        while self.listeners.join_next().await.is_some() {}
        self.tracker.close();
        if timeout(self.drain, self.tracker.wait()).await.is_err() {
            tracing::warn!(
                left = self.tracker.len(),
                "connections were still open at the end"
            );
        }
        drop(self.background);
        while self.work.join_next().await.is_some() {}
        match stopped {
            Some(error) => Err(FrontendError::Stopped(error.to_string())),
            None => Ok(()),
        }
    }
}

impl Start {
    /// Waits for it, and tells it.
    async fn all_read(&mut self) {
        self.registry.caught_up().await;
        self.health.has_read(Read::Registry);
        // It is closed only when the work ended, which ends this too.
        let _ = self.follows_tasks.wait_for(|follows| *follows).await;
        self.health.has_read(Read::Everything);
        self.ready.send_replace(true);
    }
}

impl Shared {
    fn new(
        frontend: &Frontend,
        partitions: u32,
        tracker: &TaskTracker,
        background: &CancellationToken,
    ) -> Self {
        let (name, log) = (frontend.name.clone(), frontend.log.clone());
        let metrics = frontend.metrics.clone();
        let registry = Arc::new(Registry::new(log.clone(), partitions, metrics.clone()));
        let appender = Appender {
            log: log.clone(),
            partitions,
            tracker: tracker.clone(),
            shutdown: background.clone(),
        };
        let deliveries = Deliveries::new(registry.clone(), appender, name.clone(), metrics.clone());
        Self {
            name,
            partitions,
            log,
            metrics,
            registry,
            deliveries: Arc::new(deliveries),
            background: background.clone(),
        }
    }

    /// What goes on beside the requests.
    fn work(
        &self,
        config: &Config,
        identity: &Arc<Identity>,
        credentials: watch::Receiver<Credentials>,
        following: watch::Sender<bool>,
        pressed: watch::Sender<bool>,
    ) -> JoinSet<()> {
        let mut work = JoinSet::new();
        let background = &self.background;
        work.spawn({
            let (registry, background) = (self.registry.clone(), background.clone());
            let deliveries = self.deliveries.clone();
            async move {
                let ended = |client: &_, life| deliveries.end_life(client, life);
                registry.run(ended, background).await;
            }
        });
        work.spawn(tasks::run(
            self.log.clone(),
            self.partitions,
            self.deliveries.clone(),
            self.metrics.clone(),
            following,
            background.clone(),
        ));
        work.spawn(self.deliveries.clone().run());
        work.spawn({
            let (identity, background) = (identity.clone(), background.clone());
            async move { identity.follow(credentials, background).await }
        });
        work.spawn(pressure::watch(
            self.log.clone(),
            config.retention,
            config.lag_every,
            pressed,
            self.metrics.clone(),
            background.clone(),
        ));
        work
    }

    fn authenticator(
        &self,
        config: &Config,
        identity: &Arc<Identity>,
        orgs: Vec<Org>,
    ) -> Authenticator {
        Authenticator::new(Parts {
            identity: identity.clone(),
            server_name: config.server_name.clone(),
            orgs,
            registry: self.registry.clone(),
            log: self.log.clone(),
            name: self.name.clone(),
            sessions: config.sessions,
            metrics: self.metrics.clone(),
        })
    }

    fn store(&self, config: &Config, objects: Arc<dyn Objects>, mac: MacKeys) -> Store {
        Store {
            log: self.log.clone(),
            objects,
            registry: self.registry.clone(),
            mac: Arc::new(mac),
            adopt: config.adopt_flows,
            throttle: Throttle::new(config.progress_every),
            name: self.name.clone(),
            partitions: self.partitions,
            cutters: Arc::new(Semaphore::new(cores())),
            wait: config.hold,
            metrics: self.metrics.clone(),
        }
    }
}

fn cores() -> usize {
    std::thread::available_parallelism()
        .map_or(2, usize::from)
        .max(2)
}
