//! Whether a client still has brokers.
//!
//! A broker that has just come back may answer that there are no brokers at all. librdkafka since 2.12
//! then gives up those that it had, and with them, for ever, the search for others: it reads nothing
//! more and says nothing. So who has heard nothing for a while asks for its topic. A client that had
//! brokers once and is not answered now is replaced by one that begins with the configured brokers.

use rdkafka::consumer::{Consumer, ConsumerContext, StreamConsumer};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// How long nothing is heard before it is asked.
const QUIET: Duration = Duration::from_secs(5);

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(5);

/// What is known of one client.
pub(super) struct Pulse {
    heard: Instant,
    /// Whether it has ever heard of a broker: only then can it have lost them.
    had_brokers: bool,
    /// Running while it is asked.
    question: Option<JoinHandle<bool>>,
}

impl Pulse {
    /// That of a new client.
    pub(super) fn new() -> Self {
        Self {
            heard: Instant::now(),
            had_brokers: false,
            question: None,
        }
    }

    /// A broker sent something.
    pub(super) fn heard(&mut self) {
        self.heard = Instant::now();
        self.had_brokers = true;
    }

    /// Returns when the client has to be replaced. Cancel-safe.
    pub(super) async fn lost<C: ConsumerContext + 'static>(
        &mut self,
        consumer: &Arc<StreamConsumer<C>>,
        kafka_topic: &str,
    ) {
        loop {
            if self.question.is_none() {
                sleep_until(self.heard + QUIET).await;
            }
            let question = self.question.get_or_insert_with(|| {
                let (consumer, kafka_topic) = (consumer.clone(), kafka_topic.to_owned());
                tokio::task::spawn_blocking(move || {
                    consumer.fetch_metadata(Some(&kafka_topic), ANSWER).is_ok()
                })
            });
            let answered = question.await.unwrap_or(false);
            self.question = None;
            if answered {
                self.heard();
                continue;
            }
            self.heard = Instant::now();
            if self.had_brokers {
                return;
            }
        }
    }
}
