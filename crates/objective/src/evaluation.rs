//! Results of an objective: a loss, its cotangents, and metrics.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use strum::{EnumCount, EnumIter, IntoEnumIterator, IntoStaticStr};

use crate::Objective;
use crate::batch::{BatchError, StepTotals, TokenBatch, TokenColumns};
use crate::columns::{Statistic, TokenStatistics};
use crate::held::Held;
use crate::state::ObjectiveState;

/// A loss, its cotangents and metrics, in buffers that can be reused.
#[derive(Clone, Debug, Default)]
pub struct Evaluation {
    /// Contribution of the batch to the step's loss.
    pub loss: f64,
    pub(crate) cotangents: TokenStatistics,
    /// Metrics of the batch.
    pub metrics: Metrics,
    /// Scratch numbers for objectives that need more than the cotangents' slots.
    pub(crate) scratch: Vec<f64>,
    /// Scratch indices for objectives that sort.
    pub(crate) order: Vec<usize>,
    /// Held numbers of the batch.
    pub(crate) held: Held,
    /// Evaluation of a term of a sum.
    pub(crate) term: Option<Box<Evaluation>>,
}

/// Two evaluations are equal if their results are; the contents of scratch buffers are not compared.
impl PartialEq for Evaluation {
    fn eq(&self, other: &Self) -> bool {
        let Self { loss, cotangents, metrics, scratch: _, order: _, held: _, term: _ } = self;
        *loss == other.loss && *cotangents == other.cotangents && *metrics == other.metrics
    }
}

/// A metric. One name means one quantity at one scale for all objectives.
///
/// ```
/// use objective::Metric;
///
/// assert_eq!(<&str>::from(Metric::RewardMargin), "rewards/margins");
/// assert_eq!(<&str>::from(Metric::NegativeLogLikelihood), "nll");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumCount, EnumIter, IntoStaticStr)]
pub enum Metric {
    /// Mean implicit reward of the chosen responses, or score.
    #[strum(serialize = "rewards/chosen")]
    RewardChosen,
    /// Mean implicit reward of the rejected responses, or score.
    #[strum(serialize = "rewards/rejected")]
    RewardRejected,
    /// Share of pairs whose chosen response has the greater implicit reward.
    #[strum(serialize = "rewards/accuracies")]
    RewardAccuracy,
    /// Mean difference of the implicit rewards.
    #[strum(serialize = "rewards/margins")]
    RewardMargin,
    /// Mean over chosen responses of the summed log-probability, nats.
    #[strum(serialize = "log_prob/chosen")]
    LogProbChosen,
    /// Mean over rejected responses of the summed log-probability, nats.
    #[strum(serialize = "log_prob/rejected")]
    LogProbRejected,
    /// Mean log-odds of the chosen responses, nats.
    #[strum(serialize = "log_odds/chosen")]
    LogOddsChosen,
    /// Mean log-odds of the rejected responses, nats.
    #[strum(serialize = "log_odds/rejected")]
    LogOddsRejected,
    /// Mean difference of the log-odds, nats.
    #[strum(serialize = "log_odds_ratio")]
    LogOddsRatio,
    /// Mean −log π over the tokens of demonstrated or chosen responses, nats.
    #[strum(serialize = "nll")]
    NegativeLogLikelihood,
    /// Mean KL(π || π_ref) over a response, estimated from mismatched responses or from sampled tokens, nats.
    #[strum(serialize = "kl")]
    Kl,
    /// Mean reward of sampled responses.
    #[strum(serialize = "reward")]
    Reward,
    /// Mean over groups of the standard deviation (with n − 1) of the rewards in the group, which is 0 for a group of
    /// one.
    #[strum(serialize = "reward_standard_deviation")]
    RewardStandardDeviation,
    /// Share of groups whose responses all have an advantage of 0: groups of one, and groups of equal rewards.
    #[strum(serialize = "zero_advantage_groups")]
    ZeroAdvantageGroups,
    /// Share of pairs whose cotangents are all 0, for example because their margin is beyond a hinge.
    #[strum(serialize = "zero_gradient_pairs")]
    ZeroGradientPairs,
    /// Share of importance ratios that have no gradient because they are clipped.
    #[strum(serialize = "clip_fraction")]
    ClipFraction,
    /// Share of importance ratios that are clipped at the lower bound.
    #[strum(serialize = "clip_fraction_low")]
    ClipFractionLow,
    /// Share of importance ratios that are clipped at the upper bound.
    #[strum(serialize = "clip_fraction_high")]
    ClipFractionHigh,
    /// Mean divergence between a teacher and the policy over tokens, nats.
    #[strum(serialize = "teacher_divergence")]
    TeacherDivergence,
    /// Share of tokens that a correction for the sampler takes out of the policy's loss.
    #[strum(serialize = "rejected")]
    Rejected,
    /// Mean entropy of the policy over tokens, nats.
    #[strum(serialize = "entropy")]
    Entropy,
    /// Mean of (V − R)²/2 over tokens, clipped where the loss is.
    #[strum(serialize = "value_loss")]
    ValueLoss,
    /// Shift of the rewards, which is their running mean.
    #[strum(serialize = "delta")]
    RewardShift,
}

