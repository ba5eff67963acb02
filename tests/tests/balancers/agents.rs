//! Simulated agents behind load balancers: nothing is cut, lost or doubled, and all are known by
//! their own addresses. Limits and times are a tenth of what the files have.

use nublar_simulator::{
    ARTIFACT_YAML, AgentConfig, Api, Fleet, Known, Script, Traffic, Trust, UploadScript, Work,
    agent_keys, audit, wait_until_final,
};
use nublar_tests::{Balancer, Installation, Kind, Role, Server, Text, Tls};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Of each scheme.
const AGENTS: usize = 3;
const TASKS: usize = 24;
/// In place of the 60 s of the files.
const LIMIT: &str = "6s";
/// Something passes more often than that; polls are held for longer, unless pads are held back.
const PADDED: &str = "
[frontend]
pad_every_s = 1
ping_every_s = 3
max_poll_s = 12
";
const SHORT: &str = "
[frontend]
pad_every_s = 1
ping_every_s = 3
max_poll_s = 4
";
/// How long agents have nothing to do: longer than any limit.
const QUIET: Duration = Duration::from_secs(8);
const LONG: Duration = Duration::from_secs(60);
/// So many servers with their fleets at once: more are too slow for limits as short as these.
static PLACES: Semaphore = Semaphore::const_new(4);

#[tokio::test(flavor = "multi_thread")]
async fn agents_live_behind_nginx() {
    tokio::join!(
        live_behind(Kind::Nginx, Tls::Ended, PADDED, |text| text),
        live_behind(Kind::Nginx, Tls::Carried, PADDED, |text| text)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_live_behind_nginx_that_holds_back_what_passes() {
    live_behind(Kind::Nginx, Tls::Ended, SHORT, |text| {
        // Over HTTP/2 it would pass pads on even so.
        text.with("ssl http2", "ssl")
            .with("proxy_buffering off", "proxy_buffering on")
            .with("proxy_request_buffering off", "proxy_request_buffering on")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_live_behind_haproxy() {
    tokio::join!(
        live_behind(Kind::Haproxy, Tls::Ended, PADDED, |text| text),
        live_behind(Kind::Haproxy, Tls::Carried, PADDED, |text| text)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_live_behind_envoy() {
    tokio::join!(
        live_behind(Kind::Envoy, Tls::Ended, PADDED, |text| text),
        live_behind(Kind::Envoy, Tls::Carried, PADDED, |text| text)
    );
}

async fn live_behind(kind: Kind, tls: Tls, settings: &str, change: impl FnOnce(Text) -> Text) {
    if !kind.is_installed() {
        return;
    }
    let _place = PLACES.acquire().await.unwrap();
    let installation = Installation::empty().with(&format!("{settings}{}", tls.settings()));
    let mut server = Server::start_role(&installation, Role::Run(2), "run").await;
    let shown = server.secrets().tls.clone();
    let change = |text: Text| change(text).with("60s", LIMIT);
    let balancer = Balancer::before(&server, &installation, (kind, tls), &shown, change).await;

    let api = Api::new(&server.gui(), &server.secrets().api_token).unwrap();
    api.put_artifact(ARTIFACT_YAML).await.unwrap();
    let lives = [false, true].map(|websockets| live(&api, &server, &balancer, websockets));
    futures::future::join_all(lives).await;
    let known = server.api().json("/clients").await;
    let known = known["clients"].as_array().unwrap();
    assert_eq!(known.len(), 2 * AGENTS);
    for client in known {
        assert_eq!(client["last_via"], "127.0.0.2", "{client}");
        let told = client["last_ip"] == "127.0.0.1";
        assert_eq!(told, kind.tells_loopback(tls), "{client}");
        assert!(client["conflict"].is_null(), "{client}");
    }
    server.stop().await;
}

/// Some agents enrol, have nothing to do, then much, then nothing again.
async fn live(api: &Api, server: &Server, balancer: &Balancer, websockets: bool) {
    let url = format!("https://{}/", balancer.address());
    let config = AgentConfig {
        speed: 10.0,
        websockets,
        ..AgentConfig::new(vec![url], server.secrets().orgs[0].nonce.clone())
    };
    let trust = Trust::new(server.secrets().ca.certificate.as_bytes()).unwrap();
    let keys = agent_keys(None, AGENTS).await.unwrap();
    let fleet = Fleet::start(&config, &trust, keys).unwrap();
    let until = Instant::now() + LONG;
    fleet.enrolled(api, until).await.unwrap();
    assert_eq!(fleet.named(api, until).await.unwrap().1, 0);
    let name = format!("websockets: {websockets}");
    let enrolled = Traffic::of(fleet.ledger());
    tokio::time::sleep(QUIET).await;
    let work = Work {
        tasks: TASKS,
        outstanding: 8,
        scripts: scripts(),
        urgent_every: 5,
        cancel_every: 0,
        restart_every: 0,
        name: name.clone(),
        until: Instant::now() + LONG,
    };
    let done = fleet.work(api, &work).await;
    assert_eq!(done.ended, TASKS as u64, "{name}: {done:?}");
    tokio::time::sleep(QUIET).await;
    let ledger = fleet.ledger();
    assert_eq!(wait_until_final(api, ledger, LONG).await.unwrap(), 0);
    let audit = audit(api, ledger, &Known::new()).await.unwrap();
    assert_eq!(audit.violations, 0, "{name}: {:#?}", audit.first);
    assert_eq!(
        audit.finished,
        (TASKS + AGENTS) as u64,
        "{:?}",
        audit.reasons
    );
    let traffic = Traffic::of(ledger);
    assert_eq!(
        (traffic.failed, traffic.refused),
        (0, 0),
        "{name}: {traffic:?}"
    );
    // Nobody had to come anew.
    assert_eq!(traffic.sessions, enrolled.sessions, "{name}: {traffic:?}");
    let held = traffic.task_to_held_poll;
    assert!(held.count > 0 && held.p50_ms < 2_000.0, "{name}: {held:?}");
    fleet.stop().await;
}

/// Rows, a body of several megabytes, and what takes longer than the limits.
fn scripts() -> Vec<Script> {
    let large = UploadScript {
        name: "/var/large".to_owned(),
        size: 7 << 20,
        compress: false,
    };
    vec![
        Script {
            rows: 30,
            rows_per_message: 10,
            row_bytes: 200,
            logs: 2,
            ..Script::default()
        },
        Script {
            rows: 1,
            uploads: vec![large],
            ..Script::default()
        },
        Script {
            rows: 2,
            duration_ms: 70_000,
            ..Script::default()
        },
    ]
}
