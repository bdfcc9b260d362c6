//! Direct preference optimisation.

use crate::losses::implement;
use crate::losses::preference::{MarginLoss, Reduction, implicit_score};
use crate::numerics::{sigmoid, softplus};
use crate::objective;

objective! {
    /// Direct preference optimisation: a logistic loss on the difference of implicit rewards.
    ///
    /// Supervised fine-tuning says what to imitate, but not what to avoid. DPO takes pairs of responses to the same
    /// prompt and raises the chosen one against the rejected one, both measured against a frozen copy of the policy. A
    /// pair that the policy ranks wrongly pulls with full strength, and one that it ranks rightly by a wide margin
    /// hardly pulls. Its advantage is that it replaces a reward model and reinforcement learning by one classification
    /// loss.
    ///
    /// # Formula
    ///
    /// With r = Σₜ (log π(yₜ|sₜ) − log π_ref(yₜ|sₜ)), nats, summed over a response, w the chosen and l the rejected
    /// one, h = r_w − r_l, ε the label smoothing, mean over the step's pairs:
    ///
    /// L = −(1 − ε) log σ(βh) − ε log σ(−βh)
    ///
    /// Cotangent: ∂L/∂h = β (ε − σ(−βh)), with sign + for each chosen and − for each rejected token.
    ///
    /// # Source
    ///
    /// R. Rafailov et al., "Direct Preference Optimization", arXiv 2305.18290, equation 7; label smoothing: E.
    /// Mitchell, "A note on DPO with noisy preferences" (cDPO), 2023.
    ///
    /// # Departures
    ///
    /// `divergence` and `tail_weight` generalise r; their defaults give the paper's. The loss is computed as
    /// log(1 + e^(−βh)) + ε βh, which is exactly ln 2 where the policy is its own reference, and neither overflows nor
    /// cancels where it is far away.
    ///
    /// # Examples
    ///
    /// r_w = 2, r_l = −1, β = 0.1: h = 3, L = log(1 + e^−0.3) = 0.554355, ∂L/∂h = −0.1 / (1 + e^0.3) = −0.0425557.
    ///
    /// ```
    /// use objective::{Dpo, Pairs, Side};
    ///
    /// let mut dpo = Dpo::default().evaluator()?;
    /// let answer = dpo.evaluate(&Pairs {
    ///     chosen: Side { log_prob: &[-1.0], reference_log_prob: &[-3.0], ..Side::of(&[1]) },
    ///     rejected: Side { log_prob: &[-2.0], reference_log_prob: &[-1.0], ..Side::of(&[1]) },
    /// })?;
    /// assert!((answer.loss - 0.554355).abs() < 1e-6);
    /// assert!((answer.cotangents.chosen.log_prob[0] + 0.0425557).abs() < 1e-7);
    /// Ok::<(), objective::Error>(())
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct Dpo = "dpo", "direct preference optimisation against a frozen reference",
        "arXiv 2305.18290, equation 7; cDPO for label smoothing"
    {
        beta;
        label_smoothing;
        divergence;
        tail_weight;
        weighting;
    }
}

implement!(Dpo, preference, Pairs);

impl MarginLoss for Dpo {
    implicit_score!(own: own.tail_weight, Reduction::Sum);

    fn margin(&self, z: f64) -> (f64, f64) {
        smoothed(self.label_smoothing, z)
    }
}

/// The smoothed logistic loss −(1 − ε) log σ(z) − ε log σ(−z), and its slope.
pub(crate) fn smoothed(label_smoothing: f64, z: f64) -> (f64, f64) {
    (softplus(-z) + label_smoothing * z, label_smoothing - sigmoid(-z))
}
