//! How much, how fast, and by which chance.

use nublar_simulator::{AgentConfig, Faults, Script, UploadScript};
use nublar_tests::is_long;
use std::time::Duration;

/// What the agents of one flow in [`Plan::scripts`] say went wrong.
pub(crate) const ERROR: &str = "the query failed on purpose";

/// What is given to the fleet, and what is done to the server meanwhile.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) name: &'static str,
    pub(crate) agents: usize,
    pub(crate) tasks: usize,
    pub(crate) kills: usize,
    /// Agents speak over WebSockets.
    pub(crate) websockets: bool,
    /// So many times faster than usual do agents and foremen live.
    speed: u32,
    /// How long giving may take.
    pub(crate) within: Duration,
    /// How long flows may be open when their agents are done.
    pub(crate) settle: Duration,
    pub(crate) seed: u64,
}

impl Plan {
    pub(crate) fn from_env(name: &'static str, kills: usize) -> Self {
        let seed = std::env::var("NUBLAR_SEED").map_or(1, |seed| seed.parse().unwrap());
        eprintln!("{name}: NUBLAR_SEED={seed}");
        if is_long(name) {
            Self {
                name,
                agents: 200,
                tasks: 10_000,
                kills: kills * 3,
                websockets: false,
                speed: 10,
                within: Duration::from_secs(15 * 60),
                settle: Duration::from_secs(120),
                seed,
            }
        } else {
            Self::small(name, kills, seed)
        }
    }

    /// What takes some seconds.
    pub(crate) fn small(name: &'static str, kills: usize, seed: u64) -> Self {
        Self {
            name,
            agents: 20,
            tasks: 210,
            kills,
            websockets: false,
            speed: 20,
            within: Duration::from_secs(120),
            settle: Duration::from_secs(60),
            seed,
        }
    }

    /// What makes the server as fast as its agents.
    pub(crate) fn settings(&self) -> String {
        let speed = self.speed;
        let max_poll = 10.0 / f64::from(speed);
        format!(
            "
[frontend]
max_poll_s = {max_poll}

[foreman]
hasten = {speed}
snapshot_records = 2000

[workers]
report_ms = 200
"
        )
    }

    /// Orders of all kinds, taken in turn: no rows, few, several messages of them, many log rows,
    /// files in line and by reference, empty and compressed ones, an error, some time.
    pub(crate) fn scripts() -> Vec<Script> {
        let file = |name: &str, size, compress| UploadScript {
            name: name.to_owned(),
            size,
            compress,
        };
        let files = vec![
            file("/var/log/simulated.bin", 20_000, false),
            file("/var/log/simulated.txt", 100_000, true),
            file("/etc/empty", 0, false),
            file("/etc/hostname", 10, false),
        ];
        let of = |rows, logs| Script {
            rows,
            logs,
            ..Script::default()
        };
        vec![
            of(3, 1),
            Script {
                rows_per_message: 7,
                row_bytes: 300,
                ..of(40, 2)
            },
            Script {
                uploads: files,
                ..of(1, 1)
            },
            of(0, 0),
            Script {
                error: ERROR.to_owned(),
                ..of(5, 1)
            },
            of(2, 250),
            Script {
                duration_ms: 10_000,
                ..of(10, 3)
            },
        ]
    }

    /// Flows whose agents will report an error.
    pub(crate) fn failing(&self) -> u64 {
        let scripts = Self::scripts();
        let fails = |task: &usize| !scripts[task % scripts.len()].error.is_empty();
        (0..self.tasks).filter(fails).count() as u64
    }

    /// Agents that go to another of these frontends with each request, and see one answer in two.
    pub(crate) fn agents(&self, urls: &[String], nonce: &str) -> AgentConfig {
        let faults = Faults {
            lose_every: 2,
            ..Faults::NONE
        };
        AgentConfig {
            speed: f64::from(self.speed),
            hop: true,
            websockets: self.websockets,
            faults,
            seed: self.seed,
            ..AgentConfig::new(urls.to_vec(), nonce)
        }
    }
}
