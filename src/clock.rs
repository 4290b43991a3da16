//! The one place that reads the wall clock for the control side; everything behind it takes `now` as an argument.

use std::time::{SystemTime, UNIX_EPOCH};

use portico_core::time::Timestamp;

/// The time now.
pub fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
