//! Ticks: what only time can decide.

use super::commands::call_off;
use super::flow::{Flow, GivenUp, Task};
use super::{Fold, FoldConfig, Turn};
use crate::ids::{ClientKey, FlowId};
use nublar_schemas::records::Tick;
use std::collections::BTreeMap;

impl Fold {
    pub(super) fn tick(&mut self, turn: &mut Turn, tick: &Tick) {
        if tick.epoch < self.epoch {
            return;
        }
        self.epoch = tick.epoch;
        let step = u64::try_from(tick.elapsed_ms)
            .unwrap_or(0)
            .min(self.config.longest_tick);
        self.clock += step;
        self.wall_us = self.wall_us.max(tick.wall_us);

        let now = Now {
            clock: self.clock,
            wall_us: self.wall_us,
        };
        let mut ask: BTreeMap<ClientKey, Vec<FlowId>> = BTreeMap::new();
        for (key, id) in &self.open {
            let Some(client) = self.clients.get_mut(key) else {
                continue;
            };
            let generation = client.generation;
            let Some(flow) = client.flows.get_mut(id) else {
                continue;
            };
            if flow.in_time(now, &self.config) {
                if flow.has_timed_out(now) {
                    flow.given_up = Some(GivenUp::Deadline);
                    call_off(turn, key, generation, id, flow);
                }
                turn.touch_flow(key, id);
            }
            if flow.is_to_be_asked_about(now, &self.config) {
                ask.entry(key.clone()).or_default().push(id.clone());
            }
        }
        for (key, ids) in ask {
            self.ask(turn, &key, ids);
        }
        let ended: Vec<_> = turn.flows.iter().map(|(key, _)| key.clone()).collect();
        for key in ended {
            self.pump(turn, &key);
        }
        self.forget_old();
    }

    /// Forgets flows that ended long ago; those whose end may still change are kept longer.
    fn forget_old(&mut self) {
        let sooner = self.config.keep_unsure_us - self.config.keep_ended_us;
        let due: Vec<_> = self
            .forget
            .iter()
            .take_while(|(at_us, _, _)| at_us - sooner <= self.wall_us)
            .cloned()
            .collect();
        for entry in due {
            let (at_us, key, id) = &entry;
            let Some(client) = self.clients.get_mut(key) else {
                continue;
            };
            let sure = client.flows.get(id).is_none_or(|flow| {
                flow.marker && flow.task == Task::Resolved && !flow.lacks() && !flow.left_uploads()
            });
            if sure || *at_us <= self.wall_us {
                client.flows.remove(id);
                self.open.remove(&(key.clone(), id.clone()));
                self.forget.remove(&entry);
            }
        }
    }
}

/// Milliseconds of all ticks, and wall time.
#[derive(Debug, Clone, Copy)]
struct Now {
    clock: u64,
    wall_us: i64,
}

impl Flow {
    /// What time does to an open flow. Whether it changes.
    fn in_time(&mut self, now: Now, config: &FoldConfig) -> bool {
        let grace = |since| now.clock >= since + config.grace;
        let short = !self.short && self.short_since.is_some_and(grace);
        let unresponsive = self.task == Task::Granted
            && !self.unresponsive
            && now.clock >= self.news + config.unresponsive_after;
        self.short |= short;
        self.unresponsive |= unresponsive;
        short || unresponsive || self.has_timed_out(now)
    }

    fn has_timed_out(&self, now: Now) -> bool {
        self.ended_us.is_none() && self.given_up.is_none() && now.wall_us >= self.deadline_us
    }

    fn is_to_be_asked_about(&self, now: Now, config: &FoldConfig) -> bool {
        let patience = if self.alive {
            config.news_within
        } else {
            config.ask_after
        };
        self.may_be_asked_about()
            && self.asks < config.asks_per_contact
            && now.clock >= self.news.max(self.asked) + patience
    }
}
