//! Uploads that are gone on with after their flow has ended.

use super::*;
use crate::stats::RESUMED_UPLOADS;
use nublar_schemas::records::CommandDone;

const BEGAN_US: i64 = 1_795_514_950_000_000;

impl Bench {
    fn resume(&mut self, id: &str, began_us: i64) -> Vec<Output> {
        let resumption = Resumption {
            request: RequestRef {
                offset: 9,
                ..RequestRef::default()
            },
            began_us,
            uploads: 2,
        };
        let header = self.header("gui");
        self.apply(Command {
            header,
            id: "cmd".into(),
            kind: "resume".into(),
            target: id.into(),
            user: "eve".into(),
            body: serde_json::to_string(&resumption).unwrap(),
        })
    }

    /// A flow that failed with a file half sent.
    fn failed(&mut self) -> String {
        self.check_in(b"s1");
        let (id, _) = self.create(1, |_| {});
        self.claim(&id, 1, 10);
        let failed = report(ReturnedStatus::GenericError, 1, 40, true);
        self.stats(&[(&id, false, failed)]);
        self.stored(&id, "results", 1, 0, true);
        let ended = self.stored(&id, "uploads", 0, 40, true);
        assert_eq!(document(&ended)["reason"], "failed");
        id
    }
}

/// What an agent says of a resumption: of nothing else.
fn resumed(status: ReturnedStatus, began_us: i64) -> FlowStats {
    let mut stats = report(status, 1, 60, status != ReturnedStatus::Progress);
    for query in &mut stats.query_status {
        query.names_with_response = vec![RESUMED_UPLOADS.to_owned()];
        query.first_active = began_us as u64;
    }
    stats
}

fn told(outputs: &[Output]) -> Vec<(String, i64)> {
    let resume = |task| match task {
        Tasks::Resume(resume) => Some((resume.flow_id, resume.request.offset)),
        _ => None,
    };
    tasks(outputs).into_iter().filter_map(resume).collect()
}

fn error(outputs: &[Output]) -> String {
    let done = |o: &Output| match o {
        Output::Notify(Notifications::CommandDone(CommandDone { error, .. })) => {
            Some(error.clone())
        }
        _ => None,
    };
    outputs.iter().find_map(done).expect("an answer")
}

#[test]
fn an_agent_is_told_until_it_says_that_it_goes_on() {
    let mut b = Bench::new();
    let id = b.failed();
    let asked = b.resume(&id, BEGAN_US);
    assert_eq!(error(&asked), "");
    assert_eq!(told(&asked), [(id.clone(), 9)]);
    let shown = &document(&asked)["resumed"];
    assert_eq!(
        (&shown["state"], &shown["by"], &shown["uploads"]),
        (&"asked".into(), &"eve".into(), &2.into())
    );

    assert_eq!(told(&b.check_in(b"s1")), [(id.clone(), 9)]);
    let running = b.stats(&[(&id, false, resumed(ReturnedStatus::Progress, BEGAN_US))]);
    assert_eq!(document(&running)["resumed"]["state"], "running");
    assert_eq!(told(&b.check_in(b"s2")), []);
    let done = b.stats(&[(&id, false, resumed(ReturnedStatus::Ok, BEGAN_US))]);
    assert_eq!(document(&done)["resumed"]["state"], "done");
    let late = b.stats(&[(&id, false, resumed(ReturnedStatus::Progress, BEGAN_US))]);
    assert_eq!(
        document(&late)["resumed"]["state"],
        "done",
        "order does not matter"
    );
}

