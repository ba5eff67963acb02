//! The fold, seen from outside: records in, decisions and documents out.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use crate::ids::ClientKey;
use crate::mac::MacKey;
use nublar_schemas::agent::{FlowStats, VeloStatus, velo_status::ReturnedStatus};
use nublar_schemas::records::{
    Announce, AskPair, CheckIn, Claim, Command, FactsSet, FlowCreated, FlowStatsSeen, RequestRef,
    SeenStats, Stored, Tasks, Tick, Unsent, Unsure,
};
use prost::Message;
use serde_json::Value;

mod clones;
mod lives;
mod races;
mod restarts;
mod resumes;

const CLIENT: &str = "C.00000000000000aa";

struct Bench {
    fold: Fold,
    offset: u64,
    at_us: i64,
    generation: i64,
}

impl Bench {
    fn new() -> Self {
        let mut config = FoldConfig::new(MacKeys::new(
            MacKey {
                from_us: 0,
                secret: [7; 32],
            },
            [],
        ));
        config.interrogate = false;
        Self::with(config)
    }

    fn with(config: FoldConfig) -> Self {
        Self {
            fold: Fold::new(Arc::new(config)),
            offset: 0,
            at_us: 1_795_514_940_000_000,
            generation: 1,
        }
    }

    fn header(&self, frontend: &str) -> Header {
        Header {
            client: CLIENT.into(),
            generation: self.generation,
            at_us: self.at_us,
            frontend: frontend.into(),
            ..Header::default()
        }
    }

    fn apply(&mut self, record: impl Into<Scheduling>) -> Vec<Output> {
        let outputs = self.fold.apply(version(1, self.offset), &record.into());
        self.offset += 1;
        self.at_us += 1_000;
        outputs
    }

    fn key() -> ClientKey {
        ClientKey {
            org: OrgId::root(),
            client: CLIENT.parse().unwrap(),
        }
    }

    fn new_id(&mut self, n: u32) -> String {
        self.fold
            .config
            .keys
            .flow_id(&Self::key(), 1, self.at_us, n.to_be_bytes())
            .to_string()
    }

    fn create(&mut self, n: u32, change: impl FnOnce(&mut FlowCreated)) -> (String, Vec<Output>) {
        let id = self.new_id(n);
        let mut created = FlowCreated {
            header: self.header("gui"),
            flow_id: id.clone(),
            request: RequestRef::default(),
            creator: "admin".into(),
            artifacts: vec!["A".into()],
            spec: "{}".into(),
            queries: 1,
            urgent: false,
            execve: false,
            deadline_us: self.at_us + 3_600_000_000,
        };
        change(&mut created);
        let outputs = self.apply(created);
        (id, outputs)
    }

    fn check_in(&mut self, session: &'static [u8]) -> Vec<Output> {
        self.checks_in(session, |_| {})
    }

    fn check_in_with(&mut self, table_version: i64) -> Vec<Output> {
        self.checks_in(b"s1", |c| c.table_version = table_version)
    }

    fn checks_in(&mut self, session: &[u8], change: impl FnOnce(&mut CheckIn)) -> Vec<Output> {
        let mut check_in = CheckIn {
            header: self.header("fe-1"),
            session_key: session.to_vec().into(),
            table_version: 0,
            address: "127.0.0.1".into(),
            via: String::new(),
            clock_skew_ms: None,
            introduces: false,
        };
        change(&mut check_in);
        self.apply(check_in)
    }

    fn claim(&mut self, id: &str, attempt: i32, poll: i64) -> Vec<Output> {
        let header = self.header("fe-1");
        self.apply(Claim {
            header,
            flow_id: id.into(),
            attempt,
            poll,
            packet_iv: poll.to_be_bytes().to_vec().into(),
        })
    }

    fn unsent(&mut self, frontend: &str, id: &str, poll: i64) -> Vec<Output> {
        let header = self.header(frontend);
        self.apply(Unsent {
            header,
            flow_id: id.into(),
            attempt: 1,
            poll,
        })
    }

