//! One training step for every objective and every policy.
//!
//! | to find | look in |
//! |---|---|
//! | the trait that a host implements once | [`policy`] |
//! | the step: anticipate, forward, evaluate, pull back, clip, update | [`step`] |
//! | errors of a step | [`error`] |
//! | several processes that take a step together | [`ranks`] |
//! | columns of a frozen reference policy | [`mod@reference`] |
//! | columns of sampled responses: behaviour policy, values, advantages | [`rollout`] |
//! | RMSprop, AdamW and SGD over slices | [`optimizer`] |
//! | learning rates over a run | [`schedule`] |

mod columns;
pub mod error;
pub mod optimizer;
mod passing;
pub mod policy;
pub mod ranks;
pub mod reference;
pub mod rollout;
pub mod schedule;
pub mod step;

pub use error::StepError;
pub use optimizer::{AdamW, OPTIMIZERS, Optimizer, OptimizerError, OptimizerSettings, RmsProp, Sgd};
pub use policy::{Frozen, MicroBatch, MicroBatchOf, Policy};
pub use ranks::{Given, Ranks, RanksError, agree};
pub use reference::fill_reference;
pub use rollout::{Outcome, fill_behaviour};
pub use schedule::{Schedule, Shape};
pub use step::{Step, StepReport, StepSettings};
