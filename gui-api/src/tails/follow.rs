//! Reads a topic from some place on, through outages, until shutdown.

use crate::app::App;
use crate::refusal::{Answer, Refusal};
use nublar_ports::log::{From, LogError, Record, TailEvent};
use nublar_schemas::codec::CodecError;
use nublar_schemas::topics::Topic;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// How long a log that does not answer is left alone.
pub(super) const RETRY: Duration = Duration::from_millis(300);

/// How far a tail is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    Reading,
    Ready,
    /// A record that this program cannot read: everything after it is unknown.
    Broken(String),
}

/// Tells whether a tail has read what stood in its topic when it began.
#[derive(Debug)]
pub(crate) struct Progress {
    stage: watch::Sender<Stage>,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            stage: watch::Sender::new(Stage::Reading),
        }
    }
}

impl Progress {
    /// Waits until the tail has caught up.
    pub(crate) async fn ready(&self, what: &str, within: Duration) -> Answer<()> {
        let mut stage = self.stage.subscribe();
        let waited = timeout(within, stage.wait_for(|stage| *stage != Stage::Reading)).await;
        match waited {
            Ok(Ok(stage)) => match &*stage {
                Stage::Broken(error) => Err(Refusal::later(format!("{what}: {error}"))),
                Stage::Reading | Stage::Ready => Ok(()),
            },
            Ok(Err(_)) | Err(_) => Err(Refusal::later(format!("{what} is still being read"))),
        }
    }

    /// Whether the tail has caught up.
    pub(crate) fn is_ready(&self) -> bool {
        *self.stage.borrow() == Stage::Ready
    }
}

/// Gives every record from `start` on to `on`. A record of a newer program stops the tail for
/// good: what stands behind it may not be guessed.
pub(super) async fn follow(
    app: &App,
    topic: Topic,
    start: impl Fn() -> From,
    progress: &Progress,
    mut on: impl FnMut(Record) -> Result<(), CodecError>,
) {
    let mut from = start();
    loop {
        let followed = tokio::select! {
            () = app.shutdown.cancelled() => return,
            followed = once(app, topic, from, progress, &mut on) => followed,
        };
        match followed {
            Ended::Broken(error) => {
                tracing::error!(topic = topic.name, %error, "stopped reading");
                progress
                    .stage
                    .send_replace(Stage::Broken(error.to_string()));
                return;
            }
            Ended::Overtaken => from = From::Earliest,
            Ended::NotOpened(error) => {
                tracing::warn!(topic = topic.name, %error, "cannot be read, trying again");
                from = if matches!(error, LogError::OutOfRange { .. }) {
                    From::Earliest
                } else {
                    start()
                };
            }
        }
        tokio::select! {
            () = app.shutdown.cancelled() => return,
            () = sleep(RETRY) => {}
        }
    }
}

enum Ended {
    Broken(CodecError),
    Overtaken,
    NotOpened(LogError),
}

async fn once(
    app: &App,
    topic: Topic,
    from: From,
    progress: &Progress,
    on: &mut impl FnMut(Record) -> Result<(), CodecError>,
) -> Ended {
    let partitions: Vec<u32> = match app.log.partitions(topic.name).await {
        Ok(partitions) => (0..partitions).collect(),
        Err(error) => return Ended::NotOpened(error),
    };
    let mut tail = match app.log.tail(topic.name, &partitions, from).await {
        Ok(tail) => tail,
        Err(error) => return Ended::NotOpened(error),
    };
    let mut behind = partitions.len();
    loop {
        match tail.next().await {
            Ok(TailEvent::Record(record)) => {
                if let Err(error) = on(record) {
                    return Ended::Broken(error);
                }
            }
            Ok(TailEvent::CaughtUp { .. }) => {
                behind = behind.saturating_sub(1);
                if behind == 0 {
                    progress.stage.send_replace(Stage::Ready);
                }
            }
            Err(LogError::OutOfRange { .. }) => return Ended::Overtaken,
            Err(error) => {
                tracing::warn!(topic = topic.name, %error, "reading goes on in a moment");
                sleep(RETRY).await;
            }
        }
    }
}
