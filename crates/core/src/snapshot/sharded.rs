//! A hash map in shards that are shared until written: cloning costs the shards, changing one entry copies one
//! shard. Owns nothing but that.

use std::{
    borrow::Borrow,
    collections::HashMap,
    hash::{BuildHasher, Hash},
    sync::Arc,
};

use foldhash::fast::FixedState;

/// Number of shards. With 10 000 entries one shard holds about forty, so a change copies little.
const SHARDS: usize = 256;

type Shard<K, V> = Arc<HashMap<K, V, FixedState>>;

/// See the module's documentation.
#[derive(Debug, Clone)]
pub struct Sharded<K, V> {
    shards: Box<[Shard<K, V>]>,
}

impl<K: Eq + Hash + Clone, V: Clone> Sharded<K, V> {
    /// An empty map.
    pub fn new() -> Self {
        let empty: Shard<K, V> = Arc::new(HashMap::with_hasher(FixedState::default()));
        Self {
            shards: std::iter::repeat_n(empty, SHARDS).collect(),
        }
    }

    /// The value at `key`.
    pub fn get<Q>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.shards.get(shard_of(key))?.get(key)
    }

    /// Puts `value` at `key`; returns what was there.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let shard = self.shards.get_mut(shard_of(&key))?;
        Arc::make_mut(shard).insert(key, value)
    }

    /// Takes the entry at `key` away; returns what was there. A missing key copies nothing.
    pub fn remove<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let shard = self.shards.get_mut(shard_of(key))?;
        if shard.contains_key(key) {
            Arc::make_mut(shard).remove(key)
        } else {
            None
        }
    }

    /// All entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.shards.iter().flat_map(|shard| shard.iter())
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.len()).sum()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.shards.iter().all(|shard| shard.is_empty())
    }
}

impl<K: Eq + Hash + Clone, V: Clone> Default for Sharded<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

/// The top bits choose the shard, so that the table inside, which uses the low ones, stays well spread.
fn shard_of<Q: Hash + ?Sized>(key: &Q) -> usize {
    let top = FixedState::default().hash_one(key) >> (u64::BITS - SHARDS.ilog2());
    usize::try_from(top).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sharded_clone_then_insert_leaves_the_original_alone() {
        let mut first: Sharded<u32, u32> = (0..1000).fold(Sharded::new(), |mut map, n| {
            map.insert(n, n);
            map
        });
        let second = first.clone();
        first.insert(7, 70);
        first.remove(&8);
        assert_eq!(
            (second.get(&7), second.get(&8), second.len()),
            (Some(&7), Some(&8), 1000)
        );
        assert_eq!(
            (first.get(&7), first.get(&8), first.len()),
            (Some(&70), None, 999)
        );
        let shared = first
            .shards
            .iter()
            .zip(&*second.shards)
            .filter(|(a, b)| Arc::ptr_eq(a, b))
            .count();
        assert!(
            shared >= SHARDS - 2,
            "untouched shards stay shared: {shared}"
        );
    }
}
