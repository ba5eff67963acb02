//! A proxy between agents and a frontend that repeats, swallows, delays, stalls and cuts when told
//! so. It ends TLS, or takes plain HTTP, and speaks to the frontend by itself.

use crate::chance::Chance;
use crate::error::SimError;
use crate::faults::{Coins, Fault, Faults};
use bytes::Bytes;
use futures::{StreamExt, stream};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Body as _, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};

type Broken = Box<dyn std::error::Error + Send + Sync>;
type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, Broken>;

/// What a proxy does to all that passes, as one does that nobody has set up for agents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Habits {
    /// Answers are held back until they are whole.
    pub holds_back: bool,
    /// Longer bodies get a 413.
    pub largest: Option<usize>,
    /// When no head of an answer has come for so long there is a 504.
    pub patience: Option<Duration>,
    /// Who connects is named in `X-Forwarded-For`.
    pub tells: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Mode {
    faults: Faults,
    habits: Habits,
    stalled: bool,
}

struct Inner {
    upstream: String,
    client: reqwest::Client,
    mode: watch::Receiver<Mode>,
    coins: Coins,
    posts: AtomicU64,
    done: Done,
    chance: Mutex<Chance>,
}

/// What a proxy has done to POSTs.
#[derive(Debug, Default)]
struct Done {
    lost: AtomicU64,
    repeated: AtomicU64,
    dropped: AtomicU64,
    cut: AtomicU64,
}

/// A running proxy. Dropping it ends it.
pub struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    inner: Arc<Inner>,
    _stop: DropGuard,
}

