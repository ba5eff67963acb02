//! One frontend while it runs: the parts, put together.

use crate::admission::Admission;
use crate::allowance::Allowances;
use crate::authenticate::Authenticator;
use crate::config::Config;
use crate::deliver::Deliveries;
use crate::health::Health;
use crate::identity::Identity;
use crate::metrics::Metrics;
use crate::peer::Peer;
use crate::public::Public;
use crate::requests::Requests;
use crate::store::Store;
use crate::url_check::UrlCheck;
use nublar_core::delivery::Item;
use nublar_core::ids::ClientKey;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// What every request needs.
pub(crate) struct Front {
    pub(crate) config: Config,
    pub(crate) name: String,
    pub(crate) identity: Arc<Identity>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) admission: Admission,
    pub(crate) allowances: Allowances,
    pub(crate) health: Arc<Health>,
    pub(crate) authenticator: Authenticator,
    pub(crate) store: Store,
    pub(crate) deliveries: Arc<Deliveries>,
    pub(crate) requests: Requests,
    pub(crate) public: Public,
    pub(crate) url_check: UrlCheck,
    /// Polls end, nothing new is accepted.
    pub(crate) closing: CancellationToken,
}

/// One connection of an agent, or of a proxy with many.
pub(crate) struct Connection {
    pub(crate) peer: Peer,
    handed: Mutex<Vec<Handed>>,
    /// Given back when nobody uses the connection any more.
    _place: Place,
}

/// What lies in the buffers of a living connection for longer than this has arrived.
const IN_DOUBT: Duration = Duration::from_secs(30);

/// What was handed to the connection and may still lie in its buffers.
pub(crate) struct Handed {
    pub(crate) at: Instant,
    pub(crate) client: ClientKey,
    pub(crate) generation: i64,
    pub(crate) poll: i64,
    pub(crate) items: Vec<Item>,
}

/// One of the connections that there may be.
pub(crate) struct Place {
    metrics: Arc<Metrics>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Place {
    pub(crate) fn new(metrics: Arc<Metrics>, permit: Option<OwnedSemaphorePermit>) -> Self {
        metrics.connections.inc();
        Self {
            metrics,
            _permit: permit,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.metrics.connections.add(-1);
    }
}

impl Front {
    /// Holds the answer to an agent that sends too much; not when the frontend ends.
    pub(crate) async fn hold_back(&self, wait: Duration) {
        if wait.is_zero() {
            return;
        }
        self.metrics.flood_held.inc();
        let milliseconds = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
        self.metrics.flood_held_ms.add(milliseconds);
        tokio::select! {
            () = sleep(wait) => {}
            () = self.closing.cancelled() => {}
        }
    }

    /// The connection broke: what was written to it last may or may not have arrived.
    pub(crate) fn in_doubt(&self, connection: &Connection) {
        for handed in connection.broke() {
            self.deliveries.failed(
                &handed.client,
                handed.poll,
                handed.generation,
                handed.items,
                true,
            );
        }
    }
}

impl Connection {
    pub(crate) fn new(peer: Peer, place: Place) -> Self {
        Self {
            peer,
            handed: Mutex::default(),
            _place: place,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Handed>> {
        self.handed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn hand_over(&self, handed: Handed) {
        let mut all = self.lock();
        all.retain(|older| older.at.elapsed() < IN_DOUBT);
        all.push(handed);
    }

    /// The client polls again: it has had its last answer.
    pub(crate) fn came_back(&self, client: &ClientKey) {
        self.lock().retain(|handed| handed.client != *client);
    }

    /// Everything that may not have left when the connection broke.
    pub(crate) fn broke(&self) -> Vec<Handed> {
        let mut all = std::mem::take(&mut *self.lock());
        all.retain(|handed| handed.at.elapsed() < IN_DOUBT);
        all
    }
}
