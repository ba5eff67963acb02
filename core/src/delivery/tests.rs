//! Polls and records in, answers out.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use nublar_schemas::records::{Ask, AskPair, Cancel, Header, Holder, Offer, RequestRef, Withdraw};

fn client() -> ClientKey {
    ClientKey {
        org: "".parse().unwrap(),
        client: "C.00000000000000aa".parse().unwrap(),
    }
}

fn header() -> Header {
    Header {
        client: client().client.to_string(),
        ..Header::default()
    }
}

fn machine() -> Delivery {
    Delivery::new(DeliveryConfig::new("fe-1".into()))
}

fn poll(number: i64) -> Poll {
    Poll {
        number,
        session: [1; 16],
        table_version: 0,
        generation: 1,
        packet_iv: iv(number),
    }
}

fn iv(of: i64) -> PacketIv {
    [of as u8; 16]
}

/// The poll of an agent that saw nothing of the answer to another one.
fn repeat(number: i64, of: i64) -> Poll {
    Poll {
        packet_iv: iv(of),
        ..poll(number)
    }
}

fn offer(flow: &str, attempt: i32) -> Tasks {
    Offer {
        header: header(),
        flow_id: flow.into(),
        attempt,
        urgent: false,
    }
    .into()
}

fn grant(flow: &str, attempt: i32, frontend: &str, poll: i64) -> Tasks {
    let request = RequestRef::default();
    Grant {
        header: header(),
        flow_id: flow.into(),
        attempt,
        frontend: frontend.into(),
        poll,
        request,
        urgent: false,
        packet_iv: iv(poll).to_vec().into(),
    }
    .into()
}

/// A grant to a poll whose request had been sent before.
fn grant_again(flow: &str, frontend: &str, poll: i64, of: i64) -> Tasks {
    let Tasks::Grant(first) = grant(flow, 1, frontend, poll) else {
        unreachable!()
    };
    let packet_iv = iv(of).to_vec().into();
    Grant { packet_iv, ..first }.into()
}

fn ask(flow: &str) -> Tasks {
    Ask {
        header: header(),
        pairs: vec![AskPair {
            once: "F.once".into(),
            flow_id: flow.into(),
        }],
    }
    .into()
}

fn claims(acts: &[Act]) -> Vec<(&str, i32, i64)> {
    acts.iter()
        .filter_map(|act| match act {
            Act::Claim {
                flow,
                attempt,
                poll,
                ..
            } => Some((flow.as_str(), *attempt, *poll)),
            _ => None,
        })
        .collect()
}

fn answers(acts: &[Act]) -> Vec<Item> {
    let items = |act: &Act| {
        if let Act::Answer { items, .. } = act {
            items.clone()
        } else {
            vec![]
        }
    };
    acts.iter().flat_map(items).collect()
}

#[test]
fn an_offer_is_claimed_and_its_grant_delivered_once() {
    let mut m = machine();
    assert_eq!(m.open(&client(), poll(1), 0), [Act::CheckIn(client())]);
    assert_eq!(claims(&m.task(&offer("F.a", 1), 10)), [("F.a", 1, 1)]);
    assert!(
        m.task(&offer("F.a", 1), 11).is_empty(),
        "a repeated offer is not claimed again"
    );
    assert!(m.task(&grant("F.a", 1, "fe-1", 1), 12).is_empty());
    assert!(
        answers(&m.on_time(17)).is_empty(),
        "it waits a little for others"
    );
    assert_eq!(answers(&m.on_time(18)).len(), 1);
    assert!(
        m.task(&grant("F.a", 1, "fe-1", 1), 20).is_empty(),
        "a repeated grant is dropped"
    );
    m.open(&client(), poll(2), 30);
    assert!(m.task(&grant("F.a", 1, "fe-1", 1), 31).is_empty());
    assert!(answers(&m.on_time(1000)).is_empty());
}