impl Proxy {
    /// Listens, with TLS if there is a chain and a key (PEM), and forwards to `upstream`, a base
    /// URL without a slash at its end, which must be plain HTTP. The seed determines what happens
    /// to which POST.
    ///
    /// Errors: the address can not be had, or the certificate not be used.
    pub async fn start(
        listen: SocketAddr,
        tls: Option<(&str, &str)>,
        upstream: &str,
        seed: u64,
    ) -> Result<Self, SimError> {
        let acceptor = tls.map(|(chain, key)| acceptor(chain, key)).transpose()?;
        let listener = TcpListener::bind(listen)
            .await
            .map_err(SimError::io(format!("listen on {listen}")))?;
        let address = listener.local_addr().map_err(SimError::io("listen"))?;
        let tls = rustls::ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .map_err(broken)?
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .tcp_nodelay(true)
            .build()?;
        let (mode, seen) = watch::channel(Mode::default());
        let inner = Arc::new(Inner {
            upstream: upstream.trim_end_matches('/').to_owned(),
            client,
            mode: seen,
            coins: Coins::new(seed),
            posts: AtomicU64::new(0),
            done: Done::default(),
            chance: Mutex::new(Chance::new(seed)),
        });
        let stop = CancellationToken::new();
        tokio::spawn(accept(listener, acceptor, Arc::clone(&inner), stop.clone()));
        Ok(Self {
            address,
            mode,
            inner,
            _stop: stop.drop_guard(),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on it does this to POSTs.
    pub fn set(&self, faults: Faults) {
        self.mode.send_modify(|mode| mode.faults = faults);
    }

    /// From now on it has these habits.
    pub fn behave(&self, habits: Habits) {
        self.mode.send_modify(|mode| mode.habits = habits);
    }

    /// From now on nothing passes; or all that waited does.
    pub fn stall(&self, stalled: bool) {
        self.mode.send_modify(|mode| mode.stalled = stalled);
    }

    /// POSTs that came; and those whose answers were lost, that were repeated, that were dropped,
    /// whose answers were cut.
    pub fn done(&self) -> [u64; 5] {
        let Done {
            lost,
            repeated,
            dropped,
            cut,
        } = &self.inner.done;
        [&self.inner.posts, lost, repeated, dropped, cut].map(|count| count.load(Ordering::Relaxed))
    }
}

fn broken(error: rustls::Error) -> SimError {
    SimError::Certificate {
        what: "tls",
        reason: error.to_string(),
    }
}

fn acceptor(chain: &str, key: &str) -> Result<TlsAcceptor, SimError> {
    let unreadable = |error: rustls::pki_types::pem::Error| SimError::Certificate {
        what: "the proxy's certificate",
        reason: error.to_string(),
    };
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(unreadable)?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(unreadable)?;
    let mut config =
        rustls::ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .map_err(broken)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(broken)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn accept(
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    inner: Arc<Inner>,
    stop: CancellationToken,
) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, peer)) = accepted else {
            continue;
        };
        // Latency is not what it is to add.
        let _ = stream.set_nodelay(true);
        let (acceptor, inner) = (acceptor.clone(), Arc::clone(&inner));
        connections.spawn(async move {
            match acceptor {
                None => serve(stream, peer, inner).await,
                Some(acceptor) => {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream, peer, inner).await;
                    }
                }
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    stream: S,
    peer: SocketAddr,
    inner: Arc<Inner>,
) {
    let service = service_fn(move |request| Arc::clone(&inner).forward(peer, request));
    // Its end is either side's right.
    let _ = Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// The proxy's own answer.
fn refused(status: StatusCode) -> Result<Response<Body>, Broken> {
    let nothing = StreamBody::new(stream::empty()).boxed_unsync();
    Ok(Response::builder().status(status).body(nothing)?)
}

impl Inner {
    /// Forwards one request. An error closes the connection without an answer.
    async fn forward(
        self: Arc<Self>,
        peer: SocketAddr,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Broken> {
        let habits = self.mode.borrow().habits;
        let length = request.body().size_hint().exact();
        if habits
            .largest
            .is_some_and(|most| length > Some(most as u64))
        {
            return refused(StatusCode::PAYLOAD_TOO_LARGE);
        }
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let post = head.method == Method::POST;
        let number = if post {
            self.posts.fetch_add(1, Ordering::Relaxed) + 1
        } else {
            0
        };
        self.pass().await?;
        let faults = self.mode.borrow().faults;
        let hits = |fault, every, count: &AtomicU64| {
            let hit = post && self.coins.hit(fault, every, number);
            if hit {
                count.fetch_add(1, Ordering::Relaxed);
            }
            hit
        };
        self.delay(faults).await;
        if hits(Fault::Drop, faults.drop_every, &self.done.dropped) {
            return Err("dropped on purpose".into());
        }
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        let send = || {
            let url = format!("{}{path}", self.upstream);
            let mut sent = self
                .client
                .request(head.method.clone(), url)
                .body(body.clone());
            for name in ["content-type", "user-agent", "x-priority", "authorization"] {
                if let Some(value) = head.headers.get(name) {
                    sent = sent.header(name, value);
                }
            }
            if habits.tells {
                sent = sent.header("x-forwarded-for", peer.ip().to_string());
            }
            sent.send()
        };
        let patience = habits.patience.unwrap_or(Duration::MAX);
        let answer = if hits(Fault::Repeat, faults.repeat_every, &self.done.repeated) {
            let (first, second) = (Box::pin(send()), Box::pin(send()));
            let (first, other) = futures::future::select(first, second).await.factor_first();
            // The other one reaches the frontend too, whoever waits for its answer.
            tokio::spawn(tokio::time::timeout(Duration::from_secs(60), other));
            first?
        } else {
            match tokio::time::timeout(patience, send()).await {
                Ok(answer) => answer?,
                Err(_) => return refused(StatusCode::GATEWAY_TIMEOUT),
            }
        };
        let (lose, cut) = (
            hits(Fault::Lose, faults.lose_every, &self.done.lost),
            hits(Fault::Cut, faults.cut_every, &self.done.cut),
        );
        let mut response = Response::builder().status(answer.status());
        for name in ["content-type", "location"] {
            if let Some(value) = answer.headers().get(name) {
                response = response.header(name, value);
            }
        }
        let body = if lose {
            answer.bytes().await?;
            return Err("lost on purpose".into());
        } else if cut {
            let whole = answer.bytes().await?;
            let half = Frame::data(whole.slice(..whole.len() / 2));
            let parts: [Result<Frame<Bytes>, Broken>; 2] = [Ok(half), Err("cut on purpose".into())];
            StreamBody::new(stream::iter(parts)).boxed_unsync()
        } else if habits.holds_back {
            let whole = Frame::data(answer.bytes().await?);
            StreamBody::new(stream::iter([Ok::<_, Broken>(whole)])).boxed_unsync()
        } else {
            self.delay(faults).await;
            let parts = answer.bytes_stream();
            StreamBody::new(parts.map(|part| Ok(Frame::data(part?)))).boxed_unsync()
        };
        Ok(response.body(body)?)
    }

    /// Waits while nothing passes.
    async fn pass(&self) -> Result<(), Broken> {
        let mut mode = self.mode.clone();
        mode.wait_for(|mode| !mode.stalled).await?;
        Ok(())
    }

    async fn delay(&self, faults: Faults) {
        if faults.delay_ms > 0 {
            let part = self
                .chance
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .unit();
            tokio::time::sleep(Duration::from_millis(faults.delay_ms).mul_f64(part)).await;
        }
    }
}
