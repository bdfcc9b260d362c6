//! Supervised fine-tuning: the negative log-likelihood of demonstrations.
//!
//! # Formula
//!
//! With lₜ = −log π(yₜ|sₜ), nats, over the step's responses i of Nᵢ tokens:
//!
//! - `normalisation = token`: L = Σᵢ Σₜ lₜ / (response tokens of the step)
//! - `normalisation = response`: L = Σᵢ (Σₜ lₜ / Nᵢ) / (responses of the step)
//!
//! Cotangent: ∂L/∂log π(yₜ|sₜ) = −1 / tokens, or −1 / (Nᵢ · responses).
//!
//! With `weighting = dft` each lₜ is multiplied by sg(π(yₜ|sₜ)), the token's own probability behind a stop-gradient: its
//! cotangent is multiplied by π(yₜ|sₜ), and the weight passes none.
//!
//! # Source
//!
//! "Intuitive Fine-Tuning", arXiv 2405.11870, equation (30). Both normalisations are in use: the first weighs tokens
//! equally, the second responses. They agree where all responses are equally long. Dynamic fine-tuning: Y. Wu et al., "On the
//! Generalization of SFT: A Reinforcement Learning Perspective with Reward Rectification", arXiv 2508.05629.
//!
//! # Examples
//!
//! Two responses with l = (1, 3) and (2): per token (1 + 3 + 2) / 3 = 2, per response (2 + 2) / 2 = 2.
//!
//! ```
//! # use objective::*;
//! # let responses = [Response::new(0..2), Response::new(2..3)];
//! # let statistics = TokenStatistics { log_prob: vec![-1.0, -3.0, -2.0], ..Default::default() };
//! # let totals = StepTotals::of(&responses, &[]);
//! # let sft = sft::Sft::new(sft::Normalisation::Response, sft::Weighting::None);
//! # let constants = TokenConstants::default();
//! # let batch = TokenBatch::new(&sft.requirements(), &statistics, &constants, &responses, &[], totals)?;
//! # let mut evaluation = Evaluation::default();
//! sft.evaluate(&batch, &mut ObjectiveState::default(), &mut evaluation);
//! assert_eq!(evaluation.loss, 2.0);
//! assert_eq!(evaluation.cotangents.log_prob, [-0.25, -0.25, -0.5]);
//! # Ok::<(), BatchError>(())
//! ```

use strum::{EnumString, IntoStaticStr, VariantNames};

use crate::Objective;
use crate::batch::TokenBatch;
use crate::evaluation::{Evaluation, Metric, add};
use crate::held::Held;
use crate::method::Method;
use crate::numerics::sum;
use crate::parameter::{Kind, Parameter, ParameterError, Parameters, Reader};
use crate::requirements::{Data, Requirements};
use crate::state::ObjectiveState;

/// The registry's line.
pub const METHOD: Method = Method {
    name: "sft",
    summary: "supervised fine-tuning: negative log-likelihood of demonstrations",
    source: "arXiv 2405.11870, equation 30",
    parameters: &[NORMALISATION, WEIGHTING],
    build,
};

/// By what the loss is divided.
pub const NORMALISATION: Parameter = Parameter {
    name: "normalisation",
    kind: Kind::Choice { default: "token", options: Normalisation::VARIANTS },
    purpose: "mean over all tokens of the step, or over responses of the mean over their tokens",
};

/// How tokens are weighted.
pub const WEIGHTING: Parameter = Parameter {
    name: "weighting",
    kind: Kind::Choice { default: "none", options: Weighting::VARIANTS },
    purpose: "whether each token counts as often as the policy would choose it (dynamic fine-tuning)",
};

/// How tokens are weighted.
///
/// Tokens of probability ½ and ¼ pull as often as they are chosen, so that rare ones pull less:
///
/// ```
/// # use objective::sft::{Normalisation, Sft, Weighting};
/// # use objective::*;
/// # let (responses, constants) = ([Response::new(0..2)], TokenConstants::default());
/// # let totals = StepTotals::of(&responses, &[]);
/// let statistics = TokenStatistics { log_prob: vec![0.5_f64.ln(), 0.25_f64.ln()], ..Default::default() };
/// let sft = Sft::new(Normalisation::Token, Weighting::Dft);
/// # let batch = TokenBatch::new(&sft.requirements(), &statistics, &constants, &responses, &[], totals)?;
/// # let mut evaluation = Evaluation::default();
/// sft.evaluate(&batch, &mut ObjectiveState::default(), &mut evaluation);
/// let [likely, rare] = evaluation.cotangents.log_prob[..] else { panic!("one a token") };
/// assert!((likely + 0.5 / 2.0).abs() < 1e-12 && (rare + 0.25 / 2.0).abs() < 1e-12);
/// # Ok::<(), BatchError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Weighting {
    /// Equally.
    None,
    /// By their own probability, behind a stop-gradient.
    Dft,
}

