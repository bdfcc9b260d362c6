//! Alignment objectives as pure functions.
//!
//! The host of a policy (a small network on a lake, a transformer on a GPU) turns states into *token statistics*, one
//! number a response token: `log_prob` = log π(yₜ|sₜ) in nats. An [`Objective`] maps them to a loss and its
//! *cotangents* ∂loss/∂statistic, in f64, without tensors, input or output, randomness or logging. The host pulls the
//! cotangents back into its parameters.
//!
//! | to find | look in |
//! |---|---|
//! | a loss by its name, one file each | [`sft`], [`ift`], [`dpo`], [`orpo`], ...: the table below lists them all |
//! | what losses on pairs share | [`preference`], [`divergence`] |
//! | what losses on sampled responses share | [`group`], [`clip`], [`token_divergence`] |
//! | what a loss reads and what it answers | [`batch`], [`evaluation`] |
//! | what a loss asks of its host | [`requirements`] |
//! | an objective by its name, a method at its parameters as a recipe spells it | [`registry`], [`configured`] |
//! | declared parameters and their errors | [`parameter`] |
//!
//! # Methods
//!
#![doc = include_str!("../METHODS.md")]
//!
//! Defaults are those of the method's paper, or of the peer that is its only source; numbers without a unit in a column are
//! nats. A parameter that the others leave without effect is an error when it is set.
//!
//! # Examples
//!
//! ```
//! use objective::preference::{Pairwise, Score};
//! use objective::{
//!     Evaluation, Objective, ObjectiveState, Pair, Response, StepTotals, TokenBatch, TokenConstants, TokenStatistics,
//! };
//!
//! let dpo = Pairwise::new(objective::dpo::Dpo::new(0.0)?, 0.1, Score::LOG_RATIO)?;
//! let responses = [Response::new(0..2), Response::new(2..3)];
//! let pairs = [Pair { chosen: 0, rejected: 1 }];
//! let statistics = TokenStatistics { log_prob: vec![-1.2, -0.3, -0.5], ..Default::default() };
//! let constants = TokenConstants { reference_log_prob: statistics.log_prob.clone(), ..Default::default() };
//! let totals = StepTotals::of(&responses, &pairs);
//! let batch = TokenBatch::new(&dpo.requirements(), &statistics, &constants, &responses, &pairs, totals)?;
//!
//! let mut evaluation = Evaluation::default();
//! dpo.evaluate(&batch, &mut ObjectiveState::default(), &mut evaluation);
//! assert_eq!(evaluation.loss, std::f64::consts::LN_2); // the policy is its own reference
//! assert_eq!(evaluation.cotangents.log_prob, [-0.05, -0.05, 0.05]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod batch;
pub mod configured;
pub mod evaluation;
pub mod held;
pub mod ift;
mod losses;
pub mod method;
pub mod numerics;
pub mod parameter;
mod policy_gradient;
pub mod propagation;
pub mod registry;
pub mod requirements;
pub mod sampling;
#[cfg(feature = "schema")]
pub mod schema;
pub mod state;

pub use batch::{BatchError, Feedback, Pair, Response, StepTotals, TokenBatch, TokenConstants, TokenStatistics};
pub use configured::Configured;
pub use evaluation::{Evaluation, Metric, Metrics};
pub use held::Held;
pub use ift::{Ift, Propagation};
pub use losses::alphapo::AlphaPo;
pub use losses::apo_down::ApoDown;
pub use losses::apo_zero::ApoZero;
pub use losses::apo_zero_unpaired::ApoZeroUnpaired;
pub use losses::bco::Bco;
pub use losses::bco_pair::BcoPair;
pub use losses::cpo::Cpo;
pub use losses::discopop::Discopop;
pub use losses::divergence::Divergence;
pub use losses::dpo::Dpo;
pub use losses::exo_pair::ExoPair;
pub use losses::hinge::Hinge;
pub use losses::ipo::Ipo;
pub use losses::kto::Kto;
pub use losses::labelled::mismatches;
pub use losses::nca_pair::NcaPair;
pub use losses::online_dpo::OnlineDpo;
pub use losses::orpo::Orpo;
pub use losses::preference::{PairWeighting, Reduction};
pub use losses::robust::Robust;
pub use losses::sft::{Normalisation, Sft, TokenWeighting};
pub use losses::sigmoid_norm::SigmoidNorm;
pub use losses::simpo::Simpo;
pub use losses::sppo_hard::SppoHard;
pub use losses::tdpo::{Tdpo, TdpoVariant};
pub use losses::transport::{Aot, AotUnpaired};
pub use losses::weighted_sum::{Term, WeightedSum};
pub use method::Method;
pub use parameter::{Parameter, ParameterError, Parameters, Value};
pub use policy_gradient::{
    Advantage, Aggregation, Correction, Estimator, Place, PolicyGradient, Ratio, Rewards, Scale, TrustRegion,
    generalised_advantages, normalise,
};
pub use registry::{METHODS, RegistryError};
pub use requirements::{Anticipation, Constant, Coupling, Data, Freeze, Lambda, Requirements, Source, Statistic};
pub use sampling::Sampling;
pub use state::ObjectiveState;

