//! Logistic regression on one number, fitted by Newton's method.
//!
//! The rate yᵢ ∈ \[0, 1\] of the i-th pair is modelled as σ(a + b xᵢ), and (a, b) maximise Σ yᵢ ln pᵢ + (1 − yᵢ) ln(1 −
//! pᵢ). That is concave in (a, b), so Newton's step, halved while it does not climb, finds its only maximum. As rates
//! need not be 0 or 1, the covariance of (a, b) does not assume the binomial variance: it is the sandwich H⁻¹ (Σ (yᵢ −
//! pᵢ)² zᵢ zᵢᵀ) H⁻¹ · n/(n − 2) with zᵢ = (1, xᵢ) and H = Σ pᵢ (1 − pᵢ) zᵢ zᵢᵀ (Papke & Wooldridge 1996, "Econometric
//! methods for fractional response variables", with the correction for small samples called HC1).
//!
//! There is no maximum if a threshold on x separates the rates above 0 from those below 1. `fit` then returns `None`
//! instead of its last iterate.

use objective::numerics::{sigmoid, softplus};

/// Fitted parameters: the position of the likelihood's maximum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Fit {
    /// Intercept a of the log-odds.
    pub(crate) intercept: f64,
    /// Slope b of the log-odds.
    pub(crate) slope: f64,
    /// Standard error of the intercept.
    pub(crate) intercept_error: f64,
}

/// Maximum number of Newton steps.
const STEPS: usize = 200;

/// Fits at least 3 points `(x, y)`; `None` if the likelihood has no unique maximum.
pub(crate) fn fit(points: &[(f64, f64)]) -> Option<Fit> {
    if points.len() < 3 || !has_maximum(points) {
        return None;
    }
    let (mut a, mut b) = (0.0, 0.0);
    for _ in 0..STEPS {
        let (gradient, hessian) = derivatives(points, a, b);
        let inverse = inverse(hessian)?;
        let step = times(inverse, gradient);
        let here = likelihood(points, a, b);
        // Rounding alone may keep the last steps from climbing.
        let climbs = |size: &f64| likelihood(points, a + size * step.0, b + size * step.1) >= here - 1e-12 * here.abs();
        let size = std::iter::successors(Some(1.0), |size| Some(size / 2.0)).take(60).find(climbs)?;
        (a, b) = (a + size * step.0, b + size * step.1);
        if step.0.hypot(step.1) <= 1e-11 * (1.0 + a.hypot(b)) {
            return Some(Fit { intercept: a, slope: b, intercept_error: intercept_error(points, a, b)? });
        }
    }
    None
}

/// Whether the likelihood has a maximum: no threshold separates the points, and x is not constant.
fn has_maximum(points: &[(f64, f64)]) -> bool {
    let above = points.iter().filter(|(_, y)| *y > 0.0).map(|(x, _)| *x);
    let below = points.iter().filter(|(_, y)| *y < 1.0).map(|(x, _)| *x);
    // If all rates are 0 or all are 1, one side has no points, its minimum is ∞ and its maximum −∞, and both are false.
    min(above.clone()) < max(below.clone()) && min(below) < max(above)
}

fn min(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(f64::INFINITY, f64::min)
}

fn max(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(f64::NEG_INFINITY, f64::max)
}

fn likelihood(points: &[(f64, f64)], a: f64, b: f64) -> f64 {
    // y ln σ(z) + (1 − y) ln σ(−z) = y z − softplus(z).
    points.iter().map(|(x, y)| y * (a + b * x) - softplus(a + b * x)).sum()
}

/// A symmetric 2 × 2 matrix: its two diagonal entries, and its off-diagonal entry.
type Symmetric = (f64, f64, f64);

/// Gradient and negative Hessian of the log-likelihood.
fn derivatives(points: &[(f64, f64)], a: f64, b: f64) -> ((f64, f64), Symmetric) {
    let (mut gradient, mut hessian) = ((0.0, 0.0), (0.0, 0.0, 0.0));
    for (x, y) in points {
        let p = sigmoid(a + b * x);
        let (slack, weight) = (y - p, p * (1.0 - p));
        gradient = (gradient.0 + slack, gradient.1 + slack * x);
        hessian = (hessian.0 + weight, hessian.1 + weight * x * x, hessian.2 + weight * x);
    }
    (gradient, hessian)
}

fn inverse((first, second, beside): Symmetric) -> Option<Symmetric> {
    let determinant = first * second - beside * beside;
    (determinant > 0.0).then(|| (second / determinant, first / determinant, -beside / determinant))
}

fn times((first, second, beside): Symmetric, vector: (f64, f64)) -> (f64, f64) {
    (first * vector.0 + beside * vector.1, beside * vector.0 + second * vector.1)
}

fn intercept_error(points: &[(f64, f64)], a: f64, b: f64) -> Option<f64> {
    let (_, hessian) = derivatives(points, a, b);
    let (own, _, beside) = inverse(hessian)?;
    // The first row of H⁻¹ times z is a point's influence on a.
    let influence = |(x, y): &(f64, f64)| (y - sigmoid(a + b * x)) * (own + beside * x);
    let count = points.len() as f64;
    let variance: f64 = points.iter().map(|point| influence(point).powi(2)).sum::<f64>() * count / (count - 2.0);
    Some(variance.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If x has two values, the fit goes through both means: a + b x = logit of the mean there.
    #[test]
    fn of_two_values_the_fit_is_the_logit_of_their_means() {
        let points: Vec<_> =
            [(0.0, 1.0), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0), (1.0, 1.0), (1.0, 0.5), (1.0, 0.75)].into();
        let fit = fit(&points).unwrap();
        let logit = |p: f64| (p / (1.0 - p)).ln();
        assert!((fit.intercept - logit(0.25)).abs() < 1e-12, "{fit:?}");
        assert!((fit.intercept + fit.slope - logit(0.75)).abs() < 1e-12, "{fit:?}");
        // Only the four points at x = 0 determine a: H there is 4 · 3/16, and the squared residuals add up to 3/4.
        let error = (0.75f64 / (4.0 * 0.1875 * 4.0 * 0.1875) * 7.0 / 5.0).sqrt();
        assert!((fit.intercept_error - error).abs() < 1e-12, "{fit:?} {error}");
    }

    #[test]
    fn there_is_no_fit_where_a_threshold_separates() {
        assert_eq!(fit(&[(-1.0, 0.0), (0.0, 0.0), (1.0, 1.0), (2.0, 1.0)]), None);
        assert_eq!(fit(&[(-1.0, 1.0), (0.0, 0.5), (1.0, 0.0)]), None, "one rate at the threshold itself");
        assert_eq!(fit(&[(-1.0, 1.0), (0.0, 1.0), (1.0, 1.0)]), None, "all won");
        assert_eq!(fit(&[(0.5, 1.0), (0.5, 0.0), (0.5, 1.0)]), None, "x is the same everywhere");
        assert!(fit(&[(-1.0, 0.0), (0.0, 1.0), (1.0, 0.0), (2.0, 1.0)]).is_some());
    }

    #[test]
    fn nearly_separated_points_have_a_fit_whose_gradient_is_zero() {
        let points: Vec<_> = (-20..=20).map(|k| (f64::from(k) / 20.0, f64::from(u8::from(k > 0)))).collect();
        let mut points = points;
        points[19].1 = 1.0;
        let fit = fit(&points).unwrap();
        let (gradient, _) = derivatives(&points, fit.intercept, fit.slope);
        assert!(gradient.0.abs() < 1e-9 && gradient.1.abs() < 1e-9, "{fit:?} {gradient:?}");
    }
}
