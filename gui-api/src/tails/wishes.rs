//! Which flow a collection is that came with a key.
//!
//! The topic `wishes` decides, for all servers and across their restarts: of the records with one
//! cause the first in its partition counts, for a day. Whoever finds none appends one and reads on
//! until it sees which was first. The flow is told to the foreman only after that, by everybody
//! who cannot know that it was told: under one id, which the foreman takes once.

use super::follow::Progress;
use crate::app::App;
use crate::clock::now_us;
use crate::refusal::{Answer, Refusal};
use bytes::Bytes;
use nublar_core::ids::{ClientKey, ContentId, FlowId, Life};
use nublar_core::partition;
use nublar_ports::log::{From, Record};
use nublar_schemas::codec::{CodecError, Record as _};
use nublar_schemas::records::Wish;
use nublar_schemas::topics;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use tokio::time::timeout;

/// For how long a key stands for its flow, microseconds. The foreman remembers flows longer than
/// this after they ended, so that it takes none for a new one.
const HOUR_US: i64 = 3_600_000_000;
const COUNTS_US: i64 = 24 * HOUR_US;
/// What is over is kept a little longer: clocks are set back.
const KEPT_US: i64 = COUNTS_US + HOUR_US;
/// The tail begins so long ago. Records of one moment then lie both within it or are both over.
const READ_US: i64 = 2 * COUNTS_US;

/// What a key stands for.
#[derive(Debug)]
pub(crate) struct Meant {
    /// Hash of what was asked.
    pub(crate) asked: Bytes,
    pub(crate) id: FlowId,
    pub(crate) generation: i64,
    /// When the flow was made.
    pub(crate) at_us: i64,
    /// Whether this process has told the foreman.
    pub(crate) told: tokio::sync::Mutex<bool>,
}

impl Meant {
    /// A flow that was made now.
    pub(crate) fn now(app: &App, key: &ClientKey, generation: i64, tell: [u8; 4]) -> Self {
        let at_us = now_us();
        Self {
            asked: Bytes::new(),
            id: app.keys.flow_id(key, generation, at_us, tell),
            generation,
            at_us,
            told: tokio::sync::Mutex::default(),
        }
    }

    fn counts(&self, at_us: i64) -> bool {
        at_us.saturating_sub(self.at_us) < COUNTS_US
    }
}

#[derive(Debug, Default)]
struct State {
    by_cause: HashMap<Bytes, Arc<Meant>>,
    ends: BTreeSet<(i64, Bytes)>,
}

/// The keys of the last day.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    pub(crate) progress: Progress,
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

/// Where the tail begins.
pub(super) fn start() -> From {
    From::Time(now_us() - READ_US)
}

impl Wishes {
    pub(super) fn apply(&self, record: &Record) -> Result<(), CodecError> {
        let wish = Wish::decode(&record.value)?;
        let Ok(id) = wish.flow_id.parse() else {
            tracing::error!(flow = wish.flow_id, "a wish has no flow");
            return Ok(());
        };
        let at_us = wish.header.at_us;
        // Not a part of what was read with it.
        let cause = Bytes::copy_from_slice(&wish.cause);
        {
            let mut state = self.lock();
            let known = state.by_cause.get(&cause);
            if known.is_some_and(|known| known.counts(at_us)) {
                return Ok(());
            }
            let meant = Meant {
                asked: Bytes::copy_from_slice(&wish.asked),
                id,
                generation: wish.header.generation,
                at_us,
                told: tokio::sync::Mutex::default(),
            };
            state.ends.insert((at_us + KEPT_US, cause.clone()));
            state.by_cause.insert(cause, Arc::new(meant));
            state.forget(now_us());
        }
        self.changed.send_replace(());
        Ok(())
    }

