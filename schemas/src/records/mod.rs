//! The records of the topics. Ids are strings here: they are parsed where a record is used.

mod ingest;
mod scheduling;
mod shared;
mod tables;
mod tasks;

pub use ingest::{AgentMessage, Messages};
pub use scheduling::{
    Announce, CheckIn, Claim, Command, FactsSet, FlowCreated, FlowStatsSeen, Scheduling, SeenStats,
    Stored, Tick, Unsent, Unsure,
};
pub use shared::{Header, RequestRef};
pub use tables::{
    ClientKey, ClientLife, CommandDone, DeadLetter, Document, Notification, Notifications,
    Registry, Request, Setting, Snapshot, Wish,
};
pub use tasks::{Ask, AskPair, Cancel, EventTable, Grant, Holder, Offer, Resume, Tasks, Withdraw};
