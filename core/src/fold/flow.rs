//! One flow: how its task stands with the agent, and how it ends.

use super::resumes::Resumed;
use crate::stats::{Reported, Totals};
use nublar_schemas::records::{RequestRef, Stored};
use serde::{Deserialize, Serialize};

/// Where a flow comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Origin {
    /// Somebody asked us for it.
    Collected {
        request: RequestRef,
        queries: i32,
        urgent: bool,
        execve: bool,
    },
    /// It was in flight when its agent came to us from another server: a document, no task, no
    /// timer, no question.
    Adopted,
}

/// How the task stands with the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Task {
    /// Waits for its turn.
    Queued,
    /// Any frontend that holds a poll of the client may claim it.
    Offered,
    /// One poll may deliver it; from here on the agent may have it.
    Granted,
    /// The agent has answered for it, or never got it and never will.
    Resolved,
}

/// What one group of workers has stored of a flow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct StoredTotals {
    pub(super) rows: i64,
    pub(super) logs: i64,
    pub(super) files: i64,
    pub(super) bytes: i64,
    pub(super) closing: bool,
    pub(super) ran_twice: bool,
}

impl StoredTotals {
    pub(super) fn join(&mut self, stored: &Stored) {
        self.rows = self.rows.max(stored.rows);
        self.logs = self.logs.max(stored.logs);
        self.files = self.files.max(stored.files);
        self.bytes = self.bytes.max(stored.bytes);
        self.closing |= stored.closing;
        self.ran_twice |= stored.ran_twice;
    }
}

/// How a flow stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It has not ended.
    Open,
    /// Everything that the agent reports is stored.
    Finished,
    /// It ended otherwise.
    Failed { reason: &'static str, text: String },
}

impl Verdict {
    pub(super) fn is_end(&self) -> bool {
        *self != Self::Open
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Flow {
    pub(super) origin: Origin,
    /// Version of the record that created it: the order of the queue.
    pub(super) since: u64,
    pub(super) creator: String,
    pub(super) artifacts: Vec<String>,
    /// JSON.
    pub(super) spec: String,
    pub(super) created_us: i64,
    pub(super) deadline_us: i64,
    #[serde(default)]
    pub(super) started_us: Option<i64>,
    #[serde(default)]
    pub(super) ended_us: Option<i64>,

    pub(super) task: Task,
    pub(super) attempt: i32,
    pub(super) deliveries: u32,
    /// The polls, by their frontends, that may have brought the current attempt: those that it was
    /// granted to and that have not said otherwise.
    #[serde(default)]
    pub(super) granted: Vec<(String, i64)>,
    /// The agent's request that the current attempt is bound to, by its packet_iv.
    #[serde(default)]
    pub(super) granted_iv: Vec<u8>,
    /// When the newest of them was, by the frontend's time.
    #[serde(default)]
    pub(super) granted_us: i64,
    /// Something of it came from the agent.
    pub(super) alive: bool,
    /// Clock at the grant or the last sign of life.
    pub(super) news: u64,
    /// Clock at the last question.
    pub(super) asked: u64,
    /// Questions in this contact.
    pub(super) asks: u32,
    #[serde(default)]
    pub(super) unresponsive: bool,

    #[serde(default)]
    pub(super) reported: Reported,
    /// The agent's terminal statistics came, behind all that they count.
    #[serde(default)]
    pub(super) marker: bool,
    #[serde(default)]
    pub(super) results: StoredTotals,
    #[serde(default)]
    pub(super) uploads: StoredTotals,
    /// Clock when the closings were there and something was missing.
    #[serde(default)]
    pub(super) short_since: Option<u64>,
    /// It was missing for longer than the grace.
    #[serde(default)]
    pub(super) short: bool,

    /// Who cancelled it.
    #[serde(default)]
    pub(super) cancelled: Option<String>,
    /// The agent ran it and does not know it any more: nothing else will come.
    #[serde(default)]
    pub(super) forgotten: bool,
    /// Why it is not tried any more.
    #[serde(default)]
    pub(super) given_up: Option<GivenUp>,
    /// What the agent was last told to go on with.
    #[serde(default)]
    pub(super) resumed: Option<Resumed>,
}

/// Why a flow is not tried any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum GivenUp {
    /// Delivered as often as allowed.
    NeverAlive,
    /// It runs a command and may have run.
    MayHaveRun,
    /// Its deadline passed.
    Deadline,
    /// Its client was deleted.
    Deleted,
}

impl Flow {
    pub(super) fn new(origin: Origin, since: u64, at_us: i64, clock: u64) -> Self {
        let adopted = origin == Origin::Adopted;
        Self {
            origin,
            since,
            creator: String::new(),
            artifacts: Vec::new(),
            spec: String::new(),
            created_us: at_us,
            deadline_us: i64::MAX,
            started_us: None,
            ended_us: None,
            task: if adopted {
                Task::Resolved
            } else {
                Task::Queued
            },
            attempt: 1,
            deliveries: 0,
            granted: Vec::new(),
            granted_iv: Vec::new(),
            granted_us: 0,
            alive: false,
            news: clock,
            asked: clock,
            asks: 0,
            unresponsive: false,
            reported: Reported::default(),
            marker: false,
            results: StoredTotals::default(),
            uploads: StoredTotals::default(),
            short_since: None,
            short: false,
            cancelled: None,
            forgotten: false,
            given_up: None,
            resumed: None,
        }
    }

