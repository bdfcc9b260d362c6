//! What losses on the scores of a pair share: scores from log-probabilities, cotangents back from them, metrics.
//!
//! A [`PairLoss`] is a function of two scores, one a response. This module computes the scores, pulls the loss's derivatives
//! back to the tokens, and takes the mean over the step's pairs.

use enumset::EnumSet;
use strum::{EnumString, IntoStaticStr, VariantNames};

use crate::Objective;
use crate::batch::{Pair, TokenBatch};
use crate::divergence::{DIVERGENCE, Divergence};
use crate::evaluation::{Evaluation, Metric, Metrics, add};
use crate::held::Held;
use crate::method::Method;
use crate::numerics::sum;
use crate::parameter::{Kind, Parameter, ParameterError, Parameters, Reader, SCALE, UNIT};
use crate::requirements::{Constant, Data, Requirements, Statistic};
use crate::state::ObjectiveState;

/// β, per nat.
pub const BETA: Parameter = Parameter {
    name: "beta",
    kind: Kind::Number { default: 0.1, range: SCALE },
    purpose: "scale of the implicit reward beta (log pi - log pi_ref), per nat",
};

/// The weight of tokens beyond the shorter response's length.
pub const TAIL_WEIGHT: Parameter = Parameter {
    name: "tail_weight",
    kind: Kind::Number { default: 1.0, range: UNIT },
    purpose: "weight of tokens beyond the shorter response's length (length-desensitised DPO, arXiv 2409.06411)",
};

/// Mean or sum.
pub const NORMALISATION: Parameter = Parameter {
    name: "normalisation",
    kind: Kind::Choice { default: "mean", options: Normalisation::VARIANTS },
    purpose: "whether log-ratios are summed over a response or averaged over its tokens",
};

/// How pairs are weighted.
pub const WEIGHTING: Parameter = Parameter {
    name: "weighting",
    kind: Kind::Choice { default: "none", options: Weighting::VARIANTS },
    purpose: "whether a pair counts as much as the policy would sample it (WPO, arXiv 2406.11827)",
};

/// How pairs are weighted.
///
/// ```
/// use objective::preference::{Pairwise, Score, Weighting};
/// use objective::{Objective, Statistic};
///
/// let dpo = Pairwise::new(objective::dpo::Dpo::new(0.0)?, 0.1, Score::LOG_RATIO)?;
/// assert!(!dpo.requirements().statistics.contains(Statistic::LogSumSquareProb));
/// assert!(dpo.weighted(Weighting::Wpo).requirements().statistics.contains(Statistic::LogSumSquareProb));
/// # Ok::<(), objective::ParameterError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Weighting {
    /// Equally.
    #[default]
    None,
    /// By the product over both responses of exp (1/N) Σₜ (log π(yₜ|sₜ) − log Σₐ π(a|sₜ)²), behind a stop-gradient: 1 where
    /// the responses are such as the policy samples (W. Zhou et al., "WPO: Enhancing RLHF with Weighted Preference
    /// Optimization", arXiv 2406.11827, equation 2, with its alignment of the weights).
    Wpo,
}

/// Whether a score is summed over a response's tokens or their mean.
///
/// Two chosen tokens with log-ratios of 1 nat, a rejected one at the reference, and a margin whose target is 1:
///
/// ```
/// # use objective::{preference::*, *};
/// # let (responses, pairs) = ([Response::new(0..2), Response::new(2..3)], [Pair { chosen: 0, rejected: 1 }]);
/// # let statistics = TokenStatistics { log_prob: vec![-1.0, -1.0, -1.0], ..Default::default() };
/// # let constants = TokenConstants { reference_log_prob: vec![-2.0, -2.0, -1.0], ..Default::default() };
/// # let totals = StepTotals::of(&responses, &pairs);
/// # let divergence = divergence::Divergence::ReverseKl;
/// let mut losses = Vec::new();
/// for normalisation in [Normalisation::Sum, Normalisation::Mean] {
///     let ipo = Pairwise::new(ipo::Ipo, 0.5, Score::Implicit { divergence, tail_weight: 1.0, normalisation })?;
/// #   let batch = TokenBatch::new(&ipo.requirements(), &statistics, &constants, &responses, &pairs, totals)?;
/// #   let mut evaluation = Evaluation::default();
/// #   ipo.evaluate(&batch, &mut ObjectiveState::default(), &mut evaluation);
///     losses.push(evaluation.loss);
/// }
/// assert_eq!(losses, [1.0, 0.0]); // (2 − 1)² and (1 − 1)²
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Normalisation {
    /// The sum over the response.
    Sum,
    /// The mean over the response's tokens.
    Mean,
}

