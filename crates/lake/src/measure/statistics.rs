//! Means over runs with their confidence intervals.

use serde::Serialize;
use statrs::distribution::{ContinuousCDF, StudentsT};

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
        let count = per_seed.len() as f64;
        let mean = per_seed.iter().sum::<f64>() / count;
        let squares: f64 = per_seed.iter().map(|value| (value - mean).powi(2)).sum();
        let ci95 = StudentsT::new(0.0, 1.0, count - 1.0)
            .ok()
            .map(|student| student.inverse_cdf(0.975) * (squares / (count - 1.0) / count).sqrt());
        Self { mean, ci95, per_seed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_students() {
        // 1, 2, 3, 4: s = 1.2909944, t(0.975; 3) = 3.1824463, so the half-width is 3.1824463 * 1.2909944 / 2.
        let summary = Summary::new(vec![1.0, 2.0, 3.0, 4.0]);
        assert_eq!(summary.mean, 2.5);
        assert!((summary.ci95.unwrap() - 2.054_260_3).abs() < 1e-6, "{summary:?}");
    }

    #[test]
    fn one_run_has_no_interval() {
        assert_eq!(Summary::new(vec![1.0]).ci95, None);
    }
}
