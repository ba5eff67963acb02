//! What is tried on the way to a frontend: each probe says what came, or how it was cut.

use super::connect::{Clients, Url, cause};
use bytes::{Bytes, BytesMut};
use futures::stream;
use nublar_core::url_check::{Facts, Held, PATH, Read};
use nublar_wire::{Incoming, Side, SocketReader, SocketWriter, accept_key};
use reqwest::header::{
    CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use reqwest::{Body, Response, StatusCode};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, sleep, timeout};

/// How long an answer may take that is not to be late.
const PROMPT: Duration = Duration::from_secs(20);
/// How long a large body may take.
const LONG: Duration = Duration::from_secs(120);
/// The lines of an answer that comes slowly, and the time between two of them.
const LINES: u64 = 4;
const EVERY: Duration = Duration::from_millis(500);
/// The pause behind the first piece of a body.
pub(super) const PAUSE: Duration = Duration::from_millis(400);
const PIECE: usize = 64 << 10;
static ZEROS: [u8; PIECE] = [0; PIECE];
const KEY: &str = "bnVibGFyIGNoZWNrLXVybA==";

/// Something did not come as it should have.
#[derive(Debug)]
pub(super) struct Cut {
    pub(super) after: Duration,
    pub(super) status: Option<StatusCode>,
    /// The status, or what happened.
    pub(super) how: String,
}

/// The way to one URL.
pub(super) struct Way<'a> {
    pub(super) clients: Clients,
    pub(super) url: &'a Url,
    /// What lets one in.
    pub(super) pass: String,
}

/// Measures how long something took to fail.
struct Clock(Instant);

impl Clock {
    fn cut(&self, status: Option<StatusCode>, how: String) -> Cut {
        Cut {
            after: self.0.elapsed(),
            status,
            how,
        }
    }

    fn broken(&self, error: &reqwest::Error) -> Cut {
        self.cut(None, cause(error))
    }

    fn late(&self) -> Cut {
        self.cut(None, "no answer".to_owned())
    }
}