#[test]
fn what_a_resumption_tells_changes_neither_the_end_nor_what_was_reported() {
    let mut b = Bench::new();
    let id = b.failed();
    b.resume(&id, BEGAN_US);
    let outputs = b.stats(&[(&id, false, resumed(ReturnedStatus::Ok, BEGAN_US))]);
    let flow = document(&outputs);
    assert_eq!(
        (&flow["state"], &flow["reason"]),
        (&"ERROR".into(), &"failed".into())
    );
    assert_eq!(
        (&flow["reported"]["bytes"], &flow["reported"]["rows"]),
        (&40.into(), &1.into())
    );
    let stored = b.stored(&id, "uploads", 0, 100, true);
    assert_eq!(document(&stored)["total_uploaded_bytes"], 100);
    assert_eq!(document(&stored)["reason"], "failed");
    assert_eq!(
        completions(&outputs) + completions(&stored),
        0,
        "it has ended before"
    );
}

#[test]
fn a_lost_flow_does_not_finish_because_its_uploads_went_on() {
    let mut b = Bench::new();
    b.check_in(b"s1");
    let (id, _) = b.create(1, |_| {});
    b.claim(&id, 1, 10);
    b.stats(&[(&id, false, report(ReturnedStatus::Progress, 0, 40, false))]);
    let asked = asks(&b.check_in(b"s2"));
    let lost = b.stats(&[(&asked[0].once, true, unknown()), (&id, true, unknown())]);
    assert_eq!(document(&lost)["reason"], "lost");
    assert_eq!(error(&b.resume(&id, BEGAN_US)), "");
    let done = b.stats(&[(&id, false, resumed(ReturnedStatus::Ok, BEGAN_US))]);
    assert_eq!(document(&done)["reason"], "lost");
}

#[test]
fn an_older_resumption_says_nothing_of_the_newer_one() {
    let mut b = Bench::new();
    let id = b.failed();
    b.resume(&id, BEGAN_US);
    b.resume(&id, BEGAN_US + 1);
    b.stats(&[(&id, false, resumed(ReturnedStatus::Ok, BEGAN_US))]);
    assert_eq!(told(&b.check_in(b"s2")), [(id.clone(), 9)]);
    let failed = b.stats(&[(
        &id,
        false,
        resumed(ReturnedStatus::GenericError, BEGAN_US + 1),
    )]);
    let shown = &document(&failed)["resumed"];
    assert_eq!(
        (&shown["state"], &shown["error"]),
        (&"done".into(), &"boom".into())
    );
}

#[test]
fn what_runs_is_not_resumed_and_one_resumption_runs_at_a_time() {
    let mut b = Bench::new();
    b.check_in(b"s1");
    let (runs, _) = b.create(2, |_| {});
    b.claim(&runs, 1, 11);
    assert!(error(&b.resume(&runs, BEGAN_US)).contains("has not ended"));
    assert!(error(&b.resume("F.ABCDEFGHIJKLM", BEGAN_US)).contains("not remembered"));

    let id = b.failed();
    b.resume(&id, BEGAN_US);
    b.stats(&[(&id, false, resumed(ReturnedStatus::Progress, BEGAN_US))]);
    let again = b.resume(&id, BEGAN_US + 1);
    assert!(error(&again).contains("works on the uploads"));
    assert_eq!(told(&again), []);
    // The agent has been silent for long: perhaps it was started anew.
    b.at_us += 301_000_000;
    assert_eq!(error(&b.resume(&id, BEGAN_US + 1)), "");
}

#[test]
fn a_flow_that_left_files_behind_is_remembered_for_long() {
    let mut b = Bench::new();
    let id = b.failed();
    let (finished, _) = b.create(2, |_| {});
    b.claim(&finished, 1, 11);
    b.stats(&[(&finished, false, done(0, 7))]);
    b.stored(&finished, "uploads", 0, 7, true);
    // Keeps the clock running.
    b.create(3, |created| created.deadline_us += 90 * 86_400_000_000);
    b.at_us += 3 * 86_400_000_000;
    b.pass(5);
    assert!(error(&b.resume(&finished, BEGAN_US)).contains("not remembered"));
    assert_eq!(error(&b.resume(&id, BEGAN_US)), "");
    b.at_us += 40 * 86_400_000_000;
    b.pass(5);
    assert!(error(&b.resume(&id, BEGAN_US)).contains("not remembered"));
}
