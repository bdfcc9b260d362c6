//! Held numbers of policy gradients: advantages, weights of tokens, corrections and masks.

use std::ops::Range;

use super::advantage::{compare, discounted, standardise, whiten};
use super::aggregation::Counts;
use super::correction::is_stale;
use super::covariance::greatest;
use super::divergence::Estimates;
use super::exponentials::{BLOCK, for_each_ratio};
use super::numbers::Numbers;
use super::ratio::log_ratio;
use super::trust_region::{
    Bounded, Clip, TOKEN_BOUND, Weight, capped, gamma_density, log_weight, tapered, within_binary_kl,
    within_total_variation,
};
use super::{Advantage, Aggregation, Correction, Place, PolicyGradient, Ratio, Rewards, TrustRegion};
use crate::batch::TokenBatch;
use crate::columns::Constant;
use crate::evaluation::{Metric, Metrics};
use crate::held::Held;
use crate::numerics::{exponential, sum};

/// Numbers of clipped importance ratios, by bound, and of all ratios.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Clipped {
    below: usize,
    above: usize,
    ratios: usize,
}

impl Clipped {
    /// Counts a ratio, under the bound at which it is clipped, if any.
    pub(super) fn count(&mut self, bound: Option<Bounded>) {
        self.ratios += 1;
        match bound {
            Some(Bounded::Below) => self.below += 1,
            Some(Bounded::Above) => self.above += 1,
            None => {}
        }
    }

    /// Counts ratios of which none is clipped.
    pub(super) fn count_free(&mut self, ratios: usize) {
        self.ratios += ratios;
    }

    /// Records the shares of clipped ratios as metrics, if there are ratios.
    pub(super) fn record(self, metrics: &mut Metrics) {
        metrics.record_sum(Metric::ClipFraction, (self.below + self.above) as f64, self.ratios);
        metrics.record_sum(Metric::ClipFractionLow, self.below as f64, self.ratios);
        metrics.record_sum(Metric::ClipFractionHigh, self.above as f64, self.ratios);
    }
}

/// Columns of held numbers for a choice of parameters, with one number per token each.
#[derive(Clone, Copy)]
struct Columns {
    advantages: bool,
    weights: bool,
    shares: bool,
    penalties: bool,
    anchors: bool,
}

impl Columns {
    fn of(own: &PolicyGradient) -> Self {
        let selects = own.has_covariance();
        Self {
            advantages: own.advantage == Advantage::Batch || selects,
            weights: own.trust_region.is_weighted()
                || own.trust_region == TrustRegion::ClipCov
                || own.correction != Correction::None
                || own.entropy_share < 1.0,
            shares: own.correction.rejects(),
            penalties: own.trust_region == TrustRegion::KlCov,
            anchors: own.ratio == Ratio::SequenceToken,
        }
    }

    fn count(self) -> usize {
        let columns = [self.advantages, self.weights, self.shares, self.penalties, self.anchors];
        columns.map(usize::from).into_iter().sum()
    }
}

/// Held numbers of a batch, in the form that the loss reads.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    by_response: &'a [f64],
    responses: usize,
    given: &'a [f64],
    advantages: Option<&'a [f64]>,
    weights: Option<&'a [f64]>,
    shares: Option<&'a [f64]>,
    penalties: Option<&'a [f64]>,
    anchors: Option<&'a [f64]>,
}

impl<'a> View<'a> {
    pub(super) fn of(own: &PolicyGradient, batch: &TokenBatch<'a>, held: &'a Held) -> Self {
        let columns = Columns::of(own);
        let tokens = held.tokens.len().checked_div(columns.count()).unwrap_or(0);
        let mut rest = held.tokens.as_slice();
        let mut next = |present: bool| {
            let (column, others) = rest.split_at(if present { tokens } else { 0 });
            rest = others;
            present.then_some(column)
        };
        let (advantages, weights) = (next(columns.advantages), next(columns.weights));
        let (shares, penalties) = (next(columns.shares), next(columns.penalties));
        let anchors = next(columns.anchors);
        Self {
            by_response: &held.responses,
            responses: batch.responses().len(),
            given: if own.advantage.is_column() { batch.columns().advantage } else { &[] },
            advantages,
            weights,
            shares,
            penalties,
            anchors,
        }
    }