/// What a response is scored by.
///
/// Likelihoods need no reference:
///
/// ```
/// use objective::preference::{Normalisation, Pairwise, Score};
/// use objective::{Objective, hinge::Hinge};
///
/// let likelihood = Score::Likelihood { normalisation: Normalisation::Sum };
/// let [implicit, explicit] = [Score::LOG_RATIO, likelihood].map(|score| Pairwise::new(Hinge, 0.1, score));
/// assert!(implicit?.requirements().need_reference());
/// assert!(!explicit?.requirements().need_reference());
/// # Ok::<(), objective::ParameterError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Score {
    /// Σₜ wₜ (log π − log π_ref), transformed by a divergence; wₜ is 1 up to the shorter response's length.
    Implicit {
        /// The divergence between policy and reference.
        divergence: Divergence,
        /// wₜ beyond the shorter response's length.
        tail_weight: f64,
        /// Sum or mean over the response.
        normalisation: Normalisation,
    },
    /// log π, without a reference.
    Likelihood {
        /// Sum or mean over the response.
        normalisation: Normalisation,
    },
}

/// The scores of a pair.
///
/// Four tokens share the imitation of the chosen response, which is a mean:
///
/// ```
/// use objective::preference::{PairLoss, Scores};
///
/// let scores = Scores { chosen: -2.0, rejected: -2.0, chosen_tokens: 4.0 };
/// assert!((objective::cpo::Cpo::new(1.0)?.loss(0.1, &scores).loss - (2.0_f64.ln() + 2.0 / 4.0)).abs() < 1e-12);
/// # Ok::<(), objective::ParameterError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scores {
    /// The chosen response's.
    pub chosen: f64,
    /// The rejected response's.
    pub rejected: f64,
    /// Tokens in the chosen response.
    pub chosen_tokens: f64,
}

/// A pair's loss and its derivatives.
///
/// Of a loss on the margin alone, the derivatives are opposite:
///
/// ```
/// use objective::preference::{PairGradient, PairLoss, Scores};
///
/// let scores = Scores { chosen: 0.5, rejected: 0.0, chosen_tokens: 1.0 };
/// assert_eq!(objective::ipo::Ipo.loss(0.5, &scores), PairGradient { loss: 0.25, chosen: -1.0, rejected: 1.0 });
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairGradient {
    /// The loss.
    pub loss: f64,
    /// ∂loss/∂chosen score.
    pub chosen: f64,
    /// ∂loss/∂rejected score.
    pub rejected: f64,
}

/// A loss on the two scores of a pair; [`Pairwise`] makes an objective of it.
///
/// A loss that the registry does not have, the perceptron's, which only wrong pairs pay:
///
/// ```
/// use objective::parameter::{ParameterError, Reader};
/// use objective::preference::{BETA, PairGradient, PairLoss, Pairwise, Scores, build};
/// use objective::{Method, Objective};
///
/// #[derive(Debug)]
/// struct Perceptron;
///
/// impl PairLoss for Perceptron {
///     const METHOD: Method = Method {
///         name: "perceptron",
///         summary: "what the margin of implicit rewards falls short of 0",
///         source: "F. Rosenblatt, 1958",
///         parameters: &[BETA],
///         build: build::<Perceptron>,
///     };
///
///     fn read(_: &Reader<'_>, _beta: f64) -> Result<Self, ParameterError> {
///         Ok(Self)
///     }
///
///     fn loss(&self, beta: f64, scores: &Scores) -> PairGradient {
///         let margin = beta * (scores.chosen - scores.rejected);
///         let slope = if margin < 0.0 { -beta } else { 0.0 };
///         PairGradient { loss: (-margin).max(0.0), chosen: slope, rejected: -slope }
///     }
/// }
///
/// let perceptron = Pairwise::new(Perceptron, 0.5, Perceptron::SCORE)?;
/// assert!(perceptron.requirements().need_reference());
/// let wrong = Scores { chosen: -1.0, rejected: 1.0, chosen_tokens: 1.0 };
/// assert_eq!(Perceptron.loss(0.5, &wrong), PairGradient { loss: 1.0, chosen: -0.5, rejected: 0.5 });
/// # Ok::<(), ParameterError>(())
/// ```
pub trait PairLoss: Send + Sync + std::fmt::Debug + Sized {
    /// The registry's line. Of β and of what a score is made of, the parameters that it declares may vary.
    const METHOD: Method;

