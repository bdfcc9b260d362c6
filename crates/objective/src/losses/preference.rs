//! Losses on pairs: scores of the responses from their log-probabilities, and cotangents back to the tokens.
//!
//! A [`MarginLoss`] is a function of the difference of two scores, a [`PairLoss`] one of both. This module computes the
//! scores, pulls the derivatives back to the tokens, and takes the mean over the step's pairs.

use std::ops::Range;

use enumset::EnumSet;
use strum::{EnumString, IntoStaticStr, VariantNames};

use crate::batch::{Pair, TokenBatch};
use crate::columns::{Constant, Statistic};
use crate::evaluation::{Evaluation, Metric, Metrics};
use crate::held::Held;
use crate::losses::divergence::Divergence;
use crate::numerics::sum;
use crate::parameter::choices;
use crate::requirements::{Data, Requirements, Source};
use crate::state::ObjectiveState;

/// Weights of pairs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum PairWeighting {
    /// All pairs have the same weight.
    #[default]
    None,
    /// Each pair is weighted by how likely the policy is to sample it: the product over both responses of exp (1/N) Σₜ
    /// (log π(yₜ|sₜ) − log Σₐ π(a|sₜ)²), behind a stop-gradient. It is 1 where the responses are such as the policy
    /// samples (W. Zhou et al., "WPO: Enhancing RLHF with Weighted Preference Optimization", arXiv 2406.11827, equation
    /// 2, with its alignment of the weights).
    Wpo,
}

/// How a score combines the tokens of a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Reduction {
    /// The sum over the response's tokens.
    Sum,
    /// The mean over the response's tokens.
    #[default]
    Mean,
}

choices!(PairWeighting, Reduction);

/// The score of a response.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Score {
    /// Σₜ wₜ (log π − log π_ref) transformed by a divergence; wₜ is 1 up to the shorter response's length, and
    /// `tail_weight` beyond.
    Implicit { divergence: Divergence, order: f64, tail_weight: f64, reduction: Reduction },
    /// Log-probabilities log π, without a reference.
    Likelihood(Reduction),
}

impl Score {
    /// The log-ratio to the reference, summed.
    pub(crate) const LOG_RATIO: Self =
        Self::Implicit { divergence: Divergence::ReverseKl, order: 0.0, tail_weight: 1.0, reduction: Reduction::Sum };
}

/// The scores of a pair, and the number of tokens in its chosen response.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scores {
    pub(crate) chosen: f64,
    pub(crate) rejected: f64,
    pub(crate) chosen_tokens: f64,
}

/// Loss of a pair, and its derivatives by the scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct PairGradient {
    pub(crate) loss: f64,
    pub(crate) chosen: f64,
    pub(crate) rejected: f64,
}

/// A loss on the scores of a pair.
pub(crate) trait PairLoss {
    /// Scale of the implicit reward, per nat.
    fn beta(&self) -> f64;

    /// Score of the responses.
    fn score(&self) -> Score {
        Score::LOG_RATIO
    }

    /// Weights of the pairs.
    fn weighting(&self) -> PairWeighting {
        PairWeighting::None
    }

    /// Origin of the pairs.
    fn source(&self) -> Source {
        Source::Given
    }

    /// The loss of a pair, finite for all finite scores.
    fn pair(&self, scores: &Scores) -> PairGradient;

    /// Metrics of this loss alone.
    fn record(&self, _scores: &Scores, _metrics: &mut Metrics) {}
}

/// A loss on the margin of a pair, z = scale · (chosen score − rejected score).
pub(crate) trait MarginLoss {
    /// Scale of the implicit reward, per nat.
    fn beta(&self) -> f64;

    /// Scale of the margin, β by default.
    fn scale(&self) -> f64 {
        self.beta()
    }

    /// Score of the responses.
    fn score(&self) -> Score;

    /// Weights of the pairs.
    fn weighting(&self) -> PairWeighting {
        PairWeighting::None
    }

    /// Origin of the pairs.
    fn source(&self) -> Source {
        Source::Given
    }

    /// The loss at a margin and its slope, finite for all finite margins.
    fn margin(&self, z: f64) -> (f64, f64);
}

impl<L: MarginLoss> PairLoss for L {
    fn beta(&self) -> f64 {
        MarginLoss::beta(self)
    }

    fn score(&self) -> Score {
        MarginLoss::score(self)
    }

    fn weighting(&self) -> PairWeighting {
        MarginLoss::weighting(self)
    }

    fn source(&self) -> Source {
        MarginLoss::source(self)
    }

    fn pair(&self, scores: &Scores) -> PairGradient {
        let scale = self.scale();
        let (loss, slope) = self.margin(scale * (scores.chosen - scores.rejected));
        PairGradient { loss, chosen: scale * slope, rejected: -scale * slope }
    }
}

/// Implements the methods that depend on the parameters of DPO's family: β, the score, and the weights of the pairs.
macro_rules! implicit_score {
    ($own:ident: $tail_weight:expr, $reduction:expr) => {
        fn beta(&self) -> f64 {
            self.beta
        }

        fn score(&self) -> $crate::losses::preference::Score {
            let $own = self;
            $crate::losses::preference::Score::Implicit {
                divergence: $own.divergence,
                order: $own.divergence_alpha,
                tail_weight: $tail_weight,
                reduction: $reduction,
            }
        }

        fn weighting(&self) -> $crate::losses::preference::PairWeighting {
            self.weighting
        }
    };
}
pub(crate) use implicit_score;

