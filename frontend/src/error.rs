//! Why a frontend does not start or stops.

use nublar_ports::log::LogError;
use nublar_wire::WireError;
use std::net::SocketAddr;

/// Why a frontend does not start or stops.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrontendError {
    /// A value of the configuration or of the secrets can not be.
    #[error("frontend configuration: {0}")]
    Config(String),
    /// A key or certificate can not be read.
    #[error("frontend secrets: {0}")]
    Key(#[from] WireError),
    /// The TLS material is not sound.
    #[error("frontend tls: {0}")]
    Tls(String),
    /// An address can not be listened on.
    #[error("frontend can not listen on {addr}: {source}")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The log is not set up as it must be.
    #[error("frontend: {0}")]
    Log(#[from] LogError),
    /// Topics that hold the same clients have different numbers of partitions.
    #[error(
        "topic {topic} has {found} partitions and scheduling has {expected}: set the log up anew"
    )]
    Partitions {
        /// The topic.
        topic: &'static str,
        /// Its partitions.
        found: u32,
        /// What it must have.
        expected: u32,
    },
    /// A part of it failed in a way that is a fault of the program.
    #[error("frontend stopped: {0}")]
    Stopped(String),
}
