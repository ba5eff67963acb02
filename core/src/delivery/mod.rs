//! How a frontend brings tasks to its agents' polls: claims what is offered, delivers what is
//! granted, and never the same attempt twice.
//!
//! A machine without IO: it is told of polls, of records of `tasks` and of time (milliseconds of
//! any steady clock), and says what to do. The foreman alone decides who delivers; this machine
//! only asks for it and reports what did not leave.
//!
//! An agent that saw nothing of an answer repeats its request with the same bytes, perhaps at
//! another frontend. It may be given again what that request was given, and only that: a granted
//! task is claimed anew under the same packet_iv.

mod acts;
mod config;
mod held;

pub use acts::{Act, Item, PacketIv, Poll};
pub use config::DeliveryConfig;

use crate::ids::ClientKey;
use acts::{merge, unsent};
use held::{Contact, Given, Held, HeldOffer, HeldPoll};
use nublar_schemas::records::{Grant, Holder, Tasks};
use std::collections::{BTreeMap, BTreeSet};

/// The machine. See the [module](self).
#[derive(Debug)]
pub struct Delivery {
    config: DeliveryConfig,
    clients: BTreeMap<ClientKey, Held>,
    due: BTreeSet<(u64, ClientKey)>,
}

impl Delivery {
    /// Nobody polls yet.
    pub fn new(config: DeliveryConfig) -> Self {
        Self {
            config,
            clients: BTreeMap::new(),
            due: BTreeSet::new(),
        }
    }

    /// How many polls are held.
    pub fn polls(&self) -> usize {
        self.clients
            .values()
            .filter(|held| held.poll.is_some())
            .count()
    }

    /// Whether a poll of this session is to be refused: another agent of the client's key polls.
    pub fn refuses(&self, client: &ClientKey, session: &[u8; 16], now: u64) -> bool {
        let holder = self
            .clients
            .get(client)
            .and_then(|held| held.holder.as_ref());
        holder.is_some_and(|(holder, until)| now < *until && holder != session)
    }

    /// An agent polls. The newest poll of a client wins.
    pub fn open(&mut self, client: &ClientKey, poll: Poll, now: u64) -> Vec<Act> {
        let mut acts = Vec::new();
        if let Some(older) = self.clients.get(client).and_then(|held| held.poll.as_ref()) {
            let number = older.number;
            acts.push(Act::End {
                client: client.clone(),
                poll: number,
            });
            acts.extend(self.close(client, number, now));
        }
        let gap = self.config.contact_gap;
        let held = self.clients.entry(client.clone()).or_default();
        let known = held.contact.as_ref().is_some_and(|contact| {
            now <= contact.seen + gap
                && contact.session == poll.session
                && contact.table_version == poll.table_version
                && contact.generation == poll.generation
        });
        if !known {
            acts.push(Act::CheckIn(client.clone()));
        }
        held.contact = Some(Contact {
            seen: now,
            session: poll.session,
            table_version: poll.table_version,
            generation: poll.generation,
        });
        let mut opened = HeldPoll {
            number: poll.number,
            packet_iv: poll.packet_iv,
            out: Vec::new(),
            claimed: BTreeSet::new(),
            reclaimed: BTreeSet::new(),
            first_item: None,
        };
        held.offers.retain(|_, offer| offer.until > now);
        for (flow, offer) in &held.offers {
            opened.claimed.insert(flow.clone());
            acts.push(Act::Claim {
                client: client.clone(),
                flow: flow.clone(),
                attempt: offer.attempt,
                poll: poll.number,
                packet_iv: poll.packet_iv,
            });
        }
        held.given.retain(|given| given.until > now);
        for given in &held.given {
            acts.extend(opened.claim_again(client, given));
        }
        if held.last_errands.0 == poll.packet_iv {
            opened.out.append(&mut held.last_errands.1);
        } else {
            held.last_errands.1.clear();
        }
        let errands = std::mem::take(&mut held.errands);
        opened.out.extend(
            errands
                .into_iter()
                .filter(|(until, _)| *until > now)
                .map(|(_, item)| item),
        );
        held.poll = Some(opened);
        self.schedule(client, now);
        acts
    }

