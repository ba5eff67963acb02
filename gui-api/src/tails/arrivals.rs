//! A client's events in the order in which the log took them: followed from a place, for ever.
//!
//! The order of arrival is the one order that only grows. Agents' times do not: rows may come late
//! with an earlier time, and whoever followed by time would miss them. So a place is one of the
//! log, and whoever goes on from the place that stood behind the last line misses no line.
//!
//! An agent that got no answer sends its messages again, and they stand in the log twice. Such a
//! repeat is told from the first by its content, as far back as [`BACK`] records of the partition:
//! these are read again at the start, so that the same is left out before and after a restart.

use super::follow::RETRY;
use crate::app::App;
use crate::refusal::{Answer, Refusal};
use crate::stored::Events;
use nublar_core::ids::{ClientKey, ContentId, Life};
use nublar_core::ingest::{self, plan};
use nublar_core::partition;
use nublar_ports::log::{From, LogError, Position, Record, Tail, TailEvent};
use nublar_ports::objects::ObjectsError;
use nublar_schemas::codec::{CodecError, Record as _};
use nublar_schemas::records::{AgentMessage, Messages};
use nublar_schemas::topics::EVENTS;
use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep, timeout};

/// How many may follow at once.
pub(crate) const FOLLOWERS: usize = 64;
/// How many records before its place a follower reads, to know repeats.
const BACK: u64 = 2_000;
/// How many messages are remembered.
const REMEMBERED: usize = 20_000;
/// After this long without a line the place is told alone, so that it does not grow old.
const TELL_PLACE: Duration = Duration::from_secs(15);
/// How often an opening that retention overtakes is tried again.
const TRIES: usize = 5;

/// A place between two lines: what comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    position: Position,
    /// Messages of the record that are done.
    message: usize,
    /// Lines of the next message that are done.
    line: usize,
}

impl Place {
    fn at(position: Position) -> Self {
        Self {
            position,
            message: 0,
            line: 0,
        }
    }

    pub(crate) fn read(text: &str) -> Answer<Self> {
        let mut parts = text.split('.').map(str::parse::<u64>);
        let mut next = || parts.next()?.ok();
        let place = (|| {
            let position = Position {
                generation: u16::try_from(next()?).ok()?,
                offset: next()?,
            };
            Some(Self {
                position,
                message: usize::try_from(next()?).ok()?,
                line: usize::try_from(next()?).ok()?,
            })
        })();
        place
            .filter(|place| place.to_string() == text)
            .ok_or_else(|| {
                Refusal::bad(format!("{text:?} is no place to go on from"))
                    .hint("give the id of an event of this stream, as it is, or none to begin now")
            })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Position { generation, offset } = self.position;
        write!(f, "{generation}.{offset}.{}.{}", self.message, self.line)
    }
}

/// What a follower is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News {
    /// A line, and the place behind it.
    Line(Place, String),
    /// Nothing new up to here.
    Here(Place),
    /// Something before this place cannot be told any more.
    Missed(Place, String),
    /// Nothing more can be told: a newer program wrote what comes next.
    Broken(String),
}

/// Messages that came before.
#[derive(Debug, Default)]
struct Seen {
    ids: HashSet<ContentId>,
    order: VecDeque<ContentId>,
}

impl Seen {
    /// Whether it is new.
    fn insert(&mut self, id: ContentId) -> bool {
        if !self.ids.insert(id) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }
}

/// Follows the events of one name of a client.
pub(crate) struct Follower {
    app: Arc<App>,
    key: ClientKey,
    events: Events,
    partition: u32,
    tail: Box<dyn Tail>,
    /// Everything before is told, or waits in `ready`.
    next: Place,
    told: Instant,
    seen: Seen,
    ready: VecDeque<News>,
    over: bool,
    _among_others: OwnedSemaphorePermit,
}

impl Follower {
    /// Begins at a place, or with what comes from now on.
    pub(crate) async fn new(
        app: &Arc<App>,
        key: ClientKey,
        events: Events,
        after: Option<Place>,
    ) -> Answer<Self> {
        let among_others = Arc::clone(&app.followers)
            .try_acquire_owned()
            .map_err(|_| Refusal::later(format!("{FOLLOWERS} streams of events are open")))?;
        let partition = partition::of_client(&key, app.partitions(EVENTS).await?);
        let end = app.step(app.log.end(EVENTS.name, partition)).await?;
        let next = after.unwrap_or_else(|| Place::at(end));
        if next.position > end {
            return Err(Refusal::bad(format!("{next} is beyond the end of the log"))
                .hint("the place is of another server; give none to begin now"));
        }
        let (tail, first) = app.step(open(app, partition, next.position)).await?;
        let mut follower = Self {
            app: Arc::clone(app),
            key,
            events,
            partition,
            tail,
            next,
            told: Instant::now(),
            seen: Seen::default(),
            ready: VecDeque::new(),
            over: false,
            _among_others: among_others,
        };
        follower.ready.push_back(News::Here(next));
        follower.overtaken(first);
        Ok(follower)
    }

    /// What comes next; none when the server ends.
    pub(crate) async fn next(&mut self) -> Option<News> {
        let shutdown = self.app.shutdown.clone();
        tokio::select! {
            () = shutdown.cancelled() => None,
            news = self.news() => news,
        }
    }

    async fn news(&mut self) -> Option<News> {
        loop {
            if let Some(news) = self.ready.pop_front() {
                self.told = Instant::now();
                return Some(news);
            }
            if self.over {
                return None;
            }
            if self.told.elapsed() >= TELL_PLACE {
                self.ready.push_back(News::Here(self.next));
                continue;
            }
            let left = TELL_PLACE.saturating_sub(self.told.elapsed());
            match timeout(left, self.tail.next()).await {
                Err(_) | Ok(Ok(TailEvent::CaughtUp { .. })) => {}
                Ok(Ok(TailEvent::Record(record))) => self.take(record).await,
                Ok(Err(LogError::OutOfRange { .. })) => self.open_again().await,
                Ok(Err(error)) => {
                    tracing::warn!(topic = EVENTS.name, %error, "reading goes on in a moment");
                    sleep(RETRY).await;
                }
            }
        }
    }

