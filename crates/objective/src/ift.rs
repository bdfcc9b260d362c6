//! Intuitive fine-tuning: imitation in which later losses propagate to earlier tokens, on anticipated states.
//!
//! # Formula
//!
//! With lₜ = −log π(yₜ|sₜ), nats, t from 1 to N within a response, discount γ, mean over the step's responses:
//!
//! | `propagation` | loss of a response |
//! |---|---|
//! | `released` | Σₜ lₜ Cₜ / Σₜ Cₜ with Cₜ = Σₖ≥ₜ γᵏ⁻ᵗ lₖ; other weights in [`crate::propagation`] |
//! | `algorithm1` | Σₜ γᴺ⁻ᵗ lₜ Lₜ with Lₜ = Σₖ≥ₜ lₖ |
//! | `equation21` | Σₜ t lₜ |
//! | `none` | Σₜ lₜ / N |
//!
//! Cotangents are −∂L/∂lₜ, the gradient through the weights included. With Aₜ = lₜ + γ Aₜ₋₁ and Gₜ = 1 + γ Gₜ₋₁:
//! `released` −(Cₜ + Aₜ − L Gₜ) / Σ C; `algorithm1` −γᴺ⁻ᵗ (Lₜ + Aₜ); `equation21` −t; `none` −1/N.
//!
//! The states are anticipated: the host fuses each demonstrated state's encoding with that of the state to which its own
//! greedy action leads, (1 − λ) E(s*ₜ) + λ E(s^θₜ), before the forward pass that the lₜ come from.
//!
//! # Source
//!
//! "Intuitive Fine-Tuning", arXiv 2405.11870: residual connection (17) and (20), propagation (21), Algorithm 1, proofs
//! A.2 to A.4; `released` is the authors' published code with loss type `loss`, side `left` and norm `L1`.
//!
//! # Departures
//!
//! Paper and released code disagree; all four are here. Algorithm 1 writes L = + log π, whose sign cancels in the product.
//! As in the released code, `released` with γ = 0 means uniform weights rather than the formula's limit Cₜ = lₜ. Where every
//! lₜ is 0 the weights of `released` are undefined and count as uniform: loss 0, cotangents −1/N.
//!
//! # Examples
//!
//! l = (1, 2), γ = 1/2: C = (2, 2), so `released` has L = (1·2 + 2·2) / 4 = 1.5. A = (1, 2.5), G = (1, 1.5), so the
//! cotangents are −(2 + 1 − 1.5) / 4 = −0.375 and −(2 + 2.5 − 2.25) / 4 = −0.5625.
//!
//! ```
//! # use objective::*;
//! # let responses = [Response::new(0..2)];
//! # let statistics = TokenStatistics { log_prob: vec![-1.0, -2.0], ..Default::default() };
//! # let constants = TokenConstants::default();
//! # let totals = StepTotals::of(&responses, &[]);
//! # let ift = ift::Ift::new(Lambda::constant(0.2), Freeze::None, ift::Propagation::Released {
//! #     gamma: 0.5,
//! #     weights: propagation::Weights::RELEASED,
//! # })?;
//! # let batch = TokenBatch::new(&ift.requirements(), &statistics, &constants, &responses, &[], totals)?;
//! # let mut evaluation = Evaluation::default();
//! ift.evaluate(&batch, &mut ObjectiveState::default(), &mut evaluation);
//! assert_eq!(evaluation.loss, 1.5);
//! assert_eq!(evaluation.cotangents.log_prob, [-0.375, -0.5625]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use strum::{EnumDiscriminants, EnumString, IntoStaticStr, VariantNames};

use crate::Objective;
use crate::batch::TokenBatch;
use crate::evaluation::{Evaluation, Metric};
use crate::held::Held;
use crate::method::Method;
use crate::numerics::{Direction, discounted_sums, sum, sum_of_products};
use crate::parameter::{Kind, Parameter, ParameterError, Parameters, Reader, UNIT};
use crate::propagation::{self, ITEM, NORM, SIDE, Weights};
use crate::requirements::{Anticipation, Data, Freeze, Lambda, Requirements};

