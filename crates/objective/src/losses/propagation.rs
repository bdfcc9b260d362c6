//! The weights by which the released code of intuitive fine-tuning propagates later losses to earlier tokens: formula in
//! [`Ift`](crate::Ift).

use strum::{EnumString, IntoStaticStr, VariantNames};

/// C below this counts as this where its inverse is an exponent.
const LEAST_SUM: f64 = 1e-100;

/// What the released propagation of [`Ift`](crate::Ift) sums.
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
    /// lₜ / N.
    Loss,
    /// lₜ.
    Logps,
    /// 1: weights depend on the place alone.
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

/// What makes weights of the sums in the released propagation of [`Ift`](crate::Ift).
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
    /// Proportional to the square.
    L2,
    /// By softmax.
    #[strum(serialize = "softmax")]
    Softmax,
    /// By log(1 + C).
    #[strum(serialize = "log")]
    Log,
}

/// What the released code can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Weights {
    /// What is propagated.
    pub(crate) item: Item,
    /// In which direction.
    pub(crate) side: Side,
    /// What makes weights of the sums.
    pub(crate) norm: Norm,
}

impl Weights {
    /// Those that the released code trains with.
    #[cfg(test)]
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
