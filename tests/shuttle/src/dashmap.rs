//! A model of `dashmap`: one lock for the whole map, which a guard holds.

use std::{
    collections::HashMap,
    hash::Hash,
    ops::{Deref, DerefMut},
};

use shuttle::sync::{Mutex, MutexGuard};

pub struct DashMap<K, V> {
    map: Mutex<HashMap<K, V>>,
}

pub enum Entry<'a, K, V> {
    Occupied(OccupiedEntry<'a, K, V>),
    Vacant(VacantEntry<'a, K, V>),
}

pub struct OccupiedEntry<'a, K, V> {
    map: MutexGuard<'a, HashMap<K, V>>,
    key: K,
}

pub struct VacantEntry<'a, K, V> {
    map: MutexGuard<'a, HashMap<K, V>>,
    key: K,
}

impl<K: Eq + Hash + Clone, V> DashMap<K, V> {
    pub fn new() -> Self {
        Self {
            map: Mutex::new(HashMap::new()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, V>> {
        self.map.lock().expect("no panic under the lock")
    }

    pub fn entry(&self, key: K) -> Entry<'_, K, V> {
        let map = self.lock();
        if map.contains_key(&key) {
            Entry::Occupied(OccupiedEntry { map, key })
        } else {
            Entry::Vacant(VacantEntry { map, key })
        }
    }

    pub fn get_mut(&self, key: &K) -> Option<OccupiedEntry<'_, K, V>> {
        match self.entry(key.clone()) {
            Entry::Occupied(entry) => Some(entry),
            Entry::Vacant(_) => None,
        }
    }

    pub fn remove_if(&self, key: &K, condition: impl FnOnce(&K, &V) -> bool) -> Option<(K, V)> {
        let mut map = self.lock();
        let is_removed = map.get(key).is_some_and(|value| condition(key, value));
        is_removed.then(|| map.remove_entry(key)).flatten()
    }
}

impl<K: Eq + Hash + Clone, V> Default for DashMap<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Eq + Hash, V> OccupiedEntry<'_, K, V> {
    pub fn get(&self) -> &V {
        &self.map[&self.key]
    }

    pub fn get_mut(&mut self) -> &mut V {
        self.map.get_mut(&self.key).expect("occupied")
    }
}

impl<K: Eq + Hash, V> Deref for OccupiedEntry<'_, K, V> {
    type Target = V;

    fn deref(&self) -> &V {
        self.get()
    }
}

impl<K: Eq + Hash, V> DerefMut for OccupiedEntry<'_, K, V> {
    fn deref_mut(&mut self) -> &mut V {
        self.get_mut()
    }
}

impl<K: Eq + Hash, V> VacantEntry<'_, K, V> {
    pub fn insert(mut self, value: V) {
        self.map.insert(self.key, value);
    }
}
