//! Means over runs with their confidence intervals.

use program::statistics::Mean;
use serde::Serialize;

/// A mean over runs with its interval.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Mean over the runs.
    pub mean: f64,
    /// Half-width of the 95% confidence interval of the mean (Student's t); `None` for a single run.
    pub ci95: Option<f64>,
    /// One value per run, in the order of seeds.
    pub per_seed: Vec<f64>,
}

/// A quantity during training.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Curve {
    /// Numbers of updates.
    pub steps: Vec<usize>,
    /// Means over the runs.
    pub mean: Vec<f64>,
    /// Half-widths of the 95% confidence intervals; `None` for a single run.
    pub ci95: Vec<Option<f64>>,
}

impl Summary {
    /// Mean and interval of at least one value.
    pub fn new(per_seed: Vec<f64>) -> Self {
        let Mean { mean, half_width: ci95 } = Mean::of(&per_seed);
        Self { mean, ci95, per_seed }
    }
}
