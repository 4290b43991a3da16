//! CRC-32C (Castagnoli), reflected, as RFC 9260, Appendix A has it. Owns the arithmetic. Headers with a checksum are rare and
//! short, so that bit by bit is good enough.

/// 0x1EDC6F41 with its bits reversed.
const POLYNOMIAL: u32 = 0x82F6_3B78;

/// The checksum of these parts, one after the other.
pub(super) fn of(parts: &[&[u8]]) -> u32 {
    let bytes = parts.iter().copied().flatten();
    !bytes.fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_known_inputs_is_the_published_value() {
        // RFC 3720, B.4, and the usual check value.
        assert_eq!(of(&[b"1234", b"56789"]), 0xE306_9283);
        assert_eq!(of(&[&[0; 32]]), 0x8A91_36AA);
        assert_eq!(of(&[&[0xff; 32]]), 0x62A8_AB43);
    }
}
