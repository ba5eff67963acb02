//! What frontends and workers report: claims, statistics, answers to questions, what is stored.

use super::client::once_id;
use super::flow::{Flow, GivenUp, Origin, Task};
use super::{Fold, Turn, header};
use crate::ids::{ClientKey, FlowId, Session};
use crate::stats::is_unknown;
use nublar_schemas::agent::FlowStats;
use nublar_schemas::records::{Claim, FlowStatsSeen, Grant, Stored, Unsent, Unsure};
use prost::Message;

impl Fold {
    /// The first claim of an offered attempt is granted. It binds the attempt to one request of the
    /// agent; who claims it for a repeat of that request is granted it as well, for the agent saw
    /// nothing of the first answer.
    pub(super) fn claim(&mut self, turn: &mut Turn, key: &ClientKey, claim: &Claim) {
        let clock = self.clock;
        let Some((generation, id, flow)) = self.flow_mut(key, &claim.flow_id) else {
            return;
        };
        let Origin::Collected { request, .. } = &flow.origin else {
            return;
        };
        if flow.attempt != claim.attempt {
            return;
        }
        let to = (claim.header.frontend.clone(), claim.poll);
        match flow.task {
            Task::Offered => {
                flow.deliveries += 1;
                flow.granted.clear();
                flow.granted_iv = claim.packet_iv.to_vec();
            }
            Task::Granted if flow.is_repeated_by(claim) && !flow.granted.contains(&to) => {}
            _ => return,
        }
        let grant = Grant {
            header: header(key, generation, turn.at_us),
            flow_id: claim.flow_id.clone(),
            attempt: flow.attempt,
            frontend: claim.header.frontend.clone(),
            poll: claim.poll,
            request: request.clone(),
            urgent: flow.urgent(),
            packet_iv: claim.packet_iv.clone(),
        };
        flow.task = Task::Granted;
        flow.granted.reserve_exact(1);
        flow.granted.push(to);
        flow.granted_us = flow.granted_us.max(claim.header.at_us);
        flow.news = clock;
        flow.asked = clock;
        flow.asks = 0;
        flow.started_us.get_or_insert(turn.at_us);
        turn.task(grant);
        turn.touch_flow(key, &id);
    }

    /// Nothing left the frontend. Once that holds for all that were granted the attempt it is offered
    /// again, and it counts for nothing; until then only the agent can tell.
    pub(super) fn unsent(&mut self, turn: &mut Turn, key: &ClientKey, unsent: &Unsent) {
        let to = (unsent.header.frontend.as_str(), unsent.poll);
        let Some((_, id, flow)) = self.granted(key, &unsent.flow_id, unsent.attempt, to) else {
            return;
        };
        flow.granted
            .retain(|(frontend, poll)| (frontend.as_str(), *poll) != to);
        if !flow.granted.is_empty() {
            return self.ask(turn, key, vec![id]);
        }
        flow.deliveries -= 1;
        requeue(flow);
        turn.touch_flow(key, &id);
    }

    /// Bytes may have left: only the agent can tell.
    pub(super) fn unsure(&mut self, turn: &mut Turn, key: &ClientKey, unsure: &Unsure) {
        let to = (unsure.header.frontend.as_str(), unsure.poll);
        let Some((_, id, _)) = self.granted(key, &unsure.flow_id, unsure.attempt, to) else {
            return;
        };
        self.ask(turn, key, vec![id]);
    }

    pub(super) fn stats_seen(&mut self, turn: &mut Turn, key: &ClientKey, seen: &FlowStatsSeen) {
        // The flow whose one-off id the agent has just called unknown: what it says next counts.
        let mut asked: Option<FlowId> = None;
        for item in &seen.stats {
            let about = asked.take();
            let Ok(mut stats) = FlowStats::decode(item.bytes.clone()) else {
                self.ignored += 1;
                continue;
            };
            let queries = stats.query_status.iter_mut();
            for name in queries.flat_map(|query| &mut query.names_with_response) {
                *name = self.config.names.reveal(std::mem::take(name));
            }
            let Ok(Session::Flow { id, part }) = item.session.parse::<Session>() else {
                self.ignored += 1;
                continue;
            };
            if is_unknown(&stats) {
                if about.as_ref() == Some(&id) {
                    self.unknown(turn, key, &id);
                } else {
                    asked = self.question(key, &id);
                }
                continue;
            }
            if self.resumption_seen(turn, key, &id, &stats) {
                continue;
            }
            self.adopt(turn, key, &id);
            let clock = self.clock;
            let Some((generation, id, flow)) = self.flow_mut(key, id.as_str()) else {
                continue;
            };
            flow.sign_of_life(clock);
            flow.reported.join(&part, &stats);
            flow.marker |= part.is_empty() && stats.flow_complete && !item.urgent;
            if flow.reported.complete() {
                if flow.task == Task::Offered {
                    turn.withdraw(key, generation, &id);
                }
                flow.task = Task::Resolved;
            } else {
                live_after_all(turn, key, generation, &id, flow);
            }
            watch_for_missing(flow, clock);
            turn.touch_flow(key, &id);
        }
    }

