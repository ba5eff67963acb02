//! A life: enrolment, an upload, a failure, a cancelled flow, events, and an outage of the server.
//! Many agents may live it at once, at one server.

use crate::agent::{Agent, Home};
use crate::bench::{Bench, add_artifact};
use futures::future::join_all;
use nublar_tests::{Installation, Server, eventually};
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Longer than any load balancer here lets a silent connection live.
const QUIET: Duration = Duration::from_secs(70);
/// Agents gather the rows of events for some two minutes.
const EVENTS: Duration = Duration::from_secs(200);
/// Until an agent comes back after the outage, and its rows with it.
const BACK: Duration = Duration::from_secs(120);
const AWAY: Duration = Duration::from_secs(5);
const COUNTED: u64 = 40;

/// How soon an agent has to be known.
pub(crate) struct Limits {
    /// From its registration to its host name.
    pub(crate) named: Duration,
    /// From its registration to the end of its interrogation.
    pub(crate) interrogated: Duration,
}

impl Limits {
    /// Of an agent that has the machine for itself.
    pub(crate) const ALONE: Self = Self {
        named: Duration::from_millis(1_500),
        interrogated: Duration::from_secs(4),
    };
    /// Of one among many that start at once.
    pub(crate) const AMONG_MANY: Self = Self {
        named: Duration::from_secs(15),
        interrogated: Duration::from_secs(20),
    };
}

struct Life {
    name: String,
    agent: Agent,
    bench: Bench,
    file: PathBuf,
}

/// Lives these lives; the server has just been started, and runs at their end.
pub(crate) async fn live(
    server: &mut Server,
    installation: &Installation,
    homes: &[Home],
    limits: &Limits,
) {
    add_artifacts(server, installation);
    let file = installation.beside("three megabytes");
    std::fs::write(&file, noise()).unwrap();
    let begun = join_all(homes.iter().map(|home| {
        let agent = Agent::start(home, server, installation);
        begin(server, home.name.clone(), agent, file.clone(), limits)
    }));
    let lives = begun.await;
    join_all(lives.iter().map(Life::work)).await;
    rest(&lives).await;
    let running = join_all(lives.iter().map(Life::start_counting)).await;
    server.kill9().await;
    tokio::time::sleep(AWAY).await;
    server.restart().await;
    let back = Instant::now();
    join_all(
        lives
            .iter()
            .zip(&running)
            .map(|(life, flow)| life.end_counting(flow, back)),
    )
    .await;
}

fn add_artifacts(server: &Server, installation: &Installation) {
    let add = |name, head, query| add_artifact(server, installation, name, head, query);
    add(
        "Custom.Upload",
        "parameters: [{name: Path}]\n",
        "SELECT upload(file=Path) AS U FROM scope()",
    );
    add("Custom.Slow", "", "SELECT * FROM clock(period=1)");
    add(
        "Custom.Fail",
        "",
        "SELECT log(message='it broke here', level='ERROR') AS L FROM scope()",
    );
    // A row a second, each sent at once.
    add(
        "Custom.Count",
        "resources: {max_batch_wait: 1}\n",
        &format!("SELECT count() AS N FROM clock(period=1) LIMIT {COUNTED}"),
    );
}