#[test]
fn offers_wait_for_the_poll_and_all_that_is_due_goes_in_one_answer() {
    let mut m = machine();
    m.task(&offer("F.a", 1), 0);
    m.task(&offer("F.b", 1), 0);
    m.task(&ask("F.c"), 0);
    let acts = m.open(&client(), poll(1), 10);
    assert_eq!(claims(&acts), [("F.a", 1, 1), ("F.b", 1, 1)]);
    m.task(&grant("F.a", 1, "fe-1", 1), 20);
    assert!(
        answers(&m.on_time(40)).is_empty(),
        "another grant is on its way"
    );
    m.task(&grant("F.b", 1, "fe-1", 1), 41);
    assert_eq!(answers(&m.on_time(41)).len(), 3);
}

#[test]
fn a_grant_that_never_comes_does_not_hold_the_others_for_long() {
    let mut m = machine();
    m.open(&client(), poll(1), 0);
    m.task(&offer("F.a", 1), 0);
    m.task(&offer("F.b", 1), 0);
    m.task(&grant("F.a", 1, "fe-1", 1), 5);
    assert!(answers(&m.on_time(100)).is_empty());
    assert_eq!(answers(&m.on_time(155)).len(), 1);
    let late = m.task(&grant("F.b", 1, "fe-1", 1), 160);
    assert!(matches!(&late[..], [Act::Unsent { flow, attempt: 1, poll: 1, .. }] if flow == "F.b"));
}

#[test]
fn what_was_not_written_is_reported_and_errands_wait_for_the_next_poll() {
    let mut m = machine();
    m.open(&client(), poll(1), 0);
    m.task(&offer("F.a", 1), 0);
    m.task(&grant("F.a", 1, "fe-1", 1), 1);
    m.task(
        &Cancel {
            header: header(),
            flow_id: "F.c".into(),
        }
        .into(),
        1,
    );
    let gone = m.close(&client(), 1, 2);
    assert!(matches!(&gone[..], [Act::Unsent { .. }]));
    m.open(&client(), poll(2), 3);
    assert_eq!(answers(&m.on_time(20)), [Item::Cancel("F.c".into())]);

    let item = Item::Task {
        flow: "F.d".into(),
        attempt: 2,
        request: RequestRef::default(),
        urgent: false,
    };
    assert!(matches!(
        &m.failed(&client(), 2, vec![item.clone()], true, 21)[..],
        [Act::Unsure { attempt: 2, .. }]
    ));
    assert!(matches!(
        &m.failed(&client(), 2, vec![item], false, 21)[..],
        [Act::Unsent { attempt: 2, .. }]
    ));
}

#[test]
fn a_newer_poll_wins_and_other_frontends_grants_are_not_ours() {
    let mut m = machine();
    m.task(&offer("F.a", 1), 0);
    m.open(&client(), poll(1), 0);
    let acts = m.open(&client(), poll(2), 5);
    assert!(acts.contains(&Act::End {
        client: client(),
        poll: 1
    }));
    assert_eq!(
        claims(&acts),
        [("F.a", 1, 2)],
        "claimed again, for the poll that lives"
    );
    assert!(m.task(&grant("F.a", 1, "fe-2", 1), 6).is_empty());
    m.close(&client(), 2, 7);
    assert!(
        claims(&m.open(&client(), poll(3), 8)).is_empty(),
        "the offer is gone"
    );
}

#[test]
fn a_question_about_a_flow_that_starts_in_the_same_answer_is_dropped() {
    let mut m = machine();
    m.open(&client(), poll(1), 0);
    m.task(&offer("F.a", 2), 0);
    m.task(&ask("F.a"), 0);
    m.task(&ask("F.b"), 0);
    m.task(&grant("F.a", 2, "fe-1", 1), 1);
    let items = answers(&m.on_time(10));
    assert_eq!(items.len(), 2);
    assert!(matches!(&items[1], Item::Ask(pairs) if pairs.len() == 1 && pairs[0].flow_id == "F.b"));
}

#[test]
fn a_check_in_is_recorded_only_when_something_is_new() {
    let mut m = machine();
    let is_check_in = |acts: &[Act]| acts.contains(&Act::CheckIn(client()));
    assert!(is_check_in(&m.open(&client(), poll(1), 0)));
    m.close(&client(), 1, 9_000);
    assert!(!is_check_in(&m.open(&client(), poll(2), 10_000)));
    m.close(&client(), 2, 19_000);
    assert!(is_check_in(&m.open(&client(), poll(3), 40_000)), "a gap");
    assert!(is_check_in(&m.open(
        &client(),
        Poll {
            session: [2; 16],
            ..poll(4)
        },
        40_001
    )));
    assert!(is_check_in(&m.open(
        &client(),
        Poll {
            session: [2; 16],
            table_version: 9,
            ..poll(5)
        },
        40_002
    )));
    m.check_in_failed(&client());
    assert!(is_check_in(&m.open(
        &client(),
        Poll {
            session: [2; 16],
            table_version: 9,
            ..poll(6)
        },
        40_003
    )));
}

