//! Powers of two, by additions and multiplications only: those are the same on every machine,
//! what the mathematics library of a system answers is not.

/// Of `e^y`: `1/n!`.
const SERIES: [f64; 14] = [
    1.0,
    1.0,
    0.5,
    1.0 / 6.0,
    1.0 / 24.0,
    1.0 / 120.0,
    1.0 / 720.0,
    1.0 / 5_040.0,
    1.0 / 40_320.0,
    1.0 / 362_880.0,
    1.0 / 3_628_800.0,
    1.0 / 39_916_800.0,
    1.0 / 479_001_600.0,
    1.0 / 6_227_020_800.0,
];

/// `2^-x` for `x ≥ 0`, to a few units in the last place. What is below the smallest normal
/// number is 0, and so is what there cannot be.
#[inline]
pub(crate) fn half_to_the(x: f64) -> f64 {
    if !(0.0..1022.0).contains(&x) {
        return 0.0;
    }
    #[allow(clippy::cast_possible_truncation, reason = "0 to 1022")]
    let whole = (x + 0.5) as i32;
    // Within ±ln 2 / 2.
    let y = (f64::from(whole) - x) * std::f64::consts::LN_2;
    // The series of e^y to the 13th power; what is left out is below 10^-17. Its terms are
    // added in pairs, pairs of pairs and so on, always in this order: a processor adds pairs side
    // by side, where it would wait for one term after the other.
    let pair = |at: usize| SERIES[at] + SERIES[at + 1] * y;
    let y2 = y * y;
    let y4 = y2 * y2;
    let low = (pair(0) + pair(2) * y2) + (pair(4) + pair(6) * y2) * y4;
    let high = (pair(8) + pair(10) * y2) + pair(12) * y4;
    let sum = low + high * (y4 * y4);
    #[allow(clippy::cast_sign_loss, reason = "1 to 1023")]
    let exponent = (1023 - whole) as u64;
    sum * f64::from_bits(exponent << 52)
}

#[cfg(test)]
mod tests {
    use super::half_to_the;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn is_the_power_of_two(x in 0.0..1000.0f64) {
            let (found, due) = (half_to_the(x), (-x).exp2());
            prop_assert!((found - due).abs() <= due * 4.0 * f64::EPSILON, "{x}: {found} {due}");
        }
    }

    /// Computed elsewhere, by the same additions and multiplications. Scores of one release are
    /// added to in the next, so their last bits are part of the format.
    #[test]
    fn has_the_same_bits_everywhere() {
        for (x, bits) in [
            (0.0737, 0x3fee_6805_883b_f473u64),
            (0.2948, 0x3fea_15ff_8d50_0079),
            (0.3685, 0x3fe8_c96b_9584_9075),
            (0.8107, 0x3fe2_3e4d_34bb_c3c6),
        ] {
            assert_eq!(half_to_the(x).to_bits(), bits, "{x}");
        }
    }

    #[test]
    fn halves_exactly_and_ends_at_zero() {
        for n in 0..1022u16 {
            assert_eq!(half_to_the(f64::from(n)).to_bits(), 2f64.powi(-i32::from(n)).to_bits());
        }
        assert_eq!(half_to_the(1e9), 0.0);
        assert_eq!(half_to_the(f64::INFINITY), 0.0);
        assert_eq!(half_to_the(-1e9), 0.0, "of a time that cannot be");
    }
}
