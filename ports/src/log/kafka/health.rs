//! What clients report, and what their errors mean.

use super::locked;
use crate::log::LogError;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long after it was reported a refusal explains that nothing answers.
const EXPLAINS: Duration = Duration::from_secs(30);

/// How often a reader that nobody answers says so.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Keeps a reader from telling more than anybody takes from it: its client reports every attempt
/// to connect that fails, and who waits a moment after each would hear of an outage long after it.
#[derive(Default)]
pub(super) struct Complaints {
    last: Option<Instant>,
}

impl Complaints {
    /// The error, unless one that passes by itself was told a moment ago.
    pub(super) fn tell(&mut self, error: LogError) -> Option<LogError> {
        if !matches!(error, LogError::Unavailable(_)) {
            return Some(error);
        }
        let told = self.last.is_some_and(|last| last.elapsed() < TELL_EVERY);
        if told {
            return None;
        }
        self.last = Some(Instant::now());
        Some(error)
    }
}

/// What a client reports on its own, kept to explain the errors of calls: a wrong password, say,
/// is reported once while every call merely times out.
#[derive(Clone)]
pub(super) struct Health {
    brokers: Arc<str>,
    last: Arc<Mutex<Option<Report>>>,
}

struct Report {
    at: Instant,
    code: Code,
    reason: String,
}

impl Health {
    pub(super) fn new(brokers: &str) -> Self {
        Self {
            brokers: brokers.into(),
            last: Arc::default(),
        }
    }

    /// What an error of the client means for who called; `doing` says what was tried.
    pub(super) fn explain(&self, doing: &str, error: &KafkaError) -> LogError {
        match code_of(error) {
            Some(code) => self.explain_code(doing, code),
            None => LogError::Refused(format!("kafka at {}: {doing}: {error}", self.brokers)),
        }
    }

    /// The same for a bare code.
    pub(super) fn explain_code(&self, doing: &str, code: Code) -> LogError {
        let brokers = &self.brokers;
        if refuses(code) {
            return LogError::Refused(format!(
                "kafka at {brokers}: {doing}: {code}, {}",
                advice(code)
            ));
        }
        if code == Code::QueueFull {
            return LogError::Full(format!(
                "kafka at {brokers}: {doing}: too many records wait to be acknowledged"
            ));
        }
        match &*locked(&self.last) {
            Some(report) if report.at.elapsed() < EXPLAINS && refuses(report.code) => {
                LogError::Refused(format!(
                    "kafka at {brokers}: {doing}: {}, {}",
                    report.reason,
                    advice(report.code)
                ))
            }
            Some(Report { at, reason, .. }) if at.elapsed() < EXPLAINS => {
                // A broker that ended in mid-handshake, or one that does not speak TLS.
                let advice = match reason.contains("SSL_HANDSHAKE") {
                    true => ", check security.protocol",
                    false => "",
                };
                LogError::Unavailable(format!(
                    "kafka at {brokers}: {doing}: {code} ({reason}){advice}"
                ))
            }
            _ => LogError::Unavailable(format!("kafka at {brokers}: {doing}: {code}")),
        }
    }
}

impl ClientContext for Health {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            // What failed says so to whoever asked, with this reason.
            _ if facility == "FAIL" => tracing::debug!(facility, "kafka client: {message}"),
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(facility, "kafka client: {message}");
            }
            RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => {
                tracing::warn!(facility, "kafka client: {message}")
            }
            _ => tracing::debug!(facility, "kafka client: {message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let Some(code) = code_of(&error).filter(|code| *code != Code::PartitionEOF) else {
            return;
        };
        tracing::debug!(%code, "kafka client: {reason}");
        let mut last = locked(&self.last);
        // That all brokers are down says less than why each of them is.
        let says_less = code == Code::AllBrokersDown
            && last
                .as_ref()
                .is_some_and(|report| report.at.elapsed() < EXPLAINS);
        if !says_less {
            *last = Some(Report {
                at: Instant::now(),
                code,
                reason: reason.to_owned(),
            });
        }
    }
}

impl ConsumerContext for Health {}

