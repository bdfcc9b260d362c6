//! The differentiable part of a policy gradient, at fixed held numbers.

use std::ops::Range;

use super::clipped::Clipped;
use super::divergence::Estimates;
use super::exponentials::{BLOCK, Block, along_tangent, for_each_ratio};
use super::numbers::Numbers;
use super::ratio::log_ratio;
use super::trust_region::{
    Clip, Surrogate, bounded_log_ratio, free, gated, quadratic, ratio_excess, sapo, temperature,
};
use super::value::value_loss;
use super::view::View;
use super::{Place, PolicyGradient, Ratio, TrustRegion};
use crate::batch::TokenBatch;
use crate::columns::{Constant, Statistic};
use crate::evaluation::{Evaluation, Metric, Metrics};
use crate::held::Held;
use crate::numerics::{STEEPEST, exp_m1_slice, exp_slice, exponential, sum};

/// Inputs of the policy's loss for one response.
struct Response<'a> {
    advantages: Numbers<'a>,
    /// Weights of the tokens' losses, if they are not 1.
    weights: Option<&'a [f64]>,
    shares: Numbers<'a>,
    penalties: Option<&'a [f64]>,
    anchors: Option<&'a [f64]>,
    log_prob: &'a [f64],
    /// Behaviour log-probabilities; empty if the loss does not need them.
    behaviour: &'a [f64],
}

impl Response<'_> {
    fn tokens(&self) -> usize {
        self.log_prob.len()
    }

    /// Factor of a token's loss in the step's loss.
    fn factor(&self, token: usize) -> f64 {
        self.weights.map_or(1.0, |weights| weights[token]) * self.shares.at(token)
    }

    /// The weight and the advantage of all tokens, if they have the same ones and no further weights.
    fn same(&self) -> Option<(f64, f64)> {
        if self.weights.is_some() { None } else { self.shares.same().zip(self.advantages.same()) }
    }
}

/// Adds the loss, cotangents and metrics of a batch.
pub(super) fn loss(own: &PolicyGradient, batch: &TokenBatch<'_>, held: &Held, out: &mut Evaluation) {
    let view = View::of(own, batch, held);
    let Evaluation { loss, cotangents, metrics, .. } = out;
    let mut clipped = Clipped::default();
    for (index, response) in batch.responses().iter().enumerate() {
        let place = response.tokens.clone();
        let behaviour = if own.needs_behaviour() { batch.constant(Constant::BehaviourLogProb, index) } else { &[] };
        let shares = view.share(index, place.clone());
        let response = Response {
            advantages: view.advantage(index, place.clone()),
            weights: view.weights(place.clone()),
            shares,
            penalties: view.penalties(place.clone()),
            anchors: view.anchors(place.clone()),
            log_prob: batch.log_prob(index),
            behaviour,
        };
        let slots = cotangents.slots(Statistic::LogProb, place.clone());
        *loss += own.policy_loss(&response, slots, &mut clipped);
        if matches!(own.place(), Some(Place::Loss | Place::Corrected)) {
            let reference = batch.constant(Constant::ReferenceLogProb, index);
            *loss += own.divergence_loss(&response, reference, slots, metrics);
        }
        if own.entropy_coefficient > 0.0 {
            let entropy = &batch.columns().entropy[place.clone()];
            *loss -= own.entropy_coefficient * weighted(shares, entropy);
            for (token, slot) in cotangents.slots(Statistic::Entropy, place.clone()).iter_mut().enumerate() {
                *slot -= shares.at(token) * own.entropy_coefficient;
            }
            metrics.record_sum(Metric::Entropy, sum(entropy), place.len());
        }
        if own.value_coefficient > 0.0 && own.advantage.is_column() {
            let slots = cotangents.slots(Statistic::Value, place.clone());
            *loss += own.value_function_loss(batch, place, shares, slots, metrics);
        }
    }
    if !own.trust_region.is_weighted() {
        clipped.record(metrics);
    }
}

/// Loss of a response in which each token has the ratio of the whole response. The gradient of a token's loss passes
/// through the token's own log π alone.
fn by_anchored_token(
    response: &Response<'_>,
    anchors: &[f64],
    slots: &mut [f64],
    clipped: &mut Clipped,
    surrogate: impl Fn(f64, (f64, f64), f64) -> Surrogate,
) -> f64 {
    let mut total = 0.0;
    for_each_ratio(response.log_prob, anchors, |token, log_ratio, ratio| {
        let Surrogate { loss, slope, clipped: bound } = surrogate(log_ratio, ratio, response.advantages.at(token));
        let factor = response.factor(token);
        total += factor * loss;
        slots[token] += factor * slope;
        if token == 0 {
            clipped.count(bound);
        }
    });
    total
}

