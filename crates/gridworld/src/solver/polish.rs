//! Value iteration in blocks until every cell is settled relative to its own value, however small that is.
//!
//! Every solver's own search ends at an absolute change, below which lie whole regions of a lake whose reward is small,
//! far away or much discounted. What it leaves there is made good here: blocks are swept, those with the greatest
//! change first, until no backup changes a cell by more than a share of what it becomes. So a block waits until the
//! greater values that it draws on have settled. Where the solver has been exact already, this looks at every cell
//! once.

use super::plane::{BLOCK, Plane, greater};
use super::prioritised::{Blocks, edges};

/// Smallest share of a value that rounding does not hide.
const UNITS: f64 = 4.0 * f64::EPSILON;
/// Share of the maximum change below which blocks wait.
const FALL: f64 = 0.1;
/// Share of the current level of changes at which the visit of a block ends.
const WITHIN: f64 = 0.25;
/// Maximum number of sweeps of a block in one visit.
const LONGEST: usize = 64;
/// Number of sweeps of a block between two comparisons with each cell's share.
const COMPARED: usize = 8;
/// Maximum number of sweeps of the whole lake that settle the last bits of its values.
const LAST_BITS: usize = 256;
/// Number of values that are compared at a time.
const LANES: usize = 4;
/// Maximum number of passes over the lake, times 1 / (1 − γ): rounding may keep changes circulating for ever.
const PATIENCE: f64 = 50.0;

/// Sweeps until no cell changes by more than a share of its U, and returns the number of updates divided by the number
/// of cells. For a share below rounding it continues for a while, until nothing changes at all: then equal cells have
/// equal values to the last bit.
pub(super) fn solve(plane: &mut Plane, share: f64) -> usize {
    raise(plane);
    let blocks = Blocks::of(plane);
    let patience = (PATIENCE / (1.0 - plane.rules.gamma)).min(1e9) as usize + 4 * blocks.count();
    let mut updates = settle(plane, blocks, share.max(UNITS), (patience, usize::MAX));
    let cells = plane.height * plane.width;
    if share < UNITS {
        updates += settle(plane, blocks, 0.0, (patience, LAST_BITS * cells));
    }
    updates.div_ceil(cells)
}

/// Sets cells to 0 that can continue for ever without a loss, if their value is below 0, or above it by at most the
/// error of the solver's search. Their value is at least 0, and sweeps from another value would approach 0 only slowly.
fn raise(plane: &mut Plane) {
    let rules = plane.rules;
    let open = plane.open();
    let worth = |plane: &Plane, cell: usize| plane.worth[plane.index(cell / plane.width, cell % plane.width)];
    let mut lasting: Vec<_> = (0..open.len()).map(|cell| open[cell] || worth(plane, cell) >= 0.0).collect();
    if rules.frozen != 0.0 || !lasting.contains(&false) {
        return;
    }
    let hidden = plane.tolerance() / (1.0 - rules.gamma);
    let mut suspects: Vec<_> = (0..open.len()).filter(|&cell| open[cell]).collect();
    while let Some(cell) = suspects.pop() {
        let ways = plane.ways(cell);
        let ends = rules.action_values(ways.map(|way| f64::from(!lasting[way])));
        if lasting[cell] && ends.iter().all(|&ends| ends > 0.0) {
            lasting[cell] = false;
            suspects.extend(ways.into_iter().filter(|&way| open[way] && lasting[way]));
        }
    }
    for cell in (0..open.len()).filter(|&cell| open[cell] && lasting[cell]) {
        if worth(plane, cell) < hidden {
            plane.put(cell / plane.width, cell % plane.width, 0.0);
        }
    }
}

