//! Hinge loss on pairs.

use crate::losses::implement;
use crate::losses::preference::{MarginLoss, Reduction, implicit_score};
use crate::objective;

objective! {
    /// Hinge loss on the margin of implicit rewards.
    ///
    /// A pair pulls with constant strength until the chosen response is ahead by a margin of 1, and then not at all. DPO never
    /// stops to pull, however well a pair is ranked; the hinge leaves alone what is learned.
    ///
    /// # Formula
    ///
    /// With s_w and s_l the implicit scores of the chosen and the rejected response and β their scale, mean over the step's
    /// pairs:
    ///
    /// L = max(0, 1 − β (s_w − s_l))
    ///
    /// Cotangent: −β on s_w and +β on s_l where the margin is below 1, else 0.
    ///
    /// # Source
    ///
    /// Y. Zhao et al., "SLiC-HF: Sequence Likelihood Calibration with Human Feedback", arXiv 2305.10425, with DPO's implicit
    /// reward as the score, as in T. Liu et al., arXiv 2309.06657, section 3.
    ///
    /// # Departures
    ///
    /// None.
    ///
    /// # Examples
    ///
    /// s_w − s_l = 1, β = 0.5: L = 1 − 0.5.
    ///
    /// ```
    /// use objective::{Hinge, Pairs, Side};
    ///
    /// let mut hinge = Hinge { beta: 0.5, ..Hinge::default() }.evaluator()?;
    /// let answer = hinge.evaluate(&Pairs {
    ///     chosen: Side { log_prob: &[-1.0], reference_log_prob: &[-2.0], ..Side::of(&[1]) },
    ///     rejected: Side { log_prob: &[-1.0], reference_log_prob: &[-1.0], ..Side::of(&[1]) },
    /// })?;
    /// assert_eq!((answer.loss, answer.cotangents.chosen.log_prob[0]), (0.5, -0.5));
    /// Ok::<(), objective::Error>(())
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct Hinge = "hinge", "hinge loss on the margin of implicit rewards",
        "arXiv 2305.10425; arXiv 2309.06657, section 3"
    {
        beta;
        divergence;
        tail_weight;
        weighting;
    }
}

implement!(Hinge, preference, Pairs);

impl MarginLoss for Hinge {
    implicit_score!(own: own.tail_weight, Reduction::Sum);

    fn margin(&self, z: f64) -> (f64, f64) {
        ((1.0 - z).max(0.0), if z < 1.0 { -1.0 } else { 0.0 })
    }
}
