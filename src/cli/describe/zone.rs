//! The time zone of the user: kubectl shows times in it. Owns the reading of compiled zone files (RFC 9636) and
//! of their rule for years to come (POSIX `TZ`); must not read a clock.

use std::path::{Path, PathBuf};

use portico_core::calendar::{civil_from_days, days_from_civil};

const DAY: i64 = 86_400;
/// Where zones lie by name.
const FOLDERS: [&str; 3] = ["/usr/share/zoneinfo", "/usr/lib/zoneinfo", "/etc/zoneinfo"];

/// Offsets from UTC over time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Zone {
    /// From when on (seconds since the Unix epoch) which offset holds (seconds east), sorted.
    changes: Vec<(i64, i64)>,
    /// Before the first change.
    first: i64,
    /// After the last one.
    rule: Option<Rule>,
}

/// Standard time and, between two days of each year, summer time.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    standard: i64,
    summer: Option<(i64, Day, Day)>,
}

/// A day of each year with the time of day (seconds) at which summer time begins or ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Day {
    date: Date,
    time: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Date {
    /// `Mm.w.d`: weekday `d` (0 is Sunday) of week `w` (5 is the last) of a month.
    Weekday { month: i64, week: i64, day: i64 },
    /// `Jn`: day 1 to 365, never the 29th of February.
    NoLeap(i64),
    /// `n`: day 0 to 365.
    Plain(i64),
}

impl Zone {
    /// The zone that `tz` (the value of `TZ`, if it is set) names, or else the machine's; UTC if it cannot be read.
    pub fn local(tz: Option<&str>) -> Self {
        let read = |path: &Path| Self::parse(&std::fs::read(path).ok()?);
        let found = match tz.map(|tz| tz.strip_prefix(':').unwrap_or(tz)) {
            None => read(Path::new("/etc/localtime")),
            Some("") => None,
            Some(path) if path.starts_with('/') => read(Path::new(path)),
            // A name must not lead out of the folders.
            Some(name) if name.split('/').any(|part| part == "..") => None,
            Some(name) => FOLDERS
                .iter()
                .find_map(|folder| read(&PathBuf::from(folder).join(name))),
        };
        found.unwrap_or_default()
    }

    /// Seconds east of Greenwich at `at`, seconds since the Unix epoch.
    pub(super) fn offset_at(&self, at: i64) -> i64 {
        let until = self.changes.partition_point(|(from, _)| *from <= at);
        match (&self.rule, until.checked_sub(1)) {
            (Some(rule), _) if until == self.changes.len() => rule.offset_at(at),
            (_, Some(index)) => self
                .changes
                .get(index)
                .map_or(self.first, |(_, offset)| *offset),
            (_, None) => self.first,
        }
    }

    /// Reads a compiled zone of version 2 or later; version 1 has no times beyond 2037 and is not made any more.
    fn parse(file: &[u8]) -> Option<Self> {
        let (counts, rest) = header(file)?;
        let rest = rest.get(counts.size(4)..)?;
        let (counts, mut rest) = header(rest)?;
        let mut take = |bytes: usize| {
            let (taken, after) = rest.split_at_checked(bytes)?;
            rest = after;
            Some(taken)
        };
        let times = take(counts.times * 8)?;
        let kinds = take(counts.times)?;
        let offsets: Vec<(i64, bool)> = take(counts.kinds * 6)?
            .chunks_exact(6)
            .filter_map(|kind| {
                let offset = i32::from_be_bytes(kind.get(..4)?.try_into().ok()?);
                Some((i64::from(offset), kind.get(4) == Some(&1)))
            })
            .collect();
        take(counts.letters + counts.leaps * 12 + counts.standard + counts.universal)?;
        let changes = times.chunks_exact(8).zip(kinds).map(|(time, kind)| {
            let (offset, _) = offsets.get(usize::from(*kind))?;
            Some((i64::from_be_bytes(time.try_into().ok()?), *offset))
        });
        let changes = changes.collect::<Option<Vec<_>>>()?;
        let standard = offsets.iter().find(|(_, is_summer)| !is_summer);
        let (first, _) = standard.or(offsets.first())?;
        let footer = std::str::from_utf8(rest).ok()?.trim_matches('\n');
        Some(Self {
            changes,
            first: *first,
            rule: Rule::parse(footer),
        })
    }
}

/// Numbers of entries, as the header has them.
struct Counts {
    universal: usize,
    standard: usize,
    leaps: usize,
    times: usize,
    kinds: usize,
    letters: usize,
}

impl Counts {
    /// Bytes after the header, where a time takes `time` bytes.
    fn size(&self, time: usize) -> usize {
        self.times * (time + 1)
            + self.kinds * 6
            + self.letters
            + self.leaps * (time + 4)
            + self.standard
            + self.universal
    }
}

