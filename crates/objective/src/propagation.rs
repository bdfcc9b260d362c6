//! The weights by which the released code of intuitive fine-tuning propagates later losses to earlier tokens.
//!
//! # Formula
//!
//! Over one response of N tokens with lₜ = −log π(yₜ|sₜ), nats, and discount γ:
//!
//! | `item` | iₜ | | `side` | Cₜ |
//! |---|---|---|---|---|
//! | `loss` | lₜ / N | | `left` | iₜ + γ Cₜ₊₁ |
//! | `logps` | lₜ | | `right` | Dₜ + min over D ≠ 0, with Dₜ = iₜ + γ Dₜ₋₁ |
//! | `mask` | 1 | | | |
//!
//! | `norm` | vₜ on the left | vₜ on the right |
//! |---|---|---|
//! | `L1` | C | 1/C |
//! | `L2` | C² | 1/C² |
//! | `softmax` | softmax(C) | softmax(1/C) |
//! | `log` | log(1 + C) | 1/log(1 + C) |
//!
//! wₜ = N vₜ / Σ v, and the loss is Σ wₜ lₜ / N = L = Σ vₜ lₜ / Σ v. The gradient flows through the weights: with
//! bₜ = ∂v/∂C (lₜ − L) / Σ v (on the right, the least D also gets the sum of all b), ∂L/∂iⱼ = Σₜ≤ⱼ γʲ⁻ᵗ bₜ on the left and
//! Σₜ≥ⱼ γᵗ⁻ʲ bₜ on the right, and ∂L/∂lⱼ = vⱼ/Σ v + ∂i/∂l ∂L/∂iⱼ.
//!
//! `loss` and `logps` differ by the factor N, which cancels under `L1` and `L2`.
//!
//! # Source
//!
//! The released code of arXiv 2405.11870 (`get_cumsum_weight`: `propagation_type`, `propagation_side`, `propagation_norm`).
//!
//! # Departures
//!
//! The least D is taken over the response; the released code takes it over the micro-batch, which no split preserves. Where all
//! iₜ are 0 the weights are undefined and count as uniform. 1/C in `softmax` counts C below 10⁻¹⁰⁰ as 10⁻¹⁰⁰, with no gradient
//! through it.

use strum::{EnumString, IntoStaticStr, VariantNames};

/// C below this counts as this where its inverse is an exponent.
const LEAST_SUM: f64 = 1e-100;

/// What is propagated.
///
/// With losses (1, 2) and γ = ½, C is (1 + ½, 1) of ones and (1 + ½·2, 2) of losses:
///
/// ```
/// # use objective::{propagation::*, *};
/// # let (responses, constants) = ([Response::new(0..2)], TokenConstants::default());
/// # let statistics = TokenStatistics { log_prob: vec![-1.0, -2.0], ..Default::default() };
/// # let loss = |weights: Weights| {
/// #     let propagation = ift::Propagation::Released { gamma: 0.5, weights };
/// #     let ift = ift::Ift::new(Lambda::constant(0.2), Freeze::None, propagation)?;
/// #     let totals = StepTotals::of(&responses, &[]);
/// #     let batch = TokenBatch::new(&ift.requirements(), &statistics, &constants, &responses, &[], totals)?;
/// #     let mut evaluation = Evaluation::default();
/// #     ift.evaluate(&batch, &mut ObjectiveState::default(), &mut evaluation);
/// #     Ok::<f64, Box<dyn std::error::Error>>(evaluation.loss)
/// # };
/// let [mask, logps] = [Item::Mask, Item::Logps].map(|item| loss(Weights { item, ..Weights::RELEASED }));
/// assert!((mask? - (1.5 * 1.0 + 1.0 * 2.0) / 2.5).abs() < 1e-12);
/// assert!((logps? - (2.0 * 1.0 + 2.0 * 2.0) / 4.0).abs() < 1e-12);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Item {
    /// lₜ / N.
    Loss,
    /// lₜ.
    Logps,
    /// 1: weights depend on the place alone.
    Mask,
}

