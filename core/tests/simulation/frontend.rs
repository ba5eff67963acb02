//! A frontend: POSTs become records, append by append; polls go through `delivery`.

use crate::agent::{Agent, Given, Sent};
use crate::faults::Fault;
use crate::world::{Log, World};
use nublar_core::delivery::{Act, Delivery, DeliveryConfig, Item, Poll};
use nublar_core::ids::ClientKey;
use nublar_core::ingest::CLIENT_INFO;
use nublar_core::stats::is_unknown;
use nublar_schemas::agent::VeloMessage;
use nublar_schemas::records::{
    AgentMessage, CheckIn, Claim, FactsSet, FlowStatsSeen, Messages, Scheduling, SeenStats, Tasks,
    Unsent, Unsure,
};
use prost::Message;
use std::collections::VecDeque;

#[derive(Clone)]
pub struct Body {
    pub agent: usize,
    pub number: u64,
    pub messages: Vec<Sent>,
}

enum Append {
    Results(Messages),
    Uploads(Messages),
    Scheduling(Scheduling),
}

/// A POST that is being worked on.
pub struct Post {
    body: Body,
    generation: i64,
    appends: Option<VecDeque<Append>>,
}

impl Post {
    pub fn new(body: Body) -> Self {
        Self {
            body,
            generation: 1,
            appends: None,
        }
    }
}

/// A poll that is held.
#[derive(Clone)]
struct Open {
    client: ClientKey,
    agent: usize,
    number: i64,
    generation: i64,
    check_in: CheckIn,
}

pub struct Frontend {
    number: usize,
    starts: u32,
    delivery: Delivery,
    /// The first record of `tasks` that was not read.
    next: usize,
    known: usize,
    pub posts: Vec<Post>,
    /// With the generation that they are stamped with, and what a check-in says.
    pending: VecDeque<(Act, i64, Option<CheckIn>)>,
    polls: Vec<Open>,
}

impl Frontend {
    pub fn new(number: usize) -> Self {
        let delivery = Delivery::new(DeliveryConfig::new(format!("fe-{number}-0")));
        Self {
            number,
            starts: 0,
            delivery,
            next: 0,
            known: 0,
            posts: Vec::new(),
            pending: VecDeque::new(),
            polls: Vec::new(),
        }
    }

    fn name(&self) -> String {
        format!("fe-{}-{}", self.number, self.starts)
    }

    /// Killed and started: it tails `tasks` from then on.
    pub fn restart(&mut self) {
        let starts = self.starts + 1;
        *self = Self {
            starts,
            next: usize::MAX,
            ..Self::new(self.number)
        };
        self.delivery = Delivery::new(DeliveryConfig::new(self.name()));
    }

    pub fn is_idle(&self, log: &Log) -> bool {
        self.posts.is_empty() && self.pending.is_empty() && self.next == log.tasks.len()
    }

    pub fn step(world: &mut World, n: usize) {
        let frontend = &mut world.frontends[n];
        if frontend.next == usize::MAX {
            frontend.next = world.log.tasks.len();
        }
        if world.dice.percent(60) {
            Self::read_registry(world, n);
        }
        match world.dice.below(3) {
            0 => Self::read_task(world, n),
            1 => Self::act(world, n),
            _ => Self::go_on_with_a_post(world, n),
        }
        // Nothing but answers.
        let acts = world.frontends[n].delivery.on_time(world.now);
        Self::queue(world, n, acts, 1);
    }

    /// Reads the registry to its end: whoever was deleted is forgotten.
    fn read_registry(world: &mut World, n: usize) {
        let (from, to) = (world.frontends[n].known, world.log.registry.len());
        world.frontends[n].known = to;
        for life in world.log.registry.begun(from, to) {
            let acts = world.frontends[n]
                .delivery
                .end_life(&life.client, life.generation);
            Self::queue(world, n, acts, life.generation);
        }
    }

    /// The generation under which a client is known here; none when it is told to enrol, which
    /// nobody is in doubt.
    fn known(world: &mut World, n: usize, client: &ClientKey) -> Option<i64> {
        let known = world.frontends[n].known;
        let registered = world.log.registry.registered(known, client);
        if registered.is_some() || world.fault == Some(Fault::RefuseInDoubt) {
            return registered;
        }
        Self::read_registry(world, n);
        let known = world.frontends[n].known;
        world.log.registry.registered(known, client)
    }

