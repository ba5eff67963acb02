//! Keys of agents, made once and kept: making one takes a processor for tens of milliseconds.

use crate::error::SimError;
use futures::{StreamExt, TryStreamExt};
use nublar_wire::AgentKey;
use std::path::{Path, PathBuf};

/// `count` keys. Those in `folder` are taken first, and what is made is kept there.
///
/// Errors: a file that can not be read or written, or that holds no key.
pub async fn agent_keys(folder: Option<&Path>, count: usize) -> Result<Vec<AgentKey>, SimError> {
    if let Some(folder) = folder {
        std::fs::create_dir_all(folder).map_err(SimError::io(format!(
            "make the folder {}",
            folder.display()
        )))?;
    }
    let at_once = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let keys = (0..count).map(|number| {
        let file = folder.map(|folder| folder.join(format!("agent-{number:06}.pem")));
        async move {
            let made = tokio::task::spawn_blocking(move || one(file)).await;
            made.map_err(|error| SimError::Timeout(format!("making a key: {error}")))?
        }
    });
    futures::stream::iter(keys)
        .buffered(at_once)
        .try_collect()
        .await
}

fn one(file: Option<PathBuf>) -> Result<AgentKey, SimError> {
    let Some(file) = file else {
        return Ok(AgentKey::generate()?);
    };
    if let Ok(pem) = std::fs::read(&file) {
        return Ok(AgentKey::from_pem(&pem)?);
    }
    let key = AgentKey::generate()?;
    // Whoever is interrupted here leaves no half of a key.
    let draft = file.with_extension("new");
    std::fs::write(&draft, key.to_pem()?)
        .and_then(|()| std::fs::rename(&draft, &file))
        .map_err(SimError::io(format!("keep the key {}", file.display())))?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn keys_are_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let ids = |keys: Vec<AgentKey>| {
            keys.iter()
                .map(|key| key.client_id().to_owned())
                .collect::<Vec<_>>()
        };
        let first = ids(agent_keys(Some(folder.path()), 2).await.unwrap());
        let again = ids(agent_keys(Some(folder.path()), 3).await.unwrap());
        assert_eq!(again[..2], first);
        assert_ne!(again[2], again[1]);
    }
}