    /// The scale of the implicit reward.
    const BETA: Parameter = BETA;

    /// What responses are scored by, before the declared parameters change it.
    const SCORE: Score = Score::LOG_RATIO;

    /// The loss that its own parameters describe, at this β.
    ///
    /// # Errors
    ///
    /// [`ParameterError`] for a value out of range or without effect.
    ///
    /// # Examples
    ///
    /// β is there for parameters that follow it:
    ///
    /// ```
    /// use objective::parameter::{Parameters, Reader};
    /// use objective::preference::PairLoss;
    /// use objective::simpo::{METHOD, Simpo};
    ///
    /// let given = Parameters::new();
    /// let simpo = Simpo::read(&Reader::new(METHOD.name, METHOD.parameters, &given)?, 10.0)?;
    /// assert_eq!(simpo.own_parameters()["target_margin"], 8.0.into());
    /// # Ok::<(), objective::ParameterError>(())
    /// ```
    fn read(reader: &Reader<'_>, beta: f64) -> Result<Self, ParameterError>;

    /// Its own parameters in force.
    ///
    /// β and the score's are not among them:
    ///
    /// ```
    /// use objective::preference::PairLoss;
    ///
    /// let robust = objective::robust::Robust::new(0.25)?;
    /// assert_eq!(robust.own_parameters(), [("label_smoothing".to_owned(), 0.25.into())].into());
    /// assert!(objective::hinge::Hinge.own_parameters().is_empty());
    /// # Ok::<(), objective::ParameterError>(())
    /// ```
    fn own_parameters(&self) -> Parameters {
        Parameters::new()
    }

    /// The loss of a pair, finite for all finite scores.
    ///
    /// ```
    /// use objective::preference::{PairGradient, PairLoss, Scores};
    ///
    /// let wrong = Scores { chosen: -1e30, rejected: 0.0, chosen_tokens: 1.0 };
    /// let gradient = objective::dpo::Dpo::new(0.0)?.loss(0.5, &wrong);
    /// assert_eq!(gradient, PairGradient { loss: 5e29, chosen: -0.5, rejected: 0.5 });
    /// # Ok::<(), objective::ParameterError>(())
    /// ```
    fn loss(&self, beta: f64, scores: &Scores) -> PairGradient;

    /// Metrics of this loss alone.
    ///
    /// Probabilities of 1/2 and 1/5 are odds of 1 and 1/4:
    ///
    /// ```
    /// use objective::preference::{PairLoss, Scores};
    /// use objective::{Metric, Metrics};
    ///
    /// let scores = Scores { chosen: 0.5_f64.ln(), rejected: 0.2_f64.ln(), chosen_tokens: 1.0 };
    /// let mut metrics = Metrics::default();
    /// objective::orpo::Orpo.record(&scores, &mut metrics);
    /// assert!((metrics.mean(Metric::LogOddsRatio).unwrap_or_default() - 4.0_f64.ln()).abs() < 1e-12);
    /// ```
    fn record(&self, _scores: &Scores, _metrics: &mut Metrics) {}
}

/// The mean over the step's pairs of a loss on their scores.
///
/// At the reference each of n pairs has DPO's loss, ln 2, and pulls with β/2n:
///
/// ```
/// # use objective::{preference::*, *};
/// # let responses = [0, 1, 2, 3].map(|token| Response::new(token..token + 1));
/// # let statistics = TokenStatistics { log_prob: vec![-1.0; 4], ..Default::default() };
/// # let constants = TokenConstants { reference_log_prob: vec![-1.0; 4], ..Default::default() };
/// let pairs = [Pair { chosen: 0, rejected: 1 }, Pair { chosen: 2, rejected: 3 }];
/// # let totals = StepTotals::of(&responses, &pairs);
/// let dpo = Pairwise::new(dpo::Dpo::new(0.0)?, 0.5, Score::LOG_RATIO)?;
/// # let batch = TokenBatch::new(&dpo.requirements(), &statistics, &constants, &responses, &pairs, totals)?;
/// # let mut evaluation = Evaluation::default();
/// dpo.evaluate(&batch, &mut ObjectiveState::default(), &mut evaluation);
/// assert_eq!(evaluation.loss, std::f64::consts::LN_2);
/// assert_eq!(evaluation.cotangents.log_prob, [-0.125, 0.125, -0.125, 0.125]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pairwise<L> {
    loss: L,
    /// Per nat: of log π − log π_ref summed over the response, or of the score itself where there is no reference.
    beta: f64,
    score: Score,
    weighting: Weighting,
}

