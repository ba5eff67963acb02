//! A client: its contact with us, who it is, and its queue of flows.

use super::addresses::Addresses;
use super::clones::{Contact, Sessions};
use super::flow::{Flow, Origin, Task};
use super::tables::Told;
use super::{Fold, Turn, header};
use crate::ids::{ClientKey, ContentId, FlowId};
use litemap::LiteMap;
use nublar_schemas::records::{Ask, AskPair, Cancel, CheckIn, FactsSet, FlowCreated, Offer};
use serde::{Deserialize, Serialize};

/// Addresses that are remembered of each client.
const ADDRESSES: usize = 8;

/// What a client said of itself in one query.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Facts {
    pub(super) at_us: i64,
    /// JSON object.
    pub(super) text: String,
}

/// Maps of a few entries are sorted lists: a tree's node has room for eleven, and keeps it when it is
/// empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Client {
    pub(super) generation: i64,
    /// Server time of the first check-in; 0 when it never came.
    #[serde(default)]
    pub(super) first_seen_us: i64,
    #[serde(default)]
    pub(super) last_seen_us: i64,
    #[serde(default)]
    pub(super) address: String,
    /// The load balancer or proxy by which it came there; empty without one.
    #[serde(default)]
    pub(super) via: String,
    /// All that it had lately.
    #[serde(default)]
    pub(super) addresses: Addresses,
    /// How far its clock is ahead; none if it has not said.
    #[serde(default)]
    pub(super) clock_skew_ms: Option<i64>,
    #[serde(default)]
    pub(super) table_version: i64,
    #[serde(default)]
    pub(super) told: Told,
    #[serde(default)]
    pub(super) sessions: Sessions,
    /// By the query they come from.
    #[serde(default)]
    pub(super) facts: LiteMap<String, Facts>,
    #[serde(default)]
    pub(super) interrogation: Option<FlowId>,
    /// The last flow that was to make a new key.
    #[serde(default)]
    pub(super) new_key: Option<FlowId>,
    #[serde(default)]
    pub(super) flows: LiteMap<FlowId, Box<Flow>>,
}

impl Client {
    pub(super) fn new(generation: i64) -> Self {
        Self {
            generation,
            first_seen_us: 0,
            last_seen_us: 0,
            address: String::new(),
            via: String::new(),
            addresses: Addresses::default(),
            clock_skew_ms: None,
            table_version: 0,
            told: Told::default(),
            sessions: Sessions::default(),
            facts: LiteMap::with_capacity(1),
            interrogation: None,
            new_key: None,
            flows: LiteMap::with_capacity(1),
        }
    }
}

impl Fold {
    pub(super) fn check_in(&mut self, turn: &mut Turn, key: &ClientKey, check_in: &CheckIn) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        if client.first_seen_us == 0 {
            client.first_seen_us = check_in.header.at_us;
            turn.outputs.push(super::Output::Notify(
                super::documents::enrolment(key, client.generation, check_in.header.at_us).into(),
            ));
        }
        client.last_seen_us = client.last_seen_us.max(check_in.header.at_us);
        turn.touch_client(key);
        let contact = self.contact(turn, key, check_in);
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        if contact == Contact::Refused {
            return;
        }
        client.address.clone_from(&check_in.address);
        client.via.clone_from(&check_in.via);
        let at_us = check_in.header.at_us;
        client
            .addresses
            .saw(&check_in.address, at_us, at_us, ADDRESSES);
        client.clock_skew_ms = check_in.clock_skew_ms;
        client.table_version = check_in.table_version;
        let rekeyed = contact == Contact::New;

