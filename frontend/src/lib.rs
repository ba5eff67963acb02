//! The frontend: what unmodified agents speak to.
//!
//! It takes their POSTs apart, puts them into the log and answers when they are durable there; it
//! holds their polls and brings what the foreman grants. It knows no artifact and no row, decides
//! nothing, and depends on the log alone (and, for messages beyond the log's limit, on objects).
//!
//! ```text
//! listen → http, socket → admission → posts: authenticate → store (route, cut) → the log → 200
//!                                              │               │ reader
//!                                           registry        deliver ⇄ tasks, scheduling → poll → agent
//! ```

mod admission;
mod allowance;
mod answer;
mod authenticate;
mod body;
mod clock;
mod config;
mod cut;
mod dead_letters;
mod deliver;
mod enrol;
mod error;
mod front;
mod frontend;
mod health;
mod http;
mod identity;
mod listen;
mod metrics;
mod networks;
mod peer;
mod poll;
mod posts;
mod pressure;
mod proxy_protocol;
mod public;
mod refusal;
mod registry;
mod requests;
mod route;
mod running;
mod scheduling;
mod socket;
mod store;
mod tasks;
mod url_check;
mod watched;

pub use config::{AdoptFlows, Config, Credentials, Listen, Org, Secrets, TlsMaterial};
pub use error::FrontendError;
pub use frontend::{Frontend, run};
pub use metrics::{Description, Metric, Metrics};
pub use networks::Networks;
