//! Noise contrastive alignment on pairs.

use crate::losses::implement;
use crate::losses::preference::{PairGradient, PairLoss, PairWeighting, Scores};
use crate::numerics::{sigmoid, softplus};
use crate::objective;

objective! {
    /// Noise contrastive alignment on pairs.
    ///
    /// Each response is distinguished from noise that the reference generates. DPO lowers the chosen response too, if
    /// that widens the margin; here each reward has an optimum of its own, so that the likelihood of good responses
    /// does not fall.
    ///
    /// # Formula
    ///
    /// With a = β s_w and b = β s_l the implicit rewards, mean over the step's pairs:
    ///
    /// L = −log σ(a) − ½ log σ(−a) − ½ log σ(−b)
    ///
    /// Cotangent: ∂L/∂a = −σ(−a) + ½ σ(a), ∂L/∂b = ½ σ(b).
    ///
    /// # Source
    ///
    /// H. Chen et al., "Noise Contrastive Alignment of Language Models with Explicit Rewards", arXiv 2402.05369, for
    /// two responses of which one has all the reward; as TRL's `nca_pair`.
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
    /// use objective::{NcaPair, Pairs, Side};
    ///
    /// let mut nca = NcaPair { beta: 1.0, ..NcaPair::default() }.evaluator()?;
    /// let side = Side { log_prob: &[-1.0], reference_log_prob: &[-1.0], ..Side::of(&[1]) };
    /// let answer = nca.evaluate(&Pairs { chosen: side, rejected: side })?;
    /// assert_eq!((answer.loss, answer.cotangents.chosen.log_prob[0]), (2.0 * 2.0_f64.ln(), -0.25));
    /// assert_eq!(answer.cotangents.rejected.log_prob[0], 0.25);
    /// Ok::<(), objective::Error>(())
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct NcaPair = "nca_pair", "each response classified against noise: rewards are absolute",
        "arXiv 2402.05369"
    {
        beta;
        weighting;
    }
}

implement!(NcaPair, preference, Pairs);

impl PairLoss for NcaPair {
    fn beta(&self) -> f64 {
        self.beta
    }

    fn weighting(&self) -> PairWeighting {
        self.weighting
    }

    fn pair(&self, scores: &Scores) -> PairGradient {
        let (a, b) = (self.beta * scores.chosen, self.beta * scores.rejected);
        PairGradient {
            loss: softplus(-a) + 0.5 * softplus(a) + 0.5 * softplus(b),
            chosen: self.beta * (0.5 * sigmoid(a) - sigmoid(-a)),
            rejected: self.beta * 0.5 * sigmoid(b),
        }
    }
}
