//! Tails the topic `tasks` from now on: what is due to offline agents stays with the foreman.

use crate::deliver::Deliveries;
use crate::metrics::Metrics;
use nublar_ports::Log;
use nublar_ports::log::{From, LogError, TailEvent};
use nublar_schemas::records::Tasks;
use nublar_schemas::topics::TASKS;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

const RETRY: Duration = Duration::from_millis(200);

/// Reads until the shutdown; says `true` on `reading` once nothing is missed any more.
pub(crate) async fn run(
    log: Arc<dyn Log>,
    partitions: u32,
    deliveries: Arc<Deliveries>,
    metrics: Arc<Metrics>,
    reading: watch::Sender<bool>,
    shutdown: CancellationToken,
) {
    let partitions: Vec<u32> = (0..partitions).collect();
    let work = async {
        loop {
            let error = match read(&*log, &partitions, &deliveries, &metrics, &reading).await {
                Err(error) => error,
                Ok(never) => match never {},
            };
            tracing::warn!(%error, "tasks can not be read, beginning anew");
            sleep(RETRY).await;
        }
    };
    tokio::select! {
        () = work => {}
        () = shutdown.cancelled() => {}
    }
}

/// Returns when the tail is of no more use.
async fn read(
    log: &dyn Log,
    partitions: &[u32],
    deliveries: &Arc<Deliveries>,
    metrics: &Metrics,
    reading: &watch::Sender<bool>,
) -> Result<std::convert::Infallible, LogError> {
    let mut tail = log.tail(TASKS.name, partitions, From::Now).await?;
    if reading.send_replace(true) {
        // Not the first one: between the two something may have been missed.
        metrics.tasks_lost.inc();
        deliveries.begin_anew();
    }
    loop {
        match tail.next_patiently().await? {
            TailEvent::Record(record) => match Tasks::decode(&record.value) {
                Ok(task) => deliveries.task(&task),
                Err(error) => {
                    // Whatever it is, the foreman comes back to it at the next check-in.
                    metrics.tasks_skipped.inc();
                    tracing::error!(partition = record.partition, %error, "task record skipped");
                }
            },
            TailEvent::CaughtUp { .. } => {}
        }
    }
}
