//! Figures of a run: times from asking to having, what connections cost, memory of a process.

use crate::ledger::{Counts, Ledger};
use serde::Serialize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Some times, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Times {
    /// How many.
    pub count: usize,
    /// Half of them are below.
    pub p50_ms: f64,
    /// 99 of 100 are below.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

impl Times {
    /// Sums up.
    pub fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |part: f64| {
            let place = (times.len() as f64 * part).ceil() as usize;
            let time = times
                .get(place.saturating_sub(1))
                .copied()
                .unwrap_or_default();
            (time.as_secs_f64() * 1e6).round() / 1e3
        };
        Self {
            count: times.len(),
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            max_ms: at(1.0),
        }
    }
}

/// What agents saw of their servers.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Traffic {
    /// From the API's answer until the agent had the task.
    pub task: Times,
    /// The same of those whose agent's poll was held when the task was asked for.
    pub task_to_held_poll: Times,
    /// POSTs that were answered with 200.
    pub accepted: u64,
    /// POSTs without an answer that could be used.
    pub failed: u64,
    /// 400, 403, 409 and other refusals.
    pub refused: u64,
    /// 406.
    pub unknown: u64,
    /// Sessions that agents made.
    pub sessions: u64,
    /// Starts of agents.
    pub starts: u64,
    /// Questions about flows.
    pub asks: u64,
}

impl Traffic {
    /// Of all agents of a ledger.
    pub fn of(ledger: &Ledger) -> Self {
        let books = ledger.books();
        let (mut all, mut held) = (Vec::new(), Vec::new());
        for book in &books {
            for entry in book.flows().iter().filter_map(|flow| book.flow(flow)) {
                all.extend(entry.latency(false));
                held.extend(entry.latency(true));
            }
        }
        let sum = |of: fn(&Counts) -> &AtomicU64| {
            books
                .iter()
                .map(|book| of(&book.counts).load(Ordering::Relaxed))
                .sum()
        };
        Self {
            task: Times::of(all),
            task_to_held_poll: Times::of(held),
            accepted: sum(|counts| &counts.accepted),
            failed: sum(|counts| &counts.failed),
            refused: sum(|counts| &counts.refused),
            unknown: sum(|counts| &counts.unknown),
            sessions: sum(|counts| &counts.sessions),
            starts: sum(|counts| &counts.starts),
            asks: sum(|counts| &counts.asks),
        }
    }
}

/// Resident memory of a process in MiB: now, and at most. None if there is no such process.
pub fn memory(process: u32) -> Option<(u64, u64)> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let read = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace()
            .nth(1)?
            .parse::<u64>()
            .ok()
            .map(|kib| kib / 1024)
    };
    Some((read("VmRSS:")?, read("VmHWM:")?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn times_are_summed_up() {
        let times = Times::of((1..=200).rev().map(Duration::from_millis).collect());
        assert_eq!(
            (times.count, times.p50_ms, times.p99_ms, times.max_ms),
            (200, 100.0, 198.0, 200.0)
        );
        assert_eq!(Times::of(Vec::new()), Times::default());
        assert_eq!(Times::of(vec![Duration::from_micros(1500)]).p99_ms, 1.5);
    }

    #[test]
    fn this_process_has_memory() {
        let (now, most) = memory(std::process::id()).unwrap();
        assert!(now > 0 && most >= now);
        assert_eq!(memory(u32::MAX), None);
    }
}
