//! Takes an agent in: the one thing that is believed of a sender who may be anybody.

use crate::clock::now_us;
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use bytes::Bytes;
use nublar_core::ids::{ClientKey, Session};
use nublar_ports::Log;
use nublar_schemas::records::{ClientKey as KeyRecord, Header, Registry};
use nublar_schemas::topics::REGISTRY;
use nublar_wire::{
    AgentPublicKey, Kind, Message, Packed, UnverifiedSession, WireError, check_csr, messages,
};

/// A request has some 1,000 bytes; what is larger is none.
const LIST_LIMIT: usize = 64 << 10;
/// Agents send a request alone.
const LOOK_AT: usize = 8;

/// The certificate request in a body, if there is one.
pub(crate) fn find_request(packed: &Packed) -> Option<Message> {
    packed
        .lists(LIST_LIMIT)
        .take(LOOK_AT)
        .flatten()
        .flat_map(|list| messages(list).take(LOOK_AT))
        .flatten()
        .find(|message| {
            message.kind == Kind::Csr && matches!(message.session_id().parse(), Ok(Session::Enrol))
        })
}

/// The key of the request, if it is the one that signed the session, too.
pub(crate) fn check(
    request: &Message,
    sender: &UnverifiedSession,
) -> Result<AgentPublicKey, WireError> {
    let csr = request.decode()?.csr.unwrap_or_default();
    let key = check_csr(&csr.pem)?;
    sender.verify(&key)?;
    Ok(key)
}

/// Puts the key into the registry.
pub(crate) async fn append(
    log: &dyn Log,
    partition: u32,
    client: &ClientKey,
    generation: i64,
    key: &AgentPublicKey,
    frontend: &str,
) -> Result<(), String> {
    let record = KeyRecord {
        header: Header {
            org: client.org.to_string(),
            client: client.client.to_string(),
            generation,
            at_us: now_us(),
            frontend: frontend.to_owned(),
            trace: String::new(),
        },
        public_key: spki(key)?,
    };
    let name = record.name();
    let value = Registry::from(record)
        .encode()
        .map_err(|error| error.to_string())?;
    let appended = log.append(REGISTRY.name, partition, name.into(), value.into());
    appended
        .await
        .map(|_| ())
        .map_err(|error| error.to_string())
}

/// The key as SubjectPublicKeyInfo in DER.
fn spki(key: &AgentPublicKey) -> Result<Bytes, String> {
    let refused = |_| "the crypto library can not write the key".to_owned();
    let key = aws_lc_rs::rsa::PublicKey::from_der(&key.to_der()).map_err(|e| e.to_string())?;
    let der: PublicKeyX509Der<'_> = key.as_der().map_err(refused)?;
    Ok(Bytes::copy_from_slice(der.as_ref()))
}
