//! Runs the real program as processes, plays recorded traffic to it and reads what it stored: the
//! ground on which the end-to-end tests stand.
//!
//! Everything here is bounded in time and on loopback, waits for conditions and never for time to
//! pass, and fails the test that uses it by a panic that says what was waited for.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod api;
mod balancer;
mod disk;
mod forwarder;
mod installation;
mod news;
mod player;
mod recorded;
mod server;
mod services;
mod wait;

pub use api::{Api, Part};
pub use balancer::{Balancer, Kind, Text, Tls};
pub use disk::SmallDisk;
pub use forwarder::{Forwarder, Way};
pub use installation::{Installation, Pair, Secrets};
pub use news::{News, news};
pub use player::{Player, Reply};
pub use recorded::{Letter, Recorded};
pub use server::{Ended, Role, Server, free_port, program};
pub use services::Services;
pub use wait::{PATIENCE, eventually, is_long, within};
