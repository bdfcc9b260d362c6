//! Intuitive fine-tuning.

use strum::{EnumString, IntoStaticStr, VariantNames};

use crate::batch::TokenBatch;
use crate::columns::Statistic;
use crate::data::Demonstrations;
use crate::evaluation::{Evaluation, Metric};
use crate::evaluator::LearnsFrom;
use crate::held::Held;
use crate::losses::propagation::{Item, Norm, Side, Weights};
use crate::numerics::{Direction, Discount, sum, sum_of_products};
use crate::objective;
use crate::parameter::{UNIT, choices};
use crate::requirements::{Anticipation, Data, Freeze, Lambda, Requirements};
use crate::{Objective, declared_parameters};

/// Propagation of later losses to earlier tokens in [`Ift`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Propagation {
    /// Weights from discounted sums, as in the authors' code.
    #[default]
    Released,
    /// Algorithm 1 of the paper.
    Algorithm1,
    /// Equation (21) of the paper.
    Equation21,
    /// No propagation: the mean over the response.
    None,
}

choices!(Propagation, Item, Side, Norm, Freeze);

objective! {
    /// Intuitive fine-tuning: imitation in which later losses propagate to earlier tokens, on anticipated states.
    ///
    /// In supervised fine-tuning the policy sees only demonstrated states, but later it must continue from what it
    /// wrote itself. Here a part of each input is the state to which its own prediction would have led, and a token's
    /// weight grows with the losses after it: an early mistake that spoils the rest costs more than a late one. It
    /// gives imitation some of the foresight of reinforcement learning, without rewards, pairs or a
    /// reference.
    ///
    /// # Formula
    ///
    /// With lₜ = −log π(yₜ|sₜ), nats, t from 1 to N within a response, discount γ, mean over the step's responses:
    ///
    /// | `propagation` | loss of a response |
    /// |---|---|
    /// | `released` | Σₜ lₜ Cₜ / Σₜ Cₜ with Cₜ = Σₖ≥ₜ γᵏ⁻ᵗ lₖ; other weights below |
    /// | `algorithm1` | Σₜ γᴺ⁻ᵗ lₜ Lₜ with Lₜ = Σₖ≥ₜ lₖ |
    /// | `equation21` | Σₜ t lₜ |
    /// | `none` | Σₜ lₜ / N |
    ///
    /// Cotangents are −∂L/∂lₜ, the gradient through the weights included. With Aₜ = lₜ + γ Aₜ₋₁ and Gₜ = 1 + γ Gₜ₋₁:
    /// `released` −(Cₜ + Aₜ − L Gₜ) / Σ C; `algorithm1` −γᴺ⁻ᵗ (Lₜ + Aₜ); `equation21` −t; `none` −1/N.
    ///
    /// The weights of `released`, over one response of N tokens:
    ///
    /// | `item` | iₜ | | `side` | Cₜ |
    /// |---|---|---|---|---|
    /// | `loss` | lₜ / N | | `left` | iₜ + γ Cₜ₊₁ |
    /// | `logps` | lₜ | | `right` | Dₜ + min over D ≠ 0, with Dₜ = iₜ + γ Dₜ₋₁ |
    /// | `mask` | 1 | | | |
    ///
    /// | `norm` | vₜ on the left | vₜ on the right |
    /// |---|---|---|
    /// | `L1` | C | 1/C |
    /// | `L2` | C² | 1/C² |
    /// | `softmax` | softmax(C) | softmax(1/C) |
    /// | `log` | log(1 + C) | 1/log(1 + C) |
    ///
    /// wₜ = N vₜ / Σ v, and the loss is Σ wₜ lₜ / N = L = Σ vₜ lₜ / Σ v. The gradient flows through the weights: with
    /// bₜ = ∂v/∂C (lₜ − L) / Σ v (on the right, the smallest D also gets the sum of all b), ∂L/∂iⱼ = Σₜ≤ⱼ γʲ⁻ᵗ bₜ on
    /// the left and Σₜ≥ⱼ γᵗ⁻ʲ bₜ on the right, and ∂L/∂lⱼ = vⱼ/Σ v + ∂i/∂l ∂L/∂iⱼ.
    ///
    /// `loss` and `logps` differ by the factor N, which cancels under `L1` and `L2`.
    ///
    /// The states are anticipated: the host fuses each demonstrated state's encoding with that of the state to which
    /// its own greedy action leads, (1 − λ) E(s*ₜ) + λ E(s^θₜ), before the forward pass that the lₜ come from.
    ///
    /// # Source
    ///
    /// "Intuitive Fine-Tuning", arXiv 2405.11870: residual connection (17) and (20), propagation (21), Algorithm 1,
    /// proofs A.2 to A.4; `released` is the authors' published code with loss type `loss`, side `left` and norm `L1`.
    ///
    /// # Departures
    ///
    /// Paper and released code disagree; all four are here. Algorithm 1 writes L = + log π, whose sign cancels in the
    /// product. As in the released code, `released` with γ = 0 means uniform weights rather than the formula's limit Cₜ
    /// = lₜ. Where every lₜ (or iₜ) is 0 the weights of `released` are undefined and count as uniform: loss 0,
    /// cotangents −1/N. The smallest D is taken over the response; the released code takes it over the micro-batch,
    /// which no split preserves. 1/C in `softmax` counts C below 10⁻¹⁰⁰ as 10⁻¹⁰⁰, with no gradient through it.
    /// Sums over later and earlier tokens are computed block after block. With γ = 1 their rounding errors add up over
    /// all blocks: for a response of 32k tokens, cotangents of `algorithm1` were up to 14 units in the last place off.
    /// Losses of one response that differ by more than 300 decades underflow on the side `right`.
    ///
    /// # Examples
    ///
    /// l = (1, 2), γ = 1/2: C = (2, 2), so `released` has L = (1·2 + 2·2) / 4 = 1.5. A = (1, 2.5), G = (1, 1.5), so the
    /// cotangents are −(2 + 1 − 1.5) / 4 = −0.375 and −(2 + 2.5 − 2.25) / 4 = −0.5625.
    ///
    /// ```
    /// use objective::{Demonstrations, Ift, Side};
    ///
    /// let mut ift = Ift { gamma: 0.5, ..Ift::default() }.evaluator()?;
    /// let answer = ift.evaluate(&Demonstrations(Side { log_prob: &[-1.0, -2.0], ..Side::of(&[2]) }))?;
    /// assert_eq!((answer.loss, answer.cotangents.log_prob), (1.5, &[-0.375, -0.5625][..]));
    /// Ok::<(), objective::Error>(())
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct Ift = "ift", "intuitive fine-tuning: anticipated states, later losses propagated to earlier tokens",
        "arXiv 2405.11870, sections 4 and A.2-A.4, Algorithm 1"
    {
        /// Weight of the policy's own one-step prediction in an anticipated state.
        lambda: f64 [UNIT] = 0.2,
        /// Lambda at the first step, from where it rises to lambda while the learning rate warms up.
        lambda_min: Option<f64> [UNIT, "lambda"] = None => follows |own| Some(own.lambda),
        /// Standard deviation of lambda over the steps, as a share of it (0.5 in the paper's Table 7).
        lambda_noise: f64 [UNIT] = 0.0,
        /// Discount of later losses; with propagation released, 0 means uniform weights.
        gamma: f64 [UNIT] = 0.95 => unused |own| match own.propagation {
            Propagation::Released | Propagation::Algorithm1 => None,
            Propagation::Equation21 | Propagation::None => own.propagates(),
        },
        /// Propagation of later losses to earlier tokens: the authors' code, Algorithm 1, equation 21, or none.
        propagation: Propagation = Propagation::Released,
        /// Propagated quantity: losses over the response's length, losses, or ones (the released code's type).
        item: Item = Item::Loss => unused Ift::without_weights,
        /// Whether weights gather the later items (left) or, inverted, the earlier ones (right).
        side: Side = Side::Left => unused Ift::without_weights,
        /// Mapping from discounted sums to weights.
        norm: Norm = Norm::L1 => unused Ift::without_weights,
        /// Encodings of an anticipated state through which no gradient passes.
        freeze_embeddings: Freeze = Freeze::None,
    }
}

