//! Topics that hold keys, settings, documents, requests, wishes and news.

use super::Header;
use crate::codec::{record, topic_union};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A compiled request (topic `requests`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Who and when.
    pub header: Header,
    /// BLAKE3 of the body, 32 bytes.
    pub hash: Bytes,
    /// Serialized FlowRequest.
    pub body: Bytes,
}
record!(Request, "request.v1");

/// A collection that was asked for under a key (topic `wishes`). Of those with one cause the first
/// in its partition counts: it says which flow they all are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// Which client, and when the flow was made that this one would become.
    pub header: Header,
    /// Hash of organisation, client and key, 16 bytes.
    pub cause: Bytes,
    /// Hash of what was asked, 16 bytes.
    pub asked: Bytes,
    /// The flow.
    pub flow_id: String,
}
record!(Wish, "wish.v1");

topic_union! {
    /// A record of `registry`.
    Registry { ClientKey, ClientLife }
}

/// An agent's public key, written by frontends at enrolment (key `client/key/generation`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientKey {
    /// Which client; `generation` is the one it was enrolled under.
    pub header: Header,
    /// DER SubjectPublicKeyInfo.
    pub public_key: Bytes,
}
record!(ClientKey, "client_key.v1");

fn name(of: &Header, kind: &str) -> String {
    format!("{}/{}/{kind}/{}", of.org, of.client, of.generation)
}

impl ClientKey {
    /// The record's key in the log. It holds the generation, so that compaction, which keeps the
    /// last of a key and not the highest, never drops a newer one for an older one that came late.
    pub fn name(&self) -> String {
        name(&self.header, "key")
    }
}

/// The lowest generation under which a client may be registered, written by the foreman (key
/// `client/life/generation`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientLife {
    /// Which client, and that generation.
    pub header: Header,
}
record!(ClientLife, "client_life.v1");

impl ClientLife {
    /// The record's key in the log, for the same reason with the generation.
    pub fn name(&self) -> String {
        name(&self.header, "life")
    }
}

/// One setting; the highest version counts (topic `settings`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Which org.
    pub header: Header,
    /// `artifact`, `org`.
    pub kind: String,
    /// The setting's id within its kind.
    pub id: String,
    /// Rises with every change.
    pub version: i64,
    /// JSON; empty when deleted.
    pub body: String,
}
record!(Setting, "setting.v1");

/// A whole document; the highest version counts (topic `state`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// Which client.
    pub header: Header,
    /// `flow` or `client`.
    pub kind: String,
    /// The document's id within its kind.
    pub id: String,
    /// Topic generation << 48 | (offset + 1) of the record that caused it.
    pub version: i64,
    /// JSON; empty when the client was deleted: whatever is of a lower generation goes.
    pub body: String,
}
record!(Document, "document.v1");

topic_union! {
    /// A record of `notifications`.
    Notifications { Notification, CommandDone }
}

/// Something that people or programs wait for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// Which client.
    pub header: Header,
    /// Hash of what happened: consumers drop repeats.
    pub id: Bytes,
    /// `flow_completion`, `enrolment`, `client_conflict`.
    pub kind: String,
    /// The flow or client.
    pub subject: String,
    /// JSON.
    pub body: String,
}
record!(Notification, "notification.v1");

/// The end of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandDone {
    /// Which client.
    pub header: Header,
    /// The command's id.
    pub id: String,
    /// Empty when all is well.
    pub error: String,
    /// JSON.
    pub body: String,
}
record!(CommandDone, "command_done.v1");

/// What could not be taken, and why (topic `dead-letters`). Records of one id are the states of one
/// letter, each of them whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The refused record's header.
    pub header: Header,
    /// Where it stood or was going to.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Offset, -1 when it never was in a topic.
    pub offset: i64,
    /// A word for machines.
    pub reason: String,
    /// A sentence for people.
    pub text: String,
    /// How often it was tried.
    pub attempts: i32,
    /// What was refused: of what stood in a topic, a record that can be appended to it again.
    pub copy: Bytes,
    /// 32 hex digits, made of the content.
    pub id: String,
    /// Empty: put aside; `retried`; `dropped`.
    pub state: String,
    /// Bytes of the copy, wherever it stands.
    pub size: i64,
    /// Key in Objects of a copy that is too large to stand here.
    pub object: Option<String>,
}
record!(DeadLetter, "dead_letter.v1", "dead_letter.v2");

/// The state of one partition's fold (an object, not a topic).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Partition of `scheduling`.
    pub partition: i32,
    /// Generation of the topic.
    pub log_generation: i64,
    /// The first offset that is not in it.
    pub next_offset: i64,
    /// Version of the fold that wrote it.
    pub logic: i32,
    /// zstd of JSON.
    pub body: Bytes,
}
record!(Snapshot, "snapshot.v1");
