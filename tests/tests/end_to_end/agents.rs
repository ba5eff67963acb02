//! What honest and hostile agents say, made of the protocol's own messages.

use bytes::Bytes;
use nublar_schemas::agent::{Certificate, VeloMessage, VqlRequest, VqlResponse};
use nublar_wire::{AgentKey, AgentSession, Compression, Plaintext, message_list};
use prost::Message;

/// One row for a flow.
pub(crate) fn row(flow: &str, name: &str, row: &str) -> Bytes {
    let message = VeloMessage {
        session_id: flow.to_owned(),
        vql_response: Some(VqlResponse {
            query: Some(VqlRequest {
                name: name.to_owned(),
                ..VqlRequest::default()
            }),
            jsonl_response: format!("{row}\n"),
            total_rows: 1,
            ..VqlResponse::default()
        }),
        ..VeloMessage::default()
    };
    message.encode_to_vec().into()
}

/// A request for a certificate in the name of `client`.
pub(crate) fn csr(key: &AgentKey, client: &str) -> Bytes {
    let message = VeloMessage {
        session_id: "E:Enrol".to_owned(),
        urgent: true,
        csr: Some(Certificate {
            pem: key.csr_pem_for(client).unwrap().into(),
            ..Certificate::default()
        }),
        ..VeloMessage::default()
    };
    message.encode_to_vec().into()
}

/// A body with one list.
pub(crate) fn body(session: &AgentSession, nonce: &str, messages: &[Bytes]) -> Bytes {
    lists(session, nonce, &[message_list(messages)])
}

/// A body of serialized lists.
pub(crate) fn lists(session: &AgentSession, nonce: &str, lists: &[Bytes]) -> Bytes {
    let plain = Plaintext::new(lists, Compression::Zlib, nonce, 1_795_515_000_000_000);
    session.seal(&plain).unwrap()
}
