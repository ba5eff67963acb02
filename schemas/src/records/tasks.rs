//! Topic `tasks`: what the foreman decides, read by every frontend.

use super::{Header, RequestRef};
use crate::codec::{record, topic_union};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

topic_union! {
    /// A record of `tasks`.
    Tasks { Offer, Grant, Ask, Cancel, Withdraw, EventTable, Holder, Resume }
}

/// A task waits for its client's poll.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Which client.
    pub header: Header,
    /// The flow.
    pub flow_id: String,
    /// Number of this attempt to deliver, from 1.
    pub attempt: i32,
    /// Passes the cap on flows in flight.
    pub urgent: bool,
}
record!(Offer, "offer.v1");

/// One poll may deliver the task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Which client.
    pub header: Header,
    /// The flow.
    pub flow_id: String,
    /// The attempt.
    pub attempt: i32,
    /// The frontend that claimed it.
    pub frontend: String,
    /// The poll it claimed it for.
    pub poll: i64,
    /// What to deliver.
    pub request: RequestRef,
    /// The agent is to overtake its other flows for it.
    pub urgent: bool,
    /// The packet_iv of the agent's request, as it was claimed.
    pub packet_iv: Bytes,
}
record!(Grant, "grant.v1", "grant.v2");

/// A question about one flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskPair {
    /// An id made for this flow and attempt, which no agent knows.
    pub once: String,
    /// The flow.
    pub flow_id: String,
}

/// Ask the agent what it knows of these flows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Which client.
    pub header: Header,
    /// The questions, in order.
    pub pairs: Vec<AskPair>,
}
record!(Ask, "ask.v1");

/// Tell the agent to stop a flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    /// Which client.
    pub header: Header,
    /// The flow.
    pub flow_id: String,
}
record!(Cancel, "cancel.v1");

/// An offer no longer holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdraw {
    /// Which client.
    pub header: Header,
    /// The flow.
    pub flow_id: String,
}
record!(Withdraw, "withdraw.v1");

/// Tell the agent which event queries to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventTable {
    /// Which client.
    pub header: Header,
    /// Nanoseconds since 1970; an agent takes a table only if its version is above its own.
    pub version: i64,
    /// The compiled queries: a VQLEventTable without a version.
    pub request: RequestRef,
}
record!(EventTable, "event_table.v1");

/// Whose session polls for a client now. Polls of others end, and check in again; while they are
/// held down they are refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Which client.
    pub header: Header,
    /// Hash of the session, 16 bytes.
    pub session_key: Bytes,
    /// For so long polls of other sessions are refused, milliseconds; 0 when they are not.
    pub hold_ms: i64,
}
record!(Holder, "holder.v1");

/// Tell the agent to go on with uploads of a flow that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// Which client.
    pub header: Header,
    /// The flow.
    pub flow_id: String,
    /// What to deliver: a ResumeTransactions.
    pub request: RequestRef,
}
record!(Resume, "resume.v1");
