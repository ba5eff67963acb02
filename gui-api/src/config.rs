//! What the role goes by.

use nublar_core::hidden::HiddenNames;
use std::net::SocketAddr;
use std::time::Duration;

/// A topic and a group that reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadBy {
    /// The topic's name.
    pub topic: String,
    /// The group's name.
    pub group: String,
}

/// Configuration of the role.
#[derive(Clone)]
pub struct Config {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Who says this is let in (`Authorization: Bearer`). Must not be empty.
    pub token: String,
    /// The user that whoever has the token acts as.
    pub user: String,
    /// Where agents reach the frontends, in the order in which they try; each ends with a slash.
    /// Tools are fetched below them.
    pub agent_urls: Vec<String>,
    /// Names of queries that agents run for another server.
    pub names: HiddenNames,
    /// How long a call may take until its answer begins, and each step of a long answer.
    pub deadline: Duration,
    /// How long a command is waited for before it is answered with 202.
    pub command_wait: Duration,
    /// The groups whose progress is shown, in their order.
    pub groups: Vec<ReadBy>,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("listen", &self.listen)
            .field("token", &"hidden")
            .field("user", &self.user)
            .field("agent_urls", &self.agent_urls)
            .field("names", &self.names)
            .field("deadline", &self.deadline)
            .field("command_wait", &self.command_wait)
            .field("groups", &self.groups)
            .finish()
    }
}

impl Config {
    /// The usual configuration: 30 s for a call, 10 s for a command.
    #[must_use]
    pub fn new(listen: SocketAddr, token: impl Into<String>) -> Self {
        let usual = [
            ("results", "results"),
            ("uploads", "uploads"),
            ("events", "events"),
            ("scheduling", "foreman"),
            ("state", "state"),
            ("dead-letters", "dead-letters"),
            ("state", "seals"),
        ];
        let groups = usual.map(|(topic, group)| ReadBy {
            topic: topic.to_owned(),
            group: group.to_owned(),
        });
        Self {
            listen,
            token: token.into(),
            user: "admin".to_owned(),
            agent_urls: Vec::new(),
            names: HiddenNames::default(),
            deadline: Duration::from_secs(30),
            command_wait: Duration::from_secs(10),
            groups: groups.into(),
        }
    }
}