/// The registry's line.
pub const METHOD: Method = Method {
    name: "ift",
    summary: "intuitive fine-tuning: anticipated states, later losses propagated to earlier tokens",
    source: "arXiv 2405.11870, sections 4 and A.2-A.4, Algorithm 1",
    parameters: &[LAMBDA, LAMBDA_MIN, LAMBDA_NOISE, GAMMA, PROPAGATION, ITEM, SIDE, NORM, FREEZE_EMBEDDINGS],
    build,
};

/// λ.
pub const LAMBDA: Parameter = Parameter {
    name: "lambda",
    kind: Kind::Number { default: 0.2, range: UNIT },
    purpose: "weight of the policy's own one-step prediction in an anticipated state",
};

/// λ at the first step.
pub const LAMBDA_MIN: Parameter = Parameter {
    name: "lambda_min",
    kind: Kind::Derived { default: "lambda", range: UNIT },
    purpose: "lambda at the first step, from where it rises to lambda while the learning rate warms up",
};

/// The noise of λ.
pub const LAMBDA_NOISE: Parameter = Parameter {
    name: "lambda_noise",
    kind: Kind::Number { default: 0.0, range: UNIT },
    purpose: "standard deviation of lambda over the steps, as a share of it (0.5 in the paper's Table 7)",
};

/// γ of the propagation.
pub const GAMMA: Parameter = Parameter {
    name: "gamma",
    kind: Kind::Number { default: 0.95, range: UNIT },
    purpose: "discount of later losses; with propagation released, 0 means uniform weights",
};

/// How later losses reach earlier tokens.
pub const PROPAGATION: Parameter = Parameter {
    name: "propagation",
    kind: Kind::Choice { default: "released", options: PropagationName::VARIANTS },
    purpose: "how later losses reach earlier tokens: the authors' code, Algorithm 1, equation 21, or not at all",
};

/// Which encodings of an anticipated state pass no gradient.
pub const FREEZE_EMBEDDINGS: Parameter = Parameter {
    name: "freeze_embeddings",
    kind: Kind::Choice { default: "none", options: Freeze::VARIANTS },
    purpose: "which encodings of an anticipated state pass no gradient",
};

/// How later losses reach earlier tokens.
///
/// Losses (1, 2) with γ = ½ under each but `released`, which the module's example has:
///
/// ```
/// # use objective::ift::{Ift, Propagation};
/// # use objective::*;
/// # let (responses, constants) = ([Response::new(0..2)], TokenConstants::default());
/// # let statistics = TokenStatistics { log_prob: vec![-1.0, -2.0], ..Default::default() };
/// # let totals = StepTotals::of(&responses, &[]);
/// # let mut evaluation = Evaluation::default();
/// for (propagation, loss) in [
///     (Propagation::Algorithm1 { gamma: 0.5 }, 0.5 * 1.0 * (1.0 + 2.0) + 2.0 * 2.0),
///     (Propagation::Equation21, 1.0 * 1.0 + 2.0 * 2.0),
///     (Propagation::None, (1.0 + 2.0) / 2.0),
/// ] {
///     let ift = Ift::new(Lambda::constant(0.2), Freeze::None, propagation)?;
/// #   let batch = TokenBatch::new(&ift.requirements(), &statistics, &constants, &responses, &[], totals)?;
///     ift.evaluate(&batch, &mut ObjectiveState::default(), &mut evaluation);
///     assert_eq!(evaluation.loss, loss);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, EnumDiscriminants)]
#[strum_discriminants(name(PropagationName), derive(EnumString, IntoStaticStr, VariantNames))]
#[strum_discriminants(strum(serialize_all = "snake_case"), doc = "The names of [`Propagation`].")]
pub enum Propagation {
    /// The authors' code: each loss weighted by the discounted sum of itself and the later ones.
    Released {
        /// Discount; 0 means uniform weights.
        gamma: f64,
        /// What makes weights of the losses, where the discount is not 0.
        weights: Weights,
    },
    /// The paper's Algorithm 1.
    Algorithm1 {
        /// Discount.
        gamma: f64,
    },
    /// The paper's equation (21).
    Equation21,
    /// The paper's equation (20): anticipated states alone.
    None,
}

