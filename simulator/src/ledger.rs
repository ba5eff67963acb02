//! What every agent was given, and what it sent: the truth that a server's answers are held
//! against.
//!
//! A [`Book`] per client is written by its agent while things happen. What must never happen, is
//! a [`Violation`] at once: a task that comes twice, a message lost by a refusal.

use crate::entries::{Delivery, FlowEntry, Piece, Run, Stage, Totals, Upload};
use nublar_core::ids::ContentId;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::mpsc;

/// Something that must never happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The rule that was broken.
    pub rule: &'static str,
    /// The client.
    pub client: String,
    /// The flow, empty if there is none.
    pub flow: String,
    /// What was seen.
    pub text: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}: {} {}: {}",
            self.rule, self.client, self.flow, self.text
        )
    }
}

/// Something that is worth waiting for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A client was let in for the first time.
    Enrolled {
        /// The client.
        client: String,
    },
    /// The end of a flow was answered with 200.
    Ended {
        /// The client.
        client: String,
        /// The flow.
        flow: String,
    },
}

/// How many violations are kept; all are counted.
const KEPT: usize = 1_000;

#[derive(Debug, Default)]
struct Shared {
    books: Mutex<BTreeMap<String, Arc<Book>>>,
    violations: Mutex<Vec<Violation>>,
    counted: AtomicU64,
    listener: Mutex<Option<mpsc::UnboundedSender<Event>>>,
}

/// All books. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Ledger(Arc<Shared>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ledger {
    /// A ledger in which nothing has happened.
    pub fn new() -> Self {
        Self::default()
    }

    /// The book of a client.
    pub fn book(&self, client: &str) -> Arc<Book> {
        let mut books = lock(&self.0.books);
        if let Some(book) = books.get(client) {
            return Arc::clone(book);
        }
        let book = Arc::new(Book {
            client: client.to_owned(),
            ledger: self.clone(),
            counts: Counts::default(),
            entries: Mutex::default(),
        });
        books.insert(client.to_owned(), Arc::clone(&book));
        book
    }

    /// All books, by client id.
    pub fn books(&self) -> Vec<Arc<Book>> {
        lock(&self.0.books).values().cloned().collect()
    }

    /// Writes down what must never happen.
    pub fn violate(&self, violation: Violation) {
        tracing::warn!(%violation, "violation");
        self.0.counted.fetch_add(1, Ordering::Relaxed);
        let mut kept = lock(&self.0.violations);
        if kept.len() < KEPT {
            kept.push(violation);
        }
    }

    /// How often something happened that must not, and the first of them.
    pub fn violations(&self) -> (u64, Vec<Violation>) {
        (
            self.0.counted.load(Ordering::Relaxed),
            lock(&self.0.violations).clone(),
        )
    }

    /// From now on events are told here, and nowhere else.
    pub fn listen(&self) -> mpsc::UnboundedReceiver<Event> {
        let (to, from) = mpsc::unbounded_channel();
        *lock(&self.0.listener) = Some(to);
        from
    }

    fn tell(&self, event: Event) {
        if let Some(listener) = &*lock(&self.0.listener) {
            // Nobody has to listen for ever.
            let _ = listener.send(event);
        }
    }
}

/// How often things happened to an agent.
#[derive(Debug, Default)]
pub struct Counts {
    /// POSTs that were answered with 200.
    pub accepted: AtomicU64,
    /// POSTs without an answer that could be used: no connection, 408, 503, a broken body.
    pub failed: AtomicU64,
    /// 403, 409 and other refusals.
    pub refused: AtomicU64,
    /// 406.
    pub unknown: AtomicU64,
    /// New sessions.
    pub sessions: AtomicU64,
    /// Starts.
    pub starts: AtomicU64,
    /// Answers to polls that held at least one message.
    pub deliveries: AtomicU64,
    /// Questions about flows.
    pub asks: AtomicU64,
    /// Bytes of urgent messages.
    pub urgent_bytes: AtomicU64,
}

