//! Bodies: how requests are read and how answers are written.

use crate::config::Config;
use crate::poll::Outgoing;
use bytes::{Bytes, BytesMut};
use futures::Stream;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::time::{Instant, timeout_at};

/// How much of an over-long body is read and thrown away.
const DRAIN: usize = 256 << 20;

/// Why there is no body.
#[derive(Debug)]
pub(crate) enum BodyError {
    /// It is longer than the limit; at least so many bytes.
    TooLong(usize),
    /// It broke off or came too slowly.
    Broken(String),
}

/// Reads a body of at most `limit` bytes.
pub(crate) async fn read(
    body: &mut Incoming,
    limit: usize,
    config: &Config,
) -> Result<Bytes, BodyError> {
    let expected = body.size_hint().exact().unwrap_or(0);
    let mut out = BytesMut::with_capacity(usize::try_from(expected).unwrap_or(0).min(limit));
    let whole = Instant::now() + config.body_total;
    while let Some(data) = next(body, whole, config).await? {
        if out.len() + data.len() > limit {
            return Err(BodyError::TooLong(out.len() + data.len()));
        }
        if out.is_empty() && body.is_end_stream() {
            return Ok(data);
        }
        out.extend_from_slice(&data);
    }
    Ok(out.freeze())
}

/// Reads the rest of a body to throw it away, up to a bound; how much there was.
pub(crate) async fn drain(body: &mut Incoming, config: &Config) -> Result<usize, BodyError> {
    let whole = Instant::now() + config.body_total;
    let mut drained = 0;
    while let Some(data) = next(body, whole, config).await? {
        drained += data.len();
        if drained > DRAIN {
            break;
        }
    }
    Ok(drained)
}

async fn next(
    body: &mut Incoming,
    whole: Instant,
    config: &Config,
) -> Result<Option<Bytes>, BodyError> {
    loop {
        let until = whole.min(Instant::now() + config.body_idle);
        match timeout_at(until, body.frame()).await {
            Err(_) => return Err(BodyError::Broken("too slow".into())),
            Ok(None) => return Ok(None),
            Ok(Some(Err(error))) => return Err(BodyError::Broken(error.to_string())),
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// The body of an answer.
pub(crate) enum AnswerBody {
    /// Bytes, perhaps none.
    Full(Option<Bytes>),
    /// An answer to a poll, which counts as handed over when it is taken.
    Brought(Option<(Bytes, Outgoing)>),
    /// A poll that is held: pads, then perhaps an answer.
    Padded(Pin<Box<dyn Stream<Item = Bytes> + Send>>),
}

impl From<Bytes> for AnswerBody {
    fn from(bytes: Bytes) -> Self {
        Self::Full(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = match self.get_mut() {
            Self::Full(bytes) => bytes.take(),
            Self::Brought(brought) => brought.take().map(|(bytes, outgoing)| {
                outgoing.hand_over();
                bytes
            }),
            Self::Padded(stream) => match stream.as_mut().poll_next(cx) {
                Poll::Ready(data) => data,
                Poll::Pending => return Poll::Pending,
            },
        };
        Poll::Ready(data.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Full(None) | Self::Brought(None))
    }

    fn size_hint(&self) -> SizeHint {
        let exact =
            |bytes: Option<&Bytes>| SizeHint::with_exact(bytes.map_or(0, Bytes::len) as u64);
        match self {
            Self::Full(bytes) => exact(bytes.as_ref()),
            Self::Brought(brought) => exact(brought.as_ref().map(|(bytes, _)| bytes)),
            Self::Padded(_) => SizeHint::default(),
        }
    }
}
