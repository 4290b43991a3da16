//! The order of addresses in a response. Owns nothing but the permutation; its seed is an argument.

/// A uniform permutation (Fisher and Yates) drawn from `seed` by `SplitMix64`.
///
/// Seeds that follow each other in steps of the generator's own constant would give each other's draws one late, so the
/// first one is mixed before it is used.
pub(crate) fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut state = mixed(seed);
    for end in (1..items.len()).rev() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let drawn = u128::from(mixed(state)) * (u128::try_from(end).unwrap_or(0) + 1);
        items.swap(end, usize::try_from(drawn >> 64).unwrap_or(end));
    }
}

const fn mixed(state: u64) -> u64 {
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}
