//! What one flow's agent and workers say, in any order and however often; and agents that are gone
//! for ever, in every state.

use super::*;

/// Numbers that a seed determines.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

/// The documents of flows, in their order.
fn documents(outputs: &[Output]) -> Vec<Value> {
    let flow = |o: &Output| match o {
        Output::State(d) if d.kind == "flow" => serde_json::from_str(&d.body).ok(),
        _ => None,
    };
    outputs.iter().filter_map(flow).collect()
}

/// What does not depend on when something was said.
fn lasting(mut document: Value) -> Value {
    for fleeting in [
        "create_time",
        "start_time",
        "end_time",
        "deadline",
        "flow_id",
    ] {
        document[fleeting] = Value::Null;
    }
    document
}

#[test]
fn in_every_order_and_however_often_the_same_is_said_in_the_end() {
    let say = |b: &mut Bench, id: &str, what: usize| match what {
        0 => b.stats(&[(id, false, report(ReturnedStatus::Progress, 1, 0, false))]),
        1 => b.stats(&[(id, false, report(ReturnedStatus::Progress, 2, 5, false))]),
        2 => b.stats(&[(id, false, done(3, 5))]),
        3 => b.stored(id, "results", 2, 0, false),
        4 => b.stored(id, "results", 3, 0, true),
        _ => b.stored(id, "uploads", 0, 5, true),
    };
    let mut orders = vec![vec![]];
    for what in 0..6 {
        let longer = orders.iter().flat_map(|order: &Vec<usize>| {
            (0..=order.len()).map(move |at| {
                let mut order = order.clone();
                order.insert(at, what);
                order
            })
        });
        orders = longer.collect();
    }
    assert_eq!(orders.len(), 720);
    let mut expected = None;
    for (seed, order) in orders.iter().enumerate() {
        let mut b = Bench::new();
        b.check_in(b"s1");
        let (id, _) = b.create(1, |_| {});
        b.claim(&id, 1, 1);
        let mut dice = Dice(seed as u64);
        let mut outputs = Vec::new();
        for (place, what) in order.iter().enumerate() {
            outputs.extend(say(&mut b, &id, *what));
            // Something that was said comes again.
            outputs.extend(say(&mut b, &id, order[dice.below(place + 1)]));
        }
        assert_eq!(completions(&outputs), 1, "{order:?}");
        let last = lasting(documents(&outputs).pop().unwrap());
        assert_eq!(last["state"], "FINISHED", "{order:?}");
        assert_eq!(&last, expected.get_or_insert(last.clone()), "{order:?}");
    }
}

#[test]
fn however_questions_and_the_end_race_finished_is_final() {
    let mut finished = 0;
    for seed in 0..10_000 {
        let mut b = Bench::new();
        let mut dice = Dice(seed);
        b.check_in(b"s1");
        let (id, _) = b.create(1, |_| {});
        b.claim(&id, 1, 1);
        let mut outputs = Vec::new();
        // Questions that are under way, answers that are late, the end, and what is stored of it.
        let mut questions: Vec<AskPair> = Vec::new();
        let mut ended = 0;
        for _ in 0..14 {
            let new = match dice.below(8) {
                0 => b.pass(15),
                1 => b.check_in(if dice.below(2) == 0 { b"s2" } else { b"s4" }),
                2 => b.stats(&[(&id, false, report(ReturnedStatus::Progress, 1, 0, false))]),
                3 if !questions.is_empty() => {
                    let question = questions[dice.below(questions.len())].clone();
                    let answer = match dice.below(3) {
                        0 => unknown(),
                        1 => report(ReturnedStatus::Progress, 1, 0, false),
                        _ => done(2, 0),
                    };
                    b.stats(&[(&question.once, true, unknown()), (&id, true, answer)])
                }
                4 => b.stats(&[(&id, false, done(2, 0))]),
                5 => b.stored(&id, "results", 2, 0, true),
                6 => b.stored(&id, "results", 1, 0, false),
                _ => {
                    let attempt = 1 + dice.below(3) as i32;
                    b.claim(&id, attempt, i64::from(attempt))
                }
            };
            questions.extend(asks(&new));
            for document in documents(&new) {
                let state = document["state"].as_str().unwrap().to_owned();
                assert!(
                    ended == 0 || state == "FINISHED",
                    "seed {seed}: {ended} times, then {document}"
                );
                ended += u32::from(state == "FINISHED");
            }
            outputs.extend(new);
        }
        assert!(completions(&outputs) <= 1, "seed {seed}");
        finished += u32::from(ended > 0);
    }
    assert!(finished > 3_000, "{finished}");
}

