//! One agent: it enrols, polls, runs what it is told to run, and sends what comes of it.

use crate::chance::Chance;
use crate::config::AgentConfig;
use crate::entries::Stage;
use crate::error::SimError;
use crate::flows::Flows;
use crate::ledger::{Book, Counts, Ledger, Tag};
use crate::link::{Link, Sent};
use crate::messages;
use crate::pace::TokenBucket;
use crate::queue::{Item, Queue};
use crate::transport::Transport;
use bytes::Bytes;
use nublar_core::ids::FlowId;
use nublar_wire::{AgentKey, Message, Trust, message_list};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Seconds between two polls that tell of the agent itself.
const CLIENT_INFO_EVERY: Duration = Duration::from_secs(86_400);
/// Seconds between two requests to be let in.
const ENROL_EVERY: Duration = Duration::from_secs(60);

/// What outlives a start of an agent.
struct Machine {
    config: Arc<AgentConfig>,
    key: AgentKey,
    trust: Trust,
    transport: Arc<Transport>,
    book: Arc<Book>,
    hostname: String,
    /// The version of its event table, which is kept on its disk.
    table: AtomicU64,
    restart: Notify,
}

/// A running agent. Dropping it ends it.
pub struct Agent {
    machine: Arc<Machine>,
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

impl Agent {
    /// Starts an agent; it tries to reach its servers until it is stopped.
    ///
    /// Errors: TLS can not be set up.
    pub fn start(
        config: Arc<AgentConfig>,
        key: AgentKey,
        trust: &Trust,
        ledger: &Ledger,
    ) -> Result<Self, SimError> {
        let client = key.client_id().to_owned();
        let seed = Chance::of(&[&client], config.seed).number();
        let mut transport = Transport::new(trust, config.http2, config.faults, seed)?;
        if config.websockets {
            transport = transport.over_websockets(trust)?;
        }
        let hostname = format!("sim-{}", client.strip_prefix("C.").unwrap_or(&client));
        let machine = Arc::new(Machine {
            config,
            key,
            trust: trust.clone(),
            transport: Arc::new(transport),
            book: ledger.book(&client),
            hostname,
            table: AtomicU64::new(0),
            restart: Notify::new(),
        });
        let stop = CancellationToken::new();
        let task = tokio::spawn(live(Arc::clone(&machine), stop.clone()));
        Ok(Self {
            machine,
            stop,
            task: Some(task),
        })
    }

    /// Its client id.
    pub fn client_id(&self) -> &str {
        self.machine.key.client_id()
    }

    /// What it was given and sent.
    pub fn book(&self) -> &Arc<Book> {
        &self.machine.book
    }

    /// Ends its process and starts it again: its queue, its flows and its session are gone.
    pub fn restart(&self) {
        self.machine.restart.notify_one();
    }

    /// Ends it for good.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take() {
            // A panic was its own business.
            let _ = task.await;
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn live(machine: Arc<Machine>, stop: CancellationToken) {
    let mut start = 0;
    while !stop.is_cancelled() {
        start += 1;
        Counts::add(&machine.book.counts.starts);
        let process = Arc::new(Process::new(Arc::clone(&machine), start));
        tokio::select! {
            () = stop.cancelled() => {}
            () = machine.restart.notified() => {}
            () = process.read() => {}
            () = process.send() => {}
        }
        process.flows.stop().await;
    }
}

/// One start of an agent.
struct Process {
    machine: Arc<Machine>,
    start: u64,
    link: Link,
    queue: Arc<Queue>,
    flows: Arc<Flows>,
    begun: Instant,
    chance: Mutex<Chance>,
    enrolment: Mutex<TokenBucket>,
}

impl Process {
    fn new(machine: Arc<Machine>, start: u64) -> Self {
        let Machine {
            config,
            key,
            trust,
            transport,
            book,
            hostname,
            ..
        } = &*machine;
        let mut chance = Chance::of(&[key.client_id(), "start"], config.seed.wrapping_add(start));
        let queue = Arc::new(Queue::new(config.buffer));
        let link = Link::new(
            Arc::clone(config),
            key.clone(),
            trust.clone(),
            Arc::clone(transport),
            Arc::clone(book),
            Chance::new(chance.number()),
        );
        let flows = Flows::new(
            Arc::clone(config),
            Arc::clone(book),
            Arc::clone(&queue),
            hostname.clone(),
        );
        let enrolment = Mutex::new(TokenBucket::new(1, config.scaled(ENROL_EVERY)));
        Self {
            start,
            link,
            queue,
            flows,
            begun: Instant::now(),
            chance: Mutex::new(chance),
            enrolment,
            machine,
        }
    }

