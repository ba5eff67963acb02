//! However the same words come — twice, in any order, to several frontends, around crashes — the
//! same is stored, to the byte.

use nublar_simulator::{Chance, Socket, Trust};
use nublar_tests::{Installation, Letter, Player, Recorded, Role, Server, eventually, is_long};
use nublar_wire::Envelope;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::OnceCell;

/// The recordings, and what a server holds after it was simply told each of them.
struct Plain {
    recorded: Recorded,
    dump: OnceCell<String>,
}

impl Plain {
    async fn get(name: &'static str) -> (Recorded, &'static str) {
        static COLLECTIONS: OnceCell<Plain> = OnceCell::const_new();
        static EVENTS: OnceCell<Plain> = OnceCell::const_new();
        static WEBSOCKET: OnceCell<Plain> = OnceCell::const_new();
        let cell = match name {
            "collections" => &COLLECTIONS,
            "events" => &EVENTS,
            _ => &WEBSOCKET,
        };
        let load = async || Plain {
            recorded: Recorded::load(name),
            dump: OnceCell::new(),
        };
        let plain = cell.get_or_init(load).await;
        let dump = plain.dump.get_or_init(async || {
            let installation = Installation::recorded(&plain.recorded);
            let server = Server::start(&installation).await;
            let player = server.player();
            for (turn, letter) in plain.recorded.letters().iter().enumerate() {
                player.play(turn, letter, letter.status).await;
            }
            server.api().dump().await
        });
        (plain.recorded.clone(), dump.await)
    }
}

pub(crate) const RECORDINGS: [&str; 3] = ["collections", "events", "websocket"];

/// What a server holds after it was simply told a recording.
pub(crate) async fn plain(name: &'static str) -> (Recorded, &'static str) {
    let (recorded, dump) = Plain::get(name).await;
    let lines = dump.lines().count();
    assert!(lines >= 25, "{name}: {lines} lines cannot be all");
    (recorded, dump)
}

/// Shows the lines that differ, not the dumps.
pub(crate) fn assert_same(plain: &str, other: &str, how: &str) {
    if plain == other {
        return;
    }
    let only = |these: &str, those: &str| -> Vec<String> {
        let those: std::collections::HashSet<_> = those.lines().collect();
        let lines = these.lines().filter(|line| !those.contains(line));
        lines.take(4).map(str::to_owned).collect()
    };
    panic!(
        "{how}: the dumps differ\nplain alone: {:#?}\n{how} alone: {:#?}",
        only(plain, other),
        only(other, plain)
    );
}

async fn enrol(player: &Player, recorded: &Recorded) {
    for (turn, letter) in recorded.enrolment().iter().enumerate() {
        player.play(turn, letter, 406).await;
    }
}

#[tokio::test]
async fn told_twice() {
    for name in RECORDINGS {
        let (recorded, plain) = plain(name).await;
        let installation = Installation::recorded(&recorded);
        let mut server = Server::start(&installation).await;
        let player = server.player();
        enrol(&player, &recorded).await;
        // Who repeats a request for enrolment is known by then.
        player.play(0, &recorded.enrolment()[1], 200).await;
        for letter in recorded.taken() {
            tokio::join!(player.play(0, letter, 200), player.play(0, letter, 200));
        }
        for letter in recorded.taken() {
            player.play(0, letter, 200).await;
        }
        assert_same(plain, &server.api().dump().await, "told twice");
        server.stop().await;
    }
}

/// The messages of a recording in another order, in bodies of other sizes.
fn shuffled(recorded: &Recorded, seed: u64) -> Vec<Letter> {
    let chance = &mut Chance::new(seed);
    let mut messages: Vec<_> = recorded
        .taken()
        .iter()
        .flat_map(|letter| recorded.messages(letter))
        .map(|message| message.bytes)
        .collect();
    chance.shuffle(&mut messages);
    let session = recorded.session();
    let mut letters = Vec::new();
    while !messages.is_empty() {
        let rest = messages.split_off(messages.len().min(1 + chance.below(12)));
        letters.push(Letter {
            number: 0,
            path: "/control".to_owned(),
            body: recorded.seal(&session, &messages),
            status: 200,
            decoded: serde_json::Value::Null,
        });
        messages = rest;
    }
    letters
}

#[tokio::test]
async fn told_in_any_order() {
    let seeds = if is_long("orders of messages") {
        100
    } else {
        6
    };
    for seed in 0..seeds {
        for name in RECORDINGS {
            let (recorded, plain) = plain(name).await;
            let installation = Installation::recorded(&recorded);
            let mut server = Server::start(&installation).await;
            let player = server.player();
            enrol(&player, &recorded).await;
            // A poll, without which nobody knows when the client was there first.
            player.play(0, &recorded.taken()[0], 200).await;
            for letter in shuffled(&recorded, seed) {
                player.play(0, &letter, 200).await;
            }
            let how = format!("{name}, order {seed}");
            assert_same(plain, &server.api().dump().await, &how);
            server.stop().await;
        }
    }
}

