//! What agents may ask for, and the way of a POST.

use crate::admission::Lane;
use crate::body::{self, AnswerBody, BodyError};
use crate::clock::now_us;
use crate::dead_letters::dead_letter;
use crate::front::{Connection, Front};
use crate::peer::Peer;
use crate::poll;
use crate::posts::{self, Post};
use crate::public;
use crate::refusal::Refusal;
use crate::socket;
use crate::url_check;
use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use nublar_schemas::records::Header;
use nublar_wire::accept_key;
use std::sync::Arc;
use tokio::time::{Instant, timeout_at};

/// Whatever is larger is not urgent: the reserve is no way around the budget.
const URGENT: usize = 1 << 20;

/// Answers one request.
pub(crate) async fn serve(
    front: Arc<Front>,
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> Response<AnswerBody> {
    let path = request
        .uri()
        .path()
        .strip_prefix(front.config.base_path.as_str());
    let trusted = &front.config.trusted_proxies;
    let (peer, ignored) = connection.peer.of_request(request.headers(), trusted);
    if ignored {
        front.metrics.forwarded_ignored.inc();
    }
    let sockets = is_socket(request.headers());
    let post = match (request.method(), path) {
        (&Method::GET, Some("server.pem")) => {
            let certificate = front.identity.now().certificate.clone();
            return with_type(certificate.into(), "application/x-pem-file");
        }
        (&Method::GET, Some("healthz")) => return healthz(&front),
        (&Method::GET, Some("healthz/live")) => return text(StatusCode::OK, "alive\n"),
        (_, Some(path)) if path.starts_with(url_check::PATH) => {
            return url_check::serve(front, &connection, (peer, ignored), request).await;
        }
        (&Method::GET | &Method::HEAD, Some(path)) if path.starts_with("public/") => {
            let name = path.strip_prefix("public/").unwrap_or_default();
            return public::serve(&front, request.method(), name, request.headers()).await;
        }
        (&Method::POST, Some("control" | "send_messages")) => Post::Control,
        (&Method::POST, Some("reader" | "receive_messages")) => Post::Reader,
        (&Method::GET, Some("control" | "send_messages")) if sockets => {
            return upgrade(front, connection, peer, Post::Control, request);
        }
        (&Method::GET, Some("reader" | "receive_messages")) if sockets => {
            return upgrade(front, connection, peer, Post::Reader, request);
        }
        _ => {
            front.metrics.not_found.inc();
            return text(StatusCode::NOT_FOUND, "not found\n");
        }
    };
    // Apart, so that its room is free again while a poll is held.
    match Box::pin(take(&front, &connection, peer, post, request)).await {
        Ok(response) => response,
        Err(refusal) => {
            refusal.record(&front.metrics, peer);
            let (status, words) = refusal.answer();
            text(status, words)
        }
    }
}

/// Whether a request wants to become a WebSocket.
pub(crate) fn is_socket(headers: &HeaderMap) -> bool {
    headers
        .get(UPGRADE)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Agrees, and serves the socket once the answer is out.
fn upgrade(
    front: Arc<Front>,
    connection: Arc<Connection>,
    peer: Peer,
    post: Post,
    mut request: Request<Incoming>,
) -> Response<AnswerBody> {
    let (response, upgrade) = agree(&mut request);
    let Some(upgrade) = upgrade else {
        return response;
    };
    front.deliveries.tracker().clone().spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            socket::serve(front, connection, peer, post, upgraded).await;
        }
    });
    response
}

/// The answer to a request that wants to become a WebSocket, and the socket, which is there when the
/// answer is out; none if it cannot become one.
pub(crate) fn agree(request: &mut Request<Incoming>) -> (Response<AnswerBody>, Option<OnUpgrade>) {
    let headers = request.headers();
    let version = headers.get(SEC_WEBSOCKET_VERSION);
    let accept = headers
        .get(SEC_WEBSOCKET_KEY)
        .filter(|_| version.is_some_and(|version| version == "13"))
        .and_then(|key| HeaderValue::from_str(&accept_key(key.to_str().ok()?)).ok());
    let Some(accept) = accept else {
        let words = "a websocket of version 13 with a key is needed\n";
        return (text(StatusCode::BAD_REQUEST, words), None);
    };
    let upgrade = hyper::upgrade::on(request);
    let mut response = Response::new(AnswerBody::Full(None));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    (response, Some(upgrade))
}