    /// Advantages of a response's tokens.
    pub(super) fn advantage(&self, response: usize, tokens: Range<usize>) -> Numbers<'a> {
        match self.advantages {
            Some(column) => Numbers::Each(&column[tokens]),
            None if self.given.is_empty() => Numbers::Same(self.by_response[response]),
            None => of_column(self.given, self.responses, response, tokens),
        }
    }

    /// Weight of each of a response's tokens in the step.
    pub(super) fn share(&self, response: usize, tokens: Range<usize>) -> Numbers<'a> {
        match self.shares {
            Some(column) => Numbers::Each(&column[tokens]),
            None => Numbers::Same(self.by_response[self.responses + response]),
        }
    }

    /// Weights of the tokens in the policy's loss, if they differ.
    pub(super) fn weights(&self, tokens: Range<usize>) -> Option<&'a [f64]> {
        self.weights.map(|column| &column[tokens])
    }

    /// log π of each token minus the log-ratio of its response, if each token passes only its own gradient.
    pub(super) fn anchors(&self, tokens: Range<usize>) -> Option<&'a [f64]> {
        self.anchors.map(|column| &column[tokens])
    }

    /// Weights of the penalised absolute log-ratios.
    pub(super) fn penalties(&self, tokens: Range<usize>) -> Option<&'a [f64]> {
        self.penalties.map(|column| &column[tokens])
    }
}

/// Numbers of a response in a column with one number per response or per token.
fn of_column(column: &[f64], responses: usize, response: usize, tokens: Range<usize>) -> Numbers<'_> {
    if column.len() == responses { Numbers::Same(column[response]) } else { Numbers::Each(&column[tokens]) }
}

/// Groups of a batch: ranges of responses to one prompt.
fn groups<'a>(batch: &TokenBatch<'a>) -> impl Iterator<Item = Range<usize>> + use<'a> {
    let batch = *batch;
    let mut begin = 0;
    std::iter::from_fn(move || {
        let own = begin;
        let first = batch.group(own)?;
        while batch.group(begin) == Some(first) {
            begin += 1;
        }
        Some(own..begin)
    })
}

/// Fills the held numbers of a batch. `responses` has the advantages, unless they are a column, and then the weights.
pub(super) fn hold(own: &PolicyGradient, batch: &TokenBatch<'_>, held: &mut Held) {
    let tokens = batch.tokens();
    let responses = batch.responses().len();
    let columns = Columns::of(own);
    let Held { tokens: all, responses: by_response, metrics, order, scratch, .. } = held;
    by_response.resize(2 * responses, 0.0);
    let (scores, shares_by_response) = by_response.split_at_mut(responses);
    all.resize(columns.count() * tokens, 0.0);
    let mut rest = all.as_mut_slice();
    let mut next = |present: bool| {
        let (column, others) = std::mem::take(&mut rest).split_at_mut(if present { tokens } else { 0 });
        rest = others;
        column
    };
    let (advantages, weights) = (next(columns.advantages), next(columns.weights));
    let (shares, penalties) = (next(columns.shares), next(columns.penalties));
    let anchors = next(columns.anchors);

    if !own.advantage.is_column() {
        fill_scores(own, batch, scores, advantages, (&mut *order, &mut *scratch), metrics);
    }
    if columns.advantages && own.advantage != Advantage::Batch {
        for (index, response) in batch.responses().iter().enumerate() {
            let numbers = match own.advantage.is_column() {
                true => of_column(batch.columns().advantage, responses, index, response.tokens.clone()),
                false => Numbers::Same(scores[index]),
            };
            for (token, slot) in advantages[response.tokens.clone()].iter_mut().enumerate() {
                *slot = numbers.at(token);
            }
        }
    }
    let advantage_of = |index: usize, place: Range<usize>| match (columns.advantages, own.advantage.is_column()) {
        (true, _) => Numbers::Each(&advantages[place]),
        (false, true) => of_column(batch.columns().advantage, responses, index, place),
        (false, false) => Numbers::Same(scores[index]),
    };

    if own.correction != Correction::None {
        fill_corrections(own, batch, advantage_of, weights, shares, metrics);
    } else {
        weights.fill(1.0);
    }
    fill_shares(own, batch, shares, shares_by_response);
    if columns.anchors {
        fill_anchors(batch, shares, anchors);
    }
    if own.trust_region.is_weighted() {
        fill_region_weights(own, batch, advantage_of, weights, shares, metrics);
    }
    if own.entropy_share < 1.0 {
        let entropy = batch.columns().entropy;
        let least = quantile(entropy, 1.0 - own.entropy_share, scratch);
        for (weight, _) in weights.iter_mut().zip(entropy).filter(|(_, entropy)| **entropy < least) {
            *weight = 0.0;
        }
    }
    if own.has_covariance() {
        let log_prob = batch.columns().log_prob;
        let behaviour = batch.columns().behaviour_log_prob;
        let clip = Clip { delta: f64::INFINITY, ..own.clip() };
        let admits = |token: usize, covariance: f64| {
            own.trust_region == TrustRegion::KlCov
                || (own.covariance_min < covariance
                    && covariance < own.covariance_max
                    && clip
                        .surrogate(exponential(log_prob[token] - behaviour[token]), advantages[token])
                        .clipped
                        .is_none())
        };
        let kept = |token: usize| shares.get(token).is_none_or(|share| *share > 0.0);
        greatest(own.covariance_share, (log_prob, advantages), kept, admits, scratch, order);
        for &token in &*order {
            match own.trust_region {
                TrustRegion::KlCov => penalties[token] = own.covariance_weight,
                _ => weights[token] = 0.0,
            }
        }
    }
}