    /// A claim for a request that was sent before.
    fn claim_repeat(&mut self, frontend: &str, id: &str, poll: i64, of: i64) -> Vec<Output> {
        let header = self.header(frontend);
        self.apply(Claim {
            header,
            flow_id: id.into(),
            attempt: 1,
            poll,
            packet_iv: of.to_be_bytes().to_vec().into(),
        })
    }

    /// Somebody cancels a flow.
    fn cancel(&mut self, id: &str) -> Vec<Output> {
        let header = self.header("gui");
        self.apply(Command {
            header,
            id: "cmd".into(),
            kind: "cancel".into(),
            target: id.into(),
            user: "admin".into(),
            body: String::new(),
        })
    }

    fn stats(&mut self, items: &[(&str, bool, FlowStats)]) -> Vec<Output> {
        let stats = items
            .iter()
            .map(|(session, urgent, stats)| SeenStats {
                session: (*session).into(),
                urgent: *urgent,
                bytes: stats.encode_to_vec().into(),
            })
            .collect();
        let header = self.header("fe-1");
        self.apply(FlowStatsSeen { header, stats })
    }

    fn stored(
        &mut self,
        id: &str,
        group: &str,
        rows: i64,
        bytes: i64,
        closing: bool,
    ) -> Vec<Output> {
        let header = self.header("worker");
        self.apply(Stored {
            header,
            flow_id: id.into(),
            group: group.into(),
            rows,
            logs: 0,
            files: i64::from(bytes > 0),
            bytes,
            closing,
            ran_twice: false,
        })
    }

    /// Lets this many seconds pass.
    fn pass(&mut self, seconds: i64) -> Vec<Output> {
        let mut outputs = Vec::new();
        for _ in 0..seconds / 5 {
            self.at_us += 5_000_000;
            let tick = Tick {
                header: Header::default(),
                epoch: 1,
                elapsed_ms: 5_000,
                wall_us: self.at_us,
            };
            outputs.extend(self.apply(tick));
        }
        outputs
    }
}

fn tasks(outputs: &[Output]) -> Vec<Tasks> {
    outputs
        .iter()
        .filter_map(|o| {
            if let Output::Task(t) = o {
                Some(t.clone())
            } else {
                None
            }
        })
        .collect()
}

fn offers(outputs: &[Output]) -> Vec<(String, i32)> {
    let offer = |task| {
        if let Tasks::Offer(o) = task {
            Some((o.flow_id, o.attempt))
        } else {
            None
        }
    };
    tasks(outputs).into_iter().filter_map(offer).collect()
}

fn asks(outputs: &[Output]) -> Vec<AskPair> {
    let ask = |task| {
        if let Tasks::Ask(a) = task {
            a.pairs
        } else {
            vec![]
        }
    };
    tasks(outputs).into_iter().flat_map(ask).collect()
}

fn grants(outputs: &[Output]) -> usize {
    tasks(outputs)
        .iter()
        .filter(|task| matches!(task, Tasks::Grant(_)))
        .count()
}

fn completions(outputs: &[Output]) -> usize {
    let is = |o: &&Output| matches!(o, Output::Notify(Notifications::Notification(n)) if n.kind == "flow_completion");
    outputs.iter().filter(is).count()
}

fn announce(kind: &str) -> Announce {
    Announce {
        header: Header::default(),
        kind: kind.into(),
        request: RequestRef::default(),
        artifacts: vec!["Generic.Client.Info".into()],
        queries: 1,
        spec: "{}".into(),
    }
}

fn document(outputs: &[Output]) -> Value {
    let flow = |o: &Output| match o {
        Output::State(d) if d.kind == "flow" => serde_json::from_str(&d.body).ok(),
        _ => None,
    };
    outputs
        .iter()
        .rev()
        .find_map(flow)
        .expect("a flow's document")
}

