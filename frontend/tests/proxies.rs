//! Behind a load balancer: whose word is taken for whom a connection speaks.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use bytes::Bytes;
use nublar_frontend::{Listen, Networks};
use nublar_schemas::records::Scheduling;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use support::agent::{TestAgent, check_in};
use support::socket::Socket;
use support::{Deployment, Running, eventually};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const CLOSE: &str = "Connection: close\r\n";

/// A frontend that trusts these networks.
async fn start(deployment: &Deployment, trusted: &[&str], proxy_protocol: bool) -> Running {
    deployment
        .start_with(|config| {
            config.max_poll = Duration::from_millis(50);
            config.trusted_proxies = Networks::parse(trusted).unwrap();
            config.proxy_protocol = proxy_protocol;
        })
        .await
}

/// An agent that is registered and has not polled yet.
async fn registered(deployment: &Deployment) -> TestAgent {
    let plain = deployment.start().await;
    let agent = TestAgent::enrolled(deployment, &plain).await;
    plain.stop().await;
    agent
}

/// The address that a frontend recorded of the agent, `by` whoever told it.
async fn recorded(deployment: &Deployment, agent: &TestAgent, running: &Running) -> String {
    let client = agent.key.client_id();
    let check_in = deployment.wait_scheduling(|record| match record {
        Scheduling::CheckIn(of)
            if of.header.client == client && of.header.frontend == running.name =>
        {
            Some(of.clone())
        }
        _ => None,
    });
    let check_in = check_in.await;
    // These agents live in 1970.
    assert!(check_in.clock_skew_ms.unwrap() < -1_000_000_000_000);
    match check_in.via.as_str() {
        "" => check_in.address,
        via => format!("{} by {via}", check_in.address),
    }
}

/// A poll with these lines in its head.
fn poll(agent: &TestAgent, lines: &str) -> Bytes {
    let body = agent.seal(&[check_in(0)]);
    let length = body.len();
    let head =
        format!("POST /reader HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n{lines}\r\n");
    [head.as_bytes(), &body].concat().into()
}

/// Writes it all and reads to the end: the status, or nothing if the connection was closed without
/// an answer.
async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &[u8]) -> Option<u16> {
    // A connection may be closed before everything is written.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut answer));
    let _ = read.await.expect("neither an answer nor an end");
    std::str::from_utf8(answer.get(9..12)?).ok()?.parse().ok()
}

async fn connect(addr: SocketAddr) -> TcpStream {
    TcpStream::connect(addr).await.unwrap()
}

/// Speaks TLS behind what was written already.
async fn secure(
    deployment: &Deployment,
    stream: TcpStream,
) -> tokio_rustls::client::TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(deployment.ca_pem.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let connected = TlsConnector::from(Arc::new(config)).connect(name, stream);
    connected.await.unwrap()
}

