//! What a real agent does: polls, runs what it is given, sends and sends again, forgets at a start.

use crate::frontend::{Body, Frontend};
use crate::registry::Entry;
use crate::world::World;
use bytes::Bytes;
use nublar_core::delivery::PacketIv;
use nublar_core::ids::{ClientId, ClientKey, Life, OrgId};
use nublar_schemas::agent::{
    FileBuffer, FlowStats, PathSpec, VeloMessage, VeloStatus, VqlRequest, VqlResponse,
    velo_status::ReturnedStatus,
};
use prost::Message;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A message in the queue; its bytes never change.
#[derive(Clone)]
pub struct Sent {
    pub session: String,
    pub urgent: bool,
    pub bytes: Bytes,
}

/// What a server can give to an agent.
#[derive(Clone, Debug)]
pub enum Given {
    Run(String),
    Ask(Vec<String>),
    Cancel(String),
}

struct Running {
    left: usize,
    rows: u64,
    bytes: u64,
    told: bool,
}

pub struct Agent {
    pub key: ClientKey,
    pub session: [u8; 16],
    incarnation: u8,
    /// It is of a release that answers no question about a flow.
    pub old: bool,
    /// It has not said who it is since its process began; and in which request it did.
    introduces: bool,
    introducing: Option<PacketIv>,
    enrolled: bool,
    /// In which generations it was interrogated.
    pub asked_who_it_is: BTreeSet<i64>,
    running: BTreeMap<String, Running>,
    finished: VecDeque<(String, FlowStats)>,
    queue: VecDeque<Sent>,
    urgent: VecDeque<Sent>,
    /// A POST that has no answer yet, by (frontend, number), and how many messages it took.
    post: Option<(usize, u64, bool, usize)>,
    /// Where a poll is open, by (frontend, number): twice if a proxy repeated it.
    poll: Vec<(usize, i64)>,
    /// The request of the poll, and how often it may still be repeated.
    pub packet_iv: PacketIv,
    repeats: usize,
    /// Every message that was answered 200, and under which generation, for the end.
    pub committed: Vec<(i64, Sent)>,
    /// Runs per flow over the agent's whole life.
    runs: BTreeMap<String, u32>,
    counter: u64,
    posted_at: u64,
    polled_at: u64,
}

impl Agent {
    pub fn new(n: u8, old: bool) -> Self {
        let client = ClientId::from_bytes([0, 0, 0, 0, 0, 0, 0, n]);
        Self {
            key: ClientKey {
                org: OrgId::root(),
                client,
            },
            session: [n; 16],
            incarnation: 0,
            old,
            introduces: true,
            introducing: None,
            enrolled: false,
            asked_who_it_is: BTreeSet::new(),
            running: BTreeMap::new(),
            finished: VecDeque::new(),
            queue: VecDeque::new(),
            urgent: VecDeque::new(),
            post: None,
            poll: Vec::new(),
            packet_iv: [0; 16],
            repeats: 0,
            committed: Vec::new(),
            runs: BTreeMap::new(),
            counter: 0,
            posted_at: 0,
            polled_at: 0,
        }
    }

    /// The process ends and starts: everything but the key is gone.
    pub fn restart(&mut self) {
        self.incarnation += 1;
        self.introduces = true;
        self.session[15] = self.incarnation;
        self.running.clear();
        self.finished.clear();
        self.queue.clear();
        self.urgent.clear();
        self.poll.clear();
        (self.post, self.repeats) = (None, 0);
    }

    /// Whether its process works on the flow, or has what it said of it still to send.
    pub fn has(&self, flow: &str) -> bool {
        self.running.contains_key(flow) || self.queue.iter().any(|sent| sent.session == flow)
    }

    pub fn is_idle(&self) -> bool {
        self.running.is_empty()
            && self.queue.is_empty()
            && self.urgent.is_empty()
            && self.post.is_none()
    }

