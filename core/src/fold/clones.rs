//! Clones: agents of one key on several machines, as copied images make them.
//!
//! An agent has one session until it starts anew or loses its connection; then it has a new one,
//! and the old one never comes back. So a session that comes back after a newer one is of another
//! machine. One late request is no proof: two sessions that both come back twice are.
//!
//! Frontends tell of a session when it is new to them. A client's poll belongs to the session that
//! was told of last; a frontend that holds another is told so, ends it, and tells of it again if
//! it comes back. Of two that take turns the one that was seen first keeps the poll, and the other
//! is refused for a while. Then it is looked at again: the first may be gone by then.

use super::addresses::{Addresses, forget_oldest, room_for_one};
use super::{Fold, FoldConfig, Output, Turn, documents, header};
use crate::ids::ClientKey;
use crate::ingest::session_name;
use litemap::LiteMap;
use nublar_schemas::records::{CheckIn, FactsSet, Holder};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Sessions of a client that are remembered in any case.
const REMEMBERED: usize = 8;
/// Sessions that are remembered while they may be of machines that take turns; and as many that
/// are shown, and of their addresses and host names.
const MACHINES: usize = 64;
/// How often each of two must have come back.
const RETURNS: u32 = 2;

/// Whose a check-in is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contact {
    /// The session that polled last.
    Same,
    /// Another one, which polls now.
    New,
    /// One that is held down.
    Refused,
}

/// What a session that polls turns out to be.
enum Heard {
    /// The one that polled last.
    Again,
    /// One that is refused until then.
    HeldDown { until_us: i64 },
    /// Another one, which polls now; it may have moved to another frontend than the last.
    New { moved: bool },
    /// One of two that take turns: since when, until when one of them is refused, and whether this.
    TakesTurns {
        since_us: i64,
        until_us: i64,
        refused: bool,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Session {
    key: Vec<u8>,
    address: String,
    frontend: String,
    first_us: i64,
    last_us: i64,
    returns: u32,
    /// What its agent called itself, empty when it did not say.
    #[serde(default)]
    host: String,
}

impl Session {
    /// The lesser was seen first.
    fn seniority(&self) -> (i64, &[u8]) {
        (self.first_us, &self.key)
    }
}

/// Two sessions that took turns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Conflict {
    since_us: i64,
    last_us: i64,
    /// Until when others than the current session are refused.
    until_us: i64,
    /// Where they came from.
    addresses: Addresses,
    /// Those that took turns, and those that were refused, by [`session_name`].
    #[serde(default)]
    sides: LiteMap<String, Side>,
}

/// What is shown of a session; what is not known is empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Side {
    address: String,
    host: String,
    first_us: i64,
    last_us: i64,
}

impl Side {
    /// Heard of at one time.
    fn once(address: &str, host: &str, at_us: i64) -> Self {
        Self {
            address: address.to_owned(),
            host: host.to_owned(),
            first_us: at_us,
            last_us: at_us,
        }
    }
}

impl Conflict {
    fn saw(&mut self, key: &[u8], side: Side) {
        let (first_us, last_us) = (side.first_us, side.last_us);
        if !side.address.is_empty() {
            self.addresses
                .saw(&side.address, first_us, last_us, MACHINES);
        }
        let known = self.sides.entry(session_name(key)).or_insert(side.clone());
        known.first_us = known.first_us.min(first_us);
        known.last_us = known.last_us.max(last_us);
        for (known, new) in [
            (&mut known.address, side.address),
            (&mut known.host, side.host),
        ] {
            if !new.is_empty() {
                *known = new;
            }
        }
        forget_oldest(&mut self.sides, MACHINES, |side| side.last_us);
    }
}

/// The sessions of a client.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Sessions {
    /// The one that polls now is the last.
    seen: Vec<Session>,
    conflict: Option<Conflict>,
    /// The names that the client gave itself, and when it did last.
    hosts: LiteMap<String, i64>,
}

