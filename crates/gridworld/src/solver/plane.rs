//! A lake's values in memory: one number per cell, its neighbours at fixed distances, no transitions.

use crate::world::environment::Environment;
use crate::world::map::ACTIONS;

use super::Solution;
use super::certificate::Certificate;

/// Number of columns in a segment, which is the part of a row in which terminal cells are looked up. It is also the
/// number of rows and of columns of a block.
pub(super) const BLOCK: usize = 32;

/// The worth of arriving in each cell, U(s') = r(s') + γ V(s').
///
/// Rows have a margin of one cell on every side that repeats the cell beside it, so that a move into a wall needs no
/// case of its own: U at the target of the move is U of the cell itself.
#[derive(Debug)]
pub(super) struct Plane {
    pub(super) worth: Vec<f64>,
    pub(super) rules: Rules,
    pub(super) height: usize,
    pub(super) width: usize,
    /// Number of cells from one row to the next.
    pub(super) stride: usize,
    /// Columns of terminal cells, row by row.
    terminals: Vec<u32>,
    /// Beginning of each segment of each row in `terminals`, and the end.
    begins: Vec<u32>,
    /// Change that ends a solver's own search.
    tolerance: f64,
    /// Error bound to reach.
    accuracy: f64,
    /// Bound of every value's magnitude.
    largest: f64,
    /// Bound of every reward's magnitude.
    largest_reward: f64,
}

/// Coefficients of a cell's backup from its four neighbours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    intended: f64,
    /// Probability of each perpendicular direction.
    aside: f64,
    pub(super) frozen: f64,
    pub(super) gamma: f64,
    goal: f64,
    hole: f64,
}

impl Rules {
    /// Values Q of the four actions, from the worth of arriving in the left, lower, right and upper neighbour.
    #[inline(always)]
    pub(super) fn action_values(&self, [left, down, right, up]: [f64; ACTIONS]) -> [f64; ACTIONS] {
        let (beside, above) = (self.aside * (up + down), self.aside * (left + right));
        let intended = self.intended;
        [intended * left + beside, intended * down + above, intended * right + beside, intended * up + above]
    }

    /// Maximum of [`action_values`](Self::action_values), equal to the last bit, as rounding preserves the order of
    /// numbers.
    #[inline(always)]
    pub(super) fn best(&self, [left, down, right, up]: [f64; ACTIONS]) -> f64 {
        let level = self.intended * greater(left, right) + self.aside * (up + down);
        greater(level, self.intended * greater(up, down) + self.aside * (left + right))
    }

    /// Worth U of arriving in an ice cell with this value.
    #[inline(always)]
    pub(super) fn arrival(&self, value: f64) -> f64 {
        self.frozen + self.gamma * value
    }

    /// Bound of the terms whose sum is a cell's U.
    pub(super) fn terms(&self, value: f64) -> f64 {
        self.frozen.abs() + self.gamma * value.abs()
    }

    /// Probabilities of the intended move and of each perpendicular direction.
    pub(super) fn probabilities(&self) -> (f64, f64) {
        (self.intended, self.aside)
    }

    /// Initial V, from which all backups move in one direction: none lowers it if ice has a reward, else none raises
    /// it. It is 0 with Gymnasium's rewards.
    fn start(&self) -> f64 {
        let Self { goal, hole, frozen, .. } = *self;
        if frozen >= 0.0 { goal.min(hole).min(0.0) } else { goal.max(hole).max(0.0) }
    }

    /// Initial V that no backup lowers.
    fn start_below(&self) -> f64 {
        let Self { goal, hole, frozen, gamma, .. } = *self;
        goal.min(hole).min(0.0).min(frozen / (1.0 - gamma))
    }
}

impl Plane {
    /// Makes the lake with the initial values of solvers.
    pub(super) fn new(environment: &Environment, gamma: f64, accuracy: f64) -> Self {
        let (map, dynamics) = (environment.map(), environment.dynamics());
        let (intended, aside) = match dynamics.slippery {
            true => (dynamics.success_rate, (1.0 - dynamics.success_rate) / 2.0),
            false => (1.0, 0.0),
        };
        let rewards = dynamics.rewards;
        let rules = Rules { intended, aside, frozen: rewards.frozen, gamma, goal: rewards.goal, hole: rewards.hole };
        let (width, height) = (map.width(), map.cells().len() / map.width());
        let stride = width + 2;
        let mut worth = vec![rules.arrival(rules.start()); (height + 2) * stride];
        let (mut terminals, mut begins) = (Vec::new(), Vec::with_capacity(height * width.div_ceil(BLOCK) + 1));
        for (row, cells) in map.cells().chunks(width).enumerate() {
            for (column, &cell) in cells.iter().enumerate() {
                if column % BLOCK == 0 {
                    begins.push(terminals.len() as u32);
                }
                if cell.is_terminal() {
                    terminals.push(column as u32);
                    worth[(row + 1) * stride + column + 1] = rewards.of(cell);
                }
            }
        }
        begins.push(terminals.len() as u32);
        let largest_reward = [rewards.goal, rewards.hole, rewards.frozen].into_iter().fold(0.0, magnitude);
        let largest = [rewards.goal, rewards.hole, rewards.frozen / (1.0 - gamma)].into_iter().fold(0.0, magnitude);
        let tolerance = accuracy * (1.0 - gamma) / 2.0;
        let mut plane = Self {
            worth,
            rules,
            height,
            width,
            stride,
            terminals,
            begins,
            tolerance,
            accuracy,
            largest,
            largest_reward,
        };
        (0..height).for_each(|row| plane.repeat_margin(row, 0, width));
        plane
    }

