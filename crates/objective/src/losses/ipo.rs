//! Identity preference optimisation.

use crate::losses::implement;
use crate::losses::preference::{MarginLoss, Reduction, implicit_score};
use crate::objective;
use crate::parameter::SCALE;

objective! {
    /// Identity preference optimisation: a squared loss on the margin of log-ratios.
    ///
    /// DPO can raise a margin without end where all annotators agree, so the policy forgets its reference. IPO gives the
    /// margin a target, 1/(2β) nats, and pulls back a pair that is beyond it.
    ///
    /// # Formula
    ///
    /// With s the log-ratio to the reference (a mean over the response's tokens, or their sum), mean over the step's pairs:
    ///
    /// L = (s_w − s_l − 1/(2β))²
    ///
    /// Cotangent: ±2 (s_w − s_l − 1/(2β)).
    ///
    /// # Source
    ///
    /// M. G. Azar et al., "A General Theoretical Paradigm to Understand Learning from Human Preferences", arXiv 2310.12036,
    /// equation 17; β is the paper's τ.
    ///
    /// # Departures
    ///
    /// The paper does not say over what the log-ratio runs; its authors confirmed the mean over tokens to TRL, which is the
    /// default here too. `normalisation = sum` is the plain reading. The constants of a [`Divergence`](crate::Divergence) do
    /// not cancel under a mean where the lengths of a pair differ.
    ///
    /// # Examples
    ///
    /// β = ½: the target of the margin is 1. Two chosen tokens with log-ratios of 1 nat have a mean of 1 and a sum of 2.
    ///
    /// ```
    /// use objective::{Ipo, Pairs, Reduction, Side};
    ///
    /// let pair = Pairs {
    ///     chosen: Side { log_prob: &[-1.0, -1.0], reference_log_prob: &[-2.0, -2.0], ..Side::of(&[2]) },
    ///     rejected: Side { log_prob: &[-1.0], reference_log_prob: &[-1.0], ..Side::of(&[1]) },
    /// };
    /// for (normalisation, loss, slope) in [(Reduction::Mean, 0.0, 0.0), (Reduction::Sum, 1.0, 2.0)] {
    ///     let mut ipo = Ipo { beta: 0.5, normalisation, ..Ipo::default() }.evaluator()?;
    ///     let answer = ipo.evaluate(&pair)?;
    ///     assert_eq!((answer.loss, answer.cotangents.chosen.log_prob[0]), (loss, slope));
    /// }
    /// Ok::<(), objective::Error>(())
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct Ipo = "ipo", "squared loss on the distance of the margin from 1/(2 beta)", "arXiv 2310.12036, equation 17" {
        /// The margin's target is 1/(2 beta) nats (tau in its paper).
        beta: f64 [SCALE] = 0.1,
        /// Whether log-ratios are summed over a response or averaged over its tokens.
        normalisation: Reduction = Reduction::Mean,
        divergence;
        weighting;
    }
}

implement!(Ipo, preference, Pairs);

impl MarginLoss for Ipo {
    implicit_score!(own: 1.0, own.normalisation);

    fn scale(&self) -> f64 {
        1.0
    }

    fn margin(&self, z: f64) -> (f64, f64) {
        let excess = z - 0.5 / self.beta;
        (excess * excess, 2.0 * excess)
    }
}
