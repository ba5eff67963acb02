//! The long poll: holds a `reader` request until something is due, pads it meanwhile, and brings
//! all that is due in one answer.
//!
//! Nothing is sent before the first pad or task, so that an agent may safely try again until then.

use crate::answer;
use crate::authenticate::Agent;
use crate::body::AnswerBody;
use crate::clock::now_us;
use crate::deliver::{End, Held, Visit};
use crate::front::{Connection, Front, Handed};
use crate::refusal::Refusal;
use bytes::Bytes;
use futures::future::join_all;
use http::Response;
use nublar_core::delivery::Item;
use nublar_core::ids::ClientKey;
use nublar_schemas::records::RequestRef;
use nublar_wire::pad;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout};

/// How long a request may take to be read; it is in memory as a rule.
const REQUEST: Duration = Duration::from_secs(2);
/// How long a task whose request can not be read is kept from being offered again.
const AGAIN: Duration = Duration::from_secs(5);

/// Items on their way to an agent. Unless they are handed over, they did not leave.
pub(crate) struct Outgoing {
    front: Arc<Front>,
    connection: Arc<Connection>,
    client: ClientKey,
    generation: i64,
    poll: i64,
    items: Vec<Item>,
}

impl Outgoing {
    /// The bytes are the connection's from now on.
    pub(crate) fn hand_over(mut self) {
        let metrics = &self.front.metrics;
        let items = std::mem::take(&mut self.items);
        for item in &items {
            match item {
                Item::Task { .. } => metrics.tasks_delivered.inc(),
                Item::Ask(pairs) => metrics.asks_delivered.add(pairs.len() as i64),
                Item::Cancel(_) => metrics.cancels_delivered.inc(),
                Item::Resume { .. } => metrics.resumes_delivered.inc(),
                Item::Table { .. } => metrics.tables_delivered.inc(),
            }
            tracing::debug!(client = %self.client, poll = self.poll, what = answer::kind(item), "brought");
        }
        self.connection.hand_over(Handed {
            at: Instant::now(),
            client: self.client.clone(),
            generation: self.generation,
            poll: self.poll,
            items,
        });
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        let items = std::mem::take(&mut self.items);
        if !items.is_empty() {
            let deliveries = &self.front.deliveries;
            deliveries.failed(&self.client, self.poll, self.generation, items, false);
        }
    }
}

/// Holds the poll and answers it.
///
/// An error when another agent of the same key polls.
pub(crate) async fn answer(
    courier: Courier,
    mut held: Held,
) -> Result<Response<AnswerBody>, Refusal> {
    let front = &courier.front;
    let now = Instant::now();
    let until = now + hold(front.config.max_poll);
    let first_pad = now + front.config.pad_every;
    let end = tokio::select! {
        end = held.end() => Some(end),
        () = sleep_until(first_pad.min(until)) => None,
        () = front.closing.cancelled() => Some(End::Superseded),
    };
    let poll = Padding {
        courier,
        held,
        until,
    };
    Ok(match end {
        Some(End::Items(items)) => match poll.courier.bring(&poll.held, items).await {
            Some(brought) => Response::new(AnswerBody::Brought(Some(brought))),
            None => Response::new(AnswerBody::Full(None)),
        },
        Some(End::Refused) => return Err(Refusal::Clone(poll.held.client().to_string())),
        Some(End::Superseded) => Response::new(AnswerBody::Full(None)),
        None if Instant::now() >= until => Response::new(AnswerBody::Full(None)),
        None => {
            let start = Stage::Pad(Box::new(poll));
            let stream = futures::stream::unfold(start, next);
            Response::new(AnswerBody::Padded(Box::pin(stream)))
        }
    })
}

/// A random part of `max_poll`, so that agents do not come in step.
fn hold(max_poll: Duration) -> Duration {
    let mut random = [0; 2];
    // Without randomness they come in step: no harm.
    let _ = aws_lc_rs::rand::fill(&mut random);
    let part = f64::from(u16::from_be_bytes(random)) / f64::from(u16::MAX);
    max_poll.mul_f64(0.8 + 0.19 * part)
}

/// A poll whose header is sent.
struct Padding {
    courier: Courier,
    held: Held,
    until: Instant,
}

/// Opens an agent's poll, and brings it what it is due.
pub(crate) struct Courier {
    pub(crate) front: Arc<Front>,
    pub(crate) connection: Arc<Connection>,
    pub(crate) agent: Agent,
    pub(crate) visit: Visit,
}