#[test]
fn withdrawn_and_old_offers_are_not_claimed_and_memory_is_given_back() {
    let mut m = machine();
    m.task(&offer("F.a", 1), 0);
    m.task(
        &Withdraw {
            header: header(),
            flow_id: "F.a".into(),
        }
        .into(),
        1,
    );
    m.task(&offer("F.b", 1), 0);
    assert!(claims(&m.open(&client(), poll(1), 31 * 60_000)).is_empty());
    m.close(&client(), 1, 31 * 60_000);
    m.sweep(40 * 60_000);
    assert!(m.clients.is_empty());
}

#[test]
fn when_records_were_missed_everybody_checks_in_again() {
    let mut m = machine();
    let other = ClientKey {
        client: "C.00000000000000bb".parse().unwrap(),
        ..client()
    };
    m.open(&client(), poll(1), 0);
    m.open(&other, poll(2), 0);
    m.close(&other, 2, 5);
    assert_eq!(
        m.forget_contacts(),
        [Act::CheckIn(client())],
        "whoever polls now, at once"
    );
    assert_eq!(
        m.open(&other, poll(3), 6),
        [Act::CheckIn(other.clone())],
        "others when they come"
    );
}

#[test]
fn a_repeated_request_is_given_what_it_was_given() {
    let mut m = machine();
    m.open(&client(), poll(1), 0);
    m.task(&offer("F.a", 1), 0);
    m.task(&grant("F.a", 1, "fe-1", 1), 1);
    m.task(&ask("F.b"), 1);
    let first = answers(&m.on_time(200));
    assert_eq!(first.len(), 2);
    // The same bytes: the claim is made anew, the question comes by itself.
    assert_eq!(
        claims(&m.open(&client(), repeat(2, 1), 300)),
        [("F.a", 1, 2)]
    );
    m.task(&grant_again("F.a", "fe-1", 2, 1), 301);
    assert_eq!(answers(&m.on_time(500)), first);
    // Other bytes: the agent has had the answer.
    assert!(claims(&m.open(&client(), poll(3), 600)).is_empty());
    assert!(answers(&m.on_time(1_000)).is_empty());
    // It repeats bytes of long ago, which it should not: nothing is brought unless it is granted.
    assert_eq!(
        claims(&m.open(&client(), repeat(4, 1), 1_100)),
        [("F.a", 1, 4)]
    );
    assert!(answers(&m.on_time(1_500)).is_empty());
}

#[test]
fn a_request_that_another_frontend_was_granted_is_claimed_once_when_it_is_repeated_here() {
    let mut m = machine();
    m.task(&offer("F.a", 1), 0);
    m.task(&grant("F.a", 1, "fe-2", 7), 1);
    assert_eq!(
        claims(&m.open(&client(), repeat(1, 7), 10)),
        [("F.a", 1, 1)]
    );
    // Both hold a poll of the same bytes: they must not take it from each other for ever.
    let contest = m.task(&grant_again("F.a", "fe-2", 8, 7), 11);
    assert!(claims(&contest).is_empty());
    m.task(&grant_again("F.a", "fe-1", 1, 7), 12);
    assert_eq!(answers(&m.on_time(200)).len(), 1);

    // The grant comes after the repeat.
    let mut m = machine();
    m.open(&client(), repeat(1, 7), 0);
    assert_eq!(
        claims(&m.task(&grant("F.a", 1, "fe-2", 7), 1)),
        [("F.a", 1, 1)]
    );
    // A newer attempt is nothing that the request was given.
    let mut m = machine();
    m.task(&grant("F.a", 1, "fe-2", 7), 1);
    m.task(&offer("F.a", 2), 2);
    assert_eq!(claims(&m.open(&client(), repeat(1, 7), 3)), [("F.a", 2, 1)]);
}