/// A loss over token statistics with analytic cotangents.
///
/// Equal input gives equal output: an objective holds its parameters and nothing else. What must survive a step is in the
/// state that its caller keeps.
///
/// An objective of its own, which rewards the policy's entropy:
///
/// ```
/// use objective::*;
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
///         out.loss = -share * batch.statistics().entropy.iter().sum::<f64>();
///         out.cotangents.entropy.fill(-share);
///     }
/// }
///
/// let responses = [Response::new(0..2)];
/// let statistics = TokenStatistics { entropy: vec![0.5, 0.25], ..Default::default() };
/// let (constants, totals) = (TokenConstants::default(), StepTotals::of(&responses, &[]));
/// let batch = TokenBatch::new(&EntropyBonus.requirements(), &statistics, &constants, &responses, &[], totals)?;
/// let mut evaluation = Evaluation::default();
/// EntropyBonus.evaluate(&batch, &mut ObjectiveState::default(), &mut evaluation);
/// assert_eq!((evaluation.loss, evaluation.cotangents.entropy), (-0.375, vec![-0.5, -0.5]));
/// # Ok::<(), BatchError>(())
/// ```
pub trait Objective: Send + Sync + std::fmt::Debug {
    /// What the host must supply.
    ///
    /// ```
    /// use objective::{Parameters, registry};
    ///
    /// let requirements = |name: &str| registry::build(name, &Parameters::new()).map(|method| method.requirements());
    /// assert!(requirements("dpo")?.need_reference());
    /// assert!(!requirements("simpo")?.need_reference());
    /// # Ok::<(), objective::RegistryError>(())
    /// ```
    fn requirements(&self) -> Requirements;

    /// The parameters in force, defaults included; building the method anew from them gives the same objective.
    ///
    /// ```
    /// use objective::{Parameters, registry};
    ///
    /// let simpo = registry::build("simpo", &[("beta".to_owned(), 10.0.into())].into())?;
    /// assert_eq!(simpo.parameters()["target_margin"], 8.0.into()); // it follows beta
    /// assert_eq!(registry::build("simpo", &simpo.parameters())?.parameters(), simpo.parameters());
    /// # Ok::<(), objective::RegistryError>(())
    /// ```
    fn parameters(&self) -> Parameters;

    /// Computes every number behind a stop-gradient, and updates the state. `held` arrives empty.
    ///
    /// The baseline of BCO is a running mean of rewards:
    ///
    /// ```
    /// # use objective::*;
    /// # let responses = [Response::labelled(0..1, true), Response::labelled(1..2, false)];
    /// # let statistics = TokenStatistics { log_prob: vec![-1.0, -2.0], ..Default::default() };
    /// # let constants = TokenConstants { reference_log_prob: vec![-2.0, -2.0], ..Default::default() };
    /// # let totals = StepTotals::of(&responses, &[]);
    /// let bco = registry::build("bco", &[("beta".to_owned(), 1.0.into())].into())?;
    /// # let batch = TokenBatch::new(&bco.requirements(), &statistics, &constants, &responses, &[], totals)?;
    /// let (mut held, mut state) = (Held::default(), ObjectiveState::default());
    /// bco.hold(&batch, &mut state, &mut held);
    /// assert_eq!((&*held.responses, state.rewards.mean), (&[0.5][..], 0.5));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn hold(&self, _batch: &TokenBatch<'_>, _state: &mut ObjectiveState, _held: &mut Held) {}

    /// Adds the batch's share of the step's loss, its cotangents and metrics to `out`, whose slots arrive zeroed. The
    /// cotangents are the derivatives of the loss at fixed held numbers.
    ///
    /// Hosts call [`Objective::evaluate`]; this is what an objective implements.
    ///
    /// ```
    /// # use objective::*;
    /// # let (responses, constants) = ([Response::new(0..2)], TokenConstants::default());
    /// # let totals = StepTotals::of(&responses, &[]);
    /// # let statistics = TokenStatistics { log_prob: vec![-1.0, -2.0], ..Default::default() };
    /// # let sft = registry::build("sft", &Parameters::new())?;
    /// # let batch = TokenBatch::new(&sft.requirements(), &statistics, &constants, &responses, &[], totals)?;
    /// let mut out = Evaluation::default();
    /// out.reset(&batch);
    /// sft.loss(&batch, &Held::default(), &mut out);
    /// assert_eq!((out.loss, out.cotangents.log_prob), (1.5, vec![-0.5, -0.5]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn loss(&self, batch: &TokenBatch<'_>, held: &Held, out: &mut Evaluation);

    /// Replaces `out` by the batch's share of the step's loss, cotangents and metrics. Reuses `out`'s memory.
    ///
    /// ```
    /// # use objective::*;
    /// # let (responses, constants) = ([Response::new(0..2)], TokenConstants::default());
    /// # let totals = StepTotals::of(&responses, &[]);
    /// let sft = registry::build("sft", &Parameters::new())?;
    /// let statistics = TokenStatistics { log_prob: vec![-1.0, -2.0], ..Default::default() };
    /// let batch = TokenBatch::new(&sft.requirements(), &statistics, &constants, &responses, &[], totals)?;
    /// let mut evaluation = Evaluation::default();
    /// sft.evaluate(&batch, &mut ObjectiveState::default(), &mut evaluation);
    /// assert_eq!((evaluation.loss, evaluation.cotangents.log_prob), (1.5, vec![-0.5, -0.5]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn evaluate(&self, batch: &TokenBatch<'_>, state: &mut ObjectiveState, out: &mut Evaluation) {
        out.reset(batch);
        let mut held = std::mem::take(&mut out.held);
        held.clear();
        self.hold(batch, state, &mut held);
        self.loss(batch, &held, out);
        out.metrics.merge(&held.metrics);
        out.held = held;
    }
}
