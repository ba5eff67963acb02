//! Agents behind load balancers that end TLS themselves, or carry it to the server. Agents are at
//! [`AGENT`], which is not where the load balancers are, and are known by that.

use crate::agent::{Home, homes};
use crate::life::{Limits, live};
use nublar_tests::{Balancer, Installation, Kind, Pair, Role, Server, Text, Tls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::path::PathBuf;

const AGENT: &str = "127.0.0.1";
/// Polls are held for longer than the load balancers let anything be silent: pads must pass. Agents
/// are told less, to come back soon after the outage.
const HELD: &str = "75";
const TOLD: [&str; 2] = ["--max-poll", "10"];

#[tokio::test(flavor = "multi_thread")]
async fn stock_agents_live_behind_nginx() {
    live_behind(Kind::Nginx).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_agents_live_behind_haproxy() {
    live_behind(Kind::Haproxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_agents_live_behind_envoy() {
    live_behind(Kind::Envoy).await;
}

async fn live_behind(kind: Kind) {
    let homes = homes();
    if homes.is_empty() || !kind.is_installed() {
        return;
    }
    let mut ends = Scene::new(kind, Tls::Ended).await;
    let mut carries = Scene::new(kind, Tls::Carried).await;
    for home in &homes {
        ends.put("tls ended", home, |text| text).await;
        if kind == Kind::Nginx {
            ends.put("buffering", home, buffering).await;
        }
        ends.put_public(home).await;
        carries.put("tls carried", home, |text| text).await;
    }
    tokio::join!(ends.live(), carries.live());
}

/// What nginx does when it is not told otherwise.
fn buffering(text: Text) -> Text {
    text.with("proxy_buffering off", "proxy_buffering on")
        .with("proxy_request_buffering off", "proxy_request_buffering on")
}

/// A server, load balancers in front of it, and agents that live behind them.
struct Scene {
    kind: Kind,
    tls: Tls,
    installation: Installation,
    server: Server,
    balancers: Vec<Balancer>,
    homes: Vec<Home>,
}

impl Scene {
    async fn new(kind: Kind, tls: Tls) -> Self {
        let settings = format!("[frontend]\nmax_poll_s = {HELD}\n{}", tls.settings());
        let installation = Installation::empty().with(&settings);
        let server = Server::start_role(&installation, Role::Run(2), "run").await;
        Self {
            kind,
            tls,
            installation,
            server,
            balancers: Vec::new(),
            homes: Vec::new(),
        }
    }

    /// An agent behind a load balancer of its own, over HTTPS and over WebSockets.
    async fn put(&mut self, name: &str, home: &Home, change: impl FnOnce(Text) -> Text) {
        let shown = self.server.secrets().tls.clone();
        let balancer = self.start(&shown, change).await;
        for scheme in schemes(home) {
            let url = format!("{scheme}://{}/", balancer.address());
            self.homes.push(Home {
                options: TOLD.map(str::to_owned).into(),
                ..home.at(&format!("{scheme} {name}"), &url)
            });
        }
        self.balancers.push(balancer);
    }

    /// The same behind one that shows a certificate of an authority that the machine trusts.
    async fn put_public(&mut self, home: &Home) {
        let (authority, shown) = public();
        let file = PathBuf::from(self.installation.keep(&authority));
        let balancer = self.start(&shown, |text| text).await;
        for scheme in schemes(home) {
            let url = format!("{scheme}://localhost:{}/", balancer.address().port());
            let options = TOLD.into_iter().chain(["--public-certificate"]);
            self.homes.push(Home {
                options: options.map(str::to_owned).collect(),
                authorities: Some(file.clone()),
                ..home.at(&format!("{scheme} public certificate"), &url)
            });
        }
        self.balancers.push(balancer);
    }

    async fn start(&self, shown: &Pair, change: impl FnOnce(Text) -> Text) -> Balancer {
        let as_deployed = (self.kind, self.tls);
        Balancer::before(&self.server, &self.installation, as_deployed, shown, change).await
    }

    async fn live(mut self) {
        let limits = &Limits::AMONG_MANY;
        live(&mut self.server, &self.installation, &self.homes, limits).await;
        let known = self.server.api().json("/clients").await;
        let known = known["clients"].as_array().unwrap();
        assert_eq!(known.len(), self.homes.len());
        for client in known {
            let told = client["last_ip"] == AGENT;
            assert_eq!(told, self.kind.tells_loopback(self.tls), "{client}");
        }
        self.server.stop().await;
    }
}

/// The schemes with TLS that an agent speaks.
fn schemes(home: &Home) -> impl Iterator<Item = &'static str> {
    let all = ["https", "wss"].into_iter();
    all.filter(|scheme| home.speaks(scheme))
}

/// An authority, and a certificate of it for this machine.
fn public() -> (String, Pair) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    let shown = Pair {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    };
    (authority.pem(), shown)
}
