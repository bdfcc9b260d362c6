//! Means and shares with their 95% confidence intervals.

use statrs::distribution::{ContinuousCDF, StudentsT};

/// The 97.5% quantile of the standard normal distribution.
pub const NORMAL: f64 = 1.959_963_984_540_054;

/// The 97.5% quantile of Student's t distribution with these degrees of freedom; `None` unless they are above 0.
///
/// ```
/// let quantile = program::statistics::student(2.0);
/// assert!(quantile.is_some_and(|quantile| (quantile - 4.302_653).abs() < 1e-6));
/// assert_eq!(program::statistics::student(0.0), None);
/// ```
pub fn student(freedom: f64) -> Option<f64> {
    StudentsT::new(0.0, 1.0, freedom).ok().map(|student| student.inverse_cdf(0.975))
}

/// The mean of a sample, with its interval.
///
/// # Formula
///
/// With x̄ the mean of n values xᵢ, s² = Σ (xᵢ − x̄)² / (n − 1), and t the 97.5% quantile of Student's t distribution
/// with n − 1 degrees of freedom, the interval is x̄ ± t s / √n.
///
/// ```
/// let mean = program::statistics::Mean::of(&[1.0, 2.0, 3.0, 4.0]);
/// assert_eq!(mean.mean, 2.5);
/// assert!(mean.half_width.is_some_and(|half| (half - 3.182_446_3 * 1.290_994_4 / 2.0).abs() < 1e-6));
/// assert_eq!(program::statistics::Mean::of(&[1.0]).half_width, None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mean {
    /// The mean; not a number if there are no values.
    pub mean: f64,
    /// Half-width of the interval; `None` for fewer than two values.
    pub half_width: Option<f64>,
}

impl Mean {
    /// Computes the mean of these values.
    pub fn of(values: &[f64]) -> Self {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let half_width = student(count - 1.0).map(|t| t * (squares / (count - 1.0) / count).sqrt());
        Self { mean, half_width }
    }
}

/// Wilson's interval of a share of `count` observations, from 0 to 1 if there are none.
///
/// # Source
///
/// E. B. Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
///
/// ```
/// // 263 in 1000 have the interval from 0.2367 to 0.2912.
/// let (low, high) = program::statistics::wilson(0.263, 1000);
/// assert!((low - 0.236_7).abs() < 1e-4 && (high - 0.291_2).abs() < 1e-4);
/// ```
pub fn wilson(share: f64, count: usize) -> (f64, f64) {
    let (n, z) = (count as f64, NORMAL);
    if count == 0 {
        return (0.0, 1.0);
    }
    let middle = share + z * z / (2.0 * n);
    let half = z * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z * z / n;
    // At the ends the interval is exactly closed, whatever rounding says.
    let low = if share == 0.0 { 0.0 } else { (middle - half) / scale };
    let high = if share == 1.0 { 1.0 } else { (middle + half) / scale };
    (low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_of_nothing_is_no_number_and_one_value_has_no_interval() {
        let none = Mean::of(&[]);
        assert!(none.mean.is_nan() && none.half_width.is_none());
        assert_eq!(Mean::of(&[1.0]), Mean { mean: 1.0, half_width: None });
        assert_eq!(Mean::of(&[1.0, 1.0]), Mean { mean: 1.0, half_width: Some(0.0) });
    }

    #[test]
    fn wilsons_interval_is_the_published_one_and_closed_at_the_ends() {
        let (low, high) = wilson(0.263, 1000);
        assert!((low - 0.236_7).abs() < 1e-4 && (high - 0.291_2).abs() < 1e-4, "{low}, {high}");
        // Of none in 10 it ends at z² / (10 + z²) = 0.2775.
        let (low, high) = wilson(0.0, 10);
        assert!(low == 0.0 && (high - 0.277_5).abs() < 1e-4, "{low}, {high}");
        assert_eq!(wilson(0.5, 0), (0.0, 1.0));
    }

    #[test]
    fn students_quantile_approaches_the_normal_one_as_its_expansion_says() {
        for freedom in [100.0, 1000.0, 10_000.0] {
            // t = z + (z³ + z) / 4ν + O(1 / ν²).
            let expected = NORMAL + (NORMAL.powi(3) + NORMAL) / (4.0 * freedom);
            let own = student(freedom).unwrap();
            assert!((own - expected).abs() < 4.0 / (freedom * freedom) + 1e-6, "{freedom}: {own}, not {expected}");
        }
    }
}