impl Way<'_> {
    fn url(&self, what: &str, held: Option<Held>) -> String {
        let query = held.map(|held| format!("?{}", held.query()));
        self.url
            .below(&format!("{PATH}{what}{}", query.unwrap_or_default()))
    }

    /// Posts, and waits for the head of an answer that is 200.
    async fn post(
        &self,
        url: String,
        within: Duration,
        body: Body,
        length: usize,
    ) -> Result<Response, Cut> {
        let clock = Clock(Instant::now());
        let request = self.clients.http.post(url).bearer_auth(&self.pass);
        let request = request.header(CONTENT_LENGTH, length).body(body);
        let answer = timeout(within, request.send())
            .await
            .map_err(|_| clock.late())?;
        good(answer.map_err(|error| clock.broken(&error))?, &clock)
    }

    /// What the frontend sees of this.
    pub(super) async fn facts(&self) -> Result<Facts, Cut> {
        let clock = Clock(Instant::now());
        let request = self.clients.http.get(self.url("facts", None));
        let request = request.bearer_auth(&self.pass).timeout(PROMPT);
        let answer = request.send().await.map_err(|error| clock.broken(&error))?;
        let answer = good(answer, &clock)?.json().await;
        answer.map_err(|error| clock.broken(&error))
    }

    /// Whether the lines of an answer come as they are sent, not all at once when it is whole.
    pub(super) async fn passes_lines(&self) -> Result<bool, Cut> {
        let clock = Clock(Instant::now());
        let held = Held {
            silent_ms: 0,
            lines: LINES,
            every_ms: EVERY.as_millis() as u64,
        };
        let url = self.url("answer", Some(held));
        let mut answer = self.post(url, PROMPT, Body::default(), 0).await?;
        let (mut first, mut last) = (None, Instant::now());
        loop {
            match timeout(PROMPT, answer.chunk()).await {
                Ok(Ok(Some(_))) => {
                    last = Instant::now();
                    first = first.or(Some(last));
                }
                Ok(Ok(None)) => break,
                Ok(Err(error)) => return Err(clock.broken(&error)),
                Err(_) => return Err(clock.late()),
            }
        }
        let span = last - first.unwrap_or(last);
        // Of three times that were waited.
        Ok(span >= EVERY)
    }

    /// Waits for an answer of which for so long not even the head comes.
    pub(super) async fn passes_silence(&self, silent: Duration) -> Result<(), Cut> {
        let held = Held {
            silent_ms: silent.as_millis() as u64,
            lines: 1,
            every_ms: 0,
        };
        let url = self.url("answer", Some(held));
        self.post(url, silent + PROMPT, Body::default(), 0)
            .await
            .map(drop)
    }

    /// Sends a body of so many bytes, with a pause behind the first piece.
    pub(super) async fn passes_body(&self, bytes: usize, pause: Duration) -> Result<Read, Cut> {
        let clock = Clock(Instant::now());
        let pieces = stream::unfold((bytes, pause), move |(left, pause)| async move {
            if left == 0 {
                return None;
            }
            if left < bytes {
                sleep(pause).await;
            }
            let piece = Bytes::from_static(&ZEROS[..left.min(PIECE)]);
            let next = if left < bytes { Duration::ZERO } else { pause };
            let left = left - piece.len();
            Some((Ok::<_, io::Error>(piece), (left, next)))
        });
        let url = self.url("body", None);
        let answer = self
            .post(url, LONG, Body::wrap_stream(pieces), bytes)
            .await?;
        let read = answer
            .json::<Read>()
            .await
            .map_err(|error| clock.broken(&error))?;
        if read.bytes == bytes {
            Ok(read)
        } else {
            Err(clock.cut(None, format!("{} bytes came", read.bytes)))
        }
    }

    /// Opens a WebSocket. An error says why there is none.
    pub(super) async fn socket(&self, silent: Duration) -> Result<Socket, Cut> {
        let clock = Clock(Instant::now());
        let held = Held {
            silent_ms: silent.as_millis() as u64,
            lines: 0,
            every_ms: 0,
        };
        let request = self.clients.sockets.get(self.url("socket", Some(held)));
        let request = request
            .bearer_auth(&self.pass)
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_VERSION, "13")
            .header(SEC_WEBSOCKET_KEY, KEY);
        let answer = timeout(PROMPT, request.send())
            .await
            .map_err(|_| clock.late())?;
        let answer = answer.map_err(|error| clock.broken(&error))?;
        let status = answer.status();
        if status != StatusCode::SWITCHING_PROTOCOLS {
            return Err(clock.cut(Some(status), status.to_string()));
        }
        let accepted = answer.headers().get(SEC_WEBSOCKET_ACCEPT);
        if accepted.is_none_or(|accepted| accepted != accept_key(KEY).as_str()) {
            return Err(clock.cut(Some(status), "an answer to something else".to_owned()));
        }
        let upgraded = answer
            .upgrade()
            .await
            .map_err(|error| clock.broken(&error))?;
        Ok(Socket { upgraded, silent })
    }
}

fn good(answer: Response, clock: &Clock) -> Result<Response, Cut> {
    match answer.status() {
        StatusCode::OK => Ok(answer),
        status => Err(clock.cut(Some(status), status.to_string())),
    }
}

/// A WebSocket on which the other side answers after a silence.
pub(super) struct Socket {
    upgraded: reqwest::Upgraded,
    silent: Duration,
}

impl Socket {
    /// Says something and waits for the answer.
    pub(super) async fn passes_silence(mut self) -> Result<(), Cut> {
        let clock = Clock(Instant::now());
        let within = self.silent + PROMPT;
        let answered = timeout(within, self.converse()).await;
        let broken = |error: io::Error| clock.cut(None, cause(&error));
        answered.map_err(|_| clock.late())?.map_err(broken)
    }

    async fn converse(&mut self) -> io::Result<()> {
        let writer = || SocketWriter::agent([0x5a, 1, 0xff, 7]);
        self.upgraded.write_all(&writer().message(b"check")).await?;
        self.upgraded.flush().await?;
        let mut reader = SocketReader::new(Side::Server, PIECE);
        let mut input = BytesMut::new();
        loop {
            match reader.read(&mut input).map_err(io::Error::other)? {
                Some(Incoming::Message(_)) => {
                    let _ = self.upgraded.write_all(&writer().close(1000)).await;
                    return Ok(());
                }
                Some(Incoming::Close) => return Err(io::Error::other("it was closed")),
                Some(Incoming::Ping(_) | Incoming::Pong) => {}
                None if self.upgraded.read_buf(&mut input).await? == 0 => {
                    return Err(io::Error::other("it ended"));
                }
                None => {}
            }
        }
    }
}