    fn queue(world: &mut World, n: usize, acts: Vec<Act>, generation: i64) {
        for act in acts {
            match act {
                Act::Answer {
                    client,
                    poll,
                    items,
                } => Self::answer(world, n, &client, poll, items),
                Act::End { client, poll } | Act::Refuse { client, poll } => {
                    Self::hand_over(world, n, &client, poll, Vec::new())
                }
                Act::CheckIn(client) => {
                    let frontend = &mut world.frontends[n];
                    let mut open = frontend.polls.iter().filter(|open| open.client == client);
                    if let Some(open) = open.next() {
                        let record = open.check_in.clone();
                        let act = (Act::CheckIn(client), generation, Some(record));
                        frontend.pending.push_back(act);
                    }
                }
                other => world.frontends[n]
                    .pending
                    .push_back((other, generation, None)),
            }
        }
    }

    fn read_task(world: &mut World, n: usize) {
        let Some(task) = world.log.tasks.get(world.frontends[n].next).cloned() else {
            return;
        };
        world.frontends[n].next += 1;
        let generation = task.header().generation;
        let known = world.frontends[n].known;
        let client = ClientKey::of(task.header()).unwrap();
        if world.log.registry.generation(known, &client) > generation {
            return;
        }
        if let (Some(Fault::DeliverBeforeGrant), Tasks::Offer(offer)) = (world.fault, &task) {
            let open = world.frontends[n].polls.iter();
            let open = open.clone().find(|open| open.client == client).cloned();
            if let Some(Open { agent, number, .. }) = open {
                let run = Given::Run(offer.flow_id.clone());
                Agent::given(world, agent, n, number, vec![run]);
                let acts = world.frontends[n]
                    .delivery
                    .close(&client, number, world.now);
                Self::queue(world, n, acts, generation);
            }
        }
        let acts = world.frontends[n].delivery.task(&task, world.now);
        Self::queue(world, n, acts, generation);
    }

    /// An agent polls. With another poll of its own still open, the older one ends.
    pub fn poll(world: &mut World, n: usize, agent: usize, number: i64) {
        let key = world.agents[agent].key.clone();
        let Some(generation) = Self::known(world, n, &key) else {
            return Agent::unknown(world, agent, n, number);
        };
        let poll = Poll {
            number,
            session: world.agents[agent].session,
            table_version: 0,
            generation,
            packet_iv: if world.fault == Some(Fault::RepeatOfAnything) {
                [1; 16]
            } else {
                world.agents[agent].packet_iv
            },
        };
        let header = world.header(&key, generation, &world.frontends[n].name());
        let by = &mut world.agents[agent];
        let check_in = CheckIn {
            header: header.clone(),
            session_key: by.session.to_vec().into(),
            table_version: 0,
            address: String::new(),
            via: String::new(),
            clock_skew_ms: None,
            introduces: by.is_introducing() || world.fault == Some(Fault::SessionIsProcess),
        };
        if by.old {
            // As a worker makes it of what the agent says.
            let is_new = by.asked_who_it_is.insert(generation);
            let mut sources = Vec::new();
            sources.extend(is_new.then_some("Generic.Client.Info/BasicInformation"));
            sources.extend(by.is_introducing().then_some(CLIENT_INFO));
            for source in sources {
                let facts = FactsSet {
                    header: header.clone(),
                    source: source.to_owned(),
                    facts: r#"{"client_version":"0.72.4"}"#.to_owned(),
                    session_key: check_in.session_key.clone(),
                };
                world.log.scheduling.push(facts.into());
            }
        }
        world.frontends[n].polls.retain(|open| open.client != key);
        world.frontends[n].polls.push(Open {
            client: key.clone(),
            agent,
            number,
            generation,
            check_in,
        });
        let acts = world.frontends[n].delivery.open(&key, poll, world.now);
        Self::queue(world, n, acts, generation);
        if world.mishap(10) {
            // The agent leaves at once, and it is seen.
            world.frontends[n].polls.retain(|open| open.client != key);
            let acts = world.frontends[n].delivery.close(&key, number, world.now);
            Self::hand_over(world, n, &key, number, Vec::new());
            Self::queue(world, n, acts, generation);
        }
    }

    /// The time of a poll is over: it ends with nothing.
    pub fn end_poll(world: &mut World, n: usize, agent: usize, number: i64) {
        let key = world.agents[agent].key.clone();
        let generation = Self::generation_of(world, n, &key, number);
        world.frontends[n]
            .polls
            .retain(|open| open.client != key || open.number != number);
        let acts = world.frontends[n].delivery.close(&key, number, world.now);
        Self::queue(world, n, acts, generation);
    }

