//! Losses on desirable and undesirable responses: rewards, their shift, cotangents, metrics.
//!
//! With r = β (log π − log π_ref) a response's reward, b the shift and w the weight of its label, the loss is the mean
//! over the step's labelled responses of w ℓ(r − b) for desirable and w ℓ(b − r) for undesirable ones; a [`LabelLoss`]
//! defines ℓ, b and w. No gradient passes through b.

use crate::batch::{Feedback, TokenBatch};
use crate::columns::{Constant, Statistic};
use crate::evaluation::{Evaluation, Metric, Metrics};
use crate::held::Held;
use crate::numerics::{sigmoid, sum};
use crate::requirements::{Coupling, Data, Requirements};
use crate::state::ObjectiveState;

/// Mean rewards of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rewards {
    /// Number of labelled responses.
    pub(crate) count: usize,
    /// Mean reward of the labelled responses.
    pub(crate) mean: f64,
    /// Mean reward of the mismatched responses; 0 without any.
    pub(crate) mismatched: f64,
}

/// A loss on the reward of a single response.
pub(crate) trait LabelLoss {
    /// Whether the shift couples the responses of a step.
    const COUPLING: Coupling;

    /// Whether the shift is estimated from mismatched responses.
    const MISMATCHED: bool;

    /// Scale of the implicit reward, per nat.
    fn beta(&self) -> f64;

    /// Weight of a label.
    fn weight(&self, _desirable: bool) -> f64 {
        1.0
    }

    /// Shift that rewards are compared with.
    fn shift(&self, _rewards: &Rewards, _state: &mut ObjectiveState) -> f64 {
        0.0
    }

    /// The loss at a margin, and its slope. The margin is the reward minus the shift, with the opposite sign for an
    /// undesirable response.
    fn label(&self, margin: f64) -> (f64, f64);

    /// Metrics of the shift.
    fn record(&self, _shift: f64, _metrics: &mut Metrics) {}
}

/// The loss 1 − σ(x), bounded on both sides, and its slope.
pub(crate) fn bounded(margin: f64) -> (f64, f64) {
    let wrong = sigmoid(-margin);
    (wrong, -wrong * sigmoid(margin))
}

/// Pairs (prompt, response) of a step in which no prompt has its own response: each prompt has the response of the next
/// one. A step of one response has no such pairs.
///
/// ```
/// assert_eq!(objective::mismatches(3).collect::<Vec<_>>(), [(0, 1), (1, 2), (2, 0)]);
/// assert_eq!(objective::mismatches(1).count(), 0);
/// ```
pub fn mismatches(responses: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..responses).filter(move |_| responses > 1).map(move |prompt| (prompt, (prompt + 1) % responses))
}

pub(crate) fn requirements<L: LabelLoss>(_: &L) -> Requirements {
    Requirements {
        coupling: L::COUPLING,
        constants: Constant::ReferenceLogProb.into(),
        weights: true,
        ..Requirements::new(Data::Labelled { mismatched: L::MISMATCHED })
    }
}

pub(crate) fn hold<L: LabelLoss>(loss: &L, batch: &TokenBatch<'_>, state: &mut ObjectiveState, held: &mut Held) {
    let shift = loss.shift(&summarise(loss.beta(), batch), state);
    held.responses.push(shift);
    loss.record(shift, &mut held.metrics);
}

pub(crate) fn loss<L: LabelLoss>(own: &L, batch: &TokenBatch<'_>, held: &Held, out: &mut Evaluation) {
    let Evaluation { loss, cotangents, metrics, .. } = out;
    let (beta, shift, share) = (own.beta(), held.responses[0], 1.0 / batch.totals().responses as f64);
    for (index, response) in batch.responses().iter().enumerate() {
        let (desirable, sign) = match response.feedback {
            Feedback::Desirable => (true, 1.0),
            Feedback::Undesirable => (false, -1.0),
            Feedback::Mismatched | Feedback::None | Feedback::Group(_) => continue,
        };
        let reward = beta * batch.log_ratio(index);
        let weight = share * batch.weight(index) * own.weight(desirable);
        let (value, slope) = own.label(sign * (reward - shift));
        *loss += weight * value;
        cotangents.add(Statistic::LogProb, response.tokens.clone(), weight * sign * beta * slope);

        let log_prob = batch.log_prob(index);
        let total = sum(log_prob);
        if desirable {
            metrics.record(Metric::RewardChosen, reward);
            metrics.record(Metric::LogProbChosen, total);
            metrics.record_sum(Metric::NegativeLogLikelihood, -total, log_prob.len());
        } else {
            metrics.record(Metric::RewardRejected, reward);
            metrics.record(Metric::LogProbRejected, total);
        }
    }
}

fn summarise(beta: f64, batch: &TokenBatch<'_>) -> Rewards {
    let (mut sums, mut counts) = ([0.0; 2], [0; 2]);
    for (index, response) in batch.responses().iter().enumerate() {
        let kind = usize::from(!response.is_learned());
        sums[kind] += beta * batch.log_ratio(index);
        counts[kind] += 1;
    }
    let [count, mismatched] = counts;
    Rewards { count, mean: sums[0] / count.max(1) as f64, mismatched: sums[1] / mismatched.max(1) as f64 }
}
