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

pub mod alphapo;
pub mod apo_down;
pub mod apo_zero;
pub mod apo_zero_unpaired;
pub mod batch;
pub mod bco;
pub mod bco_pair;
pub mod cispo;
pub mod clip;
pub mod configured;
pub mod cpo;
pub mod discopop;
pub mod divergence;
pub mod dpo;
pub mod evaluation;
pub mod exo_pair;
pub mod group;
pub mod grpo;
pub mod hinge;
pub mod ift;
pub mod ipo;
pub mod kto;
pub mod labelled;
pub mod luspo;
pub mod method;
pub mod nca_pair;
pub mod numerics;
pub mod online_dpo;
pub mod orpo;
pub mod parameter;
pub mod ppo;
pub mod preference;
pub mod propagation;
pub mod registry;
pub mod requirements;
pub mod returns;
pub mod rloo;
pub mod robust;
pub mod sampling;
pub mod sapo;
#[cfg(feature = "schema")]
pub mod schema;
pub mod sft;
pub mod sigmoid_norm;
pub mod simpo;
pub mod sppo_hard;
pub mod state;
pub mod tdpo;
pub mod transport;
pub mod vespo;
pub mod weighted_sum;

pub use batch::{BatchError, Feedback, Pair, Response, StepTotals, TokenBatch, TokenConstants, TokenStatistics};
pub use configured::Configured;
pub use evaluation::{Evaluation, Metric, Metrics};
pub use method::Method;
pub use parameter::{Parameter, ParameterError, Parameters, Value};
pub use registry::{METHODS, RegistryError};
pub use requirements::{Anticipation, Constant, Coupling, Data, Freeze, Lambda, Requirements, Source, Statistic};
pub use sampling::Sampling;
pub use state::ObjectiveState;

/// A loss over token statistics with analytic cotangents.
///
/// Equal input gives equal output: an objective holds its parameters and nothing else. What must survive a step is in the
/// state that its caller keeps.
pub trait Objective: Send + Sync + std::fmt::Debug {
    /// What the host must supply.
    fn requirements(&self) -> Requirements;

    /// The parameters in force, defaults included; building the method anew from them gives the same objective.
    fn parameters(&self) -> Parameters;

    /// Fills `out`, which arrives with zeroed cotangents for the batch's columns, no loss and no metrics.
    ///
    /// Hosts call [`Objective::evaluate`]; this is what an objective implements.
    fn fill(&self, batch: &TokenBatch<'_>, state: &mut ObjectiveState, out: &mut Evaluation);

    /// Replaces `out` by the batch's share of the step's loss, cotangents and metrics. Reuses `out`'s memory.
    fn evaluate(&self, batch: &TokenBatch<'_>, state: &mut ObjectiveState, out: &mut Evaluation) {
        out.reset(batch);
        self.fill(batch, state, out);
    }
}
