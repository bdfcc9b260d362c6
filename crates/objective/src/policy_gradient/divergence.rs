//! Divergences from the reference policy, estimated from the sampled tokens.

use strum::{EnumString, IntoStaticStr, VariantNames};

use super::exponentials::BLOCK;
use crate::numerics::{STEEPEST, exp_excess_slice, exp_m1_slice, exp_slice, exponential, exponential_excess};

/// Estimator of the divergence from a sampled token.
///
/// Rewards cover little of what a language model has learned. A divergence from the policy before training preserves
/// what they do not cover: a token that is more probable than under the reference is pushed down, a less probable one
/// is pulled up. The estimators agree in value, and their gradients differ: which divergence is descended depends on
/// the estimator and on where it is put.
///
/// # Formula
///
/// With d = log π − log π_ref of a token, ρ = π / π_behaviour of the token, unclipped, and the weight β:
///
/// | `divergence` | estimate k | ∂k/∂log π |
/// |---|---|---|
/// | `k1` | d | 1 |
/// | `k2` | d²/2 | d |
/// | `k3` | e⁻ᵈ + d − 1, never negative | 1 − e⁻ᵈ |
///
/// | `divergence_place` | added to a token's loss | cotangent |
/// |---|---|---|
/// | `loss` | β k | β ∂k/∂log π |
/// | `corrected` | β ρ k, the ratio differentiated | β ρ (k + ∂k/∂log π), for k3 β ρ d |
/// | `reward` | nothing: β Σ k of the behaviour policy is taken off the reward, held | through the advantage |
///
/// Expected gradients at the states visited, their distribution held; of `loss` and `reward` on policy, of `corrected`
/// whichever policy sampled the tokens:
///
/// | | `loss` | `corrected` | `reward` |
/// |---|---|---|---|
/// | `k1` | 0 | KL(π \|\| π_ref) | KL(π \|\| π_ref) |
/// | `k2` | KL(π \|\| π_ref) | E_π\[d²\]/2 | no divergence's |
/// | `k3` | KL(π_ref \|\| π) | KL(π \|\| π_ref) | KL(π \|\| π_ref) − KL(π_ref \|\| π) |
///
/// Only `k1` in the reward, summed over the response, gives the divergence of whole responses. `divergence_clip` = c
/// bounds d to ±c: beyond, the estimate is that of the bound, and only the ratio of `corrected` moves.
///
/// # Source
///
/// J. Schulman, "Approximating KL Divergence", 2020; `corrected` with k3: DeepSeek-AI, "DeepSeek-V3.2", arXiv
/// 2512.02556, equation 7, which is TRL's default (`use_bias_correction_kl`); k1 in the reward: arXiv 2402.14740.
///
/// # Departures
///
/// TRL multiplies by the ratio that its importance sampling has, which is the sequence's where that is asked for; the
/// gradient is then no divergence's. verl bounds the value of k3 to ±10 and passes no gradient beyond. Exponentials of
/// more than 100 nats continue along their tangent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Estimator {
    /// The log-ratio d.
    K1,
    /// Half of the squared log-ratio, d²/2.
    K2,
    /// The log-ratio plus the inverse ratio minus one, e⁻ᵈ + d − 1.
    #[default]
    K3,
}

/// Place where the divergence is added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Place {
    /// The divergence is a part of the loss: the estimator alone.
    Loss,
    /// The divergence is a part of the loss: the estimator times the token's importance ratio, which is differentiated.
    #[default]
    Corrected,
    /// The divergence is a part of the reward.
    Reward,
}

impl Estimator {
    /// Estimate at d and its derivative by d.
    pub(super) fn at(self, drift: f64) -> (f64, f64) {
        match self {
            Self::K1 => (drift, 1.0),
            Self::K2 => (0.5 * drift * drift, drift),
            Self::K3 => {
                let (value, slope) = exponential_excess(-drift);
                (value, -slope)
            }
        }
    }

    /// Estimate for one token and its derivative by log π, with d bounded.
    pub(super) fn differentiated(self, bound: f64, log_prob: f64, reference: f64) -> (f64, f64) {
        let drift = log_prob - reference;
        let (value, slope) = self.at(drift.clamp(-bound, bound));
        (value, if drift.abs() > bound { 0.0 } else { slope })
    }