    /// The poll is gone without an answer: its agent left, or its time is over.
    pub fn close(&mut self, client: &ClientKey, poll: i64, now: u64) -> Vec<Act> {
        let Some(held) = self.clients.get_mut(client) else {
            return Vec::new();
        };
        let Some(gone) = held.poll.take_if(|held| held.number == poll) else {
            return Vec::new();
        };
        if let Some(contact) = &mut held.contact {
            contact.seen = now;
        }
        let mut acts = Vec::new();
        for item in gone.out {
            match item {
                Item::Task { flow, attempt, .. } => {
                    acts.push(Act::Unsent {
                        client: client.clone(),
                        flow,
                        attempt,
                        poll,
                    });
                }
                errand => held.errands.push((now + self.config.keep_errands, errand)),
            }
        }
        acts
    }

    /// The client was deleted: what is held for it goes, its poll ends with nothing. What is of
    /// this generation or a later one stays.
    pub fn end_life(&mut self, client: &ClientKey, generation: i64) -> Vec<Act> {
        let is_new = |held: &Held| {
            let contact = held.contact.as_ref();
            contact.is_some_and(|contact| contact.generation >= generation)
        };
        if self.clients.get(client).is_none_or(is_new) {
            return Vec::new();
        }
        let poll = self.clients.remove(client).and_then(|held| held.poll);
        let end = poll.map(|poll| Act::End {
            client: client.clone(),
            poll: poll.number,
        });
        end.into_iter().collect()
    }

    /// An answer did not get through. `maybe_sent`: some of its bytes may have left.
    pub fn failed(
        &mut self,
        client: &ClientKey,
        poll: i64,
        items: Vec<Item>,
        maybe_sent: bool,
        now: u64,
    ) -> Vec<Act> {
        let keep = self.config.keep_errands;
        let held = self.clients.entry(client.clone()).or_default();
        let mut acts = Vec::new();
        for item in items {
            match item {
                Item::Task { flow, attempt, .. } => acts.push(if maybe_sent {
                    Act::Unsure {
                        client: client.clone(),
                        flow,
                        attempt,
                        poll,
                    }
                } else {
                    Act::Unsent {
                        client: client.clone(),
                        flow,
                        attempt,
                        poll,
                    }
                }),
                errand => held.errands.push((now + keep, errand)),
            }
        }
        acts
    }

    /// The check-in record was not appended: the next poll tries again.
    pub fn check_in_failed(&mut self, client: &ClientKey) {
        if let Some(held) = self.clients.get_mut(client) {
            held.contact = None;
        }
    }

    /// Records of `tasks` may have been missed: every client checks in once more, those that poll
    /// now at once, so that what is due to them is offered again.
    pub fn forget_contacts(&mut self) -> Vec<Act> {
        let mut acts = Vec::new();
        for (client, held) in &mut self.clients {
            if held.poll.is_some() {
                acts.push(Act::CheckIn(client.clone()));
            } else {
                held.contact = None;
            }
        }
        acts
    }

    /// A record of `tasks`.
    pub fn task(&mut self, task: &Tasks, now: u64) -> Vec<Act> {
        let Ok(client) = ClientKey::of(task.header()) else {
            return Vec::new();
        };
        match task {
            Tasks::Offer(offer) => self.offered(&client, &offer.flow_id, offer.attempt, now),
            Tasks::Grant(grant) => self.granted(&client, grant, now),
            Tasks::Ask(ask) => self.errand(&client, Item::Ask(ask.pairs.clone()), now),
            Tasks::Cancel(cancel) => {
                self.errand(&client, Item::Cancel(cancel.flow_id.clone()), now)
            }
            Tasks::Resume(resume) => {
                let item = Item::Resume {
                    flow: resume.flow_id.clone(),
                    request: resume.request.clone(),
                };
                self.errand(&client, item, now)
            }
            Tasks::EventTable(table) => {
                let item = Item::Table {
                    version: table.version,
                    request: table.request.clone(),
                };
                self.errand(&client, item, now)
            }
            Tasks::Holder(holder) => self.belongs_to(&client, holder, now),
            Tasks::Withdraw(withdraw) => {
                if let Some(held) = self.clients.get_mut(&client) {
                    held.offers.remove(&withdraw.flow_id);
                    held.given.retain(|given| given.flow != withdraw.flow_id);
                    if let Some(poll) = &mut held.poll {
                        poll.claimed.remove(&withdraw.flow_id);
                    }
                    self.schedule(&client, now);
                }
                Vec::new()
            }
        }
    }

