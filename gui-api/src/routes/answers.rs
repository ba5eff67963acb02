//! Answers that are streams: how they begin, and how they end when something goes wrong half-way.

use crate::app::App;
use crate::refusal::{Answer, Refusal};
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use std::sync::Arc;

/// Said of rows or bytes in an answer's head.
pub(crate) const ROWS: HeaderName = HeaderName::from_static("x-nublar-rows");
pub(crate) const RAN_TWICE: HeaderName = HeaderName::from_static("x-nublar-ran-twice");
pub(crate) const PARTIAL: HeaderName = HeaderName::from_static("x-nublar-partial");
pub(crate) const TOTAL: HeaderName = HeaderName::from_static("x-nublar-total");

/// Text for a head; what no head can hold is left out.
pub(crate) fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// An answer whose body comes in pieces. When a piece fails, or the server ends, the connection
/// is cut, so that nobody takes a part for the whole.
pub(crate) fn streamed(
    app: &App,
    content_type: &'static str,
    pieces: impl Stream<Item = Answer<Bytes>> + Send + 'static,
) -> Response {
    let ended = app.shutdown.clone().cancelled_owned();
    let pieces = pieces.map_err(|refusal: Refusal| {
        tracing::warn!(error = refusal.error, "an answer was cut off");
        std::io::Error::other(refusal.error)
    });
    // A body that is merely over would look whole.
    let cut = futures::stream::once(async move {
        ended.await;
        Err(std::io::Error::other("the server ends"))
    });
    let pieces = until(pieces, cut);
    let mut response = Response::new(Body::from_stream(pieces));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

/// What `pieces` give until `cut` gives something, which comes last.
fn until<T: Send + 'static>(
    pieces: impl Stream<Item = T> + Send + 'static,
    cut: impl Stream<Item = T> + Send + 'static,
) -> impl Stream<Item = T> + Send + 'static {
    let both = (pieces.boxed(), cut.boxed());
    futures::stream::unfold(Some(both), |both| async move {
        let (mut pieces, mut cut) = both?;
        tokio::select! {
            biased;
            last = cut.next() => last.map(|last| (last, None)),
            piece = pieces.next() => piece.map(|piece| (piece, Some((pieces, cut)))),
        }
    })
}

/// Shared state, as handlers get it.
pub(crate) type Shared = axum::extract::State<Arc<App>>;
