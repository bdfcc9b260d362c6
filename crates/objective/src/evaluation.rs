//! What an objective answers: a loss, its cotangents, and metrics.

use enumset::EnumSet;
use strum::{EnumCount, EnumIter, IntoEnumIterator, IntoStaticStr};

use crate::batch::{TokenBatch, TokenStatistics};

/// A loss, its cotangents and metrics. The buffers are the caller's, to be used again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evaluation {
    /// The batch's share of the step's loss.
    pub loss: f64,
    /// ∂loss/∂statistic for each response token.
    pub cotangents: TokenStatistics,
    /// What the field logs beside the loss.
    pub metrics: Metrics,
    /// Numbers for objectives that need more than the cotangents' slots.
    pub(crate) scratch: Vec<f64>,
    /// Places in the scratch, for objectives that sort.
    pub(crate) order: Vec<usize>,
    /// What a term of a sum answers.
    pub(crate) term: Option<Box<Evaluation>>,
}

/// What the field logs beside a loss. One name means one quantity at one scale, whichever objective reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumCount, EnumIter, IntoStaticStr)]
pub enum Metric {
    /// Mean implicit reward of the chosen responses.
    #[strum(serialize = "rewards/chosen")]
    RewardChosen,
    /// Mean implicit reward of the rejected responses.
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
    /// Share of importance ratios that clipping holds back.
    #[strum(serialize = "clip_fraction")]
    ClipFraction,
    /// Mean entropy of the policy over tokens, nats.
    #[strum(serialize = "entropy")]
    Entropy,
    /// Mean of (V − R)²/2 over tokens, clipped where the loss is.
    #[strum(serialize = "value_loss")]
    ValueLoss,
    /// The shift of the rewards: their running mean.
    #[strum(serialize = "delta")]
    RewardShift,
}

/// Sums and counts, so that the metrics of micro-batches merge exactly.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    sums: [f64; Metric::COUNT],
    counts: [usize; Metric::COUNT],
}

impl Evaluation {
    /// Zero loss, zero cotangents for the batch's columns and no metrics.
    pub fn reset(&mut self, batch: &TokenBatch<'_>) {
        self.loss = 0.0;
        for statistic in EnumSet::all() {
            let slots = self.cotangents.column_mut(statistic);
            slots.clear();
            slots.resize(batch.statistics().column(statistic).len(), 0.0);
        }
        self.metrics = Metrics::default();
    }
}

impl Metrics {
    /// Counts one observation.
    pub fn record(&mut self, metric: Metric, value: f64) {
        self.record_sum(metric, value, 1);
    }

    /// Counts `count` observations by their sum.
    pub fn record_sum(&mut self, metric: Metric, sum: f64, count: usize) {
        self.sums[metric as usize] += sum;
        self.counts[metric as usize] += count;
    }

    /// Adds another batch's observations.
    pub fn merge(&mut self, other: &Metrics) {
        for metric in Metric::iter() {
            self.record_sum(metric, other.sums[metric as usize], other.counts[metric as usize]);
        }
    }

    /// The mean of what was observed, if anything was.
    pub fn mean(&self, metric: Metric) -> Option<f64> {
        match self.counts[metric as usize] {
            0 => None,
            count => Some(self.sums[metric as usize] / count as f64),
        }
    }

    /// Names and means of what was observed.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, f64)> + '_ {
        Metric::iter().filter_map(|metric| self.mean(metric).map(|mean| (metric.into(), mean)))
    }
}