/// Weighted sum Σ share · value.
fn weighted(shares: Numbers<'_>, values: &[f64]) -> f64 {
    match shares {
        Numbers::Same(share) => share * sum(values),
        Numbers::Each(shares) => shares.iter().zip(values).map(|(share, value)| share * value).sum(),
    }
}

impl PolicyGradient {
    /// Bounds of the clipped surrogate.
    pub(super) fn clip(&self) -> Clip {
        let [low, high] = self.bounds();
        Clip { low: 1.0 - low, high: 1.0 + high, delta: self.delta.unwrap_or(f64::INFINITY) }
    }

    /// Loss of one response; adds its cotangents.
    fn policy_loss(&self, response: &Response<'_>, slots: &mut [f64], clipped: &mut Clipped) -> f64 {
        let clip = self.clip();
        match self.trust_region {
            TrustRegion::Cispo
            | TrustRegion::Vespo
            | TrustRegion::TotalVariation
            | TrustRegion::BinaryKl
            | TrustRegion::Topr => likelihood(response, slots),
            TrustRegion::None if self.ratio == Ratio::None => likelihood(response, slots),
            TrustRegion::None => self.by_ratio(response, slots, clipped, |_, ratio, gain| free(ratio, gain)),
            TrustRegion::Clip => match (self.ratio, response.same()) {
                (Ratio::Token, Some(same)) => clipped_tokens(clip, same, response, slots, clipped),
                _ => self.by_ratio(response, slots, clipped, |_, ratio, gain| clip.surrogate(ratio, gain)),
            },
            TrustRegion::Sapo => {
                let temperatures = [self.positive_temperature, self.negative_temperature];
                match self.ratio {
                    Ratio::Token => gated_tokens(temperatures, response, slots, clipped),
                    _ => self
                        .by_ratio(response, slots, clipped, |x, (_, slope), gain| sapo(temperatures, x, slope, gain)),
                }
            }
            TrustRegion::ClipCov => {
                let clip = Clip { delta: f64::INFINITY, ..clip };
                by_token(response, slots, clipped, |_, _, ratio, gain| clip.surrogate(ratio, gain))
            }
            TrustRegion::KlCov => by_token(response, slots, clipped, |token, x, ratio, gain| {
                let penalty = response.penalties.map_or(0.0, |column| column[token]);
                let Surrogate { loss, slope, clipped } = free(ratio, gain);
                let direction = if x == 0.0 { 0.0 } else { x.signum() };
                Surrogate { loss: loss + penalty * x.abs(), slope: slope + penalty * direction, clipped }
            }),
            TrustRegion::Quadratic => by_drift(self.quadratic_weight, response, slots),
            TrustRegion::GeometricMean => geometric_mean(self.bounds(), response, slots, clipped),
        }
    }

    /// Loss of a response with the chosen ratio.
    fn by_ratio(
        &self,
        response: &Response<'_>,
        slots: &mut [f64],
        clipped: &mut Clipped,
        surrogate: impl Fn(f64, (f64, f64), f64) -> Surrogate,
    ) -> f64 {
        if self.ratio == Ratio::Token {
            return by_token(response, slots, clipped, |_, log_ratio, ratio, gain| surrogate(log_ratio, ratio, gain));
        }
        if let Some(anchors) = response.anchors {
            return by_anchored_token(response, anchors, slots, clipped, surrogate);
        }
        let (whole, count) = log_ratio(response.log_prob, response.behaviour, response.shares);
        if count == 0.0 {
            return 0.0;
        }
        let log_ratio = if self.ratio == Ratio::Product { whole } else { whole / count };
        let ratio = exponential(log_ratio);
        if let Some((share, advantage)) = response.same() {
            // Each of the N tokens has the loss ℓ.
            let (total, Surrogate { loss, slope, clipped: bound }) =
                (share * count, surrogate(log_ratio, ratio, advantage));
            clipped.count(bound);
            let pull = if self.ratio == Ratio::Product { total * slope } else { share * slope };
            slots.iter_mut().for_each(|slot| *slot += pull);
            return total * loss;
        }
        let (mut total, mut pull) = (0.0, 0.0);
        for token in 0..response.tokens() {
            let Surrogate { loss, slope, clipped: bound } = surrogate(log_ratio, ratio, response.advantages.at(token));
            let factor = response.factor(token);
            total += factor * loss;
            pull += factor * slope;
            if token == 0 {
                clipped.count(bound);
            }
        }
        let pull = if self.ratio == Ratio::Product { pull } else { pull / count };
        for (token, slot) in slots.iter_mut().enumerate() {
            *slot += if response.shares.at(token) > 0.0 { pull } else { 0.0 };
        }
        total
    }

