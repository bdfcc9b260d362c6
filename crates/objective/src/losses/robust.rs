//! Robust direct preference optimisation.

use std::ops::Bound;

use crate::losses::implement;
use crate::losses::preference::{MarginLoss, Reduction, implicit_score};
use crate::numerics::{sigmoid, softplus};
use crate::objective;

objective! {
    /// Robust DPO: an unbiased estimate of DPO's loss under flipped preferences.
    ///
    /// Where annotators err at a known rate, DPO learns some pairs the wrong way round. The loss subtracts what the
    /// flipped pairs add in expectation, so that its mean over noisy pairs is DPO's over clean ones. Every pair pulls
    /// harder for it, and a well-ranked pair never stops to pull.
    ///
    /// # Formula
    ///
    /// With z = β (s_w − s_l) the margin of implicit rewards and ε < 1/2 the rate of flipped pairs, mean over the
    /// step's pairs:
    ///
    /// L = (−(1 − ε) log σ(z) + ε log σ(−z)) / (1 − 2ε) = −log σ(z) − ε z / (1 − 2ε)
    ///
    /// Cotangent: ∂L/∂z = −σ(−z) − ε / (1 − 2ε).
    ///
    /// # Source
    ///
    /// S. R. Chowdhury, A. Kini and N. Natarajan, "Provably Robust DPO: Aligning Language Models with Noisy Feedback",
    /// arXiv 2403.00409, equation 12.
    ///
    /// # Departures
    ///
    /// None in value; the second form neither overflows nor cancels. The default ε = 0.1 is not the paper's: with 0 the
    /// loss is DPO's.
    ///
    /// # Examples
    ///
    /// z = 0, ε = 1/4: L = ln 2, ∂L/∂z = −1/2 − 1/2.
    ///
    /// ```
    /// use objective::{Pairs, Robust, Side};
    ///
    /// let mut robust = Robust { beta: 1.0, label_smoothing: 0.25, ..Robust::default() }.evaluator()?;
    /// let side = Side { log_prob: &[-1.0], reference_log_prob: &[-1.0], ..Side::of(&[1]) };
    /// let answer = robust.evaluate(&Pairs { chosen: side, rejected: side })?;
    /// assert_eq!((answer.loss, answer.cotangents.chosen.log_prob[0]), (2.0_f64.ln(), -1.0));
    /// Ok::<(), objective::Error>(())
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct Robust = "robust", "DPO corrected for a known rate of flipped preferences",
        "arXiv 2403.00409, equation 12"
    {
        beta;
        /// Rate of preferences that are the wrong way round.
        label_smoothing: f64 [(Bound::Included(0.0), Bound::Excluded(0.5))] = 0.1,
        divergence;
        tail_weight;
        weighting;
    }
}

implement!(Robust, preference, Pairs);

impl MarginLoss for Robust {
    implicit_score!(own: own.tail_weight, Reduction::Sum);

    fn margin(&self, z: f64) -> (f64, f64) {
        let bias = self.label_smoothing / (1.0 - 2.0 * self.label_smoothing);
        (softplus(-z) - bias * z, -sigmoid(-z) - bias)
    }
}
