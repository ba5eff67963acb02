//! The recorded WebSocket connections: their frames are put together again, and every one of them
//! says what another program read in it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod decoded;

use bytes::Bytes;
use nublar_wire::testing::Capture;
use nublar_wire::{AgentKey, AgentSession, Answer, Envelope, Frame, ServerKeys, Session, messages};
use serde_json::Value;

const LIMIT: usize = 16 << 20;
const BINARY: u64 = 2;

/// A message of a WebSocket, put together from its frames.
#[derive(Debug)]
struct Whole {
    opcode: u64,
    frames: u64,
    content: Vec<u8>,
}

/// Reads the frames behind the HTTP head of a recorded stream.
fn reassemble(stream: &[u8]) -> Vec<Whole> {
    let head = stream.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
    let mut rest = &stream[head..];
    let mut take = |n: usize| {
        let (taken, left) = rest.split_at_checked(n)?;
        rest = left;
        Some(taken)
    };
    let mut out: Vec<Whole> = Vec::new();
    let mut open: Option<Whole> = None;
    while let Some(&[first, second]) = take(2) {
        let length = match second & 0x7f {
            126 => u16::from_be_bytes(take(2).unwrap().try_into().unwrap()).into(),
            127 => u64::from_be_bytes(take(8).unwrap().try_into().unwrap()),
            short => short.into(),
        };
        let mask: [u8; 4] = match second & 0x80 {
            0 => [0; 4],
            _ => take(4).unwrap().try_into().unwrap(),
        };
        // The recording may end within a frame.
        let Some(content) = take(length as usize) else {
            break;
        };
        let content = content
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask);
        let (last, opcode) = (first & 0x80 != 0, u64::from(first & 0x0f));
        if opcode >= 8 {
            out.push(Whole {
                opcode,
                frames: 1,
                content: content.collect(),
            });
            continue;
        }
        let mut whole = open.take().unwrap_or(Whole {
            opcode,
            frames: 0,
            content: Vec::new(),
        });
        whole.frames += 1;
        whole.content.extend(content);
        if last {
            out.push(whole)
        } else {
            open = Some(whole)
        }
    }
    out
}

/// The connections that became WebSockets: what the index lists and what the streams hold.
fn connections(capture: &Capture) -> Vec<(Value, Vec<Whole>, Vec<Whole>)> {
    let listed = capture.index["connections"].as_array().unwrap();
    let sockets = listed.iter().filter(|c| c.get("from_agent").is_some());
    sockets
        .map(|listed| {
            let number = listed["connection"].as_u64().unwrap();
            let (agent, server) = capture.stream(number).unwrap();
            (listed.clone(), reassemble(&agent), reassemble(&server))
        })
        .collect()
}

fn compare_frames(frames: &[Whole], listed: &Value) {
    let seen: Vec<_> = frames
        .iter()
        .map(|f| (f.opcode, f.frames, f.content.len() as u64))
        .collect();
    let number = |v: &Value| v.as_u64().unwrap();
    let listed = listed.as_array().unwrap().iter();
    let expected: Vec<_> = listed
        .map(|f| {
            (
                number(&f["opcode"]),
                number(&f["frames"]),
                number(&f["size"]),
            )
        })
        .collect();
    assert_eq!(seen, expected);
}

#[test]
fn every_frame_of_the_agent_is_an_envelope_that_says_the_same() {
    let capture = Capture::load("websocket").unwrap();
    let keys = ServerKeys::from_pem(&capture.server_key).unwrap();
    let agent = AgentKey::from_pem(&capture.agent_key).unwrap();
    let mut sessions: Vec<(Bytes, Session)> = Vec::new();
    let (mut compared, mut continued) = (0, 0);
    for (listed, from_agent, _) in connections(&capture) {
        compare_frames(&from_agent, &listed["from_agent"]);
        for (frame, expected) in from_agent
            .iter()
            .zip(listed["from_agent"].as_array().unwrap())
        {
            if frame.opcode != BINARY {
                continue;
            }
            continued += u64::from(frame.frames > 1);
            let envelope = Envelope::parse(frame.content.clone().into()).unwrap();
            let known = sessions
                .iter()
                .find(|(cipher, _)| cipher == envelope.cipher());
            let session = known
                .map(|(_, session)| session.clone())
                .unwrap_or_else(|| {
                    let unverified = envelope.unwrap_session(&keys).unwrap();
                    let session = unverified.verify(agent.public_key()).unwrap();
                    sessions.push((Bytes::copy_from_slice(envelope.cipher()), session.clone()));
                    session
                });
            let packed = session.open(&envelope).unwrap();
            decoded::compare_packed(&packed, &expected["decoded"]);
            let lists = packed.lists(LIMIT).map(Result::unwrap);
            let all: Vec<_> = lists.flat_map(messages).map(Result::unwrap).collect();
            compared += decoded::compare_messages(&all, &expected["decoded"]);
        }
    }
    assert!(continued > 0, "one message came in several frames");
    assert_eq!(compared, 80, "the recording has so many");
}

#[test]
fn every_frame_of_the_server_is_json_around_a_body_that_says_the_same() {
    let capture = Capture::load("websocket").unwrap();
    let keys = ServerKeys::from_pem(&capture.server_key).unwrap();
    let agent = AgentKey::from_pem(&capture.agent_key).unwrap();
    let session = AgentSession::new(&agent, keys.newest().public_key()).unwrap();
    let mut compared = 0;
    for (listed, _, from_server) in connections(&capture) {
        compare_frames(&from_server, &listed["from_server"]);
        for (frame, expected) in from_server
            .iter()
            .zip(listed["from_server"].as_array().unwrap())
        {
            if frame.opcode != BINARY {
                continue;
            }
            let read = Frame::decode(&frame.content).unwrap();
            assert_eq!(u64::from(read.code), expected["code"]);
            assert_eq!(read.error, expected["err"].as_str().unwrap_or_default());
            assert_eq!(Frame::decode(&read.encode().unwrap()).unwrap(), read);
            match (session.open(read.data).unwrap(), expected.get("decoded")) {
                (Answer::Nothing, None | Some(Value::Null)) => {}
                (answer @ Answer::Packed(_), Some(expected)) => {
                    if let Answer::Packed(packed) = &answer {
                        decoded::compare_packed(packed, expected);
                    }
                    compared +=
                        decoded::compare_messages(&answer.messages(LIMIT).unwrap(), expected);
                }
                (answer, expected) => panic!("{answer:?} for {expected:?}"),
            }
        }
    }
    assert_eq!(compared, 13, "the recording has so many");
}

#[test]
fn the_answer_that_all_is_well_is_written_as_it_was_recorded() {
    let capture = Capture::load("websocket").unwrap();
    let ok = Frame::ok().encode().unwrap();
    let seen = connections(&capture)
        .iter()
        .flat_map(|(_, _, from_server)| from_server)
        .filter(|frame| frame.content == ok)
        .count();
    assert!(seen > 0);
}
