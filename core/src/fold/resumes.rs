//! Uploads that an agent is told to go on with, once their flow has ended.
//!
//! The flow's end stays what it is: whatever still comes of its uploads is stored and counted as
//! stored, but the statistics of a resumption tell of nothing but the resumption. The agent is told
//! at once, and again at every contact until its statistics name this resumption: they give back
//! the time at which its request says that it began.

use super::flow::{Flow, Task, Verdict};
use super::{Fold, Turn, header};
use crate::ids::{ClientKey, FlowId};
use crate::stats::resumption;
use nublar_schemas::agent::FlowStats;
use nublar_schemas::agent::velo_status::ReturnedStatus;
use nublar_schemas::records::{Command, RequestRef, Resume};
use serde::{Deserialize, Serialize};

/// The body of the command `resume`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resumption {
    /// Where the ResumeTransactions stands.
    pub request: RequestRef,
    /// The `first_active` of its one query: what tells it from others of this flow, microseconds.
    pub began_us: i64,
    /// How many uploads it names.
    pub uploads: usize,
}

/// How far it is. The order is that of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Stage {
    /// The agent has not said that it has it.
    Asked,
    /// The agent works on it.
    Running,
    /// The agent is done with it.
    Done,
}

/// The last resumption of a flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Resumed {
    wanted: Resumption,
    by: String,
    at_us: i64,
    /// When the agent last told of it.
    news_us: i64,
    stage: Stage,
    error: String,
}

impl Resumed {
    /// As people read it.
    pub(super) fn shown(&self) -> serde_json::Value {
        serde_json::json!({
            "by": self.by,
            "at": self.at_us,
            "last_news": self.news_us,
            "uploads": self.wanted.uploads,
            "state": self.stage,
            "error": self.error,
        })
    }

    /// Whether the agent has not said that it has it.
    pub(super) fn is_to_be_told(&self) -> bool {
        self.stage == Stage::Asked
    }

    /// The record that tells the agent.
    pub(super) fn tell(&self, key: &ClientKey, generation: i64, id: &FlowId, at_us: i64) -> Resume {
        Resume {
            header: header(key, generation, at_us),
            flow_id: id.to_string(),
            request: self.wanted.request.clone(),
        }
    }
}

impl Flow {
    /// Whether it is likely that somebody wants more of its uploads.
    pub(super) fn left_uploads(&self) -> bool {
        let files = self.stored().files.max(self.reported.totals().files);
        files > 0 && self.verdict() != Verdict::Finished
    }
}

impl Fold {
    pub(super) fn resume(&mut self, turn: &mut Turn, command: &Command) -> Result<String, String> {
        let key = ClientKey::of(&command.header).map_err(|error| error.to_string())?;
        let wanted: Resumption = serde_json::from_str(&command.body)
            .map_err(|error| format!("the body of the command is no resumption: {error}"))?;
        let patience_us = i64::try_from(self.config.unresponsive_after).unwrap_or(i64::MAX);
        let patience_us = patience_us.saturating_mul(1_000);
        let unknown = || {
            format!(
                "flow {} of client {} is not remembered any more: collect its files anew",
                command.target, key.client
            )
        };
        let (generation, id, flow) = self.flow_mut(&key, &command.target).ok_or_else(unknown)?;
        if flow.ended_us.is_none() {
            return Err(format!(
                "flow {id} has not ended: its uploads go on by themselves"
            ));
        }
        if flow.task != Task::Resolved {
            return Err(format!(
                "the agent has not said yet that it has stopped flow {id}"
            ));
        }
        let works = |last: &Resumed| {
            last.stage == Stage::Running && turn.at_us.saturating_sub(last.news_us) < patience_us
        };
        if flow.resumed.as_ref().is_some_and(works) {
            return Err(format!(
                "the agent works on the uploads of flow {id} already"
            ));
        }
        let resumed = Resumed {
            wanted,
            by: command.user.clone(),
            at_us: turn.at_us,
            news_us: turn.at_us,
            stage: Stage::Asked,
            error: String::new(),
        };
        turn.task(resumed.tell(&key, generation, &id, turn.at_us));
        flow.resumed = Some(resumed);
        turn.touch_flow(&key, &id);
        Ok(String::new())
    }

    /// What the agent says of a resumption. Whether these statistics are of one.
    pub(super) fn resumption_seen(
        &mut self,
        turn: &mut Turn,
        key: &ClientKey,
        id: &FlowId,
        stats: &FlowStats,
    ) -> bool {
        let Some(status) = resumption(stats) else {
            return false;
        };
        let stage = match status.status() {
            ReturnedStatus::Progress => Stage::Running,
            ReturnedStatus::Ok | ReturnedStatus::GenericError | ReturnedStatus::UnknownFlow => {
                Stage::Done
            }
        };
        let Some((_, id, flow)) = self.flow_mut(key, id.as_str()) else {
            return true;
        };
        let is_this = |last: &&mut Resumed| {
            u64::try_from(last.wanted.began_us).is_ok_and(|began| began == status.first_active)
        };
        if let Some(last) = flow.resumed.as_mut().filter(is_this) {
            last.news_us = turn.at_us;
            last.stage = last.stage.max(stage);
            if last.error.is_empty() {
                status.error_message.trim_end().clone_into(&mut last.error);
            }
            turn.touch_flow(key, &id);
        }
        true
    }
}