        let mut ask = Vec::new();
        for (id, flow) in &mut client.flows {
            flow.asks = 0;
            match flow.task {
                Task::Offered => turn.task(offer(key, client.generation, id, flow, turn.at_us)),
                Task::Granted if flow.cancelled.is_some() => {
                    let header = header(key, client.generation, turn.at_us);
                    turn.task(Cancel {
                        header,
                        flow_id: id.to_string(),
                    });
                }
                Task::Resolved => {
                    let resumed = flow.resumed.as_ref();
                    if let Some(resumed) = resumed.filter(|resumed| resumed.is_to_be_told()) {
                        turn.task(resumed.tell(key, client.generation, id, turn.at_us));
                    }
                }
                Task::Granted | Task::Queued => {}
            }
            if rekeyed && flow.may_be_asked_about() {
                ask.push(id.clone());
            }
        }
        let forgot = rekeyed && check_in.introduces && client.forgot_its_flows(at_us);
        self.ask(turn, key, ask);
        if forgot {
            self.started_anew(turn, key, at_us);
        }
        self.tell_table(turn, key);
        if self
            .clients
            .get(key)
            .is_some_and(Client::waits_for_interrogation)
        {
            self.interrogate(turn, key);
        }
    }

    pub(super) fn flow_created(&mut self, turn: &mut Turn, key: &ClientKey, created: &FlowCreated) {
        let (Ok(id), Some(client)) = (created.flow_id.parse::<FlowId>(), self.clients.get_mut(key))
        else {
            self.ignored += 1;
            return;
        };
        if client.flows.contains_key(&id) {
            return;
        }
        let origin = Origin::Collected {
            request: created.request.clone(),
            queries: created.queries,
            urgent: created.urgent,
            execve: created.execve,
        };
        let mut flow = Flow::new(origin, turn.version, turn.at_us, self.clock);
        flow.creator.clone_from(&created.creator);
        flow.artifacts.clone_from(&created.artifacts);
        flow.spec.clone_from(&created.spec);
        flow.deadline_us = created.deadline_us;
        client.flows.insert(id.clone(), Box::new(flow));
        turn.touch_flow(key, &id);
    }

    /// Offers queued flows as far as the client's limits allow, oldest first.
    pub(super) fn pump(&mut self, turn: &mut Turn, key: &ClientKey) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        let live = || {
            let flows = client.flows.values();
            flows.filter(|flow| matches!(flow.task, Task::Offered | Task::Granted))
        };
        let mut unresolved = live().count();
        // One that is called off has had its time, whether or not its agent ever says so.
        let mut in_flight = live()
            .filter(|flow| !flow.urgent() && !flow.is_called_off())
            .count();
        let mut queued: Vec<_> = client
            .flows
            .iter()
            .filter(|(_, flow)| flow.task == Task::Queued && flow.ended_us.is_none())
            .map(|(id, flow)| (flow.since, id.clone()))
            .collect();
        queued.sort_unstable();
        for (_, id) in queued {
            let Some(flow) = client.flows.get_mut(&id) else {
                continue;
            };
            if unresolved >= self.config.unresolved
                || (!flow.urgent() && in_flight >= self.config.in_flight)
            {
                continue;
            }
            unresolved += 1;
            in_flight += usize::from(!flow.urgent());
            flow.task = Task::Offered;
            turn.task(offer(key, client.generation, &id, flow, turn.at_us));
            turn.touch_flow(key, &id);
        }
    }

    /// Asks the agent about these flows, all in one record.
    pub(super) fn ask(&mut self, turn: &mut Turn, key: &ClientKey, ids: Vec<FlowId>) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        let mut pairs = Vec::new();
        for id in ids {
            let Some(flow) = client.flows.get_mut(&id) else {
                continue;
            };
            flow.asks += 1;
            flow.asked = self.clock;
            let once = once_id(&self.config.keys, key, client.generation, &id, flow.attempt);
            pairs.push(AskPair {
                once: once.to_string(),
                flow_id: id.to_string(),
            });
        }
        if !pairs.is_empty() {
            turn.task(Ask {
                header: header(key, client.generation, turn.at_us),
                pairs,
            });
        }
    }

    pub(super) fn facts_set(&mut self, turn: &mut Turn, key: &ClientKey, facts: &FactsSet) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        let new = Facts {
            at_us: facts.header.at_us,
            text: facts.facts.clone(),
        };
        let known = client.facts.get(&facts.source);
        if known.is_none_or(|known| *known < new) {
            client.sessions.host(facts);
            client.facts.insert(facts.source.clone(), new);
            turn.touch_client(key);
        }
    }
}

pub(super) fn offer(
    key: &ClientKey,
    generation: i64,
    id: &FlowId,
    flow: &Flow,
    at_us: i64,
) -> Offer {
    Offer {
        header: header(key, generation, at_us),
        flow_id: id.to_string(),
        attempt: flow.attempt,
        urgent: flow.urgent(),
    }
}

/// The id that goes before a question about this attempt of the flow. No agent knows it, so its
/// own UNKNOWN_FLOW proves that what follows is the answer to this question.
pub(super) fn once_id(
    keys: &crate::mac::MacKeys,
    key: &ClientKey,
    generation: i64,
    id: &FlowId,
    attempt: i32,
) -> FlowId {
    let hash = ContentId::of(&[b"once", id.as_str().as_bytes(), &attempt.to_le_bytes()]);
    let mut tell = [0; 4];
    tell.copy_from_slice(&hash.as_bytes()[..4]);
    let seconds = crate::mac::seconds_of(id).unwrap_or(0);
    keys.flow_id(key, generation, i64::from(seconds) * 1_000_000, tell)
}
