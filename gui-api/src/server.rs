//! The role: a socket that is bound, and then served until shutdown.

use crate::app::App;
use crate::config::Config;
use crate::{guard, routes, tails};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use nublar_core::mac::MacKeys;
use nublar_ports::{Index, Log, Objects};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// The largest body of a request: an artifact or a wish.
const MOST_BODY: usize = 8 << 20;
/// How long calls that are under way may take at shutdown.
const DRAIN: Duration = Duration::from_secs(5);

/// Why the role does not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be had.
    #[error("cannot listen at {listen}: {source}; is another server running there?")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// Everybody would be let in.
    #[error("the token is empty: give one of at least 16 characters")]
    NoToken,
    /// The socket failed.
    #[error("serving ended: {0}")]
    Serve(#[from] std::io::Error),
}

/// The role, bound to its address.
pub struct Gui {
    listener: TcpListener,
    address: SocketAddr,
    app: Arc<App>,
}

impl std::fmt::Debug for Gui {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gui")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Gui {
    /// Binds the address. Whoever connects from now on waits for [`Gui::serve`].
    ///
    /// # Errors
    /// When the address cannot be had, or the token is empty.
    pub async fn bind(
        config: Config,
        log: Arc<dyn Log>,
        index: Arc<dyn Index>,
        objects: Arc<dyn Objects>,
        keys: MacKeys,
    ) -> Result<Self, Error> {
        if config.token.trim().is_empty() {
            return Err(Error::NoToken);
        }
        let listen = config.listen;
        let refused = |source| Error::Listen { listen, source };
        let listener = TcpListener::bind(listen).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let app = Arc::new(App::new(config, log, index, objects, keys));
        Ok(Self {
            listener,
            address,
            app,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until shutdown, then lets calls end for a few seconds. `GET /api/v1/health` answers
    /// 200 once the tails have caught up.
    ///
    /// # Errors
    /// When the socket fails.
    pub async fn serve(self, shutdown: CancellationToken) -> Result<(), Error> {
        let Self {
            listener,
            address,
            app,
        } = self;
        let mut tasks = JoinSet::new();
        tails::start(&app, &mut tasks);
        tracing::info!(%address, "serving the API");
        let ends = app.shutdown.clone();
        let serving = axum::serve(listener, router(Arc::clone(&app)))
            .with_graceful_shutdown(async move { ends.cancelled().await });
        let mut serving = std::pin::pin!(async move { serving.await });
        let served = tokio::select! {
            served = &mut serving => served,
            () = shutdown.cancelled() => {
                app.shutdown.cancel();
                timeout(DRAIN, &mut serving).await.unwrap_or(Ok(()))
            }
        };
        app.shutdown.cancel();
        while tasks.join_next().await.is_some() {}
        served.map_err(Error::from)
    }
}

/// Every route, guarded.
pub(crate) fn router(app: Arc<App>) -> Router {
    let guarded = routes::routes()
        .layer(from_fn_with_state(Arc::clone(&app), guard::deadline))
        .merge(routes::unhurried())
        .layer(from_fn_with_state(Arc::clone(&app), guard::token));
    let open = Router::new().route("/health", get(routes::topics::health));
    Router::new()
        .nest("/api/v1", guarded.merge(open))
        .fallback(guard::nowhere)
        .method_not_allowed_fallback(guard::not_so)
        .layer(DefaultBodyLimit::max(MOST_BODY))
        .with_state(app)
}

/// Binds and serves until shutdown.
///
/// # Errors
/// As [`Gui::bind`] and [`Gui::serve`].
pub async fn run(
    config: Config,
    log: Arc<dyn Log>,
    index: Arc<dyn Index>,
    objects: Arc<dyn Objects>,
    keys: MacKeys,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    Gui::bind(config, log, index, objects, keys)
        .await?
        .serve(shutdown)
        .await
}
