//! A map with a bound that forgets what was not used for longest, the same in every run: two
//! generations, the older of which is forgotten when the younger is full.

use std::collections::HashMap;
use std::hash::Hash;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    young: HashMap<K, V, foldhash::fast::RandomState>,
    old: HashMap<K, V, foldhash::fast::RandomState>,
    most: usize,
}

impl<K: Hash + Eq, V> Recent<K, V> {
    /// An empty map of at most this many entries.
    pub(super) fn new(most: usize) -> Self {
        Self { young: HashMap::default(), old: HashMap::default(), most }
    }

    /// The entry of a key, which becomes the youngest.
    pub(super) fn get(&mut self, key: K) -> Option<&mut V> {
        if !self.young.contains_key(&key) {
            let value = self.old.remove(&key)?;
            return Some(self.insert(key, value));
        }
        self.young.get_mut(&key)
    }

    /// Puts an entry in place of the key's earlier one.
    pub(super) fn insert(&mut self, key: K, value: V) -> &mut V {
        if self.young.len() >= self.most / 2 && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(&key);
        self.young.entry(key).insert_entry(value).into_mut()
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        self.young.remove(key).or_else(|| self.old.remove(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_and_what_is_used_stays() {
        let mut map = Recent::new(1000);
        map.insert(0, 0);
        for n in 1..100_000 {
            map.insert(n, n);
            assert!(map.young.len() + map.old.len() <= 1000);
            if n % 100 == 0 {
                assert_eq!(map.get(0), Some(&mut 0), "{n}");
            }
        }
        assert_eq!(map.get(1), None);
        assert_eq!((map.remove(&99_999), map.remove(&99_999)), (Some(99_999), None));
    }
}