#[test]
fn whoever_is_gone_for_ever_leaves_no_flow_without_an_end() {
    let hour = 3_600_000_000;
    type Story = fn(&mut Bench, &str);
    let stories: [(&str, &str, Story); 6] = [
        ("queued", "deadline", |_, _| {}),
        ("offered", "deadline", |_, _| {}),
        ("delivered", "deadline", |b, id| {
            b.claim(id, 1, 1);
        }),
        ("working", "deadline", |b, id| {
            b.claim(id, 1, 1);
            b.stats(&[(id, false, report(ReturnedStatus::Progress, 1, 0, false))]);
            b.stored(id, "results", 1, 0, false);
        }),
        ("in doubt", "deadline", |b, id| {
            b.claim(id, 1, 1);
            let header = b.header("fe-1");
            b.apply(Unsure {
                header,
                flow_id: id.into(),
                attempt: 1,
                poll: 1,
            });
        }),
        ("started anew", "deadline", |b, id| {
            b.claim(id, 1, 1);
            b.check_in(b"s2");
        }),
    ];
    for (state, reason, story) in stories {
        let mut b = Bench::new();
        b.check_in(b"s1");
        if state == "queued" {
            (10..14).for_each(|n| {
                b.create(n, |_| {});
            });
        }
        let until = b.at_us + hour;
        let (id, created) = b.create(1, |created| created.deadline_us = until);
        assert_eq!(offers(&created).is_empty(), state == "queued", "{state}");
        story(&mut b, &id);
        let told = |outputs: &[Output]| {
            let mut documents = documents(outputs);
            documents.retain(|document| document["flow_id"] == id.as_str());
            documents
        };
        let before = b.pass(3_590);
        assert!(
            told(&before)
                .iter()
                .all(|document| document["end_time"].is_null()),
            "{state}"
        );
        // Within two ticks.
        let ended = told(&b.pass(20))
            .pop()
            .unwrap_or_else(|| panic!("{state}: no end"));
        assert_eq!(ended["state"], "ERROR", "{state}: {ended}");
        assert_eq!(ended["reason"], reason, "{state}: {ended}");
        assert!(
            !ended["status"].as_str().unwrap().is_empty(),
            "{state}: {ended}"
        );
        assert!(!ended["end_time"].is_null(), "{state}: {ended}");
    }
}

#[test]
fn a_flow_that_logged_an_error_goes_on_and_can_be_cancelled() {
    let mut b = Bench::new();
    b.check_in(b"s1");
    let (id, _) = b.create(1, |_| {});
    b.claim(&id, 1, 5);
    let failing = |rows| report(ReturnedStatus::GenericError, rows, 0, false);
    b.stats(&[(&id, false, failing(1))]);
    b.stored(&id, "results", 1, 0, false);
    b.stats(&[(&id, false, failing(10_000))]);
    let going_on = b.stored(&id, "results", 10_000, 0, false);
    assert_eq!(document(&going_on)["state"], "IN_PROGRESS");
    assert_eq!(document(&going_on)["total_collected_rows"], 10_000);
    let cancelled = b.cancel(&id);
    assert_eq!(document(&cancelled)["reason"], "cancelled");
    assert!(
        tasks(&cancelled)
            .iter()
            .any(|task| matches!(task, Tasks::Cancel(_)))
    );
}

#[test]
fn a_client_that_moves_between_networks_shows_where_it_was() {
    let mut b = Bench::new();
    let mut shown = Value::Null;
    for (session, address, via) in [
        (&b"s1"[..], "192.0.2.1", ""),
        (b"s2", "198.51.100.2", "10.0.0.7"),
        (b"s5", "2001:db8::3", ""),
        (b"s4", "192.0.2.1", ""),
    ] {
        b.at_us += 3_600_000_000;
        let outputs = b.checks_in(session, |c| {
            (c.address, c.via) = (address.into(), via.into());
            c.clock_skew_ms = Some(-7_000);
        });
        let client = |o: &Output| match o {
            Output::State(d) if d.kind == "client" => serde_json::from_str::<Value>(&d.body).ok(),
            _ => None,
        };
        shown = outputs.iter().rev().find_map(client).unwrap();
        assert_eq!(
            (&shown["last_ip"], &shown["last_via"]),
            (&address.into(), &via.into())
        );
        assert_eq!(shown["clock_skew_ms"], -7_000);
    }
    let addresses = shown["addresses"].as_array().unwrap();
    let names: Vec<_> = addresses
        .iter()
        .map(|seen| seen["address"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["192.0.2.1", "198.51.100.2", "2001:db8::3"]);
    let between = |place: usize| {
        let at = |name: &str| addresses[place][name].as_i64().unwrap();
        (at("last_seen_at") - at("first_seen_at")) / 1_000_000
    };
    assert_eq!((between(0) / 3_600, between(1)), (3, 0), "{shown}");
}
