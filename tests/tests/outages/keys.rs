//! The key that agents encrypt to is rolled, and certificates end, while they work.

use crate::load::{Load, rows};
use nublar_tests::{Installation, Pair, Role, Secrets, Server, within};
use rcgen::{CertificateParams, DnType, Issuer, KeyPair};
use std::time::Duration;
use time::OffsetDateTime;

/// What a frontend shows.
async fn server_pem(frontend: &str) -> String {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = reqwest::Client::builder()
        .tls_danger_accept_invalid_certs(true)
        .build()
        .unwrap();
    let answer = client.get(format!("{frontend}server.pem")).send().await;
    answer.unwrap().text().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_rolled_and_retired_under_load_and_nothing_is_lost() {
    let installation = Installation::empty().with("[frontend]\nmax_poll_s = 3\n");
    let mut server = Server::start_role(&installation, Role::Run(2), "run").await;
    let agents = 10;
    let load = Load::start(&server.gui(), server.secrets(), server.agents(), agents).await;
    load.enrolled().await;
    let before = server_pem(&server.agents()[0]).await;
    let let_in = load.refusals();
    let scripts = [rows(200)];
    let rolled = load.during(&scripts, 4, async {
        load.more_ended(10).await;
        let said = server.order(&installation, &["keys", "roll", "--in-minutes", "0"]);
        assert!(said.contains("both keys are good"), "{said}");
        for frontend in server.agents() {
            within(
                Duration::from_secs(30),
                "the new key is shown",
                async || {
                    let now = server_pem(frontend).await;
                    if now == before {
                        Err("the old one")
                    } else {
                        Ok(())
                    }
                },
            )
            .await;
        }
        load.more_ended(20).await;
        let rolled = load.refusals();
        let said = server.order(&installation, &["keys", "retire"]);
        assert!(said.contains("is forgotten"), "{said}");
        load.more_ended(30).await;
        rolled
    });
    let rolled = rolled.await;
    assert_eq!(rolled, let_in, "the roll itself refuses nobody");
    let retired = load.refusals();
    assert_eq!(retired.unknown, let_in.unknown, "nobody is told to enrol");
    assert_eq!(retired.failed, let_in.failed);
    // Each request that was under way with the old key, and there are two at once.
    assert!(
        retired.refused - let_in.refused <= 4 * agents as u64,
        "{retired:?}"
    );
    load.assert_kept().await;
    load.stop().await;
    server.stop().await;
}

/// A certificate of the installation's authority for a key, that has begun and ends soon.
fn ends_soon(secrets: &Secrets, key: &KeyPair, until: OffsetDateTime) -> Pair {
    let authority = KeyPair::from_pem(&secrets.ca.key).unwrap();
    let authority = Issuer::from_ca_cert_pem(&secrets.ca.certificate, authority).unwrap();
    let names = ["localhost", "127.0.0.1", "VelociraptorServer"].map(str::to_owned);
    let mut params = CertificateParams::new(names).unwrap();
    params
        .distinguished_name
        .push(DnType::CommonName, "VelociraptorServer");
    params.not_before = until - Duration::from_secs(60);
    params.not_after = until;
    Pair {
        certificate: params.signed_by(key, &authority).unwrap().pem(),
        key: key.serialize_pem(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_end_under_load_and_no_agent_is_refused() {
    let installation = Installation::empty().with("[frontend]\nmax_poll_s = 3\n");
    Server::set_up(&installation).await;
    let mut secrets = Secrets::read(installation.data());
    // Two thirds are over in ten seconds.
    let until = OffsetDateTime::now_utc() + Duration::from_secs(30);
    let agents_key = KeyPair::from_pem(&secrets.agents.key).unwrap();
    secrets.agents = ends_soon(&secrets, &agents_key, until);
    secrets.tls = ends_soon(&secrets, &KeyPair::generate().unwrap(), until);
    installation.write_secrets(&secrets);

    let mut server = Server::start_role(&installation, Role::Run(2), "run").await;
    let load = Load::start(&server.gui(), server.secrets(), server.agents(), 5).await;
    load.enrolled().await;
    let let_in = load.refusals();
    let scripts = [rows(200)];
    let during = load.during(&scripts, 4, async {
        let left = until - OffsetDateTime::now_utc() + Duration::from_secs(2);
        tokio::time::sleep(left.try_into().unwrap_or_default()).await;
        load.more_ended(10).await;
    });
    during.await;
    assert_eq!(load.refusals(), let_in);
    let shown = server_pem(&server.agents()[0]).await;
    assert_ne!(shown.trim(), secrets.agents.certificate.trim());
    // Who comes for the first time sees certificates that are in date, and the old key.
    let late = Load::start(&server.gui(), server.secrets(), server.agents(), 3).await;
    late.enrolled().await;
    let key = |pem: &str| nublar_wire::PublicKey::from_certificate_pem(pem.as_bytes()).unwrap();
    assert_eq!(key(&shown), key(&secrets.agents.certificate));
    load.assert_kept().await;
    load.stop().await;
    late.stop().await;
    server.stop().await;
}
