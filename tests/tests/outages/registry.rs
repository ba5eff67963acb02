//! The registry alone cannot be read: whoever is known goes on, and nobody is called a stranger.

use crate::decisions::mac_keys;
use crate::load::{Load, rows};
use nublar_core::fold::FoldConfig;
use nublar_ports::index::memory::MemoryIndex;
use nublar_ports::log::{FaultyLog, MemoryLog, Retention, TopicSpec};
use nublar_ports::objects::memory::MemoryObjects;
use nublar_ports::{Index, Log, Objects};
use nublar_schemas::topics::{self, Keep, Partitions, REGISTRY};
use nublar_tests::{Installation, Secrets, Server, is_long};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const PARTITIONS: u32 = 4;

/// All roles in this process, on a log with switches.
struct Here {
    log: FaultyLog<MemoryLog>,
    api_url: String,
    frontends: Vec<String>,
    shutdown: CancellationToken,
    roles: JoinSet<()>,
}

fn specs() -> Vec<TopicSpec> {
    let groups = |topic: &str| match topic {
        "results" | "uploads" | "events" | "state" | "dead-letters" => vec![topic.to_owned()],
        "scheduling" => vec![nublar_foreman::GROUP.to_owned()],
        _ => Vec::new(),
    };
    let spec = |topic: &topics::Topic| TopicSpec {
        name: topic.name.to_owned(),
        partitions: match topic.partitions {
            Partitions::PerClients => PARTITIONS,
            Partitions::Fixed(count) => count,
        },
        retention: match topic.keep {
            Keep::For(time) => Retention::Age(time),
            Keep::Newest => Retention::Compacted,
        },
        groups: groups(topic.name),
    };
    topics::ALL.iter().map(spec).collect()
}

impl Here {
    async fn start(secrets: &Secrets) -> Self {
        let log = FaultyLog::new(MemoryLog::new());
        log.declare(&specs()).await.unwrap();
        let shared: Arc<dyn Log> = Arc::new(log.clone());
        let index: Arc<dyn Index> = Arc::new(MemoryIndex::new());
        let objects: Arc<dyn Objects> = Arc::new(MemoryObjects::new());
        let (shutdown, mut roles) = (CancellationToken::new(), JoinSet::new());
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let keys = mac_keys(secrets);

        roles.spawn(nublar_foreman::run(
            nublar_foreman::Config {
                interrogate: false,
                ..Default::default()
            },
            FoldConfig::new(keys.clone()),
            nublar_foreman::Ports {
                log: shared.clone(),
                objects: objects.clone(),
            },
            shutdown.clone(),
        ));
        let workers = nublar_ingest_workers::run(
            nublar_ingest_workers::Config {
                report_ms: 200,
                ..Default::default()
            },
            nublar_ingest_workers::Ports {
                log: shared.clone(),
                index: index.clone(),
                objects: objects.clone(),
            },
            shutdown.clone(),
        );
        roles.spawn(async { workers.await.unwrap() });
        let gui = nublar_gui_api::Config::new(any, secrets.api_token.clone());
        let gui =
            nublar_gui_api::Gui::bind(gui, shared.clone(), index, objects.clone(), keys.clone());
        let gui = gui.await.unwrap();
        let api_url = format!("http://{}", gui.address());
        let ends = shutdown.clone();
        roles.spawn(async { gui.serve(ends).await.unwrap() });

        let mut frontends = Vec::new();
        for _ in 0..2 {
            let config = nublar_frontend::Config {
                listen: vec![nublar_frontend::Listen {
                    addr: any,
                    tls: false,
                }],
                max_poll: Duration::from_secs(3),
                hold: Duration::from_secs(1),
                ..Default::default()
            };
            let credentials = nublar_frontend::Credentials {
                certificate_pem: secrets.agents.certificate.clone(),
                agent_keys_pem: secrets.agents.key.clone(),
                tls: None,
            };
            let theirs = nublar_frontend::Secrets {
                credentials: tokio::sync::watch::channel(credentials).1,
                orgs: vec![nublar_frontend::Org {
                    nonce: secrets.orgs[0].nonce.clone(),
                    id: "".parse().unwrap(),
                }],
                mac: keys.clone(),
            };
            let bound =
                nublar_frontend::Frontend::bind(config, theirs, shared.clone(), objects.clone());
            let bound = bound.await.unwrap();
            frontends.push(format!("http://{}/", bound.addresses()[0]));
            let ends = shutdown.clone();
            roles.spawn(async { bound.serve(ends).await.unwrap() });
        }
        Self {
            log,
            api_url,
            frontends,
            shutdown,
            roles,
        }
    }

    async fn stop(mut self) {
        self.shutdown.cancel();
        while let Some(ended) = self.roles.join_next().await {
            ended.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_registry_known_agents_go_on_and_nobody_is_a_stranger() {
    let length = match is_long("an outage of the registry") {
        true => Duration::from_secs(60),
        false => Duration::from_secs(10),
    };
    let installation = Installation::empty();
    Server::set_up(&installation).await;
    let secrets = Secrets::read(installation.data());
    let here = Here::start(&secrets).await;
    let load = Load::start(&here.api_url, &secrets, &here.frontends, 10).await;
    load.enrolled().await;
    let before = load.refusals();
    // Those that are started anew come with sessions that no frontend has seen.
    let new = load
        .during(&[rows(100)], 20, async {
            load.more_ended(20).await;
            here.log.faults().reads(REGISTRY.name, true);
            let (over, ended) = (Instant::now() + length, load.ended().len());
            let new = Load::start(&here.api_url, &secrets, &here.frontends, 5).await;
            load.more_ended(40).await;
            tokio::time::sleep_until(over).await;
            assert_eq!(load.refusals(), before, "known agents noticed");
            let of_new = new.refusals();
            assert_eq!(of_new.unknown, 0, "a 406 without the registry");
            assert!(of_new.failed > 5, "the new agents did not ask: {of_new:?}");
            assert_eq!(new.let_in(), 0, "let in without the registry");
            here.log.faults().clear();
            eprintln!("{} flows meanwhile, {of_new:?}", load.ended().len() - ended);
            new.enrolled().await;
            load.more_ended(10).await;
            new
        })
        .await;
    new.during(&[rows(10)], 0, new.more_ended(5)).await;
    for load in [load, new] {
        let audit = load.assert_kept().await;
        eprintln!(
            "{} flows, {:?}, {:?}",
            audit.flows,
            audit.reasons,
            load.refusals()
        );
        load.stop().await;
    }
    here.stop().await;
}
