//! Held numbers of policy gradients: advantages, weights of tokens, corrections and masks.

use std::ops::Range;

use super::covariance::greatest;
use super::numbers::Numbers;
use super::ratio::log_ratio;
use super::scores::fill_scores;
use super::shares::fill_shares;
use super::trust_region::Clip;
use super::view::{Columns, of_column};
use super::weights::{fill_corrections, fill_region_weights, leave_out_certain_tokens};
use super::{Advantage, Correction, PolicyGradient, TrustRegion};
use crate::batch::TokenBatch;
use crate::columns::Constant;
use crate::held::Held;
use crate::numerics::exponential;

/// Fills the held numbers of a batch. `responses` has the advantages, unless they are a column, and then the weights.
pub(super) fn hold(own: &PolicyGradient, batch: &TokenBatch<'_>, held: &mut Held) {
    let responses = batch.responses().len();
    let Held { tokens, responses: by_response, metrics, order, scratch, .. } = held;
    by_response.resize(2 * responses, 0.0);
    let (scores, shares_by_response) = by_response.split_at_mut(responses);
    let Columns { advantages, weights, shares, penalties, anchors } = Columns::new(own, batch.tokens(), tokens);

    if !own.advantage.is_column() {
        fill_scores(own, batch, scores, advantages, (&mut *order, &mut *scratch), metrics);
    }
    let by_response = |index: usize, place: Range<usize>| match own.advantage.is_column() {
        true => of_column(batch.columns().advantage, responses, index, place),
        false => Numbers::Same(scores[index]),
    };
    if own.advantage != Advantage::Batch && !advantages.is_empty() {
        for (index, response) in batch.responses().iter().enumerate() {
            let numbers = by_response(index, response.tokens.clone());
            let slots = advantages[response.tokens.clone()].iter_mut().enumerate();
            slots.for_each(|(token, slot)| *slot = numbers.at(token));
        }
    }
    let advantages = &*advantages;
    let advantage_of = |index: usize, place: Range<usize>| match advantages.is_empty() {
        true => by_response(index, place),
        false => Numbers::Each(&advantages[place]),
    };

    weights.fill(1.0);
    if own.correction != Correction::None {
        fill_corrections(own, batch, advantage_of, weights, shares, metrics);
    }
    fill_shares(own, batch, shares, shares_by_response);
    if !anchors.is_empty() {
        fill_anchors(batch, shares, anchors);
    }
    if own.trust_region.is_weighted() {
        fill_region_weights(own, batch, advantage_of, weights, shares, metrics);
    }
    if own.entropy_share < 1.0 {
        leave_out_certain_tokens(batch.columns().entropy, own.entropy_share, weights, scratch);
    }
    if own.has_covariance() {
        select(own, batch, advantages, shares, (scratch, order));
        for &token in &*order {
            match own.trust_region {
                TrustRegion::KlCov => penalties[token] = own.covariance_weight,
                _ => weights[token] = 0.0,
            }
        }
    }
}

/// Selects the tokens of the greatest covariance.
fn select(
    own: &PolicyGradient,
    batch: &TokenBatch<'_>,
    advantages: &[f64],
    shares: &[f64],
    (scratch, order): (&mut Vec<f64>, &mut Vec<usize>),
) {
    let (log_prob, behaviour) = (batch.columns().log_prob, batch.columns().behaviour_log_prob);
    let clip = Clip { delta: f64::INFINITY, ..own.clip() };
    let is_free = |token: usize| {
        clip.surrogate(exponential(log_prob[token] - behaviour[token]), advantages[token]).clipped.is_none()
    };
    let admits = |token: usize, covariance: f64| match own.trust_region {
        TrustRegion::KlCov => true,
        _ => own.covariance_min < covariance && covariance < own.covariance_max && is_free(token),
    };
    let kept = |token: usize| shares.get(token).is_none_or(|share| *share > 0.0);
    greatest(own.covariance_share, (log_prob, advantages), kept, admits, scratch, order);
}

/// Fills the anchors: log π of each token minus the logarithm of its response's ratio.
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
