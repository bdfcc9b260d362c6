//! Discounted sums: first-order linear recurrences, several places at a time.
//!
//! # Formula
//!
//! S_t = x_t + γ S_{t+1}, or x_t + γ S_{t−1}. As it stands, every place waits for the one before it. A block of 8
//! places first forms its own sums, by doubling: of 2 places, then of 4, then of 8; then the sum of the next block
//! arrives times the powers of γ. Blocks wait for one another once in 8 places. For items of one sign the result is
//! within a few units in the last place of the recurrence's own.

use std::array::from_fn;

/// Size of a block.
const BLOCK: usize = 8;

/// Direction in which the sums of a slice are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the first place on: S_t = x_t + γ S_{t−1}.
    Forward,
    /// From the last place back: S_t = x_t + γ S_{t+1}.
    Backward,
}

/// A discount γ with the powers of it that a block needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Discount {
    /// Powers γ, γ², ..., each rounded once.
    powers: [f64; BLOCK],
}

impl Discount {
    pub(crate) fn new(gamma: f64) -> Self {
        // Products in two parts: the second holds the rounding error of the first.
        let (mut power, mut rest) = (1.0_f64, 0.0);
        Self {
            powers: from_fn(|_| {
                let product = power * gamma;
                let lost = power.mul_add(gamma, -product) + rest * gamma;
                power = product + lost;
                rest = lost - (power - product);
                power
            }),
        }
    }

    /// Fills `sums` with the discounted sums of the items.
    pub(crate) fn sums(&self, direction: Direction, items: &[f64], sums: &mut [f64]) {
        self.scan(direction, items, sums, |item, _| item, |_, sum| sum);
    }

    /// Computes discounted sums of `item(input, place)`, and stores `leave(place, sum)` for each.
    #[inline(always)]
    pub(crate) fn scan(
        &self,
        direction: Direction,
        inputs: &[f64],
        places: &mut [f64],
        item: impl Fn(f64, f64) -> f64,
        leave: impl Fn(f64, f64) -> f64,
    ) {
        let Self { powers } = self;
        let mut last = 0.0;
        // Loops, as the compiler vectorises them more reliably than arrays made by a function.
        let items_of = |inputs: &[f64; BLOCK], places: &[f64; BLOCK]| {
            let mut items = [0.0; BLOCK];
            items
                .iter_mut()
                .zip(inputs.iter().zip(places))
                .for_each(|(own, (input, place))| *own = item(*input, *place));
            items
        };
        let leave_all = |places: &mut [f64; BLOCK], sums: &[f64; BLOCK]| {
            places.iter_mut().zip(sums).for_each(|(place, sum)| *place = leave(*place, *sum));
        };
        let one = |last: &mut f64, (input, place): (&f64, &mut f64)| {
            *last = item(*input, *place) + powers[0] * *last;
            *place = leave(*place, *last);
        };
        match direction {
            Direction::Forward => {
                let ((blocks, rest), (places, places_rest)) = (inputs.as_chunks(), places.as_chunks_mut());
                for (inputs, places) in blocks.iter().zip(places) {
                    let sums = forward(powers, last, items_of(inputs, places));
                    last = sums[BLOCK - 1];
                    leave_all(places, &sums);
                }
                rest.iter().zip(places_rest).for_each(|place| one(&mut last, place));
            }
            Direction::Backward => {
                let ((rest, blocks), (places_rest, places)) = (inputs.as_rchunks(), places.as_rchunks_mut());
                for (inputs, places) in blocks.iter().zip(places).rev() {
                    let sums = backward(powers, last, items_of(inputs, places));
                    last = sums[0];
                    leave_all(places, &sums);
                }
                rest.iter().zip(places_rest).rev().for_each(|place| one(&mut last, place));
            }
        }
    }
}

#[inline(always)]
fn forward(powers: &[f64; BLOCK], before: f64, items: [f64; BLOCK]) -> [f64; BLOCK] {
    let double = |sums: [f64; BLOCK], width: usize| {
        let mut doubled = sums;
        doubled[width..].iter_mut().zip(&sums).for_each(|(own, other)| *own += powers[width - 1] * other);
        doubled
    };
    let mut sums = double(double(double(items, 1), 2), 4);
    sums.iter_mut().zip(powers).for_each(|(sum, power)| *sum += power * before);
    sums
}

#[inline(always)]
fn backward(powers: &[f64; BLOCK], behind: f64, items: [f64; BLOCK]) -> [f64; BLOCK] {
    let double = |sums: [f64; BLOCK], width: usize| {
        let mut doubled = sums;
        doubled.iter_mut().zip(&sums[width..]).for_each(|(own, other)| *own += powers[width - 1] * other);
        doubled
    };
    let mut sums = double(double(double(items, 1), 2), 4);
    sums.iter_mut().zip(powers.iter().rev()).for_each(|(sum, power)| *sum += power * behind);
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn discounted_sums_are_those_of_the_recurrence_to_rounding() {
        for length in (0..40).chain([263, 4096]) {
            let items: Vec<_> = (0..length).map(|t| f64::from(t * 7919 % 101) / 7.0).collect();
            for gamma in [0.0, 1e-300, 0.5, 0.95, 1.0] {
                let (mut forward, mut backward) = (vec![f64::NAN; items.len()], vec![f64::NAN; items.len()]);
                Discount::new(gamma).sums(Direction::Forward, &items, &mut forward);
                Discount::new(gamma).sums(Direction::Backward, &items, &mut backward);
                let check = |sum: f64, (item, computed): (&f64, f64)| {
                    let sum = item + gamma * sum;
                    assert!((computed - sum).abs() <= 4e-15 * sum, "{length}, {gamma}: {computed:e} is not {sum:e}");
                    sum
                };
                items.iter().zip(forward).fold(0.0, check);
                items.iter().zip(backward).rev().fold(0.0, check);
            }
        }
    }

    #[test]
    fn powers_of_a_discount_are_rounded_once() {
        // Exact powers of the double that 0.95 is, rounded to f64: Python's fractions.
        assert_eq!(
            Discount::new(0.95).powers,
            [
                0.95,
                0.9025,
                0.8573749999999999,
                0.8145062499999999,
                0.7737809374999998,
                0.7350918906249998,
                0.6983372960937497,
                0.6634204312890623
            ]
        );
        assert_eq!(Discount::new(1.0).powers, [1.0; BLOCK]);
        assert_eq!(Discount::new(0.0).powers, [0.0; BLOCK]);
    }

    #[test]
    fn the_first_block_has_no_power_of_the_discount_that_overflows() {
        let mut sums = [0.0; 9];
        Discount::new(1e-200).sums(Direction::Backward, &[1e30; 9], &mut sums);
        assert!(sums.iter().all(|sum| *sum == 1e30));
    }
}
