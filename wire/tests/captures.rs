//! Every body of the recorded HTTP traffic opens with our code and says what another program read
//! in it, in both directions.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod decoded;

use bytes::Bytes;
use nublar_wire::testing::{Capture, Exchange};
use nublar_wire::{
    AgentKey, AgentSession, Answer, Envelope, Kind, Packed, PublicKey, ServerKeys, Session,
    check_csr, messages, pad,
};

const LIMIT: usize = 16 << 20;

fn both() -> [Capture; 2] {
    ["collections", "events"].map(|name| Capture::load(name).unwrap())
}

fn keys(capture: &Capture) -> (ServerKeys, AgentKey) {
    (
        ServerKeys::from_pem(&capture.server_key).unwrap(),
        AgentKey::from_pem(&capture.agent_key).unwrap(),
    )
}

#[test]
fn the_client_id_follows_from_the_key_and_the_server_key_from_its_certificate() {
    for name in ["collections", "events", "websocket"] {
        let capture = Capture::load(name).unwrap();
        let (server, agent) = keys(&capture);
        assert_eq!(agent.client_id(), capture.client_id());
        let certified = PublicKey::from_certificate_pem(&capture.server_certificate).unwrap();
        assert_eq!(&certified, server.newest().public_key());
    }
}

#[test]
fn server_pem_is_the_certificate() {
    for capture in both() {
        let exchanges = capture.exchanges().unwrap();
        let answers: Vec<_> = exchanges
            .iter()
            .filter(|e| e.path == "/server.pem")
            .collect();
        assert!(!answers.is_empty());
        for answer in answers {
            let key = PublicKey::from_certificate_pem(&answer.response).unwrap();
            assert_eq!(&key, keys(&capture).0.newest().public_key());
        }
    }
}

#[test]
fn every_request_opens_and_says_the_same() {
    let mut compared = 0;
    for capture in both() {
        let (server, agent) = keys(&capture);
        let mut session: Option<(Vec<u8>, Session)> = None;
        let (mut unwrapped, mut requests) = (0, 0);
        for exchange in capture.exchanges().unwrap() {
            let Some(expected) = &exchange.request_decoded else {
                continue;
            };
            requests += 1;
            let envelope = Envelope::parse(exchange.request.clone()).unwrap();
            assert_eq!(u64::from(envelope.api_version()), expected["api_version"]);
            let known = session
                .take()
                .filter(|(cipher, _)| cipher == envelope.cipher());
            let session = session.insert(known.unwrap_or_else(|| {
                unwrapped += 1;
                let unverified = envelope.unwrap_session(&server).unwrap();
                assert_eq!(unverified.source(), expected["source"]);
                (
                    envelope.cipher().into(),
                    unverified.verify(agent.public_key()).unwrap(),
                )
            }));
            assert_eq!(session.1.source(), expected["source"]);
            let packed = session.1.open(&envelope).unwrap();
            decoded::compare_packed(&packed, expected);
            compared += decoded::compare_messages(&all(&packed), expected);
        }
        assert!(
            requests > 5 && unwrapped <= 2,
            "{unwrapped} sessions in {requests} requests"
        );
    }
    assert_eq!(compared, 168, "the recording has so many");
}

fn all(packed: &Packed) -> Vec<nublar_wire::Message> {
    packed
        .lists(LIMIT)
        .flat_map(|list| messages(list.unwrap()))
        .map(Result::unwrap)
        .collect()
}

#[test]
fn every_answer_opens_with_the_agents_key_and_says_the_same() {
    let mut compared = 0;
    for capture in both() {
        let (server, agent) = keys(&capture);
        let session = AgentSession::new(&agent, server.newest().public_key()).unwrap();
        for exchange in capture.exchanges().unwrap() {
            if let Some(expected) = &exchange.response_decoded {
                compared +=
                    compare_answer(&session, &exchange, exchange.response.clone(), expected);
                let padded = [&pad()[..], &pad(), &exchange.response].concat();
                compare_answer(&session, &exchange, padded.into(), expected);
            }
        }
        assert_eq!(session.server_name().as_deref(), Some("VelociraptorServer"));
    }
    assert_eq!(compared, 27, "the recording has so many");
}

fn compare_answer(
    session: &AgentSession,
    exchange: &Exchange,
    body: Bytes,
    expected: &serde_json::Value,
) -> usize {
    let answer = session.open(body).unwrap();
    let Answer::Packed(packed) = &answer else {
        panic!("nothing in {}", exchange.number)
    };
    decoded::compare_packed(packed, expected);
    decoded::compare_messages(&answer.messages(LIMIT).unwrap(), expected)
}

#[test]
fn a_poll_that_ended_with_pads_alone_says_nothing() {
    let mut polls = 0;
    for capture in both() {
        let (server, agent) = keys(&capture);
        let session = AgentSession::new(&agent, server.newest().public_key()).unwrap();
        for exchange in capture.exchanges().unwrap() {
            if exchange.response.starts_with(&pad()) && exchange.response_decoded.is_none() {
                assert!(matches!(
                    session.open(exchange.response).unwrap(),
                    Answer::Nothing
                ));
                polls += 1;
            }
        }
    }
    assert!(polls > 0);
}

#[test]
fn every_enrolment_is_for_the_key_that_sent_it() {
    for capture in both() {
        let (server, agent) = keys(&capture);
        let mut enrolled = 0;
        for exchange in capture
            .exchanges()
            .unwrap()
            .iter()
            .filter(|e| !e.request.is_empty())
        {
            let envelope = Envelope::parse(exchange.request.clone()).unwrap();
            let unverified = envelope.unwrap_session(&server).unwrap();
            for message in all(&unverified.open(&envelope).unwrap()) {
                if message.kind == Kind::Csr {
                    assert_eq!(message.session_id(), "E:Enrol");
                    let csr = message.decode().unwrap().csr.unwrap();
                    let key = check_csr(&csr.pem).unwrap();
                    assert_eq!(&key, agent.public_key());
                    assert_eq!(
                        unverified.verify(&key).unwrap().source(),
                        capture.client_id()
                    );
                    enrolled += 1;
                }
            }
        }
        assert_eq!(enrolled, 1);
    }
}
