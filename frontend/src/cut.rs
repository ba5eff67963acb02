//! Cuts the lists of one POST into records: whole messages, about 1 MiB each, in their order.
//! Without IO: what it finds goes to a sink, which may stop it.

use crate::route::{Route, Whose};
use bytes::Bytes;
use moka::sync::Cache;
use nublar_core::ids::ClientKey;
use nublar_core::ingest::CLIENT_INFO;
use nublar_core::mac::MacKeys;
use nublar_schemas::agent::VqlResponse;
use nublar_schemas::codec::{CodecError, Record as _};
use nublar_schemas::records::{AgentMessage, Header, Messages, SeenStats};
use nublar_schemas::topics::{EVENTS, RESULTS, UPLOADS};
use nublar_wire::{Kind, Message, Packed, WireError, messages};
use prost::Message as _;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A record is closed when it has so many bytes.
const RECORD: usize = 1 << 20;
/// No list of an ordinary agent inflates to more.
const LIST: usize = 16 << 20;
/// A message over 100 MiB makes the agent wipe its buffer: beyond this nothing is lost.
const GIANT_LIST: usize = 101 << 20;
/// How much of a refused message is kept.
pub(crate) const COPY: usize = 1 << 20;
/// Flows that are remembered.
const FLOWS: u64 = 200_000;
/// How long a flow that sends nothing is remembered to be alive.
const ALIVE: Duration = Duration::from_secs(3600);

/// Lists beyond [`LIST`] are inflated one at a time.
static GIANT: Mutex<()> = Mutex::new(());

/// Where cut messages go: a topic, and how large a message it takes (D3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum To {
    Results,
    Uploads,
    Events,
}

impl To {
    const ALL: [Self; 3] = [Self::Results, Self::Uploads, Self::Events];

    pub(crate) fn topic(self) -> &'static str {
        match self {
            Self::Results => RESULTS.name,
            Self::Uploads => UPLOADS.name,
            Self::Events => EVENTS.name,
        }
    }

    fn limit(self) -> usize {
        match self {
            Self::Uploads => 3 << 19,
            Self::Results | Self::Events => 8 << 20,
        }
    }
}

/// What was found.
#[derive(Debug)]
pub(crate) enum Piece {
    /// Signs of life, to be durable before the pieces that follow.
    Alive(Vec<SeenStats>),
    /// A record, encoded.
    Record {
        to: To,
        messages: usize,
        value: Vec<u8>,
    },
    /// A message that is too large for the log.
    Large { to: To, message: AgentMessage },
    /// A message, or a whole list, that is not taken.
    Refused {
        reason: &'static str,
        text: String,
        copy: Bytes,
    },
}

/// What a check-in tells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CheckedIn {
    /// Version of the event table that the agent runs, 0 when it has none.
    pub(crate) table_version: i64,
    /// The agent said who it is behind it.
    pub(crate) introduces: bool,
}

/// What the foreman is to hear of a POST, and who polls.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// For `scheduling`, once everything else is durable.
    pub(crate) stats: Vec<SeenStats>,
    /// The sessions whose progress is among them.
    pub(crate) progress: Vec<String>,
    /// The check-in, if the POST held one.
    pub(crate) check_in: Option<CheckedIn>,
    /// Messages that mean nothing.
    pub(crate) ignored: usize,
}

/// Why cutting ended before the end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CutError {
    /// A flow is not the client's by what is known here; the registry must be read first.
    #[error("a foreign flow id, to be looked at again")]
    Doubt,
    /// The sink takes no more.
    #[error("stopped")]
    Stopped,
    /// A record could not be encoded.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

type Sessions = Cache<(ClientKey, String), ()>;

/// Remembers which flows the foreman knows to be alive, and whose progress it has heard of lately.
#[derive(Debug, Clone)]
pub(crate) struct Throttle {
    alive: Sessions,
    progress: Option<Sessions>,
}

impl Throttle {
    /// `every` zero: nothing is held back.
    pub(crate) fn new(every: Duration) -> Self {
        let cache = || Cache::builder().max_capacity(FLOWS);
        Self {
            alive: cache().time_to_idle(ALIVE).build(),
            progress: (!every.is_zero()).then(|| cache().time_to_live(every).build()),
        }
    }

    fn holds_back(&self) -> bool {
        self.progress.is_some()
    }

    fn is_alive(&self, client: &ClientKey, session: &str) -> bool {
        let key = (client.clone(), session.to_owned());
        self.alive.get(&key).is_some()
    }

