//! The wall clock and the only source of chance. Owns reading them, so that nothing else in this crate does.

use std::{
    hash::{BuildHasher, RandomState},
    sync::OnceLock,
    time::SystemTime,
};

use portico_core::time::Timestamp;
use tokio::time::Instant;

/// The time, in the unit that the core understands.
pub(crate) fn now() -> Timestamp {
    let since_epoch = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}

/// A moment in milliseconds since the first one that was asked for, to be compared by other threads.
pub(crate) fn ticks(at: Instant) -> u64 {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    let since = at.saturating_duration_since(*FIRST.get_or_init(|| at));
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A number that nobody outside can guess: each `RandomState` has keys of its own.
pub(crate) fn seed() -> u64 {
    RandomState::new().hash_one(0_u8)
}

/// Random bytes for identifiers.
pub(crate) fn chance() -> [u8; 24] {
    let mut bytes = [0; 24];
    for part in bytes.chunks_exact_mut(8) {
        part.copy_from_slice(&seed().to_ne_bytes());
    }
    bytes
}

/// A number for back-off to spread by. Every `RandomState` has keys of its own, which is chance enough for that.
pub(crate) fn jitter() -> u16 {
    let [low, high, ..] = seed().to_ne_bytes();
    u16::from_ne_bytes([low, high])
}