    /// Divergence of one response; adds its cotangents.
    fn divergence_loss(
        &self,
        response: &Response<'_>,
        reference: &[f64],
        slots: &mut [f64],
        metrics: &mut Metrics,
    ) -> f64 {
        let bound = self.divergence_clip.unwrap_or(f64::INFINITY);
        let is_corrected = self.divergence_place == Place::Corrected;
        let (mut estimates, mut total, mut loss) = (Estimates::new(), 0.0, 0.0);
        let columns = response.log_prob.chunks(BLOCK).zip(reference.chunks(BLOCK)).zip(slots.chunks_mut(BLOCK));
        for (block, ((log_prob, reference), slots)) in columns.enumerate() {
            let begin = block * BLOCK;
            let behaviour = is_corrected.then(|| &response.behaviour[begin..begin + slots.len()]);
            let (values, slopes) = estimates.fill(self.divergence, bound, log_prob, behaviour, reference);
            total += sum(values);
            let slots = slots.iter_mut().zip(slopes);
            match response.shares {
                Numbers::Same(share) => {
                    let factor = share * self.beta;
                    slots.for_each(|(slot, slope)| *slot += factor * slope);
                }
                Numbers::Each(shares) => {
                    for (((slot, slope), value), share) in slots.zip(values).zip(&shares[begin..]) {
                        *slot += share * self.beta * slope;
                        loss += share * value;
                    }
                }
            }
        }
        metrics.record(Metric::Kl, total);
        match response.shares.same() {
            Some(share) => share * self.beta * total,
            None => self.beta * loss,
        }
    }

    /// Loss of the value function on one response; adds its cotangents.
    fn value_function_loss(
        &self,
        batch: &TokenBatch<'_>,
        place: Range<usize>,
        shares: Numbers<'_>,
        slots: &mut [f64],
        metrics: &mut Metrics,
    ) -> f64 {
        let columns = batch.columns();
        let (mut total, mut loss) = (0.0, 0.0);
        for (place, token) in place.clone().enumerate() {
            let behaviour = self.value_clip.map(|clip| (columns.behaviour_value[token], clip));
            let (value, slope) = value_loss(columns.value[token], columns.returns[token], behaviour);
            let scale = shares.at(place) * self.value_coefficient;
            total += value;
            loss += scale * value;
            slots[place] += scale * slope;
        }
        metrics.record_sum(Metric::ValueLoss, total, place.len());
        loss
    }
}

impl Response<'_> {
    /// Log-ratio log π − log π_behaviour of a token.
    fn drift(&self, token: usize) -> f64 {
        self.log_prob[token] - self.behaviour[token]
    }
}

/// Loss −A log π of each token, times its weight.
fn likelihood(response: &Response<'_>, slots: &mut [f64]) -> f64 {
    let mut loss = 0.0;
    for (token, (log_prob, slot)) in response.log_prob.iter().zip(slots).enumerate() {
        let pull = -response.factor(token) * response.advantages.at(token);
        *slot += pull;
        loss += pull * log_prob;
    }
    loss
}

/// Sum over a response's tokens of a loss of their own ratio: a function of the position, the log-ratio, the ratio and
/// its slope, and the advantage.
fn by_token(
    response: &Response<'_>,
    slots: &mut [f64],
    clipped: &mut Clipped,
    surrogate: impl Fn(usize, f64, (f64, f64), f64) -> Surrogate,
) -> f64 {
    let mut total = 0.0;
    for_each_ratio(response.log_prob, response.behaviour, |token, log_ratio, ratio| {
        let Surrogate { loss, slope, clipped: bound } =
            surrogate(token, log_ratio, ratio, response.advantages.at(token));
        let factor = response.factor(token);
        total += factor * loss;
        slots[token] += factor * slope;
        clipped.count(bound);
    });
    total
}

/// Upper bound of the rounding error of a logarithm within the range of ratios, nats.
const ROUNDING: f64 = 1e-12;