impl Counts {
    /// One more.
    pub fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// A message in an agent's queue, as its book knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// The flow.
    pub flow: Arc<str>,
    /// Which run of it.
    pub run: usize,
    /// What the message carries.
    pub what: What,
}

/// What a message of a flow carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A piece of a result set, by its name.
    Rows(Arc<str>, usize),
    /// A piece of the log.
    Logs(usize),
    /// A piece of a file, by its number.
    Buffer(i64, usize),
    /// The end of a file.
    Eof(i64),
    /// The end of the flow.
    Marker,
    /// Anything else: progress, the announcement of a file.
    Other,
}

/// What one agent was given and what it sent.
#[derive(Debug)]
pub struct Book {
    client: String,
    ledger: Ledger,
    /// How often things happened.
    pub counts: Counts,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    flows: HashMap<String, FlowEntry>,
    enrolled: Option<Instant>,
}

impl Book {
    /// The client.
    pub fn client(&self) -> &str {
        &self.client
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        lock(&self.entries)
    }

    fn violate(&self, rule: &'static str, flow: &str, text: String) {
        let (client, flow) = (self.client.clone(), flow.to_owned());
        self.ledger.violate(Violation {
            rule,
            client,
            flow,
            text,
        });
    }

    /// The agent was let in.
    pub fn enrolled(&self) {
        if self.entries().enrolled.replace(Instant::now()).is_none() {
            self.ledger.tell(Event::Enrolled {
                client: self.client.clone(),
            });
        }
    }

    /// Whether the agent was ever let in.
    pub fn is_enrolled(&self) -> bool {
        self.entries().enrolled.is_some()
    }

    /// The flow was asked for between these two moments.
    pub fn ordered(&self, flow: &str, begun: Instant, done: Instant) {
        let mut entries = self.entries();
        entries.flows.entry(flow.to_owned()).or_default().ordered = Some((begun, done));
    }

    /// The cancel of a flow is about to be asked for.
    pub fn cancel_ordered(&self, flow: &str) {
        self.entries()
            .flows
            .entry(flow.to_owned())
            .or_default()
            .cancel_ordered = true;
    }

    /// A request of a flow has come, at the `start`-th start of the agent, by a poll that began at
    /// `polled`. Gives the number of the run.
    pub fn delivered(&self, flow: &str, start: u64, polled: Instant) -> usize {
        let mut entries = self.entries();
        let entry = entries.flows.entry(flow.to_owned()).or_default();
        let run = entry.runs.len();
        // Only a start in between makes an agent forget; and what has lived must not live again.
        let (same, lived) = (
            entry
                .deliveries
                .iter()
                .any(|earlier| earlier.start == start),
            entry.runs.iter().any(Run::has_lived),
        );
        entry.deliveries.push(Delivery {
            at: Instant::now(),
            start,
            polled,
        });
        entry.runs.push(Run::default());
        drop(entries);
        if same {
            self.violate(
                "delivered twice",
                flow,
                format!("delivery {} since start {start}", run + 1),
            );
        } else if lived {
            self.violate(
                "ran again after life",
                flow,
                format!("delivery {}", run + 1),
            );
        }
        run
    }

    /// A cancel of a flow has come.
    pub fn cancelled(&self, flow: &str) {
        self.entries()
            .flows
            .entry(flow.to_owned())
            .or_default()
            .cancels += 1;
    }

    fn run<T>(&self, flow: &str, run: usize, change: impl FnOnce(&mut Run) -> T) -> Option<T> {
        let mut entries = self.entries();
        entries
            .flows
            .get_mut(flow)
            .and_then(|entry| entry.runs.get_mut(run))
            .map(change)
    }

    /// Rows are made: `bytes` of JSON lines.
    pub fn made_rows(
        &self,
        flow: &str,
        run: usize,
        source: &Arc<str>,
        first: u64,
        rows: u64,
        bytes: &[u8],
    ) -> What {
        let piece = Piece::new(first, rows, bytes);
        let index = self.run(flow, run, |run| {
            let pieces = run.sources.entry(source.to_string()).or_default();
            pieces.push(piece);
            pieces.len() - 1
        });
        What::Rows(Arc::clone(source), index.unwrap_or(0))
    }

