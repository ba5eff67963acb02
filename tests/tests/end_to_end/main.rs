//! The program as processes, from what agents send to what people read.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod captures;
mod expected;
mod orders;
mod real_services;