/// Fills log π of each token minus the log-ratio of its response.
fn fill_anchors(batch: &TokenBatch<'_>, shares: &[f64], anchors: &mut [f64]) {
    for (index, response) in batch.responses().iter().enumerate() {
        let own = if shares.is_empty() { Numbers::Same(1.0) } else { Numbers::Each(&shares[response.tokens.clone()]) };
        let log_prob = batch.log_prob(index);
        let (whole, count) = log_ratio(log_prob, batch.constant(Constant::BehaviourLogProb, index), own);
        let mean = if count > 0.0 { whole / count } else { 0.0 };
        for (slot, log_prob) in anchors[response.tokens.clone()].iter_mut().zip(log_prob) {
            *slot = log_prob - mean;
        }
    }
}

/// Computes advantages from the rewards: one per response in `scores`, or one per token in `advantages`.
fn fill_scores(
    own: &PolicyGradient,
    batch: &TokenBatch<'_>,
    scores: &mut [f64],
    advantages: &mut [f64],
    (order, scratch): (&mut Vec<usize>, &mut Vec<f64>),
    metrics: &mut Metrics,
) {
    let length = |index: usize| batch.responses()[index].tokens.len();
    let estimate = (own.advantage, own.scale, own.pass_k);
    let bound = own.divergence_clip.unwrap_or(f64::INFINITY);
    let divergence = |index: usize, each: &mut dyn FnMut(usize, &[f64])| {
        let [policy, reference] = [Constant::BehaviourLogProb, Constant::ReferenceLogProb]
            .map(|constant| batch.constant(constant, index).chunks(BLOCK));
        let mut estimates = Estimates::new();
        for (block, (policy, reference)) in policy.zip(reference).enumerate() {
            each(block * BLOCK, estimates.fill(own.divergence, bound, policy, None, reference).0);
        }
    };
    let penalised = own.place() == Some(Place::Reward);
    for (index, score) in scores.iter_mut().enumerate() {
        let rewards = batch.constant(Constant::Reward, index);
        let present = || rewards.iter().copied().filter(|reward| !reward.is_nan());
        *score = match (own.advantage, rewards) {
            (Advantage::Greedy, [own, greedy]) => {
                metrics.record(Metric::Reward, *own);
                own - greedy
            }
            _ if present().next().is_none() => f64::NAN,
            _ => {
                let reward = present().sum();
                metrics.record(Metric::Reward, reward);
                reward
            }
        };
        if penalised {
            let mut drift = 0.0;
            divergence(index, &mut |_, values| drift += sum(values));
            metrics.record(Metric::Kl, drift);
            if own.advantage != Advantage::Batch {
                *score -= own.beta * drift;
            }
        }
    }
    match own.advantage {
        Advantage::Greedy => {
            let any = |score: &&mut f64| score.is_nan();
            scores.iter_mut().filter(any).for_each(|score| *score = 0.0);
        }
        Advantage::Batch => {
            for (index, response) in batch.responses().iter().enumerate() {
                let slots = &mut advantages[response.tokens.clone()];
                slots.fill(0.0);
                if penalised {
                    divergence(index, &mut |place, values| {
                        let slots = slots[place..].iter_mut().zip(values);
                        slots.for_each(|(slot, value)| *slot = -own.beta * value);
                    });
                }
                discounted(scores[index], own.discount, slots);
            }
            whiten(advantages);
        }
        Advantage::BatchBaseline => {
            compare(estimate, groups(batch), length, scores, order, metrics);
            whiten_by_length(scores, length, scratch);
        }
        Advantage::GroupMean if own.rewards == Rewards::Apart && batch.constant(Constant::Reward, 0).len() > 1 => {
            scratch.clear();
            scratch.resize(scores.len(), 0.0);
            for kind in 0..batch.constant(Constant::Reward, 0).len() {
                scores
                    .iter_mut()
                    .enumerate()
                    .for_each(|(index, score)| *score = batch.constant(Constant::Reward, index)[kind]);
                compare(estimate, groups(batch), length, scores, order, metrics);
                scratch.iter_mut().zip(&*scores).for_each(|(sum, score)| *sum += score);
            }
            for (index, (score, sum)) in scores.iter_mut().zip(&*scratch).enumerate() {
                // A response without any reward does not contribute to the step's mean.
                *score = if batch.constant(Constant::Reward, index).iter().all(|reward| reward.is_nan()) {
                    f64::NAN
                } else {
                    *sum
                };
            }
            standardise(scores);
        }
        _ => compare(estimate, groups(batch), length, scores, order, metrics),
    }
}

