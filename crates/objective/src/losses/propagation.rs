//! The weights by which the released code of intuitive fine-tuning propagates later losses to earlier tokens: formula
//! in [`Ift`](crate::Ift).

use strum::{EnumString, IntoStaticStr, VariantNames};

use crate::numerics::{Direction, Discount, least, sum};

/// Smallest discounted sum C whose inverse is used as an exponent; smaller sums are replaced by this number.
const LEAST_SUM: f64 = 1e-100;

/// Items that the released propagation of [`Ift`](crate::Ift) sums.
///
/// With losses (1, 2) and γ = ½, C is (1 + ½, 1) of ones and (1 + ½·2, 2) of losses:
///
/// ```
/// use objective::{Demonstrations, Ift, PropagationItem, Side};
///
/// let demonstration = Demonstrations(Side { log_prob: &[-1.0, -2.0], ..Side::of(&[2]) });
/// for (item, loss) in [
///     (PropagationItem::Mask, (1.5 * 1.0 + 1.0 * 2.0) / 2.5),
///     (PropagationItem::Logps, (2.0 * 1.0 + 2.0 * 2.0) / 4.0),
/// ] {
///     let mut ift = Ift { gamma: 0.5, item, ..Ift::default() }.evaluator()?;
///     assert!((ift.evaluate(&demonstration)?.loss - loss).abs() < 1e-12);
/// }
/// Ok::<(), objective::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Item {
    /// The loss divided by the response's length, lₜ / N.
    Loss,
    /// The loss lₜ.
    Logps,
    /// The constant 1: weights depend only on the position.
    Mask,
}

/// The direction in which the released propagation of [`Ift`](crate::Ift) sums.
///
/// Of two ones with γ = ½, C is (1 + ½, 1) on the left. On the right D is (1, 1 + ½), C is (2, 2½), v is 1/C:
///
/// ```
/// use objective::{Demonstrations, Ift, PropagationItem, PropagationSide, Side};
///
/// let demonstration = Demonstrations(Side { log_prob: &[-1.0, -2.0], ..Side::of(&[2]) });
/// for (side, loss) in [
///     (PropagationSide::Left, (1.5 * 1.0 + 1.0 * 2.0) / 2.5),
///     (PropagationSide::Right, (0.5 * 1.0 + 0.4 * 2.0) / 0.9),
/// ] {
///     let mut ift = Ift { gamma: 0.5, item: PropagationItem::Mask, side, ..Ift::default() }.evaluator()?;
///     assert!((ift.evaluate(&demonstration)?.loss - loss).abs() < 1e-12);
/// }
/// Ok::<(), objective::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Side {
    /// Later items raise a weight.
    Left,
    /// Earlier items lower a weight.
    Right,
}

/// Mapping from sums to weights in the released propagation of [`Ift`](crate::Ift).
///
/// Of two ones with γ = ½, C is (3/2, 1):
///
/// ```
/// use objective::{Demonstrations, Ift, PropagationItem, PropagationNorm, Side};
///
/// let demonstration = Demonstrations(Side { log_prob: &[-1.0, -2.0], ..Side::of(&[2]) });
/// let ratio = 0.5_f64.exp(); // e^(3/2) / e
/// for (norm, loss) in [
///     (PropagationNorm::L2, (2.25 * 1.0 + 1.0 * 2.0) / 3.25),
///     (PropagationNorm::Softmax, (ratio * 1.0 + 2.0) / (ratio + 1.0)),
/// ] {
///     let mut ift = Ift { gamma: 0.5, item: PropagationItem::Mask, norm, ..Ift::default() }.evaluator()?;
///     assert!((ift.evaluate(&demonstration)?.loss - loss).abs() < 1e-12);
/// }
/// Ok::<(), objective::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
pub enum Norm {
    /// Proportional to C, or to 1/C on the right.
    L1,
    /// Proportional to C², or to 1/C² on the right.
    L2,
    /// Softmax of C, or of 1/C on the right.
    #[strum(serialize = "softmax")]
    Softmax,
    /// Proportional to log(1 + C), or to its inverse on the right.
    #[strum(serialize = "log")]
    Log,
}

