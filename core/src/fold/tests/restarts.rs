//! Agents that can not be asked what they know.

use super::*;

const DAY_US: i64 = 24 * 3_600 * 1_000_000;

impl Bench {
    /// The first poll of a process, which says who the client is.
    fn introduced(&mut self, session: &'static [u8], version: &str) -> Vec<Output> {
        let outputs = self.checks_in(session, |c| c.introduces = true);
        self.says(version);
        outputs
    }

    fn says(&mut self, version: &str) {
        let header = self.header("worker");
        self.apply(FactsSet {
            header,
            source: "Server.Internal.ClientInfo".into(),
            facts: format!(r#"{{"client_version":"{version}"}}"#),
            ..FactsSet::default()
        });
    }

    /// One flow that shows life, one that does not, one that runs a command and does not.
    fn three(&mut self) -> [String; 3] {
        let ids = [0, 1, 2].map(|n| self.create(n, |c| c.execve = n == 2).0);
        for (poll, id) in (1..).zip(&ids) {
            self.claim(id, 1, poll);
        }
        self.stats(&[(
            &ids[0],
            false,
            report(ReturnedStatus::Progress, 1, 0, false),
        )]);
        ids
    }
}

/// How these outputs say that a flow ended.
fn reason(outputs: &[Output], id: &str) -> Value {
    let of = |o: &Output| match o {
        Output::State(d) if d.kind == "flow" => serde_json::from_str::<Value>(&d.body).ok(),
        _ => None,
    };
    let mut flows = outputs.iter().filter_map(of);
    let flow = flows.find(|flow| flow["flow_id"] == id);
    flow.expect("the flow's document")["reason"].take()
}

#[test]
fn an_agent_too_old_for_questions_has_lost_what_it_ran_when_it_is_started_anew() {
    for (version, is_old) in [
        ("0.72.4", true),
        ("0.6.8-2", true),
        ("0.73.0", false),
        ("1.0", false),
    ] {
        let mut b = Bench::new();
        b.introduced(b"s1", version);
        let [ran, silent, command] = b.three();
        b.at_us += 3_600_000_000;
        let back = b.introduced(b"s2", version);
        assert_eq!(
            offers(&back),
            if is_old { vec![(silent, 2)] } else { vec![] }
        );
        assert_eq!(completions(&back), if is_old { 2 } else { 0 }, "{version}");
        if is_old {
            assert_eq!(reason(&back, &ran), "lost");
            assert_eq!(reason(&back, &command), "undelivered");
            // It was not started anew after all.
            b.stored(&ran, "results", 1, 0, true);
            let end = b.stats(&[(&ran, false, done(1, 0))]);
            assert_eq!(document(&end)["state"], "FINISHED");
        }
    }
}

#[test]
fn an_old_agent_that_was_only_cut_off_has_lost_nothing() {
    let mut b = Bench::new();
    b.introduced(b"s1", "0.72.4");
    let ids = b.three();
    let none = |outputs: &[Output]| offers(outputs).is_empty() && completions(outputs) == 0;
    // After an outage it has a new session, and does not say who it is.
    assert!(none(&b.check_in(b"s2")));
    // It says so once a day: it may be due in the first poll after an outage.
    b.at_us += DAY_US;
    assert!(none(&b.introduced(b"sx", "0.72.4")));
    // And in a session that is known.
    b.at_us += 3_600_000_000;
    assert!(none(&b.introduced(b"sx", "0.72.4")));
    b.at_us += 3_600_000_000;
    let back = b.introduced(b"s4", "0.72.4");
    assert_eq!(
        (completions(&back), reason(&back, &ids[0])),
        (2, "lost".into())
    );
}

#[test]
fn what_the_new_process_was_given_is_not_lost() {
    let mut b = Bench::new();
    b.introduced(b"s1", "0.72.4");
    let [ran, ..] = b.three();
    b.at_us += 3_600_000_000;
    // The claim for its first poll comes before the poll itself.
    let (new, _) = b.create(9, |_| {});
    b.at_us += 1_000_000;
    b.claim(&new, 1, 9);
    b.at_us -= 1_000_000;
    let back = b.introduced(b"s2", "0.72.4");
    assert_eq!(reason(&back, &ran), "lost");
    let of_new = |o: &Output| matches!(o, Output::State(d) if d.body.contains(&new));
    assert!(!back.iter().any(of_new), "{back:?}");
}

#[test]
fn what_is_called_off_keeps_no_place() {
    let mut b = Bench::new();
    b.introduced(b"s1", "0.72.4");
    let ids: Vec<_> = (0..6).map(|n| b.create(n, |_| {}).0).collect();
    for (poll, id) in (1..).zip(&ids[..4]) {
        b.claim(id, 1, poll);
    }
    assert_eq!(offers(&b.cancel(&ids[0])), [(ids[4].clone(), 1)]);
    let (late, _) = b.create(7, |c| c.deadline_us += DAY_US);
    let over = b.pass(3_700);
    assert!(offers(&over).contains(&(late, 1)), "{over:?}");
}
