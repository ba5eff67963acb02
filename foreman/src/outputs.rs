//! From what the fold decided to records in their topics.

use bytes::Bytes;
use futures::future::join_all;
use nublar_core::fold::Output;
use nublar_core::partition::of_key;
use nublar_ports::{Log, Membership};
use nublar_schemas::codec::{CodecError, Record};
use nublar_schemas::records::Registry;
use nublar_schemas::topics::{NOTIFICATIONS, REGISTRY, SETTINGS, STATE, TASKS};
use std::collections::VecDeque;
use std::time::Duration;

/// A record that waits to be appended.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    topic: &'static str,
    partition: u32,
    key: Bytes,
    value: Bytes,
}

impl Outgoing {
    /// The record of an output of this partition's fold.
    pub(crate) fn of(
        output: &Output,
        partition: u32,
        news_partitions: u32,
    ) -> Result<Self, CodecError> {
        Ok(match output {
            Output::Task(task) => Self {
                topic: TASKS.name,
                partition,
                key: task.header().client.clone().into(),
                value: task.encode()?.into(),
            },
            Output::State(document) => Self {
                topic: STATE.name,
                partition,
                key: format!("{}/{}", document.kind, document.id).into(),
                value: document.encode()?.into(),
            },
            Output::Notify(news) => {
                let header = news.header();
                Self {
                    topic: NOTIFICATIONS.name,
                    partition: of_key(&header.org, &header.client, news_partitions),
                    key: header.client.clone().into(),
                    value: news.encode()?.into(),
                }
            }
            Output::Life(life) => Self {
                topic: REGISTRY.name,
                partition,
                key: life.name().into(),
                value: Registry::from(life.clone()).encode()?.into(),
            },
            Output::Setting(setting) => Self {
                topic: SETTINGS.name,
                partition: 0,
                key: format!("{}/{}/{}", setting.kind, setting.header.org, setting.id).into(),
                value: setting.encode()?.into(),
            },
        })
    }
}

/// Appends all, in their order, and returns when every one is acknowledged; false when the
/// partition went to another foreman meanwhile. After a failure everything from the first that
/// failed is appended again: whoever reads it drops what it has, and the order of the last copies
/// is right.
pub(crate) async fn append_all(
    log: &dyn Log,
    mut outgoing: VecDeque<Outgoing>,
    member: Option<&Membership>,
    (partition, epoch): (u32, u64),
) -> bool {
    let mut wait = Duration::from_millis(20);
    let mut failures = 0u32;
    while !outgoing.is_empty() {
        let appends: Vec<_> = outgoing
            .iter()
            .map(|out| log.append(out.topic, out.partition, out.key.clone(), out.value.clone()))
            .collect();
        let results = join_all(appends).await;
        let Some(failed) = results.iter().position(Result::is_err) else {
            return true;
        };
        if let Some(Err(error)) = results.get(failed) {
            failures += 1;
            if failures.is_power_of_two() {
                let topic = outgoing.get(failed).map_or("", |out| out.topic);
                tracing::warn!(partition, topic, failures, %error, "cannot append, trying again");
            }
        }
        outgoing.drain(..failed);
        if member.is_some_and(|member| !member.owns(partition, epoch)) {
            return false;
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(2));
    }
    true
}