/// Options of the released code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Weights {
    /// Items that are summed.
    pub(crate) item: Item,
    /// Direction of the sums.
    pub(crate) side: Side,
    /// Mapping from sums to weights.
    pub(crate) norm: Norm,
}

impl Weights {
    /// Options that the released code trains with.
    #[cfg(test)]
    const RELEASED: Self = Self { item: Item::Loss, side: Side::Left, norm: Norm::L1 };

    /// Computes the loss L of a response with discount γ > 0 from its tokens' losses, whose sum is `losses`, and writes
    /// `share` ∂L/∂lₜ into `slots`. `scratch` is a reusable buffer.
    pub(crate) fn loss(
        self,
        discount: &Discount,
        share: f64,
        losses: f64,
        log_prob: &[f64],
        slots: &mut [f64],
        scratch: &mut Vec<f64>,
    ) -> f64 {
        let tokens = log_prob.len() as f64;
        // On the left, where the norm does not depend on the unit, losses are in a unit of the size of their sum: no
        // product leaves the range of f64. On the right the smallest sums decide, and such a unit would make them 0.
        let unit = match (self.side, self.norm) {
            (Side::Left, Norm::L1 | Norm::L2) => power_of_two(losses),
            _ => 1.0,
        };
        // Items are affine in the log-probabilities.
        let (constant, slope) = match self.item {
            Item::Loss => (0.0, -1.0 / tokens / unit),
            Item::Logps => (0.0, -1.0 / unit),
            Item::Mask => (1.0, 0.0),
        };
        scratch.resize(scratch.len().max(2 * log_prob.len()), 0.0);
        let (sums, rest) = scratch.split_at_mut(log_prob.len());
        let spare = &mut rest[..log_prob.len()];
        let (there, back) = match self.side {
            Side::Left => (Direction::Backward, Direction::Forward),
            Side::Right => (Direction::Forward, Direction::Backward),
        };
        discount.scan(there, log_prob, sums, |log_prob, _| constant + slope * log_prob, |_, sum| sum);
        let raised = if self.side == Side::Right { raise_by_least(sums) } else { None };
        let reference = match (self.side, self.norm) {
            (Side::Left, Norm::L1 | Norm::L2) => constant - slope * losses,
            (Side::Left, Norm::Softmax | Norm::Log) => sums.iter().copied().fold(0.0, f64::max),
            (Side::Right, _) => least(sums),
        };
        if reference == 0.0 {
            slots.fill(share / tokens);
            return 0.0;
        }

        let response = Propagated { share, unit, slope, discount, log_prob, slots, sums, spare, raised, back };
        match (self.side, self.norm) {
            (Side::Left, Norm::L1) => response.loss(|c| c, |excess, _, _| excess),
            (Side::Left, Norm::L2) => response.loss(|c| c * c, |excess, c, _| 2.0 * c * excess),
            (Side::Left, Norm::Softmax) => response.loss(|c| (c - reference).exp(), |excess, _, v| v * excess),
            (Side::Left, Norm::Log) => {
                let reference = reference.ln_1p();
                response.loss(|c| c.ln_1p() / reference, |excess, c, _| excess / reference / (1.0 + c))
            }
            (Side::Right, Norm::L1) => response.loss(|c| reference / c, |excess, c, v| -v * excess / c),
            (Side::Right, Norm::L2) => response.loss(|c| (reference / c).powi(2), |excess, c, v| -2.0 * v * excess / c),
            (Side::Right, Norm::Softmax) => {
                let most = 1.0 / reference.max(LEAST_SUM);
                let pull = |excess: f64, c: f64, v: f64| if c < LEAST_SUM { 0.0 } else { -v * excess / c / c };
                response.loss(|c| (1.0 / c.max(LEAST_SUM) - most).exp(), pull)
            }
            (Side::Right, Norm::Log) => {
                let reference = reference.ln_1p();
                response.loss(|c| reference / c.ln_1p(), |excess, c, v| -v * excess / c.ln_1p() / (1.0 + c))
            }
        }
    }
}

