//! WebSocket messages (RFC 6455, without extensions) out of the frames of a stream, and into them.
//! Without IO: the caller brings bytes, learns how many more a message will need before it brings
//! them, and can so make room first, or refuse.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf as _, Bytes, BytesMut};
use thiserror::Error;

/// Every handshake hashes this with the key (RFC 6455, section 1.3).
const HANDSHAKE: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// What a frame about the connection may hold.
const CONTROL_LIMIT: usize = 125;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// What a peer must not send; the connection ends with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SocketError {
    /// Bits that only extensions use.
    #[error("websocket: reserved bits are set")]
    Reserved,
    /// An opcode that does not exist.
    #[error("websocket: opcode {0} does not exist")]
    Opcode(u8),
    /// Agents mask what they send, servers do not.
    #[error("websocket: a frame that is {}", if *.masked { "masked" } else { "not masked" })]
    Mask {
        /// Whether it was.
        masked: bool,
    },
    /// A frame about the connection that is long or in parts.
    #[error("websocket: a control frame that is too long or in parts")]
    Control,
    /// A continuation of nothing, or another message before the last one ended.
    #[error("websocket: frames of messages are mixed")]
    Order,
    /// More than is taken.
    #[error("websocket: a message of {length} bytes or more, at most {limit} are taken")]
    TooLong {
        /// As far as it was announced.
        length: u64,
        /// The limit in bytes.
        limit: usize,
    },
}

/// Who writes into a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The one who connected: its frames are masked.
    Agent,
    /// The one who was connected to.
    Server,
}

/// What came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A whole message.
    Message(Bytes),
    /// To be answered with a pong of the same bytes.
    Ping(Bytes),
    /// The answer to a ping.
    Pong,
    /// The peer ends the connection.
    Close,
}

/// The proof that a handshake was understood: `Sec-WebSocket-Accept` for this `Sec-WebSocket-Key`.
pub fn accept_key(key: &str) -> String {
    let hash = digest(
        &SHA1_FOR_LEGACY_USE_ONLY,
        [key, HANDSHAKE].concat().as_bytes(),
    );
    STANDARD.encode(hash)
}

#[derive(Debug, Clone, Copy)]
struct Head {
    fin: bool,
    opcode: u8,
    mask: [u8; 4],
    length: usize,
}

/// Reads what one side writes.
#[derive(Debug)]
pub struct SocketReader {
    from: Side,
    limit: usize,
    /// The frame whose content is being read, and how much of it was.
    frame: Option<(Head, usize)>,
    control: BytesMut,
    message: BytesMut,
    /// A message has begun and not ended.
    open: bool,
}

impl SocketReader {
    /// Of messages with `limit` bytes at most.
    pub fn new(from: Side, limit: usize) -> Self {
        Self {
            from,
            limit,
            frame: None,
            control: BytesMut::new(),
            message: BytesMut::new(),
            open: false,
        }
    }

    /// Bytes of the message that is being read, as far as its frames have announced it. More than
    /// that is never kept.
    pub fn announced(&self) -> usize {
        let coming = self
            .frame
            .filter(|(head, _)| !head.is_control())
            .map_or(0, |(head, read)| head.length - read);
        self.message.len() + coming
    }

    /// Takes what it can of the input: the next thing that came, or none if more input is needed.
    ///
    /// # Errors
    /// What no such peer may send. The stream can not be read on.
    pub fn read(&mut self, input: &mut BytesMut) -> Result<Option<Incoming>, SocketError> {
        loop {
            if self.frame.is_none() {
                let Some(head) = self.head(input)? else {
                    return Ok(None);
                };
                self.frame = Some((head, 0));
                // The caller is to see what is announced before it brings more.
                if head.length > input.len() {
                    self.content(input);
                    return Ok(None);
                }
            }
            if !self.content(input) {
                return Ok(None);
            }
            if let Some(incoming) = self.end() {
                return Ok(Some(incoming));
            }
        }
    }

    fn head(&self, input: &mut BytesMut) -> Result<Option<Head>, SocketError> {
        let Some((head, size)) = Head::parse(input) else {
            return Ok(None);
        };
        let (first, masked, length) = head;
        let opcode = first & 0x0f;
        if first & RESERVED != 0 {
            return Err(SocketError::Reserved);
        }
        if !matches!(opcode, CONTINUATION | TEXT | BINARY | CLOSE | PING | PONG) {
            return Err(SocketError::Opcode(opcode));
        }
        if masked.is_some() != (self.from == Side::Agent) {
            return Err(SocketError::Mask {
                masked: masked.is_some(),
            });
        }
        let fin = first & FIN != 0;
        let is_control = opcode >= CLOSE;
        if is_control && (!fin || length > CONTROL_LIMIT as u64) {
            return Err(SocketError::Control);
        }
        if !is_control && (opcode == CONTINUATION) != self.open {
            return Err(SocketError::Order);
        }
        let whole = length.saturating_add(self.message.len() as u64);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if !is_control && whole > self.limit as u64 {
            return Err(SocketError::TooLong {
                length: whole,
                limit: self.limit,
            });
        }
        input.advance(size);
        Ok(Some(Head {
            fin,
            opcode,
            mask: masked.unwrap_or_default(),
            length,
        }))
    }