/// Intuitive fine-tuning.
///
/// What it asks of the host is anticipation; its statistics are those of `sft`:
///
/// ```
/// use objective::ift::{Ift, Propagation};
/// use objective::{Anticipation, Freeze, Lambda, Objective, Statistic};
///
/// let ift = Ift::new(Lambda::constant(0.2), Freeze::All, Propagation::None)?;
/// let anticipation = Anticipation::Residual { lambda: Lambda::constant(0.2), freeze: Freeze::All };
/// assert_eq!(ift.requirements().anticipation, anticipation);
/// assert_eq!(ift.requirements().statistics, Statistic::LogProb);
/// # Ok::<(), objective::ParameterError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ift {
    lambda: Lambda,
    freeze: Freeze,
    propagation: Propagation,
}

/// Parameters that a propagation does not use are not among those in force:
///
/// ```
/// # use objective::ift::{Ift, Propagation};
/// # use objective::{Freeze, Lambda, Objective};
/// let ift = Ift::new(Lambda::constant(0.2), Freeze::None, Propagation::Equation21)?;
/// let names: Vec<_> = ift.parameters().into_keys().collect();
/// assert_eq!(names, ["freeze_embeddings", "lambda", "lambda_min", "lambda_noise", "propagation"]);
/// # Ok::<(), objective::ParameterError>(())
/// ```
impl Ift {
    /// IFT with the residual's weight λ over a run, stop-gradients and propagation.
    ///
    /// # Errors
    ///
    /// [`ParameterError::Invalid`] where λ, its noise or γ is outside of [0, 1].
    ///
    /// # Examples
    ///
    /// ```
    /// use objective::ift::{Ift, Propagation};
    /// use objective::{Freeze, Lambda};
    ///
    /// let rising = Lambda { least: 0.0, most: 1.5, noise: 0.0 };
    /// let error = Ift::new(rising, Freeze::None, Propagation::None).unwrap_err();
    /// assert_eq!(error.to_string(), "ift.lambda: expected a number, 0 <= lambda <= 1, got 1.5");
    /// ```
    pub fn new(lambda: Lambda, freeze: Freeze, propagation: Propagation) -> Result<Self, ParameterError> {
        if let Propagation::Released { gamma, .. } | Propagation::Algorithm1 { gamma } = propagation {
            GAMMA.check(METHOD.name, gamma)?;
        }
        LAMBDA.check(METHOD.name, lambda.most)?;
        LAMBDA_MIN.check(METHOD.name, lambda.least)?;
        LAMBDA_NOISE.check(METHOD.name, lambda.noise)?;
        Ok(Self { lambda, freeze, propagation })
    }
}

fn build(given: &Parameters) -> Result<Box<dyn Objective>, ParameterError> {
    let reader = Reader::new(METHOD.name, METHOD.parameters, given)?;
    let name: PropagationName = reader.choice(&PROPAGATION)?;
    let unused = |parameters: &[Parameter], because: &str| {
        parameters.iter().try_for_each(|parameter| reader.refuse(parameter, because))
    };
    let text: &str = name.into();
    let because = format!("{} = {text}", PROPAGATION.name);
    let propagation = match name {
        PropagationName::Released => {
            let gamma = reader.number(&GAMMA)?;
            if gamma == 0.0 {
                unused(&propagation::PARAMETERS, "gamma = 0")?;
            }
            Propagation::Released { gamma, weights: Weights::read(&reader)? }
        }
        PropagationName::Algorithm1 => {
            unused(&propagation::PARAMETERS, &because)?;
            Propagation::Algorithm1 { gamma: reader.number(&GAMMA)? }
        }
        PropagationName::Equation21 | PropagationName::None => {
            unused(&[GAMMA], &because)?;
            unused(&propagation::PARAMETERS, &because)?;
            if name == PropagationName::None { Propagation::None } else { Propagation::Equation21 }
        }
    };
    let most = reader.number(&LAMBDA)?;
    let least = reader.derived(&LAMBDA_MIN)?.unwrap_or(most);
    let lambda = Lambda { least, most, noise: reader.number(&LAMBDA_NOISE)? };
    Ok(Box::new(Ift::new(lambda, reader.choice(&FREEZE_EMBEDDINGS)?, propagation)?))
}

