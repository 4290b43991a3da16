//! Measuring: how values are spread, how even shares are, and what happened in the last seconds. Owns arithmetic over
//! numbers that others count; must not count connections or decide anything by what it finds.

pub mod evenness;
pub mod histogram;
pub mod window;

/// A count as a real number, to the precision of one (exact up to 2^53).
pub fn real(count: u64) -> f64 {
    let high = u32::try_from(count >> 32).unwrap_or(u32::MAX);
    let low = u32::try_from(count & u64::from(u32::MAX)).unwrap_or(u32::MAX);
    f64::from(high) * 4_294_967_296.0 + f64::from(low)
}