/// What it is made of are its parameters:
///
/// ```
/// use objective::preference::{Pairwise, Score, Weighting};
/// use objective::{Objective, hinge::Hinge};
///
/// let parameters = Pairwise::new(Hinge, 0.5, Score::LOG_RATIO)?.weighted(Weighting::Wpo).parameters();
/// assert_eq!((&parameters["beta"], &parameters["weighting"]), (&0.5.into(), &"wpo".into()));
/// assert_eq!(parameters["divergence"], "reverse_kl".into());
/// # Ok::<(), objective::ParameterError>(())
/// ```
impl<L: PairLoss> Pairwise<L> {
    /// A loss with the scale β of its implicit reward, on the given scores, every pair weighing the same.
    ///
    /// # Errors
    ///
    /// [`ParameterError::Invalid`] for a value out of its range.
    ///
    /// # Examples
    ///
    /// ```
    /// use objective::preference::{Pairwise, Score};
    ///
    /// let error = Pairwise::new(objective::hinge::Hinge, -0.1, Score::LOG_RATIO).unwrap_err();
    /// assert_eq!(error.to_string(), "hinge.beta: expected a number, 1e-9 <= beta <= 1e6, got -0.1");
    /// ```
    pub fn new(loss: L, beta: f64, score: Score) -> Result<Self, ParameterError> {
        let owner = L::METHOD.name;
        Ok(Self { loss, beta: L::BETA.check(owner, beta)?, score: score.check(owner)?, weighting: Weighting::None })
    }

    /// The same loss with its pairs weighted.
    ///
    /// A chosen response half as likely as two draws are to agree counts half:
    ///
    /// ```
    /// # use objective::{preference::*, *};
    /// # let (responses, pairs) = ([Response::new(0..1), Response::new(1..2)], [Pair { chosen: 0, rejected: 1 }]);
    /// # let totals = StepTotals::of(&responses, &pairs);
    /// let statistics = TokenStatistics {
    ///     log_prob: vec![0.25_f64.ln(), 0.5_f64.ln()],
    ///     log_sum_square_prob: vec![0.5_f64.ln(), 0.5_f64.ln()],
    ///     ..Default::default()
    /// };
    /// let constants = TokenConstants { reference_log_prob: statistics.log_prob.clone(), ..Default::default() };
    /// let dpo = Pairwise::new(dpo::Dpo::new(0.0)?, 0.1, Score::LOG_RATIO)?.weighted(Weighting::Wpo);
    /// let batch = TokenBatch::new(&dpo.requirements(), &statistics, &constants, &responses, &pairs, totals)?;
    /// let mut evaluation = Evaluation::default();
    /// dpo.evaluate(&batch, &mut ObjectiveState::default(), &mut evaluation);
    /// assert!((evaluation.loss - 0.5 * 2.0_f64.ln()).abs() < 1e-12);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn weighted(self, weighting: Weighting) -> Self {
        Self { weighting, ..self }
    }

    /// The loss that the declared parameters describe.
    ///
    /// # Errors
    ///
    /// [`ParameterError`] for a value out of range or without effect.
    pub(crate) fn read(reader: &Reader<'_>) -> Result<Self, ParameterError> {
        let declared = L::METHOD.parameters;
        let beta = reader.number(&L::BETA)?;
        let weighting = if declared.contains(&WEIGHTING) { reader.choice(&WEIGHTING)? } else { Weighting::None };
        Ok(Self::new(L::read(reader, beta)?, beta, L::SCORE.read(declared, reader)?)?.weighted(weighting))
    }
}

