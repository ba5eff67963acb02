//! Agents that were started anew and can not be asked what they know: those before 0.73 answer no
//! question about a flow.
//!
//! A new session alone says little, for such an agent makes one after an outage too. But an agent
//! says who it is with the first poll of a process and then once a day. So a session that begins
//! with it, when it is not due, is of a new process, which knows nothing of what the old one ran.

use super::client::{Client, Facts};
use super::flow::{Flow, Task};
use super::{DAY_US, Fold, HOUR_US, Turn};
use crate::ids::{ClientKey, FlowId};
use crate::ingest::CLIENT_INFO;
use serde_json::Value;

/// The first release whose agents answer questions.
const ANSWERS: (u32, u32) = (0, 73);

impl Client {
    /// Whether an agent that says at this time who it is, in the first poll of a session, can not
    /// be asked and was started anew.
    pub(super) fn forgot_its_flows(&self, at_us: i64) -> bool {
        let is_due = |last: &Facts| {
            let age_us = at_us.saturating_sub(last.at_us);
            age_us > DAY_US / 2 && (age_us + HOUR_US / 2) % DAY_US < HOUR_US
        };
        !self.answers_questions() && !self.facts.get(CLIENT_INFO).is_some_and(is_due)
    }

    /// By the version that it said last. Who has not said any is taken for a new one.
    fn answers_questions(&self) -> bool {
        let mut facts: Vec<_> = self.facts.values().collect();
        facts.sort_unstable();
        let newest_first = facts.iter().rev();
        let mut versions = newest_first.filter_map(|facts| version_in(&facts.text));
        versions.next().is_none_or(|version| version >= ANSWERS)
    }
}

impl Fold {
    /// The client's agent, of whose first poll this was the time, knows nothing of what it was given
    /// before.
    pub(super) fn started_anew(&mut self, turn: &mut Turn, key: &ClientKey, at_us: i64) {
        let Some(client) = self.clients.get(key) else {
            return;
        };
        // A claim for that poll may have come before it.
        let is_lost = |flow: &Flow| flow.task == Task::Granted && flow.granted_us < at_us;
        let flows = client.flows.iter().filter(|(_, flow)| is_lost(flow));
        let lost: Vec<FlowId> = flows.map(|(id, _)| id.clone()).collect();
        for id in lost {
            self.unknown(turn, key, &id);
        }
    }
}

/// The first two parts of the agent's version, from what a client said of itself.
fn version_in(facts: &str) -> Option<(u32, u32)> {
    let facts: Value = serde_json::from_str(facts).ok()?;
    let mut spellings = ["Version", "client_version"].iter();
    let version = spellings.find_map(|name| facts.get(name)?.as_str())?;
    let mut parts = version.split(['.', '-']).map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}