/// A header of version 2 for a TCP connection from this address.
fn version_2(source: SocketAddr) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec();
    match source {
        SocketAddr::V4(source) => {
            header.extend([0x11, 0, 12]);
            header.extend(source.ip().octets());
            header.extend([10, 0, 0, 1, 0, 1, 0, 2]);
        }
        SocketAddr::V6(source) => {
            header.extend([0x21, 0, 36]);
            header.extend(source.ip().octets());
            header.extend([0; 20]);
        }
    }
    header
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_header_from_an_unlisted_peer_is_ignored() {
    let deployment = Deployment::new().await;
    let agent = registered(&deployment).await;
    let running = start(&deployment, &["10.0.0.0/8", "203.0.113.0/24"], false).await;
    let lines = format!("{CLOSE}X-Forwarded-For: 203.0.113.9\r\n");
    let stream = connect(running.http).await;
    assert_eq!(ask(stream, &poll(&agent, &lines)).await, Some(200));
    assert_eq!(recorded(&deployment, &agent, &running).await, "127.0.0.1");
    assert_eq!(running.metrics.forwarded_ignored.get(), 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listed_proxy_tells_the_true_address_of_each_request() {
    let deployment = Deployment::new().await;
    let (one, two) = (registered(&deployment).await, registered(&deployment).await);
    let running = start(&deployment, &["127.0.0.0/8", "10.0.0.0/8"], false).await;
    // Both through one connection of the proxy; what agents made up stands in front.
    let mut stream = connect(running.http).await;
    let first = poll(&one, "X-Forwarded-For: 1.2.3.4, 203.0.113.9\r\n");
    stream.write_all(&first).await.unwrap();
    assert_eq!(
        recorded(&deployment, &one, &running).await,
        "203.0.113.9 by 127.0.0.1"
    );
    let lines =
        format!("{CLOSE}X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-For: 2001:db8::9, 10.1.2.3\r\n");
    assert_eq!(ask(stream, &poll(&two, &lines)).await, Some(200));
    assert_eq!(
        recorded(&deployment, &two, &running).await,
        "2001:db8::9 by 127.0.0.1"
    );
    assert_eq!(running.metrics.forwarded_ignored.get(), 0);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listed_proxy_tells_the_true_address_of_a_websocket() {
    let deployment = Deployment::new().await;
    let agent = registered(&deployment).await;
    let running = start(&deployment, &["127.0.0.1"], false).await;
    let mut socket =
        Socket::open_with(&running, "reader", "X-Forwarded-For: 203.0.113.9\r\n").await;
    socket.send(&agent.seal(&[check_in(0)])).await;
    assert_eq!(
        recorded(&deployment, &agent, &running).await,
        "203.0.113.9 by 127.0.0.1"
    );
    drop(socket);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_header_of_a_listed_peer_tells_the_true_address_in_both_versions_and_families() {
    let deployment = Deployment::new().await;
    let running = start(&deployment, &["127.0.0.1"], true).await;
    for (header, address) in [
        (
            b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 8000\r\n".to_vec(),
            "203.0.113.9",
        ),
        (
            b"PROXY TCP6 2001:db8::9 ::1 4711 8000\r\n".to_vec(),
            "2001:db8::9",
        ),
        (
            version_2("203.0.113.9:4711".parse().unwrap()),
            "203.0.113.9",
        ),
        (
            version_2("[2001:db8::9]:4711".parse().unwrap()),
            "2001:db8::9",
        ),
        // A load balancer that looks whether we live.
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec(), "127.0.0.1"),
    ] {
        // Whom the load balancer speaks for is not trusted in turn.
        let lines = format!("{CLOSE}X-Forwarded-For: 1.2.3.4\r\n");
        let expected = match address {
            "127.0.0.1" => "1.2.3.4 by 127.0.0.1".to_owned(),
            address => format!("{address} by 127.0.0.1"),
        };
        let plain = registered(&deployment).await;
        let whole = [&header[..], &poll(&plain, &lines)].concat();
        assert_eq!(ask(connect(running.http).await, &whole).await, Some(200));
        assert_eq!(recorded(&deployment, &plain, &running).await, expected);

        let secured = registered(&deployment).await;
        let mut stream = connect(running.https).await;
        stream.write_all(&header).await.unwrap();
        let stream = secure(&deployment, stream).await;
        assert_eq!(ask(stream, &poll(&secured, &lines)).await, Some(200));
        assert_eq!(recorded(&deployment, &secured, &running).await, expected);
    }
    assert_eq!(running.metrics.proxy_refused.get(), 0);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_header_from_an_unlisted_peer_closes_the_connection() {
    let deployment = Deployment::new().await;
    let agent = registered(&deployment).await;
    let text = b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 8000\r\n".to_vec();
    let binary = version_2("203.0.113.9:4711".parse().unwrap());
    // Not listed, whether or not others may; listed, but not expected to.
    for (trusted, proxy_protocol) in [
        (&["10.0.0.0/8"][..], true),
        (&[][..], false),
        (&["127.0.0.0/8"][..], false),
    ] {
        let running = start(&deployment, trusted, proxy_protocol).await;
        for (header, addr) in [
            (&text, running.http),
            (&binary, running.http),
            (&text, running.https),
            (&binary, running.https),
        ] {
            let whole = [&header[..], &poll(&agent, CLOSE)].concat();
            assert_eq!(ask(connect(addr).await, &whole).await, None);
        }
        // In pieces, too.
        let mut stream = connect(running.http).await;
        stream.write_all(b"PRO").await.unwrap();
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert_eq!(ask(stream, b"XY TCP4 203.0.113.9").await, None);
        assert_eq!(running.metrics.proxy_refused.get(), 5);
        assert_eq!(deployment.check_ins(&agent.client()).await, 0);
        // Who sends none is served as ever.
        if trusted != ["127.0.0.0/8"] {
            let stream = secure(&deployment, connect(running.https).await).await;
            assert_eq!(
                ask(stream, b"GET /healthz HTTP/1.0\r\n\r\n").await,
                Some(200)
            );
        }
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listed_peer_without_the_header_is_not_served_where_it_is_expected() {
    let deployment = Deployment::new().await;
    let running = start(&deployment, &["127.0.0.0/8"], true).await;
    let request = b"GET /healthz HTTP/1.0\r\n\r\n";
    assert_eq!(ask(connect(running.http).await, request).await, None);
    let broken = [b"PROXY TCP4 nobody\r\n", &request[..]].concat();
    assert_eq!(ask(connect(running.http).await, &broken).await, None);
    eventually(async || (running.metrics.proxy_refused.get() == 2).then_some(())).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_serves_both_families_and_each_is_recorded_as_it_is() {
    let deployment = Deployment::new().await;
    let running = deployment
        .start_with(|config| {
            config.max_poll = Duration::from_millis(50);
            let addr = "[::]:0".parse().unwrap();
            config.listen = vec![Listen { addr, tls: false }];
        })
        .await;
    for address in ["127.0.0.1", "::1"] {
        let agent = registered(&deployment).await;
        let addr = SocketAddr::new(address.parse().unwrap(), running.http.port());
        assert_eq!(
            ask(connect(addr).await, &poll(&agent, CLOSE)).await,
            Some(200)
        );
        assert_eq!(recorded(&deployment, &agent, &running).await, address);
    }
    running.stop().await;
}
