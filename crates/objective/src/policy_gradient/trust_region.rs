//! Trust regions: limits of how far a policy gradient may move away from the policy that sampled the responses.

use strum::{EnumString, IntoStaticStr, VariantNames};

use super::exponentials::along_tangent;
use crate::numerics::{STEEPEST, log1mexp};

/// Limit of how far a policy gradient may move away from the policy that sampled the responses.
///
/// Responses are samples of the policy that generated them. Once the policy in training differs from it, their gradient
/// is right only with importance weights, whose variance grows without bound. A trust region bounds how much a token,
/// or a response, may still pull when its importance ratio is far from 1: by cutting its gradient off, by capping its
/// weight, or by a smooth gate.
///
/// # Formula
///
/// x is the log-ratio that `ratio` names, ρ = eˣ; u = log π − log π_behaviour of the token; A the advantage; sg the
/// stop-gradient (what it holds is computed before the loss is differentiated). The loss of a token:
///
/// | `trust_region` | loss | what is held |
/// |---|---|---|
/// | `clip` | −min(min(ρ, δ) A, clip(ρ, 1 − ε, 1 + ε') A); without `delta`, min(ρ, δ) is ρ | |
/// | `cispo` | −sg(clip(ρ, `min_ratio`, `max_ratio`)) A log π | the weight |
/// | `sapo` | −A (4/τ) σ(τ (ρ − 1)), τ that of the sign of A (A ≤ 0 counts as negative) | |
/// | `vespo` | −sg(φ(w)) A log π, φ(w) = wᵏ e^(λ (1 − w)) | w, the ratio of the whole response |
/// | `geometric_mean` | −Ā exp(mean over the response of x̂), x̂ = u held below ε' where A > 0 and above −ε where A < 0 | |
/// | `total_variation` | −sg(min(ρ, `max_ratio`) m) A log π, m = 1 if π − π_behaviour ≤ ε' (A > 0), ≥ −ε (else) | weight, mask |
/// | `binary_kl` | the same, m = 1 if π ≤ π_behaviour or KL ≤ ε' (A > 0), π ≥ π_behaviour or KL ≤ ε (else) | weight, mask |
/// | `quadratic` | −(A log π − c u²/2), c = `quadratic_weight` | |
/// | `clip_cov` | as `clip`, but 0 for the tokens of the greatest covariance | which tokens |
/// | `kl_cov` | −ρ A, and c \|u\| is added for the tokens of the greatest covariance | which tokens |
/// | `topr` | −sg(α) A log π, α = 1 where A ≥ 0, otherwise the response's ratio ∏ρ or 1, whichever is less | α |
/// | `none` | −ρ A; −A log π with `ratio = none` | |
///
/// KL is that of two outcomes, this token or another one: π_b log(π_b/π) + (1 − π_b) log((1 − π_b)/(1 − π)) with π_b =
/// π_behaviour. Covariances are (A − mean A)(log π − mean log π), means over the step's tokens; `clip_cov` takes the
/// greatest of those between `covariance_min` and `covariance_max`, `kl_cov` the greatest of all. w's logarithm is
/// clamped to ±20 nats a token and to [log 10⁻⁸, 20] over all; k and λ are those of the sign of A (A ≥ 0 counts as
/// positive).
///
/// Cotangents follow: −ρ A where a clip does not hold, 0 where it does; −weight A of a held weight; −4 A ρ σ(y) σ(−y)
/// with y = τ (ρ − 1); −A + c u.
///
/// # Source
///
/// `clip`: J. Schulman et al., arXiv 1707.06347, equation 7; ε' ≠ ε from DAPO, arXiv 2503.14476, equation 8; δ from
/// INTELLECT-2, arXiv 2505.07291. `cispo`: MiniMax-M1, arXiv 2506.13585, equations 4 and 5. `sapo`: C. Gao et al.,
/// arXiv 2511.20347. `vespo`: arXiv 2602.10693. `geometric_mean`: Y. Zhao et al., "GMPO", arXiv 2507.20673.
/// `total_variation`, `binary_kl`: "DPPO", arXiv 2602.04879. `quadratic`: P. Richemond et al., "Offline Regularised
/// Reinforcement Learning", arXiv 2405.19107, as verl 0.9.1's `dro`. `clip_cov`, `kl_cov`: G. Cui et al., arXiv
/// 2505.22617; verl draws at random among the tokens between the two bounds, of which the greatest are taken here.
/// `topr`: N. Le Roux et al., "Tapered Off-Policy REINFORCE", arXiv 2503.14286, section 3: ∇J = Σ_{R ≥ 0} μ R ∇log π +
/// Σ_{R < 0} μ [π/μ]₀¹ R ∇log π, the sums over responses and [·]₀¹ the ratio clipped to [0, 1].
///
/// # Departures
///
/// Exponentials of more than 100 nats continue along their tangent. `vespo`: the logarithm of a weight ends at 100.
/// verl adds 10⁻⁸ to both 1 − π of `binary_kl`; here they are 1 − eˣ in full precision. verl's dual clip is on (δ = 3)
/// unless set, and acts on negative advantages alone, as δ does here wherever δ ≥ 1 + ε'.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum TrustRegion {
    /// Importance ratios are clipped (PPO).
    #[default]
    Clip,
    /// Importance ratios weight the loss, up to a maximum (CISPO).
    Cispo,
    /// A smooth gate in place of clipping (SAPO).
    Sapo,
    /// A gamma density of the response's ratio as weight (VESPO).
    Vespo,
    /// The geometric mean of clipped ratios (GMPO).
    GeometricMean,
    /// A mask by the difference of probabilities (DPPO).
    TotalVariation,
    /// A mask by the divergence of the token's probability (DPPO).
    BinaryKl,
    /// A quadratic penalty of the log-ratio (DRO).
    Quadratic,
    /// Clipping, without the tokens of the greatest covariance (Clip-Cov).
    ClipCov,
    /// A penalty on the tokens of the greatest covariance (KL-Cov).
    KlCov,
    /// Truncated ratios of responses with negative advantages (TOPR).
    Topr,
    /// No trust region.
    None,
}

