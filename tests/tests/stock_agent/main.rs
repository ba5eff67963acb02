//! A stock agent's life against the server, over every scheme, and behind the load balancers of
//! docs/load-balancers.md; and how a stock server's agent is taken over:
//! `NUBLAR_AGENT=PATH[:PATH…] cargo test -p nublar-tests --test stock_agent -- --nocapture
//! --test-threads 1`, or `make agent-test AGENT=PATH[:PATH…]`.
//!
//! The agents are not ours and are not here; without the variable the tests say that they did not
//! run. So they do where a load balancer is not installed.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod agent;
mod artifacts;
mod balancers;
mod bench;
mod deployment;
mod direct;
mod life;
mod restarts;
mod resumed;
mod takeover;
