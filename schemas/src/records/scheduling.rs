//! Topic `scheduling`: the only input of the foreman's fold.

use super::{Header, RequestRef};
use crate::codec::{record, topic_union};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

topic_union! {
    /// A record of `scheduling`.
    Scheduling {
        CheckIn, FlowStatsSeen, FlowCreated, Claim, Unsent, Unsure, Stored, FactsSet, Command,
        Announce, Tick,
    }
}

/// An agent came to poll.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckIn {
    /// Who and when.
    pub header: Header,
    /// Hash of the agent's session, 16 bytes.
    pub session_key: Bytes,
    /// Version of the event table that the agent runs, 0 when it has none.
    pub table_version: i64,
    /// The agent's address as the frontend sees it.
    pub address: String,
    /// The load balancer or proxy that told the address, empty if none did.
    pub via: String,
    /// How many milliseconds the agent's clock was ahead of the server's when it polled; none if it
    /// did not say.
    pub clock_skew_ms: Option<i64>,
    /// The poll said who the client is, as the first one of a process does and then one a day.
    pub introduces: bool,
}
record!(CheckIn, "check_in.v1", "check_in.v2", "check_in.v3");

/// One FlowStats message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenStats {
    /// The message's session id.
    pub session: String,
    /// Whether the message overtook others.
    pub urgent: bool,
    /// The serialized FlowStats (the message's field, not the VeloMessage).
    pub bytes: Bytes,
}

/// Flow statistics of one POST, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowStatsSeen {
    /// Who and when.
    pub header: Header,
    /// The statistics.
    pub stats: Vec<SeenStats>,
}
record!(FlowStatsSeen, "flow_stats_seen.v1");

/// Somebody wants a collection from a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowCreated {
    /// Who and when.
    pub header: Header,
    /// The new flow's id.
    pub flow_id: String,
    /// The compiled request.
    pub request: RequestRef,
    /// The user.
    pub creator: String,
    /// Names of the artifacts.
    pub artifacts: Vec<String>,
    /// What was asked, as JSON for people.
    pub spec: String,
    /// How many VQLCollectorArgs the request holds.
    pub queries: i32,
    /// Passes the cap on flows in flight.
    pub urgent: bool,
    /// Runs a command: never sent again without a person.
    pub execve: bool,
    /// Server time by which the flow must have ended, microseconds since 1970.
    pub deadline_us: i64,
}
record!(FlowCreated, "flow_created.v1");

/// A frontend that holds the client's poll asks for the right to deliver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Who and when; `frontend` is the claimant.
    pub header: Header,
    /// The flow.
    pub flow_id: String,
    /// The attempt that was offered.
    pub attempt: i32,
    /// The poll's number in that frontend.
    pub poll: i64,
    /// The packet_iv of the agent's request, which an identical repeat shares: 16 bytes, or none in
    /// old records.
    pub packet_iv: Bytes,
}
record!(Claim, "claim.v1", "claim.v2");

/// A granted task did not leave the frontend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsent {
    /// Who and when.
    pub header: Header,
    /// The flow.
    pub flow_id: String,
    /// The attempt that was granted.
    pub attempt: i32,
    /// The poll it was granted to.
    pub poll: i64,
}
record!(Unsent, "unsent.v1");

/// A granted task may or may not have reached the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsure {
    /// Who and when.
    pub header: Header,
    /// The flow.
    pub flow_id: String,
    /// The attempt that was granted.
    pub attempt: i32,
    /// The poll it was granted to.
    pub poll: i64,
}
record!(Unsure, "unsure.v1");

/// What a group of workers has stored of a flow: totals, never deltas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Who and when.
    pub header: Header,
    /// The flow.
    pub flow_id: String,
    /// `results` or `uploads`.
    pub group: String,
    /// Rows.
    pub rows: i64,
    /// Log rows.
    pub logs: i64,
    /// Distinct uploads.
    pub files: i64,
    /// Bytes of uploads.
    pub bytes: i64,
    /// The group has passed the flow's marker.
    pub closing: bool,
    /// Rows overlap: the flow ran twice.
    pub ran_twice: bool,
}
record!(Stored, "stored.v1");

/// What a client said of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FactsSet {
    /// Who and when.
    pub header: Header,
    /// Name of the query the facts come from.
    pub source: String,
    /// JSON object.
    pub facts: String,
    /// Hash of the agent's session, 16 bytes; empty in what was written before it was kept.
    pub session_key: Bytes,
}
record!(FactsSet, "facts_set.v1", "facts_set.v2");

/// A person's command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Who and when.
    pub header: Header,
    /// The command's id, chosen by the caller.
    pub id: String,
    /// What to do: `cancel`, `resume`, `setting`, `delete_client`.
    pub kind: String,
    /// What to do it to: a flow id, a setting's `kind/id`, a client id.
    pub target: String,
    /// Who wants it.
    pub user: String,
    /// JSON.
    pub body: String,
}
record!(Command, "command.v1");

/// A compiled request that the foreman may hand out by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announce {
    /// Who and when.
    pub header: Header,
    /// `interrogation`, `event_table`.
    pub kind: String,
    /// The compiled request.
    pub request: RequestRef,
    /// Names of the artifacts.
    pub artifacts: Vec<String>,
    /// How many VQLCollectorArgs the request holds.
    pub queries: i32,
    /// What it asks, as JSON for people.
    pub spec: String,
}
record!(Announce, "announce.v1");

/// Time, as the fold may know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tick {
    /// Who and when.
    pub header: Header,
    /// Rises with every takeover: ticks of an older epoch are ignored.
    pub epoch: i64,
    /// Milliseconds since the writer's last tick, at most 5,000.
    pub elapsed_ms: i64,
    /// Server time, microseconds since 1970.
    pub wall_us: i64,
}
record!(Tick, "tick.v1");
