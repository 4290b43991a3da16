//! Dates and times as text: RFC 3339, as the Kubernetes API writes and reads it, and the days of the Gregorian calendar
//! behind it. Owns both directions; must not read a clock or know a time zone beyond what a text says.

use crate::time::Timestamp;

const MS_PER_DAY: i64 = 86_400_000;

/// `2026-01-02T03:04:05Z` (`metav1.Time`).
pub fn rfc3339(time: Timestamp) -> String {
    let ms = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let (year, month, day) = civil_from_days(ms / MS_PER_DAY);
    let rest = ms % MS_PER_DAY / 1000;
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// `2026-01-02T03:04:05.678Z`, with milliseconds.
pub fn rfc3339_millis(time: Timestamp) -> String {
    let whole = rfc3339(time);
    let millis = time.as_millis() % 1000;
    format!("{}.{millis:03}Z", whole.trim_end_matches('Z'))
}

/// Milliseconds since the Unix epoch of an RFC 3339 time; `None` for anything else.
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let mut date = date.splitn(3, '-').map(str::parse::<i64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let in_range =
        (0..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    let zone_at = time.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = time.split_at_checked(zone_at)?;
    let mut clock = clock.splitn(3, ':');
    let (hour, minute) = (
        clock.next()?.parse::<i64>().ok()?,
        clock.next()?.parse::<i64>().ok()?,
    );
    let (second, fraction) = clock
        .next()
        .map(|text| text.split_once('.').unwrap_or((text, "")))?;
    let millis = format!("{fraction:0<3}").get(..3)?.parse::<i64>().ok()?;
    let seconds = hour * 3600 + minute * 60 + second.parse::<i64>().ok()? - offset(zone)?;
    in_range.then(|| days_from_civil(year, month, day) * MS_PER_DAY + seconds * 1000 + millis)
}

/// Seconds east of Greenwich.
fn offset(zone: &str) -> Option<i64> {
    let sign = match zone.chars().next()? {
        'Z' | 'z' => return Some(0),
        '-' => -1,
        _ => 1,
    };
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    Some(sign * (hours.parse::<i64>().ok()? * 3600 + minutes.parse::<i64>().ok()? * 60))
}

/// Days since the Unix epoch of a date in the proleptic Gregorian calendar, counted in eras of 400 years that begin in
/// March, so that a leap day is the last day of its year.
pub fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let year_of_era = year.rem_euclid(400);
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The reverse of [`days_from_civil`].
pub fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(seconds: u64, expected: &str) {
        assert_eq!(
            rfc3339(Timestamp::from_millis(seconds * 1000 + 999)),
            expected
        );
    }

    #[test]
    fn rfc3339_of_known_moments_is_what_date_prints() {
        check(0, "1970-01-01T00:00:00Z");
        check(951_782_399, "2000-02-28T23:59:59Z");
        check(951_782_400, "2000-02-29T00:00:00Z");
        check(951_868_800, "2000-03-01T00:00:00Z");
        check(1_767_323_045, "2026-01-02T03:04:05Z");
        check(4_107_542_399, "2100-02-28T23:59:59Z");
        check(4_107_542_400, "2100-03-01T00:00:00Z");
    }

    #[test]
    fn civil_from_days_of_following_days_never_skips_or_repeats() {
        let mut before = civil_from_days(0);
        for day in 1..200_000 {
            let (year, month, of_month) = civil_from_days(day);
            let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
            let last = match before.1 {
                2 if leap => 29,
                2 => 28,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            let expected = if before.2 < last {
                (before.0, before.1, before.2 + 1)
            } else if before.1 < 12 {
                (before.0, before.1 + 1, 1)
            } else {
                (before.0 + 1, 1, 1)
            };
            assert_eq!((year, month, of_month), expected, "day {day}");
            before = (year, month, of_month);
        }
    }

    #[test]
    fn parse_rfc3339_counts_from_the_epoch() {
        assert_eq!(parse_rfc3339("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(
            parse_rfc3339("2024-02-29T12:30:45Z"),
            Some(1_709_209_845_000)
        );
        assert_eq!(
            parse_rfc3339("2024-02-29T12:30:45.123456Z"),
            Some(1_709_209_845_123)
        );
        assert_eq!(
            parse_rfc3339("2024-02-29T14:30:45+02:00"),
            Some(1_709_209_845_000)
        );
        for wrong in [
            "",
            "2024",
            "2024-13-01T00:00:00Z",
            "2024-01-01T00:00:00",
            "x-y-zTa:b:c",
            "2024-01-01T00:00",
        ] {
            assert_eq!(parse_rfc3339(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn rfc3339_millis_is_read_back() {
        for ms in [0, 951_782_400_000, 1_767_323_045_678, 4_102_444_799_999] {
            let text = rfc3339_millis(Timestamp::from_millis(ms));
            assert_eq!(parse_rfc3339(&text), i64::try_from(ms).ok(), "{text}");
        }
    }
}
