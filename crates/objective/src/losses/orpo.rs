//! Odds-ratio preference optimisation.

use crate::evaluation::{Metric, Metrics};
use crate::losses::implement;
use crate::losses::preference::{PairGradient, PairLoss, Reduction, Score, Scores};
use crate::numerics::{log1mexp, sigmoid, softplus};
use crate::objective;
use crate::parameter::NON_NEGATIVE;

/// Maximum mean log-probability whose odds are computed.
const CERTAINTY: f64 = -f64::EPSILON;

objective! {
    /// Odds-ratio preference optimisation: imitation of the chosen response, and a logistic loss on the ratio of odds.
    ///
    /// Imitating good responses raises similar bad ones with them. ORPO fine-tunes on the chosen response and adds a
    /// small penalty where the rejected one has the greater odds, so that one stage without a reference does the work
    /// of two.
    ///
    /// # Formula
    ///
    /// With m = (1/N) Σₜ log π(yₜ|sₜ), nats, the mean over a response, w the chosen and l the rejected one,
    /// o = m − log(1 − eᵐ) the log-odds, mean over the step's pairs:
    ///
    /// L = −m_w − β log σ(o_w − o_l)
    ///
    /// Cotangent: with g = −β σ(o_l − o_w) and ∂o/∂m = 1 / (1 − eᵐ), each chosen token gets
    /// (−1 + g ∂o/∂m_w) / N_w and each rejected token −g ∂o/∂m_l / N_l.
    ///
    /// # Source
    ///
    /// J. Hong et al., "ORPO: Monolithic Preference Optimization without Reference Model", arXiv 2403.07691, equations
    /// 6 and 7 (there β is written λ).
    ///
    /// # Departures
    ///
    /// Near certainty the odds are infinite. m above −2⁻⁵² counts as −2⁻⁵² in the odds, with no cotangent through them,
    /// so that loss and cotangents are finite wherever log-probabilities are. The implicit reward is β m, as TRL logs
    /// it.
    ///
    /// # Examples
    ///
    /// One token each with probabilities 1/2 and 1/5, β = 0.25: odds 1 and 1/4, so o_w − o_l = ln 4 and
    /// L = ln 2 + 0.25 ln(1 + 1/4) = 0.748933. g = −0.25 / 5 = −0.05, so the cotangents are −1 − 0.05 · 2 = −1.1 and
    /// 0.05 / 0.8 = 0.0625.
    ///
    /// ```
    /// use objective::{Orpo, Pairs, Side};
    ///
    /// let mut orpo = Orpo { beta: 0.25 }.evaluator()?;
    /// let answer = orpo.evaluate(&Pairs {
    ///     chosen: Side { log_prob: &[0.5_f64.ln()], ..Side::of(&[1]) },
    ///     rejected: Side { log_prob: &[0.2_f64.ln()], ..Side::of(&[1]) },
    /// })?;
    /// assert!((answer.loss - 0.748933).abs() < 1e-6);
    /// assert!((answer.cotangents.chosen.log_prob[0] + 1.1).abs() < 1e-12);
    /// assert!((answer.cotangents.rejected.log_prob[0] - 0.0625).abs() < 1e-12);
    /// Ok::<(), objective::Error>(())
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct Orpo = "orpo", "imitation of the chosen response plus an odds-ratio penalty, without a reference",
        "arXiv 2403.07691, equations 6 and 7"
    {
        /// Weight of the odds-ratio term (lambda in its paper).
        beta: f64 [NON_NEGATIVE] = 0.25,
    }
}

implement!(Orpo, preference, Pairs);

/// Log-odds of a mean log-probability, and their slope.
fn odds(mean: f64) -> (f64, f64) {
    let (capped, slope) = if mean > CERTAINTY { (CERTAINTY, 0.0) } else { (mean, -1.0 / mean.exp_m1()) };
    (capped - log1mexp(capped), slope)
}

impl PairLoss for Orpo {
    fn beta(&self) -> f64 {
        self.beta
    }

    fn score(&self) -> Score {
        Score::Likelihood(Reduction::Mean)
    }

    fn pair(&self, scores: &Scores) -> PairGradient {
        let ((chosen, chosen_slope), (rejected, rejected_slope)) = (odds(scores.chosen), odds(scores.rejected));
        let ratio = chosen - rejected;
        let pull = -self.beta * sigmoid(-ratio);
        PairGradient {
            loss: self.beta * softplus(-ratio) - scores.chosen,
            chosen: pull * chosen_slope - 1.0,
            rejected: -pull * rejected_slope,
        }
    }

    fn record(&self, scores: &Scores, metrics: &mut Metrics) {
        let (chosen, rejected) = (odds(scores.chosen).0, odds(scores.rejected).0);
        metrics.record(Metric::LogOddsChosen, chosen);
        metrics.record(Metric::LogOddsRejected, rejected);
        metrics.record(Metric::LogOddsRatio, chosen - rejected);
    }
}
