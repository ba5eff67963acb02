//! Sockets: TLS, HTTP/1.1 and HTTP/2 on each, and an orderly end.

use crate::config::Listen;
use crate::error::FrontendError;
use crate::front::{Connection, Front, Place};
use crate::http::serve;
use crate::identity::Identity;
use crate::peer::Peer;
use crate::proxy_protocol::{self, ProxyError};
use crate::watched::Watched;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustls::ServerConfig;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

/// In which time a connection must begin to speak.
const BEGINNING: Duration = Duration::from_secs(120);
const HANDSHAKE: Duration = Duration::from_secs(15);
/// Also how long a connection may lie idle.
const HEADERS: Duration = Duration::from_secs(120);
/// An HTTP/2 connection that does not answer a ping is gone.
const PING: Duration = Duration::from_secs(20);
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// A socket that listens.
pub(crate) struct Bound {
    pub(crate) listener: TcpListener,
    pub(crate) addr: SocketAddr,
    pub(crate) tls: Option<TlsAcceptor>,
}

/// Opens the sockets.
pub(crate) async fn bind(
    listen: &[Listen],
    identity: &Arc<Identity>,
) -> Result<Vec<Bound>, FrontendError> {
    let acceptor = match identity.has_leaf() {
        true => Some(acceptor(identity)?),
        false => None,
    };
    let mut bound = Vec::with_capacity(listen.len());
    for &Listen { addr, tls } in listen {
        let refuse = |source| FrontendError::Bind { addr, source };
        let listener = TcpListener::bind(addr).await.map_err(refuse)?;
        let addr = listener.local_addr().map_err(refuse)?;
        let tls = match (tls, &acceptor) {
            (false, _) => None,
            (true, Some(acceptor)) => Some(acceptor.clone()),
            (true, None) => {
                let text = format!("{addr} is to speak tls: give a certificate chain and a key");
                return Err(FrontendError::Tls(text));
            }
        };
        bound.push(Bound {
            listener,
            addr,
            tls,
        });
    }
    Ok(bound)
}

/// The leaf may change while this is in use. Who comes back within some hours takes up where he
/// was, by a ticket that nobody has to remember.
fn acceptor(identity: &Arc<Identity>) -> Result<TlsAcceptor, FrontendError> {
    let bad = |what: &str, error: rustls::Error| FrontendError::Tls(format!("{what}: {error}"));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| bad("versions", error))?
        .with_no_client_auth()
        .with_cert_resolver(identity.clone());
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()
        .map_err(|error| bad("keys of tickets", error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Accepts connections until the frontend closes.
pub(crate) async fn accept(
    bound: Bound,
    front: Arc<Front>,
    limit: Arc<Semaphore>,
    tracker: TaskTracker,
) {
    let Bound { listener, tls, .. } = bound;
    loop {
        let accepted = async {
            let permit = limit.clone().acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            accepted = accepted => accepted,
            () = front.closing.cancelled() => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of files, as a rule: others must be closed first.
                tracing::warn!(%error, "a connection can not be accepted");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let peer = Peer::new(peer);
        let (front, tls, tasks) = (front.clone(), tls.clone(), tracker.clone());
        let place = Place::new(front.metrics.clone(), permit.ok());
        tracker.spawn(async move { greet(stream, peer, place, tls, &front, tasks).await });
    }
}

async fn greet(
    mut stream: TcpStream,
    peer: Peer,
    place: Place,
    tls: Option<TlsAcceptor>,
    front: &Arc<Front>,
    tasks: TaskTracker,
) {
    let _ = stream.set_nodelay(true);
    let config = &front.config;
    let beginning = proxy_protocol::receive(
        &mut stream,
        peer,
        &config.trusted_proxies,
        config.proxy_protocol,
    );
    let beginning = tokio::select! {
        beginning = timeout(BEGINNING, beginning) => beginning,
        () = front.closing.cancelled() => return,
    };
    let peer = match beginning {
        Ok(Ok(peer)) => peer,
        Ok(Err(ProxyError::Io(error))) => {
            tracing::debug!(%peer, %error, "connection ended before it began");
            return;
        }
        Ok(Err(error)) => {
            front.metrics.proxy_refused.inc();
            tracing::warn!(%peer, %error, "connection closed");
            return;
        }
        Err(_) => {
            tracing::debug!(%peer, "nothing was said on a connection");
            return;
        }
    };
    let connection = Connection::new(peer, place);
    let Some(tls) = tls else {
        return Box::pin(converse(stream, connection, front, tasks)).await;
    };
    match timeout(HANDSHAKE, tls.accept(stream)).await {
        Ok(Ok(stream)) => Box::pin(converse(stream, connection, front, tasks)).await,
        Ok(Err(error)) => {
            front.metrics.tls_failed.inc();
            tracing::info!(%peer, %error, "tls handshake failed");
        }
        Err(_) => front.metrics.tls_failed.inc(),
    }
}

/// Spawns where it is known who is still at work.
#[derive(Clone)]
struct Tracked(TaskTracker);

impl<F> hyper::rt::Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}

async fn converse<S>(stream: S, connection: Connection, front: &Arc<Front>, tasks: TaskTracker)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = Arc::new(connection);
    let mut builder = Builder::new(Tracked(tasks));
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    let service = service_fn(|request| {
        let (front, connection) = (front.clone(), connection.clone());
        async move { Ok::<_, Infallible>(serve(front, connection, request).await) }
    });
    let (stream, failed) = Watched::new(stream);
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    let mut closing = std::pin::pin!(front.closing.cancelled());
    let mut asked = false;
    let result = loop {
        tokio::select! {
            result = serving.as_mut() => break result,
            () = closing.as_mut(), if !asked => {
                asked = true;
                serving.as_mut().graceful_shutdown();
            }
        }
    };
    if result.is_err() || failed.load(Ordering::Relaxed) {
        tracing::debug!(peer = %connection.peer, ?result, "connection broke");
        front.in_doubt(&connection);
    }
}
