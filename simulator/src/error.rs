//! What can go wrong in a simulator, as opposed to in what it tests.

use thiserror::Error;

/// An error of the simulator or of its surroundings.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SimError {
    /// A certificate or key that can not be used.
    #[error("{what}: {reason}")]
    Certificate {
        /// Which one.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// Bytes of the agents' protocol that can not be read or made.
    #[error("wire: {0}")]
    Wire(#[from] nublar_wire::WireError),
    /// A request that failed.
    #[error("request: {0}")]
    Http(#[from] reqwest::Error),
    /// An answer of the REST API that is not what it should be.
    #[error("api: {call} answered {status}: {body}")]
    Api {
        /// Method and path.
        call: String,
        /// The status.
        status: u16,
        /// The beginning of its body.
        body: String,
    },
    /// A file or a socket.
    #[error("{what}: {source}")]
    Io {
        /// What was done with which one.
        what: String,
        /// The reason.
        source: std::io::Error,
    },
    /// Something that should have come has not.
    #[error("{0}")]
    Timeout(String),
}

impl SimError {
    /// An error of a file or a socket.
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
