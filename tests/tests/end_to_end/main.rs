//! The program as processes, from what agents send to what people read.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod agents;
mod captures;
mod clocks;
mod copies;
mod deletion;
mod disk;
mod engines;
mod events;
mod expected;
mod export;
mod families;
mod import;
mod keys;
mod letters;
mod lossy;
mod many;
mod orders;
mod puppet;
mod real_services;
mod rebuilt;
mod refusals;
mod secrets;
mod services_late;
mod tools;
