//! Where a client came from: the addresses that it had last.

use litemap::LiteMap;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Address → when it was seen there first and last, microseconds since 1970. Of more than a limit the
/// oldest are forgotten.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Addresses(LiteMap<String, (i64, i64)>);

impl Addresses {
    pub(super) fn saw(&mut self, address: &str, first_us: i64, last_us: i64, remembered: usize) {
        room_for_one(&mut self.0);
        let place = self.0.entry(address.to_owned());
        let (first, last) = place.or_insert((first_us, last_us));
        (*first, *last) = ((*first).min(first_us), (*last).max(last_us));
        forget_oldest(&mut self.0, remembered, |(_, last)| *last);
    }

    /// What people read, in the order of their first times.
    pub(super) fn shown(&self) -> Vec<Value> {
        let mut addresses: Vec<_> = self.0.iter().collect();
        addresses.sort_unstable_by_key(|(address, (first, _))| (*first, address.as_str()));
        let shown = addresses.into_iter().map(|(address, (first, last))| {
            json!({ "address": address, "first_seen_at": first, "last_seen_at": last })
        });
        shown.collect()
    }
}

/// Most maps of a client have one entry for good, where a list makes room for four at once.
pub(super) fn room_for_one<T>(of: &mut LiteMap<String, T>) {
    if of.is_empty() {
        *of = LiteMap::with_capacity(1);
    }
}

/// Takes the one out that was seen last longest ago, if there are more than are remembered.
pub(super) fn forget_oldest<T>(
    of: &mut LiteMap<String, T>,
    remembered: usize,
    last_us: impl Fn(&T) -> i64,
) {
    if of.len() > remembered
        && let Some(oldest) = of.iter().min_by_key(|(_, one)| last_us(one))
    {
        let oldest = oldest.0.clone();
        of.remove(&oldest);
    }
}
