//! Value iteration in blocks of the lake that fit the processor's cache, the block with the greatest residual first.
//!
//! Every block has a bound of its residual: the change in its own last sweep, plus all changes along the edges of its
//! neighbours since. A block above the current level is swept until it is well below it; when none is above, the level
//! falls, to the tolerance in the end. So what is settled is left alone: pools that settle slowly are swept in their
//! own blocks, and where a reward does not reach, nothing is done at all. After Wingate and Seppi 2005,
//! "Prioritization methods for accelerating MDP solvers", JMLR 6.

use super::plane::{BLOCK, Plane, greater};

/// Factor by which the level of residuals, above which blocks are swept, falls.
const FALL: f64 = 0.1;
/// Share of the current level of residuals at which the visit of a block ends.
const SHARE: f64 = 0.25;
/// Maximum number of sweeps of a block in one visit.
const LONGEST: usize = 64;

/// Sweeps until every block settles, and returns the number of updates divided by the number of cells.
pub(super) fn solve(plane: &mut Plane) -> usize {
    let blocks = Blocks::of(plane);
    let place = |block| blocks.place(block);
    let mut pending: Vec<_> = (0..blocks.count()).map(|block| residual(plane, place(block))).collect();
    let mut updates = plane.height * plane.width;
    let mut level = pending.iter().copied().fold(0.0, greater);
    let tolerance = plane.tolerance();
    let mut backwards = true;
    while level > tolerance {
        level = (FALL * level).max(tolerance);
        while pending.iter().any(|&pending| pending > level) {
            for turn in 0..pending.len() {
                let block = if backwards { pending.len() - 1 - turn } else { turn };
                if pending[block] > level {
                    let (row, column) = place(block);
                    let (change, edges, sweeps) = visit(plane, (row, column), SHARE * level);
                    updates += sweeps * BLOCK.min(plane.height - row) * BLOCK.min(plane.width - column);
                    pending[block] = change;
                    for (neighbour, edge) in blocks.neighbours(block).into_iter().zip(edges) {
                        if let Some(neighbour) = neighbour {
                            pending[neighbour] += edge;
                        }
                    }
                }
            }
            backwards = !backwards;
        }
    }
    updates.div_ceil(plane.height * plane.width)
}

/// Squares that a lake is divided into.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blocks {
    rows: usize,
    columns: usize,
}

impl Blocks {
    pub(super) fn of(plane: &Plane) -> Self {
        Self { rows: plane.height.div_ceil(BLOCK), columns: plane.width.div_ceil(BLOCK) }
    }

    pub(super) fn count(self) -> usize {
        self.rows * self.columns
    }

    /// Row and column of a block's first cell.
    pub(super) fn place(self, block: usize) -> (usize, usize) {
        (block / self.columns * BLOCK, block % self.columns * BLOCK)
    }

    /// Blocks to the left, below, to the right and above.
    pub(super) fn neighbours(self, block: usize) -> [Option<usize>; 4] {
        let (row, column) = (block / self.columns, block % self.columns);
        [
            (column > 0).then(|| block - 1),
            (row + 1 < self.rows).then(|| block + self.columns),
            (column + 1 < self.columns).then(|| block + 1),
            (row > 0).then(|| block - self.columns),
        ]
    }
}

/// Maximum change of V that a backup of the block would make.
fn residual(plane: &Plane, (row, column): (usize, usize)) -> f64 {
    let mut out = [0.0; BLOCK];
    let end = plane.width.min(column + BLOCK);
    let changes = (row..plane.height.min(row + BLOCK)).map(|row| {
        plane.back_up(row, column, end, &mut out);
        plane.change(row, column, &out[..end - column])
    });
    // The change of U is γ times that of V.
    let change = changes.fold(0.0, greater);
    if change == 0.0 { 0.0 } else { change / plane.rules.gamma }
}

/// Sweeps a block until a sweep changes it by at most `enough`. Returns three results: the last sweep's change, which
/// bounds the residual; the changes along the left, lower, right and upper edge; and the number of sweeps.
fn visit(plane: &mut Plane, (row, column): (usize, usize), enough: f64) -> (f64, [f64; 4], usize) {
    let (below, beyond) = (plane.height.min(row + BLOCK), plane.width.min(column + BLOCK));
    let before = edges(plane, (row, below), (column, beyond));
    let mut out = [0.0; BLOCK];
    let (mut change, mut sweeps) = (f64::INFINITY, 0);
    while change > enough && sweeps < LONGEST {
        change = 0.0;
        for turn in 0..below - row {
            let row = if sweeps % 2 == 0 { below - 1 - turn } else { row + turn };
            let out = &mut out[..beyond - column];
            plane.back_up(row, column, beyond, out);
            change = greater(plane.change(row, column, out), change);
            let begin = plane.index(row, column);
            plane.worth[begin..begin + out.len()].copy_from_slice(out);
            plane.repeat_margin(row, column, beyond);
        }
        sweeps += 1;
    }
    let after = edges(plane, (row, below), (column, beyond));
    let moved = |side: usize| before[side].iter().zip(&after[side]).map(|(a, b)| (a - b).abs()).fold(0.0, greater);
    (change, [0, 1, 2, 3].map(moved), sweeps)
}

/// Values U along the left, lower, right and upper edge of a block.
pub(super) fn edges(
    plane: &Plane,
    (row, below): (usize, usize),
    (column, beyond): (usize, usize),
) -> [[f64; BLOCK]; 4] {
    let mut edges = [[0.0; BLOCK]; 4];
    let [left, lower, right, upper] = &mut edges;
    for (row, (left, right)) in (row..below).zip(left.iter_mut().zip(right)) {
        *left = plane.worth[plane.index(row, column)];
        *right = plane.worth[plane.index(row, beyond - 1)];
    }
    for (column, (lower, upper)) in (column..beyond).zip(lower.iter_mut().zip(upper)) {
        *lower = plane.worth[plane.index(below - 1, column)];
        *upper = plane.worth[plane.index(row, column)];
    }
    edges
}