/// Sweeps for at most this many passes over the lake and this many updates, and returns the number of updates.
fn settle(plane: &mut Plane, blocks: Blocks, share: f64, (patience, most_updates): (usize, usize)) -> usize {
    let all = |plane: &Plane| (0..blocks.count()).map(|block| residual(plane, blocks.place(block), share)).collect();
    let mut pending: Vec<f64> = all(plane);
    let (mut updates, mut backwards, mut fresh) = (plane.height * plane.width, true, true);
    for _ in 0..patience {
        let most = pending.iter().copied().fold(0.0, greater);
        if updates > most_updates {
            break;
        }
        if most == 0.0 {
            if fresh {
                break;
            }
            // Changes too small to be passed on individually may add up.
            (pending, fresh) = (all(plane), true);
            updates += plane.height * plane.width;
            continue;
        }
        fresh = false;
        let level = if share > 0.0 { FALL * most } else { 0.0 };
        for turn in 0..pending.len() {
            let block = if backwards { pending.len() - 1 - turn } else { turn };
            if pending[block] > level {
                let visit = visit(plane, blocks.place(block), share, WITHIN * level);
                updates += visit.updates;
                pending[block] = visit.change;
                for (neighbour, moved) in blocks.neighbours(block).into_iter().zip(visit.moved) {
                    if let Some(neighbour) = neighbour {
                        pending[neighbour] += moved;
                    }
                }
            }
        }
        backwards = !backwards;
    }
    updates
}

/// Result of sweeping a block of cells.
struct Visit {
    /// Change of the last sweep; 0 if it was at most each cell's share.
    change: f64,
    /// Changes along the left, lower, right and upper edge; 0 if they were at most each cell's share.
    moved: [f64; 4],
    updates: usize,
}

/// Maximum change of a block's cells beyond their share.
fn residual(plane: &Plane, (row, column): (usize, usize), share: f64) -> f64 {
    let mut out = [0.0; BLOCK];
    let end = plane.width.min(column + BLOCK);
    let changes = (row..plane.height.min(row + BLOCK)).map(|row| {
        let out = &mut out[..end - column];
        plane.back_up(row, column, end, out);
        beyond_share(&plane.worth[plane.index(row, column)..], out, share)
    });
    changes.fold(0.0, greater)
}

/// Maximum amount by which the difference of two numbers exceeds a share of the second one.
fn beyond_share(own: &[f64], other: &[f64], share: f64) -> f64 {
    let (mut most, mut excess) = ([0.0; LANES], [0.0; LANES]);
    let (own, other) = (&own[..own.len().min(other.len())], &other[..own.len().min(other.len())]);
    let mut compare = |own: &[f64], other: &[f64]| {
        for (lane, (own, other)) in own.iter().zip(other).enumerate() {
            let change = (own - other).abs();
            most[lane] = greater(change, most[lane]);
            excess[lane] = greater(change - share * other.abs(), excess[lane]);
        }
    };
    let (own, other) = (own.chunks_exact(LANES), other.chunks_exact(LANES));
    compare(own.remainder(), other.remainder());
    own.zip(other).for_each(|(own, other)| compare(own, other));
    if excess.into_iter().fold(0.0, greater) > 0.0 { most.into_iter().fold(0.0, greater) } else { 0.0 }
}

fn visit(plane: &mut Plane, (row, column): (usize, usize), share: f64, enough: f64) -> Visit {
    let (below, beyond) = (plane.height.min(row + BLOCK), plane.width.min(column + BLOCK));
    let before = edges(plane, (row, below), (column, beyond));
    let mut out = [0.0; BLOCK];
    let (mut change, mut sweeps) = (f64::INFINITY, 0);
    while change > enough && sweeps < LONGEST {
        let compared = sweeps % COMPARED == 0;
        change = 0.0;
        for turn in 0..below - row {
            let row = if sweeps % 2 == 0 { below - 1 - turn } else { row + turn };
            let out = &mut out[..beyond - column];
            plane.back_up(row, column, beyond, out);
            let begin = plane.index(row, column);
            let moved = match compared {
                true => beyond_share(&plane.worth[begin..], out, share),
                false => plane.change(row, column, out),
            };
            change = greater(moved, change);
            plane.worth[begin..begin + out.len()].copy_from_slice(out);
            plane.repeat_margin(row, column, beyond);
        }
        sweeps += 1;
        if !compared && change <= enough {
            change = residual(plane, (row, column), share);
        }
    }
    let after = edges(plane, (row, below), (column, beyond));
    let moved = |side: usize| beyond_share(&before[side], &after[side], share);
    Visit { change, moved: [0, 1, 2, 3].map(moved), updates: sweeps * (below - row) * (beyond - column) }
}
