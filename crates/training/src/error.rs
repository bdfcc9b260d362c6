//! Why a step was refused.

use objective::BatchError;

use crate::ranks::RanksError;

/// Why a step was refused. The policy's parameters are as they were before it.
#[derive(Debug, thiserror::Error)]
pub enum StepError<E: std::error::Error + 'static> {
    /// The host failed.
    #[error(transparent)]
    Policy(#[from] E),
    /// The statistics are none that an objective can evaluate; not-a-number is the usual sign of divergence.
    #[error("micro-batch {micro_batch}: {source}")]
    Batch {
        /// Its index in the step.
        micro_batch: usize,
        /// What is wrong with it.
        source: BatchError,
    },
    /// The same for the gathered columns of a step whose responses are coupled.
    #[error("step: {source}")]
    Step {
        /// What is wrong with them.
        source: BatchError,
    },
    /// A group that lies in two micro-batches, where each is evaluated by itself and a group's tokens are counted.
    #[error(
        "micro-batch {micro_batch}: expected whole groups, got a part of group {group}, which begins in the one before"
    )]
    Split {
        /// Its index in the step.
        micro_batch: usize,
        /// The group.
        group: usize,
    },
    /// Processes that take the step together do not go on together.
    #[error(transparent)]
    Ranks(#[from] RanksError<E>),
    /// The loss or the gradient is infinite or not a number.
    #[error("{quantity}: expected a finite number, got {value}")]
    Diverged {
        /// Loss or gradient norm.
        quantity: &'static str,
        /// Its value.
        value: f64,
    },
}