/// Builds a loss on pairs, for the registry.
///
/// # Errors
///
/// [`ParameterError`] for a parameter that is unknown, out of range or without effect.
///
/// # Examples
///
/// ```
/// let hinge = objective::preference::build::<objective::hinge::Hinge>(&[("beta".to_owned(), 0.5.into())].into())?;
/// assert_eq!(hinge.parameters()["beta"], 0.5.into());
/// # Ok::<(), objective::ParameterError>(())
/// ```
pub fn build<L: PairLoss + 'static>(given: &Parameters) -> Result<Box<dyn Objective>, ParameterError> {
    Ok(Box::new(Pairwise::<L>::read(&Reader::new(L::METHOD.name, L::METHOD.parameters, given)?)?))
}

/// With a tail weight of 0, tokens beyond the shorter response's length neither score nor learn:
///
/// ```
/// # use objective::{preference::*, *};
/// # let (responses, pairs) = ([Response::new(0..2), Response::new(2..3)], [Pair { chosen: 0, rejected: 1 }]);
/// # let totals = StepTotals::of(&responses, &pairs);
/// let statistics = TokenStatistics { log_prob: vec![-1.0, -1.0, -1.0], ..Default::default() };
/// let constants = TokenConstants { reference_log_prob: vec![-1.0, -9.0, -1.0], ..Default::default() };
/// let dpo = registry::build("dpo", &[("tail_weight".to_owned(), 0.0.into())].into())?;
/// let batch = TokenBatch::new(&dpo.requirements(), &statistics, &constants, &responses, &pairs, totals)?;
/// let mut evaluation = Evaluation::default();
/// dpo.evaluate(&batch, &mut ObjectiveState::default(), &mut evaluation);
/// assert_eq!(evaluation.loss, std::f64::consts::LN_2);
/// assert_eq!(evaluation.cotangents.log_prob, [-0.05, 0.0, 0.05]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl Score {
    /// The log-ratio to the reference, summed.
    pub const LOG_RATIO: Self =
        Self::Implicit { divergence: Divergence::ReverseKl, tail_weight: 1.0, normalisation: Normalisation::Sum };

    /// The log-ratio to the reference, averaged over the response's tokens.
    pub const MEAN_LOG_RATIO: Self =
        Self::Implicit { divergence: Divergence::ReverseKl, tail_weight: 1.0, normalisation: Normalisation::Mean };

    /// The score with those of its parts changed that are declared as parameters.
    fn read(self, declared: &[Parameter], reader: &Reader<'_>) -> Result<Self, ParameterError> {
        let Self::Implicit { mut divergence, mut tail_weight, mut normalisation } = self else { return Ok(self) };
        if declared.contains(&DIVERGENCE) {
            divergence = Divergence::read(reader)?;
        }
        if declared.contains(&TAIL_WEIGHT) {
            tail_weight = reader.number(&TAIL_WEIGHT)?;
        }
        if declared.contains(&NORMALISATION) {
            normalisation = reader.choice(&NORMALISATION)?;
        }
        Ok(Self::Implicit { divergence, tail_weight, normalisation })
    }

    /// Itself, if its parameters are in their ranges.
    ///
    /// # Errors
    ///
    /// [`ParameterError::Invalid`] with the owner, the range and the value.
    ///
    /// # Examples
    ///
    /// ```
    /// use objective::divergence::Divergence;
    /// use objective::preference::{Normalisation, Score};
    ///
    /// let (divergence, normalisation) = (Divergence::ReverseKl, Normalisation::Sum);
    /// let error = Score::Implicit { divergence, tail_weight: 2.0, normalisation }.check("dpo").unwrap_err();
    /// assert_eq!(error.to_string(), "dpo.tail_weight: expected a number, 0 <= tail_weight <= 1, got 2");
    /// ```
    pub fn check(self, owner: &'static str) -> Result<Self, ParameterError> {
        if let Self::Implicit { divergence, tail_weight, .. } = self {
            divergence.check(owner)?;
            TAIL_WEIGHT.check(owner, tail_weight)?;
        }
        Ok(self)
    }

    /// The parameters in force.
    fn parameters(&self) -> Parameters {
        match self {
            Self::Implicit { divergence, tail_weight, normalisation } => {
                let normalisation: &str = normalisation.into();
                let mut parameters = divergence.parameters();
                parameters.insert(TAIL_WEIGHT.name.to_owned(), (*tail_weight).into());
                parameters.insert(NORMALISATION.name.to_owned(), normalisation.into());
                parameters
            }
            Self::Likelihood { .. } => Parameters::new(),
        }
    }

    /// A response's score beside a response with which it has `shared` places in common.
    fn of(&self, batch: &TokenBatch<'_>, response: usize, shared: usize) -> Scored {
        let log_prob = batch.log_prob(response);
        let scale = |normalisation: Normalisation| match normalisation {
            Normalisation::Sum => 1.0,
            Normalisation::Mean => 1.0 / log_prob.len() as f64,
        };
        let sum = sum(log_prob);
        match *self {
            Self::Likelihood { normalisation } => {
                let scale = scale(normalisation);
                Scored { score: scale * sum, body: scale, tail: scale, sum, rewarded: scale * sum }
            }
            Self::Implicit { divergence, tail_weight, normalisation } => {
                let (body, tail) = batch.log_ratio_parts(response, shared);
                let (score, slope) = divergence.score(body + tail_weight * tail);
                let scale = scale(normalisation);
                let slope = scale * slope;
                Scored { score: scale * score, body: slope, tail: slope * tail_weight, sum, rewarded: body + tail }
            }
        }
    }
}

