//! The one training step: every objective, every policy.

use objective::{
    Anticipation, BatchError, Constant, Evaluation, Metrics, Objective, Requirements, Statistic, StepTotals,
    TokenBatch, TokenStatistics,
};

use crate::policy::{MicroBatch, Policy};

/// What a step needs beside policy, objective and data.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepSettings {
    /// Learning rate of this step, the schedule's factor included.
    pub learning_rate: f64,
    /// Greatest Euclidean norm of the gradient; none means unclipped.
    pub clip_norm: Option<f64>,
}

/// What a step answers.
#[derive(Clone, Debug, PartialEq)]
pub struct StepReport {
    /// The step's loss before the update.
    pub loss: f64,
    /// Euclidean norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// The objective's metrics over the whole step.
    pub metrics: Metrics,
}

/// Buffers that a step uses and the next one uses again.
#[derive(Clone, Debug, Default)]
pub struct Workspace {
    statistics: TokenStatistics,
    evaluation: Evaluation,
}

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
    /// The loss or the gradient is infinite or not a number.
    #[error("{quantity}: expected a finite number, got {value}")]
    Diverged {
        /// Loss or gradient norm.
        quantity: &'static str,
        /// Its value.
        value: f64,
    },
}

/// Accumulates the gradient of the step's loss in the policy, and answers the loss and the metrics.
///
/// Losses are divided by the counts of the whole step, so that any split into micro-batches gives the same gradient.
/// Stop-gradients are the policy's ([`Policy::anticipate`]) or the objective's (a zero cotangent).
///
/// # Errors
///
/// [`StepError`]; the gradient is then unspecified and the parameters are unchanged.
pub fn accumulate<P: Policy>(
    policy: &mut P,
    objective: &dyn Objective,
    micro_batches: &[MicroBatch<P::States>],
    workspace: &mut Workspace,
) -> Result<(f64, Metrics), StepError<P::Error>> {
    let requirements = objective.requirements();
    let totals: StepTotals = micro_batches.iter().map(MicroBatch::totals).sum();
    let Workspace { statistics, evaluation } = workspace;
    let (mut loss, mut metrics) = (0.0, Metrics::default());
    policy.clear_gradient();
    for (index, micro_batch) in micro_batches.iter().enumerate() {
        let anticipated = match requirements.anticipation {
            Anticipation::Off => None,
            Anticipation::Residual { lambda, freeze } => {
                Some(policy.anticipate(&micro_batch.states, lambda, freeze)?)
            }
        };
        let states = anticipated.as_ref().unwrap_or(&micro_batch.states);
        let forward = policy.forward(states)?;
        policy.statistics(&forward, &micro_batch.tokens, requirements.statistics, statistics)?;
        let MicroBatch { constants, responses, pairs, .. } = micro_batch;
        let batch = TokenBatch::new(&requirements, statistics, constants, responses, pairs, totals)
            .map_err(|source| StepError::Batch { micro_batch: index, source })?;
        objective.evaluate(&batch, evaluation);
        loss += evaluation.loss;
        metrics.merge(&evaluation.metrics);
        policy.pull_back(states, forward, &micro_batch.tokens, &evaluation.cotangents)?;
    }
    Ok((loss, metrics))
}

/// One optimizer step: [`accumulate`], clip, update.
///
/// Clipping multiplies the gradient by min(1, c / (norm + 10⁻⁶)), as PyTorch's `clip_grad_norm_` does.
///
/// # Errors
///
/// [`StepError`]; the policy's parameters and the optimizer are then as they were before the step.
pub fn step<P: Policy>(
    policy: &mut P,
    optimizer: &mut P::Optimizer,
    objective: &dyn Objective,
    micro_batches: &[MicroBatch<P::States>],
    settings: StepSettings,
    workspace: &mut Workspace,
) -> Result<StepReport, StepError<P::Error>> {
    let (loss, metrics) = accumulate(policy, objective, micro_batches, workspace)?;
    let gradient_norm = policy.gradient_norm()?;
    for (quantity, value) in [("loss", loss), ("gradient norm", gradient_norm)] {
        if !value.is_finite() {
            return Err(StepError::Diverged { quantity, value });
        }
    }
    let gradient_scale = settings.clip_norm.map_or(1.0, |clip_norm| (clip_norm / (gradient_norm + 1e-6)).min(1.0));
    policy.update(optimizer, settings.learning_rate, gradient_scale)?;
    Ok(StepReport { loss, gradient_norm, metrics })
}

/// Fills the constants that an objective requires, once before training, from a frozen reference policy.
///
/// # Errors
///
/// The reference policy's own.
pub fn fill_constants<P: Policy>(
    reference: &P,
    requirements: &Requirements,
    micro_batches: &mut [MicroBatch<P::States>],
) -> Result<(), P::Error> {
    for micro_batch in micro_batches {
        for &constant in requirements.constants {
            match constant {
                Constant::ReferenceLogProb => {
                    let forward = reference.forward(&micro_batch.states)?;
                    let mut statistics = TokenStatistics::default();
                    reference.statistics(&forward, &micro_batch.tokens, &[Statistic::LogProb], &mut statistics)?;
                    *micro_batch.constants.column_mut(constant) = statistics.log_prob;
                }
            }
        }
    }
    Ok(())
}