    pub fn step(world: &mut World, n: usize) {
        match world.dice.below(4) {
            0 => Self::work(world, n),
            1 => Self::contact(world, n),
            2 => Self::send(world, n),
            _ => Self::connections(world, n),
        }
    }

    /// A connection dies, and only sometimes does the other side see it; or its time is over.
    fn connections(world: &mut World, n: usize) {
        if world.mishap(6) {
            world.agents[n].poll.clear();
            world.agents[n].post = None;
        }
        if world.now >= world.agents[n].posted_at + 30_000 {
            world.agents[n].post = None;
        }
        if world.now >= world.agents[n].polled_at + 30_000 && !world.agents[n].poll.is_empty() {
            world.agents[n].repeats = 0;
            for (frontend, number) in std::mem::take(&mut world.agents[n].poll) {
                Frontend::end_poll(world, frontend, n, number);
            }
        }
    }

    fn contact(world: &mut World, n: usize) {
        let agent = &mut world.agents[n];
        if !agent.poll.is_empty() {
            return;
        }
        let frontend = world.dice.below(world.frontends.len());
        if !world.agents[n].enrolled {
            // 406, the CSR, and the registry at one frontend; the next contact may be at another.
            let client = world.agents[n].key.clone();
            let now = world.generation(&client);
            // The frontend may have read the registry just before a deletion.
            let generation = if now > 1 && world.mishap(20) {
                now - 1
            } else {
                now
            };
            let life = Life { client, generation };
            world.log.registry.push(Entry::Key(life));
            world.agents[n].enrolled = true;
            return;
        }
        world.agents[n].ask_again_or_anew();
        Self::poll(world, n, frontend);
        if world.mishap(6) && world.agents[n].enrolled {
            // A proxy repeats it at another frontend, and passes one of the answers on.
            Self::poll(world, n, 1 - frontend);
        }
    }

    /// Without an answer the same bytes, three times in all; then a new session.
    fn ask_again_or_anew(&mut self) {
        if self.repeats > 1 {
            self.repeats -= 1;
            return;
        }
        if self.repeats == 1 {
            self.session[14] += 1;
        }
        self.repeats = 3;
        self.counter += 1;
        self.packet_iv[..8].copy_from_slice(&self.counter.to_le_bytes());
        self.packet_iv[8..].copy_from_slice(&self.session[8..]);
        if std::mem::take(&mut self.introduces) {
            self.introducing = Some(self.packet_iv);
        }
    }

    /// Whether the request of its poll says who it is.
    pub fn is_introducing(&self) -> bool {
        self.introducing == Some(self.packet_iv)
    }

    fn poll(world: &mut World, n: usize, frontend: usize) {
        let agent = &mut world.agents[n];
        agent.counter += 1;
        let number = agent.counter as i64;
        agent.poll.push((frontend, number));
        agent.polled_at = world.now;
        Frontend::poll(world, frontend, n, number);
    }

    /// A poll is answered 406: the agent will enrol.
    pub fn unknown(world: &mut World, n: usize, frontend: usize, number: i64) {
        let agent = &mut world.agents[n];
        if !agent.poll.contains(&(frontend, number)) {
            return;
        }
        agent.poll.clear();
        (agent.repeats, agent.enrolled) = (0, false);
    }

    /// The poll broke off before anything of its answer came.
    pub fn unanswered(world: &mut World, n: usize, frontend: usize, number: i64) {
        let agent = &mut world.agents[n];
        agent.poll.retain(|open| *open != (frontend, number));
    }

