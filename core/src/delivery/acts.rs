//! What the machine is told of polls, and what it says to do.

use crate::ids::ClientKey;
use nublar_schemas::records::{AskPair, Grant, RequestRef};
use std::collections::BTreeSet;

/// A poll as it comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Poll {
    /// Its number in this process.
    pub number: i64,
    /// Hash of the agent's session.
    pub session: [u8; 16],
    /// Version of the agent's event table.
    pub table_version: i64,
    /// The client's generation.
    pub generation: i64,
    /// The packet_iv of the request: that of an earlier one when the agent repeats it.
    pub packet_iv: PacketIv,
}

/// Names the bytes of a request among those of its agent.
pub type PacketIv = [u8; 16];

/// One thing to bring to an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A flow's request.
    Task {
        /// The flow.
        flow: String,
        /// The attempt.
        attempt: i32,
        /// Where the request stands.
        request: RequestRef,
        /// The agent is to overtake its other flows for it.
        urgent: bool,
    },
    /// Questions, in order.
    Ask(Vec<AskPair>),
    /// Stop this flow.
    Cancel(String),
    /// Go on with uploads of a flow that has ended.
    Resume {
        /// The flow.
        flow: String,
        /// Where they stand.
        request: RequestRef,
    },
    /// Run these event queries.
    Table {
        /// The version under which the agent is to take them.
        version: i64,
        /// Where they stand.
        request: RequestRef,
    },
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Append a check-in record; when that fails, say so with
    /// [`Delivery::check_in_failed`](super::Delivery::check_in_failed).
    CheckIn(ClientKey),
    /// Append a claim. Worth trying again only while the poll is held.
    Claim {
        /// The client.
        client: ClientKey,
        /// The flow.
        flow: String,
        /// The attempt.
        attempt: i32,
        /// The poll.
        poll: i64,
        /// The poll's packet_iv.
        packet_iv: PacketIv,
    },
    /// Append an Unsent record, for as long as it takes.
    Unsent {
        /// The client.
        client: ClientKey,
        /// The flow.
        flow: String,
        /// The attempt.
        attempt: i32,
        /// The poll.
        poll: i64,
    },
    /// Append an Unsure record, for as long as it takes.
    Unsure {
        /// The client.
        client: ClientKey,
        /// The flow.
        flow: String,
        /// The attempt.
        attempt: i32,
        /// The poll.
        poll: i64,
    },
    /// Answer the poll with these; when that fails, say so with
    /// [`Delivery::failed`](super::Delivery::failed).
    Answer {
        /// The client.
        client: ClientKey,
        /// The poll.
        poll: i64,
        /// What to bring.
        items: Vec<Item>,
    },
    /// End the poll with nothing: a newer one of the same client has come, or it was deleted.
    End {
        /// The client.
        client: ClientKey,
        /// The poll.
        poll: i64,
    },
    /// Refuse the poll: it is of a session that is held down.
    Refuse {
        /// The client.
        client: ClientKey,
        /// The poll.
        poll: i64,
    },
}

/// What was granted did not leave.
pub(super) fn unsent(client: &ClientKey, grant: &Grant) -> Act {
    Act::Unsent {
        client: client.clone(),
        flow: grant.flow_id.clone(),
        attempt: grant.attempt,
        poll: grant.poll,
    }
}

/// All questions of one answer in one item, without those about flows that start in it: the
/// agent works on the messages of an answer side by side.
pub(super) fn merge(items: Vec<Item>) -> Vec<Item> {
    let starts: BTreeSet<_> = items
        .iter()
        .filter_map(|item| {
            if let Item::Task { flow, .. } = item {
                Some(flow.clone())
            } else {
                None
            }
        })
        .collect();
    let mut pairs: Vec<AskPair> = Vec::new();
    let mut merged = Vec::new();
    for item in items {
        match item {
            Item::Ask(asked) => {
                for pair in asked
                    .into_iter()
                    .filter(|pair| !starts.contains(&pair.flow_id))
                {
                    pairs.retain(|older| older.flow_id != pair.flow_id);
                    pairs.push(pair);
                }
            }
            other if merged.contains(&other) => {}
            other => merged.push(other),
        }
    }
    if !pairs.is_empty() {
        merged.push(Item::Ask(pairs));
    }
    merged
}
