//! Lets bodies in: so many bytes at once, and none while workers are too far behind.

use crate::config::Config;
use crate::metrics::Metrics;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, timeout_at};

/// Bytes of one permit: a semaphore counts in 32 bits.
const UNIT: usize = 1024;

/// A body is held as it came and decrypted.
const COPIES: usize = 2;

/// What a POST asks for room as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Results in bulk.
    Bulk,
    /// Polls, enrolments, answers to questions: they have a reserve, and lag does not hold them.
    Urgent,
}

/// The budget. See the [module](self).
#[derive(Debug)]
pub(crate) struct Admission {
    bulk: Arc<Semaphore>,
    reserve: Arc<Semaphore>,
    bulk_units: usize,
    reserve_units: usize,
    pressed: watch::Receiver<bool>,
    metrics: Arc<Metrics>,
}

/// Room for one body; given back when dropped.
#[derive(Debug)]
pub(crate) struct Room {
    _permit: OwnedSemaphorePermit,
    bytes: i64,
    metrics: Arc<Metrics>,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.metrics.admitted_bytes.add(-self.bytes);
    }
}

impl Admission {
    pub(crate) fn new(
        config: &Config,
        pressed: watch::Receiver<bool>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let reserve_units = config.byte_reserve / UNIT;
        let bulk_units = (config.byte_budget.saturating_sub(config.byte_reserve) / UNIT).max(1);
        Self {
            bulk: Arc::new(Semaphore::new(bulk_units)),
            reserve: Arc::new(Semaphore::new(reserve_units)),
            bulk_units,
            reserve_units,
            pressed,
            metrics,
        }
    }

    /// Waits for room for a body of `bytes`; none if there was none in time.
    pub(crate) async fn enter(&self, lane: Lane, bytes: usize, until: Instant) -> Option<Room> {
        let mut pressed = self.pressed.clone();
        if lane == Lane::Bulk && *pressed.borrow() {
            self.metrics.held_back.inc();
            timeout_at(until, pressed.wait_for(|pressed| !pressed))
                .await
                .ok()?
                .ok()?;
        }
        let units = (bytes * COPIES).div_ceil(UNIT).max(1);
        // One body may always go in, however small the budget is.
        let of_bulk = units.min(self.bulk_units) as u32;
        let of_reserve = units.min(self.reserve_units) as u32;
        let permit = match self.bulk.clone().try_acquire_many_owned(of_bulk) {
            Ok(permit) => permit,
            Err(_) => {
                self.metrics.held_back.inc();
                let bulk = self.bulk.clone().acquire_many_owned(of_bulk);
                let entered = if lane == Lane::Urgent && self.reserve_units > 0 {
                    let reserve = self.reserve.clone().acquire_many_owned(of_reserve);
                    timeout_at(until, async {
                        tokio::select! { got = reserve => got, got = bulk => got }
                    })
                    .await
                } else {
                    timeout_at(until, bulk).await
                };
                entered.ok()?.ok()?
            }
        };
        let bytes = (units * UNIT) as i64;
        self.metrics.admitted_bytes.add(bytes);
        Some(Room {
            _permit: permit,
            bytes,
            metrics: self.metrics.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use std::time::Duration;

    fn admission(budget: usize, reserve: usize) -> (Admission, watch::Sender<bool>) {
        let config = Config {
            byte_budget: budget,
            byte_reserve: reserve,
            ..Config::default()
        };
        let (sender, pressed) = watch::channel(false);
        (Admission::new(&config, pressed, Arc::default()), sender)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(100)
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    #[tokio::test]
    async fn bulk_waits_for_room_and_urgent_has_a_reserve() {
        let (admission, _sender) = admission(128 << 10, 64 << 10);
        let first = admission.enter(Lane::Bulk, 32 << 10, soon()).await.unwrap();
        assert!(
            admission.enter(Lane::Bulk, 1, soon()).await.is_none(),
            "all is taken"
        );
        let urgent = admission
            .enter(Lane::Urgent, 32 << 10, soon())
            .await
            .unwrap();
        assert!(admission.enter(Lane::Urgent, 1, soon()).await.is_none());
        let (entered, ()) = tokio::join!(admission.enter(Lane::Bulk, 32 << 10, later()), async {
            drop(first)
        },);
        assert!(entered.is_some(), "it was held until there was room");
        drop((entered, urgent));
        assert_eq!(admission.metrics.admitted_bytes.get(), 0);
        assert!(
            admission
                .enter(Lane::Bulk, 10 << 20, soon())
                .await
                .is_some(),
            "alone it may"
        );
    }

    #[tokio::test]
    async fn lag_holds_bulk_alone() {
        let (admission, pressed) = admission(1 << 20, 0);
        pressed.send_replace(true);
        assert!(admission.enter(Lane::Bulk, 1, soon()).await.is_none());
        assert!(admission.enter(Lane::Urgent, 1, soon()).await.is_some());
        let (entered, _) = tokio::join!(admission.enter(Lane::Bulk, 1, later()), async {
            pressed.send_replace(false)
        },);
        assert!(entered.is_some());
    }
}
