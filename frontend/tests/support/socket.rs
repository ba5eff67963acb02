//! An agent's WebSocket.

use super::Running;
use super::agent::LIMIT;
use bytes::BytesMut;
use nublar_wire::{Frame, Incoming, Side, SocketReader, SocketWriter, accept_key};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// A socket to `control` or `reader`.
pub(crate) struct Socket {
    pub(crate) stream: TcpStream,
    input: BytesMut,
    reader: SocketReader,
}

/// What came of reading.
#[derive(Debug, PartialEq)]
pub(crate) enum Heard {
    Frame(Frame),
    Ping,
    Pong,
    End,
}

pub(crate) const WRITER: fn() -> SocketWriter = || SocketWriter::agent([0x5a, 1, 0xff, 7]);

impl Socket {
    pub(crate) async fn open(running: &Running, path: &str) -> Self {
        Self::open_with(running, path, "").await
    }

    /// With further lines in the request's head.
    pub(crate) async fn open_with(running: &Running, path: &str, lines: &str) -> Self {
        let mut stream = TcpStream::connect(running.http).await.unwrap();
        let head = format!(
            "GET /{path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{lines}\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(stream.read_u8().await.unwrap());
        }
        let answer = String::from_utf8(answer).unwrap().to_lowercase();
        assert!(answer.starts_with("http/1.1 101 "), "{answer}");
        let accepted = accept_key(KEY).to_lowercase();
        assert!(answer.contains(&format!("sec-websocket-accept: {accepted}\r\n")));
        Self {
            stream,
            input: BytesMut::new(),
            reader: SocketReader::new(Side::Server, LIMIT),
        }
    }

    pub(crate) async fn send(&mut self, body: &[u8]) {
        self.write(&WRITER().message(body)).await;
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Whatever comes next.
    pub(crate) async fn hear(&mut self) -> Heard {
        let hearing = async {
            loop {
                match self.reader.read(&mut self.input).unwrap() {
                    Some(Incoming::Message(json)) => {
                        return Heard::Frame(Frame::decode(&json).unwrap());
                    }
                    Some(Incoming::Ping(_)) => return Heard::Ping,
                    Some(Incoming::Pong) => return Heard::Pong,
                    Some(Incoming::Close) => return Heard::End,
                    None => {}
                }
                match self.stream.read_buf(&mut self.input).await {
                    Ok(0) | Err(_) => return Heard::End,
                    Ok(_) => {}
                }
            }
        };
        let heard = timeout(Duration::from_secs(60), hearing).await;
        heard.expect("nothing came")
    }

    /// The next answer.
    pub(crate) async fn answer(&mut self) -> Frame {
        match self.hear().await {
            Heard::Frame(frame) => frame,
            other => panic!("{other:?} instead of an answer"),
        }
    }
}
