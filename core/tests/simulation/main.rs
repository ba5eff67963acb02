//! Agents, frontends, workers and foremen around a log in memory, in one thread and one random
//! order per seed: the machines of the product, with crashes, zombies, lost answers, repeats and
//! outages between any two of their steps. A failure prints its seed; run that seed again with
//! `NUBLAR_SEED=n` (with `NUBLAR_TRACE=1` to see its records), and more of them with `NUBLAR_SEEDS=n`.
//!
//! | file | what |
//! |---|---|
//! | `world` | the log, the index, the dice, and who moves next |
//! | `agent` | what a real agent does |
//! | `frontend` | POSTs and polls around `delivery` |
//! | `worker` | records to documents around `ingest` |
//! | `foreman` | takeovers around `fold` |
//! | `projection` | the foreman's documents, and removals |
//! | `registry` | who is enrolled, and whose generations have ended |
//! | `check` | what must hold |
//! | `faults` | planted faults that must be caught |

#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

mod agent;
mod check;
mod faults;
mod foreman;
mod frontend;
mod projection;
mod registry;
mod worker;
mod world;

use faults::Fault;
use world::World;

fn seeds(default: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match number("NUBLAR_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("NUBLAR_SEEDS").unwrap_or(default),
    }
}

#[test]
fn no_order_of_events_breaks_a_promise() {
    let mut finished = 0;
    for seed in seeds(2_000) {
        match World::run(seed, None) {
            Ok(flows) => finished += flows,
            Err(violation) => panic!("seed {seed}: {violation}"),
        }
    }
    assert!(
        finished > 0,
        "no flow finished: the simulation shows nothing"
    );
}

#[test]
fn every_planted_fault_is_caught() {
    for fault in Fault::ALL {
        let caught = (0..40_000).find_map(|seed| {
            World::run(seed, Some(fault))
                .err()
                .map(|violation| (seed, violation))
        });
        match caught {
            Some((seed, violation)) => println!("{fault:?}: seed {seed}: {violation}"),
            None => panic!("{fault:?} was not caught by any seed"),
        }
    }
}
