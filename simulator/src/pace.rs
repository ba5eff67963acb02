//! How fast an agent may go, and what it does when a request fails: machines without a clock.
//!
//! Time is the duration since any fixed moment.

use std::time::Duration;

/// Tokens that come back one by one, up to a number.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    capacity: f64,
    tokens: f64,
    every: Duration,
    at: Duration,
}

impl TokenBucket {
    /// A full bucket of `capacity` tokens; one comes back after each `every`.
    pub fn new(capacity: u32, every: Duration) -> Self {
        let capacity = f64::from(capacity);
        Self {
            capacity,
            tokens: capacity,
            every,
            at: Duration::ZERO,
        }
    }

    fn fill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        let every = self.every.as_secs_f64();
        let came = if every > 0.0 {
            passed / every
        } else {
            self.capacity
        };
        self.tokens = (self.tokens + came).min(self.capacity);
        self.at = self.at.max(now);
    }

    /// Takes a token, if need be one that has yet to come; says how long to wait for it.
    pub fn take(&mut self, now: Duration) -> Duration {
        self.fill(now);
        self.tokens -= 1.0;
        if self.tokens >= 0.0 {
            Duration::ZERO
        } else {
            self.every.mul_f64(-self.tokens)
        }
    }

    /// Takes a token if there is one.
    pub fn try_take(&mut self, now: Duration) -> bool {
        self.fill(now);
        let there = self.tokens >= 1.0;
        if there {
            self.tokens -= 1.0;
        }
        there
    }
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// 200, and its body was read.
    Done,
    /// 200, and its body could not be read.
    Unreadable,
    /// 301.
    Moved,
    /// 400.
    Poison,
    /// 406.
    Unknown,
    /// 408, 503, or no answer at all.
    Unavailable,
    /// 403, or any other status.
    Refused,
}

impl Outcome {
    /// What a status means; the body is still to be read.
    pub fn of_status(status: u16) -> Self {
        match status {
            200 => Self::Done,
            301 => Self::Moved,
            400 => Self::Poison,
            406 => Self::Unknown,
            408 | 503 => Self::Unavailable,
            _ => Self::Refused,
        }
    }
}

/// What an agent does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Forget what was sent: it is safe.
    Commit,
    /// Forget what was sent: nobody wants it.
    Drop,
    /// Forget what was sent, and enrol.
    Enrol,
    /// The same bytes once more, at once.
    Again,
    /// To where it was told to go, with a new session.
    Follow,
    /// Make a new session with the next server, after a pause, and send the same messages again.
    GiveUp,
}

/// The attempts of one body.
#[derive(Debug, Clone, Default)]
pub struct Attempts(u32);

impl Attempts {
    /// How often a body is sent before its agent gives up.
    pub const MOST: u32 = 3;

    /// One attempt is over.
    pub fn next(&mut self, outcome: Outcome) -> Next {
        self.0 += 1;
        match outcome {
            Outcome::Done => Next::Commit,
            Outcome::Poison => Next::Drop,
            Outcome::Unknown => Next::Enrol,
            Outcome::Moved => Next::Follow,
            Outcome::Unavailable if self.0 < Self::MOST => Next::Again,
            Outcome::Unavailable | Outcome::Unreadable | Outcome::Refused => Next::GiveUp,
        }
    }
}

/// An agent's servers, tried one after the other.
#[derive(Debug, Clone)]
pub struct Round {
    urls: Vec<String>,
    at: usize,
    pause: Duration,
    spread: Duration,
}

impl Round {
    /// Base URLs, each with a slash at its end; between two of them a pause of `pause` and up to
    /// `spread` more.
    pub fn new(urls: Vec<String>, pause: Duration, spread: Duration) -> Self {
        Self {
            urls,
            at: 0,
            pause,
            spread,
        }
    }

    /// The server to talk to.
    pub fn url(&self) -> &str {
        self.urls.get(self.at).map_or("", String::as_str)
    }

    /// Goes on to the next server, whatever happened.
    pub fn hop(&mut self) {
        self.at = (self.at + 1) % self.urls.len().max(1);
    }

    /// Goes on to the next server after a failure; says how long to pause, twice when it has been
    /// round the list. `random` gives numbers from 0 to 1.
    pub fn failed(&mut self, mut random: impl FnMut() -> f64) -> Duration {
        self.hop();
        let mut pause = || self.pause + self.spread.mul_f64(random());
        if self.at == 0 {
            pause() + pause()
        } else {
            pause()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn ten_polls_at_once_and_then_one_every_five_seconds() {
        let mut bucket = TokenBucket::new(10, s(5));
        for _ in 0..10 {
            assert_eq!(bucket.take(s(1)), s(0));
        }
        assert_eq!(bucket.take(s(1)), s(5));
        // The next one queues behind the one that waits.
        assert_eq!(bucket.take(s(2)), s(9));
        assert_eq!(bucket.take(s(100)), s(0));
        for _ in 0..9 {
            assert_eq!(bucket.take(s(100)), s(0));
        }
        assert_eq!(bucket.take(s(100)), s(5));
    }

    #[test]
    fn one_request_to_enrol_a_minute() {
        let mut bucket = TokenBucket::new(1, s(60));
        assert!(bucket.try_take(s(3)));
        assert!(!bucket.try_take(s(4)));
        assert!(!bucket.try_take(s(62)));
        assert!(bucket.try_take(s(64)));
    }

    #[test]
    fn three_attempts_at_once_and_then_the_next_server() {
        let mut attempts = Attempts::default();
        let unavailable = Outcome::of_status(503);
        assert_eq!(unavailable, Outcome::of_status(408));
        assert_eq!(attempts.next(unavailable), Next::Again);
        assert_eq!(attempts.next(unavailable), Next::Again);
        assert_eq!(attempts.next(unavailable), Next::GiveUp);
        let once = |status| Attempts::default().next(Outcome::of_status(status));
        assert_eq!(once(200), Next::Commit);
        assert_eq!(once(301), Next::Follow);
        assert_eq!(once(400), Next::Drop);
        assert_eq!(once(406), Next::Enrol);
        assert_eq!([once(403), once(409), once(500)], [Next::GiveUp; 3]);
        assert_eq!(Attempts::default().next(Outcome::Unreadable), Next::GiveUp);
    }

    #[test]
    fn a_pause_between_servers_and_two_after_the_last() {
        let urls = ["a/", "b/"].map(str::to_owned).to_vec();
        let mut round = Round::new(urls, s(10), s(30));
        assert_eq!(round.url(), "a/");
        assert_eq!(round.failed(|| 0.5), s(25));
        assert_eq!(round.url(), "b/");
        assert_eq!(round.failed(|| 0.0), s(20));
        assert_eq!(round.url(), "a/");
        let mut only = Round::new(vec!["a/".to_owned()], s(10), s(0));
        assert_eq!((only.failed(|| 0.9), only.url()), (s(20), "a/"));
    }
}
