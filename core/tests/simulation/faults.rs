//! Planted faults: variants of the harness, none in the product. Each must be caught.

use crate::world::World;
use nublar_core::ids::{ClientKey, ContentId, FlowId};
use nublar_core::mac::seconds_of;
use nublar_schemas::records::FlowStatsSeen;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A worker that marks before it writes.
    MarkBeforeWrite,
    /// A fold with a clock.
    FoldWithClock,
    /// A delivery before the grant.
    DeliverBeforeGrant,
    /// A hash left out of an id.
    IdWithoutContent,
    /// A 406 in doubt.
    RefuseInDoubt,
    /// A takeover that is silent about causes after the mark.
    SilentTakeover,
    /// A completion that runs on a timer.
    TimerCompletes,
    /// A reader that trusts compaction.
    TrustCompaction,
    /// An UNKNOWN that counts for another attempt.
    UnknownForAnyAttempt,
    /// Two documents from one cause.
    TwoDocuments,
    /// Every request of an agent counts as a repeat of its last one.
    RepeatOfAnything,
    /// Rows before the sign of life.
    LifeAfterRows,
    /// A worker that stores whatever generation comes.
    AnyGeneration,
    /// A worker that looks at generations before it writes, and not again before it marks.
    MarkWithoutLook,
    /// A fold that takes records of any generation for the client's.
    FoldAnyGeneration,
    /// A new session of an agent that can not be asked counts as a new process.
    SessionIsProcess,
}

impl Fault {
    pub const ALL: [Self; 16] = [
        Self::MarkBeforeWrite,
        Self::FoldWithClock,
        Self::DeliverBeforeGrant,
        Self::IdWithoutContent,
        Self::RefuseInDoubt,
        Self::SilentTakeover,
        Self::TimerCompletes,
        Self::TrustCompaction,
        Self::UnknownForAnyAttempt,
        Self::TwoDocuments,
        Self::RepeatOfAnything,
        Self::LifeAfterRows,
        Self::AnyGeneration,
        Self::MarkWithoutLook,
        Self::FoldAnyGeneration,
        Self::SessionIsProcess,
    ];
}

/// Rewrites each one-off id to that of the flow's newest attempt, as if attempts were not told apart.
pub fn for_any_attempt(world: &World, seen: &mut FlowStatsSeen) {
    let key = ClientKey::of(&seen.header).unwrap();
    let seen_generation = seen.header.generation;
    let once = |flow: &str, attempt: i32| {
        let id: FlowId = flow.parse().unwrap();
        let hash = ContentId::of(&[b"once", flow.as_bytes(), &attempt.to_le_bytes()]);
        let mut tell = [0; 4];
        tell.copy_from_slice(&hash.as_bytes()[..4]);
        world
            .keys
            .flow_id(
                &key,
                seen_generation,
                i64::from(seconds_of(&id).unwrap()) * 1_000_000,
                tell,
            )
            .to_string()
    };
    let flows: Vec<_> = world.truth.flows.keys().cloned().collect();
    for item in &mut seen.stats {
        for flow in &flows {
            if (1..20).any(|attempt| once(flow, attempt) == item.session) {
                let newest = world.log.tasks.iter().rev().find_map(|task| match task {
                    nublar_schemas::records::Tasks::Offer(offer) if offer.flow_id == *flow => {
                        Some(offer.attempt)
                    }
                    _ => None,
                });
                item.session = once(flow, newest.unwrap_or(1));
                break;
            }
        }
    }
}
