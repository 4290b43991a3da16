//! Ages as kubectl shows them. Owns the form `3d4h`; must not read a clock: the time now is an argument.

use portico_core::{calendar::parse_rfc3339, time::Timestamp};

/// What stands for a time that is not known.
const UNKNOWN: &str = "<unknown>";

/// How long ago `time` (RFC 3339) is, or `<unknown>`.
pub(crate) fn since(time: Option<&str>, now: Timestamp) -> String {
    let then = time.and_then(parse_rfc3339);
    then.map_or_else(
        || UNKNOWN.to_owned(),
        |then| human(i64::try_from(now.as_millis()).unwrap_or(i64::MAX) - then),
    )
}

/// How long it is until `time` (RFC 3339); `0s` once it is over.
pub(crate) fn until(time: &str, now: Timestamp) -> String {
    let now = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
    parse_rfc3339(time).map_or_else(|| UNKNOWN.to_owned(), |then| human((then - now).max(0)))
}

/// A duration in milliseconds with two units at most, the larger the coarser.
fn human(ms: i64) -> String {
    let seconds = ms / 1000;
    let minutes = seconds / 60;
    let hours = minutes / 60;
    let days = hours / 24;
    let two = |large: i64, unit: char, small: i64, small_unit: char| {
        if small == 0 {
            format!("{large}{unit}")
        } else {
            format!("{large}{unit}{small}{small_unit}")
        }
    };
    // Clocks may differ by two seconds before it is a mistake.
    match () {
        () if seconds < -1 => "<invalid>".to_owned(),
        () if seconds < 0 => "0s".to_owned(),
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => two(minutes, 'm', seconds % 60, 's'),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => two(hours, 'h', minutes % 60, 'm'),
        () if hours < 48 => format!("{hours}h"),
        () if hours < 192 => two(days, 'd', hours % 24, 'h'),
        () if days < 730 => format!("{days}d"),
        () if days < 2920 => two(days / 365, 'y', days % 365, 'd'),
        () => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn human_changes_units_where_kubectl_does() {
        let minute = 60;
        let hour = 60 * minute;
        let day = 24 * hour;
        for (seconds, expected) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (95, "95s"),
            (119, "119s"),
            (120, "2m"),
            (185, "3m5s"),
            (10 * minute - 1, "9m59s"),
            (45 * minute + 7, "45m"),
            (3 * hour - 1, "179m"),
            (3 * hour, "3h"),
            (5 * hour + 2 * minute, "5h2m"),
            (8 * hour, "8h"),
            (30 * hour, "30h"),
            (2 * day, "2d"),
            (3 * day + 4 * hour, "3d4h"),
            (8 * day, "8d"),
            (200 * day, "200d"),
            (2 * 365 * day + 30 * day, "2y30d"),
            (3 * 365 * day, "3y"),
            (9 * 365 * day + day, "9y"),
        ] {
            assert_eq!(human(seconds * 1000), expected, "{seconds}");
        }
    }

    #[test]
    fn since_without_a_time_is_unknown() {
        assert_eq!(since(None, Timestamp::from_millis(0)), "<unknown>");
        assert_eq!(
            since(Some("1970-01-01T00:00:00Z"), Timestamp::from_millis(61_500)),
            "61s"
        );
    }
}
