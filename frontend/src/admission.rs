//! Lets bodies in: so many bytes at once, and none while workers are too far behind.

use crate::config::Config;
use crate::metrics::Metrics;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

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
    permit: OwnedSemaphorePermit,
    of: Arc<Semaphore>,
    /// All there is: one body may always go in, however small the budget is.
    units: usize,
    metrics: Arc<Metrics>,
}

fn units(bytes: usize) -> usize {
    (bytes * COPIES).div_ceil(UNIT).max(1)
}

impl Room {
    /// Gives back what a body that comes slowly does not fill yet.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        let spare = self.permit.num_permits().saturating_sub(units(bytes));
        if let Some(spare) = self.permit.split(spare) {
            self.metrics
                .admitted_bytes
                .add(-((spare.num_permits() * UNIT) as i64));
        }
    }

    /// Takes as much as a body of `bytes` needs; whether there was enough in time.
    pub(crate) async fn grow(&mut self, bytes: usize, until: Instant) -> bool {
        let wanted = units(bytes).min(self.units);
        let missing = wanted.saturating_sub(self.permit.num_permits()) as u32;
        if missing == 0 {
            return true;
        }
        match timeout_at(until, self.of.clone().acquire_many_owned(missing)).await {
            Ok(Ok(more)) => {
                self.metrics
                    .admitted_bytes
                    .add(i64::from(missing) * UNIT as i64);
                self.permit.merge(more);
                true
            }
            _ => false,
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let bytes = self.permit.num_permits() * UNIT;
        self.metrics.admitted_bytes.add(-(bytes as i64));
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
        let units = units(bytes);
        let of_bulk = units.min(self.bulk_units) as u32;
        let of_reserve = units.min(self.reserve_units) as u32;
        let in_bulk = |permit| self.room(permit, &self.bulk, self.bulk_units);
        let in_reserve = |permit| self.room(permit, &self.reserve, self.reserve_units);
        if let Ok(permit) = self.bulk.clone().try_acquire_many_owned(of_bulk) {
            return Some(in_bulk(permit));
        }
        self.metrics.held_back.inc();
        let bulk = self.bulk.clone().acquire_many_owned(of_bulk);
        if lane == Lane::Bulk || self.reserve_units == 0 {
            return timeout_at(until, bulk).await.ok()?.ok().map(in_bulk);
        }
        let reserve = self.reserve.clone().acquire_many_owned(of_reserve);
        tokio::select! {
            permit = reserve => permit.ok().map(in_reserve),
            permit = bulk => permit.ok().map(in_bulk),
            () = sleep_until(until) => None,
        }
    }

    fn room(&self, permit: OwnedSemaphorePermit, of: &Arc<Semaphore>, units: usize) -> Room {
        let bytes = permit.num_permits() * UNIT;
        self.metrics.admitted_bytes.add(bytes as i64);
        Room {
            permit,
            of: of.clone(),
            units,
            metrics: self.metrics.clone(),
        }
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
    async fn a_slow_body_holds_only_what_has_come() {
        let (admission, _sender) = admission(64 << 10, 0);
        let mut slow = admission.enter(Lane::Bulk, 32 << 10, soon()).await.unwrap();
        slow.shrink(1 << 10);
        assert_eq!(admission.metrics.admitted_bytes.get(), 2 << 10);
        let other = admission.enter(Lane::Bulk, 20 << 10, soon()).await.unwrap();
        assert!(slow.grow(8 << 10, soon()).await);
        assert!(!slow.grow(32 << 10, soon()).await);
        drop(other);
        assert!(slow.grow(32 << 10, soon()).await);
        drop(slow);
        assert_eq!(admission.metrics.admitted_bytes.get(), 0);
        assert_eq!(admission.bulk.available_permits(), 64);
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
