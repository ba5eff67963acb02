//! The way of an agent's body, however it came: checked, cut and stored.

use crate::admission::Room;
use crate::allowance::Verdict;
use crate::authenticate::{self, Agent};
use crate::clock::now_us;
use crate::cut::CheckedIn;
use crate::deliver::{Held, Visit};
use crate::front::{Connection, Front};
use crate::peer::Peer;
use crate::poll::Courier;
use crate::refusal::Refusal;
use bytes::Bytes;
use nublar_core::delivery::PacketIv;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Which of the two it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Post {
    /// What an agent sends.
    Control,
    /// An agent asks what it is to do.
    Reader,
}

/// A body that is stored.
pub(crate) struct Taken {
    pub(crate) agent: Agent,
    packet_iv: PacketIv,
    check_in: CheckedIn,
    clock_skew_ms: Option<i64>,
    /// How long the answer is to be held, because the agent sends too much.
    pub(crate) wait: Duration,
}

impl Taken {
    /// Opens the poll that the body was.
    pub(crate) fn poll(
        self,
        front: &Arc<Front>,
        connection: &Arc<Connection>,
        peer: Peer,
    ) -> (Held, Courier) {
        let visit = Visit {
            packet_iv: self.packet_iv,
            check_in: self.check_in,
            clock_skew_ms: self.clock_skew_ms,
            peer,
        };
        let courier = Courier {
            front: front.clone(),
            connection: connection.clone(),
            agent: self.agent,
            visit,
        };
        (courier.open(), courier)
    }
}

/// How far a clock is ahead of ours, milliseconds; none of who does not say.
fn skew_ms(theirs_us: u64, ours_us: i64) -> Option<i64> {
    let theirs_us = i64::try_from(theirs_us).unwrap_or(i64::MAX);
    (theirs_us > 0).then(|| theirs_us.saturating_sub(ours_us) / 1_000)
}

/// Returns when everything in the body is durable.
pub(crate) async fn take(
    front: &Arc<Front>,
    connection: &Connection,
    post: Post,
    body: Bytes,
    room: Room,
) -> Result<Taken, Refusal> {
    let taken = store(front, connection, post, body, room).await;
    match &taken {
        Ok(_) => front.health.log_works(),
        Err(refusal @ (Refusal::Log(_) | Refusal::Registry)) => {
            front.health.log_failed(refusal.to_string(), Instant::now());
        }
        Err(_) => {}
    }
    taken
}

async fn store(
    front: &Arc<Front>,
    connection: &Connection,
    post: Post,
    body: Bytes,
    room: Room,
) -> Result<Taken, Refusal> {
    let until = Instant::now() + front.config.hold;
    let length = body.len();
    let envelope = authenticate::envelope(body)?;
    let packet_iv = *envelope.packet_iv();
    let (agent, packed) = front.authenticator.check(envelope, until).await?;
    let clock_skew_ms = skew_ms(packed.timestamp_us(), now_us());
    let Verdict::Hold(wait) = front
        .allowances
        .charge(agent.client(), length, Instant::now())
    else {
        return Err(Refusal::Flood(agent.client().to_string()));
    };
    if post == Post::Reader {
        connection.came_back(agent.client());
    }
    // To its end, also when the agent leaves meanwhile: what is half stored is harmless, but more
    // work than what is stored.
    let storing = {
        let (front, agent) = (front.clone(), agent.clone());
        front.deliveries.tracker().clone().spawn(async move {
            let stored = front.store.store(&agent, packed, length).await;
            drop(room);
            stored
        })
    };
    let check_in = storing
        .await
        .map_err(|error| Refusal::Log(error.to_string()))??;
    Ok(Taken {
        agent,
        packet_iv,
        check_in: check_in.unwrap_or_default(),
        clock_skew_ms,
        wait,
    })
}
