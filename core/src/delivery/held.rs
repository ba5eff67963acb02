//! What is held for one client: its contact, offers, errands, its poll, and what it was given.

use super::acts::{Act, Item, PacketIv};
use super::config::DeliveryConfig;
use crate::ids::ClientKey;
use nublar_schemas::records::Grant;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug)]
pub(super) struct HeldOffer {
    pub(super) attempt: i32,
    pub(super) until: u64,
}

#[derive(Debug)]
pub(super) struct HeldPoll {
    pub(super) number: i64,
    pub(super) packet_iv: PacketIv,
    pub(super) out: Vec<Item>,
    /// Flows that were claimed for this poll and not granted yet.
    pub(super) claimed: BTreeSet<String>,
    /// Flows that were claimed although they were granted to an equal request.
    pub(super) reclaimed: BTreeSet<String>,
    pub(super) first_item: Option<u64>,
}

#[derive(Debug, Default)]
pub(super) struct Contact {
    pub(super) seen: u64,
    pub(super) session: [u8; 16],
    pub(super) table_version: i64,
    pub(super) generation: i64,
}

/// A task that a request was given, here or at another frontend.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) packet_iv: PacketIv,
    pub(super) flow: String,
    pub(super) attempt: i32,
    pub(super) until: u64,
}

#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) contact: Option<Contact>,
    pub(super) offers: BTreeMap<String, HeldOffer>,
    pub(super) errands: Vec<(u64, Item)>,
    pub(super) poll: Option<HeldPoll>,
    /// Highest attempt that was answered, for which poll, and until when to remember it.
    pub(super) delivered: BTreeMap<String, (i32, i64, u64)>,
    pub(super) given: Vec<Given>,
    /// The one session that may poll, and until when.
    pub(super) holder: Option<(Vec<u8>, u64)>,
    /// The questions and cancels of the last answer, and the request that it answered.
    pub(super) last_errands: (PacketIv, Vec<Item>),
}

impl Given {
    pub(super) fn of(grant: &Grant, until: u64) -> Option<Self> {
        Some(Self {
            packet_iv: grant.packet_iv[..].try_into().ok()?,
            flow: grant.flow_id.clone(),
            attempt: grant.attempt,
            until,
        })
    }
}

impl Held {
    /// A new attempt is offered: what is left of questions about older ones has been answered at
    /// another frontend, and would only end a poll that is to bring something.
    pub(super) fn forget_questions(&mut self, flow: &str) {
        let wanted = |item: &mut Item| {
            let Item::Ask(pairs) = item else { return true };
            pairs.retain(|pair| pair.flow_id != flow);
            !pairs.is_empty()
        };
        self.errands.retain_mut(|(_, item)| wanted(item));
        self.last_errands.1.retain_mut(wanted);
    }
}

impl HeldPoll {
    /// Whether it waits for what its request was given before: an answer without that loses it.
    fn waits_for_given(&self) -> bool {
        !self.claimed.is_disjoint(&self.reclaimed)
    }

    /// Claims what an equal request was given, once.
    pub(super) fn claim_again(&mut self, client: &ClientKey, given: &Given) -> Option<Act> {
        let is_here = |item: &Item| matches!(item, Item::Task { flow, .. } if *flow == given.flow);
        if given.packet_iv != self.packet_iv
            || self.out.iter().any(is_here)
            || !self.reclaimed.insert(given.flow.clone())
        {
            return None;
        }
        self.claimed.insert(given.flow.clone());
        Some(Act::Claim {
            client: client.clone(),
            flow: given.flow.clone(),
            attempt: given.attempt,
            poll: self.number,
            packet_iv: self.packet_iv,
        })
    }

    /// When it is to be answered, if it has anything.
    pub(super) fn answer_at(&self, config: &DeliveryConfig) -> Option<u64> {
        let wait = if self.claimed.is_empty() {
            config.coalesce
        } else if self.waits_for_given() {
            config.wait_for_given
        } else {
            config.wait_for_grants
        };
        self.first_item.map(|first| first + wait)
    }
}
