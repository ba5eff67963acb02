//! Deletion and return.

use super::*;
use nublar_schemas::records::CommandDone;

impl Bench {
    fn delete(&mut self, generation: i64) -> Vec<Output> {
        let header = Header {
            generation,
            ..self.header("gui")
        };
        self.apply(Command {
            header,
            id: "cmd".into(),
            kind: "delete_client".into(),
            target: CLIENT.into(),
            user: "admin".into(),
            body: String::new(),
        })
    }
}

fn lives(outputs: &[Output]) -> Vec<i64> {
    let life = |o: &Output| match o {
        Output::Life(life) => Some(life.header.generation),
        _ => None,
    };
    outputs.iter().filter_map(life).collect()
}

fn deletions(outputs: &[Output]) -> Vec<i64> {
    let deletion = |o: &Output| match o {
        Output::State(d) if d.kind == "client" && d.body.is_empty() => Some(d.header.generation),
        _ => None,
    };
    outputs.iter().filter_map(deletion).collect()
}

fn done(outputs: &[Output]) -> CommandDone {
    let done = |o: &Output| match o {
        Output::Notify(Notifications::CommandDone(done)) => Some(done.clone()),
        _ => None,
    };
    outputs.iter().find_map(done).expect("an answer")
}

#[test]
fn a_deletion_ends_a_generation_and_all_that_is_in_flight() {
    let mut b = Bench::new();
    b.check_in(b"s1");
    let (granted, _) = b.create(1, |_| {});
    b.claim(&granted, 1, 5);
    let (offered, _) = b.create(2, |_| {});
    let outputs = b.delete(1);

    assert_eq!((lives(&outputs), deletions(&outputs)), (vec![2], vec![2]));
    assert_eq!(done(&outputs).error, "");
    let ended: Vec<_> = outputs
        .iter()
        .filter_map(|o| match o {
            Output::Notify(Notifications::Notification(n)) => Some((&n.subject, &n.body)),
            _ => None,
        })
        .collect();
    assert_eq!(ended.len(), 2);
    for (flow, body) in ended {
        assert!(*flow == granted || *flow == offered);
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!(
            (&body["state"], &body["reason"]),
            (&"ERROR".into(), &"deleted".into())
        );
    }
    let withdrawn = tasks(&outputs);
    assert!(matches!(&withdrawn[..], [Tasks::Withdraw(w)] if w.flow_id == offered));

    // Whatever still comes of it is of nobody: no task goes out, nothing is told.
    assert!(b.claim(&offered, 1, 6).is_empty());
    assert!(b.stats(&[(&granted, false, super::done(0, 0))]).is_empty());
    assert!(b.check_in(b"s1").is_empty());
    assert!(b.create(3, |_| {}).1.is_empty());
    assert!(b.pass(60).is_empty());
    assert!(!b.fold.timer_armed(), "nothing is open");
}

#[test]
fn who_comes_back_starts_clean() {
    let mut config = Bench::new().fold.config.as_ref().clone();
    config.interrogate = true;
    let mut b = Bench::with(config);
    b.apply(announce("interrogation"));
    let first = b.check_in(b"s1");
    b.delete(1);
    b.generation = 2;
    let again = b.check_in(b"s1");
    let interrogated = |outputs: &[Output]| match &offers(outputs)[..] {
        [(flow, 1)] => flow.clone(),
        other => panic!("{other:?}"),
    };
    assert_ne!(interrogated(&first), interrogated(&again));
    let keys = &b.fold.config.keys;
    let id: FlowId = interrogated(&again).parse().unwrap();
    assert!(keys.made_for(&id, &Bench::key(), 2) && !keys.made_for(&id, &Bench::key(), 1));
    let enrolled = |outputs: &[Output]| {
        let of = |o: &Output| match o {
            Output::Notify(Notifications::Notification(n)) if n.kind == "enrolment" => {
                Some(n.id.clone())
            }
            _ => None,
        };
        outputs.iter().find_map(of).expect("an enrolment")
    };
    assert_ne!(enrolled(&first), enrolled(&again));
    let client = again.iter().find_map(|o| match o {
        Output::State(d) if d.kind == "client" => Some(d.clone()),
        _ => None,
    });
    let client = client.expect("the client's document");
    assert_eq!(client.header.generation, 2);
    assert!(client.body.contains("first_seen_at"));
}

#[test]
fn a_deletion_that_is_told_again_touches_nobody_new() {
    let mut b = Bench::new();
    b.check_in(b"s1");
    b.delete(1);
    b.generation = 2;
    b.check_in(b"s2");
    let (flow, created) = b.create(1, |_| {});
    assert_eq!(offers(&created), [(flow.clone(), 1)]);
    let again = b.delete(1);
    assert_eq!((lives(&again), deletions(&again)), (vec![], vec![]));
    assert_eq!(done(&again).error, "");
    assert_eq!(grants(&b.claim(&flow, 1, 5)), 1, "the new one goes on");
    assert_eq!(lives(&b.delete(2)), [3]);
}

#[test]
fn one_that_the_fold_never_saw_can_be_deleted() {
    let mut b = Bench::new();
    assert_eq!(lives(&b.delete(1)), [2]);
    assert!(b.check_in(b"s1").is_empty(), "its old generation is over");
    for generation in [0, -1, i64::MAX] {
        let refused = b.delete(generation);
        assert!(lives(&refused).is_empty());
        assert!(
            done(&refused).error.contains("no generation"),
            "{generation}"
        );
    }
}

#[test]
fn a_stamp_of_a_newer_generation_ends_the_older_one() {
    let mut b = Bench::new();
    b.check_in(b"s1");
    let (flow, _) = b.create(1, |_| {});
    b.generation = 3;
    let outputs = b.check_in(b"s2");
    assert_eq!(completions(&outputs), 1);
    assert!(lives(&outputs).is_empty(), "who stamped it has read it");
    assert!(offers(&outputs).is_empty());
    assert_eq!(grants(&b.claim(&flow, 1, 5)), 0);
}

#[test]
fn a_snapshot_knows_who_is_deleted() {
    let mut b = Bench::new();
    b.check_in(b"s1");
    b.create(1, |_| {});
    b.delete(1);
    let state = b.fold.snapshot().unwrap();
    b.fold = Fold::restore(b.fold.config.clone(), LOGIC, &state).unwrap();
    assert!(b.check_in(b"s1").is_empty());
    b.generation = 2;
    assert!(!b.check_in(b"s1").is_empty());
}
