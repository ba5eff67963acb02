//! A server and agents where there is nothing but IPv6.

use nublar_simulator::{
    ARTIFACT_YAML, AgentConfig, Api, Fleet, Known, Script, Trust, UploadScript, Work, agent_keys,
    audit, wait_until_final,
};
use nublar_tests::{Installation, Role, Server, free_port};
use std::net::TcpListener;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn agents_and_people_live_without_ipv4() {
    if TcpListener::bind("[::1]:0").is_err() {
        eprintln!("not run: this machine has no IPv6");
        return;
    }
    let installation = Installation::empty().with("[frontend]\nmax_poll_s = 1\n");
    let mut server = Server::start_role(&installation, Role::RunV6(2), "run").await;
    let api = Api::new(&server.gui(), &server.secrets().api_token).unwrap();
    api.put_artifact(ARTIFACT_YAML).await.unwrap();
    let trust = Trust::new(server.secrets().ca.certificate.as_bytes()).unwrap();
    let mut fleets = Vec::new();
    for websockets in [false, true] {
        // The first address of two is nobody's.
        let nobody = format!("https://[::1]:{}/", free_port().port());
        let urls = vec![nobody, server.agents()[0].clone()];
        let config = AgentConfig {
            speed: 20.0,
            websockets,
            ..AgentConfig::new(urls, server.secrets().orgs[0].nonce.clone())
        };
        let keys = agent_keys(None, 2).await.unwrap();
        fleets.push(Fleet::start(&config, &trust, keys).unwrap());
    }
    for (number, fleet) in fleets.iter().enumerate() {
        fleet.enrolled(&api, Instant::now() + LONG).await.unwrap();
        let upload = UploadScript {
            name: "/etc/hostname".to_owned(),
            size: 100_000,
            compress: true,
        };
        let work = Work {
            tasks: 6,
            outstanding: 6,
            scripts: vec![Script {
                uploads: vec![upload],
                ..Script::default()
            }],
            urgent_every: 3,
            cancel_every: 0,
            restart_every: 0,
            name: format!("families-{number}"),
            until: Instant::now() + LONG,
        };
        let done = fleet.work(&api, &work).await;
        assert_eq!(done.ended, 6, "{done:?}");
        assert_eq!(
            wait_until_final(&api, fleet.ledger(), LONG).await.unwrap(),
            0
        );
        let audit = audit(&api, fleet.ledger(), &Known::new()).await.unwrap();
        assert_eq!(audit.violations, 0, "{:#?}", audit.first);
        assert!(audit.bytes > 0 && audit.rows > 0);
    }
    let clients = server.api().json("/clients").await;
    for client in clients["clients"].as_array().unwrap() {
        assert_eq!(client["last_ip"], "::1", "{client}");
    }
    // The commands find the server, and its clients by a beginning of their address.
    for (search, found) in [("ip:::", 5), ("ip:::1", 5), ("ip:::2", 1), ("ip:127.", 1)] {
        let said = server.order(&installation, &["clients", search]);
        assert_eq!(said.lines().count(), found, "{search}: {said}");
    }
    server.order(&installation, &["check-url", "--idle", "1"]);
    let config = server.order(&installation, &["client-config"]);
    assert!(config.contains("https://[::1]:"), "{config}");
    for fleet in fleets {
        fleet.stop().await;
    }
    server.stop().await;
}