enum Stage {
    Pad(Box<Padding>),
    Wait(Box<Padding>),
    Done,
}

async fn next(stage: Stage) -> Option<(Bytes, Stage)> {
    let mut poll = match stage {
        Stage::Pad(poll) => return Some((pad(), Stage::Wait(poll))),
        Stage::Wait(poll) => poll,
        Stage::Done => return None,
    };
    let next_pad = Instant::now() + poll.courier.front.config.pad_every;
    let closing = poll.courier.front.closing.clone();
    let end = tokio::select! {
        end = poll.held.end() => end,
        () = sleep_until(next_pad) => return Some((pad(), Stage::Wait(poll))),
        () = sleep_until(poll.until) => return None,
        () = closing.cancelled() => return None,
    };
    let End::Items(items) = end else { return None };
    let (bytes, outgoing) = poll.courier.bring(&poll.held, items).await?;
    outgoing.hand_over();
    Some((bytes, Stage::Done))
}

impl Courier {
    /// Opens the poll.
    pub(crate) fn open(&self) -> Held {
        self.front.deliveries.open(&self.agent, &self.visit)
    }

    /// Makes the answer. Tasks whose request can not be read are left out and offered again later;
    /// none if nothing is left.
    pub(crate) async fn bring(&self, held: &Held, items: Vec<Item>) -> Option<(Bytes, Outgoing)> {
        let mut outgoing = self.outgoing(held, items);
        let at_us = now_us();
        let messages = join_all(outgoing.items.iter().map(|item| self.message(item, at_us))).await;
        let (mut here, mut missing) = (Vec::new(), Vec::new());
        let mut bodies = Vec::new();
        for (item, message) in std::mem::take(&mut outgoing.items)
            .into_iter()
            .zip(messages)
        {
            match message {
                Some(message) => {
                    bodies.push(message);
                    here.push(item);
                }
                None => missing.push(item),
            }
        }
        outgoing.items = here;
        self.later(held, missing);
        if bodies.is_empty() {
            return None;
        }
        let until = Instant::now() + self.front.config.hold;
        match self
            .front
            .authenticator
            .seal(&self.agent, &bodies, at_us, until)
            .await
        {
            Ok(bytes) => Some((bytes, outgoing)),
            Err(error) => {
                tracing::error!(client = %held.client(), %error, "an answer can not be sealed");
                None
            }
        }
    }

    fn outgoing(&self, held: &Held, items: Vec<Item>) -> Outgoing {
        Outgoing {
            front: self.front.clone(),
            connection: self.connection.clone(),
            client: held.client().clone(),
            generation: held.generation(),
            poll: held.number(),
            items,
        }
    }

    async fn message(&self, item: &Item, at_us: i64) -> Option<Bytes> {
        let client = self.agent.client();
        match item {
            Item::Ask(pairs) => Some(answer::ask(pairs, at_us)),
            Item::Cancel(flow) => Some(answer::cancel(flow, at_us)),
            Item::Task {
                flow,
                request,
                urgent,
                ..
            } => {
                let body = self.request(request, flow).await?;
                let org = client.org.as_str();
                Some(answer::task(flow, org, *urgent, at_us, &body))
            }
            Item::Resume { flow, request } => {
                let body = self.request(request, flow).await?;
                Some(answer::resume(flow, at_us, &body))
            }
            Item::Table { version, request } => {
                let body = self.request(request, "event table").await?;
                Some(answer::event_table(*version, at_us, &body))
            }
        }
    }

    async fn request(&self, of: &RequestRef, what: &str) -> Option<Bytes> {
        let error = match timeout(REQUEST, self.front.requests.get(of)).await {
            Ok(Ok(body)) => return Some(body),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the log did not answer in time".to_owned(),
        };
        self.front.metrics.requests_missing.inc();
        let client = self.agent.client();
        tracing::error!(%client, what, error, "a request can not be read");
        None
    }

    fn later(&self, held: &Held, missing: Vec<Item>) {
        if missing.is_empty() {
            return;
        }
        let outgoing = self.outgoing(held, missing);
        let closing = self.front.closing.clone();
        self.front.deliveries.tracker().spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                () = closing.cancelled() => {}
            }
            drop(outgoing);
        });
    }
}