impl TrustRegion {
    /// Whether the loss is −A log π times a held weight.
    pub(super) fn is_weighted(self) -> bool {
        matches!(self, Self::Cispo | Self::Vespo | Self::TotalVariation | Self::BinaryKl | Self::Topr)
    }

    /// Whether the ratio is a choice: other regions say which ratio they bound.
    pub(super) fn has_ratio(self) -> bool {
        matches!(self, Self::Clip | Self::Cispo | Self::Sapo | Self::None)
    }
}

/// The loss of one log-ratio.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Surrogate {
    /// The loss ℓ.
    pub(super) loss: f64,
    /// The derivative ∂ℓ/∂x.
    pub(super) slope: f64,
    /// The bound at which the ratio is clipped, if it is.
    pub(super) clipped: Option<Bounded>,
}

/// The bound at which an importance ratio is clipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bounded {
    /// Clipped at the lower bound.
    Below,
    /// Clipped at the upper bound.
    Above,
}

/// Bounds of the clipped surrogate: 1 − ε, 1 + ε' and δ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Clip {
    /// Lower bound 1 − ε.
    pub(super) low: f64,
    /// Upper bound 1 + ε'.
    pub(super) high: f64,
    /// Bound δ for negative advantages, infinite if there is none.
    pub(super) delta: f64,
}

impl Clip {
    /// Minimum and maximum of the ratios for which the loss is not constant. They follow from the bounds and the sign
    /// of A, so that products that round to the same number do not matter.
    pub(super) fn bounds(self, advantage: f64) -> (f64, f64) {
        if advantage > 0.0 {
            (0.0, self.high.min(self.delta))
        } else if advantage < 0.0 {
            (self.low, self.high.max(self.delta))
        } else {
            (0.0, f64::INFINITY)
        }
    }

    /// Loss ℓ at a ratio and its slope.
    pub(super) fn surrogate(self, (ratio, slope): (f64, f64), advantage: f64) -> Surrogate {
        let (least, most) = self.bounds(advantage);
        let (held, clipped) = if ratio > most {
            (most, Some(Bounded::Above))
        } else if ratio < least {
            (least, Some(Bounded::Below))
        } else {
            (ratio, None)
        };
        let slope = if clipped.is_none() { slope } else { 0.0 };
        Surrogate { loss: -held * advantage, slope: -slope * advantage, clipped }
    }
}

/// Unclipped loss −ρ A.
pub(super) fn free((ratio, slope): (f64, f64), advantage: f64) -> Surrogate {
    Surrogate { loss: -ratio * advantage, slope: -slope * advantage, clipped: None }
}

