//! The recorded traffic of an unmodified agent ends in the right topics, byte by byte.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use bytes::Bytes;
use nublar_frontend::AdoptFlows;
use nublar_schemas::agent::FlowStats;
use nublar_schemas::records::Scheduling;
use nublar_wire::testing::{Capture, Exchange};
use nublar_wire::{
    AgentKey, AgentSession, Answer, Envelope, Kind, Message, ServerKeys, Session, messages,
};
use prost::Message as _;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use support::Deployment;
use support::agent::{LIMIT, Version, client};

/// What the agent said in a request, read with the key of the recording.
fn said(capture: &Capture, exchange: &Exchange) -> Vec<Message> {
    let keys = ServerKeys::from_pem(&capture.server_key).unwrap();
    let agent = AgentKey::from_pem(&capture.agent_key).unwrap();
    let envelope = Envelope::parse(exchange.request.clone()).unwrap();
    let session: Session = envelope
        .unwrap_session(&keys)
        .unwrap()
        .verify(agent.public_key())
        .unwrap();
    let packed = session.open(&envelope).unwrap();
    packed
        .lists(LIMIT)
        .flat_map(|list| messages(list.unwrap()))
        .map(Result::unwrap)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_recorded_request_is_answered_and_stored() {
    for name in ["collections", "events"] {
        let capture = Capture::load(name).unwrap();
        let deployment = Deployment::recorded(&capture).await;
        let running = deployment
            .start_with(|config| {
                config.adopt_flows = AdoptFlows::Always(true);
                config.max_poll = Duration::from_millis(30);
            })
            .await;
        let http = client(&deployment, Version::Plain);
        let agent = AgentKey::from_pem(&capture.agent_key).unwrap();
        let reading = AgentSession::new(&agent, &deployment.server).unwrap();
        let mut expected: BTreeMap<&str, Vec<Bytes>> = BTreeMap::new();
        let mut ended = BTreeSet::new();
        for exchange in capture.exchanges().unwrap() {
            if exchange.request.is_empty() {
                continue;
            }
            let url = format!("http://{}{}", running.http, exchange.path);
            let answer = http
                .post(url)
                .body(exchange.request.clone())
                .send()
                .await
                .unwrap();
            // A recorded outage has no status of a server.
            let status = if exchange.status == 406 { 406 } else { 200 };
            assert_eq!(answer.status(), status, "{name} {}", exchange.number);
            if status == 406 {
                continue;
            }
            let answer = reading.open(answer.bytes().await.unwrap()).unwrap();
            match exchange.path.as_str() {
                "/control" => assert!(matches!(answer, Answer::Packed(_)), "an empty list"),
                _ => assert!(answer.messages(LIMIT).unwrap().is_empty()),
            }
            for message in said(&capture, &exchange) {
                let topics: &[&str] = match (message.kind, message.session_id()) {
                    (Kind::ForemanCheckin, _) => &[],
                    (Kind::FileBuffer | Kind::UploadTransaction, _) => &["uploads"],
                    (_, "F.Monitoring") => &["events"],
                    (Kind::FlowStats, session) => {
                        let stats = FlowStats::decode(message.payload()).unwrap();
                        let unknown = stats.query_status.iter().any(|status| status.status == 11);
                        if stats.flow_complete {
                            ended.insert((session.to_owned(), message.payload()));
                        }
                        if stats.flow_complete && !message.urgent && !unknown {
                            &["results", "uploads"]
                        } else {
                            &["results"]
                        }
                    }
                    (Kind::VqlResponse | Kind::LogMessage, _) => &["results"],
                    (kind, session) => panic!("{kind:?} {session}"),
                };
                for topic in topics {
                    expected
                        .entry(topic)
                        .or_default()
                        .push(message.bytes.clone());
                }
            }
        }
        for topic in ["results", "uploads", "events"] {
            let records = deployment.messages(topic).await;
            for record in &records {
                assert_eq!(record.header.client, capture.client_id());
                assert_eq!(
                    (record.header.org.as_str(), record.header.generation),
                    ("", 1)
                );
                assert_eq!(record.header.frontend, running.name);
            }
            let messages = records.into_iter().flat_map(|record| record.messages);
            let stored: Vec<_> = messages.map(|message| message.bytes).collect();
            assert_eq!(
                stored,
                expected.remove(topic).unwrap_or_default(),
                "{name} {topic}"
            );
        }
        let mut told = BTreeSet::new();
        for record in deployment.scheduling().await {
            let Scheduling::FlowStatsSeen(seen) = record else {
                continue;
            };
            for seen in seen.stats {
                let complete = FlowStats::decode(seen.bytes.clone()).unwrap().flow_complete;
                if complete {
                    told.insert((seen.session, seen.bytes));
                }
            }
        }
        assert_eq!(told, ended, "every end is told to the foreman");
        assert!(name == "events" || ended.len() >= 8, "{}", ended.len());
        assert!(deployment.dead_letters().await.is_empty());
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_adoption_recorded_flows_are_foreign() {
    let capture = Capture::load("collections").unwrap();
    let deployment = Deployment::recorded(&capture).await;
    let running = deployment
        .start_with(|config| config.max_poll = Duration::from_millis(30))
        .await;
    let http = client(&deployment, Version::Plain);
    for exchange in capture
        .exchanges()
        .unwrap()
        .iter()
        .filter(|e| e.path == "/control")
        .take(3)
    {
        let url = format!("http://{}/control", running.http);
        http.post(url)
            .body(exchange.request.clone())
            .send()
            .await
            .unwrap();
    }
    assert!(deployment.messages("results").await.is_empty());
    let letters = deployment.dead_letters().await;
    assert!(!letters.is_empty());
    assert!(
        letters.iter().all(|letter| letter.reason == "foreign flow"),
        "{letters:?}"
    );
    running.stop().await;
}
