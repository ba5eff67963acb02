//! An agent's link to its servers: the session that its sender and its reader share, and what
//! becomes of it when a request fails.

use crate::chance::Chance;
use crate::config::AgentConfig;
use crate::error::SimError;
use crate::ledger::{Book, Counts};
use crate::pace::{Attempts, Next, Outcome, Round};
use crate::transport::{Broken, Reply, Transport};
use bytes::Bytes;
use nublar_wire::{AgentKey, AgentSession, Compression, Message, Plaintext, Trust};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::time::sleep;

/// Bytes of one message list of an answer.
const LIST_LIMIT: usize = 100 << 20;
/// So many requests after a 301 say that there was one.
const MOVED_REQUESTS: u32 = 200;

/// How the messages of a POST ended.
#[derive(Debug)]
pub(crate) enum Sent {
    /// Answered with 200; these came back.
    Accepted(Vec<Message>),
    /// Answered with 400 or 406: forgotten, and not kept by the server.
    Forgotten(u16),
}

#[derive(Debug, Default)]
struct Shared {
    session: Option<Arc<AgentSession>>,
    /// Counts sessions, so that of two that fail together only one moves on.
    epoch: u64,
    moved_to: Option<String>,
    moved_left: u32,
}

/// The link of one start of an agent.
pub(crate) struct Link {
    config: Arc<AgentConfig>,
    key: AgentKey,
    trust: Trust,
    transport: Arc<Transport>,
    book: Arc<Book>,
    round: Mutex<Round>,
    chance: Mutex<Chance>,
    shared: tokio::sync::Mutex<Shared>,
}

