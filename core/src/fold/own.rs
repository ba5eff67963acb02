//! Flows that nobody asked for: a new client is asked who it is, and of agents that share one key
//! one is told to make its own.

use super::client::Client;
use super::flow::{Flow, Origin};
use super::{Fold, Turn};
use crate::ids::{ClientKey, ContentId, FlowId, OrgId};
use nublar_schemas::records::{Announce, RequestRef};
use serde::{Deserialize, Serialize};

/// A request that somebody has compiled for such flows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Announced {
    request: RequestRef,
    artifacts: Vec<String>,
    queries: i32,
    spec: String,
}

/// What one such flow is.
struct Own {
    /// Names it, with its client.
    name: &'static [u8],
    /// And when it was called for.
    cause_us: i64,
    /// It may run once at most.
    execve: bool,
    /// How long it may take.
    patience_us: i64,
}

impl Client {
    pub(super) fn waits_for_interrogation(&self) -> bool {
        self.first_seen_us > 0 && self.interrogation.is_none()
    }

    /// Whether one of several agents is about to leave: it was told to make a new key, and may poll
    /// for a while after it has.
    fn makes_a_new_key(&self, now_us: i64, leaves_us: i64) -> bool {
        let flow = self.new_key.as_ref().and_then(|id| self.flows.get(id));
        let stays = |ended_us: i64| now_us.saturating_sub(ended_us) <= leaves_us;
        flow.is_some_and(|flow| flow.ended_us.is_none_or(stays))
    }
}

impl Fold {
    pub(super) fn announce(&mut self, turn: &mut Turn, announce: &Announce) {
        let Ok(org) = announce.header.org.parse::<OrgId>() else {
            self.ignored += 1;
            return;
        };
        let announced = Announced {
            request: announce.request.clone(),
            artifacts: announce.artifacts.clone(),
            queries: announce.queries,
            spec: announce.spec.clone(),
        };
        match announce.kind.as_str() {
            "event_table" => self.table_announced(turn, &org, announce),
            "new_key" => {
                self.new_key.insert(org, announced);
            }
            "interrogation" => {
                self.interrogation.insert(org.clone(), announced);
                let waiting: Vec<_> = self
                    .clients
                    .iter()
                    .filter(|(key, client)| key.org == org && client.waits_for_interrogation())
                    .map(|(key, _)| key.clone())
                    .collect();
                for key in waiting {
                    self.interrogate(turn, &key);
                    self.pump(turn, &key);
                }
            }
            _ => self.ignored += 1,
        }
    }

    /// Creates the flow that asks a new client who it is, once somebody has said how.
    pub(super) fn interrogate(&mut self, turn: &mut Turn, key: &ClientKey) {
        let announced = self.interrogation.get(&key.org);
        let Some(announced) = announced.filter(|_| self.config.interrogate).cloned() else {
            return;
        };
        let Some(client) = self.clients.get(key) else {
            return;
        };
        let own = Own {
            name: b"interrogation",
            cause_us: client.first_seen_us,
            execve: false,
            patience_us: self.config.interrogation_us,
        };
        let id = self.own_flow(turn, key, &announced, &own);
        if let Some(client) = self.clients.get_mut(key) {
            client.interrogation = id;
        }
    }

    /// Creates the flow that has one of several agents make a key of its own: whichever polls. The
    /// others keep the client's id, until one is left.
    pub(super) fn give_new_key(&mut self, turn: &mut Turn, key: &ClientKey) {
        let announced = self.new_key.get(&key.org);
        let Some(announced) = announced.filter(|_| self.config.rekey_clones).cloned() else {
            return;
        };
        // By then whoever was refused beside it has been let in.
        let leaves_us = 2 * self.config.hold_down_us;
        let is_leaving = |client: &Client| client.makes_a_new_key(turn.at_us, leaves_us);
        if self.clients.get(key).is_none_or(is_leaving) {
            return;
        }
        let own = Own {
            name: b"new key",
            cause_us: turn.at_us,
            execve: true,
            patience_us: self.config.turns_us,
        };
        let id = self.own_flow(turn, key, &announced, &own);
        if let Some(client) = self.clients.get_mut(key) {
            client.new_key = id;
        }
    }

    fn own_flow(
        &mut self,
        turn: &mut Turn,
        key: &ClientKey,
        announced: &Announced,
        own: &Own,
    ) -> Option<FlowId> {
        let client = self.clients.get_mut(key)?;
        let cause = ContentId::of(&[
            own.name,
            key.org.as_str().as_bytes(),
            &key.client.to_bytes(),
            &own.cause_us.to_le_bytes(),
        ]);
        let mut tell = [0; 4];
        tell.copy_from_slice(&cause.as_bytes()[..4]);
        let id = self
            .config
            .keys
            .flow_id(key, client.generation, turn.at_us, tell);
        let origin = Origin::Collected {
            request: announced.request.clone(),
            queries: announced.queries,
            urgent: true,
            execve: own.execve,
        };
        let mut flow = Flow::new(origin, turn.version, turn.at_us, self.clock);
        flow.creator = "nublar".to_owned();
        flow.artifacts.clone_from(&announced.artifacts);
        flow.spec.clone_from(&announced.spec);
        flow.deadline_us = turn.at_us + own.patience_us;
        client.flows.insert(id.clone(), Box::new(flow));
        turn.touch_flow(key, &id);
        turn.touch_client(key);
        Some(id)
    }
}