/// Whether agents should come here. What is wrong, or worth knowing, stands in the lines below.
fn healthz(front: &Front) -> Response<AnswerBody> {
    let mut wrong = front.health.wrong(Instant::now());
    if front.closing.is_cancelled() {
        wrong.push("it ends".to_owned());
    }
    let (status, mut words) = if wrong.is_empty() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n".to_owned())
    };
    if front.metrics.pressure.get() > 0 {
        wrong.push("posts in bulk are held: workers are far behind".to_owned());
    }
    let halted = front.metrics.registry_halted.get();
    if halted > 0 {
        wrong.push(format!(
            "{halted} partitions of the registry hold records of a newer version: upgrade this"
        ));
    }
    for line in wrong {
        words.push_str(&line);
        words.push('\n');
    }
    text(status, words)
}

pub(crate) fn text(status: StatusCode, words: impl Into<Bytes>) -> Response<AnswerBody> {
    let body = AnswerBody::from(words.into());
    let mut response = with_type(body, "text/plain");
    *response.status_mut() = status;
    response
}

pub(crate) fn with_type(body: AnswerBody, of: &'static str) -> Response<AnswerBody> {
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(of));
    response
}

async fn take(
    front: &Arc<Front>,
    connection: &Arc<Connection>,
    peer: Peer,
    post: Post,
    request: Request<Incoming>,
) -> Result<Response<AnswerBody>, Refusal> {
    let limit = front.config.body_limit();
    let announced = request
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let urgent = request
        .headers()
        .get("x-priority")
        .is_some_and(|value| value == "urgent");
    let small = announced.is_some_and(|length| length <= URGENT);
    let lane = match post {
        Post::Reader if small => Lane::Urgent,
        Post::Control if small && urgent => Lane::Urgent,
        Post::Reader | Post::Control => Lane::Bulk,
    };
    match post {
        Post::Control => front.metrics.posts.inc(),
        Post::Reader => front.metrics.polls.inc(),
    }
    let mut incoming = request.into_body();
    if let Some(length) = announced.filter(|length| *length > limit) {
        return over_long(front, peer, &mut incoming, length).await;
    }
    let until = Instant::now() + front.config.hold;
    let expected = announced.unwrap_or(limit);
    let room = front
        .admission
        .enter(lane, expected.min(body::FIRST), until)
        .await;
    let mut room = room.ok_or(Refusal::Busy)?;
    let body = body::read(&mut incoming, expected, limit, &mut room, &front.config).await;
    let body = match body {
        Ok(body) => body,
        Err(BodyError::TooLong(length)) => {
            drop(room);
            return over_long(front, peer, &mut incoming, length).await;
        }
        Err(BodyError::Broken(reason)) => return Err(Refusal::Body(reason)),
        Err(BodyError::NoRoom) => return Err(Refusal::Busy),
    };
    front.metrics.body_bytes.add(body.len() as i64);

    let taken = posts::take(front, connection, post, body, room).await?;
    match post {
        Post::Reader => {
            let (held, courier) = taken.poll(front, connection, peer);
            poll::answer(courier, held).await
        }
        Post::Control => {
            if lane == Lane::Bulk {
                front.hold_back(taken.wait).await;
            }
            let until = Instant::now() + front.config.hold;
            let nothing = front
                .authenticator
                .seal(&taken.agent, &[], now_us(), until)
                .await?;
            Ok(with_type(nothing.into(), "application/octet-stream"))
        }
    }
}

/// A body that is too long is answered with 200, or the agent would send it for ever; its loss is
/// recorded.
async fn over_long(
    front: &Arc<Front>,
    peer: Peer,
    incoming: &mut Incoming,
    length: usize,
) -> Result<Response<AnswerBody>, Refusal> {
    front.metrics.oversize.inc();
    if let Err(BodyError::Broken(reason)) = body::drain(incoming, &front.config).await {
        return Err(Refusal::Body(reason));
    }
    let limit = front.config.body_limit();
    let text = format!("a body of {length} bytes or more from {peer}, at most {limit} are taken");
    tracing::warn!(%peer, length, limit, "body over the limit dropped");
    let header = Header {
        at_us: now_us(),
        frontend: front.name.clone(),
        ..Header::default()
    };
    let letter = dead_letter(
        &*front.store.log,
        header,
        "body too large",
        text,
        Bytes::new(),
    );
    match timeout_at(Instant::now() + front.config.hold, letter).await {
        Ok(Ok(_)) => Ok(Response::new(AnswerBody::Full(None))),
        Ok(Err(error)) => Err(Refusal::Log(error.to_string())),
        Err(_) => Err(Refusal::Log("the log did not answer in time".into())),
    }
}
