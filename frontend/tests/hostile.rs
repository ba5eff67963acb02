//! An agent that names everything that is not its own: queues, clients, flows and organisations.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use nublar_core::ids::{ClientKey, OrgId};
use nublar_schemas::agent::{
    FileBuffer, FlowStats, LogMessage, UploadTransaction, VeloMessage, VqlRequest, VqlResponse,
};
use nublar_schemas::records::Scheduling;
use nublar_schemas::topics;
use prost::Message as _;
use support::agent::{TestAgent, check_in, csr, stats};
use support::{Deployment, mac};

/// Whatever a message can carry, under a session.
fn carried(session: &str, csr_pem: &str) -> Vec<VeloMessage> {
    let of = |fill: fn(&mut VeloMessage)| {
        let mut message = VeloMessage {
            session_id: session.to_owned(),
            // Who sends it is not what it says.
            source: "VelociraptorServer".to_owned(),
            org_id: "OTHER".to_owned(),
            auth_state: 2,
            ..VeloMessage::default()
        };
        fill(&mut message);
        message
    };
    let mut all = vec![
        of(|message| {
            message.vql_response = Some(VqlResponse {
                query: Some(VqlRequest {
                    name: "Server.Internal.ClientDelete".to_owned(),
                    ..VqlRequest::default()
                }),
                jsonl_response: "{\"ClientId\":\"C.0123456789abcdef\"}\n".to_owned(),
                total_rows: 1,
                ..VqlResponse::default()
            });
        }),
        of(|message| {
            message.log_message = Some(LogMessage {
                jsonl: "{\"level\":\"ALERT\",\"message\":\"x\"}\n".to_owned(),
                number_of_rows: 1,
                ..LogMessage::default()
            });
        }),
        of(|message| message.file_buffer = Some(FileBuffer::default())),
        of(|message| message.upload_transaction = Some(UploadTransaction::default())),
        of(|message| {
            message.flow_stats = Some(FlowStats {
                flow_complete: true,
                ..FlowStats::default()
            });
        }),
        of(|_| {}),
    ];
    for mut message in [
        check_in(u64::MAX),
        csr(csr_pem),
        stats(session, true, 1, false),
    ] {
        message.session_id = session.to_owned();
        all.push(message);
    }
    all
}

