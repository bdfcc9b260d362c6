//! Anchored preference optimisation.

use crate::losses::implement;
use crate::losses::preference::{PairGradient, PairLoss, PairWeighting, Scores};
use crate::numerics::sigmoid;
use crate::objective;

objective! {
    /// Anchored preference optimisation: the chosen response up, the rejected one down.
    ///
    /// DPO fixes only the difference of two rewards, so both responses may fall together. Here each is anchored at the
    /// reference by itself, with a bounded pull: the chosen one rises and the rejected one falls. It suits chosen responses
    /// that are better than the policy's own.
    ///
    /// # Formula
    ///
    /// With a = β s_w and b = β s_l the implicit rewards, mean over the step's pairs:
    ///
    /// L = 1 − σ(a) + σ(b)
    ///
    /// Cotangent: ∂L/∂a = −σ(a) σ(−a), ∂L/∂b = σ(b) σ(−b).
    ///
    /// # Source
    ///
    /// K. D'Oosterlinck et al., "Anchored Preference Optimization and Contrastive Revisions", arXiv 2408.06266, equation 7.
    ///
    /// # Departures
    ///
    /// None.
    ///
    /// # Examples
    ///
    /// At the reference, a = b = 0: L = 1.
    ///
    /// ```
    /// use objective::{ApoZero, Pairs, Side};
    ///
    /// let mut apo = ApoZero { beta: 1.0, ..ApoZero::default() }.evaluator()?;
    /// let side = Side { log_prob: &[-1.0], reference_log_prob: &[-1.0], ..Side::of(&[1]) };
    /// let answer = apo.evaluate(&Pairs { chosen: side, rejected: side })?;
    /// assert_eq!((answer.loss, answer.cotangents.chosen.log_prob[0]), (1.0, -0.25));
    /// assert_eq!(answer.cotangents.rejected.log_prob[0], 0.25);
    /// Ok::<(), objective::Error>(())
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct ApoZero = "apo_zero", "chosen raised and rejected lowered, each by itself", "arXiv 2408.06266, equation 7" {
        beta;
        weighting;
    }
}

implement!(ApoZero, preference, Pairs);

impl PairLoss for ApoZero {
    fn beta(&self) -> f64 {
        self.beta
    }

    fn weighting(&self) -> PairWeighting {
        self.weighting
    }

    fn pair(&self, scores: &Scores) -> PairGradient {
        let (a, b) = (self.beta * scores.chosen, self.beta * scores.rejected);
        PairGradient {
            loss: sigmoid(-a) + sigmoid(b),
            chosen: -self.beta * sigmoid(a) * sigmoid(-a),
            rejected: self.beta * sigmoid(b) * sigmoid(-b),
        }
    }
}
