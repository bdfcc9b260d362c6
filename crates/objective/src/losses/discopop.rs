//! Discovered preference optimisation.

use crate::losses::implement;
use crate::losses::preference::{MarginLoss, Reduction, implicit_score};
use crate::numerics::{sigmoid, softplus};
use crate::objective;
use crate::parameter::interval;

objective! {
    /// DiscoPOP: a blend of the logistic and the exponential loss that a language model discovered.
    ///
    /// Pairs that the policy ranks wrongly have DPO's logistic loss, those that it ranks rightly an exponential one, and τ is
    /// the width of the change between them. It was found by asking a language model for losses and training with each.
    ///
    /// # Formula
    ///
    /// With z = β (s_w − s_l) and the blend m = σ(z/τ), mean over the step's pairs:
    ///
    /// L = (1 − m) log(1 + e⁻ᶻ) + m e⁻ᶻ
    ///
    /// Cotangent: ∂L/∂z = −(1 − m) σ(−z) − m e⁻ᶻ + m (1 − m) (e⁻ᶻ − log(1 + e⁻ᶻ)) / τ.
    ///
    /// # Source
    ///
    /// C. Lu et al., "Discovering Preference Optimization Algorithms with and for Large Language Models", arXiv 2406.08414,
    /// equation 5 (log-ratio modulated loss), τ = 0.05.
    ///
    /// # Departures
    ///
    /// e⁻ᶻ and m are multiplied as exponents, so that the loss is finite where e⁻ᶻ alone overflows; τ above 1 is refused,
    /// because the loss would then grow exponentially for wrong pairs.
    ///
    /// # Examples
    ///
    /// z = 0, τ = ½: m = ½, L = ½ ln 2 + ½ = 0.846574, ∂L/∂z = −¾ + ½ (1 − ln 2) = −0.596574.
    ///
    /// ```
    /// use objective::{Discopop, Pairs, Side};
    ///
    /// let mut discopop = Discopop { beta: 1.0, tau: 0.5, ..Discopop::default() }.evaluator()?;
    /// let side = Side { log_prob: &[-1.0], reference_log_prob: &[-1.0], ..Side::of(&[1]) };
    /// let answer = discopop.evaluate(&Pairs { chosen: side, rejected: side })?;
    /// assert!((answer.loss - 0.846574).abs() < 1e-6);
    /// assert!((answer.cotangents.chosen.log_prob[0] + 0.596574).abs() < 1e-6);
    /// Ok::<(), objective::Error>(())
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct Discopop = "discopop", "a discovered blend of logistic and exponential loss", "arXiv 2406.08414, equation 5" {
        beta;
        /// Margin over which the blend turns from logistic to exponential.
        tau: f64 [interval(1e-9, 1.0)] = 0.05,
        divergence;
        tail_weight;
        weighting;
    }
}

implement!(Discopop, preference, Pairs);

impl MarginLoss for Discopop {
    implicit_score!(own: own.tail_weight, Reduction::Sum);

    fn margin(&self, z: f64) -> (f64, f64) {
        let (blend, rest) = (sigmoid(z / self.tau), sigmoid(-z / self.tau));
        let exponential = (-z - softplus(-z / self.tau)).exp();
        let logistic = softplus(-z);
        let turning = rest * (exponential - blend * logistic) / self.tau;
        (rest * logistic + exponential, turning - rest * sigmoid(-z) - exponential)
    }
}
