//! Fast sums, and logistic and exponential functions that neither overflow nor cancel.

mod exponential;
mod recurrence;

use std::f64::consts::LN_2;

pub(crate) use exponential::{NEAR, exp_excess_slice, exp_m1_slice, exp_near, exp_slice};
pub(crate) use recurrence::{Direction, Discount};

/// Number of independent partial sums, so that a sum takes only as long as reading its terms.
const LANES: usize = 8;

/// The sum of all values.
///
/// ```
/// assert_eq!(objective::numerics::sum(&[-0.5, -1.5, -2.0]), -4.0);
/// ```
pub fn sum(values: &[f64]) -> f64 {
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, value)| *lane += value);
    }
    lanes.iter().chain(rest).sum()
}

/// The sum of the squares of all values.
///
/// ```
/// let values: Vec<f64> = (0..10).map(f64::from).collect();
/// assert_eq!(objective::numerics::sum_of_squares(&values), 285.0);
/// ```
pub fn sum_of_squares(values: &[f64]) -> f64 {
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, value)| *lane += value * value);
    }
    lanes.into_iter().chain(rest.iter().map(|value| value * value)).sum()
}

/// Σ a b over slices of equal length.
pub(crate) fn sum_of_products(a: &[f64], b: &[f64]) -> f64 {
    let ((a_chunks, a_rest), (b_chunks, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut lanes = [0.0; LANES];
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        lanes.iter_mut().zip(a.iter().zip(b)).for_each(|(lane, (a, b))| *lane += a * b);
    }
    lanes.into_iter().chain(a_rest.iter().zip(b_rest).map(|(a, b)| a * b)).sum()
}

/// The minimum and the maximum of all values; infinity and minus infinity if there are none.
pub(crate) fn extent(values: &[f64]) -> (f64, f64) {
    let (chunks, rest) = values.as_chunks::<LANES>();
    let (mut low, mut high) = ([f64::INFINITY; LANES], [f64::NEG_INFINITY; LANES]);
    for chunk in chunks {
        for ((low, high), &value) in low.iter_mut().zip(&mut high).zip(chunk) {
            *low = if value < *low { value } else { *low };
            *high = if value > *high { value } else { *high };
        }
    }
    let least = low.into_iter().chain(rest.iter().copied()).fold(f64::INFINITY, f64::min);
    (least, high.into_iter().chain(rest.iter().copied()).fold(f64::NEG_INFINITY, f64::max))
}

/// The minimum of all values; infinity if there are none.
pub(crate) fn least(values: &[f64]) -> f64 {
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut lanes = [f64::INFINITY; LANES];
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, value)| *lane = if value < lane { *value } else { *lane });
    }
    lanes.into_iter().chain(rest.iter().copied()).fold(f64::INFINITY, f64::min)
}