    /// Makes the lake with known values.
    pub(super) fn resume(environment: &Environment, solution: &Solution, accuracy: f64) -> Self {
        let mut plane = Self::new(environment, solution.gamma, accuracy);
        plane.set(&solution.value);
        plane
    }

    /// Sets the value of every open cell, row by row.
    fn set(&mut self, value: &[f64]) {
        for row in 0..self.height {
            for column in self.open_columns(row) {
                self.put(row, column, self.rules.arrival(value[row * self.width + column]));
            }
        }
    }

    /// Error bound to reach.
    pub(super) fn accuracy(&self) -> f64 {
        self.accuracy
    }

    /// Cells that left, down, right and up lead to: the cell itself if a wall stops the move.
    #[inline(always)]
    pub(super) fn ways(&self, cell: usize) -> [usize; ACTIONS] {
        // No lake has more cells than 32 bits count, and 32-bit division is much faster.
        let (row, column) = ((cell as u32 / self.width as u32) as usize, (cell as u32 % self.width as u32) as usize);
        [
            cell - usize::from(column > 0),
            cell + if row + 1 < self.height { self.width } else { 0 },
            cell + usize::from(column + 1 < self.width),
            cell - if row > 0 { self.width } else { 0 },
        ]
    }

    /// Whether each cell is open, row by row.
    pub(super) fn open(&self) -> Vec<bool> {
        let mut open = vec![true; self.height * self.width];
        for (row, open) in open.chunks_mut(self.width).enumerate() {
            self.terminals_of(row, 0, self.width).iter().for_each(|&column| open[column as usize] = false);
        }
        open
    }

    /// Resets the values to one that no backup lowers.
    pub(super) fn begin_below(&mut self) {
        let worth = self.rules.arrival(self.rules.start_below());
        for row in 0..self.height {
            let mut terminals = self.terminals_of(row, 0, self.width).to_vec().into_iter().peekable();
            for column in 0..self.width {
                if terminals.next_if_eq(&(column as u32)).is_none() {
                    let index = self.index(row, column);
                    self.worth[index] = worth;
                }
            }
            self.repeat_margin(row, 0, self.width);
        }
    }

    /// Index of a cell in `worth`.
    #[inline(always)]
    pub(super) fn index(&self, row: usize, column: usize) -> usize {
        (row + 1) * self.stride + column + 1
    }

    /// Worth of moving left, down, right and up from an index.
    #[inline(always)]
    pub(super) fn around(&self, index: usize) -> [f64; ACTIONS] {
        [self.worth[index - 1], self.worth[index + self.stride], self.worth[index + 1], self.worth[index - self.stride]]
    }

    /// Columns of terminal cells in a row, from a column at which a segment begins to another, or to the row's end.
    pub(super) fn terminals_of(&self, row: usize, from: usize, to: usize) -> &[u32] {
        let segments = self.width.div_ceil(BLOCK);
        let begin = |column: usize| self.begins[row * segments + column.div_ceil(BLOCK)] as usize;
        &self.terminals[begin(from)..begin(to)]
    }

    /// Columns of cells that are not terminal.
    pub(super) fn open_columns(&self, row: usize) -> impl DoubleEndedIterator<Item = usize> + use<> {
        let mut open = vec![true; self.width];
        self.terminals_of(row, 0, self.width).iter().for_each(|&column| open[column as usize] = false);
        (0..self.width).filter(move |&column| open[column])
    }

    /// Whether a last change is small enough to end the search.
    pub(super) fn is_settled(&self, change: f64) -> bool {
        const UNITS: f64 = 4.0 * f64::EPSILON;
        change <= self.tolerance
            || change <= UNITS * self.largest && change <= UNITS * self.worth.iter().copied().fold(0.0, magnitude)
    }