fn report(status: ReturnedStatus, rows: i64, bytes: i64, complete: bool) -> FlowStats {
    FlowStats {
        query_status: vec![VeloStatus {
            status: status.into(),
            result_rows: rows,
            uploaded_bytes: bytes,
            uploaded_files: i64::from(bytes > 0),
            error_message: if status == ReturnedStatus::GenericError {
                "boom\n".into()
            } else {
                String::new()
            },
            ..VeloStatus::default()
        }],
        flow_complete: complete,
        ..FlowStats::default()
    }
}

fn unknown() -> FlowStats {
    report(ReturnedStatus::UnknownFlow, 0, 0, true)
}

fn done(rows: i64, bytes: i64) -> FlowStats {
    report(ReturnedStatus::Ok, rows, bytes, true)
}

#[test]
fn a_flow_is_offered_granted_once_and_finished_when_it_is_stored() {
    let mut b = Bench::new();
    b.check_in(b"s1");
    let (id, created) = b.create(1, |_| {});
    assert_eq!(offers(&created), [(id.clone(), 1)]);
    assert_eq!(document(&created)["state"], "RUNNING");
    assert_eq!(grants(&b.claim(&id, 1, 10)), 1);
    assert_eq!(
        grants(&b.claim(&id, 1, 11)),
        0,
        "a second poll gets nothing"
    );

    let working = b.stats(&[(&id, false, report(ReturnedStatus::Progress, 1, 0, false))]);
    assert_eq!(document(&working)["state"], "IN_PROGRESS");
    let told = b.stats(&[(&id, false, done(2, 5))]);
    assert_eq!(completions(&told), 0, "FINISHED means stored");
    assert_eq!(
        completions(&b.stored(&id, "results", 2, 0, true)),
        0,
        "uploads are missing"
    );
    let stored = b.stored(&id, "uploads", 0, 5, true);
    assert_eq!(completions(&stored), 1);
    assert_eq!(document(&stored)["state"], "FINISHED");
    assert_eq!(document(&stored)["total_collected_rows"], 2);
    assert_eq!(
        completions(&b.stats(&[(&id, false, done(2, 5))])),
        0,
        "announced once"
    );
    assert!(!b.fold.timer_armed());
}

#[test]
fn a_client_has_four_flows_in_flight_and_urgent_ones_pass() {
    let mut b = Bench::new();
    b.check_in(b"s1");
    let ids: Vec<_> = (0..6).map(|n| b.create(n, |_| {})).collect();
    assert_eq!(ids.iter().filter(|(_, o)| !offers(o).is_empty()).count(), 4);
    let (_, urgent) = b.create(9, |c| c.urgent = true);
    assert_eq!(offers(&urgent).len(), 1);
    b.claim(&ids[0].0, 1, 1);
    let freed = b.stats(&[(&ids[0].0, false, done(0, 0))]);
    assert_eq!(
        offers(&freed),
        [(ids[4].0.clone(), 1)],
        "the oldest that waits"
    );
}

#[test]
fn a_cancel_passes_while_four_flows_are_in_flight() {
    let mut b = Bench::new();
    b.check_in(b"s1");
    let ids: Vec<_> = (0..6).map(|n| b.create(n, |_| {}).0).collect();
    (1..=4).for_each(|n| {
        b.claim(&ids[n - 1], 1, n as i64);
    });
    let outputs = b.cancel(&ids[0]);
    let told = tasks(&outputs)
        .into_iter()
        .filter(|task| matches!(task, Tasks::Cancel(_)))
        .count();
    assert_eq!(told, 1);
}

