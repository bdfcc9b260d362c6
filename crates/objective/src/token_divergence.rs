//! The divergence from the reference that is added to the loss of every sampled token.
//!
//! # Formula
//!
//! It keeps the policy near its reference: a token that the policy likes more than the reference does is pushed down,
//! one that it likes less is pulled up, in proportion to the difference of the two log-probabilities. With u = log
//! π_ref − log π and ρ = π / π_behaviour of a token, and the weight β:
//!
//! | `divergence` | `divergence_place` | added to a token's loss |
//! |---|---|---|
//! | `k3` | `corrected` | β ρ (eᵘ − u − 1) |
//!
//! Cotangent: −β ρ u, times what the token weighs in the step. ρ is always the token's own ratio, unclipped, also where
//! the policy's loss has the ratio of the whole response, and it is differentiated: so the expected gradient is that of
//! β KL(π || π_ref) at the states visited, their distribution held, whichever policy sampled them. The estimate k3
//! differentiated as it stands, without ρ, has the cotangent −β (eᵘ − 1), whose expectation on policy is the gradient
//! of the other divergence, KL(π_ref || π).
//!
//! # Source
//!
//! k3 from J. Schulman, "Approximating KL Divergence", 2020; the correction from DeepSeek-AI, "DeepSeek-V3.2", arXiv
//! 2512.02556, section 3.1, which is TRL's default (`use_bias_correction_kl`).
//!
//! # Departures
//!
//! TRL multiplies by the ratio that its importance sampling has, which is the sequence's where that is asked for; the
//! gradient is then no divergence's. Exponentials of more than 100 nats go on along their tangent.
//!
//! # Examples
//!
//! A token with π = ½ and π_ref = ¼ from π itself: eᵘ − u − 1 = ½ + ln 2 − 1, cotangent ln 2.
//!
//! ```
//! let (half, quarter) = (0.5_f64.ln(), 0.25_f64.ln());
//! let (value, slope) = objective::token_divergence::corrected(half, half, quarter);
//! assert!((value - (2.0_f64.ln() - 0.5)).abs() < 1e-15);
//! assert_eq!(slope, half - quarter);
//! ```

use strum::{EnumString, IntoStaticStr, VariantNames};

use crate::numerics::{STEEPEST, exponential, exponential_excess};
use crate::parameter::{Kind, Parameter};

/// Estimator of the divergence.
pub const DIVERGENCE: Parameter = Parameter {
    name: "divergence",
    kind: Kind::Choice { default: "k3", options: Estimator::VARIANTS },
    purpose: "estimator of KL(pi || pi_ref) from a sampled token, where beta > 0",
};

/// Place of the divergence in the loss.
pub const DIVERGENCE_PLACE: Parameter = Parameter {
    name: "divergence_place",
    kind: Kind::Choice { default: "corrected", options: Place::VARIANTS },
    purpose: "place of the divergence, where beta > 0: corrected adds it to the loss, times the token's importance ratio",
};

/// Estimator of the divergence.
///
/// ```
/// let given = [("beta".to_owned(), 0.04.into()), ("divergence".to_owned(), "k4".into())].into();
/// let error = objective::registry::build("grpo", &given).unwrap_err();
/// assert_eq!(error.to_string(), r#"grpo.divergence: expected one of k3, got "k4""#);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Estimator {
    /// eᵘ − u − 1, which is never negative.
    K3,
}

/// Place of the divergence in the loss.
///
/// With β = 0 there is no divergence, so the parameter must not be set:
///
/// ```
/// let given = [("divergence_place".to_owned(), "corrected".into())].into();
/// let error = objective::registry::build("grpo", &given).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     r#"grpo.divergence_place: not used where beta = 0, so it must not be set (got "corrected")"#
/// );
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Place {
    /// The loss, times the token's own importance ratio, which passes a gradient.
    Corrected,
}

/// ρ (eᵘ − u − 1) of one token and its derivative by log π, from the log-probabilities that the policy, the policy that
/// sampled the token, and the reference give it.
///
/// The expectation over the actions of one state is KL(π || π_ref), whichever policy samples:
///
/// ```
/// use objective::token_divergence::corrected;
///
/// let (policy, behaviour, reference) = ([0.5_f64, 0.3, 0.2], [0.1_f64, 0.2, 0.7], [0.25_f64, 0.25, 0.5]);
/// let kl: f64 = policy.iter().zip(reference).map(|(own, other)| own * (own / other).ln()).sum();
/// let expected: f64 = (0..3)
///     .map(|action| behaviour[action] * corrected(policy[action].ln(), behaviour[action].ln(), reference[action].ln()).0)
///     .sum();
/// assert!((expected - kl).abs() < 1e-15);
/// ```
pub fn corrected(log_prob: f64, behaviour: f64, reference: f64) -> (f64, f64) {
    let (x, u) = (log_prob - behaviour, reference - log_prob);
    let (ratio, ratio_slope) = exponential(x);
    let (excess, excess_slope) = exponential_excess(u);
    if x > STEEPEST {
        return (ratio * excess, ratio_slope * excess - ratio * excess_slope);
    }
    // ρ eᵘ = π_ref / π_behaviour, so that no overflow of eᵘ shows where ρ is small.
    let value = if u <= STEEPEST { ratio * excess } else { exponential(reference - behaviour).0 - ratio * (1.0 + u) };
    // The closed form of ρ (eᵘ − u − 1) − ρ (eᵘ − 1), which would lose digits by cancellation.
    (value, -ratio * u)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_derivative_is_the_central_difference_also_where_the_reference_is_far_more_likely() {
        for [log_prob, behaviour, reference] in [
            [-0.3, -1.2, -2.0],
            [-2.0, -1.0, -2.0],
            [-8.0, -0.5, -0.1],
            [-120.0, -30.0, -1.0],
            [-500.0, -499.0, -2.0],
            [-1.0, -90.0, -1.5],
        ] {
            let (_, slope) = corrected(log_prob, behaviour, reference);
            let value = |moved: f64| corrected(moved, behaviour, reference).0;
            let step = 1e-4;
            let (near, far) = (
                value(log_prob + step) - value(log_prob - step),
                value(log_prob + 2.0 * step) - value(log_prob - 2.0 * step),
            );
            let difference = (8.0 * near - far) / (12.0 * step);
            let rounding = 1e-10 * value(log_prob).abs() + 1e-15;
            assert!(
                (slope - difference).abs() <= 1e-8 * slope.abs() + rounding,
                "{log_prob}: {slope:e}, {difference:e}"
            );
        }
    }

    #[test]
    fn value_and_derivative_are_finite_wherever_log_probabilities_are() {
        let edges = [0.0, -1e-300, -1e-12, -1.0, -99.0, -101.0, -745.2, -1e4, -1e30];
        for log_prob in edges {
            for behaviour in edges {
                for reference in edges {
                    let (value, slope) = corrected(log_prob, behaviour, reference);
                    assert!(value.is_finite() && slope.is_finite(), "{log_prob} {behaviour} {reference}");
                }
            }
        }
    }
}