/// Score of a response, and quantities for its derivatives and metrics.
struct Scored {
    score: f64,
    /// Derivative of the score by the log-probability of a token up to the shorter response's length.
    body: f64,
    /// Derivative of the score by the log-probability of a token beyond the shorter response's length.
    tail: f64,
    /// Log-probability of the response, nats.
    sum: f64,
    /// Number that β scales to the implicit reward.
    rewarded: f64,
}

impl Score {
    /// Scores a response of a pair. `shared` is the length of the shorter response.
    fn of(&self, batch: &TokenBatch<'_>, response: usize, shared: usize) -> Scored {
        let log_prob = batch.log_prob(response);
        let scale = |reduction: Reduction| match reduction {
            Reduction::Sum => 1.0,
            Reduction::Mean => 1.0 / log_prob.len() as f64,
        };
        match *self {
            Self::Likelihood(reduction) => {
                let (scale, sum) = (scale(reduction), sum(log_prob));
                Scored { score: scale * sum, body: scale, tail: scale, sum, rewarded: scale * sum }
            }
            Self::Implicit { divergence, order, tail_weight, reduction } => {
                let reference = batch.constant(Constant::ReferenceLogProb, response);
                let (body_sum, body) = sums(&log_prob[..shared], &reference[..shared]);
                let (tail_sum, tail) = sums(&log_prob[shared..], &reference[shared..]);
                let sum = body_sum + tail_sum;
                let (score, slope) = divergence.score(order, body + tail_weight * tail);
                let scale = scale(reduction);
                let slope = scale * slope;
                Scored { score: scale * score, body: slope, tail: slope * tail_weight, sum, rewarded: body + tail }
            }
        }
    }
}

pub(crate) fn requirements<L: PairLoss>(loss: &L) -> Requirements {
    let statistics = match loss.weighting() {
        PairWeighting::None => Statistic::LogProb.into(),
        PairWeighting::Wpo => Statistic::LogProb | Statistic::LogSumSquareProb,
    };
    let constants = match loss.score() {
        Score::Implicit { .. } => Constant::ReferenceLogProb.into(),
        Score::Likelihood(_) => EnumSet::empty(),
    };
    Requirements { statistics, constants, source: loss.source(), weights: true, ..Requirements::new(Data::Preferences) }
}

pub(crate) fn hold<L: PairLoss>(loss: &L, batch: &TokenBatch<'_>, _: &mut ObjectiveState, held: &mut Held) {
    if loss.weighting() == PairWeighting::Wpo {
        held.responses.extend(batch.pairs().iter().map(|pair| wpo_weight(batch, pair)));
    }
}

pub(crate) fn loss<L: PairLoss>(own: &L, batch: &TokenBatch<'_>, held: &Held, out: &mut Evaluation) {
    let (score, beta, share) = (own.score(), own.beta(), 1.0 / batch.totals().pairs as f64);
    for (index, &Pair { chosen, rejected }) in batch.pairs().iter().enumerate() {
        let shared = batch.log_prob(chosen).len().min(batch.log_prob(rejected).len());
        let (w, l) = (score.of(batch, chosen, shared), score.of(batch, rejected, shared));
        let chosen_tokens = batch.log_prob(chosen).len();
        let scores = Scores { chosen: w.score, rejected: l.score, chosen_tokens: chosen_tokens as f64 };
        let gradient = own.pair(&scores);
        let share = share * batch.weight(chosen) * held.responses.get(index).unwrap_or(&1.0);
        out.loss += share * gradient.loss;
        let mut silent = true;
        for (response, derivative, scored) in [(chosen, gradient.chosen, &w), (rejected, gradient.rejected, &l)] {
            let Range { start, end } = batch.responses()[response].tokens;
            let (body, tail) = (share * derivative * scored.body, share * derivative * scored.tail);
            out.cotangents.add(Statistic::LogProb, start..start + shared, body);
            out.cotangents.add(Statistic::LogProb, start + shared..end, tail);
            silent &= body == 0.0 && tail == 0.0;
        }
        record_pair([w.sum, l.sum], [beta * w.rewarded, beta * l.rewarded], chosen_tokens, &mut out.metrics);
        own.record(&scores, &mut out.metrics);
        out.metrics.record(Metric::ZeroGradientPairs, f64::from(silent));
    }
}

/// Probability that the policy would sample a pair, relative to a policy that samples its own most probable tokens.
/// Geometric means over tokens remove the influence of the responses' lengths.
fn wpo_weight(batch: &TokenBatch<'_>, pair: &Pair) -> f64 {
    let aligned = |response: usize| {
        let column = batch.statistic(Statistic::LogSumSquareProb, response);
        (sum(batch.log_prob(response)) - sum(column)) / column.len() as f64
    };
    (aligned(pair.chosen) + aligned(pair.rejected)).exp()
}

/// The metrics that every objective over pairs reports, from log-probabilities and implicit rewards of chosen and
/// rejected.
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

/// Σ a and Σ (a − b), in one pass.
fn sums(a: &[f64], b: &[f64]) -> (f64, f64) {
    const LANES: usize = 8;
    let ((a_chunks, a_rest), (b_chunks, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let (mut own, mut differences) = ([0.0; LANES], [0.0; LANES]);
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for ((own, difference), (a, b)) in own.iter_mut().zip(&mut differences).zip(a.iter().zip(b)) {
            *own += a;
            *difference += a - b;
        }
    }
    let rest = a_rest.iter().zip(b_rest).map(|(a, b)| a - b);
    (own.iter().chain(a_rest).sum(), differences.into_iter().chain(rest).sum())
}
