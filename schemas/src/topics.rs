//! The catalogue of topics: names, how they are partitioned, how long they keep what.

use std::time::Duration;

/// How long a topic keeps its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Deleted when older; never before every group has read them.
    For(Duration),
    /// The newest record of each key, for ever.
    Newest,
}

/// How many partitions a topic has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partitions {
    /// One for each partition of clients: all such topics are co-partitioned.
    PerClients,
    /// A number that does not depend on the deployment.
    Fixed(u32),
}

/// One topic of the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topic {
    /// The name, the same in every log.
    pub name: &'static str,
    /// Partitions.
    pub partitions: Partitions,
    /// Retention.
    pub keep: Keep,
}

const fn days(n: u64) -> Keep {
    Keep::For(Duration::from_secs(n * 86_400))
}

/// Rows, logs and flow statistics as agents sent them.
pub const RESULTS: Topic = Topic {
    name: "results",
    partitions: Partitions::PerClients,
    keep: days(7),
};
/// Buffers of uploads as agents sent them.
pub const UPLOADS: Topic = Topic {
    name: "uploads",
    partitions: Partitions::PerClients,
    keep: days(1),
};
/// Client events as agents sent them.
pub const EVENTS: Topic = Topic {
    name: "events",
    partitions: Partitions::PerClients,
    keep: days(7),
};
/// Everything that the foreman decides from.
pub const SCHEDULING: Topic = Topic {
    name: "scheduling",
    partitions: Partitions::PerClients,
    keep: days(28),
};
/// What the foreman decides for frontends.
pub const TASKS: Topic = Topic {
    name: "tasks",
    partitions: Partitions::PerClients,
    keep: days(1),
};
/// Compiled requests, by hash.
pub const REQUESTS: Topic = Topic {
    name: "requests",
    partitions: Partitions::Fixed(4),
    keep: days(35),
};
/// Which flow a collection is that was asked for under a key.
pub const WISHES: Topic = Topic {
    name: "wishes",
    partitions: Partitions::Fixed(4),
    keep: days(3),
};
/// Agents' keys and lives.
pub const REGISTRY: Topic = Topic {
    name: "registry",
    partitions: Partitions::PerClients,
    keep: Keep::Newest,
};
/// Artifacts and other settings.
pub const SETTINGS: Topic = Topic {
    name: "settings",
    partitions: Partitions::Fixed(1),
    keep: Keep::Newest,
};
/// Documents of flows and clients.
pub const STATE: Topic = Topic {
    name: "state",
    partitions: Partitions::PerClients,
    keep: days(28),
};
/// News for people and programs.
pub const NOTIFICATIONS: Topic = Topic {
    name: "notifications",
    partitions: Partitions::Fixed(8),
    keep: days(3),
};
/// What could not be taken.
pub const DEAD_LETTERS: Topic = Topic {
    name: "dead-letters",
    partitions: Partitions::Fixed(4),
    keep: days(30),
};

/// All topics.
pub const ALL: [Topic; 12] = [
    RESULTS,
    UPLOADS,
    EVENTS,
    SCHEDULING,
    TASKS,
    REQUESTS,
    WISHES,
    REGISTRY,
    SETTINGS,
    STATE,
    NOTIFICATIONS,
    DEAD_LETTERS,
];

/// The largest record of any topic, in bytes (D3: topics and producers agree on it).
pub const MAX_RECORD_BYTES: usize = 9 * 1024 * 1024;
