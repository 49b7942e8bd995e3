//! Powers of two, by additions and multiplications only: those are the same on every machine,
//! what the mathematics library of a system answers is not.

/// `2^-x` for `x ≥ 0`, to a few units in the last place. What is below the smallest normal
/// number is 0.
pub(crate) fn half_to_the(x: f64) -> f64 {
    if x >= 1022.0 {
        return 0.0;
    }
    let whole = (x + 0.5).floor();
    // Within ±ln 2 / 2.
    let y = (whole - x) * std::f64::consts::LN_2;
    // The series of e^y to the 13th power; what is left out is below 10^-17.
    let mut sum = 1.0 / 6_227_020_800.0;
    for factor in [
        1.0 / 479_001_600.0,
        1.0 / 39_916_800.0,
        1.0 / 3_628_800.0,
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5_040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ] {
        sum = sum * y + factor;
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1022")]
    let exponent = 1023 - whole as u64;
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

    #[test]
    fn halves_exactly_and_ends_at_zero() {
        for n in 0..1022u16 {
            assert_eq!(half_to_the(f64::from(n)).to_bits(), 2f64.powi(-i32::from(n)).to_bits());
        }
        assert_eq!(half_to_the(1e9), 0.0);
        assert_eq!(half_to_the(f64::INFINITY), 0.0);
    }
}