/// By what the loss is divided.
///
/// A response of one token beside one of three:
///
/// ```
/// # use objective::sft::{Normalisation, Sft, Weighting};
/// # use objective::*;
/// # let (responses, constants) = ([Response::new(0..1), Response::new(1..4)], TokenConstants::default());
/// # let totals = StepTotals::of(&responses, &[]);
/// # let statistics = TokenStatistics { log_prob: vec![-1.0; 4], ..Default::default() };
/// # let mut evaluation = Evaluation::default();
/// for (normalisation, single, of_three) in [(Normalisation::Token, 4.0, 4.0), (Normalisation::Response, 2.0, 6.0)] {
///     let sft = Sft::new(normalisation, Weighting::None);
/// #   let batch = TokenBatch::new(&sft.requirements(), &statistics, &constants, &responses, &[], totals)?;
///     sft.evaluate(&batch, &mut ObjectiveState::default(), &mut evaluation);
///     assert_eq!(evaluation.cotangents.log_prob, [single, of_three, of_three, of_three].map(|weight| -1.0 / weight));
/// }
/// # Ok::<(), BatchError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Normalisation {
    /// The step's tokens.
    Token,
    /// Each response's tokens, then the step's responses.
    Response,
}

/// Supervised fine-tuning.
///
/// Of its host it asks for log-probabilities alone:
///
/// ```
/// use objective::sft::{Normalisation, Sft, Weighting};
/// use objective::{Data, Objective, Requirements};
///
/// let sft = Sft::new(Normalisation::Token, Weighting::None);
/// assert_eq!(sft.requirements(), Requirements::new(Data::Demonstrations));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sft {
    normalisation: Normalisation,
    weighting: Weighting,
}

/// Where the policy is certain of every token there is nothing to learn, but the slope is what it is elsewhere:
///
/// ```
/// # use objective::sft::{Normalisation, Sft, Weighting};
/// # use objective::*;
/// # let (responses, constants) = ([Response::new(0..2)], TokenConstants::default());
/// # let totals = StepTotals::of(&responses, &[]);
/// let statistics = TokenStatistics { log_prob: vec![0.0, 0.0], ..Default::default() };
/// let sft = Sft::new(Normalisation::Token, Weighting::None);
/// # let batch = TokenBatch::new(&sft.requirements(), &statistics, &constants, &responses, &[], totals)?;
/// # let mut evaluation = Evaluation::default();
/// sft.evaluate(&batch, &mut ObjectiveState::default(), &mut evaluation);
/// assert_eq!((evaluation.loss, evaluation.cotangents.log_prob), (0.0, vec![-0.5, -0.5]));
/// # Ok::<(), BatchError>(())
/// ```
impl Sft {
    /// SFT with the given normalisation and weighting.
    ///
    /// ```
    /// use objective::sft::{Normalisation, Sft, Weighting};
    /// use objective::{Objective, Parameters};
    ///
    /// let parameters = Sft::new(Normalisation::Token, Weighting::None).parameters();
    /// assert_eq!(parameters, objective::registry::build("sft", &Parameters::new())?.parameters());
    /// # Ok::<(), objective::RegistryError>(())
    /// ```
    pub fn new(normalisation: Normalisation, weighting: Weighting) -> Self {
        Self { normalisation, weighting }
    }
}

fn build(given: &Parameters) -> Result<Box<dyn Objective>, ParameterError> {
    let reader = Reader::new(METHOD.name, METHOD.parameters, given)?;
    Ok(Box::new(Sft::new(reader.choice(&NORMALISATION)?, reader.choice(&WEIGHTING)?)))
}

impl Objective for Sft {
    fn requirements(&self) -> Requirements {
        Requirements::new(Data::Demonstrations)
    }

    fn parameters(&self) -> Parameters {
        let (normalisation, weighting): (&str, &str) = (self.normalisation.into(), self.weighting.into());
        [(NORMALISATION.name.to_owned(), normalisation.into()), (WEIGHTING.name.to_owned(), weighting.into())].into()
    }

    fn hold(&self, batch: &TokenBatch<'_>, _: &mut ObjectiveState, held: &mut Held) {
        if self.weighting == Weighting::Dft {
            held.tokens.extend(batch.statistics().log_prob.iter().map(|log_prob| log_prob.exp()));
        }
    }

    fn loss(&self, batch: &TokenBatch<'_>, held: &Held, out: &mut Evaluation) {
        let totals = batch.totals();
        // Beside terms that compare, only chosen responses are imitated.
        for response in batch.demonstrated() {
            let tokens = batch.responses()[response].tokens.clone();
            let log_prob = batch.log_prob(response);
            let scale = match self.normalisation {
                Normalisation::Token => 1.0 / totals.tokens as f64,
                Normalisation::Response => 1.0 / (log_prob.len() as f64 * totals.responses as f64),
            };
            let negative = 0.0 - sum(log_prob);
            let slots = &mut out.cotangents.log_prob[tokens.clone()];
            match self.weighting {
                Weighting::None => {
                    out.loss += scale * negative;
                    add(slots, -scale);
                }
                Weighting::Dft => {
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
