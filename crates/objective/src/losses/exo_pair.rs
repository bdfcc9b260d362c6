//! Efficient exact optimisation on pairs.

use crate::losses::implement;
use crate::losses::preference::{MarginLoss, Reduction, implicit_score};
use crate::numerics::{sigmoid, softplus};
use crate::objective;
use crate::parameter::interval;

objective! {
    /// EXO on pairs: the reverse KL from the policy's preference to the smoothed label.
    ///
    /// The margin says how probable the policy makes it that the chosen response is the better one. DPO covers the label's
    /// distribution with that preference; EXO seeks its mode, as reinforcement learning does. A pair that is far the wrong way
    /// round no longer pulls, for the loss is at most −log ε.
    ///
    /// # Formula
    ///
    /// With z = β (s_w − s_l), q = σ(z) the policy's preference and 1 − ε the label's, mean over the step's pairs:
    ///
    /// L = q (log q − log(1 − ε)) + (1 − q) (log(1 − q) − log ε)
    ///
    /// Cotangent: ∂L/∂z = q (1 − q) (z − log((1 − ε)/ε)).
    ///
    /// # Source
    ///
    /// H. Ji et al., "Towards Efficient Exact Optimization of Language Model Alignment", arXiv 2402.00856, equation 16.
    ///
    /// # Departures
    ///
    /// None. The default ε = 10⁻³ is the one that TRL recommends; 0 would make the loss infinite and is refused.
    ///
    /// # Examples
    ///
    /// z = 0, ε = 1/4: q = 1/2, L = −½ ln(3/16) − ln 2 = 0.143841, ∂L/∂z = −¼ ln 3.
    ///
    /// ```
    /// use objective::{ExoPair, Pairs, Side};
    ///
    /// let mut exo = ExoPair { beta: 1.0, label_smoothing: 0.25, ..ExoPair::default() }.evaluator()?;
    /// let side = Side { log_prob: &[-1.0], reference_log_prob: &[-1.0], ..Side::of(&[1]) };
    /// let answer = exo.evaluate(&Pairs { chosen: side, rejected: side })?;
    /// assert!((answer.loss - 0.143841).abs() < 1e-6);
    /// assert!((answer.cotangents.chosen.log_prob[0] + 0.25 * 3.0_f64.ln()).abs() < 1e-12);
    /// Ok::<(), objective::Error>(())
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct ExoPair = "exo_pair", "reverse KL from the policy's preference to a smoothed label",
        "arXiv 2402.00856, equation 16"
    {
        beta;
        /// Probability that a preference is the wrong way round.
        label_smoothing: f64 [interval(1e-9, 0.5)] = 1e-3,
        divergence;
        tail_weight;
        weighting;
    }
}

implement!(ExoPair, preference, Pairs);

impl MarginLoss for ExoPair {
    implicit_score!(own: own.tail_weight, Reduction::Sum);

    fn margin(&self, z: f64) -> (f64, f64) {
        let (right, wrong) = (sigmoid(z), sigmoid(-z));
        let (log_right, log_wrong) = ((-self.label_smoothing).ln_1p(), self.label_smoothing.ln());
        let loss = right * (-softplus(-z) - log_right) + wrong * (-softplus(z) - log_wrong);
        (loss, right * wrong * (z - log_right + log_wrong))
    }
}