    fn is_due(&self, client: &ClientKey, session: &str) -> bool {
        let heard = |cache: &Sessions| cache.contains_key(&(client.clone(), session.to_owned()));
        !self.progress.as_ref().is_some_and(heard)
    }

    /// To be called once the signs of life are durable.
    pub(crate) fn live(&self, client: &ClientKey, signs: &[SeenStats]) {
        for seen in signs {
            self.alive
                .insert((client.clone(), seen.session.clone()), ());
        }
    }

    /// To be called once the statistics are durable, with the sessions whose progress they tell. That
    /// an agent does not know a flow is none: the next attempt's first word must be heard.
    pub(crate) fn heard(&self, client: &ClientKey, progress: Vec<String>) {
        let Some(cache) = &self.progress else { return };
        for session in progress {
            cache.insert((client.clone(), session), ());
        }
    }
}

/// By what rules a POST is cut.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub(crate) mac: Arc<MacKeys>,
    pub(crate) adopt: bool,
    pub(crate) client: ClientKey,
    pub(crate) header: Header,
    /// Hash of the agent's session.
    pub(crate) session_key: Bytes,
    pub(crate) throttle: Throttle,
    /// The client's generation is what the registry says now.
    pub(crate) certain: bool,
}

/// Cuts all lists of a body.
pub(crate) fn cut(
    packed: &Packed,
    rules: &Rules,
    sink: &mut dyn FnMut(Piece) -> bool,
) -> Result<Seen, CutError> {
    let mut cutter = Cutter {
        rules,
        sink,
        open: Default::default(),
        seen: Seen::default(),
        progress: HashMap::new(),
        alive: Vec::new(),
        new: Vec::new(),
        told: HashSet::new(),
    };
    for (index, list) in packed.lists(LIST).enumerate() {
        match list {
            Err(WireError::ListTooLarge { .. }) => {
                let _one = GIANT.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(list) = packed.lists(GIANT_LIST).nth(index) {
                    cutter.list(list)?;
                }
            }
            list => cutter.list(list)?,
        }
    }
    cutter.signs_of_life();
    Ok(cutter.seen)
}

/// Whether these are the rows in which an agent says who it is.
fn is_client_info(message: &Message) -> bool {
    message.kind == Kind::VqlResponse
        && VqlResponse::decode(message.payload())
            .is_ok_and(|rows| rows.query.is_some_and(|query| query.name == CLIENT_INFO))
}

#[derive(Default)]
struct Open {
    messages: Vec<AgentMessage>,
    bytes: usize,
}

struct Cutter<'a> {
    rules: &'a Rules,
    sink: &'a mut dyn FnMut(Piece) -> bool,
    open: [Open; 3],
    seen: Seen,
    /// Where in `seen` a session's progress is.
    progress: HashMap<String, usize>,
    /// Sessions that sent anything in this POST, in their order.
    alive: Vec<String>,
    /// Those of them that nobody knows to be alive, until it is told.
    new: Vec<SeenStats>,
    /// Sessions of which something is told.
    told: HashSet<String>,
}

