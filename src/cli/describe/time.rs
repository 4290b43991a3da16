//! Times in objects, shown as RFC 1123 with a numeric zone. Owns this form; must not read a clock.

use portico_core::calendar::{civil_from_days, parse_rfc3339};

use super::zone::Zone;

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];
/// What kubectl prints for a time that is not set.
const ZERO: &str = "Mon, 01 Jan 0001 00:00:00 +0000";
const MS_PER_DAY: i64 = 86_400_000;

/// `Mon, 02 Jan 2006 15:04:05 +0000` (RFC 1123 with a numeric zone) of an RFC 3339 time, by the clocks of `zone`.
pub(crate) fn rfc1123(text: &str, zone: &Zone) -> String {
    let Some(ms) = parse_rfc3339(text) else {
        return ZERO.to_owned();
    };
    let offset = zone.offset_at(ms.div_euclid(1000));
    let ms = ms + offset * 1000;
    let (sign, shift) = (if offset < 0 { '-' } else { '+' }, offset.abs() / 60);
    let (days, second) = (ms.div_euclid(MS_PER_DAY), ms.rem_euclid(MS_PER_DAY) / 1000);
    let (year, month, day) = civil_from_days(days);
    let name = |names: &[&'static str], index: i64| {
        usize::try_from(index)
            .ok()
            .and_then(|index| names.get(index))
            .copied()
            .unwrap_or_default()
    };
    format!(
        "{}, {day:02} {} {year:04} {:02}:{:02}:{:02} {sign}{:02}{:02}",
        name(&DAYS, days.rem_euclid(7)),
        name(&MONTHS, month - 1),
        second / 3600,
        second / 60 % 60,
        second % 60,
        shift / 60,
        shift % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc1123_known_days_have_their_names() {
        let check = |text, expected| assert_eq!(rfc1123(text, &Zone::default()), expected);
        check("1970-01-01T00:00:00Z", "Thu, 01 Jan 1970 00:00:00 +0000");
        check("2024-02-29T23:59:59Z", "Thu, 29 Feb 2024 23:59:59 +0000");
        check(
            "2026-11-21T08:01:05.123456+01:00",
            "Sat, 21 Nov 2026 07:01:05 +0000",
        );
        check("1969-12-31T23:00:00Z", "Wed, 31 Dec 1969 23:00:00 +0000");
        check("", ZERO);
    }
}
