//! WebSockets of agents: one to `control`, one to `reader`. A message from an agent is a body as a
//! POST has it; a message to it says what the answer to that POST would have been.
//!
//! On `reader` each body is a poll and good for one answer; there are no pads, and no time after
//! which a poll ends with nothing.

use crate::admission::{Lane, Room};
use crate::body;
use crate::deliver::{End, Held};
use crate::front::{Connection, Front};
use crate::peer::Peer;
use crate::poll::Courier;
use crate::posts::{self, Post};
use crate::refusal::Refusal;
use bytes::{Bytes, BytesMut};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use nublar_wire::{Frame, Incoming, Side, SocketError, SocketReader, SocketWriter, WireError};
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, sleep_until, timeout};

/// How much is read at once.
const PIECE: usize = 16 << 10;
/// Urgency can not be seen here: bodies up to this size are not held back with those in bulk.
const SMALL: usize = 16 << 10;
/// Agents read a message within this time, or are gone.
const WRITE: Duration = Duration::from_secs(10);

/// Why a socket ends.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Protocol(#[from] SocketError),
    #[error(transparent)]
    Unwritable(#[from] WireError),
    #[error("the agent ended it")]
    ByAgent,
    #[error("the agent is silent, or does not read")]
    Silent,
    #[error("refused: {0}")]
    Refused(Refusal),
    #[error("a newer poll of the same client has come")]
    Superseded,
    #[error("the frontend ends")]
    Closing,
}

impl Ended {
    /// The status of RFC 6455, section 7.4.
    fn status(&self) -> u16 {
        match self {
            Self::ByAgent => 1000,
            Self::Closing => 1001,
            Self::Protocol(SocketError::TooLong { .. }) => 1009,
            Self::Protocol(_) => 1002,
            Self::Refused(_) | Self::Superseded => 1008,
            Self::Io(_) | Self::Unwritable(_) | Self::Silent => 1011,
        }
    }
}

/// Serves a socket to its end.
pub(crate) async fn serve(
    front: Arc<Front>,
    connection: Arc<Connection>,
    peer: Peer,
    post: Post,
    upgraded: Upgraded,
) {
    front.metrics.sockets.inc();
    let mut socket = Socket::new(front.clone(), connection.clone(), peer, upgraded);
    let ended = match post {
        Post::Control => socket.control().await,
        Post::Reader => socket.reader().await,
    };
    let Err(ended) = ended;
    if let Ended::Refused(refusal) = &ended {
        refusal.record(&front.metrics, peer);
        socket.tell(refusal);
    }
    tracing::debug!(%peer, %ended, "websocket ended");
    socket.say(&SocketWriter::server().close(ended.status()));
    let closed = socket.flush().await;
    if closed.is_err() || !matches!(ended, Ended::ByAgent) {
        front.in_doubt(&connection);
    }
    front.metrics.sockets.add(-1);
}

/// What never comes.
enum Never {}

struct Socket {
    front: Arc<Front>,
    connection: Arc<Connection>,
    peer: Peer,
    io: TokioIo<Upgraded>,
    input: BytesMut,
    output: BytesMut,
    reader: SocketReader,
    /// A message that waits for its room.
    whole: Option<Bytes>,
    /// For the message that is being read, which must be whole by then.
    room: Option<(Room, Instant)>,
    heard: Instant,
    pinged: Instant,
}

impl Socket {
    fn new(front: Arc<Front>, connection: Arc<Connection>, peer: Peer, upgraded: Upgraded) -> Self {
        let now = Instant::now();
        let limit = front.config.body_limit();
        Self {
            front,
            connection,
            peer,
            io: TokioIo::new(upgraded),
            input: BytesMut::new(),
            output: BytesMut::new(),
            reader: SocketReader::new(Side::Agent, limit),
            whole: None,
            room: None,
            heard: now,
            pinged: now,
        }
    }

    /// Takes what agents send.
    async fn control(&mut self) -> Result<Never, Ended> {
        loop {
            let (body, room) = self.next().await?;
            let (front, connection) = (self.front.clone(), self.connection.clone());
            let taking =
                async move { posts::take(&front, &connection, Post::Control, body, room).await };
            match self.pinging(taking).await? {
                Ok(taken) => {
                    let front = self.front.clone();
                    self.pinging(front.hold_back(taken.wait)).await?;
                    self.answer(&Frame::ok()).await?;
                }
                Err(refusal) => self.refuse(refusal).await?,
            }
        }
    }

    /// Brings what agents are due.
    async fn reader(&mut self) -> Result<Never, Ended> {
        let mut open: Option<(Held, Courier)> = None;
        loop {
            let body = match &mut open {
                None => Some(self.next().await?),
                Some((held, _)) => {
                    tokio::select! {
                        end = held.end() => match end {
                            End::Superseded => return Err(Ended::Superseded),
                            End::Refused => {
                                let client = held.client().to_string();
                                return Err(Ended::Refused(Refusal::Clone(client)));
                            }
                            End::Items(items) => {
                                let Some((held, courier)) = open.take() else { continue };
                                if let Some((bytes, outgoing)) = courier.bring(&held, items).await {
                                    // From now on some of it may have left.
                                    outgoing.hand_over();
                                    self.answer(&Frame::data(bytes)).await?;
                                } else {
                                    open = Some((courier.open(), courier));
                                }
                                None
                            }
                        },
                        next = self.next() => Some(next?),
                    }
                }
            };
            let Some((body, room)) = body else { continue };
            let (front, connection) = (self.front.clone(), self.connection.clone());
            let taking =
                async move { posts::take(&front, &connection, Post::Reader, body, room).await };
            match self.pinging(taking).await? {
                Ok(taken) => open = Some(taken.poll(&self.front, &self.connection, self.peer)),
                Err(refusal) => self.refuse(refusal).await?,
            }
        }
    }

