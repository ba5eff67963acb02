//! WebSockets as an agent holds them: one to `control`, one to `reader`. On `control` every frame
//! gets an answer; on `reader` a check-in is the credit for one push.

use crate::error::SimError;
use crate::transport::{Broken, Reply};
use bytes::{Bytes, BytesMut};
use nublar_wire::{Frame, Incoming, Side, SocketReader, SocketWriter, Trust, accept_key};
use reqwest::Url;
use rustls::pki_types::ServerName;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// An agent gives a socket up on which nothing, not even a ping, has come for so long.
const SILENCE: Duration = Duration::from_secs(66);
const DIAL: Duration = Duration::from_secs(20);
/// The largest message that a server may send.
const LIMIT: usize = 64 << 20;
/// The head of the answer to an upgrade is shorter.
const HEAD: usize = 8 << 10;
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const WRITER: fn() -> SocketWriter = || SocketWriter::agent([0x5a, 1, 0xff, 7]);

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// One WebSocket of an agent.
pub struct Socket {
    url: String,
    stream: Box<dyn Stream>,
    input: BytesMut,
    reader: SocketReader,
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Socket({})", self.url)
    }
}

fn broken(error: impl std::fmt::Display) -> Broken {
    Broken::NoAnswer(error.to_string())
}

impl Socket {
    /// Connects to an `http` or `https` URL, which ends in `control` or `reader`.
    ///
    /// # Errors
    /// Nobody answers there, or no WebSocket is to be had.
    pub async fn dial(trust: &Trust, url: &str) -> Result<Self, Broken> {
        let tls = Tls::new(trust).map_err(broken)?;
        timeout(DIAL, tls.dial(url)).await.map_err(broken)?
    }

    /// Sends a body as one frame.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn send(&mut self, body: &[u8]) -> Result<(), Broken> {
        let frame = WRITER().message(body);
        self.stream.write_all(&frame).await.map_err(broken)
    }

    /// The next message of the server. Pings are answered on the way.
    ///
    /// # Errors
    /// The connection is gone, was silent for too long, or said what is no frame.
    pub async fn next(&mut self) -> Result<Frame, Broken> {
        loop {
            let Self {
                stream,
                reader,
                input,
                ..
            } = self;
            match next(stream, reader, input).await? {
                Incoming::Message(content) => return Frame::decode(&content).map_err(broken),
                Incoming::Ping(content) => {
                    let pong = WRITER().pong(&content);
                    self.stream.write_all(&pong).await.map_err(broken)?;
                }
                Incoming::Pong => {}
                Incoming::Close => return Err(broken("the server closed the socket")),
            }
        }
    }
}

/// Whatever the server says next.
async fn next(
    stream: &mut (impl AsyncRead + Unpin),
    reader: &mut SocketReader,
    input: &mut BytesMut,
) -> Result<Incoming, Broken> {
    loop {
        if let Some(heard) = reader.read(input).map_err(broken)? {
            return Ok(heard);
        }
        let read = timeout(SILENCE, stream.read_buf(input)).await;
        if read.map_err(broken)?.map_err(broken)? == 0 {
            return Err(broken("the socket ended"));
        }
    }
}

/// How to connect.
struct Tls(TlsConnector);

impl Tls {
    fn new(trust: &Trust) -> Result<Self, SimError> {
        Ok(Self(TlsConnector::from(Arc::new(
            trust.client_config(false)?,
        ))))
    }

    async fn dial(&self, url: &str) -> Result<Socket, Broken> {
        let parsed = Url::parse(url).map_err(broken)?;
        let host = parsed.host_str().unwrap_or_default().to_owned();
        let port = parsed.port_or_known_default().unwrap_or(443);
        let address = host.trim_matches(['[', ']']).to_owned();
        let plain = TcpStream::connect((address.as_str(), port));
        let plain = plain.await.map_err(broken)?;
        plain.set_nodelay(true).map_err(broken)?;
        let mut stream: Box<dyn Stream> = if parsed.scheme() == "https" {
            let name = ServerName::try_from(address).map_err(broken)?;
            Box::new(self.0.connect(name, plain).await.map_err(broken)?)
        } else {
            Box::new(plain)
        };
        let path = match parsed.query() {
            Some(query) => format!("{}?{query}", parsed.path()),
            None => parsed.path().to_owned(),
        };
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUser-Agent: Go-http-client/1.1\r\n\
             Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: {KEY}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.map_err(broken)?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") && answer.len() < HEAD {
            answer.push(stream.read_u8().await.map_err(broken)?);
        }
        let answer = String::from_utf8_lossy(&answer).to_lowercase();
        let accepted = format!(
            "sec-websocket-accept: {}\r\n",
            accept_key(KEY).to_lowercase()
        );
        if !answer.starts_with("http/1.1 101 ") || !answer.contains(&accepted) {
            let first = answer.lines().next().unwrap_or_default();
            return Err(broken(format!("no websocket: {first}")));
        }
        Ok(Socket {
            url: url.to_owned(),
            stream,
            input: BytesMut::new(),
            reader: SocketReader::new(Side::Server, LIMIT),
        })
    }
}