#[test]
fn an_old_question_does_not_answer_a_repeat_in_the_place_of_its_task() {
    let mut m = machine();
    m.open(&client(), poll(1), 0);
    m.close(&client(), 1, 10);
    // Another frontend brings the question about F.a; the answer makes a new attempt, which that
    // frontend is granted. The agent sees nothing of it and repeats the request here.
    m.task(&ask("F.a"), 20);
    m.task(&ask("F.b"), 21);
    m.task(&offer("F.a", 1), 30);
    m.task(&grant_again("F.a", "fe-2", 7, 7), 31);
    let acts = m.open(&client(), repeat(2, 7), 40);
    assert_eq!(claims(&acts), [("F.a", 1, 2)]);
    // The question about F.b is still one, but an answer without F.a would lose F.a.
    assert!(answers(&m.on_time(40 + 1_999)).is_empty());
    m.task(&grant_again("F.a", "fe-1", 2, 7), 2_040);
    let items = answers(&m.on_time(2_050));
    assert!(
        matches!(&items[0], Item::Task { flow, .. } if flow == "F.a"),
        "{items:?}"
    );
    assert!(matches!(&items[1], Item::Ask(pairs) if pairs.len() == 1 && pairs[0].flow_id == "F.b"));

    // Where no grant comes, for the flow lives, the question is not kept for ever.
    m.task(&offer("F.c", 1), 3_000);
    m.task(&grant_again("F.c", "fe-2", 8, 8), 3_001);
    m.task(&ask("F.d"), 3_002);
    m.open(&client(), repeat(3, 8), 3_010);
    assert_eq!(answers(&m.on_time(3_010 + 2_000)).len(), 1);
}

#[test]
fn a_new_attempt_makes_questions_about_the_older_ones_void() {
    let mut m = machine();
    m.task(&ask("F.a"), 0);
    m.task(&offer("F.a", 2), 1);
    m.task(&grant("F.a", 2, "fe-2", 9), 2);
    m.open(&client(), poll(1), 3);
    assert!(answers(&m.on_time(10_000)).is_empty());
    // The next question is about the new attempt.
    m.task(&ask("F.a"), 10_001);
    assert_eq!(answers(&m.on_time(10_100)).len(), 1);
}

fn holder(session: [u8; 16], hold_ms: i64) -> Tasks {
    Holder {
        header: header(),
        session_key: session.to_vec().into(),
        hold_ms,
    }
    .into()
}

#[test]
fn a_poll_of_a_session_that_moved_ends_and_is_told_of_if_it_comes_back() {
    let mut m = machine();
    m.open(&client(), poll(1), 0);
    assert!(m.task(&holder([1; 16], 0), 1).is_empty(), "it is this one");
    m.task(&grant("F.A", 1, "fe-1", 1), 2);
    let acts = m.task(&holder([2; 16], 0), 3);
    let unsent = Act::Unsent {
        client: client(),
        flow: "F.A".into(),
        attempt: 1,
        poll: 1,
    };
    let end = Act::End {
        client: client(),
        poll: 1,
    };
    assert_eq!(acts, [end, unsent]);
    assert!(!m.refuses(&client(), &[1; 16], 4));
    let acts = m.open(&client(), poll(2), 4);
    assert!(acts.contains(&Act::CheckIn(client())), "{acts:?}");
}

#[test]
fn who_is_held_down_is_refused_for_so_long_and_nobody_else() {
    let mut m = machine();
    m.open(&client(), poll(1), 0);
    let refuse = Act::Refuse {
        client: client(),
        poll: 1,
    };
    assert_eq!(m.task(&holder([2; 16], 1_000), 10), [refuse]);
    m.sweep(500);
    assert!(m.refuses(&client(), &[1; 16], 1_009));
    assert!(m.refuses(&client(), &[3; 16], 1_009));
    assert!(!m.refuses(&client(), &[2; 16], 1_009));
    assert!(!m.refuses(&client(), &[1; 16], 1_010));
    m.sweep(100_000);
    assert_eq!(m.clients.len(), 0);
    // One that was deleted holds nobody down.
    m.task(&holder([2; 16], 1_000), 0);
    m.end_life(&client(), 2);
    assert!(!m.refuses(&client(), &[1; 16], 1));
}