/// A response whose items are summed.
struct Propagated<'a> {
    share: f64,
    /// Divisor of the losses.
    unit: f64,
    /// Derivative ∂item/∂log π.
    slope: f64,
    discount: &'a Discount,
    log_prob: &'a [f64],
    slots: &'a mut [f64],
    /// Discounted sums C.
    sums: &'a [f64],
    /// Scratch buffer.
    spare: &'a mut [f64],
    /// Position whose sum was added to all others.
    raised: Option<usize>,
    /// Direction in which the derivatives of the sums are summed.
    back: Direction,
}

impl Propagated<'_> {
    /// The loss with v = `weight`(C), and `pull`(x, C, v) = x ∂v/∂C in an order of operations that stays finite. Each
    /// loop is a function of one place, for the compiler to compute several at a time.
    #[inline(always)]
    fn loss(self, weight: impl Fn(f64) -> f64, pull: impl Fn(f64, f64, f64) -> f64) -> f64 {
        let Self { share, unit, slope, discount, log_prob, slots, sums, spare, raised, back } = self;
        let (total, product) = weigh(sums, log_prob, slots, weight);
        let (inverse, shrink) = (1.0 / total, -1.0 / unit);
        let loss = 0.0 - product * inverse / unit;
        for (((pulled, log_prob), sum), slot) in spare.iter_mut().zip(log_prob).zip(sums).zip(&*slots) {
            *pulled = pull((shrink * log_prob - loss) * inverse, *sum, *slot);
        }
        // Every C contains the smallest D.
        if let Some(least) = raised {
            spare[least] += sum(spare);
        }
        let (direct, propagated) = (share * inverse, -share * slope * unit);
        discount.scan(back, spare, slots, |pulled, _| pulled, |slot, sum| direct * slot + propagated * sum);
        loss * unit
    }
}

/// Fills `slots` with the weights of the sums. Returns their sum, and that of their products with the
/// log-probabilities.
#[inline(always)]
fn weigh(sums: &[f64], log_prob: &[f64], slots: &mut [f64], weight: impl Fn(f64) -> f64) -> (f64, f64) {
    const LANES: usize = 8;
    let ((sums, sums_rest), (log_prob, log_prob_rest)) = (sums.as_chunks::<LANES>(), log_prob.as_chunks::<LANES>());
    let (slots, slots_rest) = slots.as_chunks_mut::<LANES>();
    let (mut totals, mut products) = ([0.0; LANES], [0.0; LANES]);
    for ((sums, log_prob), slots) in sums.iter().zip(log_prob).zip(slots) {
        for lane in 0..LANES {
            slots[lane] = weight(sums[lane]);
            totals[lane] += slots[lane];
            products[lane] += slots[lane] * log_prob[lane];
        }
    }
    let (mut total, mut product) = (totals.iter().sum(), products.iter().sum());
    for ((sum, log_prob), slot) in sums_rest.iter().zip(log_prob_rest).zip(slots_rest) {
        *slot = weight(*sum);
        total += *slot;
        product += *slot * log_prob;
    }
    (total, product)
}

/// Largest power of 2 that is not above a positive number, and not subnormal.
fn power_of_two(number: f64) -> f64 {
    f64::from_bits(number.to_bits() & f64::INFINITY.to_bits()).max(f64::MIN_POSITIVE)
}