/// The code in an error, also where the client library does not hand it out.
pub(super) fn code_of(error: &KafkaError) -> Option<Code> {
    match error {
        KafkaError::AdminOp(code) => Some(*code),
        KafkaError::Canceled => Some(Code::BrokerDestroy),
        other => other.rdkafka_error_code(),
    }
}

/// Whether Kafka says no, and will say so again.
fn refuses(code: Code) -> bool {
    matches!(
        code,
        Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::UnsupportedSASLMechanism
            | Code::IllegalSASLState
            | Code::SSL
            | Code::SecurityDisabled
            | Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
            | Code::UnknownTopic
            | Code::UnknownTopicOrPartition
            | Code::UnknownPartition
            | Code::InvalidTopic
            | Code::InvalidPartitions
            | Code::InvalidReplicationFactor
            | Code::InvalidConfig
            | Code::InvalidRequest
            | Code::InvalidRecord
            | Code::InvalidTimestamp
            | Code::InvalidArgument
            | Code::PolicyViolation
            | Code::UnsupportedVersion
            | Code::UnsupportedFeature
            | Code::UnsupportedCompressionType
    )
}

fn advice(code: Code) -> &'static str {
    match code {
        Code::Authentication | Code::SaslAuthenticationFailed => "check user and password",
        Code::UnsupportedSASLMechanism | Code::IllegalSASLState | Code::SecurityDisabled => {
            "check security.protocol and sasl.mechanism"
        }
        Code::SSL => "check security.protocol and the certificates",
        Code::TopicAuthorizationFailed => {
            "give the user rights on the topics with the configured prefix"
        }
        Code::GroupAuthorizationFailed => {
            "give the user rights on the groups with the configured prefix"
        }
        Code::ClusterAuthorizationFailed | Code::TransactionalIdAuthorizationFailed => {
            "give the user the right to create topics and to produce idempotently"
        }
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => {
            "run setup to create the topics"
        }
        Code::InvalidReplicationFactor => {
            "configure a replication factor of at most the number of brokers"
        }
        _ => "check the configuration of the cluster",
    }
}

/// Whether a question is worth repeating at once: a leader moved, a connection was just lost.
pub(super) fn moved(code: Code) -> bool {
    matches!(
        code,
        Code::LeaderNotAvailable
            | Code::NotLeaderForPartition
            | Code::OffsetNotAvailable
            | Code::ReplicaNotAvailable
            | Code::FencedLeaderEpoch
            | Code::UnknownLeaderEpoch
            | Code::NetworkException
            | Code::BrokerTransportFailure
            | Code::CoordinatorNotAvailable
            | Code::CoordinatorLoadInProgress
            | Code::NotCoordinator
            | Code::WaitingForCoordinator
    )
}

/// Errors that the client gets over by itself within moments, or that say nothing of this topic.
pub(super) fn passes(code: Code) -> bool {
    matches!(
        code,
        Code::BrokerTransportFailure
            | Code::Resolve
            | Code::NetworkException
            | Code::OperationTimedOut
            | Code::RequestTimedOut
            | Code::LeaderNotAvailable
            | Code::NotLeaderForPartition
            | Code::OffsetNotAvailable
            | Code::ReplicaNotAvailable
            | Code::FencedLeaderEpoch
            | Code::UnknownLeaderEpoch
            | Code::CoordinatorNotAvailable
            | Code::CoordinatorLoadInProgress
            | Code::NotCoordinator
            | Code::WaitingForCoordinator
            | Code::PollExceeded
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_once_in_a_while_and_a_refusal_always() {
        let mut complaints = Complaints::default();
        let mut tell =
            |error: fn(String) -> LogError| complaints.tell(error(String::new())).is_some();
        assert!(tell(LogError::Unavailable));
        assert!(!tell(LogError::Unavailable));
        assert!(tell(LogError::Refused));
        assert!(!tell(LogError::Unavailable));
        complaints.last = complaints
            .last
            .and_then(|last| last.checked_sub(TELL_EVERY));
        assert!(
            complaints
                .tell(LogError::Unavailable(String::new()))
                .is_some()
        );
    }
}
