//! The fold's state in Objects: immutable, named by generation, partition, position and logic.

use crate::{ForemanError, Ports};
use nublar_core::fold::{Fold, FoldConfig, LOGIC, SnapshotError};
use nublar_ports::log::Position;
use nublar_ports::objects::ObjectsError;
use nublar_schemas::codec::Record;
use nublar_schemas::records::Snapshot;
use std::sync::Arc;
use std::time::Duration;

const KEEP: usize = 4;
const LARGEST: usize = 1 << 30;

fn folder(generation: u16, partition: u32) -> String {
    format!("snapshots/g{generation:05}/p{partition:05}/")
}

/// The newest state that is not beyond the mark, and the first record that is not in it.
pub(crate) async fn newest(
    ports: &Ports,
    config: &Arc<FoldConfig>,
    partition: u32,
    mark: Position,
) -> Result<(Fold, Position), ForemanError> {
    let begin = Position { offset: 0, ..mark };
    let mut fold = (Fold::new(config.clone()), begin);
    for name in names(ports, mark.generation, partition)
        .await
        .into_iter()
        .rev()
    {
        let Some(next) = position_in(&name).filter(|next| *next <= mark.offset) else {
            continue;
        };
        let bytes = patiently(|| ports.objects.get(&name, None)).await;
        match read(config, &bytes) {
            Ok(state) => {
                fold = (
                    state,
                    Position {
                        offset: next,
                        ..mark
                    },
                );
                break;
            }
            Err(Unusable::Snapshot(source)) => {
                return Err(ForemanError::Snapshot { partition, source });
            }
            Err(Unusable::Damaged(error)) => {
                tracing::error!(
                    partition,
                    name,
                    error,
                    "damaged snapshot, taking an older one"
                );
            }
        }
    }
    Ok(fold)
}

enum Unusable {
    Snapshot(SnapshotError),
    Damaged(String),
}

fn read(config: &Arc<FoldConfig>, bytes: &[u8]) -> Result<Fold, Unusable> {
    let damaged = |error: &dyn std::fmt::Display| Unusable::Damaged(error.to_string());
    let snapshot = Snapshot::decode(bytes).map_err(|error| damaged(&error))?;
    let body = zstd::bulk::decompress(&snapshot.body, LARGEST).map_err(|error| damaged(&error))?;
    Fold::restore(config.clone(), snapshot.logic, &body).map_err(Unusable::Snapshot)
}

/// Writes the state that holds everything before `next`. A snapshot that fails is made up for by
/// the next one.
pub(crate) async fn write(
    ports: Ports,
    partition: u32,
    next: Position,
    state: Result<Vec<u8>, SnapshotError>,
) {
    let name = format!(
        "{}{:020}-l{LOGIC}",
        folder(next.generation, partition),
        next.offset
    );
    let result = async {
        let body = state.map_err(|error| error.to_string())?;
        let body = zstd::bulk::compress(&body, 3).map_err(|error| error.to_string())?;
        let snapshot = Snapshot {
            partition: i32::try_from(partition).unwrap_or(i32::MAX),
            log_generation: i64::from(next.generation),
            next_offset: i64::try_from(next.offset).unwrap_or(i64::MAX),
            logic: LOGIC,
            body: body.into(),
        };
        let bytes = snapshot.encode().map_err(|error| error.to_string())?;
        ports
            .objects
            .put(&name, bytes.into())
            .await
            .map_err(|error| error.to_string())
    };
    match result.await {
        Ok(()) => tracing::debug!(partition, name, "snapshot"),
        Err(error) => return tracing::warn!(partition, name, error, "no snapshot"),
    }
    let old = names(&ports, next.generation, partition).await;
    for name in old.iter().rev().skip(KEEP) {
        if let Err(error) = ports.objects.delete(name).await {
            tracing::debug!(partition, name, %error, "an old snapshot stays");
        }
    }
}

fn position_in(name: &str) -> Option<u64> {
    let file = name.rsplit('/').next()?;
    file.split('-').next()?.parse().ok()
}

/// Names of the partition's snapshots, oldest first.
async fn names(ports: &Ports, generation: u16, partition: u32) -> Vec<String> {
    let folder = folder(generation, partition);
    let entries = patiently(|| ports.objects.list(&folder, None, 1_000)).await;
    entries.into_iter().map(|entry| entry.key).collect()
}

async fn patiently<T, F>(mut attempt: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, ObjectsError>>,
{
    let mut wait = Duration::from_millis(50);
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(error) => tracing::warn!(%error, "snapshots cannot be read, trying again"),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(5));
    }
}