    fn generation_of(world: &World, n: usize, client: &ClientKey, number: i64) -> i64 {
        let polls = world.frontends[n].polls.iter();
        let mut open = polls.filter(|open| open.client == *client && open.number == number);
        open.next().map_or(1, |open| open.generation)
    }

    fn answer(world: &mut World, n: usize, client: &ClientKey, poll: i64, items: Vec<Item>) {
        let generation = Self::generation_of(world, n, client, poll);
        let unsure = world.mishap(8);
        let unsent = !unsure && world.mishap(6);
        let arrives = if unsure {
            world.dice.percent(50)
        } else {
            !unsent && !world.mishap(8)
        };
        if arrives {
            let given = items.iter().map(|item| match item {
                Item::Task { flow, .. } => Given::Run(flow.clone()),
                Item::Ask(pairs) => Given::Ask(
                    pairs
                        .iter()
                        .flat_map(|pair| [pair.once.clone(), pair.flow_id.clone()])
                        .collect(),
                ),
                Item::Cancel(flow) => Given::Cancel(flow.clone()),
                Item::Table { .. } => unreachable!("nobody announces a table"),
                Item::Resume { .. } => unreachable!("nobody resumes uploads"),
            });
            // Side by side on the agent: in any order.
            let mut given: Vec<_> = given.collect();
            let len = given.len();
            given.rotate_left(world.dice.below(len));
            Self::hand_over(world, n, client, poll, given);
        } else if world.dice.percent(70)
            && let Some(agent) = world.agents.iter().position(|agent| agent.key == *client)
        {
            Agent::unanswered(world, agent, n, poll);
        }
        if unsure || unsent {
            let acts = world.frontends[n]
                .delivery
                .failed(client, poll, items, unsure, world.now);
            Self::queue(world, n, acts, generation);
        }
    }

    fn hand_over(world: &mut World, n: usize, client: &ClientKey, poll: i64, given: Vec<Given>) {
        world.frontends[n]
            .polls
            .retain(|open| open.client != *client || open.number != poll);
        if let Some(agent) = world.agents.iter().position(|agent| agent.key == *client) {
            Agent::given(world, agent, n, poll, given);
        }
    }

    /// Appends one record that delivery wants.
    fn act(world: &mut World, n: usize) {
        let Some((act, generation, check_in)) = world.frontends[n].pending.pop_front() else {
            return;
        };
        let name = world.frontends[n].name();
        let failed = world.mishap(10);
        let happened = !failed || world.dice.percent(50);
        let (key, record): (_, Scheduling) = match &act {
            Act::CheckIn(client) => (client, check_in.unwrap().into()),
            Act::Claim {
                client,
                flow,
                attempt,
                poll,
                packet_iv,
            } => {
                let header = world.header(client, generation, &name);
                (
                    client,
                    Claim {
                        header,
                        flow_id: flow.clone(),
                        attempt: *attempt,
                        poll: *poll,
                        packet_iv: packet_iv.to_vec().into(),
                    }
                    .into(),
                )
            }
            Act::Unsent {
                client,
                flow,
                attempt,
                poll,
            } => {
                let header = world.header(client, generation, &name);
                (
                    client,
                    Unsent {
                        header,
                        flow_id: flow.clone(),
                        attempt: *attempt,
                        poll: *poll,
                    }
                    .into(),
                )
            }
            Act::Unsure {
                client,
                flow,
                attempt,
                poll,
            } => {
                let header = world.header(client, generation, &name);
                (
                    client,
                    Unsure {
                        header,
                        flow_id: flow.clone(),
                        attempt: *attempt,
                        poll: *poll,
                    }
                    .into(),
                )
            }
            Act::Answer { .. } | Act::End { .. } | Act::Refuse { .. } => {
                unreachable!("done at once")
            }
        };
        if happened {
            world.log.scheduling.push(record);
        }
        if failed {
            match &act {
                Act::CheckIn(_) => world.frontends[n].delivery.check_in_failed(&key.clone()),
                Act::Claim { .. } => {}
                _ => world.frontends[n]
                    .pending
                    .push_back((act, generation, None)),
            }
        }
    }

