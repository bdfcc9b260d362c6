//! Corrections for a sampler whose probabilities differ from the trainer's.

use strum::{EnumString, IntoStaticStr, VariantNames};

use super::exponentials::for_each_ratio;
use crate::numerics::{exponential, sum_of_differences};

/// Correction for a sampler whose probabilities differ from the trainer's.
///
/// A fast sampler and the trainer give the same weights different probabilities: kernels, precision and stale weights
/// differ. Responses are then not samples of the behaviour policy as the trainer computes it, and the gradient is
/// silently biased. A correction weights each token, or each response, by the ratio of the two, bounded so that its
/// variance stays bounded, or rejects what the two disagree about.
///
/// # Formula
///
/// With vₜ = log π_behaviour − log π_rollout of a token and ratio w = eᵛ of the token (`_token`), of the whole response
/// (`_sequence`, v its sum) or of its geometric mean (`_geometric`, v its mean), and bounds a = `correction_min`, b =
/// `correction_max`:
///
/// | `correction` | weight of a token's policy loss | rejected tokens |
/// |---|---|---|
/// | `none` | 1 | |
/// | `truncate_token`, `truncate_sequence`, `truncate_geometric` | max(a, min(w, b)) | none |
/// | `mask_token`, `mask_sequence`, `mask_geometric` | w | those with w < a or w > b, which leave the step |
/// | `icepop` | w of the token where a ≤ w ≤ b, otherwise 0 | none: a weight of 0 stays in the denominator |
/// | `off_policy_sequence` | 0 where A < 0 and the response's mean of log π_rollout − log π is above b, otherwise 1 | none |
///
/// All of it is held. A rejected token leaves the step: it has no loss of any kind, no part in a response's ratio, and
/// no place in a denominator, so that a step in which half of the tokens are rejected is as large as one of the other
/// half alone. The weights of `icepop` and `off_policy_sequence` are 0 as their papers have them, under sums divided by
/// all tokens: there, the more is rejected, the smaller is the step.
///
/// # Source
///
/// Truncation: F. Yao et al., "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training", 2025, and verl
/// 0.9.1's `rollout_is`. Masks: J. Liu et al., "When Speed Kills Stability", 2025, and verl's `rollout_rs`. `icepop`:
/// "Every Step Evolves", arXiv 2510.18855. `off_policy_sequence`: DeepSeek-AI, "DeepSeek-V3.2", arXiv 2512.02556,
/// equation 9: M = 0 where Â < 0 and
/// |o|⁻¹ Σₜ log(π_old/π_θ) > δ, otherwise 1.
///
/// # Departures
///
/// verl's rejection masks alone have no weight; here the weight of what is kept is w, as in the paper. TRL keeps masked
/// tokens in the denominator. `vespo` has its own weight of a response's ratio: the logarithms of the token weights are
/// added to it, as in TRL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Correction {
    /// No correction: the sampler is the behaviour policy.
    #[default]
    None,
    /// Each token's ratio, truncated.
    TruncateToken,
    /// The whole response's ratio, truncated.
    TruncateSequence,
    /// The geometric mean of the response's ratios, truncated.
    TruncateGeometric,
    /// Each token's ratio; tokens out of bounds are rejected.
    MaskToken,
    /// The whole response's ratio; responses out of bounds are rejected.
    MaskSequence,
    /// The geometric mean of the response's ratios; responses out of bounds are rejected.
    MaskGeometric,
    /// Each token's ratio within bounds, zero beyond them.
    Icepop,
    /// Zero for bad responses that the policy has drifted away from.
    OffPolicySequence,
}

/// Level at which a correction computes its ratio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Token,
    Sequence,
    Geometric,
}

impl Correction {
    /// Whether the correction may reject tokens.
    pub(super) fn rejects(self) -> bool {
        matches!(self, Self::MaskToken | Self::MaskSequence | Self::MaskGeometric)
    }

    /// Default values of `correction_min` and `correction_max`.
    pub(super) fn default_bounds(self) -> [f64; 2] {
        match self {
            Self::Icepop => [0.5, 5.0],
            Self::OffPolicySequence => [0.0, 0.5],
            _ => [0.0, 2.0],
        }
    }