    pub(super) fn stored(&mut self, turn: &mut Turn, key: &ClientKey, stored: &Stored) {
        let Ok(id) = stored.flow_id.parse::<FlowId>() else {
            self.ignored += 1;
            return;
        };
        self.adopt(turn, key, &id);
        let clock = self.clock;
        let Some((generation, id, flow)) = self.flow_mut(key, id.as_str()) else {
            return;
        };
        let totals = match stored.group.as_str() {
            "results" => &mut flow.results,
            "uploads" => &mut flow.uploads,
            _ => return,
        };
        totals.join(stored);
        if stored.rows + stored.logs + stored.files + stored.bytes > 0 && !flow.alive {
            flow.sign_of_life(clock);
            live_after_all(turn, key, generation, &id, flow);
        }
        watch_for_missing(flow, clock);
        turn.touch_flow(key, &id);
    }

    /// Which flow a one-off id asks about.
    fn question(&self, key: &ClientKey, once: &FlowId) -> Option<FlowId> {
        let client = self.clients.get(key)?;
        client
            .flows
            .iter()
            .filter(|(_, flow)| flow.may_be_asked_about())
            .find(|(id, flow)| {
                once_id(&self.config.keys, key, client.generation, id, flow.attempt) == *once
            })
            .map(|(id, _)| id.clone())
    }

    /// The agent does not know the flow: it was asked about this attempt, or can not be asked and
    /// was started anew.
    pub(super) fn unknown(&mut self, turn: &mut Turn, key: &ClientKey, id: &FlowId) {
        let deliveries = self.config.deliveries;
        let Some((_, id, flow)) = self.flow_mut(key, id.as_str()) else {
            return;
        };
        turn.touch_flow(key, &id);
        if flow.is_called_off() {
            flow.task = Task::Resolved;
        } else if flow.alive {
            flow.forgotten = true;
            flow.task = Task::Resolved;
        } else if flow.runs_commands() {
            flow.given_up = Some(GivenUp::MayHaveRun);
            flow.task = Task::Resolved;
        } else if flow.deliveries >= deliveries {
            flow.given_up = Some(GivenUp::NeverAlive);
            flow.task = Task::Resolved;
        } else {
            requeue(flow);
        }
    }

    /// Makes a document for a flow that came from another server with its agent.
    fn adopt(&mut self, turn: &mut Turn, key: &ClientKey, id: &FlowId) {
        let clock = self.clock;
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        if client.flows.contains_key(id) {
            return;
        }
        // One of ours that is not here was forgotten long ago: a late repeat makes no new flow.
        if self.config.keys.made_for(id, key, client.generation) {
            self.ignored += 1;
            return;
        }
        let flow = Flow::new(Origin::Adopted, turn.version, turn.at_us, clock);
        client.flows.insert(id.clone(), Box::new(flow));
    }

    pub(super) fn flow_mut(
        &mut self,
        key: &ClientKey,
        id: &str,
    ) -> Option<(i64, FlowId, &mut Flow)> {
        let id: FlowId = id.parse().ok()?;
        let client = self.clients.get_mut(key)?;
        let generation = client.generation;
        let flow = client.flows.get_mut(&id)?;
        Some((generation, id, flow))
    }

    /// The flow, if this grant is of its current attempt and nothing came of it yet.
    fn granted(
        &mut self,
        key: &ClientKey,
        id: &str,
        attempt: i32,
        to: (&str, i64),
    ) -> Option<(i64, FlowId, &mut Flow)> {
        self.flow_mut(key, id).filter(|(_, _, flow)| {
            flow.task == Task::Granted
                && !flow.alive
                && flow.attempt == attempt
                && flow
                    .granted
                    .iter()
                    .any(|(frontend, poll)| (frontend.as_str(), *poll) == to)
        })
    }
}

impl Flow {
    /// Whether the claim is for a repeat of the request that the current attempt is bound to.
    fn is_repeated_by(&self, claim: &Claim) -> bool {
        !claim.packet_iv.is_empty()
            && self.granted_iv == claim.packet_iv
            && !self.alive
            && self.cancelled.is_none()
            && self.given_up.is_none()
    }
}

/// A new attempt: the old one's claims and answers no longer count.
fn requeue(flow: &mut Flow) {
    if flow.cancelled.is_some() {
        flow.task = Task::Resolved;
        return;
    }
    flow.attempt += 1;
    flow.granted.clear();
    flow.granted_iv.clear();
    flow.task = Task::Queued;
}

/// A flow that waits to be sent again shows life: it must not be sent.
fn live_after_all(turn: &mut Turn, key: &ClientKey, generation: i64, id: &FlowId, flow: &mut Flow) {
    if matches!(flow.task, Task::Queued | Task::Offered) {
        if flow.task == Task::Offered {
            turn.withdraw(key, generation, id);
        }
        flow.task = Task::Granted;
    }
}

fn watch_for_missing(flow: &mut Flow, clock: u64) {
    if flow.lacks() {
        flow.short_since.get_or_insert(clock);
    } else {
        flow.short_since = None;
        flow.short = false;
    }
}
