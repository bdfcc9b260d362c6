//! DPO-Positive.

use crate::losses::implement;
use crate::losses::preference::{PairGradient, PairLoss, Scores};
use crate::numerics::{sigmoid, softplus};
use crate::objective;
use crate::parameter::{NON_NEGATIVE, SCALE};

objective! {
    /// DPO-Positive: DPO with a penalty where the chosen response becomes less probable than under the reference.
    ///
    /// DPO depends only on a difference: both responses of a pair may fall, as long as the rejected one falls further,
    /// and where they differ in a few tokens they often do. DPOP subtracts from the margin whatever the chosen response
    /// has lost against the reference, times a large factor, so that the loss rises until it has been won back.
    ///
    /// # Formula
    ///
    /// With r the log-ratio to the reference, nats, summed over a response, and λ the penalty, mean over the step's
    /// pairs:
    ///
    /// L = −log σ(z), z = β (r_w − r_l − λ max(0, −r_w))
    ///
    /// Cotangent: with g = −β σ(−z), g (1 + λ) on each chosen token where r_w < 0 and g elsewhere; −g on each rejected
    /// token.
    ///
    /// # Source
    ///
    /// A. Pal et al., "Smaug: Fixing Failure Modes of Preference Optimisation with DPO-Positive", arXiv 2402.13228, the
    /// loss named DPOP.
    ///
    /// # Departures
    ///
    /// None. At r_w = 0, where every training begins, the penalty has no slope.
    ///
    /// # Examples
    ///
    /// β = 1, λ = 2, r_w = −1, r_l = −3: z = −1 + 3 − 2 = 0, so L = ln 2, the chosen token gets −½ · 3 and the rejected
    /// one ½.
    ///
    /// ```
    /// use objective::{Dpop, Pairs, Side};
    ///
    /// let mut dpop = Dpop { beta: 1.0, penalty: 2.0 }.evaluator()?;
    /// let answer = dpop.evaluate(&Pairs {
    ///     chosen: Side { log_prob: &[-2.0], reference_log_prob: &[-1.0], ..Side::of(&[1]) },
    ///     rejected: Side { log_prob: &[-4.0], reference_log_prob: &[-1.0], ..Side::of(&[1]) },
    /// })?;
    /// assert_eq!((answer.loss, answer.cotangents.chosen.log_prob[0]), (2.0_f64.ln(), -1.5));
    /// assert_eq!(answer.cotangents.rejected.log_prob[0], 0.5);
    /// Ok::<(), objective::Error>(())
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct Dpop = "dpop", "DPO with a penalty where the chosen response falls below the reference",
        "arXiv 2402.13228"
    {
        /// Scale of the implicit reward beta (log pi - log pi_ref), per nat.
        beta: f64 [SCALE] = 0.3,
        /// Weight of the log-probability that the chosen response has lost relative to the reference (lambda in its
        /// paper).
        penalty: f64 [NON_NEGATIVE] = 50.0,
    }
}

implement!(Dpop, preference, Pairs);

impl PairLoss for Dpop {
    fn beta(&self) -> f64 {
        self.beta
    }

    fn pair(&self, scores: &Scores) -> PairGradient {
        let (lost, raise) = if scores.chosen < 0.0 { (-scores.chosen, 1.0 + self.penalty) } else { (0.0, 1.0) };
        let margin = self.beta * (scores.chosen - scores.rejected - self.penalty * lost);
        let slope = -self.beta * sigmoid(-margin);
        PairGradient { loss: softplus(-margin), chosen: slope * raise, rejected: -slope }
    }
}