/// In which direction items are summed.
///
/// Of two ones with γ = ½, C is (1 + ½, 1) on the left. On the right D is (1, 1 + ½), C is (2, 2½), v is 1/C:
///
/// ```
/// # use objective::{propagation::*, *};
/// # let (responses, constants) = ([Response::new(0..2)], TokenConstants::default());
/// # let statistics = TokenStatistics { log_prob: vec![-1.0, -2.0], ..Default::default() };
/// # let loss = |weights: Weights| {
/// #     let propagation = ift::Propagation::Released { gamma: 0.5, weights };
/// #     let ift = ift::Ift::new(Lambda::constant(0.2), Freeze::None, propagation)?;
/// #     let totals = StepTotals::of(&responses, &[]);
/// #     let batch = TokenBatch::new(&ift.requirements(), &statistics, &constants, &responses, &[], totals)?;
/// #     let mut evaluation = Evaluation::default();
/// #     ift.evaluate(&batch, &mut ObjectiveState::default(), &mut evaluation);
/// #     Ok::<f64, Box<dyn std::error::Error>>(evaluation.loss)
/// # };
/// let sides = [Side::Left, Side::Right];
/// let [left, right] = sides.map(|side| loss(Weights { item: Item::Mask, side, norm: Norm::L1 }));
/// assert!((left? - (1.5 * 1.0 + 1.0 * 2.0) / 2.5).abs() < 1e-12); // losses are 1 and 2
/// assert!((right? - (0.5 * 1.0 + 0.4 * 2.0) / 0.9).abs() < 1e-12);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Side {
    /// Later items raise a weight.
    Left,
    /// Earlier items lower a weight.
    Right,
}

/// What makes weights of the discounted sums.
///
/// Of two ones with γ = ½, C is (3/2, 1):
///
/// ```
/// # use objective::{propagation::*, *};
/// # let (responses, constants) = ([Response::new(0..2)], TokenConstants::default());
/// # let statistics = TokenStatistics { log_prob: vec![-1.0, -2.0], ..Default::default() };
/// # let loss = |weights: Weights| {
/// #     let propagation = ift::Propagation::Released { gamma: 0.5, weights };
/// #     let ift = ift::Ift::new(Lambda::constant(0.2), Freeze::None, propagation)?;
/// #     let totals = StepTotals::of(&responses, &[]);
/// #     let batch = TokenBatch::new(&ift.requirements(), &statistics, &constants, &responses, &[], totals)?;
/// #     let mut evaluation = Evaluation::default();
/// #     ift.evaluate(&batch, &mut ObjectiveState::default(), &mut evaluation);
/// #     Ok::<f64, Box<dyn std::error::Error>>(evaluation.loss)
/// # };
/// let norms = [Norm::L2, Norm::Softmax];
/// let [squares, softmax] = norms.map(|norm| loss(Weights { item: Item::Mask, side: Side::Left, norm }));
/// assert!((squares? - (2.25 * 1.0 + 1.0 * 2.0) / 3.25).abs() < 1e-12); // losses are 1 and 2
/// let ratio = 0.5_f64.exp(); // e^(3/2) / e
/// assert!((softmax? - (ratio * 1.0 + 2.0) / (ratio + 1.0)).abs() < 1e-12);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
pub enum Norm {
    /// Proportional.
    L1,
    /// Proportional to the square.
    L2,
    /// By softmax.
    #[strum(serialize = "softmax")]
    Softmax,
    /// By log(1 + C).
    #[strum(serialize = "log")]
    Log,
}

/// The released code's knobs.
///
/// ```
/// use objective::propagation::{Item, Norm, Side, Weights};
///
/// let weights = Weights { norm: Norm::L2, ..Weights::RELEASED };
/// assert_eq!(weights, Weights { item: Item::Loss, side: Side::Left, norm: Norm::L2 });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Weights {
    /// What is propagated.
    pub item: Item,
    /// In which direction.
    pub side: Side,
    /// What makes weights of the sums.
    pub norm: Norm,
}

/// What is written is what is read:
///
/// ```
/// use objective::parameter::Reader;
/// use objective::propagation::{Item, PARAMETERS, Weights};
///
/// let weights = Weights { item: Item::Mask, ..Weights::RELEASED };
/// assert_eq!(Weights::read(&Reader::new("example", &PARAMETERS, &weights.parameters())?)?, weights);
/// # Ok::<(), objective::ParameterError>(())
/// ```
impl Weights {
    #[cfg(test)]
    /// Those that the released code trains with.
    const RELEASED: Self = Self { item: Item::Loss, side: Side::Left, norm: Norm::L1 };

