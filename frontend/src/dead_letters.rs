//! What could not be taken, with the reason, for people.

use bytes::Bytes;
use futures::FutureExt as _;
use nublar_core::letters;
use nublar_ports::Log;
use nublar_ports::log::{Append, LogError};
use nublar_schemas::codec::Record as _;
use nublar_schemas::records::{DeadLetter, Header};
use nublar_schemas::topics::{DEAD_LETTERS, Partitions};

/// Appends a dead letter about what never was in a topic.
pub(crate) fn dead_letter(
    log: &dyn Log,
    header: Header,
    reason: &'static str,
    text: String,
    copy: Bytes,
) -> Append {
    let partitions = match DEAD_LETTERS.partitions {
        Partitions::Fixed(n) => n,
        Partitions::PerClients => 1,
    };
    let letter = letters::named(DeadLetter {
        header,
        partition: -1,
        offset: -1,
        reason: reason.to_owned(),
        text,
        attempts: 1,
        copy,
        ..DeadLetter::default()
    });
    let partition = letters::partition(&letter, partitions);
    let key = Bytes::from(letter.id.clone());
    match letter.encode() {
        Ok(value) => log.append(DEAD_LETTERS.name, partition, key, value.into()),
        Err(error) => futures::future::ready(Err(LogError::Refused(error.to_string()))).boxed(),
    }
}