impl Ift {
    fn propagates(&self) -> Option<String> {
        Some(format!("propagation = {}", <&str>::from(self.propagation)))
    }

    /// Setting under which the released weights have no effect.
    fn without_weights(&self) -> Option<String> {
        match self.propagation {
            Propagation::Released => (self.gamma == 0.0).then(|| "gamma = 0".to_owned()),
            _ => self.propagates(),
        }
    }
}

impl LearnsFrom for Ift {
    type Data<'a> = Demonstrations<'a>;
}

impl Objective for Ift {
    fn requirements(&self) -> Requirements {
        let least = self.lambda_min.unwrap_or(self.lambda);
        let lambda = Lambda { least, most: self.lambda, noise: self.lambda_noise };
        Requirements {
            anticipation: Anticipation::Residual { lambda, freeze: self.freeze_embeddings },
            ..Requirements::new(Data::Demonstrations)
        }
    }

    declared_parameters!();

    fn loss(&self, batch: &TokenBatch<'_>, _: &Held, out: &mut Evaluation) {
        let share = 1.0 / batch.totals().responses as f64;
        let discount = Discount::new(self.gamma);
        let weights = Weights { item: self.item, side: self.side, norm: self.norm };
        for (index, response) in batch.responses().iter().enumerate() {
            let log_prob = batch.log_prob(index);
            let slots = out.cotangents.slots(Statistic::LogProb, response.tokens.clone());
            let losses = 0.0 - sum(log_prob);
            out.metrics.record_sum(Metric::NegativeLogLikelihood, losses, log_prob.len());
            let loss = match self.propagation {
                Propagation::Released if self.gamma > 0.0 => {
                    weights.loss(&discount, -share, losses, log_prob, slots, &mut out.scratch)
                }
                Propagation::Released | Propagation::None => mean(-share, losses, slots),
                Propagation::Algorithm1 => algorithm1(&discount, -share, log_prob, slots, &mut out.scratch),
                Propagation::Equation21 => equation21(-share, log_prob, slots),
            };
            out.loss += share * loss;
        }
    }
}

