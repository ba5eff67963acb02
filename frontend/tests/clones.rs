//! Agents of one key, at one frontend and at two.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use nublar_schemas::agent::FlowRequest;
use reqwest::StatusCode;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use support::agent::{TestAgent, rows, stats};
use support::foreman::held;
use support::{Deployment, Running, at_rest, eventually};
use tokio::task::JoinHandle;

/// An agent that polls without end, and what it was answered.
struct Polling {
    task: JoinHandle<()>,
    polls: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
}

impl Polling {
    fn start(agent: Arc<TestAgent>) -> Self {
        let (polls, refused) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (counted, conflicts) = (polls.clone(), refused.clone());
        let task = tokio::spawn(async move {
            loop {
                counted.fetch_add(1, Ordering::SeqCst);
                let answer = agent.poll().await;
                match answer.status() {
                    StatusCode::CONFLICT => {
                        conflicts.fetch_add(1, Ordering::SeqCst);
                        // A real one sleeps for max_poll.
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                    StatusCode::OK => {
                        let _ = answer.bytes().await;
                    }
                    other => panic!("{other}"),
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Self {
            task,
            polls,
            refused,
        }
    }

    fn polls(&self) -> usize {
        self.polls.load(Ordering::SeqCst)
    }

    fn refused(&self) -> usize {
        self.refused.load(Ordering::SeqCst)
    }
}

impl Drop for Polling {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Two agents of one key at these two frontends, which may be one.
async fn take_turns(frontends: usize) {
    let deployment = Deployment::new().await;
    let folding = deployment.fold(|config| config.hold_down_us = 3_600_000_000);
    let mut running = Vec::new();
    for _ in 0..frontends {
        running.push(deployment.start().await);
    }
    let (here, there) = (&running[0], &running[frontends - 1]);
    let original = TestAgent::enrolled(&deployment, here).await;
    let cloned = Arc::new(original.at(&deployment, there));
    let original = Polling::start(Arc::new(original));
    held(here, 1).await;
    let copy = Polling::start(cloned.clone());
    eventually(async || (copy.refused() >= 3).then_some(())).await;
    assert_eq!(original.refused(), 0, "who was there first is refused");
    let told = folding.told("client_conflict");
    let [told] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!(told["addresses"][0]["address"], Value::from("127.0.0.1"));

    // No storm: the first has its poll, the other is refused without another word in the log.
    held(here, 1).await;
    let (polls, before) = (original.polls(), copy.refused());
    let records = deployment.records("scheduling").await.len();
    eventually(async || (copy.refused() >= before + 3).then_some(())).await;
    assert_eq!(original.polls(), polls, "its poll was disturbed");
    assert_eq!(deployment.records("scheduling").await.len(), records);
    let refused: i64 = running
        .iter()
        .map(|one| one.metrics.refused_clone.get())
        .sum();
    assert!(refused >= 6, "{refused}");

    // What it sends besides is kept.
    assert!(deployment.records("events").await.is_empty());
    cloned.control(&[rows("F.Monitoring", "A", "{}")]).await;
    assert_eq!(deployment.records("events").await.len(), 1);
    drop((original, copy));
    for one in running {
        one.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_agents_of_one_key_at_one_frontend_the_later_is_refused() {
    take_turns(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_agents_of_one_key_at_two_frontends_the_later_is_refused() {
    take_turns(2).await;
}

/// One of several machines with the same key: it polls, and makes a new key when it is told to.
async fn until_it_has_its_own_key(
    deployment: &Deployment,
    frontend: &Running,
    mut agent: TestAgent,
    renewed: &AtomicUsize,
) {
    loop {
        let answer = agent.poll().await;
        if answer.status() != StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        }
        let told = agent.read(answer).await;
        let Some(told) = told.iter().find(|told| told.flow_request.is_some()) else {
            continue;
        };
        agent
            .control(&[stats(&told.session_id, true, 1, false)])
            .await;
        agent = TestAgent::enrolled(deployment, frontend).await;
        renewed.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_of_one_key_make_new_ones_until_one_is_left() {
    const MACHINES: usize = 20;
    let deployment = Arc::new(Deployment::new().await);
    let folding = deployment.fold(|config| {
        (config.rekey_clones, config.hold_down_us) = (true, 400_000);
    });
    let request = deployment.compiled(&FlowRequest::default()).await;
    deployment.announce("new_key", request).await;
    let mut running = Vec::new();
    for _ in 0..3 {
        running.push(Arc::new(
            deployment
                .start_with(|config| config.max_poll = Duration::from_millis(200))
                .await,
        ));
    }
    let first = TestAgent::enrolled(&deployment, &running[0]).await;
    let shared = first.client();
    let renewed = Arc::<AtomicUsize>::default();
    let machines: Vec<_> = (0..MACHINES)
        .map(|n| {
            let (deployment, frontend) = (deployment.clone(), running[n % 3].clone());
            let (agent, renewed) = (first.at(&deployment, &frontend), renewed.clone());
            tokio::spawn(async move {
                until_it_has_its_own_key(&deployment, &frontend, agent, &renewed).await;
            })
        })
        .collect();
    let others = MACHINES - 1;
    eventually(async || (renewed.load(Ordering::SeqCst) == others).then_some(())).await;

    // Who is left has the client for itself. One that was refused beside the last to leave may
    // still be told so once; then nobody is told anything any more.
    let heard = async || {
        let told = folding.told("client_conflict").len();
        (told, deployment.claims_of(&shared).await)
    };
    let (told, _) = at_rest(Duration::from_secs(2), heard).await;
    assert_eq!(renewed.load(Ordering::SeqCst), others);
    assert!(told >= others, "{told}");
    for machine in machines {
        machine.abort();
    }
    for one in running {
        if let Ok(one) = Arc::try_unwrap(one) {
            one.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_twenty_agents_of_one_key_at_three_frontends_one_is_served() {
    let deployment = Deployment::new().await;
    let folding = deployment.fold(|config| config.hold_down_us = 3_600_000_000);
    let mut running = Vec::new();
    for _ in 0..3 {
        running.push(deployment.start().await);
    }
    let first = TestAgent::enrolled(&deployment, &running[0]).await;
    let copies: Vec<_> = (0..20)
        .map(|n| first.at(&deployment, &running[n % 3]))
        .collect();
    let agents: Vec<_> = copies
        .into_iter()
        .map(Arc::new)
        .map(Polling::start)
        .collect();
    let refused = || agents.iter().filter(|agent| agent.refused() >= 3).count();
    eventually(async || (refused() == 19).then_some(())).await;
    let served: Vec<_> = agents.iter().filter(|agent| agent.refused() == 0).collect();
    assert_eq!(served.len(), 1);
    assert_eq!(folding.told("client_conflict").len(), 1);

    // Quiet from now on: the one has its poll, and the others cost no word in the log.
    let polls = served[0].polls();
    let records = deployment.records("scheduling").await.len();
    let before = agents.iter().map(Polling::refused).sum::<usize>();
    let more = || agents.iter().map(Polling::refused).sum::<usize>() - before;
    eventually(async || (more() >= 60).then_some(())).await;
    assert_eq!(served[0].polls(), polls, "its poll was disturbed");
    assert_eq!(deployment.records("scheduling").await.len(), records);
    drop(agents);
    for one in running {
        one.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_connection_died_silently_is_not_locked_out() {
    let deployment = Deployment::new().await;
    let folding = deployment.fold(|_| {});
    let (here, there) = (deployment.start().await, deployment.start().await);
    let agent = TestAgent::enrolled(&deployment, &here).await;
    let mut sessions = vec![agent];
    let mut dead = Vec::new();
    for turn in 0..6 {
        // Its connection is dead, but nobody has told this side: the poll is still held.
        let next = sessions[0].at(&deployment, if turn % 2 == 0 { &there } else { &here });
        let last = sessions.pop().unwrap();
        dead.push(tokio::spawn(async move { last.poll().await.status() }));
        let (of, other) = if turn % 2 == 0 {
            (&here, &there)
        } else {
            (&there, &here)
        };
        held(of, 1).await;
        held(other, 0).await;
        sessions.push(next);
    }
    let last = sessions.pop().unwrap();
    let poll = tokio::spawn(async move { last.poll().await.status() });
    held(&here, 1).await;
    held(&there, 0).await;
    assert!(!poll.is_finished());
    for poll in dead {
        assert_eq!(poll.await.unwrap(), StatusCode::OK, "it ended with nothing");
    }
    assert!(folding.told("client_conflict").is_empty());
    assert_eq!(
        here.metrics.refused_clone.get() + there.metrics.refused_clone.get(),
        0
    );
    poll.abort();
    here.stop().await;
    there.stop().await;
}