impl Cutter<'_> {
    fn list(&mut self, list: Result<Bytes, WireError>) -> Result<(), CutError> {
        let list = match list {
            Ok(list) => list,
            Err(error) => {
                let reason = match error {
                    WireError::ListTooLarge { .. } => "list too large",
                    _ => "broken list",
                };
                return self.refuse(reason, error.to_string(), Bytes::new());
            }
        };
        for message in messages(list.clone()) {
            match message {
                Ok(message) => self.message(message)?,
                Err(error) => self.refuse("broken message", error.to_string(), list.clone())?,
            }
        }
        To::ALL.into_iter().try_for_each(|to| self.close(to))
    }

    fn message(&mut self, message: Message) -> Result<(), CutError> {
        let header = &self.rules.header;
        let whose = Whose {
            client: &self.rules.client,
            generation: header.generation,
            mac: &self.rules.mac,
            adopt: self.rules.adopt,
        };
        match whose.route(&message) {
            Route::Results => {
                self.alive(&message);
                self.put(To::Results, &message)
            }
            Route::Uploads => {
                self.alive(&message);
                self.put(To::Uploads, &message)
            }
            Route::Events => {
                if let Some(check_in) = &mut self.seen.check_in {
                    check_in.introduces |= is_client_info(&message);
                }
                self.put(To::Events, &message)
            }
            Route::Stats { marker, always } => {
                if marker {
                    self.alive(&message);
                }
                self.put(To::Results, &message)?;
                if marker {
                    self.put(To::Uploads, &message)?;
                }
                self.stats(&message, always);
                Ok(())
            }
            Route::CheckIn(table_version) => {
                self.seen.check_in.get_or_insert_default().table_version = table_version;
                Ok(())
            }
            Route::Ignored => {
                self.seen.ignored += 1;
                Ok(())
            }
            Route::Refused(reason, text) => self.refuse(reason, text, message.bytes),
            Route::Foreign(_) if !self.rules.certain => Err(CutError::Doubt),
            Route::Foreign(text) => self.refuse("foreign flow", text, message.bytes),
        }
    }

    fn alive(&mut self, message: &Message) {
        let session = message.session_id();
        if self.alive.last().is_none_or(|last| last != session)
            && !self.alive.iter().any(|known| known == session)
        {
            self.alive.push(session.to_owned());
            if !self.rules.throttle.is_alive(&self.rules.client, session) {
                self.new.push(sign_of_life(session));
            }
        }
    }

    /// Of the progress reports of a flow the newest is enough; whatever answers a question, or is
    /// a last word, is taken by itself.
    fn stats(&mut self, message: &Message, always: bool) {
        let session = message.session_id();
        let throttle = &self.rules.throttle;
        let seen = SeenStats {
            session: session.to_owned(),
            urgent: message.urgent,
            bytes: message.payload(),
        };
        if !always && throttle.holds_back() {
            if let Some(place) = self.progress.get(session) {
                self.seen.stats[*place] = seen;
                return;
            }
            if !throttle.is_due(&self.rules.client, session) {
                return;
            }
            self.progress
                .insert(session.to_owned(), self.seen.stats.len());
        }
        if !always {
            self.seen.progress.push(session.to_owned());
        }
        self.told.insert(session.to_owned());
        self.seen.stats.push(seen);
    }

    /// Flows that sent something, but no statistics that the foreman gets, are alive all the same.
    fn signs_of_life(&mut self) {
        for session in std::mem::take(&mut self.alive) {
            if !self.told.contains(&session)
                && self.rules.throttle.is_due(&self.rules.client, &session)
            {
                self.seen.stats.push(sign_of_life(&session));
                self.seen.progress.push(session);
            }
        }
    }

    fn put(&mut self, to: To, message: &Message) -> Result<(), CutError> {
        let size = message.bytes.len();
        let message = AgentMessage {
            session: message.session_id().to_owned(),
            bytes: message.bytes.clone(),
            object: None,
        };
        if size > to.limit() {
            self.close(to)?;
            return self.emit(Piece::Large { to, message });
        }
        if self.open[to as usize].bytes + size > RECORD {
            self.close(to)?;
        }
        let open = &mut self.open[to as usize];
        open.bytes += size + 32;
        open.messages.push(message);
        Ok(())
    }

    fn close(&mut self, to: To) -> Result<(), CutError> {
        let open = std::mem::take(&mut self.open[to as usize]);
        if open.messages.is_empty() {
            return Ok(());
        }
        let count = open.messages.len();
        let record = Messages {
            header: self.rules.header.clone(),
            messages: open.messages,
            session_key: self.rules.session_key.clone(),
        };
        let value = record.encode()?;
        self.emit(Piece::Record {
            to,
            messages: count,
            value,
        })
    }

    fn refuse(&mut self, reason: &'static str, text: String, copy: Bytes) -> Result<(), CutError> {
        let text = match copy.len() {
            0..=COPY => text,
            size => format!("{text} (copy cut from {size} bytes)"),
        };
        let copy = copy.slice(..copy.len().min(COPY));
        self.emit(Piece::Refused { reason, text, copy })
    }

    fn emit(&mut self, piece: Piece) -> Result<(), CutError> {
        let new = std::mem::take(&mut self.new);
        self.told
            .extend(new.iter().map(|sign| sign.session.clone()));
        let taken = (new.is_empty() || (self.sink)(Piece::Alive(new))) && (self.sink)(piece);
        taken.then_some(()).ok_or(CutError::Stopped)
    }
}

fn sign_of_life(session: &str) -> SeenStats {
    SeenStats {
        session: session.to_owned(),
        urgent: false,
        bytes: Bytes::new(),
    }
}