impl Sessions {
    /// What the client says of itself holds a host name.
    pub(super) fn host(&mut self, said: &FactsSet) {
        let Ok(facts) = serde_json::from_str::<Map<String, Value>>(&said.facts) else {
            return;
        };
        let name = facts.get("Hostname").or(facts.get("hostname"));
        let Some(name) = name.and_then(Value::as_str) else {
            return;
        };
        room_for_one(&mut self.hosts);
        self.hosts.insert(name.to_owned(), said.header.at_us);
        forget_oldest(&mut self.hosts, MACHINES, |last| *last);
        let mut seen = self.seen.iter_mut();
        if let Some(session) = seen.find(|session| session.key == said.session_key) {
            session.host = name.to_owned();
        }
        // Of one that frontends refuse this is the first that is heard.
        if let Some(conflict) = &mut self.conflict
            && !said.session_key.is_empty()
        {
            let at_us = said.header.at_us;
            conflict.saw(&said.session_key, Side::once("", name, at_us));
        }
    }

    /// What people read: null, or when two agents last took turns, from where, the host names, and
    /// the sessions as they stand with the events that came under them.
    pub(super) fn conflict(&self) -> Value {
        let Some(conflict) = &self.conflict else {
            return Value::Null;
        };
        let mut sides: Vec<_> = conflict.sides.iter().collect();
        sides.sort_unstable_by_key(|(name, side)| (side.first_us, name.as_str()));
        let sides = sides.into_iter().map(|(name, side)| {
            json!({
                "session": name,
                "host": side.host,
                "address": side.address,
                "first_seen_at": side.first_us,
                "last_seen_at": side.last_us,
            })
        });
        json!({
            "since": conflict.since_us,
            "last": conflict.last_us,
            "addresses": conflict.addresses.shown(),
            "hosts": self.hosts.keys().collect::<Vec<_>>(),
            "sessions": sides.collect::<Vec<_>>(),
        })
    }

    /// Hears a session that polls.
    fn heard(&mut self, check_in: &CheckIn, config: &FoldConfig) -> Heard {
        if self.polls_again(check_in) {
            return Heard::Again;
        }
        let at_us = check_in.header.at_us;
        if let Some(conflict) = &mut self.conflict
            && at_us < conflict.until_us
        {
            let side = Side::once(&check_in.address, "", at_us);
            conflict.saw(&check_in.session_key, side);
            conflict.last_us = conflict.last_us.max(at_us);
            return Heard::HeldDown {
                until_us: conflict.until_us,
            };
        }
        let (came_back, before) = self.take(check_in, config.turns_us);
        if self.is_another_machine(came_back, at_us, config) {
            return self.take_turns(at_us, config);
        }
        Heard::New {
            moved: before.is_some_and(|before| before != check_in.header.frontend),
        }
    }

    /// Whether it is the session that polled last.
    fn polls_again(&mut self, check_in: &CheckIn) -> bool {
        let at_us = check_in.header.at_us;
        let Some(last) = self.seen.last_mut() else {
            return false;
        };
        if last.key != check_in.session_key {
            return false;
        }
        last.last_us = last.last_us.max(at_us);
        last.address.clone_from(&check_in.address);
        last.frontend.clone_from(&check_in.header.frontend);
        if let Some(conflict) = &mut self.conflict
            && let Some(side) = conflict.sides.get_mut(&session_name(&check_in.session_key))
        {
            side.last_us = side.last_us.max(at_us);
        }
        true
    }

    /// Makes a session the one that polls. Whether it came back; where the one before polls.
    fn take(&mut self, check_in: &CheckIn, turns_us: i64) -> (bool, Option<String>) {
        let at_us = check_in.header.at_us;
        let before = self.seen.last().map(|last| last.frontend.clone());
        let known = self
            .seen
            .iter()
            .position(|known| known.key == check_in.session_key);
        let mut now = match known {
            Some(place) => self.seen.remove(place),
            None => Session {
                key: check_in.session_key.to_vec(),
                address: String::new(),
                frontend: String::new(),
                first_us: at_us,
                last_us: at_us,
                returns: 0,
                host: String::new(),
            },
        };
        let came_back = known.is_some() && at_us - now.last_us <= turns_us;
        now.returns = if came_back { now.returns + 1 } else { 0 };
        now.last_us = now.last_us.max(at_us);
        now.address.clone_from(&check_in.address);
        now.frontend.clone_from(&check_in.header.frontend);
        self.seen.reserve_exact(1);
        self.seen.push(now);
        let over = |oldest: &Session| at_us - oldest.last_us > turns_us;
        while self.seen.len() > MACHINES
            || self.seen.len() > REMEMBERED && self.seen.first().is_some_and(over)
        {
            self.seen.remove(0);
        }
        (came_back, before)
    }

