//! Waiting for what stands behind the ports: each says what is wrong, and is tried again until it
//! answers. Nothing is lost by waiting: what people and agents were not answered, they send again.

use crate::config::Config;
use crate::setup;
use anyhow::Result;
use nublar_ports::index::{Collection, IndexError};
use nublar_ports::log::{LogError, TopicSpec};
use nublar_ports::objects::ObjectsError;
use nublar_ports::storage::{IndexConfig, LogConfig, ObjectsConfig};
use nublar_ports::{Log, Storage};
use nublar_schemas::topics::SCHEDULING;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Between two attempts, at first and at last.
const FIRST: Duration = Duration::from_millis(250);
const LAST: Duration = Duration::from_secs(10);
/// How often the same trouble is told.
const TOLD_EVERY: Duration = Duration::from_secs(30);

/// How an attempt failed.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// No answer, or none that helps: it may come.
    Silent(anyhow::Error),
    /// The answer is no. A person may change that while this process waits.
    Refused(anyhow::Error),
    /// What this process was started with is wrong: it must be started anew.
    Final(anyhow::Error),
}

impl From<LogError> for Trouble {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Unavailable(_) | LogError::Full(_) => Self::Silent(error.into()),
            _ => Self::Refused(error.into()),
        }
    }
}

impl From<IndexError> for Trouble {
    fn from(error: IndexError) -> Self {
        match error {
            IndexError::Unavailable(_) | IndexError::Full(_) => Self::Silent(error.into()),
            IndexError::Refused(_) => Self::Refused(error.into()),
        }
    }
}

impl From<ObjectsError> for Trouble {
    fn from(error: ObjectsError) -> Self {
        match error {
            ObjectsError::Unavailable(_) | ObjectsError::Full(_) => Self::Silent(error.into()),
            _ => Self::Refused(error.into()),
        }
    }
}

/// One of the three, for what is said of it.
#[derive(Debug, Clone, Copy)]
struct Service {
    name: &'static str,
    /// What is embedded does not come by waiting.
    embedded: bool,
}

impl Service {
    /// Tries until it succeeds.
    async fn until<F>(self, mut attempt: impl FnMut() -> F) -> Result<()>
    where
        F: Future<Output = Result<(), Trouble>>,
    {
        let name = self.name;
        let mut wait = FIRST;
        let mut told: Option<(Instant, bool)> = None;
        loop {
            let (error, refused) = match attempt().await {
                Ok(()) => {
                    if told.is_some() {
                        tracing::info!("{name}: answers now");
                    }
                    return Ok(());
                }
                Err(Trouble::Final(error)) => return Err(error),
                Err(Trouble::Silent(error) | Trouble::Refused(error)) if self.embedded => {
                    return Err(error.context(format!("cannot prepare the {name}")));
                }
                Err(Trouble::Silent(error)) => (error, false),
                Err(Trouble::Refused(error)) => (error, true),
            };
            let new = told.is_none_or(|(at, same)| same != refused || at.elapsed() >= TOLD_EVERY);
            if new {
                let advice = if refused {
                    String::new()
                } else {
                    format!("; start it, or start this with its address in [storage.{name}]")
                };
                tracing::error!("{error:#}{advice}; trying again until it answers");
                told = Some((Instant::now(), refused));
            }
            sleep(wait).await;
            wait = (wait * 2).min(LAST);
        }
    }
}

/// What stands behind the ports, to be waited for.
#[derive(Clone)]
pub(crate) struct Services {
    storage: Storage,
    log: Service,
    index: Service,
    objects: Service,
}

impl Services {
    pub(crate) fn new(config: &Config, storage: &Storage) -> Self {
        let service = |name, embedded| Service { name, embedded };
        Self {
            storage: storage.clone(),
            log: service("log", config.storage.log == LogConfig::Embedded),
            index: service("index", config.storage.index == IndexConfig::Embedded),
            objects: service("objects", config.storage.objects == ObjectsConfig::Embedded),
        }
    }

    /// Makes all that is missing in the three, as soon as they answer.
    ///
    /// # Errors
    /// What waiting does not mend: topics with another number of partitions, trouble with what is
    /// embedded.
    pub(crate) async fn prepared(&self, config: &Config) -> Result<()> {
        let specs = setup::specs(config.partitions());
        let log = self.log.until(async || {
            let log = self.storage.log.as_ref();
            match log.declare(&specs).await {
                Err(LogError::Refused(text)) if has_other_partitions(log, &specs).await => {
                    Err(Trouble::Final(LogError::Refused(text).into()))
                }
                declared => Ok(declared?),
            }
        });
        let index = self
            .index
            .until(async || Ok(self.storage.index.prepare().await?));
        let objects = self
            .objects
            .until(async || Ok(self.storage.objects.prepare().await?));
        tokio::try_join!(log, index, objects)?;
        Ok(())
    }

    /// Waits until the log has its topics.
    pub(crate) async fn log(&self) -> Result<()> {
        self.log
            .until(async || {
                Ok(self
                    .storage
                    .log
                    .partitions(SCHEDULING.name)
                    .await
                    .map(drop)?)
            })
            .await
    }

    /// Waits until the index lets one read.
    pub(crate) async fn index(&self) -> Result<()> {
        let read = async || {
            let read = self.storage.index.get(Collection::Clients, "", None, "-");
            Ok(read.await.map(drop)?)
        };
        self.index.until(read).await
    }

    /// Waits until the objects let one list.
    pub(crate) async fn objects(&self) -> Result<()> {
        let list = async || Ok(self.storage.objects.list("-", None, 1).await.map(drop)?);
        self.objects.until(list).await
    }
}

/// Whether a topic is there with another number of partitions, which never changes.
async fn has_other_partitions(log: &dyn Log, specs: &[TopicSpec]) -> bool {
    for spec in specs {
        if let Ok(partitions) = log.partitions(&spec.name).await
            && partitions != spec.partitions
        {
            return true;
        }
    }
    false
}