/// A socket whose pings are answered while nobody waits for a frame. Dropping it ends it.
struct Tended {
    url: String,
    writing: Arc<Mutex<WriteHalf<Box<dyn Stream>>>>,
    frames: mpsc::Receiver<Result<Frame, Broken>>,
    task: JoinHandle<()>,
}

impl Tended {
    fn new(socket: Socket) -> Self {
        let Socket {
            url,
            stream,
            mut input,
            mut reader,
        } = socket;
        let (mut reading, writing) = tokio::io::split(stream);
        let writing = Arc::new(Mutex::new(writing));
        // An agent reads on when it has taken what was read last.
        let (tell, frames) = mpsc::channel(1);
        let pongs = Arc::clone(&writing);
        let task = tokio::spawn(async move {
            loop {
                let next = next(&mut reading, &mut reader, &mut input).await;
                let told = match next {
                    Ok(Incoming::Message(content)) => Frame::decode(&content).map_err(broken),
                    Ok(Incoming::Ping(content)) => {
                        let pong = WRITER().pong(&content);
                        match pongs.lock().await.write_all(&pong).await {
                            Ok(()) => continue,
                            Err(error) => Err(broken(error)),
                        }
                    }
                    Ok(Incoming::Pong) => continue,
                    Ok(Incoming::Close) => Err(broken("the server closed the socket")),
                    Err(error) => Err(error),
                };
                let over = told.is_err();
                if tell.send(told).await.is_err() || over {
                    return;
                }
            }
        });
        Self {
            url,
            writing,
            frames,
            task,
        }
    }

    async fn exchange(&mut self, body: &Bytes) -> Result<Frame, Broken> {
        let frame = WRITER().message(body);
        let written = self.writing.lock().await.write_all(&frame).await;
        written.map_err(broken)?;
        let next = self.frames.recv().await;
        next.unwrap_or_else(|| Err(broken("the socket ended")))
    }
}

impl Drop for Tended {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The two sockets of one agent.
pub(crate) struct Sockets {
    tls: Tls,
    control: Mutex<Option<Tended>>,
    reader: Mutex<Option<Tended>>,
}

impl std::fmt::Debug for Sockets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sockets")
    }
}

impl Sockets {
    pub(crate) fn new(trust: &Trust) -> Result<Self, SimError> {
        Ok(Self {
            tls: Tls::new(trust)?,
            control: Mutex::default(),
            reader: Mutex::default(),
        })
    }

    fn slot(&self, url: &str) -> &Mutex<Option<Tended>> {
        let path = url.split('?').next().unwrap_or_default();
        if path.ends_with("reader") {
            &self.reader
        } else {
            &self.control
        }
    }

    /// Sends a frame and waits for the next one of the server. Whoever does not wait for the end
    /// has no socket any more.
    pub(crate) async fn exchange(&self, url: &str, body: &Bytes) -> Result<Reply, Broken> {
        let mut slot = self.slot(url).lock().await;
        let mut socket = match slot.take() {
            Some(socket) if socket.url == url => socket,
            _ => {
                let dialled = timeout(DIAL, self.tls.dial(url)).await;
                Tended::new(dialled.map_err(broken)??)
            }
        };
        let frame = socket.exchange(body).await?;
        if frame.code == 200 {
            *slot = Some(socket);
        }
        Ok(Reply {
            status: frame.code,
            location: String::new(),
            body: frame.data,
        })
    }

    /// Ends the socket to this URL.
    pub(crate) async fn end(&self, url: &str) {
        self.slot(url).lock().await.take();
    }
}
