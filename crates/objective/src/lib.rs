//! Alignment objectives as pure functions.
//!
//! The host of a policy (a small network on a lake, a transformer on a GPU) turns states into *token statistics*, one
//! number a response token: `log_prob` = log π(yₜ|sₜ) in nats. An [`Objective`] maps them to a loss and its
//! *cotangents* ∂loss/∂statistic, in f64, without tensors, input or output, randomness or logging. The host pulls the
//! cotangents back into its parameters.
//!
//! | to find | look in |
//! |---|---|
//! | a loss by its name, one file each | [`sft`], [`ift`], [`dpo`], [`orpo`], ...: [`METHODS`] lists them all |
//! | what losses on pairs share | [`preference`], [`divergence`] |
//! | what a loss reads and what it answers | [`batch`], [`evaluation`] |
//! | what a loss asks of its host | [`requirements`] |
//! | an objective by its name | [`registry`] |
//! | declared parameters and their errors | [`parameter`] |
//!
//! # Examples
//!
//! ```
//! use objective::preference::{Pairwise, Score};
//! use objective::{Evaluation, Objective, Pair, Response, StepTotals, TokenBatch, TokenConstants, TokenStatistics};
//!
//! let dpo = Pairwise::new(objective::dpo::Dpo::new(0.0)?, 0.1, Score::LOG_RATIO)?;
//! let responses = [Response { tokens: 0..2 }, Response { tokens: 2..3 }];
//! let pairs = [Pair { chosen: 0, rejected: 1 }];
//! let statistics = TokenStatistics { log_prob: vec![-1.2, -0.3, -0.5], ..Default::default() };
//! let constants = TokenConstants { reference_log_prob: statistics.log_prob.clone() };
//! let totals = StepTotals::of(&responses, &pairs);
//! let batch = TokenBatch::new(&dpo.requirements(), &statistics, &constants, &responses, &pairs, totals)?;
//!
//! let mut evaluation = Evaluation::default();
//! dpo.evaluate(&batch, &mut evaluation);
//! assert_eq!(evaluation.loss, std::f64::consts::LN_2); // the policy is its own reference
//! assert_eq!(evaluation.cotangents.log_prob, [-0.05, -0.05, 0.05]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod apo_down;
pub mod apo_zero;
pub mod batch;
pub mod bco_pair;
pub mod cpo;
pub mod discopop;
pub mod divergence;
pub mod dpo;
pub mod evaluation;
pub mod exo_pair;
pub mod hinge;
pub mod ift;
pub mod ipo;
pub mod method;
pub mod nca_pair;
pub mod numerics;
pub mod orpo;
pub mod parameter;
pub mod preference;
pub mod propagation;
pub mod registry;
pub mod requirements;
pub mod robust;
pub mod sft;
pub mod sigmoid_norm;
pub mod simpo;
pub mod sppo_hard;
pub mod tdpo;
pub mod transport;

pub use batch::{BatchError, Pair, Response, StepTotals, TokenBatch, TokenConstants, TokenStatistics};
pub use evaluation::{Evaluation, Metric, Metrics};
pub use method::Method;
pub use parameter::{Parameter, ParameterError, Parameters, Value};
pub use registry::{METHODS, RegistryError};
pub use requirements::{Anticipation, Constant, Coupling, Data, Freeze, Lambda, Requirements, Statistic};

/// A loss over token statistics with analytic cotangents.
///
/// Equal input gives equal output: an objective holds its parameters and nothing else.
pub trait Objective: Send + Sync + std::fmt::Debug {
    /// What the host must supply.
    fn requirements(&self) -> Requirements;

    /// The parameters in force, defaults included; building the method anew from them gives the same objective.
    fn parameters(&self) -> Parameters;

    /// Fills `out`, which arrives with zeroed cotangents for the batch's columns, no loss and no metrics.
    ///
    /// Hosts call [`Objective::evaluate`]; this is what an objective implements.
    fn fill(&self, batch: &TokenBatch<'_>, out: &mut Evaluation);

    /// Replaces `out` by the batch's share of the step's loss, cotangents and metrics. Reuses `out`'s memory.
    fn evaluate(&self, batch: &TokenBatch<'_>, out: &mut Evaluation) {
        out.reset(batch);
        self.fill(batch, out);
    }
}