/// Sessions that are not the agent's, or nobody's.
fn foreign(agent: &TestAgent, victim: &TestAgent) -> Vec<String> {
    let key = agent.client();
    let elsewhere = ClientKey {
        org: "OTHER".parse::<OrgId>().unwrap(),
        ..key.clone()
    };
    let at = 1_795_514_940_000_000;
    let made = |key: &ClientKey, generation| mac().flow_id(key, generation, at, [1; 4]).to_string();
    let own = agent.flow(1);
    let mut all: Vec<String> = [
        "",
        "/",
        "..",
        "F.",
        "F./",
        "F..",
        "F../../etc/passwd",
        "F.\0",
        "F.DC2M4UVJPNI1E",
        "F.DC2M4UVJPNI1E.H",
        "H.DC2M4UVJPNI1E",
        "F.Monitor",
        "F.Monitoring ",
        "f.Monitoring",
        "E.Foreman/x",
        "E:Foreman",
        "E.Enrol",
        "Server.Audit.Logs",
        "System.Flow.Completion",
        "Server.Internal.ClientDelete",
        "Server.Internal.ArtifactModification",
        "Server.Internal.Interrogation",
        "System.Hunt.Participation",
        "Server.Internal.Label",
        "results",
        "uploads",
        "events",
        "scheduling",
        "registry",
        "state",
        "dead-letters",
        "O123",
        "root",
        "org/F.DC2M4UVJPNI1E",
        "F.🦀",
    ]
    .map(str::to_owned)
    .into();
    all.push("F.".to_owned() + &"A".repeat(10_000));
    all.push(victim.key.client_id().to_owned());
    all.push(format!("{}/{own}", victim.key.client_id()));
    for n in 1..4 {
        all.push(victim.flow(n));
        all.push(format!("{}/part", victim.flow(n)));
    }
    all.push(made(&key, 2));
    all.push(made(&key, 0));
    all.push(made(&elsewhere, 1));
    all.push(own.to_lowercase());
    all.push(format!("{own}A"));
    all.push(format!("{own}.H"));
    all.push(own.replacen("F.", "F.H.", 1));
    // Each of its characters another one.
    for place in 2..own.len() {
        let other = if &own[place..=place] == "A" { "B" } else { "A" };
        all.push(format!("{}{other}{}", &own[..place], &own[place + 1..]));
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_an_agent_names_nothing_but_its_own_is_stored() {
    for adopt in [false, true] {
        let deployment = Deployment::new().await;
        let running = deployment
            .start_with(|config| config.adopt_flows = nublar_frontend::AdoptFlows::Always(adopt))
            .await;
        let agent = TestAgent::enrolled(&deployment, &running).await;
        let victim = TestAgent::enrolled(&deployment, &running).await;
        let registry = deployment.registry().await.len();
        let csr_pem = victim.key.csr_pem().unwrap();
        let mut sessions = foreign(&agent, &victim);
        if adopt {
            // Such ids are those of flows that agents bring along from another server.
            sessions.retain(|session| {
                let body = session.strip_prefix("F.").unwrap_or("/");
                let plain = body.chars().all(|c| c.is_ascii_alphanumeric());
                !session.ends_with(".H") && (body.len() == 21 || !plain)
            });
        }
        let mut sent = 0;
        for session in &sessions {
            let messages = carried(session, &csr_pem);
            sent += messages.len();
            agent.control(&messages).await;
        }
        // Sessions of the protocol itself hold what belongs there, and are the agent's own.
        let mut allowed = 0;
        for session in ["F.Monitoring", "F.Status", "E:Enrol", "E.Foreman"] {
            let messages = carried(session, &csr_pem);
            allowed += match session {
                "F.Monitoring" => 4,
                "F.Status" => messages.len(),
                _ => 1,
            };
            sent += messages.len();
            agent.control(&messages).await;
        }

        assert!(deployment.messages("results").await.is_empty());
        let uploads = deployment.messages("uploads").await;
        let events = deployment.messages("events").await;
        for (records, count) in [(&uploads, 2), (&events, 2)] {
            let messages: usize = records.iter().map(|record| record.messages.len()).sum();
            assert_eq!(messages, count);
            for record in records {
                assert_eq!(record.header.client, agent.key.client_id());
                assert_eq!(record.header.org, "");
                assert!(
                    record
                        .messages
                        .iter()
                        .all(|one| one.session == "F.Monitoring")
                );
            }
        }
        assert_eq!(
            deployment.registry().await.len(),
            registry,
            "nobody is registered anew"
        );
        for record in deployment.scheduling().await {
            assert_eq!(record.header().client, agent.key.client_id(), "{record:?}");
            if let Scheduling::FlowStatsSeen(seen) = &record {
                let mut sessions = seen.stats.iter().map(|stats| stats.session.as_str());
                assert!(
                    sessions.all(|session| session == "F.Monitoring"),
                    "{record:?}"
                );
            }
        }
        let letters = deployment.dead_letters().await;
        assert_eq!(letters.len(), sent - allowed, "each is refused by itself");
        for letter in &letters {
            assert_eq!(letter.header.client, agent.key.client_id());
        }
        for topic in [
            "tasks",
            "requests",
            "settings",
            "state",
            "notifications",
            "wishes",
        ] {
            assert!(topics::ALL.iter().any(|known| known.name == topic));
            assert!(deployment.records(topic).await.is_empty(), "{topic}");
        }

        // And it goes on: what is its own is taken as ever.
        let own = carried(&agent.flow(1), &csr_pem).remove(0);
        agent.control(std::slice::from_ref(&own)).await;
        let stored = deployment.messages("results").await;
        assert_eq!(stored[0].messages[0].bytes, own.encode_to_vec());
        running.stop().await;
    }
}
