//! Alignment objectives as pure functions: token log-probabilities in, a loss and its derivatives out.
//!
//! ```
//! use objective::{Dpo, Pairs, Side};
//!
//! fn main() -> Result<(), objective::Error> {
//!     let mut dpo = Dpo { beta: 0.1, ..Dpo::default() }.evaluator()?;
//!     let answer = dpo.evaluate(&Pairs {
//!         chosen: Side { log_prob: &[-1.2, -0.3], reference_log_prob: &[-1.0, -0.4], ..Side::of(&[2]) },
//!         rejected: Side { log_prob: &[-0.5], reference_log_prob: &[-0.7], ..Side::of(&[1]) },
//!     })?;
//!     println!("{} {:?}", answer.loss, answer.cotangents.chosen.log_prob);
//!     Ok(())
//! }
//! ```
//!
//! The host of a policy (a small network on a lake, a transformer on a GPU) turns states into *token statistics*, one
//! number a response token: `log_prob` = log π(yₜ|sₜ) in nats. An [`Objective`] maps them to a loss and its
//! *cotangents* ∂loss/∂statistic, in f64, without tensors, input or output, randomness or logging. The host pulls the
//! cotangents back into its parameters.
//!
//! The other kinds of data have the same form. [`Demonstrations`] are imitated:
//!
//! ```
//! use objective::{Demonstrations, Sft, Side};
//!
//! let mut sft = Sft::default().evaluator()?;
//! let answer = sft.evaluate(&Demonstrations(Side { log_prob: &[-1.2, -0.3, -0.5], ..Side::of(&[2, 1]) }))?;
//! println!("{} {:?}", answer.loss, answer.cotangents.log_prob);
//! Ok::<(), objective::Error>(())
//! ```
//!
//! [`Labelled`] responses are marked as desirable or undesirable:
//!
//! ```
//! use objective::{Bco, Labelled, Side};
//!
//! let mut bco = Bco::default().evaluator()?;
//! let answer = bco.evaluate(&Labelled {
//!     responses: Side { log_prob: &[-1.2, -0.3], reference_log_prob: &[-1.0, -0.4], ..Side::of(&[1, 1]) },
//!     desirable: &[true, false],
//!     mismatched: Side::of(&[]),
//! })?;
//! println!("{} {:?}", answer.loss, answer.cotangents.log_prob);
//! Ok::<(), objective::Error>(())
//! ```
//!
//! [`Groups`] of sampled responses have rewards, or advantages that the host computed:
//!
//! ```
//! use objective::{Groups, PolicyGradient, Side};
//!
//! let mut grpo = PolicyGradient { clip: 0.1, ..PolicyGradient::grpo() }.evaluator()?;
//! let answer = grpo.evaluate(&Groups {
//!     responses: Side { log_prob: &[-1.2, -0.3], behaviour_log_prob: &[-1.2, -0.3], ..Side::of(&[1, 1]) },
//!     group: &[0, 0],
//!     reward: &[1.0, 0.0],
//! })?;
//! println!("{} {:?}", answer.loss, answer.cotangents.log_prob);
//! Ok::<(), objective::Error>(())
//! ```
//!
//! [`Rollouts`] have the advantages and returns of a value function:
//!
//! ```
//! use objective::{PolicyGradient, Rollouts, Side};
//!
//! let ppo = PolicyGradient { value_coefficient: 0.0, entropy_coefficient: 0.0, ..PolicyGradient::ppo() };
//! let mut ppo = ppo.evaluator()?; // of the policy alone, without the value function's loss
//! let rollouts = Rollouts(Side {
//!     log_prob: &[-1.2, -0.3],
//!     behaviour_log_prob: &[-1.2, -0.3],
//!     advantage: &[0.5, -0.5],
//!     ..Side::of(&[2])
//! });
//! let answer = ppo.evaluate(&rollouts.into())?;
//! println!("{} {:?}", answer.loss, answer.cotangents.log_prob);
//! Ok::<(), objective::Error>(())
//! ```
//!
//! An objective can also be looked up by its name, and then takes a [`Batch`] of any kind:
//!
//! ```
//! use objective::{Batch, Demonstrations, Evaluator, Side, registry};
//!
//! let mut sft = Evaluator::new(registry::build("sft", &[("normalisation".to_owned(), "response".into())].into())?)?;
//! let answer = sft.evaluate(&Batch::from(Demonstrations(Side { log_prob: &[-1.2], ..Side::of(&[1]) })))?;
//! assert_eq!(answer.loss, 1.2);
//! Ok::<(), objective::Error>(())
//! ```
//!
//! | to find | look in |
//! |---|---|
//! | a loss, with its formula, source and a worked example | its struct: [`Sft`], [`Ift`], [`Dpo`], [`Orpo`], ...; the table below has all |
//! | the columns that data may have, and their ranges | [`Side`], [`Statistic`], [`Constant`] |
//! | losses of a step that is split into micro-batches | [`Evaluator::of_step`], [`StepTotals`] |
//! | stop-gradients as numbers | [`Held`], [`Evaluator::evaluate_held`] |
//! | the equivalents of other libraries' losses | [`peers`] |
//! | what a loss requires of its host | [`Requirements`] |
//! | an objective by its name, a method with its parameters as in a recipe | [`registry`], [`Configured`] |
//! | parameters: ranges, defaults, errors, and custom objectives | [`parameter`], [`objective!`] |
//! | the entry point for hosts with flat columns | [`Evaluation::update`], [`TokenColumns`] |
//!
//! # Methods
//!
#![doc = include_str!("../METHODS.md")]
//!
//! Defaults are those of the method's paper, or of the peer that is its only source; numbers without a unit in a column
//! are nats. A parameter that the others leave without effect is an error when it is set.