    /// Whatever is wrong but a body that would be wrong for ever ends the socket.
    async fn refuse(&mut self, refusal: Refusal) -> Result<(), Ended> {
        if !matches!(refusal, Refusal::Poison { .. }) {
            return Err(Ended::Refused(refusal));
        }
        refusal.record(&self.front.metrics, self.peer);
        self.tell(&refusal);
        self.flush().await
    }

    fn tell(&mut self, refusal: &Refusal) {
        let (status, words) = refusal.answer();
        if let Ok(frame) = Frame::error(status.as_u16(), words.trim_end()).encode() {
            self.say(&SocketWriter::server().message(&frame));
        }
    }

    async fn answer(&mut self, frame: &Frame) -> Result<(), Ended> {
        self.say(&SocketWriter::server().message(&frame.encode()?));
        self.flush().await
    }

    fn say(&mut self, frames: &[u8]) {
        self.output.extend_from_slice(frames);
    }

    /// Writes what is said. Cancel-safe: the rest is written the next time.
    async fn flush(&mut self) -> Result<(), Ended> {
        let writing = async {
            while !self.output.is_empty() {
                self.io.write_buf(&mut self.output).await?;
            }
            self.io.flush().await
        };
        match timeout(WRITE, writing).await {
            Ok(written) => Ok(written?),
            Err(_) => Err(Ended::Silent),
        }
    }

    /// Does something that may take long, and pings meanwhile.
    async fn pinging<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Ended> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = work.as_mut() => return Ok(done),
                () = sleep_until(self.pinged + self.front.config.ping_every) => self.ping().await?,
            }
        }
    }

    async fn ping(&mut self) -> Result<(), Ended> {
        self.pinged = Instant::now();
        self.say(&SocketWriter::server().ping());
        self.flush().await
    }

    /// The next message, and the room that it takes. Cancel-safe.
    async fn next(&mut self) -> Result<(Bytes, Room), Ended> {
        loop {
            self.flush().await?;
            if let Some(body) = &self.whole {
                self.make_room(body.len().max(1)).await?;
                if let (Some(body), Some((room, _))) = (self.whole.take(), self.room.take()) {
                    self.front.metrics.body_bytes.add(body.len() as i64);
                    return Ok((body, room));
                }
            }
            match self.reader.read(&mut self.input)? {
                Some(Incoming::Message(body)) => self.whole = Some(body),
                Some(Incoming::Ping(content)) => self.say(&SocketWriter::server().pong(&content)),
                Some(Incoming::Pong) => {}
                Some(Incoming::Close) => return Err(Ended::ByAgent),
                None => {
                    self.make_room(self.reader.announced()).await?;
                    self.read().await?;
                }
            }
        }
    }

    /// Waits for room for so many bytes; refuses what has none.
    async fn make_room(&mut self, bytes: usize) -> Result<(), Ended> {
        if bytes == 0 {
            return Ok(());
        }
        let config = &self.front.config;
        let until = Instant::now() + config.hold;
        let enough = match &mut self.room {
            Some((room, _)) => room.grow(bytes, until).await,
            None => {
                let lane = if bytes <= SMALL {
                    Lane::Urgent
                } else {
                    Lane::Bulk
                };
                let whole = Instant::now() + config.body_total;
                let entering = self
                    .front
                    .admission
                    .enter(lane, bytes.min(body::FIRST), until);
                self.room = entering.await.map(|room| (room, whole));
                match &mut self.room {
                    Some((room, _)) => room.grow(bytes, until).await,
                    None => false,
                }
            }
        };
        enough.then_some(()).ok_or(Ended::Refused(Refusal::Busy))
    }

    /// Reads a piece, or finds that the other side is gone: that it has not answered a ping when the
    /// next one is due, or brings nothing of a message that it began. Cancel-safe.
    async fn read(&mut self) -> Result<(), Ended> {
        let idle = self.room.as_ref();
        let idle = idle.map(|(_, whole)| (self.heard + self.front.config.body_idle).min(*whole));
        let idles = async move {
            match idle {
                Some(at) => sleep_until(at).await,
                None => pending().await,
            }
        };
        self.input.reserve(PIECE);
        let mut piece = (&mut self.io).take(PIECE as u64);
        tokio::select! {
            biased;
            () = self.front.closing.cancelled() => Err(Ended::Closing),
            read = piece.read_buf(&mut self.input) => {
                if read? == 0 {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
                self.heard = Instant::now();
                Ok(())
            }
            () = idles => Err(Ended::Silent),
            () = sleep_until(self.pinged + self.front.config.ping_every) => {
                if self.heard < self.pinged {
                    return Err(Ended::Silent);
                }
                self.ping().await
            }
        }
    }
}
