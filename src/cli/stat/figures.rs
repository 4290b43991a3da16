//! Figures as they stand in cells: short, without spaces, `-` for what is not known. Owns roundings and units.

use crate::admin::stat::Unit;

/// What is not known.
pub(crate) const NONE: &str = "-";

/// So many a second.
pub(crate) fn rate(value: f64) -> String {
    match value {
        value if value <= 0.0 => "0".to_owned(),
        value if value < 9.95 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}

/// So many of what is counted a second, as a cell: `12req/s`.
pub(crate) fn per_second(value: f64, unit: Unit) -> String {
    format!("{}{}/s", rate(value), unit.short())
}

/// Bytes, in powers of a thousand.
pub(crate) fn bytes(value: f64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let mut value = value;
    let mut left = units.iter();
    let mut unit = left.next();
    // 999.5 would be rounded to four digits.
    while value >= 999.5
        && let Some(next) = left.next()
    {
        value /= 1000.0;
        unit = Some(next);
    }
    let unit = unit.copied().unwrap_or_default();
    if value < 9.95 && unit != "B" {
        format!("{value:.1}{unit}")
    } else {
        format!("{value:.0}{unit}")
    }
}

/// A time in seconds.
pub(crate) fn time(seconds: Option<f64>) -> String {
    match seconds {
        None => NONE.to_owned(),
        Some(seconds) if seconds < 0.000_999_5 => format!("{:.0}us", seconds * 1e6),
        Some(seconds) if seconds < 0.009_95 => format!("{:.1}ms", seconds * 1e3),
        Some(seconds) if seconds < 0.999_5 => format!("{:.0}ms", seconds * 1e3),
        Some(seconds) if seconds < 9.95 => format!("{seconds:.1}s"),
        Some(seconds) => format!("{seconds:.0}s"),
    }
}

/// A share as per cent.
pub(crate) fn percent(share: Option<f64>) -> String {
    share.map_or_else(
        || NONE.to_owned(),
        |share| {
            let percent = share * 100.0;
            match percent {
                percent if percent > 0.0 && percent < 0.05 => "<0.1%".to_owned(),
                percent => format!("{percent:.1}%"),
            }
        },
    )
}

/// Cells on each side of the middle of a bar.
const HALF: usize = 5;
/// What the end of a bar may mean.
const SCALES: [f64; 6] = [0.05, 0.1, 0.25, 0.5, 1.0, 3.0];

/// The smallest scale that all deviations fit into, or the largest there is.
pub(crate) fn scale(deviations: impl Iterator<Item = f64>) -> f64 {
    let most = deviations.map(f64::abs).fold(0.0, f64::max);
    let fits = SCALES.into_iter().find(|scale| most <= *scale);
    fits.unwrap_or(3.0)
}

/// A deviation as a bar around its middle, in plain characters: `  ##|     `.
pub(crate) fn bar(deviation: f64, scale: f64) -> String {
    let steps: Vec<f64> = (1..=HALF)
        .map(|step| f64::from(u32::try_from(step).unwrap_or(0)))
        .collect();
    let half = f64::from(u32::try_from(HALF).unwrap_or(1));
    let filled = (deviation.abs() / scale * half).min(half).round();
    let cells = |is_side: bool| -> String {
        let cell = |step: &f64| if is_side && *step <= filled { '#' } else { ' ' };
        steps.iter().map(cell).collect()
    };
    let left: String = cells(deviation < 0.0).chars().rev().collect();
    format!("[{left}|{}]", cells(deviation > 0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits_and_a_unit() {
        assert_eq!(
            [0.0, 0.44, 9.96, 1234.4].map(rate),
            ["0", "0.4", "10", "1234"]
        );
        assert_eq!(
            [0.0, 999.0, 999.9, 12_345.0, 5e6, 2e15].map(bytes),
            ["0B", "999B", "1.0kB", "12kB", "5.0MB", "2000TB"]
        );
        assert_eq!(
            [0.000_18, 0.001_2, 0.034, 1.25, 75.0].map(|of| time(Some(of))),
            ["180us", "1.2ms", "34ms", "1.2s", "75s"]
        );
        assert_eq!(time(None), "-");
        assert_eq!(
            [0.0, 0.0001, 0.25, 1.0].map(|of| percent(Some(of))),
            ["0.0%", "<0.1%", "25.0%", "100.0%"]
        );
    }

    #[test]
    fn bar_grows_from_the_middle_and_stays_within_its_frame() {
        assert_eq!(bar(0.0, 0.1), "[     |     ]");
        assert_eq!(bar(0.1, 0.1), "[     |#####]");
        assert_eq!(bar(-0.04, 0.1), "[   ##|     ]");
        assert_eq!(bar(7.0, 3.0), "[     |#####]");
        assert_eq!(bar(0.001, 0.1), "[     |     ]");
    }

    #[test]
    fn scale_is_the_smallest_that_fits() {
        assert!((scale([0.0, 0.03].into_iter()) - 0.05).abs() < 1e-9);
        assert!((scale([-0.3, 0.1].into_iter()) - 0.5).abs() < 1e-9);
        assert!((scale([9.0].into_iter()) - 3.0).abs() < 1e-9);
    }
}