/// Sums and counts, so that the metrics of micro-batches merge exactly.
///
/// ```
/// use objective::{Metric, Metrics};
///
/// let (mut step, mut micro_batch) = (Metrics::default(), Metrics::default());
/// step.record_sum(Metric::Reward, 2.0, 2);
/// micro_batch.record(Metric::Reward, 4.0);
/// step.merge(&micro_batch);
/// assert_eq!(step.mean(Metric::Reward), Some(2.0)); // (2 + 4) / 3, not the mean of the means 1 and 4
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    sums: [f64; Metric::COUNT],
    counts: [usize; Metric::COUNT],
}

impl Evaluation {
    /// Evaluates columns that are a part of a step with these totals, or a whole step. The buffers are reused.
    ///
    /// Hosts that store responses in flat columns call this function; others use an [`Evaluator`](crate::Evaluator).
    ///
    /// ```
    /// use objective::*;
    ///
    /// let statistics = TokenStatistics { log_prob: vec![-1.0, -2.0], ..TokenStatistics::default() };
    /// let (constants, responses) = (TokenConstants::default(), [Response::new(0..2)]);
    /// let (constants, responses) = (&constants, &responses);
    /// let columns = TokenColumns { statistics: &statistics, constants, responses, pairs: &[] };
    /// let (totals, mut state) = (StepTotals::of(responses, &[]), ObjectiveState::default());
    /// let mut evaluation = Evaluation::default();
    /// evaluation.update(&Sft::default(), &mut state, &columns, totals)?;
    /// assert_eq!((evaluation.loss, &evaluation.cotangents().log_prob[..]), (1.5, &[-0.5, -0.5][..]));
    /// Ok::<(), objective::BatchError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`BatchError`] for columns that do not fit the objective or one another; the state is then unchanged.
    pub fn update(
        &mut self,
        objective: &dyn Objective,
        state: &mut ObjectiveState,
        columns: &TokenColumns<'_>,
        totals: StepTotals,
    ) -> Result<(), BatchError> {
        let batch = TokenBatch::new(&objective.requirements(), &columns.into(), Some(totals))?;
        self.evaluate(objective, &batch, state);
        Ok(())
    }

    /// Evaluates columns with the held numbers of another evaluation. The cotangents are the derivatives of this loss.
    ///
    /// # Errors
    ///
    /// As [`update`](Self::update).
    pub fn update_held(
        &mut self,
        objective: &dyn Objective,
        held: &Held,
        columns: &TokenColumns<'_>,
        totals: StepTotals,
    ) -> Result<(), BatchError> {
        let batch = TokenBatch::new(&objective.requirements(), &columns.into(), Some(totals))?;
        self.evaluate_held(objective, &batch, held);
        Ok(())
    }

    /// Cotangents ∂loss/∂statistic of each response token of the last evaluation.
    pub fn cotangents(&self) -> &TokenStatistics {
        &self.cotangents
    }

    /// Slots for an objective's cotangents: one for each of these tokens, 0 until the objective adds something.
    ///
    /// Writing the responses in the order of the batch is fastest.
    pub fn slots(&mut self, statistic: Statistic, tokens: Range<usize>) -> &mut [f64] {
        self.cotangents.slots(statistic, tokens)
    }

