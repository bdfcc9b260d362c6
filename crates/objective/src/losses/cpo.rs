//! Contrastive preference optimisation.

use crate::losses::implement;
use crate::losses::preference::{PairGradient, PairLoss, Reduction, Score, Scores};
use crate::numerics::{sigmoid, softplus};
use crate::objective;
use crate::parameter::NON_NEGATIVE;

objective! {
    /// Contrastive preference optimisation: DPO without a reference, and imitation of the chosen response.
    ///
    /// A reference doubles memory and time. CPO takes a uniform one, which cancels in the margin, and keeps the chosen
    /// response probable by imitating it besides.
    ///
    /// # Formula
    ///
    /// With s the sum of log π over a response's tokens, nats, and N_w the chosen response's length, mean over the step's
    /// pairs:
    ///
    /// L = −log σ(β (s_w − s_l)) − α s_w / N_w
    ///
    /// Cotangent: −β σ(−z) − α/N_w on s_w and β σ(−z) on s_l, with z = β (s_w − s_l).
    ///
    /// # Source
    ///
    /// H. Xu et al., "Contrastive Preference Optimization: Pushing the Boundaries of LLM Performance in Machine Translation",
    /// arXiv 2401.08417, equation 6.
    ///
    /// # Departures
    ///
    /// The likelihood is a mean over each chosen response's tokens, then over pairs; TRL's is a mean over all tokens of the
    /// micro-batch, which no split into micro-batches preserves. They agree where the chosen responses are equally long.
    ///
    /// # Examples
    ///
    /// β = 1, s_w = s_l = −1, two chosen tokens: L = ln 2 + ½.
    ///
    /// ```
    /// use objective::{Cpo, Pairs, Side};
    ///
    /// let mut cpo = Cpo { beta: 1.0, alpha: 1.0 }.evaluator()?;
    /// let answer = cpo.evaluate(&Pairs {
    ///     chosen: Side { log_prob: &[-0.5, -0.5], ..Side::of(&[2]) },
    ///     rejected: Side { log_prob: &[-1.0], ..Side::of(&[1]) },
    /// })?;
    /// assert_eq!((answer.loss, answer.cotangents.chosen.log_prob[0]), (2.0_f64.ln() + 0.5, -1.0));
    /// assert_eq!(answer.cotangents.rejected.log_prob[0], 0.5);
    /// Ok::<(), objective::Error>(())
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct Cpo = "cpo", "DPO without a reference, plus imitation of the chosen response", "arXiv 2401.08417, equation 6" {
        beta;
        /// Weight of the chosen response's likelihood.
        alpha: f64 [NON_NEGATIVE] = 1.0,
    }
}

implement!(Cpo, preference, Pairs);

impl PairLoss for Cpo {
    fn beta(&self) -> f64 {
        self.beta
    }

    fn score(&self) -> Score {
        Score::Likelihood(Reduction::Sum)
    }

    fn pair(&self, scores: &Scores) -> PairGradient {
        let margin = self.beta * (scores.chosen - scores.rejected);
        let (slope, imitation) = (-self.beta * sigmoid(-margin), self.alpha / scores.chosen_tokens);
        PairGradient {
            loss: softplus(-margin) - imitation * scores.chosen,
            chosen: slope - imitation,
            rejected: -slope,
        }
    }
}