fn header(file: &[u8]) -> Option<(Counts, &[u8])> {
    let (head, rest) = file.split_at_checked(44)?;
    if !head.starts_with(b"TZif") || head.get(4)? < &b'2' {
        return None;
    }
    let count = |index: usize| {
        let bytes = head.get(20 + 4 * index..24 + 4 * index)?;
        // No zone has more; a damaged file must not make sums overflow.
        let count = u32::from_be_bytes(bytes.try_into().ok()?);
        usize::try_from(count).ok().filter(|count| *count < 1 << 20)
    };
    let counts = Counts {
        universal: count(0)?,
        standard: count(1)?,
        leaps: count(2)?,
        times: count(3)?,
        kinds: count(4)?,
        letters: count(5)?,
    };
    Some((counts, rest))
}

impl Rule {
    /// Reads a POSIX `TZ`: `CET-1CEST,M3.5.0,M10.5.0/3`.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(',');
        let rest = after_name(parts.next()?)?;
        let (standard, rest) = seconds(rest)?;
        let standard = -standard;
        if rest.is_empty() {
            return Some(Self {
                standard,
                summer: None,
            });
        }
        let rest = after_name(rest)?;
        let summer = match rest {
            "" => standard + 3600,
            rest => -seconds(rest)?.0,
        };
        let (begin, end) = (Day::parse(parts.next()?)?, Day::parse(parts.next()?)?);
        Some(Self {
            standard,
            summer: Some((summer, begin, end)),
        })
    }

    fn offset_at(&self, at: i64) -> i64 {
        let Some((summer, begin, end)) = self.summer else {
            return self.standard;
        };
        let (year, _, _) = civil_from_days((at + self.standard).div_euclid(DAY));
        // Each is told in the time that holds until then.
        let begin = begin.seconds(year) - self.standard;
        let end = end.seconds(year) - summer;
        let is_summer = if begin < end {
            (begin..end).contains(&at)
        } else {
            // South of the equator summer spans the turn of the year.
            !(end..begin).contains(&at)
        };
        if is_summer { summer } else { self.standard }
    }
}

/// What follows a name: letters, or anything between `<` and `>`.
fn after_name(text: &str) -> Option<&str> {
    if let Some(quoted) = text.strip_prefix('<') {
        return quoted.split_once('>').map(|(_, rest)| rest);
    }
    let rest = text.trim_start_matches(|c: char| c.is_ascii_alphabetic());
    (rest.len() < text.len()).then_some(rest)
}

/// `[+-]hh[:mm[:ss]]` in seconds, and what follows.
fn seconds(text: &str) -> Option<(i64, &str)> {
    let (sign, text) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = text.find(|c: char| !c.is_ascii_digit() && c != ':');
    let (digits, rest) = text.split_at(end.unwrap_or(text.len()));
    let mut total = 0;
    let mut unit = 3600;
    for part in digits.split(':') {
        total += part.parse::<i64>().ok().filter(|part| *part < 1000)? * unit;
        unit /= 60;
    }
    Some((sign * total, rest))
}

impl Day {
    /// Reads `M3.5.0/3`, `J60`, `59/1`; the time is 02:00 if it is not said.
    fn parse(text: &str) -> Option<Self> {
        let (date, time) = text.split_once('/').unwrap_or((text, "2"));
        let number = |text: &str| text.parse::<i64>().ok().filter(|it| (0..=366).contains(it));
        let date = if let Some(rest) = date.strip_prefix('M') {
            let mut parts = rest.split('.').map(number);
            Date::Weekday {
                month: parts.next()??,
                week: parts.next()??,
                day: parts.next()??,
            }
        } else if let Some(rest) = date.strip_prefix('J') {
            Date::NoLeap(number(rest)?)
        } else {
            Date::Plain(number(date)?)
        };
        Some(Self {
            date,
            time: seconds(time)?.0,
        })
    }

