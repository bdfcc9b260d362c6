//! Value iteration in place: a cell uses the new values of the cells before it in the sweep.
//!
//! Sweeps alternate between the order from the last cell to the first, as goals are mostly at the end, and the reverse.

use super::plane::{Plane, greater};

/// Sweeps until the values settle, and returns the number of sweeps.
pub(super) fn solve(plane: &mut Plane) -> usize {
    let mut sweeps = 0;
    loop {
        sweeps += 1;
        let change = sweep_cells(plane, sweeps % 2 == 1, |plane, index| plane.rules.best(plane.around(index)));
        if plane.is_settled(change) {
            return sweeps;
        }
    }
}

/// Assigns to each cell, one after the other, the value that its position determines, and returns the maximum change of
/// U.
///
/// As V(s) was a backup of neighbours that have changed by at most that since, it bounds the residual.
pub(super) fn sweep_cells(plane: &mut Plane, backwards: bool, mut value: impl FnMut(&Plane, usize) -> f64) -> f64 {
    let mut most = 0.0;
    for turn in 0..plane.height {
        let row = if backwards { plane.height - 1 - turn } else { turn };
        let open = plane.open_columns(row);
        let mut visit = |column| {
            let worth = plane.rules.arrival(value(plane, plane.index(row, column)));
            most = greater(plane.put(row, column, worth), most);
        };
        if backwards { open.rev().for_each(&mut visit) } else { open.for_each(&mut visit) }
    }
    most
}
