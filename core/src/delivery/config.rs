//! The times that delivery goes by.

/// What delivery goes by, in milliseconds.
#[derive(Debug, Clone)]
pub struct DeliveryConfig {
    /// Name of this process, another one after every start.
    pub frontend: String,
    /// How long a first item waits for others.
    pub coalesce: u64,
    /// How long it waits for grants that were claimed.
    pub wait_for_grants: u64,
    /// How long it waits for what an equal request was given.
    pub wait_for_given: u64,
    /// How long an offer is kept; it is made again at a check-in.
    pub keep_offers: u64,
    /// How long a question or a cancel is kept for an agent that does not poll.
    pub keep_errands: u64,
    /// How long deliveries are remembered, against repeated grants.
    pub keep_delivered: u64,
    /// How long it is remembered what a request was given, for an agent that repeats it.
    pub keep_given: u64,
    /// A poll after a pause longer than this is a new contact.
    pub contact_gap: u64,
}

impl DeliveryConfig {
    /// The times of the design.
    pub fn new(frontend: String) -> Self {
        Self {
            frontend,
            coalesce: 6,
            wait_for_grants: 150,
            wait_for_given: 2_000,
            keep_offers: 30 * 60_000,
            keep_errands: 60_000,
            keep_delivered: 60 * 60_000,
            keep_given: 5 * 60_000,
            contact_gap: 15_000,
        }
    }
}
