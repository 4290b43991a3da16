//! Kubernetes quantities (`500m`, `1Gi`, `1e3`): what they amount to, their sums and their canonical form. Owns the
//! arithmetic; must not print.

use std::ops::AddAssign;

/// How a quantity is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// `k`, `M`, `m`.
    Decimal,
    /// `Ki`, `Mi`.
    Binary,
    /// `e3`.
    Exponent,
}

/// An amount, exact to a billionth as in the Kubernetes API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Quantity {
    nano: i128,
    format: Format,
}

const NANO: i128 = 1_000_000_000;
/// Suffixes with their power of ten.
const DECIMAL: [(&str, i32); 10] = [
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];
/// Suffixes with their power of 1024.
const BINARY: [(&str, u32); 6] = [
    ("Ki", 1),
    ("Mi", 2),
    ("Gi", 3),
    ("Ti", 4),
    ("Pi", 5),
    ("Ei", 6),
];

impl Quantity {
    /// Nothing.
    pub(super) const ZERO: Self = Self {
        nano: 0,
        format: Format::Decimal,
    };

    /// Reads a quantity; `None` if it is none or too large.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let split = text.find(|c: char| !c.is_ascii_digit() && !"+-.".contains(c));
        let (digits, suffix) = text.split_at(split.unwrap_or(text.len()));
        let (format, power, factor) =
            if let Some((_, exponent)) = BINARY.iter().find(|(name, _)| *name == suffix) {
                (Format::Binary, 0, 1024_i128.pow(*exponent))
            } else if let Some((_, power)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
                (Format::Decimal, *power, 1)
            } else {
                let power = suffix.strip_prefix(['e', 'E'])?.parse::<i32>().ok()?;
                (Format::Exponent, power, 1)
            };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let mantissa: i128 = format!("{whole}{fraction}").parse().ok()?;
        let scale = 9 + power - i32::try_from(fraction.len()).ok()?;
        let ten = 10_i128.checked_pow(scale.unsigned_abs())?;
        let nano = if scale < 0 {
            // Rounded up, as the API does with what it cannot hold.
            mantissa
                .checked_mul(factor)?
                .checked_add(ten - 1)?
                .div_euclid(ten)
        } else {
            mantissa.checked_mul(factor)?.checked_mul(ten)?
        };
        Some(Self { nano, format })
    }

    /// Whole units, rounded up.
    pub(super) fn value(self) -> i128 {
        (self.nano + NANO - 1).div_euclid(NANO)
    }

    /// Thousandths, rounded up.
    pub(super) fn milli(self) -> i128 {
        (self.nano + NANO / 1000 - 1).div_euclid(NANO / 1000)
    }

    /// Billionths.
    pub(super) fn nano(self) -> i128 {
        self.nano
    }

    /// Whether it amounts to nothing.
    pub(super) fn is_zero(self) -> bool {
        self.nano == 0
    }

    fn binary(self) -> Option<String> {
        let units = self.nano / NANO;
        if self.nano % NANO != 0 || units.abs() < 1024 {
            return None;
        }
        let power = BINARY
            .iter()
            .rev()
            .find(|(_, power)| units % 1024_i128.pow(*power) == 0);
        let (suffix, power) = power.copied().unwrap_or(("", 0));
        Some(format!("{}{suffix}", units / 1024_i128.pow(power)))
    }
}

impl std::fmt::Display for Quantity {
    /// The canonical form: the largest suffix that leaves a whole number.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.nano == 0 {
            return out.write_str("0");
        }
        if self.format == Format::Binary
            && let Some(text) = self.binary()
        {
            return out.write_str(&text);
        }
        let mut mantissa = self.nano;
        let mut power = -9;
        while mantissa % 1000 == 0 && power < 18 {
            mantissa /= 1000;
            power += 3;
        }
        let suffix = DECIMAL.iter().find(|(_, of)| *of == power);
        match (self.format, suffix) {
            (Format::Exponent, _) if power != 0 => write!(out, "{mantissa}e{power}"),
            (_, suffix) => write!(out, "{mantissa}{}", suffix.map_or("", |(name, _)| name)),
        }
    }
}

impl AddAssign for Quantity {
    /// The sum, written as the first that is not zero.
    fn add_assign(&mut self, other: Self) {
        if self.nano == 0 {
            self.format = other.format;
        }
        self.nano = self.nano.saturating_add(other.nano);
    }
}

/// The canonical form of a quantity; as it is if it is none.
pub(super) fn canonical(text: &str) -> String {
    Quantity::parse(text).map_or_else(|| text.to_owned(), |quantity| quantity.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_is_the_largest_whole_suffix() {
        let check = |text, expected| assert_eq!(canonical(text), expected, "{text}");
        check("1000m", "1");
        check("0.5", "500m");
        check("100m", "100m");
        check("1024Mi", "1Gi");
        check("1.5Gi", "1536Mi");
        check("64Mi", "64Mi");
        check("1000", "1k");
        check("1536", "1536");
        check("1e3", "1e3");
        check("512Ki", "512Ki");
        check("0", "0");
        check("1234567", "1234567");
        check("not one", "not one");
    }

    #[test]
    fn sum_keeps_the_first_format() {
        let mut sum = Quantity::ZERO;
        for text in ["64Mi", "1Gi"] {
            sum += Quantity::parse(text).unwrap();
        }
        assert_eq!(sum.to_string(), "1088Mi");
        assert_eq!(Quantity::parse("100m").unwrap().milli(), 100);
        assert_eq!(Quantity::parse("100m").unwrap().value(), 1);
    }
}