#[tokio::test]
async fn killed_between_any_two_requests() {
    let every = if is_long("kills between requests") {
        1
    } else {
        6
    };
    for name in RECORDINGS {
        let (recorded, plain) = plain(name).await;
        let installation = Installation::recorded(&recorded);
        let mut server = Server::start(&installation).await;
        for (turn, letter) in recorded.letters().iter().enumerate() {
            // What stood in the connections is gone too.
            server.player().play(turn, letter, letter.status).await;
            if turn % every == every - 1 || turn == 1 {
                server.kill9().await;
                server.restart().await;
            }
        }
        assert_same(plain, &server.api().dump().await, "killed");
        server.stop().await;
    }
}

/// Kills while a request is under way; whoever had no answer says it again, in the same bytes.
#[tokio::test]
async fn killed_in_the_middle_of_requests() {
    let rounds = if is_long("kills amid requests") {
        20
    } else {
        1
    };
    let (recorded, plain) = plain("collections").await;
    for round in 0..rounds {
        let chance = &mut Chance::new(round);
        let installation = Installation::recorded(&recorded);
        let mut server = Server::start(&installation).await;
        enrol(&server.player(), &recorded).await;
        let mut unanswered = 0;
        for letter in recorded.taken() {
            let player = server.player();
            if chance.below(4) == 0 {
                let moment = Duration::from_micros(500 * chance.below(24) as u64);
                let answer = player.post(0, &letter.path, letter.body.clone());
                let answered = tokio::time::timeout(moment, answer).await;
                server.kill9().await;
                server.restart().await;
                match answered {
                    Ok(Ok(answer)) => {
                        assert_eq!(answer.status, 200);
                        continue;
                    }
                    _ => unanswered += 1,
                }
            }
            server.player().play(0, letter, 200).await;
        }
        assert!(unanswered > 2, "{unanswered} requests were cut");
        let how = format!("killed amid requests, round {round}");
        assert_same(plain, &server.api().dump().await, &how);
        server.stop().await;
    }
}

#[tokio::test]
async fn told_to_two_frontends_in_turn() {
    for name in RECORDINGS {
        let (recorded, plain) = plain(name).await;
        let installation = Installation::recorded(&recorded);
        let mut server = Server::start_role(&installation, Role::Run(2), "run").await;
        assert_eq!(server.agents().len(), 2);
        let player = server.player();
        for (turn, letter) in recorded.letters().iter().enumerate() {
            player.play(turn, letter, letter.status).await;
        }
        assert_same(plain, &server.api().dump().await, "two frontends");
        server.stop().await;
    }
}

/// The same letters as messages on two sockets, as an agent holds them.
async fn play_on_sockets(server: &Server, recorded: &Recorded, plain: &str) {
    let trust = Trust::new(server.secrets().ca.certificate.as_bytes()).unwrap();
    let base = server.agents()[0].trim_end_matches('/');
    let mut sockets: BTreeMap<&str, Socket> = BTreeMap::new();
    let mut cipher = Vec::new();
    for letter in recorded.letters() {
        let envelope = Envelope::parse(letter.body.clone()).unwrap();
        if cipher != envelope.cipher() {
            // A new session of the agent: its old connections are gone.
            sockets.clear();
            cipher = envelope.cipher().to_vec();
        }
        let mut socket = match sockets.remove(letter.path.as_str()) {
            Some(socket) => socket,
            None => {
                let url = format!("{base}{}", letter.path);
                Socket::dial(&trust, &url).await.unwrap()
            }
        };
        socket.send(&letter.body).await.unwrap();
        // A check-in of an agent that is known is answered when there is something to do.
        if letter.path == "/control" || letter.status != 200 {
            let code = socket.next().await.unwrap().code;
            assert_eq!(code, letter.status, "message {}", letter.number);
        }
        if letter.status == 200 {
            sockets.insert(&letter.path, socket);
        }
    }
    // What came on `reader` was answered nothing.
    let stored = async || {
        let dump = server.api().dump().await;
        if dump == plain {
            Ok(())
        } else {
            Err(dump.lines().count())
        }
    };
    eventually("what was said on sockets is stored", stored).await;
}

#[tokio::test]
async fn told_over_websockets() {
    for name in RECORDINGS {
        let (recorded, plain) = plain(name).await;
        let installation = Installation::recorded(&recorded);
        let mut server = Server::start(&installation).await;
        play_on_sockets(&server, &recorded, plain).await;
        assert_same(plain, &server.api().dump().await, "told over websockets");
        server.stop().await;
    }
}
