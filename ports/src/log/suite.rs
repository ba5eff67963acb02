//! The behaviour that every log must show, as tests that run on any of them.
//!
//! An implementation provides a [`Factory`] and runs [`log_suite!`](crate::log_suite) in a test
//! module. What not every log can do on demand (restart, compact, expire) is optional: a test that
//! needs it is over at once where it is missing.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

pub mod appends;
pub mod compaction;
pub mod groups;
pub mod retention;
pub mod tails;

use super::{
    Group, GroupEvent, Lag, Log, LogError, Position, Record, Retention, Tail, TailEvent, TopicSpec,
};
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// Longer than anything here takes; a wait that ends by this has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Makes logs to be tested.
#[async_trait]
pub trait Factory: Send + Sync {
    /// A log without any of the topics that [`Subject::name`] gives.
    async fn fresh(&self) -> Box<dyn Subject>;
}

/// A log and what can be done to it.
#[async_trait]
pub trait Subject: Send + Sync {
    /// The log as it is now. After [`restart`](Self::restart) ask again.
    fn log(&self) -> Arc<dyn Log>;

    /// The name by which this log knows the topic `base` of a test.
    fn name(&self, base: &str) -> String {
        base.to_owned()
    }

    /// The largest record that is taken, bytes of key and value.
    fn max_record_bytes(&self) -> usize;

    /// Ends the log as a kill would and opens it again. The test has dropped every handle, tail
    /// and member. False when that is not possible.
    async fn restart(&mut self) -> bool {
        false
    }

    /// Compacts the topic now. False when that is not possible.
    async fn compact(&self, topic: &str) -> bool {
        let _ = topic;
        false
    }

    /// Applies retention now. False when that is not possible.
    async fn expire(&self, topic: &str) -> bool {
        let _ = topic;
        false
    }
}

/// Generates a `#[tokio::test]` for every behaviour. `$factory` is an expression of a type that
/// implements [`Factory`](crate::log::suite::Factory).
#[macro_export]
macro_rules! log_suite {
    ($factory:expr) => {
        $crate::log_suite!(@each $factory;
            appends: order_within_a_partition, pipelined_appends_keep_their_order,
                acknowledged_is_readable_at_once, acknowledged_survives_a_restart,
                too_large_is_refused, unknown_is_refused, redeclaring_is_safe,
                many_producers_lose_nothing, end_is_after_the_acknowledged;
            tails: from_earliest_catches_up_once, an_empty_partition_catches_up,
                from_now_yields_only_what_comes, from_a_position, from_a_time,
                beyond_the_end_waits, a_cancelled_wait_loses_nothing,
                tails_are_independent, large_records_pass;
            groups: every_partition_is_assigned_once, marks_survive_a_restart,
                unmarked_is_given_again, partitions_move_with_new_epochs,
                a_leaver_is_replaced, paused_partitions_wait,
                a_pause_ends_with_the_ownership, lag_is_told,
                groups_are_independent, new_groups_start_at_the_earliest,
                a_rewound_group_is_given_everything_again;
            compaction: the_newest_of_each_key_stays, compaction_under_readers,
                a_key_is_needed;
            retention: unmarked_records_stay, marked_records_go,
                a_slow_reader_is_told, a_deleted_position_is_out_of_range;
        );
    };
    (@each $factory:expr; $($module:ident: $($test:ident),+;)+) => {
        $(mod $module {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                $crate::log::suite::$module::$test(&$factory).await;
            })+
        })+
    };
}

/// A topic kept for a day.
fn spec(name: String, partitions: u32, groups: &[&str]) -> TopicSpec {
    let retention = Retention::Age(Duration::from_secs(86_400));
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    TopicSpec {
        name,
        partitions,
        retention,
        groups,
    }
}

/// A subject with one topic kept for a day, and its name.
async fn with_topic(
    factory: &dyn Factory,
    partitions: u32,
    groups: &[&str],
) -> (Box<dyn Subject>, String) {
    let subject = factory.fresh().await;
    let name = subject.name("topic");
    subject
        .log()
        .declare(&[spec(name.clone(), partitions, groups)])
        .await
        .unwrap();
    (subject, name)
}

/// A value that tells its number.
fn numbered(number: u64) -> Bytes {
    Bytes::from(format!("value {number}"))
}

/// Appends values from `from` to `to` (not included) and waits for all of them.
async fn fill(log: &dyn Log, topic: &str, partition: u32, from: u64, to: u64) -> Vec<Position> {
    let appends: Vec<_> = (from..to)
        .map(|n| {
            log.append(
                topic,
                partition,
                Bytes::from(format!("key {n}")),
                numbered(n),
            )
        })
        .collect();
    within(futures::future::try_join_all(appends))
        .await
        .unwrap()
}

/// Fails the test when the future takes too long.
async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it took too long")
}

async fn next(tail: &mut Box<dyn Tail>) -> TailEvent {
    within(tail.next()).await.unwrap()
}

/// The next record of a tail; being caught up is passed over.
async fn next_record(tail: &mut Box<dyn Tail>) -> Record {
    loop {
        if let TailEvent::Record(record) = next(tail).await {
            return record;
        }
    }
}

/// Every record of the partitions of the topic, as a new tail gives them until it has caught up.
async fn read_all(log: &dyn Log, topic: &str, partitions: &[u32]) -> Vec<Record> {
    let mut tail = within(log.tail(topic, partitions, super::From::Earliest))
        .await
        .unwrap();
    let (mut records, mut behind) = (Vec::new(), partitions.len());
    while behind > 0 {
        match next(&mut tail).await {
            TailEvent::Record(record) => records.push(record),
            TailEvent::CaughtUp { .. } => behind -= 1,
        }
    }
    records
}

async fn next_of(group: &mut Box<dyn Group>) -> GroupEvent {
    within(group.next()).await.unwrap()
}

/// What a test knows of a member's partitions.
#[derive(Default)]
struct Ownership {
    epochs: std::collections::BTreeMap<u32, u64>,
    marks: std::collections::BTreeMap<u32, Position>,
}

impl Ownership {
    /// Takes an event; gives the record if it is one, checking that it belongs to the member.
    fn take(&mut self, event: GroupEvent) -> Option<Record> {
        match event {
            GroupEvent::Assigned {
                partition,
                epoch,
                mark,
            } => {
                assert!(
                    self.epochs.insert(partition, epoch).is_none(),
                    "assigned twice"
                );
                self.marks.insert(partition, mark);
                None
            }
            GroupEvent::Revoked { partition } => {
                assert!(
                    self.epochs.remove(&partition).is_some(),
                    "revoked without assignment"
                );
                None
            }
            GroupEvent::Record(record) => {
                assert!(
                    self.epochs.contains_key(&record.partition),
                    "record of another member"
                );
                Some(record)
            }
        }
    }
}

/// The next record of a member.
async fn next_owned(group: &mut Box<dyn Group>, ownership: &mut Ownership) -> Record {
    loop {
        if let Some(record) = ownership.take(next_of(group).await) {
            return record;
        }
    }
}

fn is_refused<T>(result: &Result<T, LogError>) -> bool {
    matches!(result, Err(LogError::Refused(_)))
}
