//! Agents of one key.

use super::*;
use nublar_schemas::records::Holder;
use serde_json::json;

impl Bench {
    fn check_in_at(
        &mut self,
        frontend: &str,
        address: &str,
        session: &'static [u8],
    ) -> Vec<Output> {
        self.checks_in(session, |c| {
            c.header.frontend = frontend.into();
            c.address = address.into();
        })
    }
}

#[test]
fn of_twenty_machines_in_turn_all_are_shown_and_all_but_one_refused() {
    let mut b = Bench::new();
    let sessions: Vec<&'static [u8]> = (0..20u8).map(|n| &*vec![n; 16].leak()).collect();
    let mut told = Vec::new();
    let mut refused = std::collections::BTreeSet::new();
    for turn in 0..100 {
        let machine = turn % 20;
        let frontend = format!("fe-{}", turn % 3);
        let address = format!("10.0.0.{machine}");
        let outputs = b.check_in_at(&frontend, &address, sessions[machine]);
        told.extend(conflicts(&outputs));
        if holders(&outputs).iter().any(|holder| holder.hold_ms > 0) {
            refused.insert(machine);
        }
    }
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(refused.len() >= 19, "{refused:?}");
    // Who keeps the poll is the one that is never refused again.
    let outputs = b.check_in_at("fe-0", "10.0.0.99", b"another");
    let shown = client(&outputs)["conflict"]["addresses"].clone();
    assert_eq!(shown.as_array().unwrap().len(), 21, "{shown}");
}

fn holders(outputs: &[Output]) -> Vec<Holder> {
    let holder = |task| match task {
        Tasks::Holder(holder) => Some(holder),
        _ => None,
    };
    tasks(outputs).into_iter().filter_map(holder).collect()
}

fn conflicts(outputs: &[Output]) -> Vec<Value> {
    let conflict = |o: &Output| match o {
        Output::Notify(Notifications::Notification(n)) if n.kind == "client_conflict" => {
            serde_json::from_str(&n.body).ok()
        }
        _ => None,
    };
    outputs.iter().filter_map(conflict).collect()
}

fn client(outputs: &[Output]) -> Value {
    let client = |o: &Output| match o {
        Output::State(d) if d.kind == "client" => serde_json::from_str(&d.body).ok(),
        _ => None,
    };
    outputs
        .iter()
        .rev()
        .find_map(client)
        .expect("a client's document")
}

/// Two machines in turn until one is refused: what came of the last check-in.
fn until_refused(
    b: &mut Bench,
    one: (&'static str, &'static str),
    two: (&'static str, &'static str),
) -> Vec<Output> {
    for n in 0..10 {
        let (session, (frontend, address)): (&'static [u8], _) = if n % 2 == 0 {
            (b"s1", one)
        } else {
            (b"s2", two)
        };
        let outputs = b.check_in_at(frontend, address, session);
        if !conflicts(&outputs).is_empty() {
            assert!(n >= 5, "after {n}");
            return outputs;
        }
    }
    panic!("nobody was refused");
}

#[test]
fn a_new_session_is_no_clone_nor_is_a_late_request_of_the_old_one() {
    let mut b = Bench::new();
    let mut outputs = Vec::new();
    for (n, session) in [
        &b"s1"[..],
        b"s1",
        b"s2",
        b"s1",
        b"s2",
        b"sx",
        b"sx",
        b"s2",
        b"sx",
        b"s4",
        b"s5",
    ]
    .into_iter()
    .enumerate()
    {
        let frontend = if n % 3 == 0 { "fe-1" } else { "fe-2" };
        outputs.extend(b.check_in_at(frontend, "10.0.0.1", session));
    }
    assert!(conflicts(&outputs).is_empty());
    assert!(holders(&outputs).iter().all(|holder| holder.hold_ms == 0));
    assert_eq!(client(&outputs)["conflict"], Value::Null);
}

#[test]
fn a_session_that_moves_ends_the_poll_of_the_old_one_elsewhere() {
    let mut b = Bench::new();
    assert!(holders(&b.check_in_at("fe-1", "10.0.0.1", b"s1")).is_empty());
    assert!(
        holders(&b.check_in_at("fe-1", "10.0.0.1", b"s2")).is_empty(),
        "it ends it itself"
    );
    let moved = b.check_in_at("fe-2", "10.0.0.1", b"sx");
    let [holder] = &holders(&moved)[..] else {
        panic!("{moved:?}")
    };
    assert_eq!((&holder.session_key[..], holder.hold_ms), (&b"sx"[..], 0));
    // The same session at another frontend is nobody else's.
    assert!(holders(&b.check_in_at("fe-1", "10.0.0.1", b"sx")).is_empty());
}

