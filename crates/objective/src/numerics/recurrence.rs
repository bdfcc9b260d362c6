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

/// Fills `sums` with the discounted sums of as many items.
pub(crate) fn discounted_sums(gamma: f64, items: &[f64], sums: &mut [f64], direction: Direction) {
    let mut powers = [gamma; BLOCK];
    (1..BLOCK).for_each(|power| powers[power] = gamma * powers[power - 1]);
    let mut last = 0.0;
    let one = |last: &mut f64, (item, sum): (&f64, &mut f64)| {
        *last = item + gamma * *last;
        *sum = *last;
    };
    match direction {
        Direction::Forward => {
            let ((blocks, rest), (sums, sums_rest)) = (items.as_chunks(), sums.as_chunks_mut());
            for (block, sums) in blocks.iter().zip(sums) {
                *sums = forward(&powers, last, *block);
                last = sums[BLOCK - 1];
            }
            rest.iter().zip(sums_rest).for_each(|place| one(&mut last, place));
        }
        Direction::Backward => {
            let ((rest, blocks), (sums_rest, sums)) = (items.as_rchunks(), sums.as_rchunks_mut());
            for (block, sums) in blocks.iter().zip(sums).rev() {
                *sums = backward(&powers, last, *block);
                last = sums[0];
            }
            rest.iter().zip(sums_rest).rev().for_each(|place| one(&mut last, place));
        }
    }
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
                let (mut forward, mut backward) = (vec![f64::NAN; items.len()], vec![f64::NAN; items.len()]);
                discounted_sums(gamma, &items, &mut forward, Direction::Forward);
                discounted_sums(gamma, &items, &mut backward, Direction::Backward);
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
    fn the_first_block_has_no_power_of_the_discount_that_overflows() {
        let mut sums = [0.0; 9];
        discounted_sums(1e-200, &[1e30; 9], &mut sums, Direction::Backward);
        assert!(sums.iter().all(|sum| *sum == 1e30));
    }
}