    fn send(world: &mut World, n: usize) {
        let agent = &mut world.agents[n];
        if agent.post.is_some() || !agent.enrolled {
            return;
        }
        let urgent = !agent.urgent.is_empty();
        let queue = if urgent { &agent.urgent } else { &agent.queue };
        if queue.is_empty() {
            return;
        }
        let take = 1 + world.dice.below(queue.len());
        let messages: Vec<_> = queue.iter().take(take).cloned().collect();
        agent.counter += 1;
        let number = agent.counter;
        let frontend = world.dice.below(world.frontends.len());
        world.agents[n].post = Some((frontend, number, urgent, take));
        world.agents[n].posted_at = world.now;
        let body = Body {
            agent: n,
            number,
            messages,
        };
        if world.mishap(8) {
            // A proxy repeats the POST.
            world.frontends[frontend]
                .posts
                .push(crate::frontend::Post::new(body.clone()));
        }
        world.frontends[frontend]
            .posts
            .push(crate::frontend::Post::new(body));
    }

    /// The answer to a POST, taken under a generation of the client. A 406 commits what it held as
    /// well.
    pub fn answered(
        world: &mut World,
        n: usize,
        frontend: usize,
        number: u64,
        status: u16,
        generation: i64,
    ) {
        let agent = &mut world.agents[n];
        let Some((at, of, urgent, take)) = agent.post else {
            return;
        };
        if (at, of) != (frontend, number) {
            return;
        }
        agent.post = None;
        if status == 503 {
            return;
        }
        let queue = if urgent {
            &mut agent.urgent
        } else {
            &mut agent.queue
        };
        let gone: Vec<_> = queue.drain(..take).collect();
        if status == 200 {
            // What was never given to it in this generation was refused alone.
            let own = |sent: &Sent| {
                let flow = sent.session.parse();
                flow.is_ok_and(|flow| world.keys.made_for(&flow, &agent.key, generation))
            };
            let own = gone.into_iter().filter(own);
            agent.committed.extend(own.map(|sent| (generation, sent)));
            return;
        }
        agent.enrolled = false;
        let client = agent.key.clone();
        let registry = &world.log.registry;
        if registry.registered(registry.len(), &client).is_some() {
            world.violation(format!("a 406 to registered {client}"));
        }
    }

    /// The answer to a poll.
    pub fn given(world: &mut World, n: usize, frontend: usize, number: i64, items: Vec<Given>) {
        if !world.agents[n].poll.contains(&(frontend, number)) {
            return;
        }
        world.agents[n].poll.clear();
        world.agents[n].repeats = 0;
        for item in items {
            match item {
                Given::Run(flow) => Self::start(world, n, flow),
                Given::Ask(_) if world.agents[n].old => {}
                Given::Ask(flows) => {
                    for flow in flows {
                        let stats = world.agents[n].knows(&flow);
                        world.agents[n].push(&flow, true, stats);
                    }
                }
                Given::Cancel(flow) => world.agents[n].cancel(&flow),
            }
        }
    }

    fn start(world: &mut World, n: usize, flow: String) {
        let agent = &world.agents[n];
        let known = agent.running.contains_key(&flow)
            || agent.finished.iter().any(|(known, _)| *known == flow);
        if known || world.truth.lived.contains(&flow) {
            world.violation(format!("{flow} was delivered twice"));
            return;
        }
        let left = world.dice.below(4);
        let agent = &mut world.agents[n];
        *agent.runs.entry(flow.clone()).or_default() += 1;
        agent.running.insert(
            flow,
            Running {
                left,
                rows: 0,
                bytes: 0,
                told: false,
            },
        );
    }

    /// A running flow goes on: statistics first, then rows and buffers, then the marker.
    fn work(world: &mut World, n: usize) {
        let nth = world.dice.below(2);
        let rows = 1 + world.dice.below(3) as u64;
        let upload = world.dice.percent(40);
        let agent = &mut world.agents[n];
        let Some(flow) = agent
            .running
            .keys()
            .nth(nth.min(agent.running.len().saturating_sub(1)))
            .cloned()
        else {
            return;
        };
        let run = u64::from(agent.runs[&flow]) * 1_000 + u64::from(agent.incarnation) * 100_000;
        let Some(state) = agent.running.get_mut(&flow) else {
            return;
        };
        if !state.told {
            state.told = true;
            let stats = stats(ReturnedStatus::Progress, state, false);
            agent.push(&flow, false, stats);
        } else if state.left > 0 {
            state.left -= 1;
            let message = if upload {
                let offset = state.bytes;
                state.bytes += 10;
                buffer(offset)
            } else {
                let start = state.rows;
                state.rows += rows;
                response(start, rows, run + start)
            };
            agent.push(&flow, false, message);
        } else {
            let stats = stats(ReturnedStatus::Ok, state, true);
            agent.finish(flow, stats);
        }
    }

