//! Exponential functions of whole slices, several numbers at a time.
//!
//! A loss that needs an exponential a token spends most of its time in it. These loops have no call and no branch a
//! number, so that the compiler turns them into vector instructions.
//!
//! # Formula
//!
//! With n the integer nearest to x / log 2 and r = x − n log 2, |r| ≤ (log 2)/2, eˣ = 2ⁿ (1 + r + r² q(r)). The
//! polynomial q has degree 10, q(0) = 1/2 and a relative error below 2⁻⁵⁷: it interpolates (eʳ − 1 − r)/r² at Chebyshev
//! nodes, computed with 60 digits (mpmath 1.3) and rounded. Where n is 0 for a whole block of numbers, reduction and
//! scaling are left out: they would not change a bit.
//!
//! The result for a number depends on that number alone: not on the numbers beside it and, as products and sums are
//! never contracted, not on the width of the processor's vectors.

use std::f64::consts::LOG2_E;

/// Size of a block that is reduced together, small enough for the first-level cache.
const BLOCK: usize = 64;

/// Bounds of x: the exponential is 0 below the first and infinite above the second.
const REACH: (f64, f64) = (-746.0, 710.0);

/// A number so large that it has no fraction: adding it to another rounds to an integer, which is then in the last
/// bits.
const INTEGERS: f64 = 6_755_399_441_055_744.0;

/// Twice the bias of an exponent, so that n and its halves are positive in the last bits.
const BIAS: f64 = 2046.0;

/// log 2 in two parts. Products of the first and integers below 2²⁰ are exact.
const LN_2: (f64, f64) = (f64::from_bits(0x3fe6_2e42_fee0_0000), 1.908_214_929_270_587_7e-10);

/// Coefficients of the polynomial q.
const Q: [f64; 11] = [
    0.5,
    0.166_666_666_666_666_7,
    0.041_666_666_666_666_67,
    0.008_333_333_333_326_136,
    0.001_388_888_888_888_374_8,
    0.000_198_412_698_748_206_27,
    2.480_158_732_554_774_3e-5,
    2.755_725_540_020_642_2e-6,
    2.755_727_364_311_03e-7,
    2.510_521_700_472_074_5e-8,
    2.091_468_696_808_687_6e-9,
];

/// r² q(r) = eʳ − 1 − r for |r| ≤ (log 2)/2, to within 5 units in the last place.
#[inline(always)]
fn excess_near(r: f64) -> f64 {
    let s = r * r;
    let (s2, s4) = (s * s, (s * s) * (s * s));
    let low = (Q[0] + r * Q[1]) + s * (Q[2] + r * Q[3]);
    let middle = (Q[4] + r * Q[5]) + s * (Q[6] + r * Q[7]);
    let high = (Q[8] + r * Q[9]) + s * Q[10];
    s * (low + s2 * middle + s4 * high)
}

/// The reduction x = n log 2 + r of a number.
#[derive(Clone, Copy)]
struct Reduced {
    r: f64,
    /// A number whose last 12 bits are n + 2046.
    shifted: f64,
}

impl Reduced {
    #[inline(always)]
    fn new(x: f64) -> Self {
        let x = if x < REACH.0 { REACH.0 } else { x };
        let x = if x > REACH.1 { REACH.1 } else { x };
        let shifted = x * LOG2_E + (INTEGERS + BIAS);
        let n = shifted - (INTEGERS + BIAS);
        Self { r: (x - n * LN_2.0) - n * LN_2.1, shifted }
    }

    /// Two powers of 2 whose product is 2ⁿ, and the inverse of the second. Each is in the range of f64 though 2ⁿ may
    /// not be.
    #[inline(always)]
    fn scale(self) -> (f64, f64, f64) {
        let sum = self.shifted.to_bits() & 0xfff;
        let first = sum >> 1;
        let second = sum - first;
        let power = |exponent: u64| f64::from_bits(exponent << 52);
        (power(first), power(second), power(2046_u64.wrapping_sub(second)))
    }

    #[inline(always)]
    fn exp(self) -> f64 {
        let (first, second, _) = self.scale();
        (1.0 + (self.r + excess_near(self.r))) * first * second
    }

    #[inline(always)]
    fn exp_m1(self) -> f64 {
        let (first, second, inverse) = self.scale();
        (first * (self.r + excess_near(self.r)) + (first - inverse)) * second
    }
}

/// Whether n is 0 for every number.
#[inline(always)]
fn all_near(values: &[f64]) -> bool {
    const LANES: usize = 8;
    let n = |x: &f64| ((x * LOG2_E + INTEGERS) - INTEGERS).abs();
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, x)| *lane += n(x));
    }
    lanes.into_iter().chain(rest.iter().map(n)).sum::<f64>() == 0.0
}

/// Replaces each number by a function of it: `near` where n is 0 for all of a block, `far` otherwise.
#[inline(always)]
fn replace(values: &mut [f64], near: impl Fn(f64) -> f64, far: impl Fn(f64, Reduced) -> f64) {
    let (mut remainders, mut shifted) = ([0.0; BLOCK], [0.0; BLOCK]);
    for block in values.chunks_mut(BLOCK) {
        if all_near(block) {
            block.iter_mut().for_each(|x| *x = near(*x));
        } else {
            // Two loops, so that the second can begin before the first has finished.
            for ((x, r), shifted) in block.iter().zip(&mut remainders).zip(&mut shifted) {
                Reduced { r: *r, shifted: *shifted } = Reduced::new(*x);
            }
            for ((x, r), shifted) in block.iter_mut().zip(&remainders).zip(&shifted) {
                *x = far(*x, Reduced { r: *r, shifted: *shifted });
            }
        }
    }
}