/// A worker tells what the agent of a session calls itself.
fn says(b: &mut Bench, session: &'static [u8], host: &str) -> Vec<Output> {
    let header = b.header("worker");
    b.apply(FactsSet {
        header,
        source: "Server.Internal.ClientInfo".into(),
        facts: json!({ "hostname": host }).to_string(),
        session_key: session.into(),
    })
}

/// Their events stand under one client, each with its session: this is whose it is.
#[test]
fn of_each_session_is_shown_whose_it_is() {
    let mut b = Bench::new();
    let machines = [
        (&b"s1"[..], "10.0.0.1", "original"),
        (b"s2", "10.0.0.2", "copy"),
    ];
    let mut told = 0;
    for (session, address, host) in machines.into_iter().cycle().take(8) {
        told += conflicts(&b.check_in_at("fe-1", address, session)).len();
        says(&mut b, session, host);
    }
    assert_eq!(told, 1);
    b.check_in_at("fe-1", "10.0.0.3", b"sx");
    let shown = |outputs: &[Output]| {
        let sessions = client(outputs)["conflict"]["sessions"].clone();
        let sides = sessions.as_array().unwrap().iter();
        let fields = |side: &Value| ["session", "host", "address"].map(|name| side[name].clone());
        sides.map(fields).collect::<Vec<_>>()
    };
    let s1 = [json!("7331"), json!("original"), json!("10.0.0.1")];
    let s2 = [json!("7332"), json!("copy"), json!("10.0.0.2")];
    let third = |host: &str| [json!("7378"), json!(host), json!("10.0.0.3")];
    let outputs = b.check_in_at("fe-1", "10.0.0.1", b"s1");
    assert_eq!(shown(&outputs), [s1.clone(), s2.clone(), third("")]);
    let last = |outputs: &[Output]| {
        let first = client(outputs)["conflict"]["sessions"][0].clone();
        first["last_seen_at"].as_i64().unwrap()
    };
    b.at_us += 1_000_000;
    let later = b.check_in_at("fe-1", "10.0.0.1", b"s1");
    assert!(
        last(&later) >= last(&outputs) + 1_000_000,
        "it is still there"
    );
    let outputs = says(&mut b, b"sx", "third");
    let three = [s1, s2, third("third")];
    assert_eq!(shown(&outputs), three);
    // One whose polls no frontend lets through is heard of by what it sends.
    let outputs = says(&mut b, b"s4", "fourth");
    let fourth = [json!("7334"), json!("fourth"), json!("")];
    assert_eq!(shown(&outputs), [&three[..], &[fourth]].concat());
}

