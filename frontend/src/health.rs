//! Whether this frontend is of use to agents, and if not, why.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The log must have failed for so long.
const FAILING: Duration = Duration::from_secs(2);
/// So long after its last failure it is tried again: a load balancer sends nothing to whom it holds
/// for ill, so nothing would show that all is well.
const FORGIVEN: Duration = Duration::from_secs(30);

/// What was read at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Read {
    Nothing,
    Registry,
    Everything,
}

/// See the [module](self).
pub(crate) struct Health(Mutex<State>);

struct State {
    read: Read,
    failing: Option<Failing>,
}

struct Failing {
    since: Instant,
    last: Instant,
    error: String,
}

impl Health {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(State {
            read: Read::Nothing,
            failing: None,
        }))
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// So much was read.
    pub(crate) fn has_read(&self, read: Read) {
        self.with(|state| state.read = read);
    }

    /// The log did what it was asked for.
    pub(crate) fn log_works(&self) {
        self.with(|state| state.failing = None);
    }

    /// It did not.
    pub(crate) fn log_failed(&self, error: String, now: Instant) {
        self.with(|state| {
            let before = state.failing.take();
            let goes_on = before.filter(|failing| now < failing.last + FORGIVEN);
            state.failing = Some(Failing {
                since: goes_on.map_or(now, |failing| failing.since),
                last: now,
                error,
            });
        });
    }

    /// What is wrong, a line for each.
    pub(crate) fn wrong(&self, now: Instant) -> Vec<String> {
        self.with(|state| {
            let mut wrong = Vec::new();
            match state.read {
                Read::Nothing => wrong.push("the registry of clients is not read yet".to_owned()),
                Read::Registry => wrong.push("tasks are not followed yet".to_owned()),
                Read::Everything => {}
            }
            if let Some(failing) = &state.failing
                && now >= failing.since + FAILING
                && now < failing.last + FORGIVEN
            {
                let since = now.duration_since(failing.since).as_secs();
                wrong.push(format!("the log fails since {since} s: {}", failing.error));
            }
            wrong
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_fails_is_told_after_a_while_and_forgiven_without_news() {
        let health = Health::new();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(
            health.wrong(start),
            ["the registry of clients is not read yet"]
        );
        health.has_read(Read::Registry);
        assert_eq!(health.wrong(start), ["tasks are not followed yet"]);
        health.has_read(Read::Everything);
        assert!(health.wrong(start).is_empty());

        health.log_failed("full".into(), at(0));
        assert!(health.wrong(at(1)).is_empty(), "once is not for long");
        assert_eq!(health.wrong(at(3)), ["the log fails since 3 s: full"]);
        health.log_works();
        assert!(health.wrong(at(3)).is_empty());
        health.log_failed("away".into(), at(10));
        health.log_failed("still away".into(), at(20));
        assert_eq!(
            health.wrong(at(21)),
            ["the log fails since 11 s: still away"]
        );
        assert!(health.wrong(at(50)).is_empty(), "to be tried again");
        health.log_failed("away".into(), at(60));
        assert!(health.wrong(at(61)).is_empty());
        assert_eq!(health.wrong(at(62)), ["the log fails since 2 s: away"]);
    }
}