    fn get(&self, cause: &[u8], at_us: i64) -> Option<Arc<Meant>> {
        let state = self.lock();
        let meant = state.by_cause.get(cause);
        meant.filter(|meant| meant.counts(at_us)).map(Arc::clone)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn forget(&mut self, now_us: i64) {
        while let Some((end, _)) = self.ends.first() {
            if *end > now_us {
                break;
            }
            if let Some((end, cause)) = self.ends.pop_first()
                && let Some(meant) = self.by_cause.get(&cause)
                && meant.at_us + KEPT_US == end
            {
                self.by_cause.remove(&cause);
            }
        }
    }
}

impl App {
    /// What this key stands for, and whether it did so before.
    pub(crate) async fn meant(
        &self,
        key: &ClientKey,
        generation: i64,
        text: &str,
        asked: &[u8; 16],
    ) -> Answer<(Arc<Meant>, bool)> {
        let wishes = &self.wishes;
        wishes
            .progress
            .ready("the topic of wishes", self.config.deadline)
            .await?;
        let org = key.org.as_str().as_bytes();
        // A client that enrolled anew is another: its keys are new.
        let life = Life {
            client: key.clone(),
            generation,
        };
        let name = life.name();
        let cause = ContentId::of(&[b"idempotency", org, name.as_bytes(), text.as_bytes()]);
        let client = key.client.to_string();
        let [a, b, c, d, ..] = *cause.as_bytes();
        let mine = Meant::now(self, key, generation, [a, b, c, d]);
        if let Some(meant) = wishes.get(cause.as_bytes(), mine.at_us) {
            return Ok((meant, true));
        }
        let mut changes = wishes.changed.subscribe();
        let mut header = self.header(Some(key), generation);
        header.at_us = mine.at_us;
        let record = Wish {
            header,
            cause: Bytes::copy_from_slice(cause.as_bytes()),
            asked: Bytes::copy_from_slice(asked),
            flow_id: mine.id.to_string(),
        };
        let partition = partition::of_client(key, self.partitions(topics::WISHES).await?);
        let value = Bytes::from(record.encode()?);
        let append = self
            .log
            .append(topics::WISHES.name, partition, client.into(), value);
        self.step(append).await?;
        let seen = async {
            loop {
                if let Some(meant) = wishes.get(cause.as_bytes(), mine.at_us) {
                    return meant;
                }
                // The sender lives as long as `self`: waiting cannot fail.
                let _ = changes.changed().await;
            }
        };
        let meant = timeout(self.config.deadline, seen)
            .await
            .map_err(|_| Refusal::too_slow())?;
        let mine = meant.id == mine.id;
        Ok((meant, !mine))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use nublar_ports::log::Position;
    use nublar_schemas::records::Header;

    fn record(cause: u8, flow: &str, at_us: i64) -> Record {
        let wish = Wish {
            header: Header {
                at_us,
                ..Header::default()
            },
            cause: vec![cause; 16].into(),
            asked: vec![0; 16].into(),
            flow_id: flow.to_owned(),
        };
        Record {
            partition: 0,
            position: Position {
                generation: 0,
                offset: 0,
            },
            key: Bytes::new(),
            value: wish.encode().unwrap().into(),
        }
    }

    #[test]
    fn the_first_counts_for_a_day_however_often_it_is_read() {
        let (wishes, now) = (Wishes::default(), now_us());
        let id = |cause, at_us| Some(wishes.get(&[cause; 16], at_us)?.id.to_string());
        let first = Some("F.A".to_owned());
        for _ in 0..2 {
            wishes.apply(&record(1, "F.A", now)).unwrap();
            wishes.apply(&record(1, "F.B", now - 5)).unwrap();
            wishes.apply(&record(1, "F.B", now + 5)).unwrap();
            assert_eq!(id(1, now), first);
            assert_eq!(id(1, now + COUNTS_US - 1), first);
            assert_eq!(id(1, now + COUNTS_US), None);
            assert_eq!(id(2, now), None);
        }
        wishes.apply(&record(1, "F.C", now + COUNTS_US)).unwrap();
        wishes.apply(&record(1, "F.A", now)).unwrap();
        assert_eq!(id(1, now + COUNTS_US), Some("F.C".to_owned()));
    }

    #[test]
    fn what_is_long_over_is_forgotten() {
        let (wishes, now) = (Wishes::default(), now_us());
        wishes.apply(&record(1, "F.A", now - KEPT_US)).unwrap();
        wishes.apply(&record(2, "F.B", now)).unwrap();
        wishes.apply(&record(3, "F.C", now - KEPT_US)).unwrap();
        assert_eq!(wishes.lock().by_cause.len(), 1);
        assert_eq!(wishes.lock().ends.len(), 1);
    }
}