#[test]
fn of_two_that_take_turns_the_later_is_refused_and_both_are_shown() {
    for (one, two) in [
        (("fe-1", "10.0.0.1"), ("fe-1", "10.0.0.2")),
        (("fe-1", "10.0.0.1"), ("fe-2", "10.0.0.2")),
    ] {
        let mut b = Bench::new();
        says(&mut b, b"", "original");
        says(&mut b, b"", "copy");
        b.create(1, |_| {});
        let refused = until_refused(&mut b, one, two);
        let [holder] = &holders(&refused)[..] else {
            panic!("{refused:?}")
        };
        assert_eq!(
            (&holder.session_key[..], holder.hold_ms),
            (&b"s1"[..], 60_000)
        );
        assert!(offers(&refused).is_empty(), "nothing is offered to it");
        let shown = client(&refused);
        assert_eq!(conflicts(&refused), [shown["conflict"].clone()]);
        let addresses = shown["conflict"]["addresses"].as_array().unwrap();
        let addresses: Vec<_> = addresses.iter().map(|side| &side["address"]).collect();
        assert_eq!(addresses, ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(shown["conflict"]["hosts"], json!(["copy", "original"]));
        assert_eq!(shown["last_ip"], "10.0.0.1", "that of who keeps the poll");

        // Held down, wherever it comes, and under whatever session.
        let again = b.check_in_at("fe-3", "10.0.0.2", b"sx");
        assert!(offers(&again).is_empty() && conflicts(&again).is_empty());
        assert_eq!(&holders(&again)[0].session_key[..], b"s1");
        // Who was first goes on.
        let first = b.check_in_at(one.0, one.1, b"s1");
        assert!(holders(&first).is_empty());
        assert_eq!(offers(&first).len(), 1);
    }
}

#[test]
fn after_the_hold_down_who_is_gone_gives_way_and_who_is_there_keeps_the_poll() {
    let (one, two) = (("fe-1", "10.0.0.1"), ("fe-2", "10.0.0.2"));
    let mut b = Bench::new();
    until_refused(&mut b, one, two);
    b.at_us += 61_000_000;
    // The first is still there: as soon as it comes back the other is refused again.
    let tried = b.check_in_at(two.0, two.1, b"sx");
    assert_eq!(holders(&tried)[0].hold_ms, 0, "it may poll");
    let back = b.check_in_at(one.0, one.1, b"s1");
    assert_eq!(
        (
            &holders(&back)[0].session_key[..],
            holders(&back)[0].hold_ms
        ),
        (&b"s1"[..], 60_000)
    );
    let (before, now) = (conflicts(&tried), conflicts(&back));
    assert!(before.is_empty());
    assert_eq!(now.len(), 1);

    // It is switched off: the other has the poll from then on.
    b.at_us += 61_000_000;
    has_it_from_now_on(&mut b, two, b"s4");
}

/// The agent polls, and nobody holds it down.
fn has_it_from_now_on(b: &mut Bench, at: (&str, &str), session: &'static [u8]) {
    let tried = b.check_in_at(at.0, at.1, session);
    assert_eq!(
        (
            &holders(&tried)[0].session_key[..],
            holders(&tried)[0].hold_ms
        ),
        (session, 0)
    );
    for _ in 0..5 {
        b.at_us += 100_000_000;
        let outputs = b.check_in_at(at.0, at.1, session);
        assert!(holders(&outputs).is_empty());
        assert_eq!(client(&outputs)["last_ip"], at.1);
    }
}

#[test]
fn who_is_refused_and_keeps_its_session_is_let_in_when_the_other_is_gone() {
    let (one, two) = (("fe-1", "10.0.0.1"), ("fe-2", "10.0.0.2"));
    let mut b = Bench::new();
    until_refused(&mut b, one, two);
    for _ in 0..3 {
        b.at_us += 15_000_000;
        let refused = b.check_in_at(two.0, two.1, b"s2");
        assert!(holders(&refused)[0].hold_ms > 0);
    }
    b.at_us += 16_000_000;
    has_it_from_now_on(&mut b, two, b"s2");
    // It was there all the time: now it says so.
    let back = b.check_in_at(one.0, one.1, b"s1");
    assert_eq!(conflicts(&back).len(), 1);
    let of_back = &holders(&back)[0];
    assert_eq!(
        (&of_back.session_key[..], of_back.hold_ms),
        (&b"s1"[..], 60_000)
    );
}

#[test]
fn a_snapshot_knows_who_takes_turns() {
    let mut b = Bench::new();
    for session in [&b"s1"[..], b"s2", b"s1", b"s2", b"s1"] {
        b.check_in_at("fe-1", "10.0.0.1", session);
    }
    let state = b.fold.snapshot().unwrap();
    b.fold = Fold::restore(b.fold.config.clone(), LOGIC, &state).unwrap();
    assert_eq!(
        conflicts(&b.check_in_at("fe-1", "10.0.0.2", b"s2")).len(),
        1
    );
}

#[test]
fn one_after_the_other_makes_a_new_key_if_people_want_it() {
    let (one, two) = (("fe-1", "10.0.0.1"), ("fe-2", "10.0.0.2"));
    for wanted in [false, true] {
        let mut b = Bench::new();
        let mut config = (*b.fold.config).clone();
        config.rekey_clones = wanted;
        b = Bench::with(config);
        b.apply(announce("new_key"));
        let refused = until_refused(&mut b, one, two);
        let told = offers(&refused);
        assert_eq!(told.len(), usize::from(wanted));
        let Some((flow, _)) = told.first() else {
            continue;
        };
        // It is given to whoever polls, once, while it is under way not another one.
        b.claim(flow, 1, 1);
        b.at_us += 61_000_000;
        b.check_in_at(two.0, two.1, b"s2");
        assert_eq!(conflicts(&b.check_in_at(one.0, one.1, b"s1")).len(), 1);
        assert_eq!(b.fold.clients[&Bench::key()].flows.len(), 1);
        b.stats(&[(flow, false, done(0, 0))]);
        for (offered, why) in [(0, "it polls until it is gone"), (1, "another one of them")] {
            b.at_us += 61_000_000;
            b.check_in_at(two.0, two.1, b"s2");
            let again = b.check_in_at(one.0, one.1, b"s1");
            assert_eq!(conflicts(&again).len(), 1);
            assert_eq!(offers(&again).len(), offered, "{why}");
        }
        // A snapshot knows what was announced.
        let state = b.fold.snapshot().unwrap();
        let restored = Fold::restore(b.fold.config.clone(), LOGIC, &state).unwrap();
        assert_eq!(restored.new_key, b.fold.new_key);
    }
}