    /// Log rows are made.
    pub fn made_logs(&self, flow: &str, run: usize, first: u64, rows: u64, bytes: &[u8]) -> What {
        let piece = Piece::new(first, rows, bytes);
        let index = self.run(flow, run, |run| {
            run.logs.push(piece);
            run.logs.len() - 1
        });
        What::Logs(index.unwrap_or(0))
    }

    /// A part of a file is made.
    pub fn made_buffer(
        &self,
        flow: &str,
        run: usize,
        upload: i64,
        name: &str,
        offset: u64,
        bytes: &[u8],
    ) -> What {
        let piece = Piece::new(offset, bytes.len() as u64, bytes);
        let index = self.run(flow, run, |run| {
            let file = run
                .uploads
                .entry(upload)
                .or_insert_with(|| Upload::new(name));
            file.pieces.push(piece);
            file.pieces.len() - 1
        });
        What::Buffer(upload, index.unwrap_or(0))
    }

    /// The end of a file is made.
    pub fn made_eof(&self, flow: &str, run: usize, upload: i64, name: &str) -> What {
        self.run(flow, run, |run| {
            run.uploads
                .entry(upload)
                .or_insert_with(|| Upload::new(name));
        });
        What::Eof(upload)
    }

    /// The end of a flow is made, with what it reports.
    pub fn made_marker(&self, flow: &str, run: usize, totals: Totals) -> What {
        self.run(flow, run, |run| run.reported = Some(totals));
        What::Marker
    }

    /// These messages have come to this stage.
    pub fn advance<'a>(&self, tags: impl IntoIterator<Item = &'a Tag>, stage: Stage) {
        let mut ended = Vec::new();
        let mut entries = self.entries();
        for tag in tags {
            let Some(entry) = entries.flows.get_mut(&*tag.flow) else {
                continue;
            };
            let Some(run) = entry.runs.get_mut(tag.run) else {
                continue;
            };
            run.advance(&tag.what, stage);
            if tag.what == What::Marker && stage == Stage::Committed {
                ended.push(tag.flow.to_string());
            }
        }
        drop(entries);
        for flow in ended {
            self.ledger.tell(Event::Ended {
                client: self.client.clone(),
                flow,
            });
        }
    }

    /// These messages are lost, by an answer other than 200 that made the agent forget them.
    pub fn lost<'a>(&self, tags: impl IntoIterator<Item = &'a Tag>, status: u16) {
        let tags: Vec<&Tag> = tags.into_iter().collect();
        if let Some(first) = tags.first() {
            let text = format!("{} messages lost by a {status}", tags.len());
            self.violate("lost by refusal", &first.flow, text);
        }
        self.advance(tags, Stage::Dropped);
    }

    /// An urgent message is sent; beyond `limit` bytes in all an agent falls mute.
    pub fn urgent(&self, bytes: usize, limit: usize) {
        let (bytes, limit) = (bytes as u64, limit as u64);
        let before = self.counts.urgent_bytes.fetch_add(bytes, Ordering::Relaxed);
        if before <= limit && before + bytes > limit {
            self.violate(
                "asked until mute",
                "",
                format!("{} bytes of urgent answers", before + bytes),
            );
        }
    }

    /// A server said something that no server may say.
    pub fn unheard(&self, flow: &str, text: impl Into<String>) {
        self.violate("not understood", flow, text.into());
    }

    /// What is known of a flow.
    pub fn flow(&self, flow: &str) -> Option<FlowEntry> {
        self.entries().flows.get(flow).cloned()
    }

    /// The flows that came or were asked for, sorted.
    pub fn flows(&self) -> Vec<String> {
        let mut flows: Vec<String> = self.entries().flows.keys().cloned().collect();
        flows.sort_unstable();
        flows
    }
}

/// Names a piece by what is in it.
pub(crate) fn hash(bytes: &[u8]) -> ContentId {
    ContentId::of(&[bytes])
}
