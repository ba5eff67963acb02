//! Group `seals`: once a flow has ended its whole files get their hash, beside what the agent says
//! that it is.
//!
//! It reads `state`, where every change of a flow's document stands, so that what comes after the
//! end is sealed too. A seal is a versioned document, named by its upload; its version is that of
//! the flow's document it was made for. Repeating it, or making it late, changes nothing.

use crate::batch::{Epochs, Marks, gather, mark};
use crate::lives::Lives;
use crate::persist::persist;
use crate::sealing::{Ended, refresh, seal};
use crate::{Ports, micros, now_us};
use nublar_core::ids::{FlowId, Life};
use nublar_ports::Membership;
use nublar_ports::log::{Lag, Record};
use nublar_schemas::codec::{CodecError, Record as _};
use nublar_schemas::records::Document;
use nublar_schemas::topics::{RESULTS, UPLOADS};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const BATCH_RECORDS: usize = 512;
/// What is read so long after it was written is read late, or again.
const LATE: Duration = Duration::from_secs(60);
/// How often it is looked whether the workers have come as far.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

pub(crate) async fn run(ports: Ports, lives: Arc<Lives>, shutdown: CancellationToken) {
    let mut member = Membership::join(ports.log.clone(), "seals", "state", shutdown.clone());
    let mut epochs = Epochs::new();
    while let Some(batch) = gather(&mut member, &mut epochs, BATCH_RECORDS, &shutdown).await {
        let (ended, marks) = sort(batch, &mut epochs);
        let sealing = async {
            if !ended.is_empty() {
                wait_for_files(&ports, &ended).await;
                refresh(&ports).await;
            }
            for ended in ended.into_values() {
                seal(&ports, &lives, &ended).await;
            }
        };
        tokio::select! {
            biased;
            () = sealing => {
                mark(&member, marks);
            }
            // A file may have terabytes: it is begun anew by whoever comes next.
            () = shutdown.cancelled() => break,
        }
    }
    member.flush().await;
}

/// A flow ends after all that it brought is stored. When topics are read again its end may come
/// before that: then what was sent before it is waited for.
async fn wait_for_files(ports: &Ports, ended: &BTreeMap<(Life, FlowId), Ended>) {
    for topic in [RESULTS.name, UPLOADS.name] {
        loop {
            let late_us = now_us() - micros(LATE);
            let late: Vec<_> = ended.values().filter(|one| one.at_us < late_us).collect();
            if late.is_empty() {
                return;
            }
            let lags = persist("log", || ports.log.lag(topic, topic)).await;
            let is_behind = |lag: &Lag| {
                let oldest_us = lag.oldest_unmarked.map(|age| now_us() - micros(age));
                let mut here = late.iter().filter(|one| one.partition == lag.partition);
                here.any(|one| oldest_us.is_some_and(|oldest_us| oldest_us < one.at_us))
            };
            if !lags.iter().any(is_behind) {
                break;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

/// The newest document of each flow of the batch that has ended and has files, and what may be
/// marked when they are sealed.
fn sort(batch: Vec<Record>, epochs: &mut Epochs) -> (BTreeMap<(Life, FlowId), Ended>, Marks) {
    let (mut flows, mut marks) = (BTreeMap::new(), Marks::new());
    for record in batch {
        let Some(epoch) = epochs.get(&record.partition).copied() else {
            continue;
        };
        match Document::decode(&record.value) {
            Ok(document) => {
                if let Some(ended) = ended(&document, record.partition) {
                    flows.insert((ended.life.clone(), ended.flow.clone()), ended);
                }
            }
            Err(error @ CodecError::UnknownFingerprint(_)) => {
                tracing::error!(partition = record.partition, %error, "halting the partition");
                epochs.remove(&record.partition);
                continue;
            }
            // The group `state` says what is wrong with it.
            Err(_) => {}
        }
        let next = record.position.after();
        marks.insert(record.partition, (epoch, next));
    }
    (flows, marks)
}

/// What matters here of a flow's document.
#[derive(Deserialize)]
struct Body {
    flow_id: FlowId,
    state: String,
    #[serde(default)]
    total_uploaded_files: u64,
    #[serde(default)]
    total_uploaded_bytes: u64,
}

fn ended(document: &Document, partition: u32) -> Option<Ended> {
    if document.kind != "flow" {
        return None;
    }
    let body: Body = serde_json::from_str(&document.body).ok()?;
    let has_ended = matches!(body.state.as_str(), "FINISHED" | "ERROR");
    let has_files = body.total_uploaded_files > 0 || body.total_uploaded_bytes > 0;
    if !has_ended || !has_files {
        return None;
    }
    Some(Ended {
        life: Life::of(&document.header).ok()?,
        flow: body.flow_id,
        version: document.version.unsigned_abs(),
        partition,
        at_us: document.header.at_us,
    })
}
