//! Mean policies over runs at the points of the curve.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::map::ACTIONS;
use crate::solver::TransitionMatrix;

/// Policies of one method at each point of the curve, summed over its runs. Sums of integers do not depend on the order
/// in which runs end, and no run's own policies need to be stored.
pub(crate) struct Snapshots {
    /// Sums by step, cell and action, in units of 2⁻⁴⁰: sums over the maximum number of seeds stay below 2⁶⁴.
    sums: Vec<AtomicU64>,
    cells: usize,
}

impl Snapshots {
    const ONE: f64 = (1_u64 << 40) as f64;
    /// Reciprocal of the rounding unit, fine enough for display.
    const ROUNDING: f64 = 1e6;

    /// Sums of zero for this many points and cells.
    pub(crate) fn new(points: usize, cells: usize) -> Self {
        Self { sums: (0..points * cells * ACTIONS).map(|_| AtomicU64::new(0)).collect(), cells }
    }

    /// Adds a run's policy at a point of the curve.
    pub(crate) fn add(&self, point: usize, policy: &TransitionMatrix) {
        for (sum, probability) in self.sums[point * self.cells * ACTIONS..].iter().zip(policy.iter().flatten()) {
            sum.fetch_add((probability * Self::ONE).round() as u64, Ordering::Relaxed);
        }
    }

    /// Means over this many runs, to a millionth.
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
