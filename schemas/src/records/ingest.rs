//! What frontends cut from agents' POSTs: topics `results`, `uploads` and `events`.

use super::Header;
use crate::codec::record;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// One VeloMessage as the agent sent it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentMessage {
    /// The message's session id.
    pub session: String,
    /// The serialized VeloMessage; empty when it stands in an object.
    pub bytes: Bytes,
    /// Key in Objects of a message that is too large for the log.
    pub object: Option<String>,
}

/// Messages of one agent, cut from one POST, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Messages {
    /// Who and when.
    pub header: Header,
    /// The messages.
    pub messages: Vec<AgentMessage>,
    /// Hash of the agent's session, 16 bytes; empty in what was written before it was kept.
    pub session_key: Bytes,
}
record!(Messages, "messages.v1", "messages.v2");
