//! Errors of a training step.

use objective::BatchError;

use crate::ranks::RanksError;

/// An error of a training step, which leaves the policy's parameters unchanged.
#[derive(Debug, thiserror::Error)]
pub enum StepError<E: std::error::Error + 'static> {
    /// An error of the policy.
    #[error(transparent)]
    Policy(#[from] E),
    /// Statistics that no objective can evaluate; NaN is the usual sign of divergence.
    #[error("micro-batch {micro_batch}: {source}")]
    Batch {
        /// Index of the micro-batch in the step.
        micro_batch: usize,
        /// Description of the invalid statistics.
        source: BatchError,
    },
    /// Invalid gathered columns of a step whose responses are coupled.
    #[error("step: {source}")]
    Step {
        /// Description of the invalid columns.
        source: BatchError,
    },
    /// A group that is split between two micro-batches, although each is evaluated separately and the group's tokens
    /// are counted.
    #[error(
        "micro-batch {micro_batch}: expected whole groups, got a part of group {group}, which begins in the previous micro-batch"
    )]
    Split {
        /// Index of the micro-batch in the step.
        micro_batch: usize,
        /// Number of the group.
        group: usize,
    },
    /// A failure of another process of the step.
    #[error(transparent)]
    Ranks(#[from] RanksError<E>),
    /// A loss or a gradient that is infinite or NaN.
    #[error("{quantity}: expected a finite number, got {value}")]
    Diverged {
        /// Name of the quantity: the loss or the gradient norm.
        quantity: &'static str,
        /// Value of the quantity.
        value: f64,
    },
}
