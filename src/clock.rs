//! The one place that reads the wall clock for the control side; everything behind it takes `now` as an argument.

use std::{
    hash::{BuildHasher as _, RandomState},
    time::{SystemTime, UNIX_EPOCH},
};

use portico_core::time::Timestamp;

/// The time now.
pub fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Any number, for pauses before trying again: only so that several programs do not try in step.
pub(crate) fn jitter() -> u16 {
    let random = RandomState::new().hash_one(0_u8);
    u16::try_from(random & u64::from(u16::MAX)).unwrap_or_default()
}
