//! What an agent and a frontend say to each other: the Rust types of `proto/*.proto`.
//!
//! Byte fields are [`bytes::Bytes`], so decoding from `Bytes` copies none of them. Fields that
//! are not listed there do not survive decoding: whoever forwards a message forwards the bytes
//! it came in.

#![allow(missing_docs, unreachable_pub, clippy::all)]

include!(concat!(env!("OUT_DIR"), "/nublar.agent.rs"));