    /// Takes content of the open frame; whether it is whole.
    fn content(&mut self, input: &mut BytesMut) -> bool {
        let Some((head, read)) = &mut self.frame else {
            return false;
        };
        let part = (head.length - *read).min(input.len());
        let mut part = input.split_to(part);
        unmask(&mut part, head.mask, *read);
        *read += part.len();
        if head.is_control() {
            self.control.unsplit(part);
        } else {
            self.message.extend_from_slice(&part);
        }
        *read == head.length
    }

    /// The open frame is whole.
    fn end(&mut self) -> Option<Incoming> {
        let (head, _) = self.frame.take()?;
        if !head.is_control() {
            self.open = !head.fin;
            return head
                .fin
                .then(|| Incoming::Message(std::mem::take(&mut self.message).freeze()));
        }
        let content = std::mem::take(&mut self.control).freeze();
        Some(match head.opcode {
            PING => Incoming::Ping(content),
            PONG => Incoming::Pong,
            _ => Incoming::Close,
        })
    }
}

/// First byte, mask if there is one, length of the content.
type Parts = (u8, Option<[u8; 4]>, u64);

impl Head {
    fn is_control(&self) -> bool {
        self.opcode >= CLOSE
    }

    /// What a head says, and its own length; none if more input is needed.
    fn parse(input: &[u8]) -> Option<(Parts, usize)> {
        let (&[first, second], rest) = input.split_first_chunk()?;
        let (length, rest) = match second & !MASKED {
            126 => {
                let (length, rest) = rest.split_first_chunk()?;
                (u64::from(u16::from_be_bytes(*length)), rest)
            }
            127 => {
                let (length, rest) = rest.split_first_chunk()?;
                (u64::from_be_bytes(*length), rest)
            }
            short => (u64::from(short), rest),
        };
        let (mask, rest) = if second & MASKED == 0 {
            (None, rest)
        } else {
            let (mask, rest) = rest.split_first_chunk()?;
            (Some(*mask), rest)
        };
        Some(((first, mask, length), input.len() - rest.len()))
    }
}

