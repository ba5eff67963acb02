//! Reading topics again, to fill an index that is new, empty or was made wrong.

use crate::cli::times::duration;
use crate::config::Config;
use crate::setup;
use anyhow::{Context, Result};
use clap::ValueEnum;
use nublar_schemas::topics;
use std::path::PathBuf;

/// A topic whose records become documents.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Topic {
    /// Rows and log lines
    Results,
    /// Files
    Uploads,
    /// What clients tell by themselves
    Events,
    /// Flows and clients; the hashes of files are checked again
    State,
    /// What could not be taken
    DeadLetters,
}

impl Topic {
    fn topic(self) -> topics::Topic {
        match self {
            Self::Results => topics::RESULTS,
            Self::Uploads => topics::UPLOADS,
            Self::Events => topics::EVENTS,
            Self::State => topics::STATE,
            Self::DeadLetters => topics::DEAD_LETTERS,
        }
    }
}

/// Takes the marks of whoever reads these topics, or all of them, back to the oldest record that is
/// kept.
pub(crate) async fn execute(config: &Config, wanted: &[Topic]) -> Result<()> {
    let data = config.data.clone().unwrap_or_else(|| PathBuf::from("."));
    let storage = config.storage.open(&data)?;
    setup::prepare(config, &storage).await?;
    let wanted = if wanted.is_empty() {
        Topic::value_variants()
    } else {
        wanted
    };
    for topic in wanted.iter().map(|topic| topic.topic()) {
        for group in setup::groups(topic.name) {
            let log = storage.log.as_ref();
            let rewound = log.rewind(&group, topic.name).await;
            rewound.with_context(|| format!("topic {} cannot be read again", topic.name))?;
            let lags = log.lag(&group, topic.name).await?;
            let records = lags.iter().map(|lag| lag.end.offset - lag.mark.offset);
            let oldest = lags.iter().filter_map(|lag| lag.oldest_unmarked).max();
            println!(
                "{group} will read {} again: at most {} records, the oldest {}",
                topic.name,
                records.sum::<u64>(),
                oldest.map_or_else(
                    || "is still to come".to_owned(),
                    |age| format!("{} old", duration(age.as_secs_f64())),
                ),
            );
        }
    }
    println!("start the server again; `nublar topics` shows how far it is");
    Ok(())
}
