//! How messages of agents become documents: the workers' machine, without IO.
//!
//! A record of `results`, `uploads` or `events` becomes a [`Plan`]: parts with ids made of their
//! content, and what follows from them. The worker writes the parts, then tells [`Sums`], which
//! knows for every flow what is stored of it and says so to the foreman. Whatever is written
//! twice is the same the second time.
//!
//! One message is one part. Larger chunks would make fewer documents, but what stands in one
//! would depend on how the log was read, and two readers of one log must write the same.

mod arrange;
mod files;
mod inflate;
mod plan;
mod seal;
mod sums;

pub use arrange::{Arranged, Found, Piece, arrange};
pub use files::{Extent, event_upload_instance, plain_data, upload_instance};
pub use inflate::{InflateError, inflate};
pub use plan::{
    CLIENT_INFO, Collection, EVENT_LOGS, EVENT_ROWS, Fact, Part, Plan, Refused, object_of, plan,
    session_name,
};
pub use seal::{Reports, SEALS, Seal, Verdict};
pub use sums::{FlowSum, Group, Sums};

use crate::ids::{ClientKey, ContentId, FlowId};

/// Seconds in the week of a bucket.
pub const WEEK_SECONDS: i64 = 604_800;

/// The week that a flow's documents are kept in, counted from 1970; none when its id tells no time.
pub fn week_of(flow: &FlowId) -> Option<u32> {
    crate::mac::seconds_of(flow)
        .and_then(|seconds| u32::try_from(i64::from(seconds) / WEEK_SECONDS).ok())
}

/// The week of an event: agent time counts when it is within 35 days of the server's.
pub fn week_of_event(agent_us: i64, server_us: i64) -> Option<u32> {
    const NEAR_US: i64 = 35 * 86_400_000_000;
    let near = agent_us > 0 && agent_us.abs_diff(server_us) <= NEAR_US as u64;
    if !near {
        return None;
    }
    u32::try_from(agent_us / 1_000_000 / WEEK_SECONDS).ok()
}

/// The id of a message: its content under its client, generation and session.
pub fn message_id(key: &ClientKey, generation: i64, session: &str, bytes: &[u8]) -> ContentId {
    let (client, generation) = (key.client.to_bytes(), generation.to_le_bytes());
    ContentId::of(&[
        key.org.as_str().as_bytes(),
        &client,
        &generation,
        session.as_bytes(),
        bytes,
    ])
}

#[cfg(test)]
mod tests;