fn unmask(content: &mut [u8], mask: [u8; 4], offset: usize) {
    if mask == [0; 4] {
        return;
    }
    let mut turned = mask;
    turned.rotate_left(offset % 4);
    let (words, rest) = content.as_chunks_mut::<4>();
    let word = u32::from_ne_bytes(turned);
    for chunk in words {
        *chunk = (u32::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(turned) {
        *byte ^= mask;
    }
}

/// Writes frames of one side.
#[derive(Debug, Clone, Copy)]
pub struct SocketWriter {
    /// Of an agent.
    mask: Option<[u8; 4]>,
}

impl SocketWriter {
    /// The server's frames.
    pub fn server() -> Self {
        Self { mask: None }
    }

    /// An agent's frames, masked with these bytes.
    pub fn agent(mask: [u8; 4]) -> Self {
        Self { mask: Some(mask) }
    }

    /// A binary message in one frame.
    pub fn message(self, content: &[u8]) -> Bytes {
        self.frame(FIN | BINARY, content)
    }

    /// A binary message in frames of `most` bytes.
    pub fn message_in_parts(self, content: &[u8], most: usize) -> Bytes {
        let mut out = BytesMut::new();
        let mut parts = content.chunks(most.max(1)).peekable();
        let mut opcode = BINARY;
        while let Some(part) = parts.next() {
            let fin = if parts.peek().is_none() { FIN } else { 0 };
            out.extend_from_slice(&self.frame(fin | opcode, part));
            opcode = CONTINUATION;
        }
        out.freeze()
    }

    /// Asks whether the peer is there.
    pub fn ping(self) -> Bytes {
        self.frame(FIN | PING, &[])
    }

    /// Answers a ping.
    pub fn pong(self, content: &[u8]) -> Bytes {
        self.frame(FIN | PONG, content)
    }

    /// Ends the connection, with a status of RFC 6455, section 7.4.
    pub fn close(self, status: u16) -> Bytes {
        self.frame(FIN | CLOSE, &status.to_be_bytes())
    }

    fn frame(self, first: u8, content: &[u8]) -> Bytes {
        let mut out = BytesMut::with_capacity(content.len() + 14);
        let masked = if self.mask.is_some() { MASKED } else { 0 };
        out.extend_from_slice(&[first]);
        match content.len() {
            short @ 0..=125 => out.extend_from_slice(&[masked | short as u8]),
            medium @ 126..=0xffff => {
                out.extend_from_slice(&[masked | 126]);
                out.extend_from_slice(&(medium as u16).to_be_bytes());
            }
            long => {
                out.extend_from_slice(&[masked | 127]);
                out.extend_from_slice(&(long as u64).to_be_bytes());
            }
        }
        if let Some(mask) = self.mask {
            out.extend_from_slice(&mask);
        }
        let begin = out.len();
        out.extend_from_slice(content);
        unmask(&mut out[begin..], self.mask.unwrap_or_default(), 0);
        out.freeze()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use proptest::prelude::*;

    fn all(reader: &mut SocketReader, input: &[u8]) -> Result<Vec<Incoming>, SocketError> {
        let mut input = BytesMut::from(input);
        let mut out = Vec::new();
        while let Some(incoming) = reader.read(&mut input)? {
            out.push(incoming);
        }
        Ok(out)
    }

    fn server(limit: usize) -> SocketReader {
        SocketReader::new(Side::Agent, limit)
    }

    #[test]
    fn the_handshake_of_the_rfc() {
        assert_eq!(
            accept_key("dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }

    #[test]
    fn the_examples_of_the_rfc() {
        let masked = [
            0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
        ];
        let hello = || Incoming::Message(Bytes::from_static(b"Hello"));
        assert_eq!(all(&mut server(5), &masked), Ok(vec![hello()]));
        let mut agent = SocketReader::new(Side::Server, 5);
        let ping_between = [
            &[0x01, 0x03, 0x48, 0x65, 0x6c][..],
            &[0x89, 0x01, 0x2a],
            &[0x80, 0x02, 0x6c, 0x6f],
            &[0x88, 0x00],
        ]
        .concat();
        assert_eq!(
            all(&mut agent, &ping_between).unwrap(),
            [
                Incoming::Ping(Bytes::from_static(b"*")),
                hello(),
                Incoming::Close
            ]
        );
    }

    #[test]
    fn what_no_peer_may_send_is_refused() {
        let mask = [1, 2, 3, 4];
        let frame = |first: u8, content: &[u8]| SocketWriter::agent(mask).frame(first, content);
        for (bytes, error) in [
            (frame(FIN | 0x40 | BINARY, b"x"), SocketError::Reserved),
            (frame(FIN | 3, b"x"), SocketError::Opcode(3)),
            (frame(PING, b""), SocketError::Control),
            (frame(FIN | PING, &[0; 126]), SocketError::Control),
            (frame(FIN | CONTINUATION, b"x"), SocketError::Order),
            (
                [frame(BINARY, b"x"), frame(BINARY, b"x")].concat().into(),
                SocketError::Order,
            ),
            (
                SocketWriter::server().message(b"x"),
                SocketError::Mask { masked: false },
            ),
            (
                frame(FIN | BINARY, &[0; 11]),
                SocketError::TooLong {
                    length: 11,
                    limit: 10,
                },
            ),
            (
                [frame(BINARY, &[0; 6]), frame(FIN, &[0; 5])]
                    .concat()
                    .into(),
                SocketError::TooLong {
                    length: 11,
                    limit: 10,
                },
            ),
            (
                Bytes::from_static(&[
                    0x82, 0xff, 255, 255, 255, 255, 255, 255, 255, 255, 1, 2, 3, 4,
                ]),
                SocketError::TooLong {
                    length: u64::MAX,
                    limit: 10,
                },
            ),
        ] {
            assert_eq!(all(&mut server(10), &bytes), Err(error), "{bytes:?}");
        }
        let masked = SocketWriter::agent(mask).message(b"x");
        assert_eq!(
            all(&mut SocketReader::new(Side::Server, 10), &masked),
            Err(SocketError::Mask { masked: true })
        );
    }

    #[test]
    fn a_message_is_announced_before_it_is_brought() {
        let whole = SocketWriter::agent([9, 8, 7, 6]).message(&[5; 70_000]);
        let mut reader = server(100_000);
        let mut input = BytesMut::from(&whole[..20]);
        assert_eq!(reader.read(&mut input), Ok(None));
        assert_eq!(reader.announced(), 70_000);
        input.extend_from_slice(&whole[20..]);
        let message = reader.read(&mut input).unwrap().unwrap();
        assert_eq!(message, Incoming::Message(vec![5; 70_000].into()));
        assert_eq!(reader.announced(), 0);
    }

    proptest! {
        #[test]
        fn messages_survive_any_cut_of_the_stream(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..70_000), 1..4),
            mask in any::<[u8; 4]>(),
            most in 1_usize..5_000,
            cut in 1_usize..9_000,
        ) {
            let writer = SocketWriter::agent(mask);
            let mut stream = Vec::new();
            for message in &messages {
                stream.extend_from_slice(&writer.message_in_parts(message, most));
                stream.extend_from_slice(&writer.ping());
            }
            let mut reader = server(70_000);
            let (mut input, mut read) = (BytesMut::new(), Vec::new());
            for part in stream.chunks(cut) {
                input.extend_from_slice(part);
                while let Some(incoming) = reader.read(&mut input).unwrap() {
                    if let Incoming::Message(message) = incoming {
                        read.push(message.to_vec());
                    }
                }
            }
            prop_assert_eq!(read, messages);
            prop_assert!(input.is_empty());
        }

        #[test]
        fn hostile_bytes_are_read_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut reader = server(1_000);
            let mut input = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = reader.read(&mut input) {}
            prop_assert!(reader.announced() <= 1_000);
        }
    }
}
