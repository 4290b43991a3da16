//! Names of others: their messages, relayed and kept. Owns what may be kept and for how long, and how a message that
//! was kept becomes the response to another client; must not know sockets: time and chance are arguments.
//!
//! Names of our own zones never come here: the Snapshot answers them.

pub mod message;
pub mod special;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use crate::time::Timestamp;
use message::Message;

/// How long a message that is too old may stand in for one that cannot be had (RFC 8767 section 5 says days).
const STALE: Duration = Duration::from_hours(1);
/// How long nobody is asked again after that (RFC 8767 section 5: no more often than every 30 s).
const RECHECK: Duration = Duration::from_secs(30);
/// A message that is asked for so often is asked for again before it is too old.
const WANTED: u32 = 2;
/// What part of its time is left then: one tenth.
const PREFETCH: u32 = 10;

/// What is asked for: the name in lower case, type and class; and whether with records of DNSSEC, and checked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key(Arc<[u8]>);

impl Key {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

/// What is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// This, of this age; others should be asked again meanwhile if the last one says so.
    Kept(Arc<Message>, Duration, Prefetch),
    /// This, which is too old: others are to be asked, and it may stand in if they do not answer soon.
    Stale(Arc<Message>),
    /// The same, and they did not answer lately.
    StandIn(Arc<Message>),
    /// Nothing.
    Nothing,
}

/// Whether others should be asked before a message is too old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefetch {
    /// It is wanted, and its time is nearly over.
    Now,
    /// Not yet.
    NotYet,
}

/// Messages for a time.
#[derive(Debug)]
pub struct Cache {
    entries: HashMap<Key, Entry>,
    /// Every key once; the first one is looked at first when there is no room.
    order: VecDeque<Key>,
    capacity: usize,
    evicted: u64,
}

#[derive(Debug)]
struct Entry {
    message: Arc<Message>,
    stored: Timestamp,
    lifetime: Duration,
    hits: u32,
    /// Asked for since it was last looked at for want of room.
    is_recent: bool,
    /// When others did not answer.
    failed: Option<Timestamp>,
}

impl Entry {
    /// Whether it is better than nothing, too old or not.
    fn may_stand_in(&self, now: Timestamp) -> bool {
        self.message.has_answers() && now.since(self.stored) <= self.lifetime + STALE
    }
}

impl Cache {
    /// Room for `capacity` messages.
    pub fn new(capacity: usize) -> Self {
        Self {
            entries: HashMap::new(),
            order: VecDeque::new(),
            capacity,
            evicted: 0,
        }
    }

    /// What is known for `key`.
    pub fn find(&mut self, key: &Key, now: Timestamp) -> Found {
        let Some(entry) = self.entries.get_mut(key) else {
            return Found::Nothing;
        };
        let age = now.since(entry.stored);
        let message = Arc::clone(&entry.message);
        if let Some(left) = entry
            .lifetime
            .checked_sub(age)
            .filter(|left| !left.is_zero())
        {
            entry.hits = entry.hits.saturating_add(1);
            entry.is_recent = true;
            let is_due = entry.hits >= WANTED && left * PREFETCH <= entry.lifetime;
            let prefetch = if is_due {
                Prefetch::Now
            } else {
                Prefetch::NotYet
            };
            return Found::Kept(message, age, prefetch);
        }
        if !entry.may_stand_in(now) {
            return Found::Nothing;
        }
        entry.is_recent = true;
        let failed = entry.failed.map(|failed| now.since(failed));
        if failed.is_some_and(|since| since < RECHECK) {
            Found::StandIn(message)
        } else {
            Found::Stale(message)
        }
    }

    /// Others have not answered, or not usefully.
    pub fn failed(&mut self, key: &Key, now: Timestamp) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.failed = Some(now);
        }
    }

    /// Keeps `message` as long as it says itself. What says that others have failed does not take the place of an
    /// answer that may still stand in.
    pub fn store(&mut self, key: &Key, message: &Arc<Message>, now: Timestamp) {
        let Some(lifetime) = message.lifetime() else {
            return;
        };
        let known = self.entries.get(key);
        if message.is_failure() && known.is_some_and(|entry| entry.may_stand_in(now)) {
            return self.failed(key, now);
        }
        let entry = Entry {
            message: Arc::clone(message),
            stored: now,
            lifetime,
            hits: 0,
            is_recent: false,
            failed: None,
        };
        if self.entries.insert(key.clone(), entry).is_none() {
            self.order.push_back(key.clone());
            self.make_room();
        }
        debug_assert_eq!(self.entries.len(), self.order.len());
    }

    /// Lets go of the oldest one that was not asked for since it was last looked at.
    fn make_room(&mut self) {
        while self.entries.len() > self.capacity {
            let Some(key) = self.order.pop_front() else {
                return;
            };
            match self.entries.get_mut(&key) {
                Some(entry) if entry.is_recent => {
                    entry.is_recent = false;
                    self.order.push_back(key);
                }
                _ => {
                    self.entries.remove(&key);
                    self.evicted += 1;
                }
            }
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.order.clear();
    }

    /// Number of messages, those that are too old included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Messages that had to make room.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }
}

#[cfg(test)]
mod tests;