    fn offered(&mut self, client: &ClientKey, flow: &str, attempt: i32, now: u64) -> Vec<Act> {
        let held = self.clients.entry(client.clone()).or_default();
        let old = held.offers.get(flow).map_or(0, |offer| offer.attempt);
        let done = held.delivered.get(flow).map_or(0, |(attempt, ..)| *attempt);
        if attempt < old || attempt <= done {
            return Vec::new();
        }
        held.given
            .retain(|given| given.flow != flow || given.attempt >= attempt);
        held.forget_questions(flow);
        let until = now + self.config.keep_offers;
        held.offers
            .insert(flow.to_owned(), HeldOffer { attempt, until });
        let Some(poll) = &mut held.poll else {
            return Vec::new();
        };
        if !poll.claimed.insert(flow.to_owned()) && attempt == old {
            return Vec::new();
        }
        vec![Act::Claim {
            client: client.clone(),
            flow: flow.to_owned(),
            attempt,
            poll: poll.number,
            packet_iv: poll.packet_iv,
        }]
    }

    fn granted(&mut self, client: &ClientKey, grant: &Grant, now: u64) -> Vec<Act> {
        let ours = grant.frontend == self.config.frontend;
        if ours && !self.clients.contains_key(client) {
            // Nobody of that name polls here, and nothing is remembered: it cannot have been sent.
            return vec![unsent(client, grant)];
        }
        let held = self.clients.entry(client.clone()).or_default();
        if held
            .offers
            .get(&grant.flow_id)
            .is_some_and(|offer| offer.attempt <= grant.attempt)
        {
            held.offers.remove(&grant.flow_id);
        }
        let keep_until = now + self.config.keep_given;
        if let Some(given) = Given::of(grant, keep_until) {
            held.given.retain(|older| older.flow != given.flow);
            held.given.push(given);
        }
        if !ours {
            let mut acts = Vec::new();
            if let Some(poll) = &mut held.poll {
                poll.claimed.remove(&grant.flow_id);
                let given = held.given.last();
                acts.extend(given.and_then(|given| poll.claim_again(client, given)));
            }
            self.schedule(client, now);
            return acts;
        }
        if held
            .delivered
            .get(&grant.flow_id)
            .is_some_and(|(attempt, poll, _)| (*attempt, *poll) >= (grant.attempt, grant.poll))
        {
            return Vec::new();
        }
        let Some(poll) = held.poll.as_mut().filter(|poll| poll.number == grant.poll) else {
            return vec![unsent(client, grant)];
        };
        poll.claimed.remove(&grant.flow_id);
        let item = Item::Task {
            flow: grant.flow_id.clone(),
            attempt: grant.attempt,
            request: grant.request.clone(),
            urgent: grant.urgent,
        };
        if !poll.out.contains(&item) {
            poll.out.push(item);
        }
        self.schedule(client, now);
        Vec::new()
    }

