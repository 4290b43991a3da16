//! Words that several parts put together alike. Owns no report.

use std::fmt::Display;

/// `1 pod`, `2 pods`.
pub(crate) fn counted<N: Copy + Display + PartialEq + From<u8>>(count: N, noun: &str) -> String {
    let plural = if count == N::from(1) { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counted_is_one_or_many() {
        let pods = [0_u64, 1, 2].map(|count| counted(count, "pod"));
        assert_eq!(pods, ["0 pods", "1 pod", "2 pods"]);
    }
}
