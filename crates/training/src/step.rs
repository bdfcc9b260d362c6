//! The one training step: every objective, every policy.

use enumset::EnumSet;
use objective::{
    Anticipation, BatchError, Constant, Coupling, Evaluation, Metrics, Objective, ObjectiveState, Pair, Requirements,
    Response, Statistic, StepTotals, TokenBatch, TokenConstants, TokenStatistics,
};

use crate::policy::{MicroBatch, Policy};

/// What a step needs beside policy, objective and data.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepSettings {
    /// Learning rate of this step, the schedule's factor included.
    pub learning_rate: f64,
    /// Greatest Euclidean norm of the gradient; none means unclipped.
    pub clip_norm: Option<f64>,
    /// What λ depends on.
    pub moment: Moment,
}

/// What an anticipated state's weight λ depends on beside its parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moment {
    /// The share of the warm-up that is over, in [0, 1].
    pub warmup: f64,
    /// A draw from the standard normal distribution, for the noise of λ.
    pub draw: f64,
}

impl Default for Moment {
    /// After the warm-up, without noise.
    fn default() -> Self {
        Self { warmup: 1.0, draw: 0.0 }
    }
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
    /// The whole step's columns, where responses are coupled.
    gathered: TokenStatistics,
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
    /// The same for the gathered columns of a step whose responses are coupled.
    #[error("step: {source}")]
    Step {
        /// What is wrong with them.
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

/// The micro-batches of a policy.
pub type MicroBatchOf<P> = MicroBatch<<P as Policy>::States, <P as Policy>::Forward>;

/// Accumulates the gradient of the step's loss in the policy, and answers the loss and the metrics.
///
/// Losses are divided by the counts of the whole step, so that any split into micro-batches gives the same gradient. Where
/// responses are coupled over the step, its columns are gathered and evaluated at once, and each micro-batch goes through the
/// policy a second time for its part of the cotangents. Stop-gradients are the policy's ([`Policy::anticipate`]) or the
/// objective's (a zero cotangent).
///
/// # Errors
///
/// [`StepError`]; the gradient is then unspecified and the parameters are unchanged.
pub fn accumulate<P: Policy>(
    policy: &mut P,
    objective: &dyn Objective,
    state: &mut ObjectiveState,
    micro_batches: &[MicroBatchOf<P>],
    moment: Moment,
    workspace: &mut Workspace,
) -> Result<(f64, Metrics), StepError<P::Error>> {
    let requirements = objective.requirements();
    policy.clear_gradient();
    let asked = Asked { objective, requirements, moment };
    match requirements.coupling {
        Coupling::Step if micro_batches.len() > 1 => coupled(policy, &asked, state, micro_batches, workspace),
        Coupling::None | Coupling::Step => separate(policy, &asked, state, micro_batches, workspace),
    }
}

fn separate<P: Policy>(
    policy: &mut P,
    asked: &Asked<'_>,
    state: &mut ObjectiveState,
    micro_batches: &[MicroBatchOf<P>],
    workspace: &mut Workspace,
) -> Result<(f64, Metrics), StepError<P::Error>> {
    let Asked { objective, requirements, .. } = asked;
    let totals: StepTotals = micro_batches.iter().map(MicroBatch::totals).sum();
    let Workspace { statistics, evaluation, .. } = workspace;
    let (mut loss, mut metrics) = (0.0, Metrics::default());
    for (index, micro_batch) in micro_batches.iter().enumerate() {
        let passed = pass(policy, asked, micro_batch, statistics)?;
        let MicroBatch { constants, responses, pairs, .. } = micro_batch;
        let batch = TokenBatch::new(requirements, statistics, constants, responses, pairs, totals)
            .map_err(|source| StepError::Batch { micro_batch: index, source })?;
        objective.evaluate(&batch, state, evaluation);
        loss += evaluation.loss;
        metrics.merge(&evaluation.metrics);
        pull_back(policy, micro_batch, passed, &evaluation.cotangents)?;
    }
    Ok((loss, metrics))
}

fn coupled<P: Policy>(
    policy: &mut P,
    asked: &Asked<'_>,
    state: &mut ObjectiveState,
    micro_batches: &[MicroBatchOf<P>],
    workspace: &mut Workspace,
) -> Result<(f64, Metrics), StepError<P::Error>> {
    evaluate_gathered(policy, asked, state, micro_batches, workspace)?;
    let Workspace { statistics, evaluation, .. } = workspace;
    let mut begin = 0;
    for micro_batch in micro_batches {
        let passed = pass(policy, asked, micro_batch, statistics)?;
        let end = begin + micro_batch.tokens.len();
        for statistic in asked.requirements.statistics {
            let part = &evaluation.cotangents.column(statistic)[begin..end];
            statistics.column_mut(statistic).copy_from_slice(part);
        }
        pull_back(policy, micro_batch, passed, statistics)?;
        begin = end;
    }
    Ok((evaluation.loss, evaluation.metrics.clone()))
}

/// The loss and the metrics of micro-batches as one step, without a gradient.
///
/// # Errors
///
/// [`StepError`]; the objective's state is then unspecified.
pub fn evaluate<P: Policy>(
    policy: &P,
    objective: &dyn Objective,
    state: &mut ObjectiveState,
    micro_batches: &[MicroBatchOf<P>],
    moment: Moment,
    workspace: &mut Workspace,
) -> Result<(f64, Metrics), StepError<P::Error>> {
    let asked = Asked { objective, requirements: objective.requirements(), moment };
    evaluate_gathered(policy, &asked, state, micro_batches, workspace)?;
    Ok((workspace.evaluation.loss, workspace.evaluation.metrics.clone()))
}

/// Fills the workspace's evaluation with that of the whole step, whose columns it gathers.
fn evaluate_gathered<P: Policy>(
    policy: &P,
    asked: &Asked<'_>,
    state: &mut ObjectiveState,
    micro_batches: &[MicroBatchOf<P>],
    workspace: &mut Workspace,
) -> Result<(), StepError<P::Error>> {
    let Asked { objective, requirements, .. } = asked;
    let Workspace { statistics, evaluation, gathered } = workspace;
    let (mut constants, mut responses, mut pairs) = (TokenConstants::default(), Vec::new(), Vec::new());
    EnumSet::all().iter().for_each(|statistic: Statistic| gathered.column_mut(statistic).clear());
    for micro_batch in micro_batches {
        pass(policy, asked, micro_batch, statistics)?;
        let begin = responses.last().map_or(0, |response: &Response| response.tokens.end);
        let first = responses.len();
        for statistic in requirements.statistics {
            gathered.column_mut(statistic).extend(statistics.column(statistic));
        }
        for constant in requirements.constants {
            constants.column_mut(constant).extend(micro_batch.constants.column(constant));
        }
        responses.extend(micro_batch.responses.iter().map(|response| response.shifted(begin)));
        pairs.extend(
            micro_batch.pairs.iter().map(|pair| Pair { chosen: pair.chosen + first, rejected: pair.rejected + first }),
        );
    }
    let totals = StepTotals::of(&responses, &pairs);
    let batch = TokenBatch::new(requirements, gathered, &constants, &responses, &pairs, totals)
        .map_err(|source| StepError::Step { source })?;
    objective.evaluate(&batch, state, evaluation);
    Ok(())
}

/// What a step asks of the policy.
struct Asked<'a> {
    objective: &'a dyn Objective,
    requirements: Requirements,
    moment: Moment,
}

/// Anticipated states, where the objective asks for them, and the forward pass.
type Passed<P> = (Option<<P as Policy>::States>, <P as Policy>::Forward);

/// Takes a micro-batch through the policy and fills its statistics.
fn pass<P: Policy>(
    policy: &P,
    asked: &Asked<'_>,
    micro_batch: &MicroBatchOf<P>,
    statistics: &mut TokenStatistics,
) -> Result<Passed<P>, P::Error> {
    let MicroBatch { states, reference, tokens, .. } = micro_batch;
    let anticipated = match asked.requirements.anticipation {
        Anticipation::Off => None,
        Anticipation::Residual { lambda, freeze } => {
            let lambda = lambda.at(asked.moment.warmup, asked.moment.draw);
            Some(policy.anticipate(states, lambda, freeze)?)
        }
    };
    let forward = policy.forward(anticipated.as_ref().unwrap_or(states))?;
    policy.statistics(&forward, reference.as_ref(), tokens, asked.requirements.statistics, statistics)?;
    Ok((anticipated, forward))
}

fn pull_back<P: Policy>(
    policy: &mut P,
    micro_batch: &MicroBatchOf<P>,
    (anticipated, forward): Passed<P>,
    cotangents: &TokenStatistics,
) -> Result<(), P::Error> {
    let MicroBatch { states, reference, tokens, .. } = micro_batch;
    let states = anticipated.as_ref().unwrap_or(states);
    policy.pull_back(states, forward, reference.as_ref(), tokens, cotangents)
}

/// One optimizer step: [`accumulate`], clip, update.
///
/// Clipping multiplies the gradient by min(1, c / (norm + 10⁻⁶)), as PyTorch's `clip_grad_norm_` does.
///
/// # Errors
///
/// [`StepError`]; the policy's parameters, the optimizer and the objective's state are then as they were before the step.
pub fn step<P: Policy>(
    policy: &mut P,
    optimizer: &mut P::Optimizer,
    objective: &dyn Objective,
    state: &mut ObjectiveState,
    micro_batches: &[MicroBatchOf<P>],
    settings: StepSettings,
    workspace: &mut Workspace,
) -> Result<StepReport, StepError<P::Error>> {
    let mut next_state = state.clone();
    let (loss, metrics) = accumulate(policy, objective, &mut next_state, micro_batches, settings.moment, workspace)?;
    let gradient_norm = policy.gradient_norm()?;
    for (quantity, value) in [("loss", loss), ("gradient norm", gradient_norm)] {
        if !value.is_finite() {
            return Err(StepError::Diverged { quantity, value });
        }
    }
    let gradient_scale = settings.clip_norm.map_or(1.0, |clip_norm| (clip_norm / (gradient_norm + 1e-6)).min(1.0));
    policy.update(optimizer, settings.learning_rate, gradient_scale)?;
    *state = next_state;
    Ok(StepReport { loss, gradient_norm, metrics })
}

/// Fills what an objective requires of a frozen reference policy, once before training: constants, and the forward pass where
/// a statistic needs the reference's whole distribution.
///
/// # Errors
///
/// The reference policy's own.
pub fn fill_reference<P: Policy>(
    reference: &P,
    requirements: &Requirements,
    micro_batches: &mut [MicroBatchOf<P>],
) -> Result<(), P::Error> {
    if !requirements.need_reference() {
        return Ok(());
    }
    let mut statistics = TokenStatistics::default();
    for MicroBatch { states, reference: kept, tokens, constants, .. } in micro_batches {
        let forward = reference.forward(states)?;
        if requirements.constants.contains(Constant::ReferenceLogProb) {
            reference.statistics(&forward, None, tokens, Statistic::LogProb.into(), &mut statistics)?;
            constants.reference_log_prob.clone_from(&statistics.log_prob);
        }
        *kept = requirements.statistics.contains(Statistic::ReferenceKl).then_some(forward);
    }
    Ok(())
}