/// Whitens numbers of responses, weighted by their number of tokens.
fn whiten_by_length(scores: &mut [f64], length: impl Fn(usize) -> usize, scratch: &mut Vec<f64>) {
    scratch.clear();
    for (index, &score) in scores.iter().enumerate() {
        scratch.resize(scratch.len() + length(index), score);
    }
    whiten(scratch);
    let mut place = 0;
    for (index, score) in scores.iter_mut().enumerate() {
        *score = scratch[place];
        place += length(index);
    }
}

/// Fills the weights of the correction, and in `kept` 1 for kept and 0 for rejected tokens, if the correction rejects
/// any.
fn fill_corrections<'a>(
    own: &PolicyGradient,
    batch: &TokenBatch<'_>,
    advantage: impl Fn(usize, Range<usize>) -> Numbers<'a>,
    weights: &mut [f64],
    kept: &mut [f64],
    metrics: &mut Metrics,
) {
    let bounds = own.correction_bounds();
    let mut zero = 0;
    for (index, response) in batch.responses().iter().enumerate() {
        let rollout = batch.constant(Constant::RolloutLogProb, index);
        let slots = &mut weights[response.tokens.clone()];
        if own.correction == Correction::OffPolicySequence {
            let stale = is_stale(bounds[1], batch.log_prob(index), rollout);
            let advantages = advantage(index, response.tokens.clone());
            for (token, slot) in slots.iter_mut().enumerate() {
                *slot = f64::from(u8::from(!(stale && advantages.at(token) < 0.0)));
            }
        } else {
            own.correction.weights(bounds, batch.constant(Constant::BehaviourLogProb, index), rollout, slots);
        }
        if own.correction.rejects() {
            for (kept, weight) in kept[response.tokens.clone()].iter_mut().zip(&mut *slots) {
                *kept = f64::from(u8::from(!weight.is_nan()));
                *weight = if weight.is_nan() { 0.0 } else { *weight };
            }
        }
        zero += slots.iter().filter(|weight| **weight == 0.0).count();
    }
    metrics.record_sum(Metric::Rejected, zero as f64, weights.len());
}

/// Fills the weights in the step: one number per response, or one per token if some are rejected.
fn fill_shares(own: &PolicyGradient, batch: &TokenBatch<'_>, kept: &mut [f64], shares: &mut [f64]) {
    let totals = batch.totals();
    let rejects = own.correction.rejects();
    let count = |place: Range<usize>| match rejects {
        true => kept[place].iter().filter(|kept| **kept > 0.0).count(),
        false => place.len(),
    };
    let by_prompt = own.aggregation == Aggregation::PromptMean;
    let span = |members: Range<usize>| {
        let responses = batch.responses();
        responses[members.start].tokens.start..responses[members.end - 1].tokens.end
    };
    // If tokens are rejected, the batch is the whole step.
    let step = match rejects {
        true => Counts {
            tokens: count(0..kept.len()),
            responses: batch.responses().iter().filter(|response| count(response.tokens.clone()) > 0).count(),
            groups: if by_prompt {
                groups(batch).filter(|members| count(span(members.clone())) > 0).count()
            } else {
                0
            },
        },
        false => Counts { tokens: totals.tokens, responses: totals.responses, groups: totals.groups },
    };
    let share = |tokens: usize, group: usize| match tokens {
        0 => 0.0,
        tokens => own.aggregation.share(tokens, group, own.max_tokens, step),
    };
    for (response, slot) in batch.responses().iter().zip(&mut *shares) {
        *slot = if by_prompt { 0.0 } else { share(count(response.tokens.clone()), 0) };
    }
    if by_prompt {
        for members in groups(batch) {
            let tokens = count(span(members.clone()));
            shares[members].fill(share(tokens, tokens));
        }
    }
    if rejects {
        for (response, share) in batch.responses().iter().zip(shares) {
            kept[response.tokens.clone()].iter_mut().for_each(|kept| *kept *= *share);
        }
    }
}