/// Temperature of SAPO's gate for an advantage, out of those for positive and for other advantages.
pub(super) fn temperature([positive, negative]: [f64; 2], advantage: f64) -> f64 {
    if advantage > 0.0 { positive } else { negative }
}

/// The smooth gate of SAPO at a log-ratio, with the slope of the ratio.
pub(super) fn sapo(temperatures: [f64; 2], log_ratio: f64, slope: f64, advantage: f64) -> Surrogate {
    let temperature = temperature(temperatures, advantage);
    let gate = temperature * ratio_excess(log_ratio, slope, log_ratio.min(STEEPEST).exp_m1());
    gated(temperature, gate, (-gate.abs()).exp(), slope, advantage)
}

/// ρ − 1 from a log-ratio, the slope of ρ, and eˣ − 1, without cancellation near 1; far from it, ρ continues along its
/// tangent.
pub(super) fn ratio_excess(log_ratio: f64, slope: f64, exp_m1: f64) -> f64 {
    if log_ratio <= STEEPEST { exp_m1 } else { along_tangent(log_ratio, slope) - 1.0 }
}

/// SAPO's loss at a gate x = τ (ρ − 1), from `tail` = e^−|x|: σ(x) and σ(x) σ(−x) are fractions of it.
pub(super) fn gated(temperature: f64, gate: f64, tail: f64, slope: f64, advantage: f64) -> Surrogate {
    let whole = 1.0 + tail;
    let open = if gate >= 0.0 { 1.0 } else { tail } / whole;
    Surrogate {
        loss: -advantage * 4.0 / temperature * open,
        slope: -advantage * 4.0 * (tail / (whole * whole)) * slope,
        clipped: None,
    }
}

/// Quadratic loss −(A log π − c u²/2), and its derivative by log π.
pub(super) fn quadratic(weight: f64, log_prob: f64, behaviour: f64, advantage: f64) -> Surrogate {
    let drift = log_prob - behaviour;
    let loss = 0.5 * weight * drift * drift - advantage * log_prob;
    Surrogate { loss, slope: weight * drift - advantage, clipped: None }
}

/// Log-ratio of a token within the bounds of GMPO, and whether it depends on the token's own log-ratio.
pub(super) fn bounded_log_ratio([low, high]: [f64; 2], log_ratio: f64, advantage: f64) -> (f64, Option<Bounded>) {
    if advantage > 0.0 && log_ratio > high {
        (high, Some(Bounded::Above))
    } else if advantage < 0.0 && log_ratio < -low {
        (-low, Some(Bounded::Below))
    } else {
        (log_ratio, None)
    }
}

/// A held weight, and the bound that determined it.
pub(super) type Weight = (f64, Option<Bounded>);

/// Capped importance ratio of CISPO. It counts as clipped only if the bound reduces the effect of the advantage.
pub(super) fn capped([least, most]: [f64; 2], ratio: f64, advantage: f64) -> Weight {
    let bound = if ratio > most && advantage > 0.0 {
        Some(Bounded::Above)
    } else if ratio < least && advantage < 0.0 {
        Some(Bounded::Below)
    } else {
        None
    };
    (ratio.min(most).max(least), bound)
}

/// Weight of a token whose probability may rise by `high` and fall by `low` (DPPO, total variation).
pub(super) fn within_total_variation(
    [low, high, most]: [f64; 3],
    [log_prob, behaviour, ratio]: [f64; 3],
    advantage: f64,
) -> Weight {
    // π − π_behaviour without cancellation where they are close.
    let drift = log_prob - behaviour;
    let moved = if drift <= 0.0 { behaviour.exp() * drift.exp_m1() } else { -log_prob.exp() * (-drift).exp_m1() };
    let bound = match advantage > 0.0 {
        true if moved > high => Some(Bounded::Above),
        false if moved < -low => Some(Bounded::Below),
        _ => None,
    };
    (if bound.is_some() { 0.0 } else { ratio.min(most) }, bound)
}

/// Weight of a token whose binary divergence may reach `high` upwards and `low` downwards (DPPO, binary KL).
pub(super) fn within_binary_kl(
    [low, high, most]: [f64; 3],
    [log_prob, behaviour, ratio]: [f64; 3],
    advantage: f64,
) -> Weight {
    let drift = log_prob - behaviour;
    let bound = match advantage > 0.0 {
        true if drift > 0.0 && binary_kl(behaviour, log_prob) > high => Some(Bounded::Above),
        false if drift < 0.0 && binary_kl(behaviour, log_prob) > low => Some(Bounded::Below),
        _ => None,
    };
    (if bound.is_some() { 0.0 } else { ratio.min(most) }, bound)
}