// Each of these functions returns a response's loss and writes `share` ∂loss/∂lₜ to `slots`.

fn mean(share: f64, losses: f64, slots: &mut [f64]) -> f64 {
    let tokens = slots.len() as f64;
    slots.fill(share / tokens);
    losses / tokens
}

fn equation21(share: f64, log_prob: &[f64], slots: &mut [f64]) -> f64 {
    slots.iter_mut().zip(1..).for_each(|(slot, t)| *slot = f64::from(t));
    let loss = 0.0 - sum_of_products(slots, log_prob);
    slots.iter_mut().for_each(|slot| *slot *= share);
    loss
}

fn algorithm1(discount: &Discount, share: f64, log_prob: &[f64], slots: &mut [f64], scratch: &mut Vec<f64>) -> f64 {
    let tokens = log_prob.len();
    scratch.clear();
    scratch.resize(2 * tokens, 0.0);
    let (weights, later) = scratch.split_at_mut(tokens);
    // Aₜ and Lₜ with the sign of log-probabilities, and γᴺ⁻ᵗ: the discounted weight at t of a 1 at the end.
    later.iter_mut().rev().take(1).for_each(|last| *last = 1.0);
    discount.sums(Direction::Backward, later, weights);
    Discount::new(1.0).sums(Direction::Backward, log_prob, later);
    discount.sums(Direction::Forward, log_prob, slots);
    for ((slot, weight), later) in slots.iter_mut().zip(&*weights).zip(&mut *later) {
        *slot = -share * weight * (*later + *slot);
        *later *= weight;
    }
    sum_of_products(later, log_prob)
}