struct Connected {
    session: Arc<AgentSession>,
    epoch: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Link {
    /// Not connected yet.
    pub(crate) fn new(
        config: Arc<AgentConfig>,
        key: AgentKey,
        trust: Trust,
        transport: Arc<Transport>,
        book: Arc<Book>,
        mut chance: Chance,
    ) -> Self {
        let (pause, spread) = (
            config.scaled(config.max_poll),
            config.scaled(config.max_poll_std),
        );
        let mut round = Round::new(config.urls.clone(), pause, spread);
        // A fleet spreads over its frontends.
        (0..chance.below(config.urls.len())).for_each(|_| round.hop());
        Self {
            config,
            key,
            trust,
            transport,
            book,
            round: Mutex::new(round),
            chance: Mutex::new(chance),
            shared: tokio::sync::Mutex::default(),
        }
    }

    /// Posts lists of messages until they are accepted or not wanted, however long it takes.
    pub(crate) async fn post(&self, path: &str, lists: &[Bytes], urgent: bool) -> Sent {
        let plain = Plaintext::new(lists, Compression::Zlib, &self.config.nonce, now_us());
        loop {
            let Some(connected) = self.connect().await else {
                continue;
            };
            let Ok(body) = connected.session.seal(&plain) else {
                self.book.unheard("", "a body could not be encrypted");
                self.give_up(connected.epoch).await;
                continue;
            };
            match self.attempts(path, body, urgent, &connected).await {
                Some(sent) => return sent,
                None => continue,
            }
        }
    }

    /// Sends one body up to three times. None: the messages have to be encrypted anew.
    async fn attempts(
        &self,
        path: &str,
        body: Bytes,
        urgent: bool,
        connected: &Connected,
    ) -> Option<Sent> {
        let mut attempts = Attempts::default();
        loop {
            let (url, moved) = self.url(path).await;
            let answer = self.transport.post(&url, body.clone(), urgent).await;
            let (outcome, reply) = self.outcome(answer, connected);
            match attempts.next(outcome) {
                Next::Again => continue,
                Next::Commit => {
                    Counts::add(&self.book.counts.accepted);
                    return Some(Sent::Accepted(
                        reply.map(|(_, messages)| messages).unwrap_or_default(),
                    ));
                }
                Next::Drop => return Some(Sent::Forgotten(400)),
                Next::Enrol => return Some(Sent::Forgotten(406)),
                Next::Follow => {
                    let to = reply.map(|(reply, _)| reply.location).unwrap_or_default();
                    self.follow(to, connected.epoch, moved).await;
                    return None;
                }
                Next::GiveUp => {
                    self.give_up(connected.epoch).await;
                    return None;
                }
            }
        }
    }

    /// What an answer means, and what it says.
    fn outcome(
        &self,
        answer: Result<Reply, Broken>,
        connected: &Connected,
    ) -> (Outcome, Option<(Reply, Vec<Message>)>) {
        let counts = &self.book.counts;
        let reply = match answer {
            Ok(reply) => reply,
            Err(Broken::NoAnswer(reason)) => {
                tracing::debug!(client = self.book.client(), reason, "no answer");
                Counts::add(&counts.failed);
                return (Outcome::Unavailable, None);
            }
            Err(Broken::Cut(reason)) => {
                tracing::debug!(client = self.book.client(), reason, "half an answer");
                Counts::add(&counts.failed);
                return (Outcome::Unreadable, None);
            }
        };
        let outcome = Outcome::of_status(reply.status);
        match outcome {
            Outcome::Done => {
                let read = connected.session.open(reply.body.clone());
                match read.and_then(|answer| answer.messages(LIST_LIMIT)) {
                    Ok(messages) => return (Outcome::Done, Some((reply, messages))),
                    Err(error) => {
                        self.book
                            .unheard("", format!("an answer with 200: {error}"));
                        Counts::add(&counts.failed);
                        return (Outcome::Unreadable, None);
                    }
                }
            }
            Outcome::Unknown => Counts::add(&counts.unknown),
            Outcome::Unavailable => Counts::add(&counts.failed),
            Outcome::Refused | Outcome::Poison => {
                tracing::debug!(
                    client = self.book.client(),
                    status = reply.status,
                    "refused"
                );
                Counts::add(&counts.refused);
            }
            Outcome::Moved | Outcome::Unreadable => {}
        }
        (outcome, Some((reply, Vec::new())))
    }

    /// Where to send something, and whether that is where a 301 pointed.
    async fn url(&self, path: &str) -> (String, bool) {
        let mut shared = self.shared.lock().await;
        if let Some(to) = shared.moved_to.clone() {
            let said = shared.moved_left > 0;
            shared.moved_left = shared.moved_left.saturating_sub(1);
            return (
                format!("{to}{path}{}", if said { "?r=1" } else { "" }),
                said,
            );
        }
        drop(shared);
        let mut round = lock(&self.round);
        if self.config.hop && !self.config.websockets {
            round.hop();
        }
        (format!("{}{path}", round.url()), false)
    }

    /// The session, a new one if need be. None: there is none to be had, and a pause is over.
    async fn connect(&self) -> Option<Connected> {
        let mut shared = self.shared.lock().await;
        if let Some(session) = &shared.session {
            return Some(Connected {
                session: Arc::clone(session),
                epoch: shared.epoch,
            });
        }
        let base = shared.moved_to.clone().unwrap_or_else(|| {
            let mut round = lock(&self.round);
            if self.config.hop {
                round.hop();
            }
            round.url().to_owned()
        });
        match self.rekey(&base).await {
            Ok(session) => {
                let session = Arc::new(session);
                shared.epoch += 1;
                shared.session = Some(Arc::clone(&session));
                Counts::add(&self.book.counts.sessions);
                Some(Connected {
                    session,
                    epoch: shared.epoch,
                })
            }
            Err(error) => {
                tracing::debug!(client = self.book.client(), %error, "no session");
                Counts::add(&self.book.counts.failed);
                let epoch = shared.epoch;
                drop(shared);
                self.give_up(epoch).await;
                None
            }
        }
    }

    async fn rekey(&self, base: &str) -> Result<AgentSession, SimError> {
        let url = format!("{base}server.pem");
        let mut left = Attempts::MOST;
        let reply = loop {
            left -= 1;
            match self.transport.get(&url).await {
                Ok(reply) if reply.status == 200 => break reply,
                Ok(reply) if left == 0 || !matches!(reply.status, 408 | 503) => {
                    return Err(SimError::Timeout(format!("{url} answers {}", reply.status)));
                }
                Err(broken) if left == 0 => {
                    return Err(SimError::Timeout(format!("{url}: {broken:?}")));
                }
                _ => {}
            }
        };
        let server = match self
            .trust
            .check_server(&reply.body, &self.config.server_name)
        {
            Ok(server) => server,
            Err(error) => {
                self.book.unheard("", error.to_string());
                return Err(error.into());
            }
        };
        Ok(AgentSession::new(&self.key, &server)?)
    }

    /// Drops the session, goes on to the next server, and pauses.
    async fn give_up(&self, epoch: u64) {
        let mut shared = self.shared.lock().await;
        let pause = {
            let mut chance = lock(&self.chance);
            let mut round = lock(&self.round);
            // The other loop may have gone on already.
            let mut other = round.clone();
            let round = if shared.epoch == epoch {
                &mut *round
            } else {
                &mut other
            };
            round.failed(|| chance.unit())
        };
        if shared.epoch == epoch {
            shared.session = None;
            shared.moved_to = None;
        }
        drop(shared);
        sleep(pause).await;
    }

    /// Goes where a 301 points; at once, unless it came there by a 301.
    async fn follow(&self, to: String, epoch: u64, moved: bool) {
        let mut shared = self.shared.lock().await;
        if shared.epoch == epoch {
            shared.session = None;
            shared.moved_to = Some(to).filter(|to| to.ends_with('/'));
            shared.moved_left = MOVED_REQUESTS;
        }
        drop(shared);
        if moved {
            sleep(self.config.scaled(self.config.max_poll)).await;
        }
    }
}

/// Microseconds since 1970.
pub(crate) fn now_us() -> u64 {
    let passed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(passed.as_micros()).unwrap_or(u64::MAX)
}
