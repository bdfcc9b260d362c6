//! Binary classifier optimisation on pairs.

use crate::losses::implement;
use crate::losses::preference::{PairGradient, PairLoss, PairWeighting, Scores};
use crate::numerics::{sigmoid, softplus};
use crate::objective;

objective! {
    /// Binary classifier optimisation on pairs, without a shift of the rewards.
    ///
    /// Each response is classified by itself: the chosen one as good and the rejected one as bad, with the implicit reward as
    /// the logit. A pair is therefore not done when the chosen response is ahead, but when each is on its side of the
    /// reference.
    ///
    /// # Formula
    ///
    /// With a = β s_w and b = β s_l the implicit rewards, mean over the step's pairs:
    ///
    /// L = −log σ(a) − log σ(−b)
    ///
    /// Cotangent: ∂L/∂a = −σ(−a), ∂L/∂b = σ(b).
    ///
    /// # Source
    ///
    /// S. Jung et al., "Binary Classifier Optimization for Large Language Model Alignment", arXiv 2404.04656, with its reward
    /// shift at 0; as TRL's `bco_pair`.
    ///
    /// # Departures
    ///
    /// None.
    ///
    /// # Examples
    ///
    /// At the reference, a = b = 0: L = 2 ln 2.
    ///
    /// ```
    /// use objective::{BcoPair, Pairs, Side};
    ///
    /// let mut bco = BcoPair { beta: 1.0, ..BcoPair::default() }.evaluator()?;
    /// let side = Side { log_prob: &[-1.0], reference_log_prob: &[-1.0], ..Side::of(&[1]) };
    /// let answer = bco.evaluate(&Pairs { chosen: side, rejected: side })?;
    /// assert_eq!((answer.loss, answer.cotangents.chosen.log_prob[0]), (2.0 * 2.0_f64.ln(), -0.5));
    /// assert_eq!(answer.cotangents.rejected.log_prob[0], 0.5);
    /// Ok::<(), objective::Error>(())
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct BcoPair = "bco_pair", "chosen classified as desirable, rejected as undesirable", "arXiv 2404.04656" {
        beta;
        weighting;
    }
}

implement!(BcoPair, preference, Pairs);

impl PairLoss for BcoPair {
    fn beta(&self) -> f64 {
        self.beta
    }

    fn weighting(&self) -> PairWeighting {
        self.weighting
    }

    fn pair(&self, scores: &Scores) -> PairGradient {
        let (a, b) = (self.beta * scores.chosen, self.beta * scores.rejected);
        PairGradient {
            loss: softplus(-a) + softplus(b),
            chosen: -self.beta * sigmoid(-a),
            rejected: self.beta * sigmoid(b),
        }
    }
}
