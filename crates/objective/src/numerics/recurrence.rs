//! Discounted sums: first-order linear recurrences, several places at a time.
//!
//! # Formula
//!
//! S_t = x_t + γ S_{t+1}, or x_t + γ S_{t−1}. As it stands, every place waits for the one before it. A block of 8 places first
//! forms its own sums, by doubling: of 2 places, then of 4, then of 8; then the sum of the next block arrives times the powers of
//! γ. Blocks wait for one another once in 8 places. For items of one sign the result is within a few units in the last place of the
//! recurrence's own.

use std::array::from_fn;

/// Places of a block.
const BLOCK: usize = 8;

/// Where the sums of a slice begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// At the first place: S_t = x_t + γ S_{t−1}.
    Forward,
    /// At the last place: S_t = x_t + γ S_{t+1}.
    Backward,
}

/// Replaces items by their discounted sums.
pub(crate) fn discounted_sums(gamma: f64, items: &mut [f64], direction: Direction) {
    let mut powers = [gamma; BLOCK];
    (1..BLOCK).for_each(|power| powers[power] = gamma * powers[power - 1]);
    let mut sum = 0.0;
    match direction {
        Direction::Forward => {
            let (blocks, rest) = items.as_chunks_mut();
            for block in blocks {
                *block = forward(&powers, sum, *block);
                sum = block[BLOCK - 1];
            }
            rest.iter_mut().for_each(|item| one(gamma, &mut sum, item));
        }
        Direction::Backward => {
            let (rest, blocks) = items.as_rchunks_mut();
            for block in blocks.iter_mut().rev() {
                *block = backward(&powers, sum, *block);
                sum = block[0];
            }
            rest.iter_mut().rev().for_each(|item| one(gamma, &mut sum, item));
        }
    }
}

fn one(gamma: f64, sum: &mut f64, item: &mut f64) {
    *sum = *item + gamma * *sum;
    *item = *sum;
}

#[inline(always)]
fn forward(powers: &[f64; BLOCK], before: f64, items: [f64; BLOCK]) -> [f64; BLOCK] {
    let double = |sums: [f64; BLOCK], width: usize| -> [f64; BLOCK] {
        from_fn(|t| if t < width { sums[t] } else { sums[t] + powers[width - 1] * sums[t - width] })
    };
    let sums = double(double(double(items, 1), 2), 4);
    from_fn(|t| sums[t] + powers[t] * before)
}

#[inline(always)]
fn backward(powers: &[f64; BLOCK], behind: f64, items: [f64; BLOCK]) -> [f64; BLOCK] {
    let double = |sums: [f64; BLOCK], width: usize| -> [f64; BLOCK] {
        from_fn(|t| if t + width < BLOCK { sums[t] + powers[width - 1] * sums[t + width] } else { sums[t] })
    };
    let sums = double(double(double(items, 1), 2), 4);
    from_fn(|t| sums[t] + powers[BLOCK - 1 - t] * behind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn discounted_sums_are_those_of_the_recurrence_to_rounding() {
        for length in (0..40).chain([263, 4096]) {
            let items: Vec<_> = (0..length).map(|t| f64::from(t * 7919 % 101) / 7.0).collect();
            for gamma in [0.0, 1e-300, 0.5, 0.95, 1.0] {
                for direction in [Direction::Forward, Direction::Backward] {
                    let (mut sums, mut expected, mut sum) = (items.clone(), items.clone(), 0.0);
                    discounted_sums(gamma, &mut sums, direction);
                    match direction {
                        Direction::Forward => expected.iter_mut().for_each(|item| one(gamma, &mut sum, item)),
                        Direction::Backward => expected.iter_mut().rev().for_each(|item| one(gamma, &mut sum, item)),
                    }
                    for (sum, expected) in sums.into_iter().zip(expected) {
                        assert!((sum - expected).abs() <= 4e-15 * expected, "{length}, {gamma}: {sum:e}, {expected:e}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_first_block_has_no_power_of_the_discount_that_overflows() {
        let mut items = [1e30; 9];
        discounted_sums(1e-200, &mut items, Direction::Backward);
        assert!(items.iter().all(|sum| *sum == 1e30));
    }
}
