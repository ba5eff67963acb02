//! Keeps the highest version of each setting the last record of its key.
//!
//! Compaction keeps the last record of a key, and a foreman that lost its partition without knowing may
//! append an older version behind a newer one: after a compaction nobody would know the newer one any
//! more. So whoever sees that appends the highest version again.

use crate::partition::patiently;
use bytes::Bytes;
use nublar_ports::Log;
use nublar_ports::log::{From, LogError, Record, TailEvent};
use nublar_schemas::codec::Record as _;
use nublar_schemas::records::Setting;
use nublar_schemas::topics::SETTINGS;
use std::collections::HashMap;
use std::time::Duration;

/// What is known of a key.
struct Known {
    highest: i64,
    /// The record of that version.
    value: Bytes,
    /// The version that stands last.
    last: i64,
}

/// Never ends.
pub(crate) async fn keep_highest(log: &dyn Log) {
    loop {
        let mut tail = patiently(|| log.tail(SETTINGS.name, &[0], From::Earliest)).await;
        let mut known: HashMap<Bytes, Known> = HashMap::new();
        let mut caught_up = false;
        loop {
            match tail.next_patiently().await {
                Ok(TailEvent::Record(record)) => saw(&mut known, &record),
                Ok(TailEvent::CaughtUp { .. }) => caught_up = true,
                Err(LogError::OutOfRange { .. }) => break,
                Err(error) => {
                    tracing::warn!(topic = SETTINGS.name, %error, "reading goes on in a moment");
                    tokio::time::sleep(Duration::from_millis(300)).await;
                }
            }
            if !caught_up {
                // A higher version may still follow.
                continue;
            }
            let overtaken = |known: &Known| known.last < known.highest;
            for (key, known) in known.iter_mut().filter(|(_, known)| overtaken(known)) {
                repeat(log, key, known).await;
                known.last = known.highest;
            }
        }
    }
}

fn saw(known: &mut HashMap<Bytes, Known>, record: &Record) {
    let Ok(setting) = Setting::decode(&record.value) else {
        // Removed, or written by a newer program, which looks after it.
        known.remove(&record.key);
        return;
    };
    let version = setting.version;
    match known.get_mut(&record.key) {
        Some(known) if version < known.highest => known.last = version,
        _ => {
            let new = Known {
                highest: version,
                value: record.value.clone(),
                last: version,
            };
            known.insert(record.key.clone(), new);
        }
    }
}

async fn repeat(log: &dyn Log, key: &Bytes, known: &Known) {
    let (highest, last) = (known.highest, known.last);
    tracing::warn!(setting = %String::from_utf8_lossy(key), highest, last, "an older version was written behind a newer one, which is written again");
    patiently(|| log.append(SETTINGS.name, 0, key.clone(), known.value.clone())).await;
}
