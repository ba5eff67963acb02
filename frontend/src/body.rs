//! Bodies: how requests are read and how answers are written.

use crate::admission::Room;
use crate::config::Config;
use crate::poll::Outgoing;
use bytes::{Bytes, BytesMut};
use futures::Stream;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// What is read before there must be room for the whole.
pub(crate) const FIRST: usize = 32 << 10;
/// In which time that must have come.
const QUICK: Duration = Duration::from_millis(250);
/// In which time the rest must have come, or room is held only for what is there.
const SWIFT: Duration = Duration::from_secs(1);
/// How much of an over-long body is read and thrown away.
const DRAIN: usize = 256 << 20;

/// Why there is no body.
#[derive(Debug)]
pub(crate) enum BodyError {
    /// It is longer than the limit; at least so many bytes.
    TooLong(usize),
    /// It broke off or came too slowly.
    Broken(String),
    /// It came slowly, and there was no room for the rest.
    NoRoom,
}

/// Reads a body of at most `limit` bytes. `room` holds its first [`FIRST`] bytes; a body that comes
/// quickly takes room for all that it announced, any other only for what has come.
pub(crate) async fn read(
    body: &mut Incoming,
    announced: usize,
    limit: usize,
    room: &mut Room,
    config: &Config,
) -> Result<Bytes, BodyError> {
    let mut out = BytesMut::with_capacity(announced.min(limit));
    let start = Instant::now();
    let whole = start + config.body_total;
    let mut pace = Pace::First(start + QUICK);
    loop {
        let until = match pace {
            Pace::First(until) | Pace::Quick(until) => until,
            Pace::Slow => whole,
        };
        let data = match timeout_at(until, next(body, whole, config)).await {
            Ok(data) => data?,
            Err(_) => {
                if matches!(pace, Pace::Slow) {
                    return Err(BodyError::Broken("too slow".into()));
                }
                pace = Pace::Slow;
                room.shrink(out.len().max(FIRST.min(announced)));
                continue;
            }
        };
        let Some(data) = data else {
            return Ok(out.freeze());
        };
        let length = out.len() + data.len();
        if length > limit {
            return Err(BodyError::TooLong(length));
        }
        let needed = match pace {
            Pace::First(_) if length <= FIRST => FIRST,
            Pace::First(_) => {
                pace = Pace::Quick(Instant::now() + SWIFT);
                announced.max(length)
            }
            Pace::Quick(_) => announced.max(length),
            Pace::Slow => length,
        };
        if length > FIRST && !room.grow(needed, Instant::now() + config.hold).await {
            return Err(BodyError::NoRoom);
        }
        if out.is_empty() && body.is_end_stream() {
            return Ok(data);
        }
        out.extend_from_slice(&data);
    }
}

/// How a body comes.
#[derive(Debug, Clone, Copy)]
enum Pace {
    /// Its first bytes are to be there by then.
    First(Instant),
    /// It has room for all of it, until then.
    Quick(Instant),
    /// It has room for what is there.
    Slow,
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
