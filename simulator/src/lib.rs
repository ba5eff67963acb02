//! Agents by the thousand, for tests and benchmarks, with a ledger of what they were given and
//! what they sent.
//!
//! An [`Agent`] speaks the agents' protocol over real TLS and behaves like a real one: its polls,
//! its queue, its back-off. It runs no VQL: a flow tells it by a [`Script`] what to make up. All
//! of them write into one [`Ledger`], which knows at once when a task comes twice.
//!
//! Invariants: what an agent makes up depends on names and a seed alone; a message once serialized
//! never changes; the ledger is written before a message is sent, so that it never knows less than
//! the server.

mod agent;
mod api;
mod audit;
mod chance;
mod checker;
mod config;
mod entries;
mod error;
mod faults;
mod figures;
mod fleet;
mod flow;
mod flows;
mod keys;
mod ledger;
mod link;
mod messages;
mod pace;
mod proxy;
mod queue;
mod script;
mod sockets;
mod transport;

pub use agent::Agent;
pub use api::{Api, Shown, ShownUpload};
pub use audit::{Audit, Known, audit, known_flows, wait_until_final};
pub use chance::Chance;
pub use checker::{LOGS, check_flow};
pub use config::AgentConfig;
pub use entries::{Delivery, FlowEntry, Piece, Run, Stage, Totals, Upload};
pub use error::SimError;
pub use faults::{Coins, Fault, Faults};
pub use figures::{Times, Traffic, memory};
pub use fleet::{Done, Fleet, Work};
pub use keys::agent_keys;
pub use ledger::{Book, Counts, Event, Ledger, Tag, Violation, What};
pub use nublar_wire::Trust;
pub use pace::{Attempts, Next, Outcome, Round, TokenBucket};
pub use proxy::{Habits, Proxy};
pub use queue::{Item, Queue};
pub use script::{ARTIFACT, ARTIFACT_YAML, Origin, Script, UploadScript, VARIABLE};
pub use sockets::Socket;
pub use transport::{Broken, Reply, Transport};
