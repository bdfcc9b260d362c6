//! Contrastive preference optimisation.

use strum::{EnumString, IntoStaticStr, VariantNames};

use crate::losses::dpo::smoothed;
use crate::losses::implement;
use crate::losses::preference::{PairGradient, PairLoss, Reduction, Score, Scores};
use crate::objective;
use crate::parameter::{NON_NEGATIVE, choices, interval};

/// Losses on the margin of [`Cpo`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum ContrastiveLoss {
    /// −log σ(β h), the paper's.
    #[default]
    Sigmoid,
    /// max(0, 1 − β h), as [`Hinge`](crate::Hinge).
    Hinge,
    /// (h − 1/(2β))², as [`Ipo`](crate::Ipo).
    Ipo,
}

choices!(ContrastiveLoss);

objective! {
    /// Contrastive preference optimisation: DPO without a reference, and imitation of the chosen response.
    ///
    /// A reference doubles memory and time. CPO uses a uniform one, which cancels in the margin, and keeps the chosen
    /// response probable by also imitating it.
    ///
    /// # Formula
    ///
    /// With s the sum of log π over a response's tokens, nats, N_w the chosen response's length, h = s_w − s_l and ε
    /// the label smoothing, mean over the step's pairs:
    ///
    /// L = ℓ(h) − α s_w / N_w
    ///
    /// - `loss = sigmoid`: ℓ = −(1 − ε) log σ(β h) − ε log σ(−β h), ℓ' = β (ε − σ(−β h))
    /// - `loss = hinge`: ℓ = max(0, 1 − β h), ℓ' = −β where β h < 1
    /// - `loss = ipo`: ℓ = (h − 1/(2β))², ℓ' = 2 h − 1/β
    ///
    /// With `normalisation = mean`, h is the difference of the means over each response's tokens. Cotangent: ℓ' − α/N_w
    /// on each chosen token and −ℓ' on each rejected one, ℓ' divided by the response's length where means are compared.
    ///
    /// # Source
    ///
    /// H. Xu et al., "Contrastive Preference Optimization: Pushing the Boundaries of LLM Performance in Machine
    /// Translation", arXiv 2401.08417, equation 6. The other losses are those of TRL's trainer. Triple preference
    /// optimisation (A. Saeidi et al., arXiv 2405.16681) is this loss with α = 0 on the pairs, and [`Sft`](crate::Sft)
    /// on a third, gold response beside it; its TPO-L is [`Simpo`](crate::Simpo) beside the same. Their losses and
    /// cotangents add up.
    ///
    /// # Departures
    ///
    /// The likelihood is a mean over each chosen response's tokens, then over pairs; TRL's is a mean over all tokens of
    /// the micro-batch, which no split into micro-batches preserves. They agree where the chosen responses are equally
    /// long.
    ///
    /// # Examples
    ///
    /// β = 1, s_w = s_l = −1, two chosen tokens: L = ln 2 + ½.
    ///
    /// ```
    /// use objective::{Cpo, Pairs, Side};
    ///
    /// let mut cpo = Cpo { beta: 1.0, alpha: 1.0, ..Cpo::default() }.evaluator()?;
    /// let answer = cpo.evaluate(&Pairs {
    ///     chosen: Side { log_prob: &[-0.5, -0.5], ..Side::of(&[2]) },
    ///     rejected: Side { log_prob: &[-1.0], ..Side::of(&[1]) },
    /// })?;
    /// assert_eq!((answer.loss, answer.cotangents.chosen.log_prob[0]), (2.0_f64.ln() + 0.5, -1.0));
    /// assert_eq!(answer.cotangents.rejected.log_prob[0], 0.5);
    /// Ok::<(), objective::Error>(())
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct Cpo = "cpo", "DPO without a reference, plus imitation of the chosen response",
        "arXiv 2401.08417, equation 6"
    {
        beta;
        /// Weight of the chosen response's likelihood.
        alpha: f64 [NON_NEGATIVE] = 1.0,
        /// Loss on the margin.
        loss: ContrastiveLoss = ContrastiveLoss::Sigmoid,
        /// Probability that a preference is the wrong way round.
        label_smoothing: f64 [interval(0.0, 0.5)] = 0.0 => unused |own| own.unsmoothed(),
        /// Whether log-probabilities are summed over a response or averaged over its tokens.
        normalisation: Reduction = Reduction::Sum,
    }
}

implement!(Cpo, preference, Pairs);

impl Cpo {
    fn unsmoothed(&self) -> Option<String> {
        (self.loss != ContrastiveLoss::Sigmoid).then(|| format!("loss = {}", <&str>::from(self.loss)))
    }

    /// The loss of a difference of scores, and its slope.
    fn contrast(&self, difference: f64) -> (f64, f64) {
        let margin = self.beta * difference;
        match self.loss {
            ContrastiveLoss::Sigmoid => {
                let (loss, slope) = smoothed(self.label_smoothing, margin);
                (loss, self.beta * slope)
            }
            ContrastiveLoss::Hinge if margin < 1.0 => (1.0 - margin, -self.beta),
            ContrastiveLoss::Hinge => (0.0, 0.0),
            ContrastiveLoss::Ipo => {
                let excess = difference - 0.5 / self.beta;
                (excess * excess, 2.0 * excess)
            }
        }
    }
}

impl PairLoss for Cpo {
    fn beta(&self) -> f64 {
        self.beta
    }

    fn score(&self) -> Score {
        Score::Likelihood(self.normalisation)
    }

    fn pair(&self, scores: &Scores) -> PairGradient {
        let (loss, slope) = self.contrast(scores.chosen - scores.rejected);
        // The likelihood is a mean over tokens; the score may be one already.
        let imitation = match self.normalisation {
            Reduction::Sum => self.alpha / scores.chosen_tokens,
            Reduction::Mean => self.alpha,
        };
        PairGradient { loss: loss - imitation * scores.chosen, chosen: slope - imitation, rejected: -slope }
    }
}
