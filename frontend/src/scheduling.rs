//! Appends the frontend's own records to `scheduling`, and tries again for as long as it matters.

use bytes::Bytes;
use nublar_core::ids::ClientKey;
use nublar_core::partition;
use nublar_ports::Log;
use nublar_ports::log::LogError;
use nublar_schemas::records::Scheduling;
use nublar_schemas::topics::SCHEDULING;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const RETRY: Duration = Duration::from_millis(250);

/// Appends in the background. See the [module](self).
pub(crate) struct Appender {
    pub(crate) log: Arc<dyn Log>,
    /// Partitions of clients.
    pub(crate) partitions: u32,
    pub(crate) tracker: TaskTracker,
    pub(crate) shutdown: CancellationToken,
}

impl Appender {
    /// The record takes its place at once. After a failure `again` says whether to try again.
    pub(crate) fn append(
        &self,
        record: &Scheduling,
        client: ClientKey,
        again: impl Fn(&ClientKey) -> bool + Send + 'static,
    ) {
        let value: Bytes = match record.encode() {
            Ok(value) => value.into(),
            Err(error) => {
                tracing::error!(%client, %error, "a record for scheduling can not be encoded");
                return;
            }
        };
        let partition = partition::of_client(&client, self.partitions);
        let key: Bytes = client.client.to_string().into();
        let (log, shutdown) = (self.log.clone(), self.shutdown.clone());
        let append = move || log.append(SCHEDULING.name, partition, key.clone(), value.clone());
        let first = append();
        self.tracker.spawn(async move {
            let mut result = first.await;
            while let Err(error) = result {
                warn(&client, &error);
                if !again(&client) {
                    return;
                }
                tokio::select! {
                    () = sleep(RETRY) => {}
                    () = shutdown.cancelled() => return,
                }
                result = append().await;
            }
        });
    }
}

fn warn(client: &ClientKey, error: &LogError) {
    tracing::warn!(%client, %error, "a record for scheduling was not appended");
}