    fn finish(&mut self, flow: String, stats: VeloMessage) {
        self.running.remove(&flow);
        if let Some(told) = stats.flow_stats.clone() {
            self.finished.push_back((flow.clone(), told));
        }
        if self.finished.len() > 20 {
            self.finished.pop_front();
        }
        self.push(&flow, false, stats);
    }

    fn cancel(&mut self, flow: &str) {
        let Some(state) = self.running.get(flow) else {
            return;
        };
        let stats = stats(ReturnedStatus::GenericError, state, true);
        // What a POST holds that is under way is not dropped.
        let held = self
            .post
            .map_or(0, |(_, _, urgent, take)| if urgent { 0 } else { take });
        let mut place = 0;
        self.queue.retain(|sent| {
            place += 1;
            place <= held || sent.session != flow
        });
        self.finish(flow.to_owned(), stats);
    }

    fn knows(&self, flow: &str) -> VeloMessage {
        if let Some(state) = self.running.get(flow) {
            return stats(ReturnedStatus::Progress, state, false);
        }
        let told = self
            .finished
            .iter()
            .find(|(known, _)| known == flow)
            .map(|(_, told)| told.clone());
        let unknown = || FlowStats {
            query_status: vec![VeloStatus {
                status: ReturnedStatus::UnknownFlow.into(),
                ..VeloStatus::default()
            }],
            flow_complete: true,
            ..FlowStats::default()
        };
        VeloMessage {
            flow_stats: Some(told.unwrap_or_else(unknown)),
            ..VeloMessage::default()
        }
    }

    fn push(&mut self, flow: &str, urgent: bool, message: VeloMessage) {
        let message = VeloMessage {
            session_id: flow.to_owned(),
            urgent,
            ..message
        };
        let sent = Sent {
            session: flow.to_owned(),
            urgent,
            bytes: message.encode_to_vec().into(),
        };
        if urgent {
            self.urgent.push_back(sent)
        } else {
            self.queue.push_back(sent)
        }
    }
}

fn stats(status: ReturnedStatus, of: &Running, complete: bool) -> VeloMessage {
    let status = VeloStatus {
        status: status.into(),
        result_rows: of.rows as i64,
        uploaded_bytes: of.bytes as i64,
        uploaded_files: i64::from(of.bytes > 0),
        ..VeloStatus::default()
    };
    let flow_stats = FlowStats {
        query_status: vec![status],
        flow_complete: complete,
        ..FlowStats::default()
    };
    VeloMessage {
        flow_stats: Some(flow_stats),
        ..VeloMessage::default()
    }
}

fn response(start: u64, rows: u64, timestamp: u64) -> VeloMessage {
    let vql_response = VqlResponse {
        query: Some(VqlRequest {
            name: "A".to_owned(),
            ..VqlRequest::default()
        }),
        query_start_row: start,
        total_rows: rows,
        timestamp,
        ..VqlResponse::default()
    };
    VeloMessage {
        vql_response: Some(vql_response),
        ..VeloMessage::default()
    }
}

fn buffer(offset: u64) -> VeloMessage {
    let file_buffer = FileBuffer {
        pathspec: Some(PathSpec {
            path: "/f".to_owned(),
            ..PathSpec::default()
        }),
        offset,
        data: Bytes::from_static(b"0123456789"),
        data_length: 10,
        ..FileBuffer::default()
    };
    VeloMessage {
        file_buffer: Some(file_buffer),
        ..VeloMessage::default()
    }
}
