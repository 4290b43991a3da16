//! `portico.dev/drain-timeout`: how long connections may last whose endpoint or Service port is gone. Owns the value;
//! closing connections belongs to the data path.

use std::time::Duration;

use super::{
    annotations::{DRAIN_TIMEOUT, timeout},
    meta::Labels,
};

/// What these annotations of a Service ask for; no limit, as in a cluster, if they do not do so readably.
pub fn timeout_of(annotations: &Labels) -> Option<Duration> {
    annotations
        .get(DRAIN_TIMEOUT)
        .and_then(|text| timeout(text))
}
