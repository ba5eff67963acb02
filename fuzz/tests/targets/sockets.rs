//! WebSockets: a stream says the same in whatever pieces it comes, and no more is kept than the
//! limit.

use crate::captured::CAPTURED;
use bytes::{Bytes, BytesMut};
use nublar_fuzz::{Chance, LARGEST, Target, behaviour, fuzz, mutate};
use nublar_wire::{Frame, Incoming, Side, SocketError, SocketReader, SocketWriter};

const LIMIT: usize = 40 << 10;

/// Heads of frames: fin, opcode, mask, lengths of every size.
const WORDS: [&[u8]; 12] = [
    &[0x82, 0x80],
    &[0x02, 0x81, 0, 0, 0, 0],
    &[0x80, 0xfe, 0, 126],
    &[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff],
    &[0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0x89, 0x80, 1, 2, 3, 4],
    &[0x8a, 0xfd],
    &[0x88, 0x82],
    &[0x89, 0x00],
    &[0x82, 0x7e],
    &[0x00, 0x01],
    b"{\"code\":200,\"data\":\"AAAA\"}",
];

fn seeds() -> Vec<Vec<u8>> {
    let streams = CAPTURED.streams.iter();
    let mut seeds: Vec<Vec<u8>> = streams
        .flat_map(|(agent, server)| [agent, server])
        .map(|stream| stream[..stream.len().min(LARGEST)].to_vec())
        .collect();
    let agent = || SocketWriter::agent([1, 2, 3, 4]);
    let short = [
        agent().message(b"one"),
        agent().message_in_parts(b"two in parts", 3),
        agent().ping(),
        agent().pong(b"x"),
        agent().close(1000),
    ];
    seeds.push(short.concat());
    seeds.push(br#"{"code":406,"err":"say \"who\"","data":"AP8="}"#.to_vec());
    seeds
}

type Read = (Vec<Incoming>, Option<SocketError>);

/// Reads a stream that comes in such pieces.
fn read(from: Side, input: &[u8], mut pieces: impl FnMut() -> usize) -> Read {
    let mut reader = SocketReader::new(from, LIMIT);
    let mut buffer = BytesMut::new();
    let mut rest = input;
    let mut came = Vec::new();
    loop {
        match reader.read(&mut buffer) {
            Ok(Some(incoming)) => {
                if let Incoming::Message(message) = &incoming {
                    assert!(message.len() <= LIMIT, "{} bytes", message.len());
                }
                came.push(incoming);
                continue;
            }
            Ok(None) => {}
            Err(error) => return (came, Some(error)),
        }
        assert!(reader.announced() <= LIMIT, "{}", reader.announced());
        if rest.is_empty() {
            return (came, None);
        }
        let (piece, more) = rest.split_at(pieces().clamp(1, rest.len()));
        buffer.extend_from_slice(piece);
        rest = more;
    }
}

fn check(input: &[u8]) -> u64 {
    let mut chance = Chance::new(behaviour(&[&input.len().to_string()]) ^ input.len() as u64);
    let mut behaved = Vec::new();
    for from in [Side::Agent, Side::Server] {
        let whole = read(from, input, || usize::MAX);
        let pieces = read(from, input, || 1 + chance.length(4_000));
        assert!(whole == pieces, "pieces say something else");
        let (came, error) = whole;
        let kinds = came.iter().map(|incoming| match incoming {
            Incoming::Message(_) => "message",
            Incoming::Ping(_) => "ping",
            Incoming::Pong => "pong",
            Incoming::Close => "close",
        });
        let mut kinds: Vec<_> = kinds.collect();
        kinds.dedup();
        kinds.truncate(6);
        behaved.push(kinds.join(" "));
        behaved.push(error.map(|error| error.to_string()).unwrap_or_default());
    }
    behaved.push(match Frame::decode(input) {
        Ok(frame) => {
            let again = Frame::decode(&frame.encode().unwrap()).unwrap();
            assert_eq!(again, frame);
            "frame".to_owned()
        }
        Err(error) => error.to_string().chars().take(30).collect(),
    });
    behaviour(&behaved.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn a_stream_says_the_same_in_whatever_pieces_it_comes() {
    assert!(matches!(
        &read(Side::Agent, &SocketWriter::agent([9; 4]).message(b"x"), || 1).0[..],
        [Incoming::Message(message)] if *message == Bytes::from_static(b"x")
    ));
    let ran = fuzz(&Target {
        name: "sockets",
        seeds: seeds(),
        change: &|chance, input| mutate(chance, input, &WORDS),
        check: &check,
    });
    assert!(ran.behaviours > 20, "{ran:?}");
}
