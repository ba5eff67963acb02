//! What an agent reports of a flow, joined so that order and repetition do not matter.
//!
//! Per place in `query_status` the maximum of each counter; status by rank PROGRESS < OK <
//! GENERIC_ERROR with the message of the highest rank; `flow_complete` by OR. Commutative,
//! associative, idempotent.

use litemap::LiteMap;
use nublar_schemas::agent::{FlowStats, VeloStatus, velo_status::ReturnedStatus};
use serde::{Deserialize, Serialize};

const BACKTRACE_BYTES: usize = 4096;

/// Whether the agent says that it does not know the flow.
pub fn is_unknown(stats: &FlowStats) -> bool {
    stats
        .query_status
        .iter()
        .any(|status| status.status() == ReturnedStatus::UnknownFlow)
}

/// The name of the rows that say what an agent went on with when it was told to resume uploads.
pub const RESUMED_UPLOADS: &str = "Server.Internal.ResumedUploads";

/// The status of a resumption of uploads, if the statistics are of one: those of the flow's own
/// queries do not stand beside it.
pub fn resumption(stats: &FlowStats) -> Option<&VeloStatus> {
    stats.query_status.iter().find(|status| {
        let mut names = status.names_with_response.iter();
        names.any(|name| name == RESUMED_UPLOADS)
    })
}

/// How a query stands, lowest rank first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Rank {
    /// It runs.
    #[default]
    Progress,
    /// It ended well.
    Ok,
    /// It failed, or ended after an error.
    GenericError,
}

/// One query's statistics.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct QueryStats {
    /// How it stands.
    pub status: Rank,
    /// Message of the highest rank, empty when it is no error.
    pub error_message: String,
    /// Backtrace that came with it, cut to 4 KiB.
    pub backtrace: String,
    /// Nanoseconds.
    pub duration: i64,
    /// Names that have at least one row.
    pub names_with_response: Vec<String>,
    /// Log rows, as the agent counts them: not to be waited for.
    pub log_rows: i64,
    /// Rows.
    pub result_rows: i64,
    /// Files.
    pub uploaded_files: i64,
    /// Bytes that were uploaded.
    pub uploaded_bytes: i64,
    /// Bytes that were to be uploaded.
    pub expected_uploaded_bytes: i64,
    /// Agent time, microseconds since 1970, 0 when not known.
    pub first_active: u64,
    /// Agent time, microseconds since 1970.
    pub last_active: u64,
}

impl QueryStats {
    fn join(&mut self, seen: &VeloStatus) {
        let rank = match seen.status() {
            ReturnedStatus::Ok => Rank::Ok,
            ReturnedStatus::GenericError => Rank::GenericError,
            ReturnedStatus::Progress | ReturnedStatus::UnknownFlow => Rank::Progress,
        };
        let message = (seen.error_message.as_str(), cut(&seen.backtrace));
        let ours = (self.error_message.as_str(), self.backtrace.as_str());
        if rank > self.status || (rank == self.status && smaller(message, ours)) {
            (self.error_message, self.backtrace) = (message.0.to_owned(), message.1.to_owned());
        }
        self.status = self.status.max(rank);
        self.duration = self.duration.max(seen.duration);
        self.log_rows = self.log_rows.max(seen.log_rows);
        self.result_rows = self.result_rows.max(seen.result_rows);
        self.uploaded_files = self.uploaded_files.max(seen.uploaded_files);
        self.uploaded_bytes = self.uploaded_bytes.max(seen.uploaded_bytes);
        self.expected_uploaded_bytes = self
            .expected_uploaded_bytes
            .max(seen.expected_uploaded_bytes);
        self.last_active = self.last_active.max(seen.last_active);
        if seen.first_active > 0
            && (self.first_active == 0 || seen.first_active < self.first_active)
        {
            self.first_active = seen.first_active;
        }
        for name in &seen.names_with_response {
            if let Err(place) = self.names_with_response.binary_search(name) {
                self.names_with_response.reserve_exact(1);
                self.names_with_response.insert(place, name.clone());
            }
        }
    }
}

/// Of two messages of one rank the smaller counts, but any message counts more than none.
fn smaller(a: (&str, &str), b: (&str, &str)) -> bool {
    let key = |m: (&str, &str)| {
        (
            m.0.is_empty() && m.1.is_empty(),
            m.0.to_owned(),
            m.1.to_owned(),
        )
    };
    key(a) < key(b)
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(BACKTRACE_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The statistics of one session of a flow.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SessionStats {
    /// By place in `query_status`: the order in which they started.
    pub queries: Vec<QueryStats>,
    /// Nothing of the session runs any more.
    pub complete: bool,
}

/// Everything that an agent reported of a flow.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reported {
    /// By the session's part: empty for the flow itself.
    pub sessions: LiteMap<String, SessionStats>,
}

/// Sums over all queries of a flow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Rows.
    pub rows: i64,
    /// Log rows.
    pub logs: i64,
    /// Files.
    pub files: i64,
    /// Uploaded bytes.
    pub bytes: i64,
    /// Bytes that were to be uploaded.
    pub expected_bytes: i64,
}