    fn go_on_with_a_post(world: &mut World, n: usize) {
        if world.frontends[n].posts.is_empty() {
            return;
        }
        let at = world.dice.below(world.frontends[n].posts.len());
        let mut post = world.frontends[n].posts.swap_remove(at);
        let (agent, number) = (post.body.agent, post.body.number);
        if post.appends.is_none() {
            let key = world.agents[agent].key.clone();
            let Some(mut generation) = Self::known(world, n, &key) else {
                return Agent::answered(world, agent, n, number, 406, 1);
            };
            let own = |world: &World, generation, sent: &Sent| {
                let flow = sent.session.parse().unwrap();
                world.keys.made_for(&flow, &key, generation)
            };
            if !post
                .body
                .messages
                .iter()
                .all(|sent| own(world, generation, sent))
            {
                // They may be of a generation that is not known here yet.
                Self::read_registry(world, n);
                let Some(now) = Self::known(world, n, &key) else {
                    return Agent::answered(world, agent, n, number, 406, 1);
                };
                generation = now;
                // What is foreign all the same is refused alone.
                post.body
                    .messages
                    .retain(|sent| own(world, generation, sent));
            }
            let name = world.frontends[n].name();
            post.generation = generation;
            post.appends = Some(cut(world, &key, generation, &name, &post.body));
        }
        let Some(appends) = &mut post.appends else {
            return;
        };
        let Some(append) = appends.pop_front() else {
            if !world.mishap(12) {
                Agent::answered(world, agent, n, number, 200, post.generation);
            } else if world.agents[agent].key.client.to_bytes()[7] > 0 {
                lose_answer(world, agent, n, number);
            }
            return;
        };
        let failed = world.mishap(6);
        if !failed || world.dice.percent(50) {
            match append {
                Append::Results(record) => {
                    note_life(world, &record);
                    world.log.results.push(record);
                }
                Append::Uploads(record) => {
                    note_life(world, &record);
                    world.log.uploads.push(record);
                }
                Append::Scheduling(record) => world.log.scheduling.push(record),
            }
        }
        if failed {
            Agent::answered(world, agent, n, number, 503, 1);
        } else {
            world.frontends[n].posts.push(post);
        }
    }
}

/// The agent never sees the answer and sends the same again.
fn lose_answer(world: &mut World, agent: usize, frontend: usize, number: u64) {
    Agent::answered(world, agent, frontend, number, 503, 1);
}

/// Something of these flows is durable: they must not be sent again.
fn note_life(world: &mut World, record: &Messages) {
    let sessions = record.messages.iter().map(|sent| sent.session.clone());
    world.truth.lived.extend(sessions);
}

/// First that these flows are alive, then rows and logs, buffers, and at last what `scheduling`
/// learns of them.
fn cut(
    world: &World,
    key: &ClientKey,
    generation: i64,
    name: &str,
    body: &Body,
) -> VecDeque<Append> {
    let header = world.header(key, generation, name);
    let (mut results, mut uploads, mut stats) = (Vec::new(), Vec::new(), Vec::new());
    let mut alive: Vec<SeenStats> = Vec::new();
    for sent in &body.messages {
        let message = VeloMessage::decode(sent.bytes.clone()).unwrap();
        let agent_message = AgentMessage {
            session: sent.session.clone(),
            bytes: sent.bytes.clone(),
            object: None,
        };
        let seen = |bytes: Vec<u8>| SeenStats {
            session: sent.session.clone(),
            urgent: sent.urgent,
            bytes: bytes.into(),
        };
        if let Some(told) = &message.flow_stats {
            if told.flow_complete && !sent.urgent && !is_unknown(told) {
                results.push(agent_message.clone());
                uploads.push(agent_message);
            }
            stats.push(seen(told.encode_to_vec()));
        } else {
            if message.file_buffer.is_some() {
                &mut uploads
            } else {
                &mut results
            }
            .push(agent_message);
        }
        let is_kept = !message.flow_stats.is_some_and(|told| is_unknown(&told));
        if is_kept && alive.iter().all(|known| known.session != sent.session) {
            alive.push(seen(Vec::new()));
        }
    }
    let mut appends = VecDeque::new();
    if world.fault == Some(Fault::LifeAfterRows) {
        stats.append(&mut alive);
    }
    if !alive.is_empty() {
        let header = header.clone();
        let stats = alive;
        appends.push_back(Append::Scheduling(FlowStatsSeen { header, stats }.into()));
    }
    if !results.is_empty() {
        appends.push_back(Append::Results(Messages {
            header: header.clone(),
            messages: results,
            ..Messages::default()
        }));
    }
    if !uploads.is_empty() {
        appends.push_back(Append::Uploads(Messages {
            header: header.clone(),
            messages: uploads,
            ..Messages::default()
        }));
    }
    if !stats.is_empty() {
        appends.push_back(Append::Scheduling(FlowStatsSeen { header, stats }.into()));
    }
    appends
}
