//! Advantages from rewards.

use super::advantage::{compare, discounted, standardise, whiten};
use super::divergence::Estimates;
use super::exponentials::BLOCK;
use super::shares::groups;
use super::{Advantage, Place, PolicyGradient, Rewards};
use crate::batch::TokenBatch;
use crate::columns::Constant;
use crate::evaluation::{Metric, Metrics};
use crate::numerics::sum;

/// Computes advantages from the rewards: one per response in `scores`, or one per token in `advantages`.
pub(super) fn fill_scores(
    own: &PolicyGradient,
    batch: &TokenBatch<'_>,
    scores: &mut [f64],
    advantages: &mut [f64],
    (order, scratch): (&mut Vec<usize>, &mut Vec<f64>),
    metrics: &mut Metrics,
) {
    let length = |index: usize| batch.responses()[index].tokens.len();
    let estimate = (own.advantage, own.scale, own.pass_k);
    let penalised = own.place() == Some(Place::Reward);
    for (index, score) in scores.iter_mut().enumerate() {
        *score = reward(own.advantage, batch.constant(Constant::Reward, index), metrics);
        if penalised {
            let mut drift = 0.0;
            for_each_divergence(own, batch, index, |_, values| drift += sum(values));
            metrics.record(Metric::Kl, drift);
            if own.advantage != Advantage::Batch {
                *score -= own.beta * drift;
            }
        }
    }
    match own.advantage {
        Advantage::Greedy => {
            let abstains = |score: &&mut f64| score.is_nan();
            scores.iter_mut().filter(abstains).for_each(|score| *score = 0.0);
        }
        Advantage::Batch => {
            for (index, response) in batch.responses().iter().enumerate() {
                let slots = &mut advantages[response.tokens.clone()];
                slots.fill(0.0);
                if penalised {
                    for_each_divergence(own, batch, index, |place, values| {
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
            compare_apart(own, batch, scores, (order, scratch), metrics);
        }
        _ => compare(estimate, groups(batch), length, scores, order, metrics),
    }
}

/// The reward of a response: the sum of its rewards that are present, or the difference to the reward of the greedy
/// response. It is NaN if all are absent.
fn reward(advantage: Advantage, rewards: &[f64], metrics: &mut Metrics) -> f64 {
    let present = || rewards.iter().copied().filter(|reward| !reward.is_nan());
    match (advantage, rewards) {
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
    }
}

/// Calls a function with the estimates of a response's divergence, block after block, each with the position of its
/// first token.
fn for_each_divergence(
    own: &PolicyGradient,
    batch: &TokenBatch<'_>,
    index: usize,
    mut each: impl FnMut(usize, &[f64]),
) {
    let bound = own.divergence_clip.unwrap_or(f64::INFINITY);
    let [policy, reference] = [Constant::BehaviourLogProb, Constant::ReferenceLogProb]
        .map(|constant| batch.constant(constant, index).chunks(BLOCK));
    let mut estimates = Estimates::new();
    for (block, (policy, reference)) in policy.zip(reference).enumerate() {
        each(block * BLOCK, estimates.fill(own.divergence, bound, policy, None, reference).0);
    }
}

/// Compares each of several rewards within its group, and standardises the sums.
fn compare_apart(
    own: &PolicyGradient,
    batch: &TokenBatch<'_>,
    scores: &mut [f64],
    (order, scratch): (&mut Vec<usize>, &mut Vec<f64>),
    metrics: &mut Metrics,
) {
    let rewards = |index: usize| batch.constant(Constant::Reward, index);
    let length = |index: usize| batch.responses()[index].tokens.len();
    scratch.clear();
    scratch.resize(scores.len(), 0.0);
    for kind in 0..rewards(0).len() {
        scores.iter_mut().enumerate().for_each(|(index, score)| *score = rewards(index)[kind]);
        compare((own.advantage, own.scale, own.pass_k), groups(batch), length, scores, order, metrics);
        scratch.iter_mut().zip(&*scores).for_each(|(sum, score)| *sum += score);
    }
    for (index, (score, sum)) in scores.iter_mut().zip(&*scratch).enumerate() {
        // A response whose rewards all abstain has no part in the step's mean.
        *score = if rewards(index).iter().all(|reward| reward.is_nan()) { f64::NAN } else { *sum };
    }
    standardise(scores);
}

/// Whitens one number per response, counted once for each of the response's tokens.
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
