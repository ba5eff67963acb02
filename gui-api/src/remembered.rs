//! What was found out once: values by key, as many as have room.

use std::borrow::Borrow;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Values by key. The key that came first is forgotten first.
pub(crate) struct Remembered<K, V> {
    most: usize,
    state: Mutex<State<K, V>>,
}

struct State<K, V> {
    values: HashMap<K, V>,
    order: VecDeque<K>,
}

impl<K: Clone + Eq + Hash, V: Clone> Remembered<K, V> {
    /// Remembers at most so many.
    pub(crate) fn new(most: usize) -> Self {
        let (values, order) = (HashMap::new(), VecDeque::new());
        Self {
            most,
            state: Mutex::new(State { values, order }),
        }
    }

    pub(crate) fn get<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.lock().values.get(key).cloned()
    }

    /// A value that is there gives way.
    pub(crate) fn put(&self, key: K, value: V) {
        let mut state = self.lock();
        if state.values.insert(key.clone(), value).is_none() {
            state.order.push_back(key);
        }
        if state.order.len() > self.most
            && let Some(oldest) = state.order.pop_front()
        {
            state.values.remove(&oldest);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<K, V>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_forgotten_when_there_is_no_room() {
        let remembered = Remembered::new(2);
        for (key, value) in [("a", 1), ("b", 2), ("a", 3), ("c", 4)] {
            remembered.put(key, value);
        }
        let known = ["a", "b", "c"].map(|key| remembered.get(key));
        assert_eq!(known, [None, Some(2), Some(4)]);
    }
}
