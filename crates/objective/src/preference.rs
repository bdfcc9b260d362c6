//! What losses on the scores of a pair share: scores from log-probabilities, cotangents back from them, metrics.
//!
//! A [`PairLoss`] is a function of two scores, one a response. This module computes the scores, pulls the loss's derivatives
//! back to the tokens, and takes the mean over the step's pairs.

use enumset::EnumSet;
use strum::{EnumString, IntoStaticStr, VariantNames};

use crate::Objective;
use crate::batch::{Pair, TokenBatch};
use crate::divergence::{DIVERGENCE, Divergence};
use crate::evaluation::{Evaluation, Metric, Metrics};
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Normalisation {
    /// The sum over the response.
    Sum,
    /// The mean over the response's tokens.
    Mean,
}

/// What a response is scored by.
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
    fn read(reader: &Reader<'_>, beta: f64) -> Result<Self, ParameterError>;

    /// Its own parameters in force.
    fn own_parameters(&self) -> Parameters {
        Parameters::new()
    }

    /// The loss of a pair, finite for all finite scores.
    fn loss(&self, beta: f64, scores: &Scores) -> PairGradient;

    /// Metrics of this loss alone.
    fn record(&self, _scores: &Scores, _metrics: &mut Metrics) {}
}

/// The mean over the step's pairs of a loss on their scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pairwise<L> {
    loss: L,
    /// Per nat: of log π − log π_ref summed over the response, or of the score itself where there is no reference.
    beta: f64,
    score: Score,
    weighting: Weighting,
}

impl<L: PairLoss> Pairwise<L> {
    /// A loss with the scale β of its implicit reward, on the given scores, every pair weighing the same.
    ///
    /// # Errors
    ///
    /// [`ParameterError::Invalid`] for a value out of its range.
    pub fn new(loss: L, beta: f64, score: Score) -> Result<Self, ParameterError> {
        let owner = L::METHOD.name;
        Ok(Self { loss, beta: L::BETA.check(owner, beta)?, score: score.check(owner)?, weighting: Weighting::None })
    }

    /// The same loss with its pairs weighted.
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
pub fn build<L: PairLoss + 'static>(given: &Parameters) -> Result<Box<dyn Objective>, ParameterError> {
    Ok(Box::new(Pairwise::<L>::read(&Reader::new(L::METHOD.name, L::METHOD.parameters, given)?)?))
}

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

    fn fill(&self, batch: &TokenBatch<'_>, _: &mut ObjectiveState, out: &mut Evaluation) {
        let (score, share) = (self.score, 1.0 / batch.totals().pairs as f64);
        for &Pair { chosen, rejected } in batch.pairs() {
            let shared = batch.log_prob(chosen).len().min(batch.log_prob(rejected).len());
            let (w, l) = (score.of(batch, chosen, shared), score.of(batch, rejected, shared));
            let chosen_tokens = batch.log_prob(chosen).len() as f64;
            let scores = Scores { chosen: w.score, rejected: l.score, chosen_tokens };
            let gradient = self.loss.loss(self.beta, &scores);
            let share = share * self.weight(batch, [(chosen, w.sum), (rejected, l.sum)]);
            out.loss += share * gradient.loss;
            for (response, derivative, scored) in [(chosen, gradient.chosen, &w), (rejected, gradient.rejected, &l)] {
                let slots = &mut out.cotangents.log_prob[batch.responses()[response].tokens.clone()];
                let (body_slots, tail_slots) = slots.split_at_mut(shared);
                let (body, tail) = (share * derivative * scored.body, share * derivative * scored.tail);
                body_slots.iter_mut().for_each(|slot| *slot += body);
                tail_slots.iter_mut().for_each(|slot| *slot += tail);
            }

            let rewards = [w.rewarded, l.rewarded].map(|rewarded| self.beta * rewarded);
            record_pair([w.sum, l.sum], rewards, batch.log_prob(chosen).len(), &mut out.metrics);
            self.loss.record(&scores, &mut out.metrics);
        }
    }
}

impl<L> Pairwise<L> {
    /// What the pair of these responses, with their log-probabilities, counts. A constant to the gradient.
    fn weight(&self, batch: &TokenBatch<'_>, responses: [(usize, f64); 2]) -> f64 {
        let aligned = |(response, log_prob): (usize, f64)| {
            let column = &batch.statistics().log_sum_square_prob[batch.responses()[response].tokens.clone()];
            (log_prob - sum(column)) / column.len() as f64
        };
        match self.weighting {
            Weighting::None => 1.0,
            Weighting::Wpo => responses.map(aligned).into_iter().sum::<f64>().exp(),
        }
    }
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