impl Reported {
    /// Joins what came for the session with this part.
    pub fn join(&mut self, part: &str, seen: &FlowStats) {
        if self.sessions.is_empty() {
            self.sessions = LiteMap::with_capacity(1);
        }
        let session = self.sessions.entry(part.to_owned()).or_default();
        session.complete |= seen.flow_complete;
        let more = seen
            .query_status
            .len()
            .saturating_sub(session.queries.len());
        // A day's flows are kept: no room for more than there are.
        session.queries.reserve_exact(more);
        session
            .queries
            .extend((0..more).map(|_| QueryStats::default()));
        for (ours, theirs) in session.queries.iter_mut().zip(&seen.query_status) {
            ours.join(theirs);
        }
    }

    /// Whether the agent says that nothing of the flow runs any more.
    pub fn complete(&self) -> bool {
        self.sessions
            .get("")
            .is_some_and(|session| session.complete)
    }

    /// All queries of all sessions.
    pub fn queries(&self) -> impl Iterator<Item = &QueryStats> {
        self.sessions.values().flat_map(|session| &session.queries)
    }

    /// The sums over all queries.
    pub fn totals(&self) -> Totals {
        self.queries().fold(Totals::default(), |sum, query| Totals {
            rows: sum.rows + query.result_rows.max(0),
            logs: sum.logs + query.log_rows.max(0),
            files: sum.files + query.uploaded_files.max(0),
            bytes: sum.bytes + query.uploaded_bytes.max(0),
            expected_bytes: sum.expected_bytes + query.expected_uploaded_bytes.max(0),
        })
    }

    /// The first error, in the order of the queries.
    pub fn error(&self) -> Option<&QueryStats> {
        self.queries()
            .find(|query| query.status == Rank::GenericError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn status() -> impl Strategy<Value = VeloStatus> {
        let names = prop::collection::vec("[ab]", 0..3);
        (
            prop::sample::select(vec![0, 4, 10]),
            "[xy]{0,2}",
            "[uv]{0,1}",
            0..4i64,
            0..4u64,
            names,
        )
            .prop_map(
                |(status, error_message, backtrace, n, at, names_with_response)| VeloStatus {
                    status,
                    error_message,
                    backtrace,
                    result_rows: n,
                    log_rows: 3 - n,
                    first_active: at,
                    last_active: at,
                    names_with_response,
                    ..VeloStatus::default()
                },
            )
    }

    fn seen() -> impl Strategy<Value = (String, FlowStats)> {
        let statuses = prop::collection::vec(status(), 0..3);
        ("[s]{0,1}", statuses, any::<bool>()).prop_map(|(part, query_status, flow_complete)| {
            (
                part,
                FlowStats {
                    query_status,
                    flow_complete,
                    ..FlowStats::default()
                },
            )
        })
    }

    fn all(seen: &[(String, FlowStats)]) -> Reported {
        let mut reported = Reported::default();
        seen.iter()
            .for_each(|(part, stats)| reported.join(part, stats));
        reported
    }

    proptest! {
        #[test]
        fn order_and_repetition_do_not_matter(
            messages in prop::collection::vec(seen(), 1..6),
            repeats in prop::collection::vec(0..6usize, 0..6),
            seed in any::<u64>(),
        ) {
            let mut shuffled = messages.clone();
            shuffled.extend(repeats.iter().map(|&n| messages[n % messages.len()].clone()));
            let len = shuffled.len();
            for place in 0..len {
                shuffled.swap(place, (seed as usize).wrapping_mul(place + 7) % len);
            }
            prop_assert_eq!(all(&messages), all(&shuffled));
        }
    }

    #[test]
    fn an_error_outlives_what_comes_after_it() {
        let query = |status, error: &str| FlowStats {
            query_status: vec![VeloStatus {
                status,
                error_message: error.into(),
                result_rows: 5,
                ..VeloStatus::default()
            }],
            ..FlowStats::default()
        };
        let reported = all(&[("".into(), query(10, "boom")), ("".into(), query(0, ""))]);
        assert_eq!(
            reported.error().map(|q| q.error_message.as_str()),
            Some("boom")
        );
        assert_eq!(reported.totals().rows, 5);
        assert!(!reported.complete());
    }

    #[test]
    fn a_backtrace_is_cut_at_a_character() {
        let text = "é".repeat(3000);
        assert_eq!(cut(&text).len(), BACKTRACE_BYTES);
        assert_eq!(cut("short"), "short");
    }
}
