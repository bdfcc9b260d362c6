//! What policies were along training, in the mean over runs.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::world::map::ACTIONS;
use crate::world::policy_table::TransitionMatrix;

/// What one method's policies were at each step of the curve, summed over its runs. Sums of integers are the same in
/// whatever order the runs end, and no run's own policies need to be kept.
pub(crate) struct Snapshots {
    /// By step, cell and action, in 2⁻⁴⁰: the sums over the most seeds that there may be stay below 2⁶⁴.
    sums: Vec<AtomicU64>,
    cells: usize,
}

impl Snapshots {
    const ONE: f64 = (1_u64 << 40) as f64;
    /// Decimals enough to look at.
    const ROUNDING: f64 = 1e6;

    /// None yet, of as many steps and cells.
    pub(crate) fn new(points: usize, cells: usize) -> Self {
        Self { sums: (0..points * cells * ACTIONS).map(|_| AtomicU64::new(0)).collect(), cells }
    }

    /// Counts a run's policy at a step.
    pub(crate) fn add(&self, point: usize, policy: &TransitionMatrix) {
        for (sum, probability) in self.sums[point * self.cells * ACTIONS..].iter().zip(policy.iter().flatten()) {
            sum.fetch_add((probability * Self::ONE).round() as u64, Ordering::Relaxed);
        }
    }

    /// Means over so many runs, to a millionth.
    pub(crate) fn means(self, runs: usize) -> Vec<TransitionMatrix> {
        let total = runs as f64 * Self::ONE;
        let mean = |sum: &AtomicU64| {
            let mean = sum.load(Ordering::Relaxed) as f64 / total;
            (mean * Self::ROUNDING).round() / Self::ROUNDING
        };
        let means: Vec<_> = self.sums.iter().map(mean).collect();
        let (rows, _) = means.as_chunks::<ACTIONS>();
        rows.chunks(self.cells).map(<[_]>::to_vec).collect()
    }
}
