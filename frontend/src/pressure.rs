//! Watches how far the workers are behind: what was answered 200 must be read before its topic
//! may delete it, so agents are held back when half of the retention is gone.

use crate::metrics::Metrics;
use nublar_ports::Log;
use nublar_schemas::topics::{self, Keep, Topic};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The data topics, each with the group that stores it.
const READ: [(Topic, &str); 3] = [
    (topics::RESULTS, "results"),
    (topics::UPLOADS, "uploads"),
    (topics::EVENTS, "events"),
];

/// Says `true` on `pressed` while any group is too far behind.
pub(crate) async fn watch(
    log: Arc<dyn Log>,
    retention: Option<Duration>,
    every: Duration,
    pressed: watch::Sender<bool>,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
) {
    loop {
        let mut late = false;
        for (topic, group) in READ {
            let keep = match (retention, topic.keep) {
                (Some(keep), _) | (None, Keep::For(keep)) => keep,
                (None, Keep::Newest) => continue,
            };
            match log.lag(group, topic.name).await {
                Ok(lags) => {
                    let oldest = lags.iter().filter_map(|lag| lag.oldest_unmarked).max();
                    if let Some(oldest) = oldest.filter(|oldest| *oldest > keep / 2) {
                        late = true;
                        tracing::warn!(group, oldest_s = oldest.as_secs(), "workers are behind");
                    }
                }
                // Not known is not late: nothing can be appended either while the log is away.
                Err(error) => tracing::debug!(group, %error, "lag is not known"),
            }
        }
        metrics.pressure.set(i64::from(late));
        pressed.send_if_modified(|was| std::mem::replace(was, late) != late);
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = shutdown.cancelled() => return,
        }
    }
}
