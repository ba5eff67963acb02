//! What stands before every call: the token, the deadline, and parameters that are read or refused.

use crate::app::App;
use crate::refusal::Refusal;
use aws_lc_rs::{constant_time, digest};
use axum::extract::{FromRequestParts, Query, Request, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use std::sync::Arc;
use tokio::time::timeout;

/// Lets in who has the token.
pub(crate) async fn token(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let bearer = given.and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    if bearer.is_some_and(|token| same(token, &app.config.token)) {
        return next.run(request).await;
    }
    let error = if given.is_none() {
        "no token"
    } else {
        "not the token of this server"
    };
    let refusal = Refusal::new(StatusCode::UNAUTHORIZED, error)
        .hint("send `Authorization: Bearer` with the server's token");
    let mut response = refusal.into_response();
    let challenge = axum::http::HeaderValue::from_static("Bearer");
    response
        .headers_mut()
        .insert(header::WWW_AUTHENTICATE, challenge);
    response
}

/// Whether two secrets are the same; the time it takes tells neither where they differ nor how
/// long they are.
fn same(given: &str, ours: &str) -> bool {
    let hash = |text: &str| digest::digest(&digest::SHA256, text.as_bytes());
    let (given, ours) = (hash(given), hash(ours));
    constant_time::verify_slices_are_equal(given.as_ref(), ours.as_ref()).is_ok()
}

/// Ends a call whose answer does not begin in time.
pub(crate) async fn deadline(
    State(app): State<Arc<App>>,
    request: Request,
    next: Next,
) -> Response {
    // Commands wait on purpose; what they wait for has a deadline of its own.
    let allowed = app.config.deadline + app.config.command_wait;
    match timeout(allowed, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Refusal::too_slow().into_response(),
    }
}

/// Parameters behind the question mark; what does not fit is refused as JSON.
pub(crate) struct Params<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        Query::try_from_uri(&parts.uri)
            .map(|Query(params)| Self(params))
            .map_err(|error| Refusal::bad(error.body_text()))
    }
}

/// No such route.
pub(crate) async fn nowhere(request: Request) -> Refusal {
    Refusal::missing(format!("nothing at {}", request.uri().path()))
        .hint("routes begin with /api/v1")
}

/// The route is there, the method is not.
pub(crate) async fn not_so(request: Request) -> Refusal {
    let error = format!("{} is not for {}", request.method(), request.uri().path());
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, error)
}