    /// Seconds from the epoch to this moment of `year` by a clock that shows no offset.
    fn seconds(self, year: i64) -> i64 {
        let january = days_from_civil(year, 1, 1);
        let day = match self.date {
            Date::Weekday { month, week, day } => {
                let first = days_from_civil(year, month, 1);
                // The epoch was a Thursday.
                let weekday = (first + 4).rem_euclid(7);
                let date = first + (day - weekday).rem_euclid(7) + 7 * (week - 1);
                let (next_year, next_month) = (year + month / 12, month % 12 + 1);
                let end = days_from_civil(next_year, next_month, 1);
                if date < end { date } else { date - 7 }
            }
            Date::NoLeap(day) => {
                let is_leap = days_from_civil(year, 3, 1) - january == 60;
                january + day - 1 + i64::from(is_leap && day > 59)
            }
            Date::Plain(day) => january + day,
        };
        day * DAY + self.time
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::describe::time;

    fn check(zone: &Zone, moment: &str, expected: &str) {
        assert_eq!(time::rfc1123(moment, zone), expected, "{moment}");
    }

    /// A zone without changes, but with a rule.
    fn ruled(rule: &str) -> Zone {
        Zone {
            rule: Rule::parse(rule),
            ..Zone::default()
        }
    }

    #[test]
    fn rule_north_has_summer_between_two_sundays() {
        let berlin = ruled("CET-1CEST,M3.5.0,M10.5.0/3");
        check(
            &berlin,
            "2026-01-01T00:00:00Z",
            "Thu, 01 Jan 2026 01:00:00 +0100",
        );
        check(
            &berlin,
            "2026-03-29T00:59:59Z",
            "Sun, 29 Mar 2026 01:59:59 +0100",
        );
        check(
            &berlin,
            "2026-03-29T01:00:00Z",
            "Sun, 29 Mar 2026 03:00:00 +0200",
        );
        check(
            &berlin,
            "2026-10-25T00:59:59Z",
            "Sun, 25 Oct 2026 02:59:59 +0200",
        );
        check(
            &berlin,
            "2026-10-25T01:00:00Z",
            "Sun, 25 Oct 2026 02:00:00 +0100",
        );
    }

    #[test]
    fn rule_south_and_west_and_odd_offsets() {
        let sydney = ruled("AEST-10AEDT,M10.1.0,M4.1.0/3");
        check(
            &sydney,
            "2026-01-01T00:00:00Z",
            "Thu, 01 Jan 2026 11:00:00 +1100",
        );
        check(
            &sydney,
            "2026-07-01T00:00:00Z",
            "Wed, 01 Jul 2026 10:00:00 +1000",
        );
        let new_york = ruled("EST5EDT,M3.2.0,M11.1.0");
        check(
            &new_york,
            "2026-11-21T03:00:00Z",
            "Fri, 20 Nov 2026 22:00:00 -0500",
        );
        check(
            &new_york,
            "2026-03-08T07:00:00Z",
            "Sun, 08 Mar 2026 03:00:00 -0400",
        );
        check(
            &ruled("<+0545>-5:45"),
            "2026-01-01T00:00:00Z",
            "Thu, 01 Jan 2026 05:45:00 +0545",
        );
        check(
            &ruled("<-0330>3:30"),
            "2026-01-01T00:00:00Z",
            "Wed, 31 Dec 2025 20:30:00 -0330",
        );
    }

    #[test]
    fn rule_days_of_the_year_know_leap_days() {
        let day =
            |text: &str, year| Day::parse(text).map(|day| civil_from_days(day.seconds(year) / DAY));
        assert_eq!(day("J60", 2024), Some((2024, 3, 1)));
        assert_eq!(day("59", 2024), Some((2024, 2, 29)));
        assert_eq!(day("M12.5.0", 2026), Some((2026, 12, 27)));
        assert_eq!(Day::parse("M3"), None);
    }

    #[test]
    fn parse_reads_changes_and_the_rule_after_them() {
        let mut file = Vec::new();
        let head = |counts: [u32; 6]| {
            let mut head = b"TZif2".to_vec();
            head.resize(20, 0);
            for count in counts {
                head.extend(count.to_be_bytes());
            }
            head
        };
        file.extend(head([0, 0, 0, 0, 1, 1]));
        file.extend([0; 7]);
        file.extend(head([0, 0, 0, 1, 2, 4]));
        file.extend(1_000_i64.to_be_bytes());
        file.push(1);
        for (offset, is_summer) in [(600_i32, 0_u8), (7200, 1)] {
            file.extend(offset.to_be_bytes());
            file.extend([is_summer, 0]);
        }
        file.extend(b"ABC\0\nCET-1\n");
        let zone = Zone::parse(&file).unwrap();
        assert_eq!(zone.offset_at(999), 600);
        assert_eq!(
            zone.offset_at(1_000),
            3600,
            "the rule holds after the last change"
        );
        for end in 0..file.len() - 8 {
            assert_eq!(Zone::parse(&file[..end]), None, "{end}");
        }
    }

    #[test]
    fn local_unknown_names_are_utc() {
        assert_eq!(Zone::local(Some("")), Zone::default());
        assert_eq!(Zone::local(Some("Nowhere/Atlantis")), Zone::default());
        assert_eq!(Zone::local(Some("../../etc/passwd")), Zone::default());
    }
}
