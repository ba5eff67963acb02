//! An outage of the index, and one of the objects: agents do not notice, nothing ends that is not
//! stored, and everything ends once when the store is there again.

use crate::cluster::Cluster;
use crate::decisions::{completions, ever_ended};
use crate::load::rows;
use nublar_simulator::{Script, UploadScript};
use nublar_tests::{Forwarder, Services, Way, is_long};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a flow takes its agent.
const LIFETIME: Duration = Duration::from_secs(2);
/// In which time workers end what they were at when their store went away.
const BREATH: Duration = Duration::from_secs(2);

/// The timers of the foreman are hastened, so that all of them would go off in the outage.
const CONFIG: &str = "
[foreman]
hasten = 10
snapshot_records = 50

[workers]
report_ms = 200
";

/// A file that only flows with files upload.
const FILE: &str = "/var/log/one.bin";

/// What a store is needed for.
struct Store {
    /// Its name among the services.
    name: &'static str,
    /// Whether the end of every flow waits for it; else those of flows with files alone.
    for_all: bool,
}

fn with_file() -> Script {
    let file = |name: &str, size, compress| UploadScript {
        name: name.to_owned(),
        size,
        compress,
    };
    Script {
        uploads: vec![
            file(FILE, 100_000, false),
            file("/var/log/two.txt", 200_000, true),
        ],
        ..rows(lifetime())
    }
}

fn lifetime() -> u64 {
    u64::try_from(LIFETIME.as_millis()).unwrap()
}

async fn outage(store: Store) {
    let Some(services) = Services::from_env() else {
        return;
    };
    let length = match is_long(&format!("an outage of {}", store.name)) {
        true => Duration::from_secs(60),
        false => 4 * LIFETIME,
    };
    let way = Forwarder::to_url(services.get(store.name)).await;
    let mut cluster = Cluster::start(&services, &[(store.name, &way)], CONFIG).await;
    let load = cluster.load(8).await;
    load.enrolled().await;
    let log = cluster.storage.log.clone();
    let before = load.refusals();
    load.during(&[rows(lifetime()), with_file()], 0, async {
        for gone in [Way::Refused, Way::Silent] {
            load.more_ended(16).await;
            way.set(gone);
            tokio::time::sleep(BREATH).await;
            let ended = ever_ended(log.as_ref()).await;
            let announced = completions(log.as_ref()).await;
            let over = tokio::time::Instant::now() + length;
            // Flows that began before, and flows that begin now.
            load.more_ended(32).await;
            tokio::time::sleep_until(over).await;
            let now = ever_ended(log.as_ref()).await;
            assert_waited(&store, &ended, &now, gone);
            let now = completions(log.as_ref()).await;
            assert_waited(&store, &announced, &now, gone);
            way.set(Way::Open);
        }
    })
    .await;
    let audit = load.assert_kept().await;
    // Whoever polled or posted had no error from it.
    assert_eq!(before, load.refusals(), "agents noticed");
    assert_eq!(audit.finished, audit.flows, "{:?}", audit.reasons);
    cluster.gui.api().settled().await;
    // Nobody was killed: repeats are for those who were.
    let announced = completions(log.as_ref()).await;
    let twice = announced.iter().find(|(_, bodies)| bodies.len() > 1);
    assert!(twice.is_none(), "announced more than once: {twice:?}");
    let ended = ever_ended(log.as_ref()).await;
    assert!(
        ended.keys().eq(announced.keys()),
        "ends without news, or news without ends"
    );
    assert_eq!(ended.len() as u64, audit.flows);
    assert_named(&cluster.worker.printed(), &way);
    eprintln!("{} flows, {} bytes of files", audit.flows, audit.bytes);
    load.stop().await;
    cluster.stop().await;
}

/// Flows, with what was said of them.
type Flows = BTreeMap<String, Vec<String>>;

/// None that needs the store is among those that came since, and all those that do not are not
/// held up.
fn assert_waited(store: &Store, before: &Flows, now: &Flows, gone: Way) {
    let new = now.iter().filter(|(flow, _)| !before.contains_key(*flow));
    let (with_files, without): (Vec<_>, Vec<_>) =
        new.partition(|(_, bodies)| bodies[0].contains(FILE));
    assert!(
        with_files.is_empty(),
        "ended while {gone:?}: {with_files:?}"
    );
    match store.for_all {
        true => assert!(without.is_empty(), "ended while {gone:?}: {without:?}"),
        false => assert!(!without.is_empty(), "held up while {gone:?}"),
    }
}

/// Its log says in a warning what cannot be reached.
fn assert_named(printed: &str, way: &Forwarder) {
    let address = way.url().replace("http://", "");
    let warned = |line: &&str| line.contains("WARN") && line.contains(&address);
    assert!(
        printed.lines().any(|line| warned(&line)),
        "{address} is not named"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_ends_without_the_index() {
    outage(Store {
        name: "OPENSEARCH",
        for_all: true,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_with_files_ends_without_the_objects() {
    outage(Store {
        name: "S3",
        for_all: false,
    })
    .await;
}
