//! What each agent may send: so many bytes a second, and a burst. Who sends more waits for its own
//! answers, and nobody waits with it.

use crate::config::Config;
use nublar_core::ids::ClientKey;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How often a line is written of the same agent.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// So many agents are looked through for those that owe nothing any more.
const SWEEP: usize = 1024;

/// The allowances of all agents. See the [module](self).
pub(crate) struct Allowances {
    /// Bytes a second; no limit if 0.
    rate: usize,
    /// The time that the burst takes at this rate.
    burst: Duration,
    hold: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    agents: HashMap<ClientKey, Owed>,
    sweep_at: usize,
}

/// What an agent has sent and not waited for.
struct Owed {
    /// When all that it has sent would have come at the rate.
    until: Instant,
    told: Option<Instant>,
}

/// What becomes of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is taken, and its answer is held so long.
    Hold(Duration),
    /// Its agent owes more than can be held: it sends side by side what it should send in turn.
    Refuse,
}

impl Allowances {
    pub(crate) fn new(config: &Config) -> Self {
        let rate = config.agent_bytes_per_s;
        Self {
            rate,
            burst: time(config.agent_burst, rate),
            hold: config.hold,
            state: Mutex::default(),
        }
    }

    /// Charges an agent with a body.
    pub(crate) fn charge(&self, client: &ClientKey, bytes: usize, now: Instant) -> Verdict {
        if self.rate == 0 {
            return Verdict::Hold(Duration::ZERO);
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.sweep(now);
        let owed = state.agents.entry(client.clone()).or_insert(Owed {
            until: now,
            told: None,
        });
        let ahead = owed.until.max(now);
        if ahead.duration_since(now).saturating_sub(self.burst) > self.hold {
            return Verdict::Refuse;
        }
        owed.until = ahead + time(bytes, self.rate);
        let wait = owed.until.duration_since(now).saturating_sub(self.burst);
        let due = |told: Instant| now.duration_since(told) >= TELL_EVERY;
        if !wait.is_zero() && owed.told.is_none_or(due) {
            owed.told = Some(now);
            tracing::warn!(%client, limit = self.rate, "an agent sends more bytes a second than it may: its answers are held");
        }
        Verdict::Hold(wait.min(self.hold))
    }
}

impl State {
    /// Forgets who owes nothing, before there are twice as many.
    fn sweep(&mut self, now: Instant) {
        if self.agents.len() < self.sweep_at.max(SWEEP) {
            return;
        }
        self.agents.retain(|_, owed| owed.until > now);
        self.sweep_at = 2 * self.agents.len();
    }
}

/// The time that so many bytes take.
fn time(bytes: usize, rate: usize) -> Duration {
    if rate == 0 {
        return Duration::ZERO;
    }
    Duration::from_secs_f64(bytes as f64 / rate as f64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn client(number: usize) -> ClientKey {
        ClientKey {
            org: "".parse().unwrap(),
            client: format!("C.{number:016x}").parse().unwrap(),
        }
    }

    fn allowances(rate: usize, burst: usize) -> Allowances {
        Allowances::new(&Config {
            agent_bytes_per_s: rate,
            agent_burst: burst,
            hold: Duration::from_secs(30),
            ..Config::default()
        })
    }

    fn held(seconds: u64) -> Verdict {
        Verdict::Hold(Duration::from_secs(seconds))
    }

    #[test]
    fn a_burst_is_free_and_more_waits_at_the_rate() {
        let allowances = allowances(100, 1_000);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let charge = |bytes, seconds| allowances.charge(&client(1), bytes, at(seconds));
        assert_eq!(charge(1_000, 0), held(0));
        assert_eq!(charge(500, 0), held(5));
        // It waited, and sends as much again.
        assert_eq!(charge(500, 5), held(5));
        assert_eq!(
            allowances.charge(&client(2), 1_000, at(5)),
            held(0),
            "another one"
        );
        assert_eq!(charge(100, 100), held(0), "all is paid");
        assert_eq!(charge(900, 100), held(0));
        assert_eq!(charge(1, 100), Verdict::Hold(Duration::from_millis(10)));
    }

    #[test]
    fn who_sends_side_by_side_is_refused_beyond_what_can_be_held() {
        let allowances = allowances(100, 0);
        let now = Instant::now();
        let verdicts: Vec<_> = (0..6)
            .map(|_| allowances.charge(&client(1), 1_000, now))
            .collect();
        let refused = Verdict::Refuse;
        // What is held is held for no longer than anything is.
        assert_eq!(
            verdicts,
            [held(10), held(20), held(30), held(30), refused, refused]
        );
        let later = now + Duration::from_secs(10);
        assert_eq!(allowances.charge(&client(1), 1_000, later), held(30));
    }

    #[test]
    fn without_a_limit_nobody_waits_and_who_owes_nothing_is_forgotten() {
        let now = Instant::now();
        assert_eq!(
            allowances(0, 0).charge(&client(1), usize::MAX, now),
            held(0)
        );
        let limited = allowances(1_000, 1_000);
        for number in 0..10 * SWEEP {
            limited.charge(
                &client(number),
                1,
                now + Duration::from_millis(number as u64),
            );
        }
        assert!(limited.state.lock().unwrap().agents.len() <= SWEEP);
    }
}
