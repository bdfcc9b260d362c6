//! Self-play preference optimisation.

use crate::losses::implement;
use crate::losses::preference::{PairGradient, PairLoss, PairWeighting, Scores};
use crate::objective;
use crate::parameter::SCALE;

objective! {
    /// Self-play preference optimisation with certain preferences.
    ///
    /// The log-ratio of a response is regressed on how often it wins: the winner's on +1/(2β) and the loser's on
    /// −1/(2β). The two targets are absolute, so the winner cannot fall with the loser, and a policy that reaches them
    /// stops.
    ///
    /// # Formula
    ///
    /// With s = log π − log π_ref summed over a response, mean over the step's pairs:
    ///
    /// L = (s_w − 1/(2β))² + (s_l + 1/(2β))²
    ///
    /// Cotangent: 2 (s_w − 1/(2β)) on s_w, 2 (s_l + 1/(2β)) on s_l.
    ///
    /// # Source
    ///
    /// Y. Wu et al., "Self-Play Preference Optimization for Language Model Alignment", arXiv 2405.00675, equation 4.7
    /// with the winner's probability 1; 1/β is the paper's η, 10³.
    ///
    /// # Departures
    ///
    /// None.
    ///
    /// # Examples
    ///
    /// β = ½: the targets are ±1, and both scores are ½ away.
    ///
    /// ```
    /// use objective::{Pairs, Side, SppoHard};
    ///
    /// let mut sppo = SppoHard { beta: 0.5, ..SppoHard::default() }.evaluator()?;
    /// let answer = sppo.evaluate(&Pairs {
    ///     chosen: Side { log_prob: &[-1.0], reference_log_prob: &[-1.5], ..Side::of(&[1]) },
    ///     rejected: Side { log_prob: &[-1.5], reference_log_prob: &[-1.0], ..Side::of(&[1]) },
    /// })?;
    /// assert_eq!((answer.loss, answer.cotangents.chosen.log_prob[0]), (0.5, -1.0));
    /// assert_eq!(answer.cotangents.rejected.log_prob[0], 1.0);
    /// Ok::<(), objective::Error>(())
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct SppoHard = "sppo_hard", "log-ratios regressed on plus and minus 1/(2 beta)", "arXiv 2405.00675, equation 4.7" {
        /// The log-ratios' targets are plus and minus 1/(2 beta) nats.
        beta: f64 [SCALE] = 1e-3,
        weighting;
    }
}

implement!(SppoHard, preference, Pairs);

impl PairLoss for SppoHard {
    fn beta(&self) -> f64 {
        self.beta
    }

    fn weighting(&self) -> PairWeighting {
        self.weighting
    }

    fn pair(&self, scores: &Scores) -> PairGradient {
        let target = 0.5 / self.beta;
        let (chosen, rejected) = (scores.chosen - target, scores.rejected + target);
        PairGradient { loss: chosen * chosen + rejected * rejected, chosen: 2.0 * chosen, rejected: 2.0 * rejected }
    }
}
