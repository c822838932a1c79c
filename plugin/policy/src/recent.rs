//! Values that were asked for recently, bounded by their weight over everybody who asks.
//!
//! Two generations: what is asked for is in the young one; when that has half of the weight, it
//! becomes the old one, and what was in the old one is forgotten. So what is in use stays, and
//! neither a use nor a new value costs more than a look-up.

use std::collections::HashMap;
use std::mem;

/// Values by key. Weights are in bytes, estimated from above.
#[derive(Debug)]
pub(crate) struct Recent<V> {
    young: HashMap<Box<[u8]>, (V, usize)>,
    young_weight: usize,
    old: HashMap<Box<[u8]>, (V, usize)>,
    most: usize,
}

impl<V: Clone> Recent<V> {
    /// Room for values of `most` bytes together.
    pub(crate) fn new(most: usize) -> Self {
        Self { young: HashMap::new(), young_weight: 0, old: HashMap::new(), most }
    }

    /// The value that was kept under `key`, if it is still there.
    pub(crate) fn get(&mut self, key: &[u8]) -> Option<V> {
        if let Some((value, _)) = self.young.get(key) {
            return Some(value.clone());
        }
        let (key, (value, weight)) = self.old.remove_entry(key)?;
        let found = value.clone();
        self.put(key, value, weight);
        Some(found)
    }

    /// Keeps `value` for a while, unless it takes more than an eighth of the room by itself.
    pub(crate) fn insert(&mut self, key: &[u8], value: V, weight: usize) {
        if weight <= self.most / 8 {
            self.old.remove(key);
            self.put(key.into(), value, weight);
        }
    }

    fn put(&mut self, key: Box<[u8]>, value: V, weight: usize) {
        if self.young_weight + weight > self.most / 2 {
            self.old = mem::take(&mut self.young);
            self.young_weight = 0;
        }
        if let Some((_, replaced)) = self.young.insert(key, (value, weight)) {
            self.young_weight -= replaced;
        }
        self.young_weight += weight;
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn weight(recent: &Recent<usize>) -> usize {
        recent.young.values().chain(recent.old.values()).map(|(_, weight)| weight).sum()
    }

    #[test]
    fn the_weight_of_all_values_stays_within_the_room() {
        let mut recent = Recent::new(1000);
        for number in 0..10_000_usize {
            let key = (number * 7919 % 911).to_be_bytes();
            if number % 3 == 0 {
                let _in_use = recent.get(&key);
            } else {
                recent.insert(&key, number, number % 140);
            }
            assert!(weight(&recent) <= 1000, "{number}");
            let young: usize = recent.young.values().map(|(_, weight)| weight).sum();
            assert_eq!(young, recent.young_weight);
        }
    }

    #[test]
    fn what_is_in_use_stays_whatever_comes_in_between() {
        let mut recent = Recent::new(1000);
        recent.insert(b"used", 7, 10);
        for number in 0..1000_usize {
            recent.insert(&number.to_be_bytes(), number, 10);
            assert_eq!(recent.get(b"used"), Some(7));
        }
        assert_eq!(recent.get(&3_usize.to_be_bytes()), None);
    }

    #[test]
    fn what_is_too_heavy_is_not_kept() {
        let mut recent = Recent::new(1000);
        recent.insert(b"heavy", 1, 126);
        assert_eq!(recent.get(b"heavy"), None);
    }

    #[test]
    fn the_last_value_of_a_key_counts() {
        let mut recent = Recent::new(1000);
        recent.insert(b"key", 1, 10);
        recent.insert(b"key", 2, 10);
        assert_eq!((recent.get(b"key"), weight(&recent)), (Some(2), 10));
    }
}
