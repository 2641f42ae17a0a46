//! A map of bounded size that drops its oldest entries. A real account grows for years; a lab must fit into memory.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// A map that drops the least recently inserted entry once it holds more than `most` entries.
#[derive(Debug)]
pub(crate) struct Bounded<K, V> {
    most: usize,
    values: HashMap<K, (u64, V)>,
    /// The keys by the number of their last insertion, oldest first.
    ages: BTreeMap<u64, K>,
    inserted: u64,
}

impl<K: Eq + Hash + Clone, V> Bounded<K, V> {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, values: HashMap::new(), ages: BTreeMap::new(), inserted: 0 }
    }

    /// Inserts a value as the newest entry, replacing an earlier one of that key. Returns the oldest entry if it was
    /// dropped to make space.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<(K, V)> {
        self.remove(&key);
        self.inserted += 1;
        self.ages.insert(self.inserted, key.clone());
        self.values.insert(key, (self.inserted, value));
        if self.values.len() > self.most { self.pop_oldest() } else { None }
    }

    pub(crate) fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let (age, value) = self.values.remove(key)?;
        self.ages.remove(&age);
        Some(value)
    }

    pub(crate) fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.values.get(key).map(|(_, value)| value)
    }

    pub(crate) fn get_mut<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.values.get_mut(key).map(|(_, value)| value)
    }

    pub(crate) fn contains_key<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.values.contains_key(key)
    }

    /// Returns the oldest entry. Returns `None` if the map is empty.
    pub(crate) fn oldest(&self) -> Option<(&K, &V)> {
        let key = self.ages.values().next()?;
        Some((key, self.get(key)?))
    }

    pub(crate) fn pop_oldest(&mut self) -> Option<(K, V)> {
        let (_, key) = self.ages.pop_first()?;
        let (_, value) = self.values.remove(&key)?;
        Some((key, value))
    }

    pub(crate) fn retain(&mut self, keep: impl Fn(&V) -> bool) {
        let values = &mut self.values;
        values.retain(|_, (_, value)| keep(value));
        self.ages.retain(|_, key| values.contains_key(key));
    }

    /// Iterates over the values, newest first.
    pub(crate) fn newest_first(&self) -> impl Iterator<Item = &V> {
        self.ages.values().rev().filter_map(|key| self.get(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_and_what_is_written_again_is_new() {
        let mut held = Bounded::new(2);
        assert_eq!((held.insert("a", 1), held.insert("b", 2), held.insert("a", 3)), (None, None, None));
        assert_eq!(held.insert("c", 4), Some(("b", 2)));
        assert_eq!((held.get("a"), held.contains_key("b"), held.oldest()), (Some(&3), false, Some((&"a", &3))));
        assert_eq!(held.newest_first().collect::<Vec<_>>(), [&4, &3]);
        assert_eq!((held.remove("a"), held.insert("d", 5)), (Some(3), None));
        held.retain(|value| *value == 5);
        assert_eq!((held.pop_oldest(), held.pop_oldest()), (Some(("d", 5)), None));
    }
}
