//! What agents and TLS clients are shown: kept in date, told of before it ends, and changed without
//! a restart.
//!
//! ```text
//! secrets file, PEM files ─▶ keeper (what is shown at a time) ─▶ watch ─▶ every frontend here
//!                              ▲ authority: signs anew at two thirds of a life
//! ```
//! What is signed anew is in memory alone: each process signs for itself, with the same authority.

mod alarms;
mod authority;
mod keeper;
#[cfg(test)]
mod testing;
mod watch;

pub(crate) use authority::{Authority, Dates};
pub(crate) use watch::watch;

use serde::Deserialize;
use std::path::PathBuf;

/// How certificates are come by.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// A certificate chain for HTTPS in PEM, the leaf first, in place of the one in the secrets
    /// file; read again when it changes.
    pub(crate) tls_chain: Option<PathBuf>,
    /// Its private key in PEM.
    pub(crate) tls_key: Option<PathBuf>,
    /// How long certificates are good for that are signed anew, days.
    pub(crate) days: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            tls_chain: None,
            tls_key: None,
            days: 3_650,
        }
    }
}
