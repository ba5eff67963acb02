//! A foreman by hand: what it would append to `tasks` and `requests`.

use super::{Deployment, PARTITIONS, Running};
use nublar_core::ids::ClientKey;
use nublar_core::partition;
use nublar_core::sealed::SealKeys;
use nublar_ports::Log;
use nublar_schemas::agent::{FlowRequest, VqlCollectorArgs};
use nublar_schemas::codec::Record as _;
use nublar_schemas::records::{
    Ask, AskPair, Cancel, Claim, Grant, Header, Offer, Request, RequestRef, Scheduling, Tasks,
};
use prost::Message as _;

pub(crate) fn request(principal: &str) -> FlowRequest {
    let args = VqlCollectorArgs {
        principal: principal.into(),
        ..Default::default()
    };
    FlowRequest {
        vql_client_actions: vec![args],
        log_batch_time: 5,
        ..Default::default()
    }
}

fn header(client: &ClientKey) -> Header {
    Header {
        client: client.client.to_string(),
        generation: 1,
        ..Header::default()
    }
}

impl Deployment {
    pub(crate) async fn say(&self, client: &ClientKey, task: impl Into<Tasks>) {
        let partition = partition::of_client(client, PARTITIONS);
        let value = task.into().encode().unwrap();
        let key = client.client.to_string();
        self.log
            .inner()
            .append("tasks", partition, key.into(), value.into())
            .await
            .unwrap();
    }

    /// Stores a compiled request.
    pub(crate) async fn compiled(&self, request: &FlowRequest) -> RequestRef {
        self.stored(request.encode_to_vec().into()).await
    }

    /// The same as the people's side does when it holds secrets.
    pub(crate) async fn sealed(&self, request: &FlowRequest) -> RequestRef {
        let keys = SealKeys::of(&super::mac());
        let body = keys.seal(1, &request.encode_to_vec()).unwrap();
        self.stored(body).await
    }

    pub(crate) async fn stored(&self, body: bytes::Bytes) -> RequestRef {
        let hash = bytes::Bytes::copy_from_slice(blake3::hash(&body).as_bytes());
        let partition = u32::from(hash[0]) % 4;
        let record = Request {
            header: Header::default(),
            hash: hash.clone(),
            body,
        };
        let value = record.encode().unwrap();
        let appended = self
            .log
            .inner()
            .append("requests", partition, hash.clone(), value.into());
        let position = appended.await.unwrap();
        RequestRef {
            hash,
            log_generation: position.generation.into(),
            partition: partition as i32,
            offset: position.offset as i64,
        }
    }

    pub(crate) async fn offer(&self, client: &ClientKey, flow: &str, attempt: i32) {
        let (header, flow_id) = (header(client), flow.to_owned());
        self.say(
            client,
            Offer {
                header,
                flow_id,
                attempt,
                urgent: false,
            },
        )
        .await;
    }

    /// The claim of an offered attempt.
    pub(crate) async fn claim(&self, flow: &str, attempt: i32) -> Claim {
        self.wait_scheduling(|record| match record {
            Scheduling::Claim(claim) if claim.flow_id == flow && claim.attempt == attempt => {
                Some(claim.clone())
            }
            _ => None,
        })
        .await
    }

    /// All claims of a flow, in their order.
    pub(crate) async fn claims(&self, flow: &str) -> Vec<Claim> {
        let of = |record| match record {
            Scheduling::Claim(claim) if claim.flow_id == flow => Some(claim),
            _ => None,
        };
        self.scheduling().await.into_iter().filter_map(of).collect()
    }

    pub(crate) async fn grant(&self, client: &ClientKey, claim: &Claim, request: &RequestRef) {
        let grant = Grant {
            header: header(client),
            flow_id: claim.flow_id.clone(),
            attempt: claim.attempt,
            frontend: claim.header.frontend.clone(),
            poll: claim.poll,
            request: request.clone(),
            urgent: false,
            packet_iv: claim.packet_iv.clone(),
        };
        self.say(client, grant).await;
    }

    pub(crate) async fn ask(&self, client: &ClientKey, pairs: &[(&str, &str)]) {
        let pair = |(once, flow): &(&str, &str)| AskPair {
            once: (*once).to_owned(),
            flow_id: (*flow).to_owned(),
        };
        let pairs = pairs.iter().map(pair).collect();
        self.say(
            client,
            Ask {
                header: header(client),
                pairs,
            },
        )
        .await;
    }

    pub(crate) async fn cancel(&self, client: &ClientKey, flow: &str) {
        self.say(
            client,
            Cancel {
                header: header(client),
                flow_id: flow.to_owned(),
            },
        )
        .await;
    }

    /// How many claims for the client were recorded.
    pub(crate) async fn claims_of(&self, client: &ClientKey) -> usize {
        let client = client.client.to_string();
        let of = |record: &&Scheduling| matches!(record, Scheduling::Claim(claim) if claim.header.client == client);
        self.scheduling().await.iter().filter(of).count()
    }

    /// How many check-ins of the client were recorded.
    pub(crate) async fn check_ins(&self, client: &ClientKey) -> usize {
        let client = client.client.to_string();
        let of = |record: &Scheduling| matches!(record, Scheduling::CheckIn(check_in) if check_in.header.client == client);
        self.scheduling()
            .await
            .iter()
            .filter(|record| of(record))
            .count()
    }
}

/// Waits until the frontend holds so many polls.
pub(crate) async fn held(running: &Running, polls: i64) {
    super::eventually(async || (running.metrics.polls_held.get() == polls).then_some(())).await;
}
