//! The answers that are not 200, and what is counted and logged for each.

use crate::metrics::{Metric, Metrics};
use crate::peer::Peer;
use http::StatusCode;
use nublar_wire::WireError;

/// Why a POST is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// No envelope, or not one of an agent.
    #[error("not an agent's body: {0}")]
    Malformed(WireError),
    /// Damaged, or sealed by somebody else.
    #[error("{0}")]
    Hmac(WireError),
    /// Not for one of our keys: the agent fetches server.pem again after its sleep.
    #[error("{0}")]
    Key(WireError),
    /// No org has this nonce.
    #[error("the nonce of {0:?} names no org")]
    Nonce(String),
    /// The sender's name is no client id.
    #[error("the sender calls itself {0:?}")]
    Source(String),
    /// It speaks the protocol of before 0.6.8.
    #[error(
        "the agent speaks version {0} of the protocol, 4 is needed: upgrade it to 0.6.8 or later"
    )]
    Old(u32),
    /// Authentic, but what is inside is no list of messages: it would fail again for ever.
    #[error("{client} sent what is no message list: {error}")]
    Poison {
        /// The sender.
        client: String,
        /// What is wrong.
        error: WireError,
    },
    /// Not registered, or not signed by the registered key.
    #[error("{0} is not registered, or did not sign its session")]
    Unknown(String),
    /// It sent a certificate request that is not accepted.
    #[error("{client} asked for enrolment: {error}")]
    Csr {
        /// Who it says it is.
        client: String,
        /// What is wrong.
        error: WireError,
    },
    /// It has just been put into the registry.
    #[error("{0} is registered now")]
    Enrolled(String),
    /// Another agent has the same key, and was there first.
    #[error("{0} polls from two places in turn, and this is the later one: its machine was cloned")]
    Clone(String),
    /// The registry's position was not to be had.
    #[error("the registry can not be read up to now")]
    Registry,
    /// The log or the store of objects did not take what was to be stored.
    #[error("not stored: {0}")]
    Log(String),
    /// No room in time.
    #[error("no room for the body in time")]
    Busy,
    /// The agent has sent so much side by side that its answers can not be held for it.
    #[error("{0} sends far more than it may")]
    Flood(String),
    /// The body ended early or came too slowly.
    #[error("the body did not come: {0}")]
    Body(String),
}

impl Refusal {
    /// Who knows the session says what is wrong inside it.
    pub(crate) fn of_envelope(error: WireError) -> Self {
        match error {
            WireError::BadHmac => Self::Hmac(error),
            WireError::NotForUs => Self::Key(error),
            other => Self::Malformed(other),
        }
    }

    /// The status and the words for the agent.
    pub(crate) fn answer(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Malformed(_)
            | Self::Hmac(_)
            | Self::Key(_)
            | Self::Nonce(_)
            | Self::Source(_)
            | Self::Old(_) => (StatusCode::FORBIDDEN, "forbidden\n"),
            Self::Poison { .. } => (StatusCode::BAD_REQUEST, "no message list\n"),
            Self::Unknown(_) | Self::Csr { .. } | Self::Enrolled(_) => {
                (StatusCode::NOT_ACCEPTABLE, "please enrol\n")
            }
            Self::Registry | Self::Log(_) | Self::Busy | Self::Flood(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, "try again\n")
            }
            Self::Clone(_) => (StatusCode::CONFLICT, "another agent has this key\n"),
            Self::Body(_) => (StatusCode::REQUEST_TIMEOUT, "body incomplete\n"),
        }
    }

    fn metric<'a>(&self, metrics: &'a Metrics) -> &'a Metric {
        match self {
            Self::Malformed(_) => &metrics.refused_malformed,
            Self::Hmac(_) => &metrics.refused_hmac,
            Self::Key(_) => &metrics.refused_key,
            Self::Nonce(_) => &metrics.refused_nonce,
            Self::Source(_) => &metrics.refused_source,
            Self::Old(_) => &metrics.refused_old,
            Self::Poison { .. } => &metrics.refused_poison,
            Self::Unknown(_) => &metrics.refused_unknown,
            Self::Csr { .. } => &metrics.refused_csr,
            Self::Enrolled(_) => &metrics.enrolled,
            Self::Clone(_) => &metrics.refused_clone,
            Self::Registry => &metrics.refused_registry,
            Self::Log(_) => &metrics.refused_log,
            Self::Busy => &metrics.refused_busy,
            Self::Flood(_) => &metrics.refused_flood,
            Self::Body(_) => &metrics.broken_bodies,
        }
    }

    /// Counts it and writes a line.
    pub(crate) fn record(&self, metrics: &Metrics, peer: Peer) {
        self.metric(metrics).inc();
        let status = self.answer().0.as_u16();
        match self {
            Self::Unknown(_) | Self::Enrolled(_) => {
                tracing::info!(%peer, status, reason = %self, "agent refused");
            }
            _ => tracing::warn!(%peer, status, reason = %self, "agent refused"),
        }
    }
}
