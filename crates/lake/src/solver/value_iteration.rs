//! Value iteration, all cells at once.
//!
//! The change shrinks by γ at least with every sweep, whatever the size of the lake: about ln(accuracy (1 − γ)) / ln γ sweeps.

use rayon::prelude::*;

use super::plane::{Plane, greater};

/// The fewest cells of a lake at which threads are worth waking, and the fewest for each to take at a time.
const SHARED: usize = 1 << 16;
const SHARE: usize = 1 << 14;

/// Sweeps until the values settle, and answers how often.
pub(super) fn solve(plane: &mut Plane) -> usize {
    let (stride, width, height) = (plane.stride, plane.width, plane.height);
    let mut next = plane.worth.clone();
    let mut sweeps = 0;
    loop {
        sweeps += 1;
        let update = |(row, out): (usize, &mut [f64])| {
            let out = &mut out[1..=width];
            plane.back_up(row, 0, width, out);
            plane.change(row, 0, out)
        };
        let rows = &mut next[stride..(height + 1) * stride];
        let change = if width * height < SHARED {
            rows.chunks_mut(stride).enumerate().map(update).fold(0.0, greater)
        } else {
            let rows = rows.par_chunks_mut(stride).with_min_len(SHARE.div_ceil(stride)).enumerate();
            rows.map(update).reduce(|| 0.0, greater)
        };
        std::mem::swap(&mut plane.worth, &mut next);
        for row in 0..height {
            let begin = plane.index(row, 0);
            plane.worth[begin - 1] = plane.worth[begin];
            plane.worth[begin + width] = plane.worth[begin + width - 1];
        }
        plane.repeat_margin(0, 0, width);
        plane.repeat_margin(height - 1, 0, width);
        if plane.is_settled(change) {
            return sweeps;
        }
    }
}