    /// The loop of polls.
    async fn read(&self) {
        let config = &self.machine.config;
        let mut bucket = TokenBucket::new(10, config.scaled(config.max_poll) / 2);
        let mut told: Option<Instant> = None;
        loop {
            sleep(bucket.take(self.begun.elapsed())).await;
            let mut messages = vec![messages::check_in(
                self.machine.table.load(Ordering::Relaxed),
            )];
            if told.is_none_or(|at| at.elapsed() >= config.scaled(CLIENT_INFO_EVERY)) {
                messages.push(messages::client_info(&self.machine.hostname, 1_700_000_000));
                // Whatever is answered: it is lost for a day if this is a 406.
                told = Some(Instant::now());
            }
            let polled = Instant::now();
            match self
                .link
                .post("reader", &[message_list(&messages)], false)
                .await
            {
                Sent::Accepted(messages) => {
                    self.machine.book.enrolled();
                    self.take(messages, polled);
                }
                Sent::Forgotten(406) => self.enrol(),
                Sent::Forgotten(_) => {}
            }
            sleep(config.scaled(config.min_poll)).await;
        }
    }

    /// Asks to be let in, at most once a minute.
    fn enrol(&self) {
        let now = self.begun.elapsed();
        let mut enrolment = self
            .enrolment
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !enrolment.try_take(now) {
            return;
        }
        let key = &self.machine.key;
        match key.csr_pem() {
            Ok(csr) => {
                let bytes = messages::enrolment(key.client_id(), &csr);
                self.queue.push_urgent([Item { bytes, tag: None }]);
            }
            Err(error) => tracing::warn!(%error, "no request for a certificate"),
        }
    }

    /// Does what the messages of one answer say; they keep no order.
    fn take(&self, mut messages: Vec<Message>, polled: Instant) {
        if messages.is_empty() {
            return;
        }
        Counts::add(&self.machine.book.counts.deliveries);
        self.chance
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .shuffle(&mut messages);
        for message in messages {
            self.take_one(&message, polled);
        }
    }

    fn take_one(&self, message: &Message, polled: Instant) {
        let book = &self.machine.book;
        let session = message.session_id();
        let decoded = match message.decode() {
            Ok(decoded) => decoded,
            Err(error) => return book.unheard(session, error.to_string()),
        };
        if let Some(request) = decoded.flow_request {
            if session.parse::<FlowId>().is_err() {
                return book.unheard(session, "a request under a name that is no flow's");
            }
            let run = book.delivered(session, self.start, polled);
            self.flows.start(session, run, request, decoded.urgent);
        } else if decoded.cancel.is_some() {
            book.cancelled(session);
            self.flows.cancel(session);
        } else if let Some(asked) = decoded.flow_stats_request {
            if session != "F.Status" {
                book.unheard(session, "a question that is not under F.Status");
            }
            self.flows.answer(&asked.flow_id);
        } else if let Some(table) = decoded.update_event_table {
            self.machine
                .table
                .fetch_max(table.version, Ordering::Relaxed);
        } else if decoded.kill_kill_kill.is_some() {
            self.machine.restart.notify_one();
        }
    }

    /// The loop of POSTs.
    async fn send(&self) {
        let config = &self.machine.config;
        let second = config.scaled(Duration::from_secs(1));
        let mut usual = TokenBucket::new(1, second);
        let mut hurried = TokenBucket::new(100, second / 10);
        loop {
            self.queue.ready().await;
            let now = self.begun.elapsed();
            let much = self.queue.bytes() > config.max_upload_size;
            sleep(if much {
                hurried.take(now)
            } else {
                usual.take(now)
            })
            .await;
            let (items, urgent) = self.queue.take(config.max_upload_size);
            if !items.is_empty() {
                self.post(&items, urgent).await;
            }
        }
    }

    async fn post(&self, items: &[Item], urgent: bool) {
        let Machine { config, book, .. } = &*self.machine;
        let tags: Vec<&Tag> = items.iter().filter_map(|item| item.tag.as_ref()).collect();
        if urgent {
            let bytes = items.iter().map(|item| item.bytes.len()).sum();
            book.urgent(bytes, 2 * config.max_upload_size);
        }
        book.advance(tags.iter().copied(), Stage::Sent);
        let lists = lists(items, config.max_upload_size / 4);
        match self.link.post("control", &lists, urgent).await {
            Sent::Accepted(_) => book.advance(tags, Stage::Committed),
            Sent::Forgotten(status) => {
                book.lost(tags, status);
                if status == 406 {
                    self.enrol();
                }
            }
        }
    }
}

/// Puts messages into lists of about `most` bytes.
fn lists(items: &[Item], most: usize) -> Vec<Bytes> {
    let (mut lists, mut list, mut bytes) = (Vec::new(), Vec::new(), 0);
    for item in items {
        bytes += item.bytes.len();
        list.push(item.bytes.clone());
        if bytes >= most {
            lists.push(message_list(&list));
            (list, bytes) = (Vec::new(), 0);
        }
    }
    if !list.is_empty() {
        lists.push(message_list(&list));
    }
    lists
}