/// A response's score and what goes with it.
struct Scored {
    score: f64,
    /// Its derivative by the log-probability of a token up to the shorter response's length.
    body: f64,
    /// The same for a token beyond.
    tail: f64,
    /// The log-probability of the response, nats.
    sum: f64,
    /// What β scales to the implicit reward.
    rewarded: f64,
}

impl<L: PairLoss> Objective for Pairwise<L> {
    fn requirements(&self) -> Requirements {
        let statistics = match self.weighting {
            Weighting::None => Statistic::LogProb.into(),
            Weighting::Wpo => Statistic::LogProb | Statistic::LogSumSquareProb,
        };
        let constants = match self.score {
            Score::Implicit { .. } => Constant::ReferenceLogProb.into(),
            Score::Likelihood { .. } => EnumSet::empty(),
        };
        Requirements { statistics, constants, ..Requirements::new(Data::Preferences) }
    }

    fn parameters(&self) -> Parameters {
        let mut parameters = self.loss.own_parameters();
        parameters.insert(BETA.name.to_owned(), self.beta.into());
        parameters.extend(self.score.parameters());
        let weighting: &str = self.weighting.into();
        parameters.insert(WEIGHTING.name.to_owned(), weighting.into());
        // Of the score's, a loss declares those that may vary.
        parameters.retain(|name, _| L::METHOD.parameters.iter().any(|declared| declared.name == name));
        parameters
    }

    fn hold(&self, batch: &TokenBatch<'_>, _: &mut ObjectiveState, held: &mut Held) {
        if self.weighting == Weighting::Wpo {
            held.responses.extend(batch.pairs().iter().map(|pair| wpo_weight(batch, pair)));
        }
    }