/// Adds the smallest nonzero sum to all, and returns its position.
fn raise_by_least(sums: &mut [f64]) -> Option<usize> {
    let positive = (0..sums.len()).filter(|&place| sums[place] > 0.0);
    let place = positive.min_by(|&a, &b| sums[a].total_cmp(&sums[b]))?;
    let least = sums[place];
    sums.iter_mut().for_each(|sum| *sum += least);
    Some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gradient(weights: Weights, log_prob: &[f64]) -> Vec<f64> {
        let mut slots = vec![0.0; log_prob.len()];
        weights.loss(&Discount::new(0.9), 1.0, -sum(log_prob), log_prob, &mut slots, &mut Vec::new());
        slots
    }

    #[test]
    fn losses_and_their_share_differ_only_where_scale_matters() {
        let log_prob = [-0.3, -1.7, -0.9, -0.1];
        for side in [Side::Left, Side::Right] {
            for (norm, scale_matters) in
                [(Norm::L1, false), (Norm::L2, false), (Norm::Softmax, true), (Norm::Log, true)]
            {
                let [loss, logps] =
                    [Item::Loss, Item::Logps].map(|item| gradient(Weights { item, side, norm }, &log_prob));
                let difference = loss.iter().zip(&logps).fold(0.0, |most: f64, (a, b)| most.max((a - b).abs()));
                assert_eq!(difference > 1e-3, scale_matters, "{side:?}, {norm:?}: {difference:e}");
            }
        }
    }

    #[test]
    fn weights_of_the_mask_are_constants() {
        // With γ = 1 the sums are 3, 2, 1, and so are the weights.
        let weights = Weights { item: Item::Mask, ..Weights::RELEASED };
        let (mut slots, mut scratch) = (vec![0.0; 3], Vec::new());
        let loss = weights.loss(&Discount::new(1.0), 1.0, 9.0, &[-1.0, -2.0, -6.0], &mut slots, &mut scratch);
        assert!((loss - 13.0 / 6.0).abs() < 1e-15);
        for (slot, expected) in slots.into_iter().zip([3.0 / 6.0, 2.0 / 6.0, 1.0 / 6.0]) {
            assert!((slot - expected).abs() < 1e-15);
        }
    }

    /// The formula of the documentation computed directly: the loss, and ∂L/∂lₜ with the sum of the magnitudes of its
    /// terms.
    fn by_definition(weights: Weights, gamma: f64, log_prob: &[f64]) -> (f64, Vec<(f64, f64)>) {
        let places = 0..log_prob.len();
        let tokens = log_prob.len() as f64;
        let (constant, slope) = match weights.item {
            Item::Loss => (0.0, 1.0 / tokens),
            Item::Logps => (0.0, 1.0),
            Item::Mask => (1.0, 0.0),
        };
        // Power of γ with which an item at j contributes at t.
        let power = |t: usize, j: usize| match weights.side {
            Side::Left if j >= t => gamma.powi((j - t) as i32),
            Side::Right if j <= t => gamma.powi((t - j) as i32),
            Side::Left | Side::Right => 0.0,
        };
        let arrive = |t| places.clone().map(|j| power(t, j) * (constant - slope * log_prob[j])).sum::<f64>();
        let own: Vec<f64> = places.clone().map(arrive).collect();
        let least = places.clone().min_by(|&a, &b| own[a].total_cmp(&own[b])).unwrap_or(0);
        let raise = if weights.side == Side::Right { own[least] } else { 0.0 };
        let v = |c: f64| {
            let c = if weights.side == Side::Right { 1.0 / c } else { c };
            match weights.norm {
                Norm::L1 => (c, 1.0),
                Norm::L2 => (c * c, 2.0 * c),
                Norm::Softmax => (c.exp(), c.exp()),
                Norm::Log if weights.side == Side::Left => (c.ln_1p(), 1.0 / (1.0 + c)),
                Norm::Log => {
                    let log = (1.0 / c).ln_1p();
                    (1.0 / log, 1.0 / (log * log * (1.0 + 1.0 / c)) / (c * c))
                }
            }
        };
        let weight = |t: usize| {
            let c = own[t] + raise;
            let (value, slope) = v(c);
            (value, if weights.side == Side::Right { -slope / (c * c) } else { slope })
        };
        let total: f64 = places.clone().map(|t| weight(t).0).sum();
        let loss = places.clone().map(|t| -weight(t).0 * log_prob[t]).sum::<f64>() / total;
        let pulled = |t: usize| {
            let slope = weight(t).1 / total;
            (slope * (-log_prob[t] - loss), slope.abs() * (-log_prob[t] + loss))
        };
        let pulled: Vec<(f64, f64)> = places.clone().map(pulled).collect();
        let add = |(a, b): (f64, f64), (c, d): (f64, f64)| (a + c, b + d);
        let times = |factor: f64, (a, b): (f64, f64)| (factor * a, factor * b);
        let all = pulled.iter().copied().fold((0.0, 0.0), add);
        let derivative = |j: usize| {
            let direct = weight(j).0 / total;
            let raised = if weights.side == Side::Right { times(slope * power(least, j), all) } else { (0.0, 0.0) };
            places.clone().map(|t| times(slope * power(t, j), pulled[t])).fold(add((direct, direct), raised), add)
        };
        (loss, places.clone().map(derivative).collect())
    }

    #[test]
    fn the_smallest_losses_decide_on_the_right_beside_losses_that_are_300_decades_larger() {
        for norm in [Norm::L1, Norm::L2] {
            let weights = Weights { side: Side::Right, norm, ..Weights::RELEASED };
            let (log_prob, mut slots) = ([-1e-290, -1.0, -1e10], vec![0.0; 3]);
            let loss = weights.loss(&Discount::new(0.9), 1.0, -sum(&log_prob), &log_prob, &mut slots, &mut Vec::new());
            // With L1 the other tokens have v l = (C₁ / C) l, which is also near C₁.
            assert!(loss > 0.0 && loss < 1e-289, "{norm:?}: {loss:e}");
        }
    }

    #[test]
    fn every_knob_follows_the_formula_at_every_length() {
        for length in (1..20).chain([100, 263]) {
            let log_prob: Vec<_> = (0..length).map(|t| -2.0 - f64::from(t * 7919 % 1009) / 400.0).collect();
            for (item, side, norm) in [Item::Loss, Item::Logps, Item::Mask].into_iter().flat_map(|item| {
                [Side::Left, Side::Right].into_iter().flat_map(move |side| {
                    [Norm::L1, Norm::L2, Norm::Softmax, Norm::Log].map(move |norm| (item, side, norm))
                })
            }) {
                let weights = Weights { item, side, norm };
                let mut slots = vec![0.0; log_prob.len()];
                let discount = Discount::new(0.95);
                let loss = weights.loss(&discount, 1.0, -sum(&log_prob), &log_prob, &mut slots, &mut Vec::new());
                let (expected, derivatives) = by_definition(weights, 0.95, &log_prob);
                assert!((loss - expected).abs() <= 1e-13 * expected, "{weights:?}, {length}: {loss:e}, {expected:e}");
                for (slot, (derivative, size)) in slots.into_iter().zip(derivatives) {
                    let difference = (slot - derivative).abs();
                    assert!(difference <= 1e-13 * size, "{weights:?}, {length}: {slot:e}, {derivative:e} of {size:e}");
                }
            }
        }
    }

    #[test]
    fn the_norms_without_a_scale_do_not_depend_on_that_of_the_losses() {
        for scale in [f64::MIN_POSITIVE, 1e-300, 1e-200, 1e30, 1e200] {
            let [plain, scaled] = [1.0, scale].map(|scale| [-0.5, -2.0, -1.0].map(|log_prob: f64| scale * log_prob));
            for (side, norm) in [(Side::Left, Norm::L1), (Side::Left, Norm::L2)] {
                let weights = Weights { side, norm, ..Weights::RELEASED };
                for (plain, scaled) in gradient(weights, &plain).into_iter().zip(gradient(weights, &scaled)) {
                    assert!((plain - scaled).abs() < 1e-14, "{scale:e}: {scaled} is not {plain}");
                }
            }
        }
    }
}
