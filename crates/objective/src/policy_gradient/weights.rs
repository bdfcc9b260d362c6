//! Factors of the policy's loss of a token: corrections, trust regions and masks.

use std::ops::Range;

use super::clipped::Clipped;
use super::correction::is_stale;
use super::exponentials::for_each_ratio;
use super::numbers::Numbers;
use super::ratio::log_ratio;
use super::trust_region::{
    TOKEN_BOUND, Weight, capped, gamma_density, log_weight, tapered, within_binary_kl, within_total_variation,
};
use super::{Correction, PolicyGradient, Ratio, TrustRegion};
use crate::batch::TokenBatch;
use crate::columns::Constant;
use crate::evaluation::{Metric, Metrics};
use crate::numerics::exponential;

/// Fills the weights of the correction. If the correction may reject tokens, also fills `kept`: 1 for a kept and 0 for
/// a rejected token.
pub(super) fn fill_corrections<'a>(
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

/// Multiplies the weights by those of the trust region.
pub(super) fn fill_region_weights<'a>(
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
                fill_densities(own, [log_prob, behaviour], advantages, slots);
                clipped.count(None);
            }
        }
    }
    clipped.record(metrics);
}

/// VESPO's weights of a response's tokens. They replace the correction's weights, which are part of the ratio. The
/// share of a rejected token is 0.
fn fill_densities(
    own: &PolicyGradient,
    [log_prob, behaviour]: [&[f64]; 2],
    advantages: Numbers<'_>,
    slots: &mut [f64],
) {
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
}

/// Sets the weights of the tokens with the lowest entropy to 0, so that a share of the tokens is left.
pub(super) fn leave_out_certain_tokens(entropy: &[f64], share: f64, weights: &mut [f64], scratch: &mut Vec<f64>) {
    let least = quantile(entropy, 1.0 - share, scratch);
    for (weight, _) in weights.iter_mut().zip(entropy).filter(|(_, entropy)| **entropy < least) {
        *weight = 0.0;
    }
}

/// The value below which a share of the numbers lies, interpolated linearly between two of them.
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