/// KL divergence of a binary outcome with probability eᵇ from one with probability eᵃ, nats.
fn binary_kl(b: f64, a: f64) -> f64 {
    let other = |x: f64| if x < 0.0 { log1mexp(x) } else { f64::NEG_INFINITY };
    let (own, rest) = (b.exp(), -b.exp_m1());
    let rest = if rest > 0.0 { rest * (other(b) - other(a)) } else { 0.0 };
    own * (b - a) + rest
}

/// Weight of a response with a negative advantage, from the log-ratio of the whole response (TOPR).
pub(super) fn tapered(log_ratio: f64, advantage: f64) -> Weight {
    match advantage < 0.0 {
        true if log_ratio > 0.0 => (1.0, Some(Bounded::Above)),
        true => (log_ratio.exp(), None),
        false => (1.0, None),
    }
}

/// Range of a token's log-ratio in VESPO's weight, nats.
pub(super) const TOKEN_BOUND: f64 = 20.0;
/// Maximum log-ratio of a response in VESPO's weight, nats.
const GREATEST: f64 = 20.0;
/// Minimum log-ratio of a response in VESPO's weight, log 10⁻⁸ nats.
const LEAST: f64 = -18.420_680_743_952_367;
/// Maximum logarithm of VESPO's weight.
const HEAVIEST: f64 = 100.0;

/// Logarithm of a correction's weight, bounded like log-ratios in VESPO's weight.
pub(super) fn log_weight(weight: f64) -> f64 {
    weight.ln().clamp(LEAST, GREATEST)
}

/// Weight φ(w) of a response's clamped log-ratio, with k and λ of the advantage's sign (VESPO).
pub(super) fn gamma_density([k, lambda]: [f64; 2], log_ratio: f64) -> f64 {
    let log_ratio = log_ratio.clamp(LEAST, GREATEST);
    (lambda + k * log_ratio - lambda * log_ratio.exp()).min(HEAVIEST).exp()
}

#[cfg(test)]
mod tests {
    use std::f64::consts::LN_2;

    use super::*;
    use crate::numerics::exponential;

    const CLIP: Clip = Clip { low: 0.8, high: 1.2, delta: f64::INFINITY };

    fn slope_of(loss: impl Fn(f64) -> Surrogate, x: f64) {
        let step = 1e-5;
        let value = |moved: f64| loss(moved).loss;
        let near = value(x + step) - value(x - step);
        let far = value(x + 2.0 * step) - value(x - 2.0 * step);
        let (difference, slope) = ((8.0 * near - far) / (12.0 * step), loss(x).slope);
        assert!((slope - difference).abs() <= 1e-8 * slope.abs().max(1.0), "{x}: {slope}, {difference}");
    }

    #[test]
    fn slopes_are_central_differences() {
        for x in [-3.0, -0.5, -0.1, 0.0, 0.1, 0.5, 2.0] {
            for advantage in [-1.5, 0.0, 0.5] {
                slope_of(|x| CLIP.surrogate(exponential(x), advantage), x);
                slope_of(|x| Clip { delta: 1.5, ..CLIP }.surrogate(exponential(x), advantage), x);
                slope_of(|x| free(exponential(x), advantage), x);
                slope_of(|x| sapo([1.0, 1.05], x, exponential(x).1, advantage), x);
                slope_of(|x| quadratic(0.3, x - 4.0, -4.2, advantage), x);
            }
        }
    }

    #[test]
    fn without_a_second_clip_a_negative_advantage_counts_with_any_ratio() {
        let x = exponential(4.0_f64.ln());
        assert!((CLIP.surrogate(x, -1.0).loss - 4.0).abs() < 1e-12);
        assert_eq!(Clip { delta: 3.0, ..CLIP }.surrogate(x, -1.0).loss, 3.0);
        assert_eq!(
            CLIP.surrogate((1.5, 1.5), 1.0),
            Surrogate { loss: -1.2, slope: 0.0, clipped: Some(Bounded::Above) }
        );
        assert_eq!(CLIP.surrogate((0.6, 0.6), -1.0).clipped, Some(Bounded::Below));
        assert_eq!(CLIP.surrogate((0.6, 0.6), 1.0).clipped, None);
    }

