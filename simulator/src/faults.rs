//! What a network does to requests: a coin of their own for each kind of fault and each request.
//!
//! A coin and not a count: polls and POSTs share a connection, and a count of them would hit the
//! same kind of request for ever.

use crate::chance::Chance;
use serde::Deserialize;

/// What the network does to an agent's POSTs. "One in n" is a chance, and none when n is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Faults {
    /// One in n answers is lost, after the server has given it.
    pub lose_every: u32,
    /// One in n POSTs reaches the server twice.
    pub repeat_every: u32,
    /// One in n POSTs is lost before it reaches the server.
    pub drop_every: u32,
    /// The connection breaks after a part of one in n answers' bodies.
    pub cut_every: u32,
    /// POSTs and answers are held up to so many milliseconds.
    pub delay_ms: u64,
}

impl Faults {
    /// A network without faults.
    pub const NONE: Self = Self {
        lose_every: 0,
        repeat_every: 0,
        drop_every: 0,
        cut_every: 0,
        delay_ms: 0,
    };
}

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The answer is lost.
    Lose,
    /// The POST comes twice.
    Repeat,
    /// The POST is lost.
    Drop,
    /// The answer comes in part.
    Cut,
}

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Self::Lose => "lose",
            Self::Repeat => "repeat",
            Self::Drop => "drop",
            Self::Cut => "cut",
        }
    }
}

/// The coins of one network. The same seed tosses the same.
#[derive(Debug, Clone, Copy)]
pub struct Coins(u64);

impl Coins {
    /// Those of a seed, which no other network should have.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Whether this happens to a network's so many-th request: once in `every` times, never if 0.
    pub fn hit(self, fault: Fault, every: u32, request: u64) -> bool {
        if every == 0 {
            return false;
        }
        let own = Chance::of(&[fault.name()], self.0).number();
        Chance::new(own.wrapping_add(request)).unit() * f64::from(every) < 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUESTS: u64 = 10_000;

    fn hits(seed: u64, fault: Fault, every: u32) -> Vec<bool> {
        let coins = Coins::new(seed);
        (0..REQUESTS)
            .map(|request| coins.hit(fault, every, request))
            .collect()
    }

    fn count(hits: impl IntoIterator<Item = bool>) -> f64 {
        hits.into_iter().filter(|hit| *hit).count() as f64
    }

    /// Five standard deviations of so many tosses.
    fn near(count: f64, tosses: f64, chance: f64) -> bool {
        (count - tosses * chance).abs() < 5.0 * (tosses * chance * (1.0 - chance)).sqrt()
    }

    const ALL: [Fault; 4] = [Fault::Lose, Fault::Repeat, Fault::Drop, Fault::Cut];

    #[test]
    fn each_happens_as_often_as_it_is_said_to() {
        for seed in 0..20 {
            for fault in ALL {
                for every in [2, 3, 10, 50] {
                    let found = count(hits(seed, fault, every));
                    let chance = 1.0 / f64::from(every);
                    assert!(
                        near(found, REQUESTS as f64, chance),
                        "{fault:?} 1/{every}: {found}"
                    );
                }
                assert_eq!(count(hits(seed, fault, 1)), REQUESTS as f64);
                assert_eq!(count(hits(seed, fault, 0)), 0.0);
            }
        }
    }

    #[test]
    fn no_fault_knows_of_another_nor_of_the_request_before() {
        let all = REQUESTS as f64;
        for (seed, one) in ALL.into_iter().enumerate() {
            let seed = seed as u64;
            let first = hits(seed, one, 2);
            for other in ALL.into_iter().filter(|other| *other != one) {
                let both = first.iter().zip(hits(seed, other, 3));
                let both = count(both.map(|(first, second)| *first && second));
                assert!(near(both, all, 1.0 / 6.0), "{one:?} and {other:?}: {both}");
            }
            // The same bytes again are another request, with another coin.
            let twice = count(first.windows(2).map(|two| two[0] && two[1]));
            assert!(near(twice, all, 0.25), "{one:?} twice: {twice}");
            // Every second request is a poll: it has no fate of its own.
            let polls = count(first.iter().copied().step_by(2));
            assert!(near(polls, all / 2.0, 0.5), "{one:?} to polls: {polls}");
        }
    }

    #[test]
    fn a_seed_determines_all_of_it() {
        assert_eq!(hits(7, Fault::Lose, 2), hits(7, Fault::Lose, 2));
        let same = hits(7, Fault::Lose, 2);
        let same = count(
            same.iter()
                .zip(hits(8, Fault::Lose, 2))
                .map(|(one, other)| *one == other),
        );
        assert!(near(same, REQUESTS as f64, 0.5), "{same}");
    }
}
