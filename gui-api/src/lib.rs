//! REST for people and programs: what is known of clients and flows, results, uploads, and the
//! wishes that become commands.
//!
//! This role reads the index, the objects and the tails of a few topics, and appends to three:
//! `requests` (compiled requests), `wishes` (which flow a key stands for) and `scheduling` (what
//! the foreman is to do). It decides nothing by itself.
//!
//! | part | what |
//! |---|---|
//! | `routes` | one file for each thing one can ask for |
//! | `stored` | how documents become rows, log lines and files again |
//! | `tails` | what is kept in memory of the topics that are tailed |
//! | `lists` | pages of documents, with what happened a moment ago laid over them |
//! | `search` | the language of the search box |
//!
//! Every answer that says no is JSON with `error` and, where something helps, `what_to_do`.

mod app;
mod clock;
mod config;
mod guard;
mod lists;
mod refusal;
mod remembered;
mod routes;
mod search;
mod server;
mod stored;
mod tails;
#[cfg(test)]
mod tests;

pub use config::{Config, ReadBy};
pub use server::{Error, Gui, run};