impl Objective for Ift {
    fn requirements(&self) -> Requirements {
        Requirements {
            anticipation: Anticipation::Residual { lambda: self.lambda, freeze: self.freeze },
            ..Requirements::new(Data::Demonstrations)
        }
    }

    fn parameters(&self) -> Parameters {
        let freeze: &str = self.freeze.into();
        let propagation: &str = PropagationName::from(self.propagation).into();
        let mut parameters = Parameters::from([
            (LAMBDA.name.to_owned(), self.lambda.most.into()),
            (LAMBDA_MIN.name.to_owned(), self.lambda.least.into()),
            (LAMBDA_NOISE.name.to_owned(), self.lambda.noise.into()),
            (FREEZE_EMBEDDINGS.name.to_owned(), freeze.into()),
            (PROPAGATION.name.to_owned(), propagation.into()),
        ]);
        if let Propagation::Released { gamma, .. } | Propagation::Algorithm1 { gamma } = self.propagation {
            parameters.insert(GAMMA.name.to_owned(), gamma.into());
        }
        if let Propagation::Released { gamma, weights } = self.propagation
            && gamma > 0.0
        {
            parameters.extend(weights.parameters());
        }
        parameters
    }

    fn loss(&self, batch: &TokenBatch<'_>, _: &Held, out: &mut Evaluation) {
        let share = 1.0 / batch.totals().responses as f64;
        for (index, response) in batch.responses().iter().enumerate() {
            let log_prob = batch.log_prob(index);
            let slots = &mut out.cotangents.log_prob[response.tokens.clone()];
            let losses = 0.0 - sum(log_prob);
            out.metrics.record_sum(Metric::NegativeLogLikelihood, losses, log_prob.len());
            out.loss += share
                * match self.propagation {
                    Propagation::Released { gamma, weights } if gamma > 0.0 => {
                        weights.loss(gamma, -share, losses, log_prob, slots, &mut out.scratch)
                    }
                    Propagation::Released { .. } | Propagation::None => mean(-share, losses, slots),
                    Propagation::Algorithm1 { gamma } => algorithm1(gamma, -share, log_prob, slots, &mut out.scratch),
                    Propagation::Equation21 => equation21(-share, log_prob, slots),
                };
        }
    }
}

// Each of these answers a response's loss and leaves `share` ∂loss/∂lₜ in `slots`.

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

fn algorithm1(gamma: f64, share: f64, log_prob: &[f64], slots: &mut [f64], scratch: &mut Vec<f64>) -> f64 {
    let tokens = log_prob.len();
    scratch.clear();
    scratch.resize(2 * tokens, 0.0);
    let (weights, later) = scratch.split_at_mut(tokens);
    // Aₜ and Lₜ with the sign of log-probabilities, and γᴺ⁻ᵗ: what arrives at t from a one at the end.
    later.iter_mut().rev().take(1).for_each(|last| *last = 1.0);
    discounted_sums(gamma, later, weights, Direction::Backward);
    discounted_sums(1.0, log_prob, later, Direction::Backward);
    discounted_sums(gamma, log_prob, slots, Direction::Forward);
    for ((slot, weight), later) in slots.iter_mut().zip(&*weights).zip(&mut *later) {
        *slot = -share * weight * (*later + *slot);
        *later *= weight;
    }
    sum_of_products(later, log_prob)
}