#[test]
fn what_a_client_says_of_itself_becomes_its_document() {
    let mut b = Bench::new();
    b.check_in(b"s1");
    let says = |b: &mut Bench, at_us: i64, facts: &str| -> Option<Value> {
        let header = Header {
            at_us,
            ..b.header("worker")
        };
        let outputs = b.apply(FactsSet {
            header,
            source: "Server.Internal.ClientInfo".into(),
            facts: facts.into(),
            ..FactsSet::default()
        });
        let client = |o: &Output| match o {
            Output::State(d) if d.kind == "client" => serde_json::from_str(&d.body).ok(),
            _ => None,
        };
        outputs.iter().find_map(client)
    };
    let first = r#"{"hostname":"one","fqdn":"one.example","labels":["a"]}"#;
    let document = says(&mut b, 10, first).unwrap();
    assert_eq!(document["hostname"], "one");
    assert_eq!(document["fqdn"], "one.example");
    let document = says(&mut b, 20, r#"{"hostname":"two"}"#).unwrap();
    assert_eq!(document["hostname"], "two");
    assert!(says(&mut b, 10, first).is_none(), "an old word, come late");
}

#[test]
fn an_unknown_counts_only_behind_the_question_of_its_attempt() {
    let mut b = Bench::new();
    b.check_in(b"s1");
    let (id, _) = b.create(1, |_| {});
    b.claim(&id, 1, 1);
    assert!(asks(&b.pass(10)).is_empty());
    let first = asks(&b.pass(5));
    assert_eq!(first.len(), 1);
    assert_eq!(first[0].flow_id, id);
    assert!(
        offers(&b.stats(&[(&id, true, unknown())])).is_empty(),
        "a stale answer"
    );
    assert!(
        offers(&b.stats(&[("F.someoneelse", true, unknown()), (&id, true, unknown())])).is_empty()
    );
    let again = b.stats(&[(&first[0].once, true, unknown()), (&id, true, unknown())]);
    assert_eq!(offers(&again), [(id.clone(), 2)]);
    b.claim(&id, 2, 2);
    let stale = b.stats(&[(&first[0].once, true, unknown()), (&id, true, unknown())]);
    assert!(
        offers(&stale).is_empty(),
        "it answers for the first attempt"
    );
    let second = asks(&b.pass(15));
    assert_ne!(second[0].once, first[0].once);
}

#[test]
fn a_task_that_never_lives_is_given_up_after_eight_deliveries() {
    let mut b = Bench::new();
    b.check_in(b"s1");
    let (id, _) = b.create(1, |_| {});
    for attempt in 1..=8 {
        assert_eq!(grants(&b.claim(&id, attempt, i64::from(attempt))), 1);
        let ask = asks(&b.pass(15)).remove(0);
        let answer = b.stats(&[(&ask.once, true, unknown()), (&id, true, unknown())]);
        if attempt == 8 {
            assert_eq!(document(&answer)["reason"], "undelivered");
            assert_eq!(
                document(&answer)["status"],
                "granted 8 times, never seen alive"
            );
            assert_eq!(completions(&answer), 1);
        } else {
            assert_eq!(offers(&answer).len(), 1);
        }
    }
}

#[test]
fn an_attempt_is_granted_again_to_repeats_of_its_request_only() {
    let mut b = Bench::new();
    b.check_in(b"s1");
    let (id, _) = b.create(1, |_| {});
    assert_eq!(grants(&b.claim(&id, 1, 5)), 1);
    assert_eq!(grants(&b.claim(&id, 1, 6)), 0, "another request");
    assert_eq!(grants(&b.claim_repeat("fe-2", &id, 9, 5)), 1);
    assert_eq!(grants(&b.claim_repeat("fe-2", &id, 9, 5)), 0, "it has it");
    // The first frontend has not said that it brought nothing: only the agent can tell.
    let asked = b.unsent("fe-2", &id, 9);
    assert!(offers(&asked).is_empty());
    assert!(
        offers(&b.unsent("fe-2", &id, 9)).is_empty(),
        "it has said so"
    );
    let ask = asks(&asked).remove(0);
    let unknown = b.stats(&[(&ask.once, true, unknown()), (&id, true, unknown())]);
    assert_eq!(offers(&unknown), [(id.clone(), 2)]);
    assert_eq!(grants(&b.claim_repeat("fe-2", &id, 10, 5)), 0, "an old one");
}

#[test]
fn what_no_frontend_sent_is_offered_again_and_counts_for_nothing() {
    let mut b = Bench::new();
    b.check_in(b"s1");
    let (id, _) = b.create(1, |_| {});
    // More often than a task is delivered: each time the poll and its repeat end before the grants
    // have come.
    for attempt in 1..=20 {
        let claim = |b: &mut Bench, frontend: &str, poll| {
            let header = b.header(frontend);
            b.apply(Claim {
                header,
                flow_id: id.clone(),
                attempt,
                poll,
                packet_iv: attempt.to_be_bytes().to_vec().into(),
            })
        };
        let unsent = |b: &mut Bench, frontend: &str, poll| {
            let header = b.header(frontend);
            b.apply(Unsent {
                header,
                flow_id: id.clone(),
                attempt,
                poll,
            })
        };
        assert_eq!(grants(&claim(&mut b, "fe-1", 5)), 1);
        assert_eq!(grants(&claim(&mut b, "fe-2", 9)), 1);
        assert!(offers(&unsent(&mut b, "fe-1", 5)).is_empty());
        let offered = offers(&unsent(&mut b, "fe-2", 9));
        assert_eq!(offered, [(id.clone(), attempt + 1)]);
    }
}

#[test]
fn a_flow_that_lives_is_not_granted_again() {
    let mut b = Bench::new();
    b.check_in(b"s1");
    let (id, _) = b.create(1, |_| {});
    b.claim(&id, 1, 5);
    b.stats(&[(&id, false, FlowStats::default())]);
    assert_eq!(grants(&b.claim_repeat("fe-2", &id, 9, 5)), 0);
}

#[test]
fn a_command_that_may_have_run_is_not_sent_again() {
    let mut b = Bench::new();
    b.check_in(b"s1");
    let (id, _) = b.create(1, |c| c.execve = true);
    b.claim(&id, 1, 1);
    let ask = asks(&b.check_in(b"s2")).remove(0);
    let answer = b.stats(&[(&ask.once, true, unknown()), (&id, true, unknown())]);
    assert!(offers(&answer).is_empty());
    assert_eq!(document(&answer)["state"], "ERROR");
}

#[test]
fn unknown_after_life_is_lost_and_the_real_end_wins() {
    let mut b = Bench::new();
    b.check_in(b"s1");
    let (id, _) = b.create(1, |_| {});
    b.claim(&id, 1, 1);
    b.stats(&[(&id, false, report(ReturnedStatus::Progress, 0, 0, false))]);
    let ask = asks(&b.check_in(b"s2")).remove(0);
    let lost = b.stats(&[(&ask.once, true, unknown()), (&id, true, unknown())]);
    assert_eq!(
        (&document(&lost)["state"], &document(&lost)["reason"]),
        (&"ERROR".into(), &"lost".into())
    );
    assert_eq!(completions(&lost), 1);
    assert!(offers(&b.pass(600)).is_empty(), "never run again");
    b.stats(&[(&id, false, done(3, 0))]);
    let found = b.stored(&id, "results", 3, 0, true);
    assert_eq!(document(&found)["state"], "FINISHED");
    assert_eq!(completions(&found), 0, "no second completion");
}

#[test]
fn a_grant_that_did_not_leave_is_offered_again_and_counts_for_nothing() {
    let mut b = Bench::new();
    b.check_in(b"s1");
    let (id, _) = b.create(1, |_| {});
    for attempt in 1..=7 {
        assert_eq!(grants(&b.claim(&id, attempt, 5)), 1);
        let header = b.header("fe-1");
        let again = b.apply(Unsent {
            header,
            flow_id: id.clone(),
            attempt,
            poll: 5,
        });
        assert_eq!(offers(&again), [(id.clone(), attempt + 1)]);
    }
    let header = b.header("fe-1");
    let repeat = b.apply(Unsent {
        header,
        flow_id: id.clone(),
        attempt: 1,
        poll: 5,
    });
    assert!(offers(&repeat).is_empty());
}

#[test]
fn doubt_is_resolved_by_asking() {
    let mut b = Bench::new();
    b.check_in(b"s1");
    let (id, _) = b.create(1, |_| {});
    b.claim(&id, 1, 5);
    let header = b.header("fe-1");
    let asked = asks(&b.apply(Unsure {
        header,
        flow_id: id.clone(),
        attempt: 1,
        poll: 5,
    }));
    assert_eq!(asked.len(), 1);
    let alive = b.stats(&[
        (&asked[0].once, true, unknown()),
        (&id, true, report(ReturnedStatus::Progress, 0, 0, false)),
    ]);
    assert_eq!(document(&alive)["state"], "IN_PROGRESS");
    assert!(offers(&alive).is_empty());
}

#[test]
fn questions_are_rare_and_start_anew_with_a_contact() {
    let mut b = Bench::new();
    b.check_in(b"s1");
    let (id, _) = b.create(1, |_| {});
    b.claim(&id, 1, 5);
    assert_eq!(asks(&b.pass(3_000)).len(), 5);
    assert_eq!(asks(&b.check_in(b"s1")).len(), 0, "the same session");
    assert_eq!(asks(&b.pass(15)).len(), 1);
    assert_eq!(asks(&b.check_in(b"s2")).len(), 1);
}

#[test]
fn a_cancelled_flow_ends_at_once_and_stays_cancelled() {
    let mut b = Bench::new();
    b.check_in(b"s1");
    let (id, _) = b.create(1, |_| {});
    b.claim(&id, 1, 5);
    let cancelled = b.cancel(&id);
    assert_eq!(document(&cancelled)["reason"], "cancelled");
    assert_eq!(completions(&cancelled), 1);
    let is_cancel = |o: &[Output]| tasks(o).iter().any(|t| matches!(t, Tasks::Cancel(_)));
    assert!(is_cancel(&cancelled));
    assert!(
        is_cancel(&b.check_in(b"s1")),
        "repeated until the agent has answered"
    );
    let ended = b.stats(&[(&id, false, done(0, 0))]);
    assert_eq!(document(&ended)["state"], "ERROR");
    assert!(!is_cancel(&b.check_in(b"s1")));
    assert_eq!(completions(&ended), 0);

    let (queued, _) = b.create(2, |_| {});
    b.cancel(&queued);
    assert_eq!(
        grants(&b.claim(&queued, 1, 6)),
        0,
        "a withdrawn offer is not granted"
    );
    let refused = b.cancel("F.none");
    assert!(refused.iter().any(|o| matches!(o, Output::Notify(Notifications::CommandDone(d)) if d.error.contains("no flow F.none"))));
}

#[test]
fn what_is_missing_after_the_grace_is_said_and_may_still_come() {
    let mut b = Bench::new();
    b.check_in(b"s1");
    let (id, _) = b.create(1, |_| {});
    b.claim(&id, 1, 5);
    b.stats(&[(&id, false, done(10, 0))]);
    assert_eq!(
        completions(&b.pass(3_000)),
        0,
        "no timer runs while a worker lags"
    );
    b.stored(&id, "results", 4, 0, true);
    assert_eq!(completions(&b.pass(55)), 0);
    let short = b.pass(5);
    assert_eq!(
        document(&short)["status"],
        "incomplete: 4 of 10 rows stored"
    );
    assert_eq!(completions(&short), 1);
    let whole = b.stored(&id, "results", 10, 0, true);
    assert_eq!(document(&whole)["state"], "FINISHED");
    assert_eq!(completions(&whole), 0);
}

#[test]
fn an_error_is_a_flag_and_the_end_is_separate() {
    let mut b = Bench::new();
    b.check_in(b"s1");
    let (id, _) = b.create(1, |_| {});
    b.claim(&id, 1, 5);
    let flagged = b.stats(&[(
        &id,
        false,
        report(ReturnedStatus::GenericError, 1, 0, false),
    )]);
    assert_eq!(document(&flagged)["state"], "IN_PROGRESS");
    b.stats(&[(
        &id,
        false,
        report(ReturnedStatus::GenericError, 10, 0, true),
    )]);
    let ended = b.stored(&id, "results", 10, 0, true);
    assert_eq!(
        (&document(&ended)["reason"], &document(&ended)["status"]),
        (&"failed".into(), &"boom".into())
    );
}

#[test]
fn every_flow_has_a_deadline_and_a_reason() {
    let mut b = Bench::new();
    let minute = 60_000_000;
    let soon = b.at_us + minute;
    let (waiting, _) = b.create(1, |c| c.deadline_us = soon);
    let ended = b.pass(65);
    assert_eq!(
        document(&ended)["status"],
        "not delivered until its deadline"
    );
    assert_eq!(grants(&b.claim(&waiting, 1, 1)), 0);
    let soon = b.at_us + minute;
    let (silent, _) = b.create(2, |c| c.deadline_us = soon);
    b.claim(&silent, 1, 1);
    let ended = b.pass(65);
    assert_eq!(
        document(&ended)["status"],
        "delivered, but never seen alive until its deadline"
    );
    assert!(tasks(&ended).iter().any(|t| matches!(t, Tasks::Cancel(_))));
}

#[test]
fn an_adopted_flow_is_a_document_without_tasks_timers_or_questions() {
    let mut b = Bench::new();
    let id = "F.DC2M4H5TA9T34";
    b.stats(&[(id, false, report(ReturnedStatus::Progress, 0, 0, false))]);
    assert!(!b.fold.timer_armed());
    b.stored(id, "results", 2, 0, true);
    let ended = b.stats(&[(id, false, done(2, 0))]);
    assert_eq!(document(&ended)["state"], "FINISHED");
    assert_eq!(completions(&ended), 1);
    // Of this one the other server had six rows.
    let id = "F.DC2M4H5TA9T35";
    b.stored(id, "results", 4, 0, true);
    let ended = document(&b.stats(&[(id, false, done(10, 0))]));
    assert_eq!(ended["reason"], "incomplete", "{ended}");
    assert_eq!(ended["status"], "incomplete: 4 of 10 rows stored");
    assert!(tasks(&b.check_in(b"s9")).is_empty());
}

#[test]
fn a_new_client_is_interrogated_whichever_comes_first() {
    for announce_first in [true, false] {
        let config = FoldConfig::new(MacKeys::new(
            MacKey {
                from_us: 0,
                secret: [7; 32],
            },
            [],
        ));
        let mut b = Bench::with(config);
        let announce = announce("interrogation");
        let mut outputs = Vec::new();
        if announce_first {
            outputs.extend(b.apply(announce.clone()));
        }
        outputs.extend(b.check_in(b"s1"));
        if !announce_first {
            assert!(offers(&outputs).is_empty());
            outputs.extend(b.apply(announce));
        }
        assert_eq!(offers(&outputs).len(), 1);
        assert!(
            offers(&b.check_in(b"s2")).len() == 1,
            "the same offer, not a second flow"
        );
        assert_eq!(b.fold.clients[&Bench::key()].flows.len(), 1);
    }
}

#[test]
fn a_client_is_told_of_its_table_until_it_says_that_it_runs_it() {
    let mut b = Bench::new();
    let announce = |hash: &'static [u8], at_us| Announce {
        header: Header {
            at_us,
            ..Header::default()
        },
        kind: "event_table".into(),
        request: RequestRef {
            hash: hash.into(),
            ..RequestRef::default()
        },
        artifacts: Vec::new(),
        queries: 1,
        spec: "{}".into(),
    };
    let told = |outputs: &[Output]| -> Vec<(i64, u8)> {
        tasks(outputs)
            .into_iter()
            .filter_map(|task| match task {
                Tasks::EventTable(table) => Some((table.version, table.request.hash[0])),
                _ => None,
            })
            .collect()
    };
    assert!(told(&b.check_in_with(0)).is_empty(), "there is none");
    assert_eq!(told(&b.apply(announce(b"1", 5))), [(5_000, b'1')]);
    // Not taken yet; announced once more; taken.
    assert_eq!(told(&b.check_in_with(0)), [(5_000, b'1')]);
    assert!(told(&b.apply(announce(b"1", 9))).is_empty());
    assert!(told(&b.check_in_with(5_000)).is_empty());
    // A new one, by a server whose clock stands still.
    assert_eq!(told(&b.apply(announce(b"2", 5))), [(5_001, b'2')]);
    assert!(told(&b.check_in_with(5_001)).is_empty());
    // It comes back from another server with a version of that one.
    assert_eq!(told(&b.check_in_with(70_000)), [(70_001, b'2')]);
    assert_eq!(told(&b.check_in_with(70_000)), [(70_001, b'2')]);
    assert!(told(&b.check_in_with(70_001)).is_empty());
    // It lost its table.
    assert_eq!(told(&b.check_in_with(0)), [(70_001, b'2')]);

    let body = b.fold.snapshot().unwrap();
    b.fold = Fold::restore(b.fold.config.clone(), LOGIC, &body).unwrap();
    assert!(told(&b.check_in_with(70_001)).is_empty());
    assert_eq!(told(&b.apply(announce(b"3", 6))), [(70_002, b'3')]);
}

