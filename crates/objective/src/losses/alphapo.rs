//! AlphaPO, a SimPO with a shaped reward.

use crate::losses::dpo::smoothed;
use crate::losses::implement;
use crate::losses::preference::{PairGradient, PairLoss, Reduction, Score, Scores};
use crate::numerics::box_cox;
use crate::objective;
use crate::parameter::{NON_NEGATIVE, SCALE, interval};

objective! {
    /// AlphaPO: SimPO with a reward whose shape a parameter bends.
    ///
    /// SimPO's reward is a log-probability, which falls without end as a response becomes improbable: often both
    /// responses of a pair do. A positive α makes an improbable response pull harder and so bends the reward against
    /// that fall; a negative α does the opposite.
    ///
    /// # Formula
    ///
    /// With m the mean of log π over a response's tokens, nats, p̄ = eᵐ, γ the target margin and ε the label smoothing,
    /// mean over the step's pairs:
    ///
    /// L = −(1 − ε) log σ(z) − ε log σ(−z), z = β (u_w − u_l) − γ, u = (1 − p̄^(−α)) / α
    ///
    /// α → 0 is SimPO, u = m; it is what α = 0 computes. Cotangent: ± β (ε − σ(−z)) p̄^(−α).
    ///
    /// # Source
    ///
    /// A. Gupta et al., "AlphaPO: Reward Shape Matters for LLM Alignment", arXiv 2501.03884; defaults from its Table 3
    /// (Mistral-Instruct).
    ///
    /// # Departures
    ///
    /// Powers of more than 100 nats continue along their tangent, so that rewards stay finite (TRL overflows). The
    /// reported rewards are SimPO's β m: one metric means one quantity.
    ///
    /// # Examples
    ///
    /// α = 1, β = 1, γ = 0, m_w = 0, m_l = −ln 2: u_w = 0, u_l = −1, L = log(1 + e⁻¹) = 0.313262, and the rejected
    /// response, with p̄ = ½, gets twice the pull σ(−1) = 0.268941.
    ///
    /// ```
    /// use objective::{AlphaPo, Pairs, Side};
    ///
    /// let mut alphapo = AlphaPo { beta: 1.0, alpha: 1.0, target_margin: 0.0, ..AlphaPo::default() }.evaluator()?;
    /// let answer = alphapo.evaluate(&Pairs {
    ///     chosen: Side { log_prob: &[0.0], ..Side::of(&[1]) },
    ///     rejected: Side { log_prob: &[0.5_f64.ln()], ..Side::of(&[1]) },
    /// })?;
    /// assert!((answer.loss - 0.313262).abs() < 1e-6);
    /// assert!((answer.cotangents.rejected.log_prob[0] - 2.0 * 0.268941).abs() < 1e-6);
    /// Ok::<(), objective::Error>(())
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct AlphaPo = "alphapo", "SimPO with a reward whose shape alpha bends", "arXiv 2501.03884" {
        /// Scale of the reward, per unit of reward.
        beta: f64 [SCALE] = 2.5,
        /// Shape of the reward: 0 is SimPO's log-probability.
        alpha: f64 [interval(-10.0, 10.0)] = 0.25,
        /// Margin between the rewards that a pair should have (gamma in its paper).
        target_margin: f64 [NON_NEGATIVE] = 0.1,
        label_smoothing;
    }
}

implement!(AlphaPo, preference, Pairs);

impl AlphaPo {
    /// Reward of a mean log-probability, and its slope.
    fn reward(&self, mean: f64) -> (f64, f64) {
        if self.alpha == 0.0 { (mean, 1.0) } else { box_cox(-self.alpha, mean) }
    }
}

impl PairLoss for AlphaPo {
    fn beta(&self) -> f64 {
        self.beta
    }

    fn score(&self) -> Score {
        Score::Likelihood(Reduction::Mean)
    }

    fn pair(&self, scores: &Scores) -> PairGradient {
        let ((chosen, chosen_slope), (rejected, rejected_slope)) =
            (self.reward(scores.chosen), self.reward(scores.rejected));
        let margin = self.beta * (chosen - rejected) - self.target_margin;
        let (loss, slope) = smoothed(self.label_smoothing, margin);
        let slope = self.beta * slope;
        PairGradient { loss, chosen: slope * chosen_slope, rejected: -slope * rejected_slope }
    }
}
