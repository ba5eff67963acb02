//! First contact: server.pem, paths, enrolment, and who is not taken in.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use nublar_schemas::records::Registry;
use nublar_wire::{AgentKey, AgentPublicKey, AgentSession, PublicKey};
use reqwest::StatusCode;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _};
use std::time::Duration;
use support::agent::{TestAgent, Version, check_in, client, csr, rows};
use support::{Deployment, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn server_pem_is_of_the_agents_authority_and_names_the_server() {
    let deployment = Deployment::new().await;
    let running = deployment.start().await;
    let http = client(&deployment, Version::Tls2);
    let url = format!("https://localhost:{}/server.pem", running.https.port());
    let answer = http.get(url).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let pem = answer.bytes().await.unwrap();
    assert_eq!(
        PublicKey::from_certificate_pem(&pem).unwrap(),
        deployment.server
    );

    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(deployment.ca_pem.as_bytes()).unwrap())
        .unwrap();
    let verifier = WebPkiServerVerifier::builder(roots.into()).build().unwrap();
    let certificate = CertificateDer::from_pem_slice(&pem).unwrap();
    let verify = |name: &'static str| {
        let name = ServerName::try_from(name).unwrap();
        verifier.verify_server_cert(&certificate, &[], &name, &[], UnixTime::now())
    };
    verify("VelociraptorServer").unwrap();
    assert!(verify("localhost").is_err());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_stand_under_the_base_path_and_have_two_names() {
    let deployment = Deployment::new().await;
    let running = deployment
        .start_with(|config| config.base_path = "/velo".into())
        .await;
    let mut agent = TestAgent::new(&deployment, &running);
    let get = async |path: &str| {
        agent
            .http
            .get(format!("http://{}{path}", running.http))
            .send()
            .await
            .unwrap()
            .status()
    };
    assert_eq!(get("/velo/server.pem").await, StatusCode::OK);
    assert_eq!(get("/velo/healthz").await, StatusCode::OK);
    for path in [
        "/server.pem",
        "/velo/public/tool.exe",
        "/velo/control",
        "/velo",
        "/",
    ] {
        assert_eq!(get(path).await, StatusCode::NOT_FOUND, "{path}");
    }
    agent.base = format!("http://{}/velo/", running.http);
    assert_eq!(agent.poll().await.status(), StatusCode::NOT_ACCEPTABLE);
    agent.enrol().await;
    for alias in ["control", "send_messages"] {
        let answer = agent.post(alias, &[rows("F.Monitoring", "A", "{}")]).await;
        assert_eq!(answer.status(), StatusCode::OK, "{alias}");
    }
    assert_eq!(deployment.messages("events").await.len(), 2);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_taken_in_by_its_request_over_every_version_of_http() {
    let deployment = Deployment::new().await;
    let running = deployment
        .start_with(|config| config.max_poll = Duration::from_millis(100))
        .await;
    for version in [Version::Plain, Version::Tls1, Version::Tls2] {
        let agent = TestAgent::over(&deployment, &running, version);
        let first = agent
            .post("reader", &[check_in(0), rows("F.Monitoring", "X", "{}")])
            .await;
        assert_eq!(first.status(), StatusCode::NOT_ACCEPTABLE);
        let expected = match version {
            Version::Tls2 => reqwest::Version::HTTP_2,
            Version::Plain | Version::Tls1 => reqwest::Version::HTTP_11,
        };
        assert_eq!(first.version(), expected);
        agent.enrol().await;
        let answer = agent.poll().await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert!(agent.read(answer).await.is_empty());
        // Again: nothing is written twice.
        let again = agent.post("control", &[agent.csr()]).await;
        assert_eq!(again.status(), StatusCode::OK);
        let keys: Vec<_> = deployment
            .registry()
            .await
            .into_iter()
            .filter(|record| record.header().client == agent.key.client_id())
            .collect();
        let [Registry::ClientKey(key)] = &keys[..] else {
            panic!("{keys:?}")
        };
        assert_eq!(key.header.generation, 1);
        let public = AgentPublicKey::from_der(&key.public_key).unwrap();
        assert_eq!(&public, agent.key.public_key());
    }
    assert!(
        deployment.messages("events").await.is_empty(),
        "nothing of a stranger is stored"
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_requests_take_nobody_in() {
    let deployment = Deployment::new().await;
    let running = deployment.start().await;
    let agent = TestAgent::new(&deployment, &running);
    let victim = AgentKey::generate().unwrap();

    // For the victim's id with a key of one's own, under either name.
    let forged = csr(&agent.key.csr_pem_for(victim.client_id()).unwrap());
    assert_eq!(
        agent
            .post("control", std::slice::from_ref(&forged))
            .await
            .status(),
        406
    );
    let named = TestAgent {
        session: AgentSession::with_source(&agent.key, &deployment.server, victim.client_id())
            .unwrap(),
        ..agent.at(&deployment, &running)
    };
    assert_eq!(named.post("control", &[forged]).await.status(), 406);
    // The victim's own request, sent by somebody else.
    let stolen = csr(&victim.csr_pem().unwrap());
    assert_eq!(
        agent
            .post("control", std::slice::from_ref(&stolen))
            .await
            .status(),
        406
    );
    assert_eq!(named.post("control", &[stolen]).await.status(), 406);
    // Under a session that is not that of enrolment.
    let mut elsewhere = agent.csr();
    elsewhere.session_id = "E.Enrol".into();
    assert_eq!(agent.post("control", &[elsewhere]).await.status(), 406);
    assert_eq!(agent.post("control", &[csr("no pem")]).await.status(), 406);
    assert!(deployment.registry().await.is_empty());
    assert_eq!(running.metrics.refused_csr.get(), 5);
    assert_eq!(running.metrics.enrolled.get(), 0);

    // A name that is no client id is nobody's.
    let source = "C.0123456789ABCDEF";
    let session = AgentSession::with_source(&agent.key, &deployment.server, source).unwrap();
    let odd = TestAgent {
        session,
        ..agent.at(&deployment, &running)
    };
    assert_eq!(
        odd.post("control", &[agent.csr()]).await.status(),
        StatusCode::FORBIDDEN
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_agents_name_or_an_unknown_nonce_gets_nothing_stored() {
    let deployment = Deployment::new().await;
    let running = deployment.start().await;
    let victim = TestAgent::enrolled(&deployment, &running).await;
    victim.control(&[rows("F.Monitoring", "A", "{}")]).await;

    let thief = AgentKey::generate().unwrap();
    let session =
        AgentSession::with_source(&thief, &deployment.server, victim.key.client_id()).unwrap();
    let thief = TestAgent {
        session,
        ..victim.at(&deployment, &running)
    };
    let answer = thief
        .post("control", &[rows("F.Monitoring", "A", "{}"), thief.csr()])
        .await;
    assert_eq!(answer.status(), StatusCode::NOT_ACCEPTABLE);

    let stranger = TestAgent {
        nonce: "wrong".into(),
        ..victim.at(&deployment, &running)
    };
    let answer = stranger
        .post("control", &[rows("F.Monitoring", "A", "{}")])
        .await;
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);

    // The same agent under another org's nonce is another client, which nobody knows.
    let moved = TestAgent {
        nonce: "other org".into(),
        ..victim.at(&deployment, &running)
    };
    let answer = moved
        .post("control", &[rows("F.Monitoring", "A", "{}")])
        .await;
    assert_eq!(answer.status(), StatusCode::NOT_ACCEPTABLE);
    assert_eq!(deployment.messages("events").await.len(), 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_enrols_at_one_frontend_is_known_at_every_other_one() {
    let deployment = Deployment::new().await;
    let first = deployment.start().await;
    let second = deployment
        .start_with(|config| config.max_poll = Duration::from_millis(50))
        .await;
    assert_ne!(first.name, second.name);
    for _ in 0..5 {
        let agent = TestAgent::enrolled(&deployment, &first).await;
        let there = agent.at(&deployment, &second);
        assert_eq!(
            there.poll().await.status(),
            StatusCode::OK,
            "at once, without a second 406"
        );
    }
    assert_eq!(second.metrics.refused_unknown.get(), 0);

    // A frontend that starts later has read the registry before it is ready.
    let third = deployment
        .start_with(|config| config.max_poll = Duration::from_millis(50))
        .await;
    assert_eq!(third.metrics.registered.get(), 5);
    for running in [first, second, third] {
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn misses_of_one_session_share_one_decryption_and_answers_one_signature() {
    let deployment = Deployment::new().await;
    let running = deployment.start().await;
    let agent = TestAgent::enrolled(&deployment, &running).await;
    eventually(async || (running.metrics.registered.get() == 1).then_some(())).await;
    let before = running.metrics.sessions_opened.get();
    let again = agent.at(&deployment, &running);
    let posts = (0..20).map(|_| async { again.control(&[rows("F.Monitoring", "A", "{}")]).await });
    futures::future::join_all(posts).await;
    assert_eq!(running.metrics.sessions_opened.get(), before + 1);
    assert!(running.metrics.sessions_signed.get() <= 20);
    let signed = running.metrics.sessions_signed.get();
    again.control(&[rows("F.Monitoring", "A", "{}")]).await;
    assert_eq!(running.metrics.sessions_signed.get(), signed, "it is kept");
    running.stop().await;
}
