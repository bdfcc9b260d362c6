//! Length-normalised direct preference optimisation.

use crate::losses::implement;
use crate::losses::preference::{MarginLoss, Reduction, implicit_score};
use crate::numerics::{sigmoid, softplus};
use crate::objective;

objective! {
    /// Length-normalised DPO: a logistic loss on the difference of mean log-ratios.
    ///
    /// DPO sums over tokens, so a long response has a large margin and its length alone can be learned. Here the
    /// implicit reward is a mean over tokens, and a pair of long responses pulls no harder than one of short ones.
    ///
    /// # Formula
    ///
    /// With s the implicit score divided by the response's length, mean over the step's pairs:
    ///
    /// L = −log σ(β (s_w − s_l))
    ///
    /// Cotangent: ∂L/∂z = −σ(−z) with z = β (s_w − s_l).
    ///
    /// # Source
    ///
    /// R. Rafailov et al., arXiv 2305.18290, equation 7, on scores per token as in Y. Meng et al., arXiv 2405.14734,
    /// section 2.2; as TRL's `sigmoid_norm`.
    ///
    /// # Departures
    ///
    /// From DPO's derivation: the constants of a [`Divergence`](crate::Divergence) do not cancel where the lengths of a
    /// pair differ.
    ///
    /// # Examples
    ///
    /// At the reference z = 0: L = ln 2, and the tokens of a response share its pull.
    ///
    /// ```
    /// use objective::{Pairs, Side, SigmoidNorm};
    ///
    /// let mut normalised = SigmoidNorm { beta: 1.0, ..SigmoidNorm::default() }.evaluator()?;
    /// let answer = normalised.evaluate(&Pairs {
    ///     chosen: Side { log_prob: &[-1.0, -1.0], reference_log_prob: &[-1.0, -1.0], ..Side::of(&[2]) },
    ///     rejected: Side { log_prob: &[-1.0], reference_log_prob: &[-1.0], ..Side::of(&[1]) },
    /// })?;
    /// assert_eq!(answer.loss, 2.0_f64.ln());
    /// assert_eq!(answer.cotangents.chosen.log_prob, [-0.25, -0.25]);
    /// assert_eq!(answer.cotangents.rejected.log_prob, [0.5]);
    /// Ok::<(), objective::Error>(())
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct SigmoidNorm = "sigmoid_norm", "DPO on implicit rewards per token",
        "arXiv 2305.18290, equation 7, per token"
    {
        beta;
        divergence;
        weighting;
    }
}

implement!(SigmoidNorm, preference, Pairs);

impl MarginLoss for SigmoidNorm {
    implicit_score!(own: 1.0, Reduction::Mean);

    fn margin(&self, z: f64) -> (f64, f64) {
        (softplus(-z), -sigmoid(-z))
    }
}
