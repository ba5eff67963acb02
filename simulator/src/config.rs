//! What agents are configured with.

use crate::faults::Faults;
use std::time::Duration;

/// Configuration of simulated agents. Times are those of a real agent; `speed` divides them.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// Base URLs of the frontends, each with a slash at its end.
    pub urls: Vec<String>,
    /// The nonce of the org.
    pub nonce: String,
    /// The common name that `server.pem` must have.
    pub server_name: String,
    /// Pause after an outage, and twice the time after which a token for a poll comes back.
    pub max_poll: Duration,
    /// Up to so much is added to the pause.
    pub max_poll_std: Duration,
    /// Pause after each poll.
    pub min_poll: Duration,
    /// Bytes of messages in one POST.
    pub max_upload_size: usize,
    /// Bytes of messages that an agent keeps; its queries wait when there are more.
    pub buffer: usize,
    /// Flows that run at once, urgent ones not counted.
    pub flows_at_once: usize,
    /// How many times faster than a real one the agent lives.
    pub speed: f64,
    /// Take another frontend for each request.
    pub hop: bool,
    /// Take HTTP/2 when it is offered.
    pub http2: bool,
    /// Speak over WebSockets. An agent then stays with its frontend until a socket fails.
    pub websockets: bool,
    /// What the network does to it.
    pub faults: Faults,
    /// Determines everything that is left to chance.
    pub seed: u64,
}

impl AgentConfig {
    /// The configs that this project prints: polls of 10 s, a spread of 5 s.
    pub fn new(urls: Vec<String>, nonce: impl Into<String>) -> Self {
        Self {
            urls,
            nonce: nonce.into(),
            server_name: "VelociraptorServer".to_owned(),
            max_poll: Duration::from_secs(10),
            max_poll_std: Duration::from_secs(5),
            min_poll: Duration::from_secs(1),
            max_upload_size: 5 << 20,
            buffer: 50 << 20,
            flows_at_once: 2,
            speed: 1.0,
            hop: false,
            http2: true,
            websockets: false,
            faults: Faults::NONE,
            seed: 1,
        }
    }

    /// A time of a real agent, at this agent's speed.
    pub fn scaled(&self, time: Duration) -> Duration {
        time.div_f64(self.speed.max(f64::MIN_POSITIVE))
    }
}
