//! Value iteration, all cells at once.
//!
//! The change shrinks by γ at least with every sweep, whatever the size of the lake: about ln(accuracy (1 − γ)) / ln γ
//! sweeps.

use rayon::prelude::*;

use super::plane::{Plane, greater};

/// Minimum number of cells of a lake for the use of several threads, and of the part that a thread takes at a time.
const SHARED: usize = 1 << 16;
const SHARE: usize = 1 << 14;

/// Sweeps until the values settle, and returns the number of sweeps.
pub(super) fn solve(plane: &mut Plane) -> usize {
    let mut next = plane.worth.clone();
    let mut sweeps = 0;
    loop {
        sweeps += 1;
        let change = sweep(plane, &mut next, |plane, row, out| {
            plane.back_up(row, 0, out.len(), out);
            plane.change(row, 0, out)
        });
        if plane.is_settled(change) {
            return sweeps;
        }
    }
}

/// Writes each row of `next` from the plane's values, except the margins, and exchanges the two. Returns the maximum of
/// the results of `update`, which does not depend on the number of threads.
pub(super) fn sweep(
    plane: &mut Plane,
    next: &mut Vec<f64>,
    update: impl Fn(&Plane, usize, &mut [f64]) -> f64 + Sync,
) -> f64 {
    let (stride, width, height) = (plane.stride, plane.width, plane.height);
    let update = |(row, out): (usize, &mut [f64])| update(plane, row, &mut out[1..=width]);
    let rows = &mut next[stride..(height + 1) * stride];
    let change = if width * height < SHARED {
        rows.chunks_mut(stride).enumerate().map(update).fold(0.0, greater)
    } else {
        let rows = rows.par_chunks_mut(stride).with_min_len(SHARE.div_ceil(stride)).enumerate();
        rows.map(update).reduce(|| 0.0, greater)
    };
    std::mem::swap(&mut plane.worth, next);
    (0..height).for_each(|row| plane.repeat_margin(row, 0, width));
    change
}
