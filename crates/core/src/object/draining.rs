//! `portico.dev/drain-timeout`: how long connections may last whose endpoint or Service port is gone. Owns the value;
//! closing connections belongs to the data path.

use std::time::Duration;

use super::{annotations::DRAIN_TIMEOUT, meta::Labels};

/// What the value must look like.
pub const DRAIN_TIMEOUTS: &str = "must be a time up to 24h, such as 30s or 5m";

/// Longest time that may be asked for.
const LONGEST: Duration = Duration::from_hours(24);

/// Reads a value; `None` when it is none of [`DRAIN_TIMEOUTS`].
pub fn parse(value: &str) -> Option<Duration> {
    super::annotations::duration(value).filter(|time| *time <= LONGEST)
}

/// What these annotations of a Service ask for; no limit, as in a cluster, if they do not do so readably.
pub fn timeout_of(annotations: &Labels) -> Option<Duration> {
    annotations.get(DRAIN_TIMEOUT).and_then(|text| parse(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_takes_times_up_to_a_day() {
        assert_eq!(parse("0"), Some(Duration::ZERO));
        assert_eq!(parse("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(parse("24h"), Some(Duration::from_hours(24)));
        for wrong in ["", "25h", "30", "-1s", "soon"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
