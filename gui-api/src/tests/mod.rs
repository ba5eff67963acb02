//! Every endpoint, against ports in memory and a foreman and workers that follow a script.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod artifacts;
mod collecting;
mod deleting;
mod events;
mod following;
mod letters;
mod reading;
mod resuming;
mod secrets;
mod stage;
mod tools;
mod uploading;
mod watching;