    fn level(self) -> Level {
        match self {
            Self::TruncateSequence | Self::MaskSequence => Level::Sequence,
            Self::TruncateGeometric | Self::MaskGeometric => Level::Geometric,
            _ => Level::Token,
        }
    }

    /// Weight of each token of a response, NaN for rejected tokens.
    pub(super) fn weights(self, bounds: [f64; 2], behaviour: &[f64], rollout: &[f64], out: &mut [f64]) {
        let whole = match self.level() {
            Level::Token => {
                for_each_ratio(behaviour, rollout, |token, _, (ratio, _)| out[token] = self.bounded(bounds, ratio));
                return;
            }
            Level::Sequence => sum_of_differences(behaviour, rollout),
            Level::Geometric => sum_of_differences(behaviour, rollout) / behaviour.len() as f64,
        };
        out.fill(self.bounded(bounds, exponential(whole).0));
    }

    fn bounded(self, [least, most]: [f64; 2], weight: f64) -> f64 {
        let within = least <= weight && weight <= most;
        match self {
            Self::None | Self::OffPolicySequence => 1.0,
            Self::TruncateToken | Self::TruncateSequence | Self::TruncateGeometric => weight.min(most).max(least),
            _ if within => weight,
            Self::Icepop => 0.0,
            _ => f64::NAN,
        }
    }
}

/// Whether the policy has drifted too far from a response's sampler to learn from a negative advantage (DeepSeek-V3.2).
pub(super) fn is_stale(most: f64, log_prob: &[f64], rollout: &[f64]) -> bool {
    sum_of_differences(rollout, log_prob) / log_prob.len() as f64 > most
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(correction: Correction, bounds: [f64; 2], log_ratios: &[f64]) -> Vec<f64> {
        let rollout: Vec<_> = log_ratios.iter().map(|ratio| -3.0 - ratio).collect();
        let mut out = vec![0.0; rollout.len()];
        correction.weights(bounds, &vec![-3.0; rollout.len()], &rollout, &mut out);
        out
    }

    fn close(ours: &[f64], theirs: &[f64]) {
        for (own, other) in ours.iter().zip(theirs) {
            assert!((own - other).abs() <= 1e-14 || (own.is_nan() && other.is_nan()), "{ours:?}, {theirs:?}");
        }
    }

    #[test]
    fn weights_are_those_computed_by_hand() {
        let (two, half) = (2.0_f64.ln(), 0.5_f64.ln());
        let ratios = [two, two, half];
        close(&weights(Correction::TruncateToken, [0.75, 1.5], &ratios), &[1.5, 1.5, 0.75]);
        close(&weights(Correction::TruncateSequence, [0.0, 1.5], &ratios), &[1.5; 3]);
        close(&weights(Correction::TruncateSequence, [0.0, 3.0], &ratios), &[2.0; 3]);
        close(&weights(Correction::TruncateGeometric, [0.0, 3.0], &ratios), &[2.0_f64.cbrt(); 3]);
        close(&weights(Correction::MaskToken, [0.0, 1.5], &ratios), &[f64::NAN, f64::NAN, 0.5]);
        close(&weights(Correction::MaskSequence, [0.0, 1.5], &ratios), &[f64::NAN; 3]);
        close(&weights(Correction::MaskGeometric, [0.0, 1.5], &ratios), &[2.0_f64.cbrt(); 3]);
        close(&weights(Correction::Icepop, [0.75, 3.0], &ratios), &[2.0, 2.0, 0.0]);
    }

    #[test]
    fn a_response_is_stale_where_its_sampler_made_it_likelier_than_the_policy_does() {
        let (log_prob, rollout) = ([-2.0, -3.0], [-1.0, -3.0]);
        assert!(is_stale(0.4, &log_prob, &rollout));
        assert!(!is_stale(0.6, &log_prob, &rollout));
        assert!(!is_stale(0.4, &rollout, &log_prob));
    }
}