use std::sync::Arc;

mod batch;
mod columns;
mod configured;
mod data;
mod evaluation;
mod evaluator;
mod held;
mod losses;
mod method;
pub mod numerics;
pub mod parameter;
#[doc = include_str!("../PEERS.md")]
pub mod peers {}
mod policy_gradient;
pub mod registry;
mod requirements;
mod sampling;
#[cfg(feature = "schema")]
pub mod schema;
mod state;

pub use batch::{BatchError, Feedback, Pair, Response, StepTotals, TokenBatch, TokenColumns};
pub use columns::{Constant, Cotangents, MOST, Side, Statistic, TokenConstants, TokenStatistics};
pub use configured::Configured;
pub use data::{Batch, Demonstrations, Groups, Labelled, PairCotangents, Pairs, Rollouts, TrainingData};
pub use evaluation::{Evaluation, Metric, Metrics};
pub use evaluator::{Answer, AnswerOf, Evaluator, LearnsFrom};
pub use held::Held;
pub use losses::*;
pub use method::Method;
pub use parameter::declaration::Parameter;
pub use parameter::error::ParameterError;
pub use parameter::value::{Parameters, Value};
pub use policy_gradient::{
    Advantage, Aggregation, Correction, Estimator, Place, PolicyGradient, Ratio, Rewards, Scale, TrustRegion,
    generalised_advantages, normalise,
};
pub use registry::error::RegistryError;
pub use registry::methods::METHODS;
pub use requirements::{Anticipation, Coupling, Data, Freeze, Lambda, Requirements, Source, TeacherDivergence};
pub use sampling::Sampling;
pub use state::{ObjectiveState, RunningMean};

/// A loss over token statistics with analytic cotangents.
///
/// Equal input gives equal output: an objective has parameters and nothing else. Its memory between steps is in
/// its [`ObjectiveState`].
///
/// A custom objective, which rewards the policy's entropy:
///
/// ```
/// use objective::{
///     Data, Demonstrations, Evaluation, Evaluator, Held, LearnsFrom, Objective, Parameters, Requirements, Side,
///     Statistic, TokenBatch,
/// };
///
/// #[derive(Debug)]
/// struct EntropyBonus;
///
/// impl Objective for EntropyBonus {
///     fn requirements(&self) -> Requirements {
///         Requirements { statistics: Statistic::Entropy.into(), ..Requirements::new(Data::Demonstrations) }
///     }
///
///     fn parameters(&self) -> Parameters {
///         Parameters::new()
///     }
///
///     fn loss(&self, batch: &TokenBatch<'_>, _: &Held, out: &mut Evaluation) {
///         let share = 1.0 / batch.totals().tokens as f64;
///         for response in 0..batch.responses().len() {
///             out.loss -= share * batch.statistic(Statistic::Entropy, response).iter().sum::<f64>();
///         }
///         out.slots(Statistic::Entropy, 0..batch.tokens()).fill(-share);
///     }
/// }
///
/// impl LearnsFrom for EntropyBonus {
///     type Data<'a> = Demonstrations<'a>;
/// }
///
/// let mut bonus = Evaluator::new(EntropyBonus)?;
/// let answer = bonus.evaluate(&Demonstrations(Side { entropy: &[0.5, 0.25], ..Side::of(&[2]) }))?;
/// assert_eq!((answer.loss, answer.cotangents.entropy), (-0.375, &[-0.5, -0.5][..]));
/// Ok::<(), objective::Error>(())
/// ```
pub trait Objective: Send + Sync + std::fmt::Debug {
    /// Requirements that the host must fulfil.
    fn requirements(&self) -> Requirements;

    /// The parameters in force, defaults included; building the method anew from them gives the same objective.
    ///
    /// ```
    /// use objective::{Objective, Simpo};
    ///
    /// let simpo = Simpo { beta: 10.0, ..Simpo::default() };
    /// assert_eq!(simpo.parameters()["target_margin"], 8.0.into()); // it follows beta
    /// ```
    fn parameters(&self) -> Parameters;

    /// Checks the parameters.
    ///
    /// # Errors
    ///
    /// [`ParameterError`] for a parameter that is out of range or without effect under the others.
    fn check(&self) -> Result<(), ParameterError> {
        Ok(())
    }

    /// Computes every number behind a stop-gradient, and updates the state. `held` is empty before the call.
    fn hold(&self, _batch: &TokenBatch<'_>, _state: &mut ObjectiveState, _held: &mut Held) {}

    /// Adds the batch's contribution to the step's loss and its metrics to `out`, and its cotangents to
    /// [`Evaluation::slots`], which are 0 before the call. The cotangents are the derivatives of the loss at fixed
    /// held numbers.
    fn loss(&self, batch: &TokenBatch<'_>, held: &Held, out: &mut Evaluation);
}

macro_rules! pointed_to {
    ($($pointer:ident)*) => {$(
        #[automatically_derived]
        impl<O: Objective + ?Sized> Objective for $pointer<O> {
            fn requirements(&self) -> Requirements {
                (**self).requirements()
            }

            fn parameters(&self) -> Parameters {
                (**self).parameters()
            }

            fn check(&self) -> Result<(), ParameterError> {
                (**self).check()
            }

            fn hold(&self, batch: &TokenBatch<'_>, state: &mut ObjectiveState, held: &mut Held) {
                (**self).hold(batch, state, held);
            }

            fn loss(&self, batch: &TokenBatch<'_>, held: &Held, out: &mut Evaluation) {
                (**self).loss(batch, held, out);
            }
        }
    )*};
}

pointed_to!(Box Arc);

/// Error about an objective's name, its parameters or its data.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// An invalid parameter.
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    /// An invalid batch.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// An unknown method.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}
