//! Ticks: what only time can decide.

use super::commands::call_off;
use super::flow::{GivenUp, Task};
use super::{Fold, Turn};
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

        let mut ask: BTreeMap<ClientKey, Vec<FlowId>> = BTreeMap::new();
        for (key, id) in self.open.clone() {
            if self.flow_in_time(turn, &key, &id) {
                ask.entry(key).or_default().push(id);
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

    /// What time does to one open flow. Whether the agent is to be asked about it.
    fn flow_in_time(&mut self, turn: &mut Turn, key: &ClientKey, id: &FlowId) -> bool {
        let (clock, wall_us) = (self.clock, self.wall_us);
        let config = self.config.clone();
        let Some((generation, id, flow)) = self.flow_mut(key, id.as_str()) else {
            return false;
        };
        if flow
            .short_since
            .is_some_and(|since| !flow.short && clock >= since + config.grace)
        {
            flow.short = true;
            turn.touch_flow(key, &id);
        }
        if flow.ended_us.is_none() && flow.given_up.is_none() && wall_us >= flow.deadline_us {
            flow.given_up = Some(GivenUp::Deadline);
            call_off(turn, key, generation, &id, flow);
            turn.touch_flow(key, &id);
        }
        if flow.task == Task::Granted
            && !flow.unresponsive
            && clock >= flow.news + config.unresponsive_after
        {
            flow.unresponsive = true;
            turn.touch_flow(key, &id);
        }
        let patience = if flow.alive {
            config.news_within
        } else {
            config.ask_after
        };
        flow.may_be_asked_about()
            && flow.asks < config.asks_per_contact
            && clock >= flow.news.max(flow.asked) + patience
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