    fn loss(&self, batch: &TokenBatch<'_>, held: &Held, out: &mut Evaluation) {
        let (score, share) = (self.score, 1.0 / batch.totals().pairs as f64);
        for (index, &Pair { chosen, rejected }) in batch.pairs().iter().enumerate() {
            let shared = batch.log_prob(chosen).len().min(batch.log_prob(rejected).len());
            let (w, l) = (score.of(batch, chosen, shared), score.of(batch, rejected, shared));
            let chosen_tokens = batch.log_prob(chosen).len() as f64;
            let scores = Scores { chosen: w.score, rejected: l.score, chosen_tokens };
            let gradient = self.loss.loss(self.beta, &scores);
            let share = share * held.responses.get(index).unwrap_or(&1.0);
            out.loss += share * gradient.loss;
            let mut silent = true;
            for (response, derivative, scored) in [(chosen, gradient.chosen, &w), (rejected, gradient.rejected, &l)] {
                let slots = &mut out.cotangents.log_prob[batch.responses()[response].tokens.clone()];
                let (body_slots, tail_slots) = slots.split_at_mut(shared);
                let (body, tail) = (share * derivative * scored.body, share * derivative * scored.tail);
                add(body_slots, body);
                add(tail_slots, tail);
                silent &= body == 0.0 && tail == 0.0;
            }

            let rewards = [w.rewarded, l.rewarded].map(|rewarded| self.beta * rewarded);
            record_pair([w.sum, l.sum], rewards, batch.log_prob(chosen).len(), &mut out.metrics);
            self.loss.record(&scores, &mut out.metrics);
            out.metrics.record(Metric::ZeroGradientPairs, f64::from(silent));
        }
    }
}

/// Weights are geometric means over tokens, so that the length of a response does not show in them:
///
/// ```
/// # use objective::{preference::*, *};
/// # let (responses, pairs) = ([Response::new(0..3), Response::new(3..4)], [Pair { chosen: 0, rejected: 1 }]);
/// # let totals = StepTotals::of(&responses, &pairs);
/// let statistics = TokenStatistics {
///     log_prob: [[0.25_f64.ln(); 3].as_slice(), &[0.5_f64.ln()]].concat(),
///     log_sum_square_prob: vec![0.5_f64.ln(); 4],
///     ..Default::default()
/// };
/// let constants = TokenConstants { reference_log_prob: statistics.log_prob.clone(), ..Default::default() };
/// let dpo = Pairwise::new(dpo::Dpo::new(0.0)?, 0.1, Score::LOG_RATIO)?.weighted(Weighting::Wpo);
/// # let batch = TokenBatch::new(&dpo.requirements(), &statistics, &constants, &responses, &pairs, totals)?;
/// # let mut evaluation = Evaluation::default();
/// dpo.evaluate(&batch, &mut ObjectiveState::default(), &mut evaluation);
/// assert!((evaluation.loss - 0.5 * 2.0_f64.ln()).abs() < 1e-12);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
/// How often the policy would sample a pair, relative to a policy that samples its own most probable tokens (WPO).
fn wpo_weight(batch: &TokenBatch<'_>, pair: &Pair) -> f64 {
    let aligned = |response: usize| {
        let column = &batch.statistics().log_sum_square_prob[batch.responses()[response].tokens.clone()];
        (sum(batch.log_prob(response)) - sum(column)) / column.len() as f64
    };
    (aligned(pair.chosen) + aligned(pair.rejected)).exp()
}

/// The metrics that every objective over pairs reports, from log-probabilities and implicit rewards of chosen and rejected.
pub(crate) fn record_pair(log_prob: [f64; 2], rewards: [f64; 2], chosen_tokens: usize, metrics: &mut Metrics) {
    let ([chosen, rejected], [reward_chosen, reward_rejected]) = (log_prob, rewards);
    metrics.record(Metric::RewardChosen, reward_chosen);
    metrics.record(Metric::RewardRejected, reward_rejected);
    metrics.record(Metric::RewardAccuracy, f64::from(reward_chosen > reward_rejected));
    metrics.record(Metric::RewardMargin, reward_chosen - reward_rejected);
    metrics.record(Metric::LogProbChosen, chosen);
    metrics.record(Metric::LogProbRejected, rejected);
    metrics.record_sum(Metric::NegativeLogLikelihood, -chosen, chosen_tokens);
}
