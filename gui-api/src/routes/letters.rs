//! Dead letters: what could not be taken, and why.

use super::answers::Shared;
use crate::app::App;
use crate::guard::Params;
use crate::lists::read_limit;
use crate::refusal::{Answer, Refusal};
use axum::Json;
use axum::extract::State;
use nublar_ports::log::{From, Record, TailEvent};
use nublar_schemas::codec::Record as _;
use nublar_schemas::records::DeadLetter;
use nublar_schemas::topics::DEAD_LETTERS;
use serde::Deserialize;
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    limit: Option<usize>,
}

/// `GET /dead-letters?limit` → the newest ones, newest first.
pub(crate) async fn list(State(app): Shared, Params(asked): Params<Asked>) -> Answer<Json<Value>> {
    let limit = read_limit(asked.limit)?;
    let mut letters = app.step(newest(&app, limit)).await?;
    letters.reverse();
    let letters: Vec<Value> = letters.iter().map(shown).collect();
    Ok(Json(Value::Array(letters)))
}

/// Time, partition, offset and the record: the oldest goes first.
type Kept = (i64, u32, u64, Vec<u8>);

/// The newest letters by time, newest last. All of the topic is read, a few are kept.
async fn newest(app: &App, limit: usize) -> Answer<Vec<DeadLetter>> {
    let partitions: Vec<u32> = (0..app.partitions(DEAD_LETTERS).await?).collect();
    let mut tail = app
        .log
        .tail(DEAD_LETTERS.name, &partitions, From::Earliest)
        .await?;
    let mut behind = partitions.len();
    let mut kept: BinaryHeap<Reverse<Kept>> = BinaryHeap::new();
    while behind > 0 {
        match tail.next().await? {
            TailEvent::CaughtUp { .. } => behind -= 1,
            TailEvent::Record(Record {
                partition,
                position,
                value,
                ..
            }) => {
                let letter = DeadLetter::decode(&value)?;
                let place = (
                    letter.header.at_us,
                    partition,
                    position.offset,
                    value.to_vec(),
                );
                kept.push(Reverse(place));
                if kept.len() > limit {
                    kept.pop();
                }
            }
        }
    }
    let sorted = kept.into_sorted_vec();
    let letters = sorted
        .iter()
        .rev()
        .map(|Reverse((.., value))| DeadLetter::decode(value));
    letters
        .map(|letter| letter.map_err(Refusal::from))
        .collect()
}

fn shown(letter: &DeadLetter) -> Value {
    json!({
        "time": letter.header.at_us,
        "client_id": letter.header.client,
        "frontend": letter.header.frontend,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "reason": letter.reason,
        "text": letter.text,
        "attempts": letter.attempts,
        "size": letter.copy.len(),
    })
}