    /// Numbers behind a stop-gradient in the last evaluation.
    pub fn held(&self) -> &Held {
        &self.held
    }

    pub(crate) fn evaluate(&mut self, objective: &dyn Objective, batch: &TokenBatch<'_>, state: &mut ObjectiveState) {
        let mut held = std::mem::take(&mut self.held);
        held.clear();
        objective.hold(batch, state, &mut held);
        self.evaluate_held(objective, batch, &held);
        self.held = held;
    }

    pub(crate) fn evaluate_held(&mut self, objective: &dyn Objective, batch: &TokenBatch<'_>, held: &Held) {
        let (statistics, tokens) = (batch.statistics(), batch.tokens());
        self.loss = 0.0;
        self.metrics = Metrics::default();
        self.cotangents.clear(statistics, tokens);
        objective.loss(batch, held, self);
        self.cotangents.fill_up(statistics, tokens);
        self.metrics.merge(&held.metrics);
    }
}

/// A metric without observations has no mean and is not listed:
///
/// ```
/// use objective::{Metric, Metrics};
///
/// let mut metrics = Metrics::default();
/// metrics.record_sum(Metric::Kl, 0.0, 0);
/// assert_eq!((metrics.mean(Metric::Kl), metrics.iter().count()), (None, 0));
/// ```
impl Metrics {
    /// Records one observation.
    ///
    /// ```
    /// use objective::{Metric, Metrics};
    ///
    /// let mut metrics = Metrics::default();
    /// [1.0, 0.0, 1.0, 1.0].into_iter().for_each(|right| metrics.record(Metric::RewardAccuracy, right));
    /// assert_eq!(metrics.mean(Metric::RewardAccuracy), Some(0.75));
    /// ```
    pub fn record(&mut self, metric: Metric, value: f64) {
        self.record_sum(metric, value, 1);
    }

    /// Records `count` observations by their sum.
    ///
    /// ```
    /// use objective::{Metric, Metrics};
    ///
    /// let mut metrics = Metrics::default();
    /// metrics.record_sum(Metric::ClipFraction, 1.0, 4); // 1 of 4 ratios clipped
    /// assert_eq!(metrics.mean(Metric::ClipFraction), Some(0.25));
    /// ```
    pub fn record_sum(&mut self, metric: Metric, sum: f64, count: usize) {
        self.sums[metric as usize] += sum;
        self.counts[metric as usize] += count;
    }

    /// Adds the observations of another batch.
    ///
    /// ```
    /// use objective::{Metric, Metrics};
    ///
    /// let (mut metrics, mut other) = (Metrics::default(), Metrics::default());
    /// metrics.record(Metric::Kl, 0.5);
    /// other.record(Metric::Reward, 1.0);
    /// metrics.merge(&other);
    /// assert_eq!((metrics.mean(Metric::Kl), metrics.mean(Metric::Reward)), (Some(0.5), Some(1.0)));
    /// ```
    pub fn merge(&mut self, other: &Metrics) {
        for metric in Metric::iter() {
            self.record_sum(metric, other.sums[metric as usize], other.counts[metric as usize]);
        }
    }

    /// Mean of the observations, if there are any.
    ///
    /// ```
    /// use objective::{Metric, Metrics};
    ///
    /// let mut metrics = Metrics::default();
    /// assert_eq!(metrics.mean(Metric::Entropy), None);
    /// metrics.record_sum(Metric::Entropy, 3.0, 2);
    /// assert_eq!(metrics.mean(Metric::Entropy), Some(1.5));
    /// ```
    pub fn mean(&self, metric: Metric) -> Option<f64> {
        match self.counts[metric as usize] {
            0 => None,
            count => Some(self.sums[metric as usize] / count as f64),
        }
    }

    /// Names and means of the metrics with observations.
    ///
    /// ```
    /// use objective::{Metric, Metrics};
    ///
    /// let mut metrics = Metrics::default();
    /// metrics.record(Metric::Reward, 1.0);
    /// metrics.record(Metric::RewardChosen, 0.5);
    /// assert_eq!(metrics.iter().collect::<Vec<_>>(), [("rewards/chosen", 0.5), ("reward", 1.0)]);
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, f64)> + '_ {
        Metric::iter().filter_map(|metric| self.mean(metric).map(|mean| (metric.into(), mean)))
    }
}
