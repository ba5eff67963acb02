//! The agents' wire protocol without any IO: the envelope around every body, the lists of
//! messages inside it, enrolment, and the frames of the WebSocket transport. Both sides of it.
//!
//! The way in, as a frontend goes it:
//!
//! ```text
//! body ── Envelope::parse ──▶ Envelope ── session known? ──▶ Session::open ──▶ Packed
//!                                │ no                          ▲                 │ lists(limit)
//!                                ▼                             │                 ▼
//!                  Envelope::unwrap_session ─▶ UnverifiedSession::verify     messages(list)
//! ```
//!
//! Whoever fails at `verify` is nobody: [`UnverifiedSession::open`] is there to look for a
//! certificate request and for nothing else. The way out is [`OutboundSession`]; the agent's side
//! of both is [`AgentSession`].
//!
//! Invariants of this crate: no IO, no clock and no task; hostile bytes never make it panic or
//! allocate more than a small multiple of what came in; bytes once received are sliced, not
//! copied, except to decrypt and to inflate.

mod agent;
mod der;
mod enrol;
mod envelope;
mod error;
mod field;
mod frame;
mod keys;
mod message;
mod outbound;
mod packed;
mod session;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "trust")]
mod trust;
mod websocket;

pub use agent::{AgentKey, AgentSession, Answer};
pub use enrol::{check_csr, is_client_id};
pub use envelope::{API_VERSION, Envelope, pad};
pub use error::{FieldError, WireError};
pub use frame::Frame;
pub use keys::{AgentPublicKey, PublicKey, ServerKey, ServerKeys};
pub use message::{Kind, Message, Messages, messages};
pub use outbound::{OutboundSession, SERVER_NAME};
pub use packed::{Compression, Lists, Packed, Plaintext, message_list};
pub use session::{Session, UnverifiedSession};
#[cfg(feature = "trust")]
pub use trust::Trust;
pub use websocket::{Incoming, Side, SocketError, SocketReader, SocketWriter, accept_key};