    #[test]
    fn a_capped_weight_counts_as_clipped_only_where_it_holds_the_advantage_back() {
        let ten = 10.0;
        assert_eq!(capped([0.0, 5.0], ten, 1.0), (5.0, Some(Bounded::Above)));
        assert_eq!(capped([0.0, 5.0], ten, -1.0), (5.0, None));
        assert_eq!(capped([0.5, 5.0], 0.1, -1.0), (0.5, Some(Bounded::Below)));
        assert_eq!(capped([0.0, 5.0], 0.1, -1.0), (0.1, None));
    }

    #[test]
    fn masks_of_probabilities_drop_what_moved_too_far_in_the_advantages_direction() {
        // From ½ to ¾: a difference of ¼, a ratio of 3/2, a divergence of ½ log(2/3) + ½ log 2 = log(2/√3).
        let (half, more) = (0.5_f64.ln(), 0.75_f64.ln());
        let kl = (2.0 / 3.0_f64.sqrt()).ln();
        assert!((binary_kl(half, more) - kl).abs() < 1e-15);
        for (bound, kept) in [(0.24, false), (0.26, true)] {
            let (weight, clipped) = within_total_variation([0.0, bound, 20.0], [more, half, 1.5], 1.0);
            assert_eq!((weight > 0.0, clipped.is_none()), (kept, kept));
            assert!(!kept || (weight - 1.5).abs() < 1e-15);
            // The other direction is not bounded, and neither is an advantage that pulls back.
            assert!(within_total_variation([0.0, bound, 20.0], [more, half, 1.5], -1.0).0 > 0.0);
            assert_eq!(within_total_variation([bound, 0.0, 20.0], [half, more, 2.0 / 3.0], -1.0).0 > 0.0, kept);
        }
        assert_eq!(within_binary_kl([0.0, 0.99 * kl, 20.0], [more, half, 1.5], 1.0), (0.0, Some(Bounded::Above)));
        assert!(within_binary_kl([0.0, 1.01 * kl, 20.0], [more, half, 1.5], 1.0).0 > 0.0);
        // At the bound itself a token is kept, in both directions.
        for (token, advantage) in [([more, half, 1.5], 1.0), ([half, more, 2.0 / 3.0], -1.0)] {
            let bound = binary_kl(token[1], token[0]);
            assert_eq!(within_binary_kl([bound, bound, 20.0], token, advantage), (token[2], None));
            let below = bound.next_down();
            assert_eq!(within_binary_kl([below, below, 20.0], token, advantage).0, 0.0);
        }
        assert!(within_binary_kl([0.0, 0.0, 1.25], [more, half, 1.5], -1.0) == (1.25, None));
    }

    #[test]
    fn a_bad_response_that_became_likely_is_lowered_with_weight_one_and_a_good_one_always() {
        assert_eq!(tapered(3.0, -1.0), (1.0, Some(Bounded::Above)));
        assert_eq!(tapered(-LN_2, -1.0).0, (-LN_2).exp());
        assert_eq!(tapered(-800.0, 1.0), (1.0, None));
        assert_eq!(tapered(-800.0, -1.0).0, 0.0);
    }

    #[test]
    fn the_gamma_density_is_greatest_at_k_over_lambda() {
        let at = |ratio: f64| gamma_density([2.0, 4.0], ratio.ln());
        assert!((at(0.5) - 0.25 * 2.0_f64.exp()).abs() < 1e-12);
        assert!(at(0.5) > at(0.4) && at(0.5) > at(0.6));
        assert!((at(1.0) - 1.0).abs() < 1e-15);
    }

    #[test]
    fn weights_are_finite_wherever_log_probabilities_are() {
        let edges = [0.0, -1e-300, -1e-12, -1.0, -99.0, -101.0, -745.2, -1e4, -1e30];
        for a in edges {
            for b in edges {
                for advantage in [-1.0, 0.0, 1.0] {
                    for weight in [
                        capped([0.0, 5.0], exponential(a - b).0, advantage).0,
                        within_total_variation([0.1, 0.1, 20.0], [a, b, exponential(a - b).0], advantage).0,
                        within_binary_kl([0.1, 0.1, 20.0], [a, b, exponential(a - b).0], advantage).0,
                        tapered(a - b, advantage).0,
                        gamma_density([2.0, 3.0], a - b),
                        quadratic(0.1, a, b, advantage).loss,
                    ] {
                        assert!(weight.is_finite(), "{a} {b} {advantage}");
                    }
                }
            }
        }
    }
}