    /// The conflict, unless it is long over.
    fn conflict_now(&self, at_us: i64, turns_us: i64) -> Option<&Conflict> {
        let conflict = self.conflict.as_ref();
        conflict.filter(|conflict| at_us - conflict.last_us <= turns_us)
    }

    /// Whether the session that polls now is of another machine than the one before it, and both
    /// are there.
    fn is_another_machine(&self, came_back: bool, at_us: i64, config: &FoldConfig) -> bool {
        let [.., other, this] = self.seen.as_slice() else {
            return false;
        };
        let both_came_back = other.returns >= RETURNS && this.returns >= RETURNS;
        let Some(conflict) = self.conflict_now(at_us, config.turns_us) else {
            return both_came_back;
        };
        // Of one that was not heard of since it was refused nobody knows whether it is there.
        let refused_us = conflict.until_us - config.hold_down_us;
        other.last_us > refused_us && (both_came_back || came_back)
    }

    /// The two that polled last take turns: who was seen first keeps the poll.
    fn take_turns(&mut self, at_us: i64, config: &FoldConfig) -> Heard {
        let known = self.conflict_now(at_us, config.turns_us).cloned();
        let mut conflict = known.unwrap_or(Conflict {
            since_us: at_us,
            last_us: at_us,
            until_us: 0,
            addresses: Addresses::default(),
            sides: LiteMap::new_vec(),
        });
        let last_two = self.seen.len().saturating_sub(2);
        let two = &mut self.seen[last_two..];
        for session in two.iter() {
            let side = Side {
                address: session.address.clone(),
                host: session.host.clone(),
                first_us: session.first_us,
                last_us: session.last_us,
            };
            conflict.saw(&session.key, side);
        }
        (conflict.last_us, conflict.until_us) = (at_us, at_us + config.hold_down_us);
        let (since_us, until_us) = (conflict.since_us, conflict.until_us);
        self.conflict = Some(conflict);
        let refused = two.is_sorted_by(|other, this| other.seniority() <= this.seniority());
        if refused {
            two.reverse();
        }
        Heard::TakesTurns {
            since_us,
            until_us,
            refused,
        }
    }
}

impl Fold {
    /// Whose check-in it is, and what frontends are to know of it.
    pub(super) fn contact(
        &mut self,
        turn: &mut Turn,
        key: &ClientKey,
        check_in: &CheckIn,
    ) -> Contact {
        let Some(client) = self.clients.get_mut(key) else {
            return Contact::Refused;
        };
        let (generation, sessions) = (client.generation, &mut client.sessions);
        let heard = sessions.heard(check_in, &self.config);
        let at_us = check_in.header.at_us;
        let holder = |until_us: i64| {
            let session_key = sessions.seen.last().map(|last| last.key.clone());
            Holder {
                header: header(key, generation, at_us),
                session_key: session_key.unwrap_or_default().into(),
                hold_ms: (until_us - at_us).max(0) / 1_000,
            }
        };
        match heard {
            Heard::Again => Contact::Same,
            Heard::HeldDown { until_us } => {
                // A frontend that was started since does not know.
                turn.task(holder(until_us));
                Contact::Refused
            }
            Heard::New { moved } => {
                if moved {
                    turn.task(holder(0));
                }
                Contact::New
            }
            Heard::TakesTurns {
                since_us,
                until_us,
                refused,
            } => {
                turn.task(holder(until_us));
                let body = sessions.conflict();
                let news = documents::conflict(key, generation, since_us, &body, turn.at_us);
                turn.outputs.push(Output::Notify(news.into()));
                self.give_new_key(turn, key);
                if refused {
                    Contact::Refused
                } else {
                    Contact::New
                }
            }
        }
    }
}