    /// Change at which the search ends, without the allowance for rounding.
    pub(super) fn tolerance(&self) -> f64 {
        self.tolerance.max(4.0 * f64::EPSILON * self.largest_reward)
    }

    /// Writes a cell's U and its copies in the margin, and returns the change.
    #[inline(always)]
    pub(super) fn put(&mut self, row: usize, column: usize, worth: f64) -> f64 {
        let index = self.index(row, column);
        let change = (worth - self.worth[index]).abs();
        self.worth[index] = worth;
        if row == 0 || row + 1 == self.height || column == 0 || column + 1 == self.width {
            self.repeat_margin(row, column, column + 1);
        }
        change
    }

    /// Copies columns of a row to the margins beside them.
    pub(super) fn repeat_margin(&mut self, row: usize, from: usize, to: usize) {
        let (begin, end) = (self.index(row, from), self.index(row, to));
        if from == 0 {
            self.worth[begin - 1] = self.worth[begin];
        }
        if to == self.width {
            self.worth[end] = self.worth[end - 1];
        }
        if row == 0 {
            self.worth.copy_within(begin..end, begin - self.stride);
        }
        if row + 1 == self.height {
            self.worth.copy_within(begin..end, begin + self.stride);
        }
    }

    /// Writes U of a row's columns after one backup to `out`; terminal cells keep their values.
    #[inline(always)]
    pub(super) fn back_up(&self, row: usize, from: usize, to: usize, out: &mut [f64]) {
        let (begin, count) = (self.index(row, from), to - from);
        let out = &mut out[..count];
        let left = &self.worth[begin - 1..][..count];
        let right = &self.worth[begin + 1..][..count];
        let up = &self.worth[begin - self.stride..][..count];
        let down = &self.worth[begin + self.stride..][..count];
        let rules = self.rules;
        for column in 0..count {
            let around = [left[column], down[column], right[column], up[column]];
            out[column] = rules.arrival(rules.best(around));
        }
        for &column in self.terminals_of(row, from, to) {
            out[column as usize - from] = self.worth[self.index(row, column as usize)];
        }
    }

    /// Maximum difference between U of a row's columns and other numbers.
    #[inline(always)]
    pub(super) fn change(&self, row: usize, from: usize, other: &[f64]) -> f64 {
        const LANES: usize = 4;
        let own = &self.worth[self.index(row, from)..][..other.len()];
        let mut most = [0.0; LANES];
        let (mut own, mut other) = (own.chunks_exact(LANES), other.chunks_exact(LANES));
        for (own, other) in own.by_ref().zip(other.by_ref()) {
            for lane in 0..LANES {
                most[lane] = greater((own[lane] - other[lane]).abs(), most[lane]);
            }
        }
        for (own, other) in own.remainder().iter().zip(other.remainder()) {
            most[0] = greater((own - other).abs(), most[0]);
        }
        most.into_iter().fold(0.0, greater)
    }

    /// Computes V by one more backup, Q from that V, and the bounds of both.
    pub(super) fn certify(&mut self, sweeps: usize) -> Solution {
        let cells = self.height * self.width;
        let mut value = vec![0.0; cells];
        for row in 0..self.height {
            for column in self.open_columns(row) {
                value[row * self.width + column] = self.rules.best(self.around(self.index(row, column)));
            }
        }
        self.set(&value);
        let mut action_value = vec![[0.0; ACTIONS]; cells];
        let mut residual = 0.0;
        for row in 0..self.height {
            for column in self.open_columns(row) {
                let q = self.rules.action_values(self.around(self.index(row, column)));
                let best = q.into_iter().fold(f64::NEG_INFINITY, greater);
                residual = greater((best - value[row * self.width + column]).abs(), residual);
                action_value[row * self.width + column] = q;
            }
        }
        // A backup rounds γV, U, one sum, two products and another sum, and the probability of a right angle is
        // rounded itself: at most eight times half a unit of the largest number in it; twice that is on the safe side.
        let largest = self.worth.iter().chain(&value).copied().fold(self.largest_reward, magnitude);
        let rounding = 8.0 * f64::EPSILON * largest;
        let gamma = self.rules.gamma;
        let error_bound = (residual + rounding) / (1.0 - gamma) * (1.0 + 4.0 * f64::EPSILON);
        let value_error_bound = Certificate::new(self, &value, &action_value).into_bounds();
        Solution { gamma, value, action_value, residual, sweeps, error_bound, value_error_bound }
    }
}

/// The greater of two numbers, neither of which is NaN: one instruction, where `f64::max` takes several.
#[inline(always)]
pub(super) fn greater(a: f64, b: f64) -> f64 {
    if a > b { a } else { b }
}

fn magnitude(most: f64, number: f64) -> f64 {
    greater(number.abs(), most)
}