    pub(super) fn is_adopted(&self) -> bool {
        self.origin == Origin::Adopted
    }

    pub(super) fn urgent(&self) -> bool {
        matches!(self.origin, Origin::Collected { urgent: true, .. })
    }

    pub(super) fn runs_commands(&self) -> bool {
        matches!(self.origin, Origin::Collected { execve: true, .. })
    }

    /// Whether its agent is to work on it no more.
    pub(super) fn is_called_off(&self) -> bool {
        self.cancelled.is_some() || self.given_up.is_some()
    }

    /// Whether time, or an answer, can still change something.
    pub(super) fn is_open(&self) -> bool {
        !self.is_adopted() && (self.task != Task::Resolved || self.ended_us.is_none())
    }

    /// Whether the agent could know more of the flow than we do.
    pub(super) fn may_be_asked_about(&self) -> bool {
        match self.task {
            Task::Granted => true,
            // An urgent answer told of the end, the marker behind the rows has not come.
            Task::Resolved => {
                !self.is_adopted()
                    && self.reported.complete()
                    && !self.marker
                    && self.ended_us.is_none()
            }
            Task::Queued | Task::Offered => false,
        }
    }

    /// Something of the flow came from its agent.
    pub(super) fn sign_of_life(&mut self, clock: u64) {
        self.alive = true;
        self.news = clock;
        self.unresponsive = false;
    }

    /// What is stored, against what the agent reports.
    pub(super) fn stored(&self) -> Totals {
        Totals {
            rows: self.results.rows,
            logs: self.results.logs,
            files: self.uploads.files,
            bytes: self.uploads.bytes,
            expected_bytes: 0,
        }
    }

    fn is_stored(&self) -> bool {
        let (reported, stored) = (self.reported.totals(), self.stored());
        stored.rows >= reported.rows
            && stored.files >= reported.files
            && stored.bytes >= reported.bytes
    }

    /// Whether every group that has something to store has said that it passed the marker.
    fn is_closed(&self) -> bool {
        let reported = self.reported.totals();
        (reported.rows == 0 || self.results.closing)
            && ((reported.files == 0 && reported.bytes == 0) || self.uploads.closing)
    }

    /// Whether the agent has said its last word.
    fn is_told(&self) -> bool {
        self.marker || (self.forgotten && self.reported.complete())
    }

    /// Whether the workers are done and something is missing: the grace runs.
    pub(super) fn lacks(&self) -> bool {
        self.is_told() && self.is_closed() && !self.is_stored()
    }

    /// The flow's end, as a function of what is known: a real completion beats every guess.
    pub(super) fn verdict(&self) -> Verdict {
        if let Some(user) = &self.cancelled {
            return Verdict::Failed {
                reason: "cancelled",
                text: format!("cancelled by {user}"),
            };
        }
        if self.is_told() && (self.is_closed() || self.forgotten) {
            if self.is_stored() {
                return match self.reported.error() {
                    None => Verdict::Finished,
                    Some(query) => Verdict::Failed {
                        reason: "failed",
                        text: query.error_message.trim_end().to_owned(),
                    },
                };
            }
            if self.short || self.forgotten || self.is_adopted() {
                return Verdict::Failed {
                    reason: "incomplete",
                    text: self.missing(),
                };
            }
        }
        match self.given_up {
            Some(GivenUp::NeverAlive) => Verdict::Failed {
                reason: "undelivered",
                text: format!("granted {} times, never seen alive", self.deliveries),
            },
            Some(GivenUp::MayHaveRun) => Verdict::Failed {
                reason: "undelivered",
                text: "it runs a command and may have run: not sent again without a person"
                    .to_owned(),
            },
            Some(GivenUp::Deadline) => {
                let text = if self.alive {
                    "not complete at its deadline"
                } else if self.deliveries > 0 {
                    "delivered, but never seen alive until its deadline"
                } else {
                    "not delivered until its deadline"
                };
                Verdict::Failed {
                    reason: "deadline",
                    text: text.to_owned(),
                }
            }
            Some(GivenUp::Deleted) => Verdict::Failed {
                reason: "deleted",
                text: "its client was deleted".to_owned(),
            },
            None if self.forgotten => Verdict::Failed {
                reason: "lost",
                text: "the agent lost it, for it was started anew".to_owned(),
            },
            None => Verdict::Open,
        }
    }

    fn missing(&self) -> String {
        let (reported, stored) = (self.reported.totals(), self.stored());
        let parts = [
            ("rows", stored.rows, reported.rows),
            ("files", stored.files, reported.files),
            ("bytes", stored.bytes, reported.bytes),
        ];
        let missing: Vec<_> = parts
            .iter()
            .filter(|(_, stored, reported)| stored < reported)
            .map(|(what, stored, reported)| format!("{stored} of {reported} {what}"))
            .collect();
        format!("incomplete: {} stored", missing.join(", "))
    }
}
