//! One process that is not started anew, with one fleet after the other: does it keep its size?

use crate::fleet::give;
use crate::plan::Plan;
use nublar_tests::{Installation, Role, Server};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// What a process may keep of each flow that has ended: the foreman remembers it for a day.
const BYTES_A_FLOW: u64 = 4 << 10;
/// What caches take besides: the log keeps 8 MiB of each topic, the index pages.
const SLACK: u64 = 192 << 20;
const FILES: usize = 16;
/// How many looks after each other must see no file closed.
const AT_REST: usize = 10;

/// What a process holds.
#[derive(Clone, Copy, Debug)]
struct Size {
    memory: u64,
    files: usize,
}

impl Size {
    /// Once the fleet that has gone has left nothing open that is still being closed.
    async fn of(server: &Server) -> Self {
        let mut files = server.open_files();
        let mut same = 0;
        while same < AT_REST {
            sleep(Duration::from_millis(200)).await;
            let now = server.open_files();
            same = if now < files { 0 } else { same + 1 };
            files = now;
        }
        Self {
            memory: server.memory(),
            files,
        }
    }
}

/// Rounds of work for this long, two at least; everything of each round is held against its ledger.
pub(crate) async fn soak(plan: &Plan, minutes: u64) {
    let installation = Installation::empty()
        .with_first("partitions = 4\n")
        .with(&plan.settings());
    let mut server = Server::start_role(&installation, Role::Run(2), "run").await;
    let urls = server.agents().to_vec();
    let until = Instant::now() + Duration::from_secs(60 * minutes);
    let mut first = None;
    let mut flows = 0;
    for round in 1.. {
        let found = give(plan, &server, &urls).await.under(async |_| {}).await;
        let audit = &found.audit;
        assert_eq!(audit.violations, 0, "{:?}\n{:#?}", audit.rules, audit.first);
        assert_eq!((found.open, found.done.ended), (0, plan.tasks as u64));
        let size = Size::of(&server).await;
        println!(
            "soak, round {round}: {} flows, {:.0} tasks/s, {} MiB, {} files",
            audit.flows,
            found.done.ended as f64 / found.done.seconds,
            size.memory >> 20,
            size.files,
        );
        let Some(first) = first else {
            // What is made once is made by now.
            first = Some(size);
            continue;
        };
        flows += audit.flows;
        let limit = first.memory + SLACK + flows * BYTES_A_FLOW;
        assert!(size.memory <= limit, "grew to {size:?} from {first:?}");
        assert!(
            size.files <= first.files + FILES,
            "grew to {size:?} from {first:?}"
        );
        if Instant::now() >= until {
            break;
        }
    }
    server.stop().await;
}