/// Multiplies the weights by those of the trust region.
fn fill_region_weights<'a>(
    own: &PolicyGradient,
    batch: &TokenBatch<'_>,
    advantage: impl Fn(usize, Range<usize>) -> Numbers<'a>,
    weights: &mut [f64],
    shares: &[f64],
    metrics: &mut Metrics,
) {
    let mut clipped = Clipped::default();
    let [low, high] = own.bounds();
    let (most, caps) = (own.max_ratio(), [own.min_ratio, own.max_ratio()]);
    for (index, response) in batch.responses().iter().enumerate() {
        let (log_prob, behaviour) = (batch.log_prob(index), batch.constant(Constant::BehaviourLogProb, index));
        let advantages = advantage(index, response.tokens.clone());
        let slots = &mut weights[response.tokens.clone()];
        let whole = || match shares.get(response.tokens.clone()) {
            Some(shares) if !shares.is_empty() => log_ratio(log_prob, behaviour, Numbers::Each(shares)),
            _ => log_ratio(log_prob, behaviour, Numbers::Same(1.0)),
        };
        let mut each = |slots: &mut [f64], weight: &dyn Fn([f64; 3], f64) -> Weight| {
            for_each_ratio(log_prob, behaviour, |token, _, (ratio, _)| {
                let (weight, bound) = weight([log_prob[token], behaviour[token], ratio], advantages.at(token));
                slots[token] *= weight;
                clipped.count(bound);
            });
        };
        match own.trust_region {
            TrustRegion::Cispo if own.ratio == Ratio::Token => {
                each(slots, &|[_, _, ratio], gain| capped(caps, ratio, gain));
            }
            TrustRegion::Cispo => {
                let (sum, tokens) = whole();
                let x = if own.ratio == Ratio::Product { sum } else { sum / tokens.max(1.0) };
                let ratio = exponential(x).0;
                each(slots, &|_, gain| capped(caps, ratio, gain));
            }
            TrustRegion::TotalVariation => {
                each(slots, &|token, gain| within_total_variation([low, high, most], token, gain));
            }
            TrustRegion::BinaryKl => each(slots, &|token, gain| within_binary_kl([low, high, most], token, gain)),
            TrustRegion::Topr => {
                let (sum, _) = whole();
                each(slots, &|_, gain| tapered(sum, gain));
            }
            _ => {
                // The correction's weights are part of the ratio, and a rejected token has no share.
                let corrected = own.correction != Correction::None;
                let tokens = log_prob.iter().zip(behaviour).zip(&*slots);
                let log_ratio = tokens
                    .map(|((own, other), weight)| {
                        let sampler = if corrected { log_weight(*weight) } else { 0.0 };
                        (own - other).clamp(-TOKEN_BOUND, TOKEN_BOUND) + sampler
                    })
                    .sum();
                for (token, slot) in slots.iter_mut().enumerate() {
                    *slot = match advantages.at(token) >= 0.0 {
                        true => gamma_density([own.positive_k, own.positive_lambda], log_ratio),
                        false => gamma_density([own.negative_k, own.negative_lambda], log_ratio),
                    };
                }
                clipped.count(None);
            }
        }
    }
    clipped.record(metrics);
}

/// Quantile of the numbers at a fraction, with linear interpolation.
fn quantile(values: &[f64], share: f64, scratch: &mut Vec<f64>) -> f64 {
    scratch.clear();
    scratch.extend_from_slice(values);
    let place = share * (values.len() - 1) as f64;
    let (_, low, above) = scratch.select_nth_unstable_by(place as usize, f64::total_cmp);
    let (low, high) = (*low, above.iter().copied().fold(f64::INFINITY, f64::min));
    let between = place.fract();
    if between == 0.0 { low } else { low + between * (high - low) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_lies_between_two_numbers_in_proportion() {
        let values = [4.0, 1.0, 3.0, 2.0, 8.0];
        let at = |share: f64| quantile(&values, share, &mut Vec::new());
        assert_eq!([0.0, 0.25, 0.5, 0.875, 1.0].map(at), [1.0, 2.0, 3.0, 6.0, 8.0]);
    }
}