/// Σ (a − b) over slices of equal length: exactly 0 where they are equal.
pub(crate) fn sum_of_differences(a: &[f64], b: &[f64]) -> f64 {
    let ((a_chunks, a_rest), (b_chunks, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut lanes = [0.0; LANES];
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        lanes.iter_mut().zip(a.iter().zip(b)).for_each(|(lane, (a, b))| *lane += a - b);
    }
    let rest = a_rest.iter().zip(b_rest).map(|(a, b)| a - b);
    lanes.into_iter().chain(rest).sum()
}

/// Logistic function σ(x) = 1 / (1 + e⁻ˣ).
///
/// Small values keep their relative precision:
///
/// ```
/// use objective::numerics::sigmoid;
///
/// assert_eq!(sigmoid(0.0), 0.5);
/// assert!((sigmoid(-40.0) * 40.0_f64.exp() - 1.0).abs() < 1e-14);
/// ```
pub fn sigmoid(x: f64) -> f64 {
    let tail = (-x.abs()).exp();
    if x >= 0.0 { 1.0 / (1.0 + tail) } else { tail / (1.0 + tail) }
}

/// log(1 + eˣ) = −log σ(−x), nats.
///
/// It is exact where eˣ overflows, and still positive where 1 + eˣ rounds to 1:
///
/// ```
/// use objective::numerics::softplus;
///
/// assert_eq!(softplus(1000.0), 1000.0);
/// assert!((softplus(-40.0) * 40.0_f64.exp() - 1.0).abs() < 1e-14);
/// ```
pub fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// log(1 − eˣ) for x < 0, nats.
///
/// Two forms, so that neither end cancels: M. Mächler, "Accurately Computing log(1 − exp(−|a|))", 2012.
pub(crate) fn log1mexp(x: f64) -> f64 {
    if x > -LN_2 { (-x.exp_m1()).ln() } else { (-x.exp()).ln_1p() }
}

/// Exponent beyond which the exponential is replaced by its tangent.
pub(crate) const STEEPEST: f64 = 100.0;

/// eˣ and its derivative. Beyond x = 100 the function continues along its tangent, so that both stay finite.
pub(crate) fn exponential(x: f64) -> (f64, f64) {
    let slope = x.min(STEEPEST).exp();
    (slope * (1.0 + (x - STEEPEST).max(0.0)), slope)
}

/// ((eˣ)ᵏ − 1) / k, the Box-Cox transform of order k ≠ 0 of eˣ, and its derivative by x.
///
/// For exponents k x above 100 the function continues along its tangent, so that value and derivative stay finite.
pub(crate) fn box_cox(order: f64, x: f64) -> (f64, f64) {
    let exponent = order * x;
    let (value, slope) = exponential(exponent);
    (if exponent <= STEEPEST { exponent.exp_m1() } else { value - 1.0 } / order, slope)
}

/// eˣ − x − 1 ≥ 0 and its derivative; exact near 0, where the terms cancel, and along a tangent beyond x = 100.
pub(crate) fn exponential_excess(x: f64) -> (f64, f64) {
    const NEAR: f64 = 0.5;
    let slope = if x <= STEEPEST { x.exp_m1() } else { STEEPEST.exp() - 1.0 };
    let excess = if x.abs() <= NEAR {
        // x²/2! + x³/3! + ... + x¹⁵/15!, as x²/2 (1 + x/3 (1 + x/4 (1 + ...))).
        0.5 * x * x * (3..=15).rev().fold(1.0, |sum, k| 1.0 + x / f64::from(k) * sum)
    } else if x <= STEEPEST {
        slope - x
    } else {
        exponential(x).0 - x - 1.0
    };
    (excess, slope)
}

#[cfg(test)]
mod tests {
    use super::*;

    // 40-digit values, rounded to f64: mpmath 1.3, mp.dps = 40.
    #[test]
    fn agrees_with_high_precision_values() {
        let close = |a: f64, b: f64| assert!((a - b).abs() <= 2e-16 * b.abs(), "{a:e} is not {b:e}");
        close(sigmoid(2.0), 0.880_797_077_977_882_4);
        close(sigmoid(-40.0), 4.248_354_255_291_589e-18);
        close(softplus(1.0), 1.313_261_687_518_222_8);
        close(softplus(-40.0), 4.248_354_255_291_589e-18);
        close(log1mexp(-1e-12), -27.631_021_115_929_048);
        close(log1mexp(-40.0), -4.248_354_255_291_589e-18);
    }

    #[test]
    fn sums_add_every_term_once() {
        for length in [0, 1, 7, 8, 9, 64, 100] {
            let a: Vec<_> = (0..length).map(f64::from).collect();
            let b: Vec<_> = (0..length).map(|term| f64::from(term) - 2.0).collect();
            assert_eq!(sum(&a), f64::from(length * (length - 1) / 2));
            assert_eq!(sum_of_differences(&a, &b), 2.0 * f64::from(length));
            assert_eq!(sum_of_products(&a, &a), sum_of_squares(&a));
            assert_eq!(least(&b), if length == 0 { f64::INFINITY } else { -2.0 });
        }
    }

    #[test]
    fn the_excess_of_the_exponential_is_exact_near_zero_and_far_from_it() {
        // 40-digit values: mpmath 1.3, mp.dps = 40.
        for (x, expected) in [
            (1e-5, 5.000_016_666_708_333e-11),
            (-0.009, 4.037_877_288_366_216_5e-5),
            (0.01, 5.016_708_416_805_754e-5),
            (0.011, 6.072_244_471_955_804e-5),
            (2.0, 4.389_056_098_930_65),
        ] {
            let (value, slope) = exponential_excess(x);
            assert!((value - expected).abs() <= 1e-13 * expected, "{x}: {value:e} is not {expected:e}");
            assert_eq!(slope, x.exp_m1());
        }
        assert!(exponential_excess(1e30).0.is_finite());
    }

    #[test]
    fn exponentials_go_on_along_their_tangent_and_their_transforms_have_its_slope() {
        assert_eq!(exponential(0.0), (1.0, 1.0));
        let (value, slope) = exponential(103.0);
        assert_eq!((value / slope, slope), (4.0, 100.0_f64.exp()));
        // 1 − e⁻ˣ at eˣ = 2.
        let (value, slope) = box_cox(-1.0, 2.0_f64.ln());
        assert!((value - 0.5).abs() < 1e-15 && (slope - 0.5).abs() < 1e-15);
        assert!((log1mexp(0.75_f64.ln()) - 0.25_f64.ln()).abs() < 1e-15);
        assert_eq!(exponential_excess(0.0), (0.0, 0.0));
    }

    #[test]
    fn the_least_and_the_greatest_of_no_numbers_are_infinite() {
        assert_eq!(extent(&[]), (f64::INFINITY, f64::NEG_INFINITY));
        for length in [1, 7, 8, 9, 40] {
            let values: Vec<f64> = (0..length).map(|place| f64::from(place * 7 % 11) - 5.0).collect();
            let (least, most) = extent(&values);
            assert!(values.contains(&least) && values.contains(&most), "{length}");
            assert!(values.iter().all(|value| (least..=most).contains(value)), "{length}");
        }
    }

    #[test]
    fn the_ends_are_finite_or_exact() {
        assert_eq!(softplus(0.0), LN_2);
        assert_eq!(softplus(1e300), 1e300);
        assert_eq!(softplus(-1e300), 0.0);
        assert_eq!(sigmoid(-1e300), 0.0);
        assert_eq!(sigmoid(1e300), 1.0);
    }
}
