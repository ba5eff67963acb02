//! One partition: take over, fold, put out, mark.

use crate::outputs::{Outgoing, append_all};
use crate::{Config, ForemanError, Ports, now_us, snapshots};
use bytes::Bytes;
use nublar_core::fold::{Fold, FoldConfig, Output, version};
use nublar_ports::Membership;
use nublar_ports::log::{From, LogError, Position, Record, Tail, TailEvent};
use nublar_schemas::records::{Header, Notifications, Scheduling, Tick};
use nublar_schemas::topics::{NOTIFICATIONS, SCHEDULING};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// A partition that is ours.
pub(crate) struct Partition {
    partition: u32,
    epoch: u64,
    fold: Fold,
    news_partitions: u32,
    /// The first record that was not folded.
    next: Position,
    /// Epoch of our ticks: higher than any before.
    tick_epoch: i64,
    last_tick: Instant,
    last_snapshot: Instant,
    since_snapshot: u64,
    /// The snapshot that is being written: nobody waits for its store.
    writing: JoinSet<()>,
}

impl Partition {
    /// Brings the state to the mark without a word: all that its records caused is acknowledged.
    pub(crate) async fn take_over(
        partition: u32,
        epoch: u64,
        mark: Position,
        config: Arc<FoldConfig>,
        ports: &Ports,
    ) -> Result<Self, ForemanError> {
        let news_partitions = patiently(|| ports.log.partitions(NOTIFICATIONS.name)).await;
        let (fold, next) = snapshots::newest(ports, &config, partition, mark).await?;
        let mut state = Self {
            partition,
            epoch,
            fold,
            news_partitions,
            next,
            tick_epoch: 0,
            last_tick: Instant::now(),
            last_snapshot: Instant::now(),
            since_snapshot: 0,
            writing: JoinSet::new(),
        };
        state.replay_to(mark, ports).await?;
        state.tick_epoch = now_us().max(state.fold.epoch() + 1);
        Ok(state)
    }

    async fn replay_to(&mut self, mark: Position, ports: &Ports) -> Result<(), ForemanError> {
        while self.next < mark {
            let mut tail = self.tail(ports).await?;
            loop {
                match tail.next().await {
                    Ok(TailEvent::Record(record)) if record.position < mark => {
                        self.fold_record(&record)?;
                    }
                    Ok(TailEvent::Record(_) | TailEvent::CaughtUp { .. }) => {
                        // Everything before the mark stood there when the tail was opened.
                        self.next = mark;
                        break;
                    }
                    Err(LogError::OutOfRange { earliest }) => return Err(self.gap(earliest)),
                    Err(error) => {
                        tracing::warn!(partition = self.partition, %error, "reading again");
                        tokio::time::sleep(Duration::from_millis(200)).await;
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    async fn tail(&self, ports: &Ports) -> Result<Box<dyn Tail>, ForemanError> {
        let from = From::Position(self.next);
        loop {
            match ports
                .log
                .tail(SCHEDULING.name, &[self.partition], from)
                .await
            {
                Ok(tail) => return Ok(tail),
                Err(LogError::OutOfRange { earliest }) => return Err(self.gap(earliest)),
                Err(error) => {
                    tracing::warn!(partition = self.partition, %error, "cannot read, trying again");
                    tokio::time::sleep(Duration::from_millis(300)).await;
                }
            }
        }
    }

    fn gap(&self, earliest: Position) -> ForemanError {
        ForemanError::Gap {
            partition: self.partition,
            from: self.next.offset,
            earliest: earliest.offset,
        }
    }

    /// How many clients the partition holds.
    pub(crate) fn clients(&self) -> usize {
        self.fold.clients()
    }

    /// Folds one record and returns what it caused.
    fn fold_record(&mut self, record: &Record) -> Result<Vec<Output>, ForemanError> {
        let unreadable = |source| ForemanError::Unreadable {
            partition: record.partition,
            offset: record.position.offset,
            source,
        };
        let input = Scheduling::decode(&record.value).map_err(unreadable)?;
        self.next = record.position.after();
        self.since_snapshot += 1;
        Ok(self.fold.apply(
            version(record.position.generation, record.position.offset),
            &input,
        ))
    }

    /// Folds a batch, puts out what it caused, and marks it when all of that is acknowledged.
    pub(crate) async fn fold_batch(
        &mut self,
        batch: VecDeque<Record>,
        ports: &Ports,
        member: &Membership,
        config: &Config,
    ) -> Result<(), ForemanError> {
        let mut outgoing = VecDeque::new();
        for record in batch {
            if record.position < self.next {
                continue;
            }
            let outputs = self.fold_record(&record)?;
            for output in outputs {
                tell_of_conflict(&output);
                match Outgoing::of(&output, self.partition, self.news_partitions) {
                    Ok(out) => outgoing.push_back(out),
                    Err(error) => {
                        tracing::error!(partition = self.partition, %error, "an output cannot be encoded")
                    }
                }
            }
        }
        let ours = (self.partition, self.epoch);
        if !append_all(ports.log.as_ref(), outgoing, Some(member), ours).await {
            return Err(ForemanError::Revoked(self.partition));
        }
        member.mark(self.partition, self.epoch, self.next);
        while self.writing.try_join_next().is_some() {}
        let old = self.last_snapshot.elapsed() >= Duration::from_secs(config.snapshot_s);
        let due =
            self.since_snapshot >= config.snapshot_records || (old && self.since_snapshot > 0);
        if due && self.writing.is_empty() {
            member.flush().await;
            let (ports, state) = (ports.clone(), self.fold.snapshot());
            let write = snapshots::write(ports, self.partition, self.next, state);
            self.writing.spawn(write);
            (self.last_snapshot, self.since_snapshot) = (Instant::now(), 0);
        }
        Ok(())
    }

    /// Appends a tick when time matters. It comes back to us as a record like any other.
    pub(crate) fn tick(
        &mut self,
        ports: &Ports,
    ) -> Option<impl Future<Output = (u32, Result<Position, LogError>)> + use<>> {
        let elapsed = self.last_tick.elapsed();
        self.last_tick = Instant::now();
        if !self.fold.timer_armed() {
            return None;
        }
        let wall_us = now_us();
        let tick = Tick {
            header: Header {
                at_us: wall_us,
                frontend: "foreman".to_owned(),
                ..Header::default()
            },
            epoch: self.tick_epoch,
            elapsed_ms: i64::try_from(elapsed.as_millis())
                .unwrap_or(i64::MAX)
                .min(5_000),
            wall_us,
        };
        let value = Scheduling::from(tick).encode().ok()?;
        let append = ports
            .log
            .append(SCHEDULING.name, self.partition, Bytes::new(), value.into());
        let partition = self.partition;
        Some(async move { (partition, append.await) })
    }
}

/// What a person is to know at once.
fn tell_of_conflict(output: &Output) {
    if let Output::Notify(Notifications::Notification(news)) = output
        && news.kind == "client_conflict"
    {
        tracing::warn!(
            client = news.subject,
            conflict = news.body,
            "agents of one key take turns, so a machine was cloned: give each a key of its own"
        );
    }
}

pub(crate) async fn patiently<T, F>(mut attempt: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, LogError>>,
{
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(error) => tracing::warn!(%error, "the log cannot be asked, trying again"),
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}
