//! Deletion and return, as agents see it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use nublar_core::ids::ClientKey;
use nublar_core::partition;
use nublar_ports::Log as _;
use nublar_schemas::records::{ClientLife, Header, Registry};
use reqwest::StatusCode;
use std::sync::Arc;
use support::agent::{TestAgent, rows};
use support::foreman::{held, request};
use support::{Deployment, PARTITIONS, eventually, mac};

impl Deployment {
    /// The foreman's word that generations below this one have ended.
    async fn end(&self, client: &ClientKey, generation: i64) {
        let life = ClientLife {
            header: Header {
                client: client.client.to_string(),
                generation,
                ..Header::default()
            },
        };
        let (name, partition) = (life.name(), partition::of_client(client, PARTITIONS));
        let value = Registry::from(life).encode().unwrap();
        let log = self.log.inner();
        log.append("registry", partition, name.into(), value.into())
            .await
            .unwrap();
    }

    async fn keys(&self, client: &ClientKey) -> Vec<i64> {
        let id = client.client.to_string();
        let records = self.registry().await.into_iter();
        let generation = |record: Registry| match record {
            Registry::ClientKey(key) if key.header.client == id => Some(key.header.generation),
            _ => None,
        };
        records.filter_map(generation).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_client_is_told_to_enrol_and_comes_back_clean() {
    let deployment = Deployment::new().await;
    let running = deployment.start().await;
    let agent = Arc::new(TestAgent::enrolled(&deployment, &running).await);
    let (client, old) = (agent.client(), agent.flow(1));
    agent.control(&[rows(&old, "A", "{}")]).await;
    let poll = tokio::spawn({
        let agent = agent.clone();
        async move { agent.poll().await }
    });
    held(&running, 1).await;

    // The poll ends with nothing; the next one, and whatever the agent sends, is answered 406.
    deployment.end(&client, 2).await;
    let ended = poll.await.unwrap();
    assert_eq!(ended.status(), StatusCode::OK);
    assert!(agent.read(ended).await.is_empty());
    assert_eq!(agent.poll().await.status(), StatusCode::NOT_ACCEPTABLE);
    let late = agent.post("control", &[rows(&old, "A", "{}")]).await;
    assert_eq!(late.status(), StatusCode::NOT_ACCEPTABLE);
    assert_eq!(deployment.messages("results").await.len(), 1);

    // It enrols anew under the same id: flows of its former life are foreign now.
    agent.enrol().await;
    assert_eq!(deployment.keys(&client).await, [1, 2]);
    let new = mac().flow_id(&client, 2, 1_795_514_940_000_000, [9; 4]);
    agent
        .control(&[rows(&old, "A", "{}"), rows(new.as_str(), "A", "{}")])
        .await;
    let results = deployment.messages("results").await;
    assert_eq!(results.len(), 2);
    assert_eq!(results[1].header.generation, 2);
    assert_eq!(results[1].messages.len(), 1);
    assert_eq!(deployment.dead_letters().await.len(), 1);
    // A request of a registered client writes nothing.
    agent.control(&[agent.csr()]).await;
    assert_eq!(deployment.keys(&client).await, [1, 2]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frontend_that_reads_the_registry_late_refuses_nothing_of_the_new_generation() {
    let deployment = Deployment::new().await;
    let (here, there) = (deployment.start().await, deployment.start().await);
    let agent = TestAgent::enrolled(&deployment, &here).await;
    let client = agent.client();
    deployment.end(&client, 2).await;
    assert_eq!(agent.poll().await.status(), StatusCode::NOT_ACCEPTABLE);
    agent.enrol().await;
    let elsewhere = agent.at(&deployment, &there);
    let new = mac().flow_id(&client, 2, 1_795_514_940_000_000, [9; 4]);
    elsewhere.control(&[rows(new.as_str(), "A", "{}")]).await;
    assert!(deployment.dead_letters().await.is_empty());
    here.stop().await;
    there.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_task_of_an_ended_generation_goes_out() {
    let deployment = Deployment::new().await;
    let running = deployment.start().await;
    let agent = Arc::new(TestAgent::enrolled(&deployment, &running).await);
    let (client, flow) = (agent.client(), agent.flow(1));
    let at = deployment.compiled(&request("x")).await;
    let poll = tokio::spawn({
        let agent = agent.clone();
        async move { agent.poll().await }
    });
    held(&running, 1).await;
    deployment.offer(&client, &flow, 1).await;
    let claim = deployment.claim(&flow, 1).await;
    deployment.end(&client, 2).await;
    assert!(agent.read(poll.await.unwrap()).await.is_empty());
    held(&running, 0).await;

    // Enrolled anew; the foreman of before the deletion grants what was claimed then.
    agent.enrol().await;
    let poll = tokio::spawn({
        let agent = agent.clone();
        async move { agent.poll().await }
    });
    held(&running, 1).await;
    deployment.grant(&client, &claim, &at).await;
    deployment.offer(&client, &agent.flow(2), 1).await;
    deployment.cancel(&client, &agent.flow(3)).await;
    deployment.end(&client, 3).await;
    assert!(agent.read(poll.await.unwrap()).await.is_empty());
    assert_eq!(running.metrics.tasks_delivered.get(), 0);
    assert_eq!(running.metrics.cancels_delivered.get(), 0);
    assert!(deployment.claims(&agent.flow(2)).await.is_empty());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_an_ended_generation_registers_nobody() {
    let deployment = Deployment::new().await;
    let running = deployment.start().await;
    let agent = TestAgent::enrolled(&deployment, &running).await;
    let client = agent.client();
    // Whatever the order: a frontend may append what it read before the deletion.
    deployment.end(&client, 3).await;
    deployment.end(&client, 2).await;
    let registered = async || (running.metrics.registered.get() == 0).then_some(());
    eventually(registered).await;
    agent.enrol().await;
    assert_eq!(deployment.keys(&client).await, [1, 3]);
    agent.control(&[rows("F.Monitoring", "A", "{}")]).await;
    let events = deployment.messages("events").await;
    assert_eq!(events[0].header.generation, 3);
    running.stop().await;
}
