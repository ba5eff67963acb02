//! The program as processes, from what agents send to what people read.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod agents;
mod captures;
mod deletion;
mod disk;
mod engines;
mod events;
mod expected;
mod import;
mod keys;
mod letters;
mod orders;
mod real_services;
mod refusals;
mod secrets;
mod services_late;
mod tools;