/// The clipped loss of tokens that have the same advantage and the same share in the step. Blocks without a clipped
/// token, which are most blocks, have no branch per token.
fn clipped_tokens(
    clip: Clip,
    (share, advantage): (f64, f64),
    response: &Response<'_>,
    slots: &mut [f64],
    clipped: &mut Clipped,
) -> f64 {
    if advantage == 0.0 {
        clipped.count_free(slots.len());
        return 0.0;
    }
    let (least, most) = clip.bounds(advantage);
    // Below the tangent, a ratio is its own slope.
    let most = most.min(STEEPEST.exp().next_down());
    // Log-ratios whose ratios are within the bounds, however both are rounded.
    let (low, high) = (least.ln() + ROUNDING, most.ln() - ROUNDING);
    let (mut block, mut total) = (Block::new(), 0.0);
    let columns = response.log_prob.chunks(BLOCK).zip(response.behaviour.chunks(BLOCK)).zip(slots.chunks_mut(BLOCK));
    for ((own, other), slots) in columns {
        let (log_ratios, slopes, extent) = block.fill(own, other);
        let free = low <= extent.0 && extent.1 <= high;
        if free || slopes.iter().fold(true, |free, slope| free & (*slope >= least) & (*slope <= most)) {
            slots.iter_mut().zip(slopes).for_each(|(slot, slope)| *slot -= share * (slope * advantage));
            total -= advantage * sum(slopes);
            clipped.count_free(slots.len());
            continue;
        }
        for ((&log_ratio, &slope), slot) in log_ratios.iter().zip(slopes).zip(slots) {
            let ratio = (along_tangent(log_ratio, slope), slope);
            let Surrogate { loss, slope, clipped: bound } = clip.surrogate(ratio, advantage);
            total += loss;
            *slot += share * slope;
            clipped.count(bound);
        }
    }
    share * total
}

/// Loss of tokens under SAPO's gate.
fn gated_tokens(temperatures: [f64; 2], response: &Response<'_>, slots: &mut [f64], clipped: &mut Clipped) -> f64 {
    let (mut block, mut gates, mut tails, mut total) = (Block::new(), [0.0; BLOCK], [0.0; BLOCK], 0.0);
    let columns = response.log_prob.chunks(BLOCK).zip(response.behaviour.chunks(BLOCK)).zip(slots.chunks_mut(BLOCK));
    for (index, ((own, other), slots)) in columns.enumerate() {
        let (begin, tokens) = (index * BLOCK, slots.len());
        let (log_ratios, slopes, _) = block.fill(own, other);
        let (gates, tails) = (&mut gates[..tokens], &mut tails[..tokens]);
        gates.iter_mut().zip(log_ratios).for_each(|(gate, log_ratio)| *gate = log_ratio.min(STEEPEST));
        exp_m1_slice(gates);
        for (token, ((gate, tail), (log_ratio, slope))) in
            gates.iter_mut().zip(&mut *tails).zip(log_ratios.iter().zip(slopes)).enumerate()
        {
            let temperature = temperature(temperatures, response.advantages.at(begin + token));
            *gate = temperature * ratio_excess(*log_ratio, *slope, *gate);
            *tail = -gate.abs();
        }
        exp_slice(tails);
        for (token, (((slot, slope), gate), tail)) in slots.iter_mut().zip(slopes).zip(gates).zip(tails).enumerate() {
            let (advantage, factor) = (response.advantages.at(begin + token), response.factor(begin + token));
            let made = gated(temperature(temperatures, advantage), *gate, *tail, *slope, advantage);
            total += factor * made.loss;
            *slot += factor * made.slope;
        }
        clipped.count_free(tokens);
    }
    total
}

/// Sum over a response's tokens of the quadratic loss of their log-ratio.
fn by_drift(weight: f64, response: &Response<'_>, slots: &mut [f64]) -> f64 {
    let mut total = 0.0;
    for (token, ((&own, &other), slot)) in response.log_prob.iter().zip(response.behaviour).zip(slots).enumerate() {
        let Surrogate { loss, slope, .. } = quadratic(weight, own, other, response.advantages.at(token));
        let factor = response.factor(token);
        total += factor * loss;
        *slot += factor * slope;
    }
    total
}

/// Loss of the geometric mean of a response's bounded ratios, with the mean of its advantages (GMPO).
fn geometric_mean(bounds: [f64; 2], response: &Response<'_>, slots: &mut [f64], clipped: &mut Clipped) -> f64 {
    let kept = |token: usize| response.shares.at(token) > 0.0;
    let (mut count, mut x, mut advantage, mut log_weight) = (0.0, 0.0, 0.0, 0.0);
    for token in (0..response.tokens()).filter(|&token| kept(token)) {
        let gain = response.advantages.at(token);
        let (bounded, bound) = bounded_log_ratio(bounds, response.drift(token), gain);
        clipped.count(bound);
        count += 1.0;
        x += bounded;
        advantage += gain;
        log_weight += response.weights.map_or(0.0, |weights| weights[token].ln());
    }
    if count == 0.0 {
        return 0.0;
    }
    let (ratio, slope) = exponential(x / count);
    let scale = -(advantage / count) * (log_weight / count).exp() * response.shares.sum(response.tokens());
    for (token, slot) in slots.iter_mut().enumerate().filter(|(token, _)| kept(*token)) {
        if bounded_log_ratio(bounds, response.drift(token), response.advantages.at(token)).1.is_none() {
            *slot += scale * slope / count;
        }
    }
    scale * ratio
}
