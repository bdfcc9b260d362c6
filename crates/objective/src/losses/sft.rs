//! Supervised fine-tuning.

use strum::{EnumString, IntoStaticStr, VariantNames};

use crate::batch::TokenBatch;
use crate::columns::Statistic;
use crate::data::Demonstrations;
use crate::evaluation::{Evaluation, Metric};
use crate::evaluator::LearnsFrom;
use crate::held::Held;
use crate::numerics::sum;
use crate::objective;
use crate::parameter::choices;
use crate::requirements::{Data, Requirements};
use crate::state::ObjectiveState;
use crate::{Objective, declared_parameters};

/// Weights of a demonstration's tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum TokenWeighting {
    /// All tokens have the same weight.
    #[default]
    None,
    /// Each token is weighted by its probability under the policy (dynamic fine-tuning).
    Dft,
}

/// Averaging of the losses of demonstrations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Normalisation {
    /// Mean over all tokens of the step.
    #[default]
    Token,
    /// Mean over the responses of the mean over their tokens.
    Response,
}

choices!(TokenWeighting, Normalisation);

objective! {
    /// Supervised fine-tuning: the negative log-likelihood of demonstrations.
    ///
    /// Every demonstrated token is made more probable where it was demonstrated. The less probable it is, the more the
    /// policy's parameters move for it. It is the first stage of nearly every training, and what the other methods are
    /// compared with.
    ///
    /// # Formula
    ///
    /// With lₜ = −log π(yₜ|sₜ), nats, over the step's responses i of Nᵢ tokens:
    ///
    /// - `normalisation = token`: L = Σᵢ Σₜ lₜ / (response tokens of the step)
    /// - `normalisation = response`: L = Σᵢ (Σₜ lₜ / Nᵢ) / (responses of the step)
    ///
    /// Cotangent: ∂L/∂log π(yₜ|sₜ) = −1 / tokens, or −1 / (Nᵢ · responses).
    ///
    /// With `weighting = dft` each lₜ is multiplied by sg(π(yₜ|sₜ)), the token's own probability, which is held: its
    /// cotangent is multiplied by π(yₜ|sₜ).
    ///
    /// # Source
    ///
    /// "Intuitive Fine-Tuning", arXiv 2405.11870, equation (30). Both normalisations are in use: the first weights
    /// tokens equally, the second responses. They agree where all responses are equally long. Dynamic fine-tuning: Y.
    /// Wu et al., "On the Generalization of SFT: A Reinforcement Learning Perspective with Reward Rectification", arXiv
    /// 2508.05629.
    ///
    /// # Departures
    ///
    /// None.
    ///
    /// # Examples
    ///
    /// Two responses with l = (1, 3) and (2): per token (1 + 3 + 2) / 3 = 2, per response (2 + 2) / 2 = 2.
    ///
    /// ```
    /// use objective::{Demonstrations, Normalisation, Sft, Side};
    ///
    /// let demonstrations = Demonstrations(Side { log_prob: &[-1.0, -3.0, -2.0], ..Side::of(&[2, 1]) });
    /// let mut sft = Sft { normalisation: Normalisation::Response, ..Sft::default() }.evaluator()?;
    /// let answer = sft.evaluate(&demonstrations)?;
    /// assert_eq!((answer.loss, answer.cotangents.log_prob), (2.0, &[-0.25, -0.25, -0.5][..]));
    /// Ok::<(), objective::Error>(())
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Sft = "sft", "supervised fine-tuning: negative log-likelihood of demonstrations",
        "arXiv 2405.11870, equation 30"
    {
        /// Whether losses are averaged over all tokens of the step, or first over the tokens of each response and then
        /// over responses.
        normalisation: Normalisation = Normalisation::Token,
        /// Whether each token is weighted by its probability under the policy (dynamic fine-tuning).
        weighting: TokenWeighting = TokenWeighting::None,
    }
}

impl LearnsFrom for Sft {
    type Data<'a> = Demonstrations<'a>;
}

impl Objective for Sft {
    fn requirements(&self) -> Requirements {
        Requirements { weights: true, ..Requirements::new(Data::Demonstrations) }
    }

    declared_parameters!();

    fn hold(&self, batch: &TokenBatch<'_>, _: &mut ObjectiveState, held: &mut Held) {
        if self.weighting == TokenWeighting::Dft {
            // Beside terms that compare pairs, rejected responses have weights too, which no term reads.
            for response in 0..batch.responses().len() {
                held.tokens.extend(batch.log_prob(response).iter().map(|log_prob| log_prob.exp()));
            }
        }
    }

    fn loss(&self, batch: &TokenBatch<'_>, held: &Held, out: &mut Evaluation) {
        let totals = batch.totals();
        // Beside terms that compare pairs, only chosen responses are imitated.
        for response in batch.demonstrated() {
            let tokens = batch.responses()[response].tokens.clone();
            let log_prob = batch.log_prob(response);
            let scale = match self.normalisation {
                Normalisation::Token => 1.0 / totals.tokens as f64,
                Normalisation::Response => 1.0 / (log_prob.len() as f64 * totals.responses as f64),
            };
            let scale = batch.weight(response) * scale;
            let negative = 0.0 - sum(log_prob);
            match self.weighting {
                TokenWeighting::None => {
                    out.loss += scale * negative;
                    out.cotangents.add(Statistic::LogProb, tokens, -scale);
                }
                TokenWeighting::Dft => {
                    let slots = out.cotangents.slots(Statistic::LogProb, tokens.clone());
                    for ((log_prob, weight), slot) in log_prob.iter().zip(&held.tokens[tokens]).zip(slots) {
                        let pull = -scale * weight;
                        *slot += pull;
                        out.loss += pull * log_prob;
                    }
                }
            }
            out.metrics.record_sum(Metric::NegativeLogLikelihood, negative, log_prob.len());
        }
    }
}
