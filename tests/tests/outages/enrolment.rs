//! An agent that enrols at one frontend and is at another a moment later.

use crate::cluster::Cluster;
use bytes::Bytes;
use nublar_schemas::agent::{Certificate, ForemanCheckin, VeloMessage};
use nublar_simulator::agent_keys;
use nublar_tests::{Player, Services};
use nublar_wire::{AgentKey, AgentSession, Compression, Plaintext, PublicKey, message_list};
use prost::Message;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

const AGENTS: usize = 50;
const MOMENT: Duration = Duration::from_millis(100);

struct Agent {
    key: AgentKey,
    session: AgentSession,
    nonce: String,
}

impl Agent {
    async fn post(&self, player: &Player, path: &str, message: VeloMessage) -> u16 {
        let lists = [message_list(&[Bytes::from(message.encode_to_vec())])];
        let plain = Plaintext::new(
            &lists,
            Compression::Zlib,
            &self.nonce,
            1_795_515_000_000_000,
        );
        let body = self.session.seal(&plain).unwrap();
        player.post(0, path, body).await.unwrap().status
    }

    async fn poll(&self, player: &Player) -> u16 {
        let message = VeloMessage {
            session_id: "E.Foreman".to_owned(),
            foreman_checkin: Some(ForemanCheckin::default()),
            ..VeloMessage::default()
        };
        self.post(player, "/reader", message).await
    }

    async fn live(&self, number: usize, here: &Player, there: &Player) {
        // Both have looked for it, and know that it is not there.
        let stranger = [self.poll(there).await, self.poll(here).await];
        assert_eq!(stranger, [406, 406], "agent {number} is a stranger");
        assert_eq!(self.enrol(here).await, 406, "agent {number} is let in");
        tokio::time::sleep(MOMENT).await;
        assert_eq!(self.poll(there).await, 200, "agent {number}, elsewhere");
        assert_eq!(
            self.poll(here).await,
            200,
            "agent {number}, where it enrolled"
        );
    }

    async fn enrol(&self, player: &Player) -> u16 {
        let message = VeloMessage {
            session_id: "E:Enrol".to_owned(),
            urgent: true,
            csr: Some(Certificate {
                pem: self.key.csr_pem().unwrap().into(),
                ..Certificate::default()
            }),
            ..VeloMessage::default()
        };
        self.post(player, "/control", message).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_enrols_at_one_frontend_is_known_at_another_100_ms_later() {
    let Some(services) = Services::from_env() else {
        return;
    };
    // A poll for which nothing is there ends soon.
    let mut cluster = Cluster::start(&services, &[], "[frontend]\nmax_poll_s = 0.1\n").await;
    let players = cluster.frontends.each_ref();
    let players = players.map(|frontend| Arc::new(frontend.player()));
    let certificate = players[0].certificate().await.body;
    let server = PublicKey::from_certificate_pem(&certificate).unwrap();
    let nonce = &cluster.gui.secrets().orgs[0].nonce;
    let mut agents = JoinSet::new();
    for (number, key) in (0..).zip(agent_keys(None, AGENTS).await.unwrap()) {
        let agent = Agent {
            session: AgentSession::new(&key, &server).unwrap(),
            nonce: nonce.clone(),
            key,
        };
        let [first, second] = players.clone();
        agents.spawn(async move {
            match number % 2 {
                0 => agent.live(number, &first, &second).await,
                _ => agent.live(number, &second, &first).await,
            }
        });
    }
    while let Some(lived) = agents.join_next().await {
        lived.unwrap();
    }
    cluster.stop().await;
}