/// Magnitude of x below which n is 0.
pub(crate) const NEAR: f64 = 0.34;

/// eˣ for |x| below [`NEAR`], equal to the result of [`exp_slice`] to the last bit.
#[inline(always)]
pub(crate) fn exp_near(x: f64) -> f64 {
    1.0 + (x + excess_near(x))
}

/// Replaces every x by eˣ, to within 1 unit in the last place, subnormal results included.
pub(crate) fn exp_slice(values: &mut [f64]) {
    replace(values, exp_near, |_, reduced| reduced.exp());
}

/// Replaces every x by eˣ − 1, to within 3 units in the last place.
pub(crate) fn exp_m1_slice(values: &mut [f64]) {
    replace(values, |x| x + excess_near(x), |_, reduced| reduced.exp_m1());
}

/// Replaces every x by eˣ − 1 − x ≥ 0, to within 10 units in the last place, near 0 too, where the terms cancel.
pub(crate) fn exp_excess_slice(values: &mut [f64]) {
    let far = |x: f64, reduced: Reduced| {
        let difference = reduced.exp_m1() - if x > REACH.1 { REACH.1 } else { x };
        if reduced.r == x { excess_near(x) } else { difference } // they are equal where n is 0
    };
    replace(values, excess_near, far);
}

#[cfg(test)]
mod tests {
    use super::*;

    const EDGES: [f64; 20] = [
        0.0,
        -0.0,
        5e-324,
        -1e-310,
        1e-17,
        -1e-17,
        0.346_573_590_279_972_6,
        0.346_573_590_279_972_7,
        -0.346_573_590_279_972_6,
        709.782_712_893_384,
        709.782_712_893_385,
        -708.396_418_532_264_2,
        -745.133_219_101_941_1,
        -745.133_219_101_941_2,
        -746.5,
        711.0,
        1e300,
        -1e30,
        f64::INFINITY,
        f64::NEG_INFINITY,
    ];

    /// Test points: blocks near 0, blocks far from it, and the edges.
    fn grid() -> Vec<f64> {
        let spread = |width: f64, count: i32| (-count..=count).map(move |k| width * f64::from(k) / f64::from(count));
        let near = spread(0.34, 20_000).chain(spread(1e-7, 1000));
        near.chain(spread(2.0, 20_000)).chain(spread(746.0, 50_000)).chain(EDGES).collect()
    }

    /// Maximum distance of a function over slices from one of single numbers, in units in the last place of the second.
    fn distance(slices: fn(&mut [f64]), number: impl Fn(f64) -> f64) -> f64 {
        let grid = grid();
        let mut values = grid.clone();
        slices(&mut values);
        grid.into_iter().zip(values).fold(0.0, |most: f64, (x, value)| {
            let expected = number(x);
            if value == expected {
                return most;
            }
            let unit = f64::from_bits(expected.abs().to_bits() + 1) - expected.abs();
            let distance = (value - expected).abs() / unit;
            assert!(distance.is_finite(), "{x:e}: {value:e} is not {expected:e}");
            most.max(distance)
        })
    }

    #[test]
    fn exponentials_of_slices_are_within_their_bounds_of_those_of_numbers() {
        // The functions of single numbers are within 1 unit of the exact value; the excess is exact to 1e-19 by its
        // series.
        assert!(distance(exp_slice, f64::exp) <= 1.0);
        assert!(distance(exp_m1_slice, f64::exp_m1) <= 3.0);
        let series = |x: f64| (3..30).rev().fold(1.0, |sum, k| 1.0 + sum * x / f64::from(k)) * x * x / 2.0;
        let excess = |x: f64| if x.abs() < 1.0 { series(x) } else { x.exp_m1() - x.min(800.0) };
        assert!(distance(exp_excess_slice, excess) <= 12.0);
    }

    #[test]
    fn an_exponential_does_not_depend_on_the_numbers_beside_it() {
        let grid = grid();
        for function in [exp_slice, exp_m1_slice, exp_excess_slice] {
            let mut together = grid.clone();
            function(&mut together);
            for (x, together) in grid.iter().zip(together).step_by(7) {
                let (mut alone, mut with_far) = ([*x], [*x, 300.0]);
                function(&mut alone);
                function(&mut with_far);
                assert_eq!(
                    (alone[0].to_bits(), with_far[0].to_bits()),
                    (together.to_bits(), together.to_bits()),
                    "{x:e}"
                );
            }
        }
    }

    #[test]
    fn near_zero_an_exponential_is_to_the_last_bit_that_of_a_slice() {
        for x in grid().into_iter().filter(|x| x.abs() <= NEAR) {
            let mut values = [x, 300.0];
            exp_slice(&mut values);
            assert_eq!(exp_near(x).to_bits(), values[0].to_bits(), "{x:e}");
        }
    }

    #[test]
    fn what_is_not_a_number_stays_none_and_spoils_no_other() {
        for function in [exp_slice, exp_m1_slice, exp_excess_slice] {
            let (mut values, mut alone) = ([f64::NAN, 0.25], [0.25]);
            function(&mut values);
            function(&mut alone);
            assert!(values[0].is_nan());
            assert_eq!(values[1], alone[0]);
        }
    }
}