    /// The client's poll belongs to another session: one that is held ends, and whoever polls next
    /// checks in.
    fn belongs_to(&mut self, client: &ClientKey, holder: &Holder, now: u64) -> Vec<Act> {
        let hold = u64::try_from(holder.hold_ms).unwrap_or(0);
        if hold > 0 {
            let held = self.clients.entry(client.clone()).or_default();
            held.holder = Some((holder.session_key.to_vec(), now + hold));
        }
        let Some(held) = self.clients.get_mut(client) else {
            return Vec::new();
        };
        let is_other = |contact: &Contact| holder.session_key != contact.session[..];
        if !held.contact.as_ref().is_some_and(is_other) {
            return Vec::new();
        }
        let poll = held.poll.as_ref().map(|poll| poll.number);
        let mut acts = Vec::new();
        if let Some(poll) = poll {
            let client = client.clone();
            acts.push(if hold > 0 {
                Act::Refuse { client, poll }
            } else {
                Act::End { client, poll }
            });
        }
        acts.extend(
            poll.into_iter()
                .flat_map(|poll| self.close(client, poll, now)),
        );
        self.check_in_failed(client);
        acts
    }

    fn errand(&mut self, client: &ClientKey, item: Item, now: u64) -> Vec<Act> {
        let held = self.clients.entry(client.clone()).or_default();
        if matches!(item, Item::Table { .. }) {
            // The newest is enough.
            held.errands
                .retain(|(_, older)| !matches!(older, Item::Table { .. }));
        }
        match &mut held.poll {
            Some(poll) => poll.out.push(item),
            None => {
                held.errands
                    .retain(|(until, held)| *until > now && *held != item);
                held.errands.push((now + self.config.keep_errands, item));
            }
        }
        self.schedule(client, now);
        Vec::new()
    }

    /// When [`Delivery::on_time`] is next to be called.
    pub fn next_due(&self) -> Option<u64> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Answers whose time has come.
    pub fn on_time(&mut self, now: u64) -> Vec<Act> {
        let mut acts = Vec::new();
        while let Some((at, client)) = self.due.pop_first() {
            if at > now {
                self.due.insert((at, client));
                break;
            }
            let Some(held) = self.clients.get_mut(&client) else {
                continue;
            };
            let Some(poll) = &held.poll else { continue };
            match poll.answer_at(&self.config) {
                Some(at) if at <= now => {}
                Some(later) => {
                    self.due.insert((later, client));
                    continue;
                }
                None => continue,
            }
            let Some(poll) = held.poll.take() else {
                continue;
            };
            if let Some(contact) = &mut held.contact {
                contact.seen = now;
            }
            held.last_errands = (poll.packet_iv, Vec::new());
            for item in &poll.out {
                if let Item::Task { flow, attempt, .. } = item {
                    let until = now + self.config.keep_delivered;
                    held.delivered
                        .insert(flow.clone(), (*attempt, poll.number, until));
                } else {
                    held.last_errands.1.push(item.clone());
                }
            }
            acts.push(Act::Answer {
                client,
                poll: poll.number,
                items: merge(poll.out),
            });
        }
        acts
    }

    /// Forgets what is too old. To be called now and then.
    pub fn sweep(&mut self, now: u64) {
        let gap = self.config.contact_gap;
        self.clients.retain(|_, held| {
            held.offers.retain(|_, offer| offer.until > now);
            held.errands.retain(|(until, _)| *until > now);
            held.delivered.retain(|_, (.., until)| *until > now);
            held.given.retain(|given| given.until > now);
            held.holder.take_if(|(_, until)| *until <= now);
            let seen = held
                .contact
                .as_ref()
                .is_some_and(|contact| now <= contact.seen + gap);
            held.poll.is_some()
                || seen
                || !held.offers.is_empty()
                || !held.errands.is_empty()
                || !held.delivered.is_empty()
                || !held.given.is_empty()
                || held.holder.is_some()
        });
    }

    fn schedule(&mut self, client: &ClientKey, now: u64) {
        let Some(poll) = self
            .clients
            .get_mut(client)
            .and_then(|held| held.poll.as_mut())
        else {
            return;
        };
        if !poll.out.is_empty() {
            poll.first_item.get_or_insert(now);
        }
        if let Some(at) = poll.answer_at(&self.config) {
            self.due.insert((at, client.clone()));
        }
    }
}

#[cfg(test)]
mod tests;
