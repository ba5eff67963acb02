//! What a server announced to whoever waits for it, read from its log.

use crate::installation::Installation;
use nublar_ports::StorageConfig;
use nublar_ports::log::{From, TailEvent};
use nublar_schemas::records::Notifications;
use nublar_schemas::topics::NOTIFICATIONS;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// Announcements of one kind.
#[derive(Debug, Default)]
pub struct News {
    /// The keys under which each subject was announced: one, if it was announced once by key.
    pub keys: BTreeMap<String, BTreeSet<Vec<u8>>>,
    /// Records, repeats under the same key included.
    pub records: u64,
}

#[derive(Deserialize)]
struct Kept {
    #[serde(default)]
    storage: StorageConfig,
}

/// Everything of this kind that was announced. Where the log is embedded its process must have
/// ended.
pub async fn news(installation: &Installation, kind: &str) -> News {
    let kept: Kept = toml::from_str(installation.config()).unwrap();
    let log = kept.storage.open(installation.data()).unwrap().log;
    let partitions = log.partitions(NOTIFICATIONS.name).await.unwrap();
    let all: Vec<u32> = (0..partitions).collect();
    let mut tail = log
        .tail(NOTIFICATIONS.name, &all, From::Earliest)
        .await
        .unwrap();
    let mut news = News::default();
    let mut behind = all.len();
    while behind > 0 {
        let record = match tail.next().await.unwrap() {
            TailEvent::Record(record) => record,
            TailEvent::CaughtUp { .. } => {
                behind -= 1;
                continue;
            }
        };
        let Notifications::Notification(found) = Notifications::decode(&record.value).unwrap()
        else {
            continue;
        };
        if found.kind == kind {
            news.records += 1;
            let keys = news.keys.entry(found.subject).or_default();
            keys.insert(found.id.to_vec());
        }
    }
    news
}
