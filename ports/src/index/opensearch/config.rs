//! How OpenSearch is reached.

use std::fmt;
use std::time::Duration;

/// How to reach OpenSearch and what to make there.
#[derive(Clone, PartialEq, Eq)]
pub struct OpenSearchConfig {
    /// `http://host:port` or `https://host:port`.
    pub url: String,
    /// User, none when OpenSearch asks for none.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<String>,
    /// Certificates (PEM) that the server's certificate may be signed by, beside those that the
    /// operating system trusts.
    pub ca: Option<String>,
    /// What the names of the indices begin with: `[a-z0-9._-]*`. Installations that share a
    /// cluster need different ones.
    pub prefix: String,
    /// Primary shards of a new index.
    pub shards: u16,
    /// Replicas of each shard of a new index.
    pub replicas: u16,
    /// How soon documents are seen by queries without a refresh.
    pub refresh_interval: Duration,
}

impl Default for OpenSearchConfig {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:9200".to_owned(),
            user: None,
            password: None,
            ca: None,
            prefix: "nublar-".to_owned(),
            shards: 1,
            replicas: 1,
            refresh_interval: Duration::from_secs(5),
        }
    }
}

/// The password is left out.
impl fmt::Debug for OpenSearchConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenSearchConfig")
            .field("url", &self.url)
            .field("user", &self.user)
            .field("ca", &self.ca.is_some())
            .field("prefix", &self.prefix)
            .field("shards", &self.shards)
            .field("replicas", &self.replicas)
            .field("refresh_interval", &self.refresh_interval)
            .finish()
    }
}
