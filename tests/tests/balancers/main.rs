//! The load balancers of docs/load-balancers.md, with the very files of `deploy/`, between simulated
//! agents and the server; and what `nublar check-url` says of these and of worse ones. What is not
//! installed is not run, and says so.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod agents;
mod checked;
mod urls;
