//! One training step for every objective and every policy.
//!
//! | to find | look in |
//! |---|---|
//! | what a host implements once | [`policy`] |
//! | the step: anticipate, forward, evaluate, pull back, clip, update | [`mod@step`] |
//! | processes that take a step together | [`ranks`] |
//! | what a step needs to know of sampled responses | [`rollout`] |
//! | RMSprop, AdamW and SGD over slices | [`optimizer`] |
//! | learning rates over a run | [`schedule`] |

pub mod optimizer;
pub mod policy;
pub mod ranks;
pub mod rollout;
pub mod schedule;
pub mod step;

pub use optimizer::{AdamW, OPTIMIZERS, Optimizer, OptimizerError, OptimizerSettings, RmsProp, Sgd};
pub use policy::{Frozen, MicroBatch, Policy};
pub use ranks::{Given, Ranks, RanksError, agree};
pub use rollout::{Outcome, fill_behaviour};
pub use schedule::{Schedule, Shape};
pub use step::{
    MicroBatchOf, Moment, StepError, StepReport, StepSettings, Workspace, accumulate, evaluate, fill_reference, step,
};
