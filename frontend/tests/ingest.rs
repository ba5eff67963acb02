//! What a POST brings ends in the right topics, and what is wrong with it is refused and recorded.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use bytes::Bytes;
use nublar_core::mac::{MacKey, MacKeys};
use nublar_ports::{Log, Objects};
use nublar_schemas::agent::{Cancel, FlowStats, MessageList, VeloMessage};
use nublar_schemas::records::{ClientKey, Header, Registry, Scheduling, SeenStats};
use nublar_wire::{Compression, Plaintext, message_list};
use prost::Message as _;
use reqwest::StatusCode;
use std::time::Duration;
use support::agent::{TestAgent, Version, buffer, check_in, noise, rows, stats};
use support::{Deployment, eventually};

async fn stored(deployment: &Deployment, topic: &str) -> Vec<Bytes> {
    let records = deployment.messages(topic).await;
    records
        .into_iter()
        .flat_map(|r| r.messages)
        .map(|m| m.bytes)
        .collect()
}

fn bytes(messages: &[&VeloMessage]) -> Vec<Bytes> {
    messages
        .iter()
        .map(|message| message.encode_to_vec().into())
        .collect()
}

async fn seen(deployment: &Deployment) -> Vec<Vec<SeenStats>> {
    let of = |record| match record {
        Scheduling::FlowStatsSeen(seen) => Some(seen.stats),
        _ => None,
    };
    deployment
        .scheduling()
        .await
        .into_iter()
        .filter_map(of)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_routed_by_payload_and_session() {
    let deployment = Deployment::new().await;
    let running = deployment.start().await;
    let agent = TestAgent::enrolled(&deployment, &running).await;
    let (a, b) = (agent.flow(1), agent.flow(2));
    let first = rows(&a, "One/Two", "{\"n\":1}\n{\"n\":2}\n");
    let part = rows(&format!("{b}/x"), "Part", "{}");
    let event = rows("F.Monitoring", "Event", "{}");
    let data = buffer(&a, vec![1; 100]);
    let status = rows("F.Status", "Nobody", "{}");
    agent
        .control(&[
            first.clone(),
            event.clone(),
            data.clone(),
            status,
            part.clone(),
        ])
        .await;
    assert_eq!(
        stored(&deployment, "results").await,
        bytes(&[&first, &part])
    );
    assert_eq!(stored(&deployment, "uploads").await, bytes(&[&data]));
    assert_eq!(stored(&deployment, "events").await, bytes(&[&event]));
    assert!(deployment.dead_letters().await.is_empty());
    assert_eq!(running.metrics.ignored.get(), 1);
    // Rows without statistics are a sign of life, for each session once.
    let life = |session: &str| SeenStats {
        session: session.to_owned(),
        urgent: false,
        bytes: Bytes::new(),
    };
    assert_eq!(
        seen(&deployment).await,
        [vec![life(&a), life(&format!("{b}/x"))]]
    );
    agent.control(std::slice::from_ref(&first)).await;
    agent.control(&[first]).await;
    assert_eq!(seen(&deployment).await.len(), 2, "not again within 20 s");
    // Everything stands in the client's partition, under its id.
    let partition = nublar_core::partition::of_client(&agent.client(), support::PARTITIONS);
    for topic in ["results", "uploads", "events", "scheduling"] {
        for record in deployment.records(topic).await {
            assert_eq!(record.partition, partition);
            assert_eq!(record.key, agent.key.client_id());
        }
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_a_message_is_from_is_what_the_envelope_says() {
    let deployment = Deployment::new().await;
    let running = deployment.start().await;
    let agent = TestAgent::enrolled(&deployment, &running).await;
    let posing = VeloMessage {
        source: "C.0123456789abcdef".to_owned(),
        org_id: "OTHER".to_owned(),
        auth_state: 0,
        ..rows("F.Monitoring", "Event", "{}")
    };
    agent.control(std::slice::from_ref(&posing)).await;
    let records = deployment.messages("events").await;
    assert_eq!(records.len(), 1);
    assert_eq!(
        (
            records[0].header.client.as_str(),
            records[0].header.org.as_str()
        ),
        (agent.key.client_id(), "")
    );
    // As it came: what it says of itself is data.
    assert_eq!(records[0].messages[0].bytes, posing.encode_to_vec());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_flow_is_stored_before_the_sign_of_its_life() {
    let deployment = Deployment::new().await;
    let running = deployment
        .start_with(|config| config.hold = Duration::from_millis(300))
        .await;
    let agent = TestAgent::enrolled(&deployment, &running).await;
    let (a, b) = (agent.flow(1), agent.flow(2));
    let all = [
        rows(&a, "R", "{}"),
        buffer(&a, vec![1; 100]),
        stats(&b, true, 0, false),
    ];
    deployment.log.take_appends("scheduling");
    let refused = agent.post("control", &all).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(stored(&deployment, "results").await.is_empty());
    assert!(stored(&deployment, "uploads").await.is_empty());
    deployment.log.give_back();
    agent.control(&all).await;
    assert_eq!(stored(&deployment, "results").await.len(), 2);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_progress_reports_in_one_post_the_newest_is_told() {
    let deployment = Deployment::new().await;
    let running = deployment.start().await;
    let agent = TestAgent::enrolled(&deployment, &running).await;
    let flow = agent.flow(1);
    let reports = [1_000, 2_000].map(|timestamp| {
        let mut report = stats(&flow, false, 4, false);
        if let Some(stats) = &mut report.flow_stats {
            stats.timestamp = timestamp;
        }
        report
    });
    agent.control(&reports).await;
    let told = seen(&deployment).await.remove(0).remove(0);
    let told = FlowStats::decode(told.bytes).unwrap();
    assert_eq!(told.timestamp, 2_000);
    running.stop().await;
}

/// An agent that does not know a flow is given it again: the first that comes of it then must be told,
/// however soon it comes, for a flow that lives is not given to anybody else.
#[tokio::test(flavor = "multi_thread")]
async fn progress_that_follows_an_unknown_flow_is_told() {
    let deployment = Deployment::new().await;
    let running = deployment.start().await;
    let agent = TestAgent::enrolled(&deployment, &running).await;
    let flow = agent.flow(1);
    agent.control(&[stats(&flow, true, 11, true)]).await;
    agent.control(&[stats(&flow, false, 4, false)]).await;
    // This one is held back.
    agent.control(&[stats(&flow, false, 4, false)]).await;
    let told = seen(&deployment).await.concat();
    let told: Vec<bool> = told
        .iter()
        .map(|seen| FlowStats::decode(seen.bytes.clone()).unwrap().flow_complete)
        .collect();
    assert_eq!(told, [true, false]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_marker_goes_to_three_topics_and_statistics_keep_their_order() {
    let deployment = Deployment::new().await;
    let running = deployment.start().await;
    let agent = TestAgent::enrolled(&deployment, &running).await;
    let (a, b, once) = (agent.flow(1), agent.flow(2), agent.flow(3));
    let progress = stats(&a, false, 4, false);
    let end = stats(&a, true, 0, false);
    let answers = [stats(&once, true, 11, true), stats(&b, false, 4, true)];
    agent
        .control(&[progress.clone(), rows(&a, "R", "{}"), end.clone()])
        .await;
    agent.control(&answers).await;
    agent.control(&[progress]).await;
    assert_eq!(
        stored(&deployment, "uploads").await,
        bytes(&[&end]),
        "the marker alone"
    );
    assert_eq!(stored(&deployment, "results").await.len(), 6);
    let names: Vec<Vec<_>> = seen(&deployment)
        .await
        .into_iter()
        .map(|stats| {
            stats
                .into_iter()
                .map(|s| (s.session, s.urgent, s.bytes.len() > 2))
                .collect()
        })
        .collect();
    let expected = [
        // The sign of life stands before the rows, by itself.
        vec![(a.clone(), false, false)],
        vec![(a.clone(), false, true), (a, false, true)],
        vec![(once, true, true), (b, true, true)],
    ];
    assert_eq!(
        names, expected,
        "progress of a known flow is held back for 20 s"
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_flows_and_odd_sessions_are_refused_one_by_one() {
    let deployment = Deployment::new().await;
    let running = deployment.start().await;
    let agent = TestAgent::enrolled(&deployment, &running).await;
    let victim = TestAgent::enrolled(&deployment, &running).await;
    let own = rows(&agent.flow(1), "R", "{}");
    let foreign = rows(&victim.flow(1), "R", "{}");
    let odd = [
        rows("", "R", "{}"),
        rows("F.../../etc", "R", "{}"),
        rows("C.0123456789abcdef", "R", "{}"),
        rows("H.DC2M4UVJPNI1E", "R", "{}"),
        rows("E.Foreman", "R", "{}"),
        VeloMessage {
            session_id: agent.flow(1),
            kill_kill_kill: Some(Cancel::default()),
            ..Default::default()
        },
        VeloMessage {
            vql_response: None,
            ..own.clone()
        },
        VeloMessage {
            file_buffer: Some(Default::default()),
            ..own.clone()
        },
    ];
    let mut all = vec![foreign.clone(), own.clone()];
    all.extend(odd);
    all.push(stats(&victim.flow(2), true, 0, false));
    all.push(own.clone());
    agent.control(&all).await;
    assert_eq!(stored(&deployment, "results").await, bytes(&[&own, &own]));
    assert!(deployment.messages("uploads").await.is_empty());
    let letters = deployment.dead_letters().await;
    assert_eq!(letters.len(), 10);
    assert_eq!(running.metrics.dead_letters.get(), 10);
    assert!(
        letters
            .iter()
            .all(|letter| letter.header.client == agent.key.client_id())
    );
    let of: Vec<_> = letters
        .iter()
        .filter(|letter| letter.reason == "foreign flow")
        .collect();
    assert_eq!(of.len(), 2);
    assert_eq!(of[0].copy, foreign.encode_to_vec());
    assert!(of[0].text.contains(&victim.flow(1)), "{}", of[0].text);
    assert!(
        seen(&deployment)
            .await
            .concat()
            .iter()
            .all(|s| s.session == agent.flow(1))
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_of_a_generation_not_known_yet_is_looked_at_again() {
    let deployment = Deployment::new().await;
    let running = deployment.start().await;
    let agent = TestAgent::enrolled(&deployment, &running).await;
    let client = agent.client();
    agent.control(&[rows("F.Monitoring", "R", "{}")]).await;
    let mac = MacKeys::new(
        MacKey {
            from_us: 0,
            secret: [7; 32],
        },
        [],
    );
    let later = mac.flow_id(&client, 2, 1_795_514_940_000_000, [1; 4]);
    let message = rows(later.as_str(), "R", "{}");
    agent.control(std::slice::from_ref(&message)).await;
    assert_eq!(
        deployment.dead_letters().await.len(),
        1,
        "it is foreign now"
    );

    let key = Registry::from(ClientKey {
        header: Header {
            client: client.client.to_string(),
            generation: 2,
            ..Header::default()
        },
        public_key: agent.key.public_key().to_der(),
    });
    let partition = nublar_core::partition::of_client(&client, support::PARTITIONS);
    let name = format!("/{}/key/2", client.client);
    let value = key.encode().unwrap();
    deployment
        .log
        .inner()
        .append("registry", partition, name.into(), value.into())
        .await
        .unwrap();
    agent.control(std::slice::from_ref(&message)).await;
    let results = deployment.messages("results").await;
    assert_eq!(results.len(), 1);
    assert_eq!(results[0].header.generation, 2);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_cut_and_what_is_too_large_becomes_an_object() {
    let deployment = Deployment::new().await;
    let running = deployment.start().await;
    let agent = TestAgent::enrolled(&deployment, &running).await;
    let flow = agent.flow(1);
    let mut sent: Vec<_> = (0..6).map(|n| buffer(&flow, noise(n, 400 << 10))).collect();
    sent.insert(3, buffer(&flow, noise(9, 1600 << 10)));
    agent.control(&sent).await;
    let records = deployment.messages("uploads").await;
    let sizes: Vec<_> = records.iter().map(|record| record.messages.len()).collect();
    assert_eq!(
        sizes,
        [2, 1, 1, 2, 1],
        "about 1 MiB each, the large one by itself"
    );
    let mut back = Vec::new();
    for message in records.into_iter().flat_map(|record| record.messages) {
        assert_eq!(message.session, flow);
        match message.object {
            None => back.push(message.bytes),
            Some(key) => {
                assert!(message.bytes.is_empty());
                back.push(deployment.objects.get(&key, None).await.unwrap());
            }
        }
    }
    assert_eq!(back, bytes(&sent.iter().collect::<Vec<_>>()));
    // Rows of 8 MiB and more, compressible: one POST.
    let long = format!("{{\"x\":\"{}\"}}\n", "y".repeat(30 << 20));
    let huge = rows(&flow, "Huge", &long);
    agent.control(std::slice::from_ref(&huge)).await;
    let results = deployment.messages("results").await;
    let key = results[0].messages[0].object.clone().unwrap();
    assert_eq!(
        deployment.objects.get(&key, None).await.unwrap(),
        huge.encode_to_vec()
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_lists_and_plain_ones_are_taken() {
    let deployment = Deployment::new().await;
    let running = deployment.start().await;
    let agent = TestAgent::enrolled(&deployment, &running).await;
    let messages: Vec<_> = (0..300)
        .map(|n| rows(&agent.flow(1), &n.to_string(), "{}"))
        .collect();
    let lists: Vec<_> = messages
        .iter()
        .map(|message| message_list(&[message.encode_to_vec().into()]))
        .collect();
    for compression in [Compression::None, Compression::Zlib] {
        let plain = Plaintext::new(&lists, compression, &agent.nonce, 7);
        let body = agent.session.seal(&plain).unwrap();
        assert_eq!(
            agent.post_body("control", body).await.status(),
            StatusCode::OK
        );
    }
    let all = stored(&deployment, "results").await;
    let expected = bytes(&messages.iter().collect::<Vec<_>>());
    assert_eq!(all, [expected.clone(), expected].concat());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_and_broken_lists_cost_themselves_alone() {
    let deployment = Deployment::new().await;
    let running = deployment.start().await;
    let agent = TestAgent::enrolled(&deployment, &running).await;
    let good = rows(&agent.flow(1), "R", "{}");
    let good_list = message_list(&bytes(&[&good]));
    // 128 MiB of zeros: a list that inflates beyond every agent's.
    let bomb = Bytes::from(vec![0; 128 << 20]);
    let cut_off = good_list.slice(..good_list.len() - 1);
    let body = agent.seal_lists(&[bomb, good_list.clone(), cut_off, good_list]);
    assert!(body.len() < 1 << 20);
    assert_eq!(
        agent.post_body("control", body).await.status(),
        StatusCode::OK
    );
    assert_eq!(stored(&deployment, "results").await, bytes(&[&good, &good]));
    let mut reasons: Vec<_> = deployment
        .dead_letters()
        .await
        .into_iter()
        .map(|letter| letter.reason)
        .collect();
    reasons.sort();
    assert_eq!(reasons, ["broken message", "list too large"]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_bodies_are_refused_before_the_200() {
    let deployment = Deployment::new().await;
    let running = deployment.start().await;
    let agent = TestAgent::enrolled(&deployment, &running).await;
    agent.control(&[rows("F.Monitoring", "R", "{}")]).await;
    let body = agent.seal(&[rows(&agent.flow(1), "R", "{}")]);
    for length in [0, 1, 10, body.len() / 2, body.len() - 1] {
        let answer = agent.post_body("control", body.slice(..length)).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{length}");
    }
    let flipped = |at: usize| {
        let mut bytes = body.to_vec();
        bytes[at] ^= 1;
        Bytes::from(bytes)
    };
    // In the ciphertext: another HMAC. In the encrypted session: for nobody.
    assert_eq!(
        agent.post_body("control", flipped(20)).await.status(),
        StatusCode::FORBIDDEN
    );
    assert_eq!(running.metrics.refused_hmac.get(), 1);
    let cipher = nublar_wire::Envelope::parse(body.clone())
        .unwrap()
        .cipher()
        .to_vec();
    let at = body
        .windows(cipher.len())
        .position(|window| window == cipher)
        .unwrap();
    assert_eq!(
        agent.post_body("control", flipped(at + 9)).await.status(),
        StatusCode::FORBIDDEN
    );
    assert_eq!(running.metrics.refused_key.get(), 1);
    let other = Deployment::new().await;
    let foreign = TestAgent::new(&other, &running);
    assert_eq!(
        foreign.poll().await.status(),
        StatusCode::FORBIDDEN,
        "sealed to another server"
    );
    assert!(stored(&deployment, "results").await.is_empty());
    // A replayed body is stored again, which changes nothing for who reads by content.
    for _ in 0..2 {
        assert_eq!(
            agent.post_body("control", body.clone()).await.status(),
            StatusCode::OK
        );
    }
    let stored = stored(&deployment, "results").await;
    assert_eq!(stored[0], stored[1]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_over_long_body_is_answered_and_recorded() {
    let deployment = Deployment::new().await;
    let running = deployment
        .start_with(|config| config.max_upload_size = 100 << 10)
        .await;
    for version in [Version::Plain, Version::Tls2] {
        let agent = TestAgent::over(&deployment, &running, version);
        agent.enrol().await;
        let before = running.metrics.oversize.get();
        let answer = agent.post_body("control", vec![7; 2 << 20].into()).await;
        assert_eq!(answer.status(), StatusCode::OK);
        let body = futures::stream::iter(vec![
            Ok::<_, std::io::Error>(Bytes::from(vec![7; 1 << 20])),
            Ok(Bytes::from(vec![7; 1 << 20])),
        ]);
        let url = format!("{}control", agent.base);
        let chunked = agent.http.post(url).body(reqwest::Body::wrap_stream(body));
        assert_eq!(
            chunked.send().await.unwrap().status(),
            StatusCode::OK,
            "without a length too"
        );
        assert_eq!(running.metrics.oversize.get(), before + 2);
        // The connection is good for more.
        agent.control(&[rows("F.Monitoring", "R", "{}")]).await;
    }
    let letters = deployment.dead_letters().await;
    assert_eq!(letters.len(), 4);
    assert!(
        letters
            .iter()
            .all(|letter| letter.reason == "body too large")
    );
    assert!(letters[0].text.contains("127.0.0.1"), "{}", letters[0].text);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_never_ends_is_given_up_and_delays_nobody() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let deployment = Deployment::new().await;
    let running = deployment
        .start_with(|config| {
            config.body_idle = Duration::from_millis(200);
            config.byte_budget = 1 << 20;
            config.byte_reserve = 0;
        })
        .await;
    let agent = TestAgent::enrolled(&deployment, &running).await;
    let mut stream = tokio::net::TcpStream::connect(running.http).await.unwrap();
    let head = b"POST /control HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nbegin";
    stream.write_all(head).await.unwrap();
    let mut answer = vec![0; 12];
    let event = [rows("F.Monitoring", "R", "{}")];
    // It waits for the room that the other one gives back.
    let (read, ()) = tokio::join!(stream.read_exact(&mut answer), agent.control(&event));
    read.unwrap();
    assert_eq!(answer, b"HTTP/1.1 408");
    assert_eq!(running.metrics.broken_bodies.get(), 1);
    eventually(async || (running.metrics.admitted_bytes.get() == 0).then_some(())).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_bodies_hold_no_room_for_what_they_only_announce() {
    use tokio::io::AsyncWriteExt as _;
    let deployment = Deployment::new().await;
    let running = deployment
        .start_with(|config| {
            config.byte_budget = 8 << 20;
            config.byte_reserve = 0;
        })
        .await;
    let agent = TestAgent::enrolled(&deployment, &running).await;
    let slow = (0..40).map(|_| async {
        let mut stream = tokio::net::TcpStream::connect(running.http).await.unwrap();
        let head = b"POST /control HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\n";
        stream.write_all(head).await.unwrap();
        loop {
            stream.write_all(&[0; 1000]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let event = [buffer(&agent.flow(1), noise(1, 1 << 20))];
    tokio::select! {
        _ = futures::future::join_all(slow) => {}
        () = async {
            // They have announced 200 MB, for which there would be no room.
            eventually(async || (running.metrics.posts.get() == 41).then_some(())).await;
            for _ in 0..5 {
                agent.control(&event).await;
            }
        } => {}
    }
    assert_eq!(deployment.messages("uploads").await.len(), 5);
    assert_eq!(running.metrics.refused_busy.get(), 0);
    assert_eq!(running.metrics.held_back.get(), 0, "nobody had to wait");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_of_long_ago_is_told_apart() {
    let deployment = Deployment::new().await;
    let running = deployment.start().await;
    let agent = TestAgent::enrolled(&deployment, &running).await;
    let body = agent.seal(&[check_in(0)]);
    let mut old = nublar_schemas::agent::ClientCommunication::decode(body).unwrap();
    old.api_version = 3;
    let answer = agent.post_body("reader", old.encode_to_vec().into()).await;
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    assert_eq!(running.metrics.refused_old.get(), 1);
    // A list with fields that nobody knows is a list.
    let list = MessageList {
        job: vec![rows("F.Monitoring", "R", "{}")],
    };
    let mut bytes = list.encode_to_vec();
    bytes.extend_from_slice(&[0x7a, 1, 0]);
    let answer = agent
        .post_body("control", agent.seal_lists(&[bytes.into()]))
        .await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(stored(&deployment, "events").await.len(), 1);
    running.stop().await;
}
