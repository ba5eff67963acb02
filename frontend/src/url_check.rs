//! The other side of `nublar check-url`: answers that show how agents' requests fare on their way
//! here.
//!
//! Only who knows a nonce is answered, few at once, each for a bounded time; nothing is stored.

use crate::body::{self, AnswerBody, BodyError};
use crate::clock::now_us;
use crate::front::{Connection, Front};
use crate::http::{agree, is_socket, text, with_type};
use crate::peer::Peer;
use bytes::{Bytes, BytesMut};
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
pub(crate) use nublar_core::url_check::PATH;
use nublar_core::url_check::{Facts, Held, Read, ToldBy, is_good};
use nublar_wire::{Frame, Incoming as Heard, Side, SocketReader, SocketWriter};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};

/// Checks that are answered at once.
const AT_ONCE: usize = 8;
/// A line of a held answer.
const LINE: &[u8] = b"pad\n";
/// In which time a socket must have said something, and must be ended after it was answered.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest message on a socket.
const MESSAGE: usize = 1 << 10;

/// Who is let in, and how many at once.
pub(crate) struct UrlCheck {
    nonces: Vec<String>,
    places: Arc<Semaphore>,
}

impl UrlCheck {
    pub(crate) fn new(nonces: Vec<String>) -> Self {
        Self {
            nonces,
            places: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    fn lets_in(&self, headers: &HeaderMap) -> bool {
        let said = headers.get(AUTHORIZATION);
        let pass = said.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let nonces = self.nonces.iter().map(String::as_str);
        pass.is_some_and(|pass| is_good(pass, nonces, now_us() / 1_000_000))
    }
}

/// Answers a request for a path below `check-url/`. `ignored`: it has an `X-Forwarded-For` of
/// somebody who is not trusted.
pub(crate) async fn serve(
    front: Arc<Front>,
    connection: &Connection,
    (peer, ignored): (Peer, bool),
    mut request: Request<Incoming>,
) -> Response<AnswerBody> {
    if !front.url_check.lets_in(request.headers()) {
        return text(StatusCode::FORBIDDEN, "forbidden\n");
    }
    let Ok(place) = front.url_check.places.clone().try_acquire_owned() else {
        return text(StatusCode::TOO_MANY_REQUESTS, "others are checking\n");
    };
    front.metrics.url_checks.inc();
    let held = Held::read(request.uri().query().unwrap_or_default());
    let what = request.uri().path().rsplit('/').next().unwrap_or_default();
    match (request.method(), what) {
        (&Method::GET, "facts") => {
            let told_by = match request.headers().contains_key("x-forwarded-for") {
                true if ignored => ToldBy::ForwardedIgnored,
                true => ToldBy::Forwarded,
                false if connection.peer.via().is_some() => ToldBy::ProxyHeader,
                false => ToldBy::Connection,
            };
            json(&facts(&front, peer, told_by, request.version()))
        }
        (&Method::POST, "answer") => answer(front, place, held).await,
        (&Method::POST, "body") => read(&front, request.into_body()).await,
        (&Method::GET, "socket") if is_socket(request.headers()) => {
            let (response, upgrade) = agree(&mut request);
            let Some(upgrade) = upgrade else {
                return response;
            };
            front.deliveries.tracker().clone().spawn(async move {
                let silent = Duration::from_millis(held.silent_ms);
                let conversing = async {
                    let _place = place;
                    converse(upgrade.await.ok()?, silent).await
                };
                tokio::select! {
                    _ = conversing => {}
                    () = front.closing.cancelled() => {}
                }
            });
            response
        }
        _ => text(StatusCode::NOT_FOUND, "not found\n"),
    }
}

fn facts(front: &Front, peer: Peer, told_by: ToldBy, version: Version) -> Facts {
    let config = &front.config;
    Facts {
        frontend: front.name.clone(),
        address: peer.address().to_string(),
        connection: peer.connection().ip().to_string(),
        told_by,
        version: format!("{version:?}"),
        body_limit: config.body_limit(),
        pad_every_s: config.pad_every.as_secs_f64(),
        ping_every_s: config.ping_every.as_secs_f64(),
        max_poll_s: config.max_poll.as_secs_f64(),
    }
}

fn json(what: &impl Serialize) -> Response<AnswerBody> {
    let body = serde_json::to_vec(what).unwrap_or_default();
    with_type(Bytes::from(body).into(), "application/json")
}

/// As a poll is held: nothing, not even a head, before the first line.
async fn answer(
    front: Arc<Front>,
    place: OwnedSemaphorePermit,
    held: Held,
) -> Response<AnswerBody> {
    wait(&front, held.silent_ms).await;
    let start = (front, place, held.lines);
    let lines = futures::stream::unfold(start, move |(front, place, left)| async move {
        let left = left.checked_sub(1)?;
        if left + 1 < held.lines {
            wait(&front, held.every_ms).await;
        }
        Some((Bytes::from_static(LINE), (front, place, left)))
    });
    with_type(
        AnswerBody::Padded(Box::pin(lines)),
        "application/octet-stream",
    )
}

async fn wait(front: &Front, ms: u64) {
    tokio::select! {
        () = sleep(Duration::from_millis(ms)) => {}
        () = front.closing.cancelled() => {}
    }
}

/// Reads a body and forgets it.
async fn read(front: &Front, mut body: Incoming) -> Response<AnswerBody> {
    let begun = Instant::now();
    match body::drain(&mut body, &front.config).await {
        Ok(bytes) => json(&Read {
            bytes,
            over_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        }),
        Err(BodyError::Broken(reason)) => text(StatusCode::REQUEST_TIMEOUT, reason + "\n"),
        Err(BodyError::TooLong(_) | BodyError::NoRoom) => {
            text(StatusCode::SERVICE_UNAVAILABLE, "no room\n")
        }
    }
}

/// Waits for a message, is silent, answers, and waits for the end.
async fn converse(upgraded: Upgraded, silent: Duration) -> Option<()> {
    let mut io = TokioIo::new(upgraded);
    let mut input = BytesMut::new();
    let mut reader = SocketReader::new(Side::Agent, MESSAGE);
    let asking = async {
        loop {
            match reader.read(&mut input).ok()? {
                Some(Heard::Message(_)) => return Some(()),
                Some(_) => {}
                None if io.read_buf(&mut input).await.ok()? == 0 => return None,
                None => {}
            }
        }
    };
    timeout(PATIENCE, asking).await.ok()??;
    sleep(silent).await;
    let answering = async {
        let answer = SocketWriter::server().message(&Frame::ok().encode().ok()?);
        io.write_all(&answer).await.ok()?;
        io.flush().await.ok()?;
        io.read_buf(&mut input).await.ok()
    };
    timeout(PATIENCE, answering).await.ok()?.map(drop)
}