    async fn open_again(&mut self) {
        let opened = open(&self.app, self.partition, self.next.position).await;
        match opened {
            Ok((tail, first)) => {
                self.tail = tail;
                self.overtaken(first);
            }
            Err(error) => {
                tracing::warn!(topic = EVENTS.name, %error, "cannot be read, trying again");
                sleep(RETRY).await;
            }
        }
    }

    /// Says so when the log begins behind our place only.
    fn overtaken(&mut self, first: Position) {
        if first > self.next.position {
            self.next = Place::at(first);
            let error = "the log no longer keeps what came next".to_owned();
            self.ready.push_back(News::Missed(self.next, error));
        }
    }

    async fn take(&mut self, record: Record) {
        let position = record.position;
        if record.key == self.key.client.to_string().as_bytes() {
            match Messages::decode(&record.value) {
                Ok(messages) => self.tell(position, messages).await,
                Err(error @ CodecError::UnknownFingerprint(_)) => {
                    self.ready.push_back(News::Broken(error.to_string()));
                    self.over = true;
                    return;
                }
                // The workers put it aside.
                Err(_) => {}
            }
        }
        let behind = Place::at(position.after());
        self.next = behind.max(self.next);
    }

    async fn tell(&mut self, position: Position, messages: Messages) {
        let Messages {
            header,
            messages,
            session_key,
        } = messages;
        let Ok(life) = Life::of(&header) else { return };
        if life.client != self.key || self.app.registry.has_ended(&life) {
            return;
        }
        // Of records before our place all was told, and of the one at our place some may have been.
        let next = self.next;
        for (number, mut message) in messages.into_iter().enumerate() {
            let place = |line| Place {
                position,
                message: number,
                line,
            };
            let is_told = |line: usize| place(line) < next;
            let missed = |error| {
                let behind = Place {
                    message: number + 1,
                    ..place(0)
                };
                (!is_told(0)).then_some(News::Missed(behind, error))
            };
            if let Err(error) = whole(&self.app, &mut message).await {
                self.ready.extend(missed(error));
                continue;
            }
            let single = Messages {
                header: header.clone(),
                messages: vec![message],
                session_key: session_key.clone(),
            };
            let Some(part) = plan(&self.key, &single, &self.app.config.names).parts.pop() else {
                continue;
            };
            let ours = part.collection == ingest::Collection::Events
                && self.events.hold(&part.source, &part.text);
            if !ours || !self.seen.insert(part.id) {
                continue;
            }
            match self.events.lines(&part.text, &part.body) {
                Ok(block) => {
                    let lines = block.lines(0, u64::MAX).enumerate();
                    let new = lines.filter(|(line, _)| !is_told(*line));
                    let news: Vec<News> = new
                        .map(|(line, text)| News::Line(place(line + 1), text.to_owned()))
                        .collect();
                    self.ready.extend(news);
                }
                Err(refusal) => self.ready.extend(missed(refusal.error)),
            }
        }
    }
}

/// A tail that begins some records before a place, or at the first that the log keeps; and where
/// that is.
async fn open(
    app: &App,
    partition: u32,
    next: Position,
) -> Result<(Box<dyn Tail>, Position), LogError> {
    let mut from = Position {
        offset: next.offset.saturating_sub(BACK),
        ..next
    };
    let mut tries = 0;
    loop {
        let begin = From::Position(from);
        match app.log.tail(EVENTS.name, &[partition], begin).await {
            Ok(tail) => return Ok((tail, from)),
            Err(LogError::OutOfRange { earliest }) if tries < TRIES => from = earliest,
            Err(error) => return Err(error),
        }
        tries += 1;
    }
}

/// Gives a large message its bytes, which stand in an object.
async fn whole(app: &App, message: &mut AgentMessage) -> Result<(), String> {
    let Some(object) = &message.object else {
        return Ok(());
    };
    loop {
        match app.objects.get(object, None).await {
            Ok(bytes) => {
                message.bytes = bytes;
                return Ok(());
            }
            Err(error @ (ObjectsError::Unavailable(_) | ObjectsError::Full(_))) => {
                tracing::warn!(%error, "a message's object is tried again");
                sleep(RETRY).await;
            }
            Err(error) => return Err(format!("a message's object: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_place_is_read_as_it_was_written() {
        let place = Place {
            position: Position {
                generation: 3,
                offset: u64::MAX,
            },
            message: 7,
            line: 1_000,
        };
        assert_eq!(Place::read(&place.to_string()).unwrap(), place);
        for text in [
            "",
            "1.2.3",
            "1.2.3.4.5",
            "1.2.3.x",
            "70000.1.1.1",
            "1.2.+3.4",
            "01.2.3.4",
        ] {
            assert!(Place::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn messages_are_forgotten_oldest_first() {
        let id = |n: usize| ContentId::of(&[&n.to_le_bytes()]);
        let mut seen = Seen::default();
        assert!(seen.insert(id(0)) && !seen.insert(id(0)));
        for n in 1..REMEMBERED {
            assert!(seen.insert(id(n)));
        }
        assert!(!seen.insert(id(0)));
        assert!(seen.insert(id(REMEMBERED)));
        assert!(seen.insert(id(0)) && !seen.insert(id(2)));
        assert_eq!(seen.ids.len(), REMEMBERED);
    }
}