    /// Estimate for one token times its importance ratio, and the derivative by log π, with d bounded.
    pub(super) fn corrected(self, bound: f64, log_prob: f64, behaviour: f64, reference: f64) -> (f64, f64) {
        let (x, drift) = (log_prob - behaviour, log_prob - reference);
        let (ratio, ratio_slope) = exponential(x);
        if drift.abs() > bound {
            let (value, _) = self.at(drift.clamp(-bound, bound));
            return (ratio * value, ratio_slope * value);
        }
        let (value, slope) = self.at(drift);
        if self != Self::K3 || x > STEEPEST {
            return (ratio * value, ratio_slope * value + ratio * slope);
        }
        // ρ e⁻ᵈ = π_ref / π_behaviour avoids an overflow of e⁻ᵈ where ρ is small.
        let u = -drift;
        let value =
            if u <= STEEPEST { ratio * value } else { exponential(reference - behaviour).0 - ratio * (1.0 + u) };
        // The closed form of ρ k + ρ (1 − e⁻ᵈ), which would lose digits by cancellation.
        (value, -ratio * u)
    }
}

/// Estimates of a block of tokens, and their derivatives by log π.
#[derive(Clone, Copy, Debug)]
pub(super) struct Estimates {
    values: [f64; BLOCK],
    slopes: [f64; BLOCK],
    ratios: [f64; BLOCK],
}

impl Estimates {
    pub(super) fn new() -> Self {
        Self { values: [0.0; BLOCK], slopes: [0.0; BLOCK], ratios: [0.0; BLOCK] }
    }

