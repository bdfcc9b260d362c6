//! Anchored preference optimisation, downwards.

use crate::losses::implement;
use crate::losses::preference::{PairGradient, PairLoss, PairWeighting, Scores};
use crate::numerics::sigmoid;
use crate::objective;

objective! {
    /// Anchored preference optimisation: both responses down, the rejected one further.
    ///
    /// DPO fixes only the difference of two rewards, so a good response may fall if the bad one falls faster. Where even the
    /// chosen responses are worse than what the policy writes itself, both should fall: this loss lowers the chosen one by
    /// itself, and the rejected one against it.
    ///
    /// # Formula
    ///
    /// With a = β s_w and b = β s_l the implicit rewards, mean over the step's pairs:
    ///
    /// L = σ(a) + 1 − σ(a − b)
    ///
    /// Cotangent: ∂L/∂a = σ(a) σ(−a) − σ(a − b) σ(b − a), ∂L/∂b = σ(a − b) σ(b − a).
    ///
    /// # Source
    ///
    /// K. D'Oosterlinck et al., "Anchored Preference Optimization and Contrastive Revisions", arXiv 2408.06266, equation 8.
    ///
    /// # Departures
    ///
    /// None.
    ///
    /// # Examples
    ///
    /// At the reference, a = b = 0: L = 1, and the two pulls on the chosen response cancel.
    ///
    /// ```
    /// use objective::{ApoDown, Pairs, Side};
    ///
    /// let mut apo = ApoDown { beta: 1.0, ..ApoDown::default() }.evaluator()?;
    /// let side = Side { log_prob: &[-1.0], reference_log_prob: &[-1.0], ..Side::of(&[1]) };
    /// let answer = apo.evaluate(&Pairs { chosen: side, rejected: side })?;
    /// assert_eq!((answer.loss, answer.cotangents.chosen.log_prob[0]), (1.0, 0.0));
    /// assert_eq!(answer.cotangents.rejected.log_prob[0], 0.25);
    /// Ok::<(), objective::Error>(())
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct ApoDown = "apo_down", "both lowered, the rejected more than the chosen", "arXiv 2408.06266, equation 8" {
        beta;
        weighting;
    }
}

implement!(ApoDown, preference, Pairs);

impl PairLoss for ApoDown {
    fn beta(&self) -> f64 {
        self.beta
    }

    fn weighting(&self) -> PairWeighting {
        self.weighting
    }

    fn pair(&self, scores: &Scores) -> PairGradient {
        let (a, margin) = (self.beta * scores.chosen, self.beta * (scores.chosen - scores.rejected));
        let (anchor, contrast) = (sigmoid(a) * sigmoid(-a), sigmoid(margin) * sigmoid(-margin));
        PairGradient {
            loss: sigmoid(a) + sigmoid(-margin),
            chosen: self.beta * (anchor - contrast),
            rejected: self.beta * contrast,
        }
    }
}
