//! `portico.dev/max-connections` and `portico.dev/max-connections-per-endpoint`: how many TCP connections a Service takes at a
//! time. Owns the values; holding connections to them belongs to [`crate::balance`] and the data path.

use std::num::NonZeroU32;

use super::meta::Labels;

/// What the values must look like.
pub const LIMITS: &str = "must be a whole number from 1 to 1000000";

/// Largest number: more than there are descriptors for.
const MOST: u32 = 1_000_000;

/// Reads a value; `None` when it is none of [`LIMITS`].
pub fn parse(value: &str) -> Option<NonZeroU32> {
    let is_number = value.bytes().all(|byte| byte.is_ascii_digit());
    let number: NonZeroU32 = value.parse().ok().filter(|_| is_number)?;
    (number.get() <= MOST).then_some(number)
}

/// What the annotation `key` of a Service asks for; no limit if it does not do so readably.
pub fn limit_of(annotations: &Labels, key: &str) -> Option<NonZeroU32> {
    annotations.get(key).and_then(|text| parse(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_takes_whole_numbers_from_one_to_a_million() {
        for (text, number) in [
            ("1", Some(1)),
            ("1000000", Some(1_000_000)),
            ("0", None),
            ("1000001", None),
            ("+5", None),
            ("-5", None),
            ("1.5", None),
            ("", None),
        ] {
            assert_eq!(parse(text).map(NonZeroU32::get), number, "{text:?}");
        }
    }
}