    /// The loss of a response with discount γ > 0; leaves ∂L/∂lₜ in `slots`. `scratch` is a buffer to be used again.
    pub(crate) fn loss(self, gamma: f64, log_prob: &[f64], slots: &mut [f64], scratch: &mut Vec<f64>) -> f64 {
        let tokens = log_prob.len() as f64;
        // Items are affine in the losses.
        let (constant, slope) = match self.item {
            Item::Loss => (0.0, 1.0 / tokens),
            Item::Logps => (0.0, 1.0),
            Item::Mask => (1.0, 0.0),
        };
        scratch.clear();
        scratch.extend(log_prob.iter().map(|log_prob| constant - slope * log_prob));
        let sums = scratch.as_mut_slice();
        discount(gamma, sums, self.side);
        let least = match self.side {
            Side::Left => None,
            Side::Right => raise_by_least(sums),
        };
        let most = sums.iter().copied().fold(0.0, f64::max);
        if most == 0.0 {
            slots.fill(1.0 / tokens);
            return 0.0;
        }

        // Weights are relative to the greatest, a factor that cancels: neither squares nor inverses leave the range of f64.
        let reference = match self.side {
            Side::Left => most,
            Side::Right => sums.iter().copied().fold(f64::INFINITY, f64::min),
        };
        let (mut total, mut weighted) = (0.0, 0.0);
        for ((log_prob, sum), slot) in log_prob.iter().zip(&*sums).zip(&mut *slots) {
            *slot = self.weight(*sum, reference);
            total += *slot;
            weighted -= *slot * log_prob;
        }
        let loss = weighted / total;
        for ((log_prob, sum), slot) in log_prob.iter().zip(&mut *sums).zip(&mut *slots) {
            *sum = self.pull((-log_prob - loss) / total, *sum, reference, *slot);
            *slot /= total;
        }
        // Every C has the least D in it.
        if let Some(least) = least {
            sums[least] += sums.iter().sum::<f64>();
        }
        let back = match self.side {
            Side::Left => Side::Right,
            Side::Right => Side::Left,
        };
        discount(gamma, sums, back);
        slots.iter_mut().zip(sums).for_each(|(slot, sum)| *slot += slope * *sum);
        loss
    }

    fn weight(self, sum: f64, reference: f64) -> f64 {
        match (self.side, self.norm) {
            (Side::Left, Norm::L1) => sum / reference,
            (Side::Left, Norm::L2) => (sum / reference).powi(2),
            (Side::Left, Norm::Softmax) => (sum - reference).exp(),
            (Side::Left, Norm::Log) => sum.ln_1p() / reference.ln_1p(),
            (Side::Right, Norm::L1) => reference / sum,
            (Side::Right, Norm::L2) => (reference / sum).powi(2),
            (Side::Right, Norm::Softmax) => (1.0 / sum.max(LEAST_SUM) - 1.0 / reference.max(LEAST_SUM)).exp(),
            (Side::Right, Norm::Log) => reference.ln_1p() / sum.ln_1p(),
        }
    }

    /// ∂v/∂C times `excess` = (l − L)/Σ v, in an order of operations that stays finite.
    fn pull(self, excess: f64, sum: f64, reference: f64, weight: f64) -> f64 {
        match (self.side, self.norm) {
            (Side::Left, Norm::L1) => excess / reference,
            (Side::Left, Norm::L2) => 2.0 * (sum / reference) * (excess / reference),
            (Side::Left, Norm::Softmax) => weight * excess,
            (Side::Left, Norm::Log) => excess / reference.ln_1p() / (1.0 + sum),
            (Side::Right, Norm::L1) => -weight * excess / sum,
            (Side::Right, Norm::L2) => -2.0 * weight * excess / sum,
            (Side::Right, Norm::Softmax) if sum < LEAST_SUM => 0.0,
            (Side::Right, Norm::Softmax) => -weight * excess / sum / sum,
            (Side::Right, Norm::Log) => -weight * excess / sum.ln_1p() / (1.0 + sum),
        }
    }
}

/// Sums items in place: S = item + γ S after it (left) or before it (right).
fn discount(gamma: f64, items: &mut [f64], side: Side) {
    let mut sum = 0.0;
    let mut add = |item: &mut f64| {
        sum = *item + gamma * sum;
        *item = sum;
    };
    match side {
        Side::Left => items.iter_mut().rev().for_each(&mut add),
        Side::Right => items.iter_mut().for_each(&mut add),
    }
}

/// Adds the least sum that is not 0 to all, and answers where it is.
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
        weights.loss(0.9, log_prob, &mut slots, &mut Vec::new());
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
        let loss = weights.loss(1.0, &[-1.0, -2.0, -6.0], &mut slots, &mut scratch);
        assert!((loss - 13.0 / 6.0).abs() < 1e-15);
        for (slot, expected) in slots.into_iter().zip([3.0 / 6.0, 2.0 / 6.0, 1.0 / 6.0]) {
            assert!((slot - expected).abs() < 1e-15);
        }
    }
}
