//! A fleet that is given work through an outage, and what is held against the server afterwards.

use nublar_simulator::{
    ARTIFACT_YAML, AgentConfig, Api, Audit, Fleet, Known, Script, Traffic, Trust, Work, agent_keys,
    audit, wait_until_final,
};
use nublar_tests::{Secrets, within};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How many times faster than real ones the agents live.
const SPEED: f64 = 10.0;
/// Longer than any outage and what comes after it.
const LONG: Duration = Duration::from_secs(240);

/// Agents of one server.
pub(crate) struct Load {
    fleet: Fleet,
    api: Api,
    name: String,
}

/// How often agents were answered in ways that they should not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusals {
    /// 406: whatever the POST held is forgotten by its agent.
    pub(crate) unknown: u64,
    /// 503, or no answer.
    pub(crate) failed: u64,
    /// All others.
    pub(crate) refused: u64,
}

/// A flow of rows that takes an agent so long.
pub(crate) fn rows(milliseconds: u64) -> Script {
    Script {
        rows: 40,
        rows_per_message: 10,
        row_bytes: 100,
        logs: 2,
        duration_ms: milliseconds * SPEED as u64,
        ..Script::default()
    }
}

impl Load {
    /// Starts so many agents, whom nobody has let in yet.
    pub(crate) async fn start(
        api_url: &str,
        secrets: &Secrets,
        frontends: &[String],
        agents: usize,
    ) -> Self {
        static STARTED: AtomicU64 = AtomicU64::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let keys = agent_keys(None, agents).await.unwrap();
        let config = AgentConfig {
            speed: SPEED,
            hop: true,
            seed: number,
            ..AgentConfig::new(frontends.to_vec(), secrets.orgs[0].nonce.clone())
        };
        let trust = Trust::new(secrets.ca.certificate.as_bytes()).unwrap();
        let api = Api::new(api_url, &secrets.api_token).unwrap();
        Self {
            fleet: Fleet::start(&config, &trust, keys).unwrap(),
            api,
            name: format!("load-{number}"),
        }
    }

    /// Waits until all are let in.
    pub(crate) async fn enrolled(&self) {
        let until = Instant::now() + Duration::from_secs(60);
        self.fleet.enrolled(&self.api, until).await.unwrap();
        within(LONG, "a poll of each agent is answered", async || {
            let books = self.fleet.ledger().books();
            match books.iter().filter(|book| !book.is_enrolled()).count() {
                0 => Ok(()),
                open => Err(open),
            }
        })
        .await;
    }

    /// Gives flows to all until the story has ended, and waits for those that were begun.
    pub(crate) async fn during<T>(
        &self,
        scripts: &[Script],
        restart_every: usize,
        story: impl Future<Output = T>,
    ) -> T {
        self.api.put_artifact(ARTIFACT_YAML).await.unwrap();
        let told = AtomicBool::new(false);
        let work = async {
            let mut batch = 0;
            while !told.load(Ordering::Relaxed) {
                let agents = self.fleet.agents().len();
                let work = Work {
                    tasks: 3 * agents,
                    outstanding: 2 * agents,
                    scripts: scripts.to_vec(),
                    urgent_every: 7,
                    cancel_every: 0,
                    restart_every,
                    name: format!("{}-{batch}", self.name),
                    until: Instant::now() + LONG,
                };
                let done = self.fleet.work(&self.api, &work).await;
                assert_eq!(
                    done.created, work.tasks as u64,
                    "flows that could be created"
                );
                batch += 1;
            }
        };
        let story = async {
            let end = story.await;
            told.store(true, Ordering::Relaxed);
            end
        };
        tokio::join!(work, story).1
    }

    /// What agents were answered so far.
    pub(crate) fn refusals(&self) -> Refusals {
        let traffic = Traffic::of(self.fleet.ledger());
        Refusals {
            unknown: traffic.unknown,
            failed: traffic.failed,
            refused: traffic.refused,
        }
    }

    /// Flows whose end was sent and answered with 200.
    pub(crate) fn ended(&self) -> Vec<String> {
        let books = self.fleet.ledger().books();
        let flows = books.iter().flat_map(|book| {
            let flows = book.flows().into_iter();
            flows.filter(|flow| book.flow(flow).is_some_and(|entry| entry.has_ended()))
        });
        flows.collect()
    }

    /// Waits until so many flows more have ended with their agents.
    pub(crate) async fn more_ended(&self, more: usize) {
        let before = self.ended().len();
        within(LONG, "flows end with their agents", async || {
            match self.ended().len() {
                now if now >= before + more => Ok(()),
                now => Err(format!("{} of {more}", now - before)),
            }
        })
        .await;
    }

    /// How many agents have had a poll answered with 200.
    pub(crate) fn let_in(&self) -> usize {
        let books = self.fleet.ledger().books();
        books.iter().filter(|book| book.is_enrolled()).count()
    }

    /// Waits until every flow has its end, and compares everything that the server shows with what
    /// the agents were given and sent.
    pub(crate) async fn assert_kept(&self) -> Audit {
        let open = wait_until_final(&self.api, self.fleet.ledger(), LONG).await;
        assert_eq!(open.unwrap(), 0, "flows without an end");
        let nothing = Known::new();
        let audit = audit(&self.api, self.fleet.ledger(), &nothing);
        let audit = audit.await.unwrap();
        assert_eq!(audit.violations, 0, "{:#?}", audit.first);
        assert!(audit.flows > 0 && audit.rows > 0, "{audit:?}");
        audit
    }

    /// Ends the agents.
    pub(crate) async fn stop(self) {
        self.fleet.stop().await;
    }
}