#[test]
fn ticks_of_an_older_epoch_and_long_steps_do_not_count() {
    let mut b = Bench::new();
    b.check_in(b"s1");
    let (id, _) = b.create(1, |_| {});
    b.claim(&id, 1, 1);
    let tick = |epoch, elapsed_ms| Tick {
        header: Header::default(),
        epoch,
        elapsed_ms,
        wall_us: 0,
    };
    assert!(
        asks(&b.apply(tick(5, 1_000_000))).is_empty(),
        "at most five seconds"
    );
    assert!(asks(&b.apply(tick(5, 5_000))).is_empty());
    assert!(
        asks(&b.apply(tick(4, 5_000))).is_empty(),
        "a foreman that was replaced"
    );
    assert_eq!(asks(&b.apply(tick(6, 5_000))).len(), 1);
}

#[test]
fn a_snapshot_goes_on_as_if_nothing_had_happened() {
    let mut b = Bench::new();
    b.check_in(b"s1");
    let (id, _) = b.create(1, |_| {});
    b.create(2, |c| c.urgent = true);
    b.claim(&id, 1, 1);
    b.stats(&[(&id, false, report(ReturnedStatus::Progress, 1, 0, false))]);
    let body = b.fold.snapshot().unwrap();
    let restored = Fold::restore(b.fold.config.clone(), LOGIC, &body).unwrap();
    assert_eq!(restored.snapshot().unwrap(), body);
    assert_eq!(restored.open, b.fold.open);
    let mut other = Bench {
        generation: 1,
        fold: restored,
        offset: b.offset,
        at_us: b.at_us,
    };
    assert_eq!(b.pass(120), other.pass(120));
    assert_eq!(b.check_in(b"s2"), other.check_in(b"s2"));
    let refused = Fold::restore(b.fold.config.clone(), LOGIC + 1, &body).unwrap_err();
    assert!(refused.to_string().contains("upgrade"), "{refused}");
}

#[test]
fn an_ended_flow_is_forgotten_and_a_late_repeat_makes_no_new_one() {
    let mut b = Bench::new();
    b.check_in(b"s1");
    let (id, _) = b.create(1, |_| {});
    b.claim(&id, 1, 1);
    b.stats(&[(&id, false, done(0, 0))]);
    b.create(2, |_| {});
    b.at_us += 25 * 3_600_000_000;
    b.pass(5);
    let ignored = b.fold.ignored();
    let late = b.stats(&[(&id, false, done(0, 0))]);
    assert!(late.is_empty());
    assert_eq!(b.fold.ignored(), ignored + 1);
}