/// Three megabytes that do not compress well.
fn noise() -> Vec<u8> {
    (0..3_000_000u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect()
}

/// Until the server knows who it is.
async fn begin(
    server: &Server,
    name: String,
    agent: Agent,
    file: PathBuf,
    limits: &Limits,
) -> Life {
    let started = Instant::now();
    let client = agent.client_id().await;
    let line = format!("{client} is registered now");
    eventually("the agent's enrolment", async || {
        let printed = server.printed();
        printed.contains(&line).then_some(()).ok_or("not yet")
    })
    .await;
    let registered = Instant::now();
    let api = server.api();
    let known = eventually("the agent's host name", async || {
        let path = format!("/clients/{client}");
        let known = api.json(&path).await;
        if known["hostname"].is_string() {
            Ok(known)
        } else {
            Err(known)
        }
    })
    .await;
    let named = registered.elapsed();
    let bench = Bench { api, client };
    let interrogation = known["last_interrogate_flow_id"].as_str().unwrap();
    let info = bench.until(interrogation, "FINISHED").await;
    let interrogated = registered.elapsed();
    assert!(info["total_collected_rows"].as_i64() > Some(0), "{info}");
    println!(
        "{name}: enrolled {:?} after its start; named {named:?} after that, interrogated {interrogated:?}",
        registered - started
    );
    assert!(named < limits.named, "{name}: {named:?}");
    assert!(
        interrogated < limits.interrogated,
        "{name}: {interrogated:?}"
    );
    Life {
        name,
        agent,
        bench,
        file,
    }
}

/// Waits for each agent's events, at least for so long that an idle connection would be cut: none is.
async fn rest(lives: &[Life]) {
    let beginnings = || lives.iter().map(|life| life.agent.beginnings());
    let before: Vec<_> = beginnings().collect();
    let began = Instant::now();
    let waits = lives.iter().map(async |life| {
        let rows = life.bench.events("Generic.Client.Stats", EVENTS).await;
        println!(
            "{}: {rows} rows of events after {:?}",
            life.name,
            began.elapsed()
        );
    });
    join_all(waits).await;
    tokio::time::sleep(QUIET.saturating_sub(began.elapsed())).await;
    for ((life, before), after) in lives.iter().zip(before).zip(beginnings()) {
        assert_eq!(before, after, "{}: it had to connect again", life.name);
    }
}

impl Life {
    async fn work(&self) {
        let asked = Instant::now();
        let path = json!({"Path": self.file.display().to_string()});
        let upload = self.bench.collect("Custom.Upload", path).await;
        let done = self.bench.until(&upload, "FINISHED").await;
        println!(
            "{}: an upload of 3 MB: {:?} from the wish to FINISHED",
            self.name,
            asked.elapsed()
        );
        assert_eq!(done["total_uploaded_bytes"], 3_000_000);
        let uploads = self.bench.of_flow(&upload, "/uploads").await;
        let id = uploads[0]["upload_id"].as_str().unwrap();
        let stored = self.bench.upload(&upload, id).await;
        assert!(stored == noise(), "{} bytes differ", stored.len());

        let failing = self.bench.collect("Custom.Fail", json!({})).await;
        let failed = self.bench.until(&failing, "ERROR").await;
        assert_eq!(
            (&failed["reason"], &failed["status"]),
            (&json!("failed"), &json!("it broke here"))
        );

        let slow = self.bench.collect("Custom.Slow", json!({})).await;
        self.bench.until(&slow, "IN_PROGRESS").await;
        self.bench.cancel(&slow).await;
        let cancelled = self.bench.until(&slow, "ERROR").await;
        assert_eq!(cancelled["reason"], "cancelled");
    }

    /// Starts what outlives the outage.
    async fn start_counting(&self) -> String {
        let flow = self.bench.collect("Custom.Count", json!({})).await;
        self.bench.until(&flow, "IN_PROGRESS").await;
        flow
    }

    /// What ran through the outage comes whole and once, and what is asked for after it is done.
    async fn end_counting(&self, flow: &str, back: Instant) {
        let next = self.bench.collect("Custom.Fail", json!({})).await;
        self.bench.within(BACK, &next, "ERROR").await;
        println!(
            "{}: the first answer {:?} after the server's return",
            self.name,
            back.elapsed()
        );
        self.bench.within(BACK, flow, "FINISHED").await;
        let rows = self
            .bench
            .of_flow(flow, "/results/Custom.Count?format=json")
            .await;
        let rows = rows.as_array().unwrap().iter();
        let counted: Vec<_> = rows.map(|row| row["N"].as_u64().unwrap()).collect();
        let expected: Vec<_> = (1..=COUNTED).collect();
        assert_eq!(counted, expected, "{}", self.name);
    }
}
