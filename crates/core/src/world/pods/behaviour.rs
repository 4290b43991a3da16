//! How a simulated pod behaves by its annotations. Owns reading them; must not know who acts on them.

use std::time::Duration;

use crate::object::{
    Labels,
    annotations::{ERROR_RATE, LATENCY, STARTUP_DELAY, TERMINATION_DELAY, duration},
};

/// Longest delay that may be asked for.
const LONGEST: Duration = Duration::from_hours(1);

/// Hundredths of a per cent in the whole.
const WHOLE: u32 = 10_000;

/// See the module's documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Behaviour {
    /// It is up this long after its start was asked for, in milliseconds.
    pub startup_delay_ms: u64,
    /// It waits this long before it answers a request, in milliseconds.
    pub latency_ms: u64,
    /// Requests of 10 000 that are answered with status 500.
    pub errors_per_10000: u32,
    /// It takes at least this long to end, in milliseconds.
    pub termination_delay_ms: u64,
}

impl Behaviour {
    /// What `annotations` ask for, and what is wrong with those that cannot be read (which then ask for nothing).
    pub fn read(annotations: &Labels) -> (Self, Vec<String>) {
        let mut problems = Vec::new();
        let mut delay = |key: &str| {
            let text = annotations.get(key)?;
            let read = duration(text).filter(|delay| *delay <= LONGEST);
            if read.is_none() {
                problems.push(format!(
                    "annotation {key}: {text:?} is not a duration up to 1h, such as 50ms or 2s"
                ));
            }
            u64::try_from(read?.as_millis()).ok()
        };
        let (startup, latency) = (delay(STARTUP_DELAY), delay(LATENCY));
        let termination = delay(TERMINATION_DELAY);
        let errors = annotations.get(ERROR_RATE).and_then(|text| {
            let read = share(text);
            if read.is_none() {
                problems.push(format!(
                    "annotation {ERROR_RATE}: {text:?} is not a share from 0% to 100%, such as 10%"
                ));
            }
            read
        });
        let behaviour = Self {
            startup_delay_ms: startup.unwrap_or_default(),
            latency_ms: latency.unwrap_or_default(),
            errors_per_10000: errors.unwrap_or_default(),
            termination_delay_ms: termination.unwrap_or_default(),
        };
        (behaviour, problems)
    }
}

/// `10%` or `2.5%`, in hundredths of a per cent.
fn share(text: &str) -> Option<u32> {
    let number = text.strip_suffix('%')?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 2 {
        return None;
    }
    let scale = if fraction.len() == 1 { 10 } else { 1 };
    let hundredths = fraction.parse::<u32>().ok()? * scale;
    let share = whole.parse::<u32>().ok()?.checked_mul(100)?;
    share
        .checked_add(hundredths)
        .filter(|share| *share <= WHOLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(key: &str, value: &str) -> (Behaviour, usize) {
        let (behaviour, problems) = Behaviour::read(&Labels::from([(key.into(), value.into())]));
        (behaviour, problems.len())
    }

    #[test]
    fn behaviour_durations_read_as_go_writes_them() {
        for (text, ms) in [
            ("50ms", 50),
            ("2s", 2000),
            ("1m30s", 90_000),
            ("1.5s", 1500),
            ("1h", 3_600_000),
            ("0", 0),
        ] {
            assert_eq!(read(LATENCY, text).0.latency_ms, ms, "{text}");
            assert_eq!(read(STARTUP_DELAY, text).0.startup_delay_ms, ms, "{text}");
            let (behaviour, problems) = read(TERMINATION_DELAY, text);
            assert_eq!(
                (behaviour.termination_delay_ms, problems),
                (ms, 0),
                "{text}"
            );
        }
    }

    #[test]
    fn behaviour_error_rate_reads_hundredths_of_a_per_cent() {
        for (text, share) in [
            ("10%", 1000),
            ("0%", 0),
            ("100%", 10_000),
            ("2.5%", 250),
            ("0.05%", 5),
        ] {
            assert_eq!(read(ERROR_RATE, text).0.errors_per_10000, share, "{text}");
        }
    }

    #[test]
    fn behaviour_that_cannot_be_read_is_none_and_a_problem() {
        for (key, text) in [
            (LATENCY, "50"),
            (LATENCY, ""),
            (LATENCY, "-1s"),
            (LATENCY, "2h"),
            (LATENCY, "s"),
            (LATENCY, "1.2.3s"),
            (ERROR_RATE, "10"),
            (ERROR_RATE, "101%"),
            (ERROR_RATE, "%"),
            (ERROR_RATE, "1.234%"),
            (ERROR_RATE, "-1%"),
        ] {
            assert_eq!(read(key, text), (Behaviour::default(), 1), "{key}: {text}");
        }
    }
}
