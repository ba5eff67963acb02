//! What `nublar check-url` says of the way to a server.

use crate::checked::Checked;
use nublar_simulator::{Habits, Proxy};
use nublar_tests::{Balancer, Installation, Kind, Pair, Role, Server, Text, Tls, free_port};
use rcgen::{CertificateParams, KeyPair};
use std::time::Duration;

const POSTS: [&str; 7] = [
    "address",
    "answers",
    "bodies",
    "certificate",
    "idle limit",
    "seen as",
    "server.pem",
];
const SOCKETS: [&str; 6] = [
    "address",
    "certificate",
    "idle limit",
    "seen as",
    "server.pem",
    "websocket",
];

/// Nothing is silent for longer than is tried.
const FRONTEND: &str = "
[frontend]
pad_every_s = 1.5
ping_every_s = 1.5
";

async fn start(settings: &str) -> (Installation, Server) {
    let installation = Installation::empty().with(&format!("{FRONTEND}{settings}"));
    let server = Server::start_role(&installation, Role::Run(2), "run").await;
    (installation, server)
}

/// Where a server listens without TLS, without scheme and slash.
fn plain(server: &Server) -> &str {
    let mut urls = server.agents().iter();
    let found = urls.find_map(|url| url.strip_prefix("http://")?.strip_suffix('/'));
    found.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_direct_way_is_good_over_every_scheme() {
    let (installation, server) = start("").await;
    let (secure, plain) = (server.agents()[0].clone(), server.agents()[1].clone());
    let file = installation.keep(&server.order(&installation, &["client-config"]));
    for url in [&secure, &plain] {
        let socket = url.replacen("http", "ws", 1);
        let (posts, sockets, theirs) = tokio::join!(
            Checked::quick(installation.data(), url),
            Checked::quick(installation.data(), &socket),
            Checked::of(("--client-config", file.as_ref()), url, &["--idle", "3"]),
        );
        assert_eq!(posts.is_well().abouts(), POSTS);
        posts
            .says("server.pem", "ok", &["of this installation"])
            .says("seen as", "ok", &["127.0.0.1, directly"])
            .says("bodies", "ok", &["11 MiB"]);
        assert_eq!(sockets.is_well().abouts(), SOCKETS);
        assert_eq!(theirs.is_well().abouts(), POSTS);
        theirs.says("server.pem", "ok", &["of the agents' authority"]);
    }
    // Without a URL it is those of the server.
    let said = server.order(&installation, &["check-url", "--idle", "3"]);
    for url in [&secure, &plain] {
        assert!(said.lines().any(|line| line == url), "{said}");
    }
    assert!(
        said.contains("ok    idle limit   none within 3.0 s"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_in_the_way_is_named_with_what_to_change() {
    let (installation, server) = start("").await;
    let listen = "127.0.0.1:0".parse().unwrap();
    let upstream = format!("http://{}", plain(&server));
    let proxy = Proxy::start(listen, None, &upstream, 1).await.unwrap();
    proxy.behave(Habits {
        holds_back: true,
        largest: Some(1 << 20),
        patience: Some(Duration::from_secs(2)),
        tells: true,
    });
    let url = format!("http://{}/", proxy.address());
    let checked = Checked::quick(installation.data(), &url).await;
    assert!(!checked.good);
    checked
        .says("server.pem", "ok", &[])
        .says("answers", "note", &["held back", "proxy_buffering off"])
        .says(
            "idle limit",
            "bad",
            &["2.", "504", "proxy_read_timeout", "timeout server", "10 s"],
        )
        .says(
            "bodies",
            "bad",
            &["413", "11 MiB", "1 MiB pass", "client_max_body_size 12m"],
        )
        .says("seen as", "bad", &["127.0.0.1", "trusted_proxies = "]);
    // It knows nothing of WebSockets.
    let checked = Checked::quick(installation.data(), &url.replacen("http", "ws", 1)).await;
    assert!(!checked.good);
    checked.says("websocket", "bad", &["404", "Upgrade"]);

    // With all of it mended.
    proxy.behave(Habits::default());
    let checked = Checked::quick(installation.data(), &url).await;
    assert!(checked.good, "{checked:#?}");
    checked
        .says("answers", "ok", &[])
        .says("idle limit", "ok", &["none within 3.0 s"])
        // It gathers bodies.
        .says(
            "bodies",
            "note",
            &["11 MiB pass", "proxy_request_buffering off"],
        );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_agents_would_not_trust_or_reach_is_told_apart() {
    let (installation, server) = start("").await;
    let (other, other_server) = start("").await;
    let url = &server.agents()[0];
    let data = other.data();
    // Another installation: of another authority, by its TLS and by what it serves.
    let checked = Checked::quick(data, url).await;
    assert!(!checked.good);
    assert_eq!(checked.abouts(), ["address", "certificate"]);
    checked.says(
        "certificate",
        "bad",
        &["invalid peer certificate", "--public-certificate"],
    );
    let checked = Checked::quick(data, &server.agents()[1]).await;
    assert_eq!(checked.abouts(), ["address", "certificate", "server.pem"]);
    checked.says(
        "server.pem",
        "bad",
        &["invalid peer certificate", "another server"],
    );
    // The same authority, but another key of agents: a frontend with old secrets.
    let mut secrets = server.secrets().clone();
    secrets.agents = secrets.tls.clone();
    secrets.agents = rsa();
    let rolled = Installation::empty();
    rolled.write_secrets(&secrets);
    let checked = Checked::quick(rolled.data(), url).await;
    checked.says("server.pem", "bad", &["another key", "same secrets file"]);
    // The nonce of another organisation.
    secrets.agents = server.secrets().agents.clone();
    secrets.orgs[0].nonce = "another nonce".to_owned();
    let foreign = Installation::empty();
    foreign.write_secrets(&secrets);
    let checked = Checked::quick(foreign.data(), url).await;
    checked.says("frontend", "bad", &["403", "nonce"]);

    // A certificate of nobody.
    let Pair { certificate, key } = nobody();
    let listen = "127.0.0.1:0".parse().unwrap();
    let upstream = format!("http://{}", plain(&server));
    let shown = Some((certificate.as_str(), key.as_str()));
    let proxy = Proxy::start(listen, shown, &upstream, 1).await.unwrap();
    let ours = installation.data();
    let checked = Checked::quick(ours, &format!("https://{}/", proxy.address())).await;
    assert_eq!(checked.abouts(), ["address", "certificate"]);
    checked.says("certificate", "bad", &[]);

    // Nobody there, nobody of this name, nothing at this path, not what is meant.
    let checked = Checked::quick(ours, &format!("https://{}/", free_port())).await;
    checked.says("connection", "bad", &["refused", "listen there"]);
    let checked = Checked::quick(ours, "https://nowhere.invalid/").await;
    assert_eq!(checked.abouts(), ["address"]);
    let checked = Checked::quick(ours, &format!("{url}agents/")).await;
    checked.says("server.pem", "bad", &["404", "frontend.base_path"]);
    // TLS is spoken to who does not speak it.
    let checked = Checked::quick(ours, &format!("https://{}/", plain(&server))).await;
    checked.says("connection", "bad", &[]);
    drop(other_server);
}

/// A certificate that nobody has signed but itself.
fn nobody() -> Pair {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    Pair {
        certificate: params.self_signed(&key).unwrap().pem(),
        key: key.serialize_pem(),
    }
}

/// Another key for agents, signed by nobody in particular: only its key counts here.
fn rsa() -> Pair {
    let key = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
    let params = CertificateParams::new(vec!["VelociraptorServer".to_owned()]).unwrap();
    Pair {
        certificate: params.self_signed(&key).unwrap().pem(),
        key: key.serialize_pem(),
    }
}

/// A server behind a load balancer by the files of `deploy/`, changed.
async fn behind(kind: Kind, tls: Tls, change: impl FnOnce(Text) -> Text) -> (Checked, Checked) {
    let (installation, server) = start(&tls.settings()).await;
    let shown = server.secrets().tls.clone();
    let balancer = Balancer::before(&server, &installation, (kind, tls), &shown, change).await;
    let url = |scheme: &str| format!("{scheme}://{}/", balancer.address());
    let (posts, sockets) = (url("https"), url("wss"));
    let data = installation.data();
    tokio::join!(Checked::quick(data, &posts), Checked::quick(data, &sockets))
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_is_good_as_it_is_deployed_and_each_slip_is_named() {
    if !Kind::Nginx.is_installed() {
        return;
    }
    for tls in [Tls::Ended, Tls::Carried] {
        let (posts, sockets) = behind(Kind::Nginx, tls, |text| text).await;
        let by = match tls {
            Tls::Ended => "127.0.0.1, by X-Forwarded-For of 127.0.0.2",
            Tls::Carried => "127.0.0.1, by a PROXY header of 127.0.0.2",
        };
        posts.is_well().says("seen as", "ok", &[by]);
        sockets.is_well().says("seen as", "ok", &[by]);
    }
    let (posts, sockets) = behind(Kind::Nginx, Tls::Ended, |text| {
        // Over HTTP/2 answers would pass even so.
        text.with("ssl http2", "ssl")
            .with("proxy_buffering off", "proxy_buffering on")
            .with("proxy_request_buffering off", "proxy_request_buffering on")
            .with("client_max_body_size 12m;", "")
            .with("60s", "1s")
            .with(
                "proxy_set_header X-Forwarded-For",
                "proxy_set_header X-Nothing",
            )
            .with("proxy_set_header Upgrade", "proxy_set_header X-Upgrade")
    })
    .await;
    posts
        .says("answers", "note", &["held back"])
        .says("idle limit", "bad", &["504", "proxy_read_timeout"])
        .says(
            "bodies",
            "bad",
            &["413", "1 MiB pass", "client_max_body_size 12m"],
        )
        .says("seen as", "note", &["127.0.0.2", "X-Forwarded-For"]);
    sockets.says("websocket", "bad", &["Upgrade"]);
    let (posts, _) = behind(Kind::Nginx, Tls::Ended, |text| {
        text.with("proxy_request_buffering off", "proxy_request_buffering on")
    })
    .await;
    assert!(posts.good);
    posts.says(
        "bodies",
        "note",
        &["gathered", "proxy_request_buffering off"],
    );
    let (posts, _) = behind(Kind::Nginx, Tls::Carried, |text| {
        text.with("proxy_protocol on;", "")
    })
    .await;
    posts.says(
        "connection",
        "bad",
        &["frontend.proxy_protocol", "proxy_protocol on"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn haproxy_is_good_as_it_is_deployed_and_each_slip_is_named() {
    if !Kind::Haproxy.is_installed() {
        return;
    }
    for tls in [Tls::Ended, Tls::Carried] {
        let (posts, sockets) = behind(Kind::Haproxy, tls, |text| text).await;
        posts.is_well();
        sockets.is_well();
    }
    let (posts, sockets) = behind(Kind::Haproxy, Tls::Ended, |text| {
        text.with("60s", "1s").with("option forwardfor", "")
    })
    .await;
    assert!(!posts.good && !sockets.good);
    posts
        .says("idle limit", "bad", &["504", "timeout server"])
        .says("bodies", "ok", &[])
        .says("seen as", "note", &["127.0.0.2"]);
    sockets
        .says("websocket", "ok", &[])
        .says("idle limit", "bad", &["timeout tunnel", "1.5 s"]);
    let (posts, _) = behind(Kind::Haproxy, Tls::Carried, |text| {
        text.with(" send-proxy-v2", "")
    })
    .await;
    posts.says("connection", "bad", &["send-proxy-v2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_is_good_as_it_is_deployed_and_each_slip_is_named() {
    if !Kind::Envoy.is_installed() {
        return;
    }
    for tls in [Tls::Ended, Tls::Carried] {
        let (posts, sockets) = behind(Kind::Envoy, tls, |text| text).await;
        posts.is_well();
        sockets.is_well();
    }
    let (posts, sockets) = behind(Kind::Envoy, Tls::Ended, |text| {
        text.with("stream_idle_timeout: 60s", "stream_idle_timeout: 1s")
            .with("use_remote_address: true", "use_remote_address: false")
    })
    .await;
    assert!(!posts.good && !sockets.good);
    posts
        .says("idle limit", "bad", &["stream_idle_timeout"])
        .says("bodies", "ok", &[])
        .says("seen as", "note", &["127.0.0.2", "use_remote_address"]);
    sockets.says("websocket", "ok", &[]).says(
        "idle limit",
        "bad",
        &["stream_idle_timeout", "1.5 s"],
    );
    // Its own limit for a whole answer, and no WebSockets.
    let (posts, sockets) = behind(Kind::Envoy, Tls::Ended, |text| {
        text.with(", timeout: 0s", ", timeout: 1s")
            .with("upgrade_type: websocket", "upgrade_type: other")
    })
    .await;
    posts.says("idle limit", "bad", &["504", "timeout: 0s"]);
    sockets.says("websocket", "bad", &["upgrade_type: websocket"]);
    let (posts, _) = behind(Kind::Envoy, Tls::Carried, |text| {
        text.without("    transport_socket:", "    load_assignment:")
    })
    .await;
    posts.says("connection", "bad", &["ProxyProtocolUpstreamTransport"]);
}