    /// Estimates for at most [`BLOCK`] tokens and their derivatives, with d bounded, times the importance ratios if
    /// there is a behaviour policy.
    pub(super) fn fill(
        &mut self,
        estimator: Estimator,
        bound: f64,
        log_prob: &[f64],
        behaviour: Option<&[f64]>,
        reference: &[f64],
    ) -> (&[f64], &[f64]) {
        let tokens = log_prob.len().min(BLOCK);
        let [values, slopes, ratios] =
            [&mut self.values, &mut self.slopes, &mut self.ratios].map(|all| &mut all[..tokens]);
        for ((drift, own), other) in slopes.iter_mut().zip(log_prob).zip(reference) {
            *drift = own - other;
        }
        let bound = bound.min(f64::MAX);
        let is_near = |drift: f64| (drift >= -STEEPEST) & (drift.abs() <= bound);
        let mut near = slopes.iter().fold(true, |near, drift| near & is_near(*drift));
        match estimator {
            Estimator::K1 => {
                values.copy_from_slice(slopes);
                slopes.fill(1.0);
            }
            Estimator::K2 => values.iter_mut().zip(&*slopes).for_each(|(value, drift)| *value = 0.5 * drift * drift),
            Estimator::K3 => {
                values.iter_mut().zip(&*slopes).for_each(|(value, drift)| *value = -drift);
                exp_excess_slice(values);
                if behaviour.is_none() {
                    slopes.iter_mut().for_each(|slope| *slope = -*slope);
                    exp_m1_slice(slopes);
                    slopes.iter_mut().for_each(|slope| *slope = -*slope);
                }
            }
        }
        if let Some(behaviour) = behaviour {
            for ((ratio, own), other) in ratios.iter_mut().zip(log_prob).zip(behaviour) {
                *ratio = own - other;
                near &= *ratio <= STEEPEST;
            }
            exp_slice(ratios);
            for ((value, slope), ratio) in values.iter_mut().zip(&mut *slopes).zip(&*ratios) {
                // As in `corrected`: the slope for k3 is ρ d.
                *slope = *ratio * *slope + if estimator == Estimator::K3 { 0.0 } else { *ratio * *value };
                *value *= ratio;
            }
        }
        if !near {
            for token in 0..tokens {
                let [own, other] = [log_prob[token], reference[token]];
                let ratio = behaviour.map_or(0.0, |column| own - column[token]);
                if !is_near(own - other) || ratio > STEEPEST {
                    (values[token], slopes[token]) = match behaviour {
                        Some(column) => estimator.corrected(bound, own, column[token], other),
                        None => estimator.differentiated(bound, own, other),
                    };
                }
            }
        }
        (values, slopes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Estimator; 3] = [Estimator::K1, Estimator::K2, Estimator::K3];

    fn check(value: impl Fn(f64) -> (f64, f64), log_prob: f64) {
        let step = 1e-4;
        let at = |moved: f64| value(moved).0;
        let near = at(log_prob + step) - at(log_prob - step);
        let far = at(log_prob + 2.0 * step) - at(log_prob - 2.0 * step);
        let (difference, slope) = ((8.0 * near - far) / (12.0 * step), value(log_prob).1);
        let rounding = 1e-10 * at(log_prob).abs() + 1e-15;
        assert!((slope - difference).abs() <= 1e-8 * slope.abs() + rounding, "{log_prob}: {slope:e}, {difference:e}");
    }

    #[test]
    fn derivatives_are_central_differences_also_where_the_reference_is_far_more_likely() {
        for [log_prob, behaviour, reference] in [
            [-0.3, -1.2, -2.0],
            [-2.0, -1.0, -2.0],
            [-8.0, -0.5, -0.1],
            [-60.0, -30.0, -1.0],
            [-500.0, -499.0, -2.0],
            [-1.0, -90.0, -1.5],
        ] {
            for estimator in ALL {
                for bound in [f64::INFINITY, 3.0] {
                    check(|moved| estimator.corrected(bound, moved, behaviour, reference), log_prob);
                    if reference - log_prob < 20.0 || bound < 20.0 {
                        check(|moved| estimator.differentiated(bound, moved, reference), log_prob);
                    }
                }
            }
        }
    }

    #[test]
    fn values_are_those_computed_by_hand() {
        // π = ½, π_ref = ¼, from a policy of 1/8: d = ln 2, ρ = 4.
        let (half, quarter, eighth) = (0.5_f64.ln(), 0.25_f64.ln(), 0.125_f64.ln());
        let d = 2.0_f64.ln();
        for (estimator, value, slope) in
            [(Estimator::K1, d, 1.0), (Estimator::K2, d * d / 2.0, d), (Estimator::K3, d - 0.5, 0.5)]
        {
            let close = |(a, b): (f64, f64), (c, e): (f64, f64)| (a - c).abs() < 1e-14 && (b - e).abs() < 1e-14;
            assert!(close(estimator.differentiated(f64::INFINITY, half, quarter), (value, slope)));
            let corrected = estimator.corrected(f64::INFINITY, half, eighth, quarter);
            assert!(close(corrected, (4.0 * value, 4.0 * (value + slope))), "{estimator:?}: {corrected:?}");
        }
    }

    #[test]
    fn estimates_of_blocks_are_those_of_one_token_at_a_time() {
        let edges = [0.0, -1e-300, -1e-12, -0.3, -0.7, -1.0, -99.0, -101.0, -745.2, -1e4, -1e30];
        let columns = edges.map(|own| edges.map(|behaviour| edges.map(|reference| [own, behaviour, reference])));
        let rows: Vec<[f64; 3]> = columns.into_iter().flatten().flatten().collect();
        // Compared relative to powers of subnormal numbers.
        let close = |a: f64, b: f64, size: f64| (a - b).abs() <= 4e-15 * size.abs() + 1e-260;
        for (estimator, bound) in ALL.into_iter().flat_map(|own| [f64::INFINITY, 3.0].map(|bound| (own, bound))) {
            for block in rows.chunks(BLOCK).chain(rows.chunks(1)) {
                let [own, behaviour, reference] =
                    [0, 1, 2].map(|kind| block.iter().map(|row| row[kind]).collect::<Vec<_>>());
                for behaviour in [None, Some(behaviour.as_slice())] {
                    let mut estimates = Estimates::new();
                    let (values, slopes) = estimates.fill(estimator, bound, &own, behaviour, &reference);
                    assert_eq!((values.len(), slopes.len()), (block.len(), block.len()));
                    for (token, [own, other, reference]) in block.iter().enumerate() {
                        let (value, slope) = match behaviour {
                            Some(_) => estimator.corrected(bound, *own, *other, *reference),
                            None => estimator.differentiated(bound, *own, *reference),
                        };
                        let name = format!("{estimator:?} {bound} {own} {other} {reference}");
                        assert!(close(values[token], value, value), "{name}: {:e}, {value:e}", values[token]);
                        // The terms of k1 may cancel.
                        let size = slope.abs() + value.abs();
                        assert!(close(slopes[token], slope, size), "{name}: {:e}, {slope:e}", slopes[token]);
                    }
                }
            }
        }
    }

    #[test]
    fn values_and_derivatives_are_finite_wherever_log_probabilities_are() {
        let edges = [0.0, -1e-300, -1e-12, -1.0, -99.0, -101.0, -745.2, -1e4, -1e30];
        for log_prob in edges {
            for behaviour in edges {
                for reference in edges {
                    for estimator in ALL {
                        for bound in [f64::INFINITY, 20.0] {
                            let (value, slope) = estimator.corrected(bound, log_prob, behaviour, reference);
                            assert!(value.is_finite() && slope.is_finite(), "{log_prob} {behaviour} {reference}");
                            let (value, slope) = estimator.differentiated(bound, log_prob, reference);
                            assert!(value.is_finite() && slope.is_finite(), "{log_prob} {reference}");
                        }
                    }
                }
            }
        }
    }
}
