//! The one training step: every objective, every policy.

use enumset::EnumSet;
use objective::{
    Anticipation, BatchError, Constant, Coupling, Evaluation, Feedback, Metrics, Objective, ObjectiveState, Pair,
    Requirements, Response, Statistic, StepTotals, TokenColumns, TokenConstants, TokenStatistics,
};
use serde::{Deserialize, Serialize};

use crate::policy::{Frozen, MicroBatch, Policy};
use crate::ranks::{RanksError, agree};

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
    gathered: Columns,
}

/// What an objective reads of several micro-batches: those of a whole step, where responses are coupled.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Columns {
    statistics: TokenStatistics,
    constants: TokenConstants,
    responses: Vec<Response>,
    pairs: Vec<Pair>,
}

impl Columns {
    fn clear(&mut self) {
        EnumSet::all().iter().for_each(|statistic: Statistic| self.statistics.column_mut(statistic).clear());
        EnumSet::all().iter().for_each(|constant: Constant| self.constants.column_mut(constant).clear());
        self.responses.clear();
        self.pairs.clear();
    }

    fn tokens(&self) -> usize {
        self.responses.last().map_or(0, |response| response.tokens.end)
    }

    /// Puts the required columns of others behind these.
    fn append(
        &mut self,
        requirements: &Requirements,
        statistics: &TokenStatistics,
        constants: &TokenConstants,
        responses: &[Response],
        pairs: &[Pair],
    ) {
        let (tokens, first) = (self.tokens(), self.responses.len());
        for statistic in requirements.statistics {
            self.statistics.column_mut(statistic).extend(statistics.column(statistic));
        }
        for constant in requirements.constants {
            self.constants.column_mut(constant).extend(constants.column(constant));
        }
        if !(self.constants.weight.is_empty() && constants.weight.is_empty()) {
            // Responses without weights count 1.
            self.constants.weight.resize(first, 1.0);
            self.constants.weight.extend(&constants.weight);
            self.constants.weight.resize(first + responses.len(), 1.0);
        }
        self.responses.extend(responses.iter().map(|response| response.shifted(tokens)));
        let shifted = |pair: &Pair| Pair { chosen: pair.chosen + first, rejected: pair.rejected + first };
        self.pairs.extend(pairs.iter().map(shifted));
    }
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
    /// A group that lies in two micro-batches, where the tokens of a group are counted.
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

/// The micro-batches of a policy.
pub type MicroBatchOf<P> = MicroBatch<<P as Policy>::States, <P as Policy>::Forward>;

/// Accumulates the gradient of the step's loss in the policy, and answers the loss and the metrics.
///
/// Losses are divided by the counts of the whole step, so that any split into micro-batches gives the same gradient. Where
/// responses are coupled over the step, its columns are gathered and evaluated at once, and each micro-batch goes through the
/// policy a second time for its part of the cotangents. Stop-gradients are the policy's ([`Policy::anticipate`]) or the
/// objective's (a zero cotangent).
///
/// Where several processes take the step ([`Policy::ranks`]), each has some of its micro-batches, in the order of their ranks, and
/// each answers the loss, the metrics and the gradient of the whole step, as if all micro-batches were its own.
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
    let is_whole = policy.ranks().is_none() && micro_batches.len() <= 1;
    let answer = match requirements.coupling {
        Coupling::Step if !is_whole => coupled(policy, &asked, state, micro_batches, workspace)?,
        Coupling::None | Coupling::Step => separate(policy, &asked, state, micro_batches, workspace)?,
    };
    policy.sum_gradient()?;
    Ok(answer)
}

fn separate<P: Policy>(
    policy: &mut P,
    asked: &Asked<'_>,
    state: &mut ObjectiveState,
    micro_batches: &[MicroBatchOf<P>],
    workspace: &mut Workspace,
) -> Result<(f64, Metrics), StepError<P::Error>> {
    let own = match split_group(asked.requirements.grouped, micro_batches) {
        Some((micro_batch, group)) => Err(StepError::Split { micro_batch, group }),
        None => Ok(micro_batches.iter().map(MicroBatch::totals).sum::<StepTotals>()),
    };
    let totals = agree::<_, _, StepError<P::Error>>(policy.ranks(), own)?.into_iter().sum();
    let own = share(policy, asked, state, micro_batches, totals, workspace);
    let (mut loss, mut metrics) = (0.0, Metrics::default());
    for (its_loss, its_metrics) in agree(policy.ranks(), own)? {
        loss += its_loss;
        metrics.merge(&its_metrics);
    }
    Ok((loss, metrics))
}

/// The first micro-batch that goes on with a group of the one before, and the group.
fn split_group<S, F>(grouped: bool, micro_batches: &[MicroBatch<S, F>]) -> Option<(usize, usize)> {
    let group = |response: Option<&Response>| match response?.feedback {
        Feedback::Group(group) if grouped => Some(group),
        _ => None,
    };
    micro_batches.windows(2).enumerate().find_map(|(index, pair)| {
        let [before, after] = [group(pair[0].responses.last()), group(pair[1].responses.first())];
        after.filter(|_| before == after).map(|group| (index + 1, group))
    })
}

/// What some micro-batches add to the loss, the metrics and the gradient of a step.
fn share<P: Policy>(
    policy: &mut P,
    asked: &Asked<'_>,
    state: &mut ObjectiveState,
    micro_batches: &[MicroBatchOf<P>],
    totals: StepTotals,
    workspace: &mut Workspace,
) -> Result<(f64, Metrics), StepError<P::Error>> {
    let Asked { objective, .. } = asked;
    let Workspace { statistics, evaluation, .. } = workspace;
    let (mut loss, mut metrics) = (0.0, Metrics::default());
    for (index, micro_batch) in micro_batches.iter().enumerate() {
        let passed = pass(policy, asked, micro_batch, statistics)?;
        let MicroBatch { constants, responses, pairs, .. } = micro_batch;
        let columns = TokenColumns { statistics, constants, responses, pairs };
        evaluation
            .update(*objective, state, &columns, totals)
            .map_err(|source| StepError::Batch { micro_batch: index, source })?;
        loss += evaluation.loss;
        metrics.merge(&evaluation.metrics);
        pull_back(policy, &asked.requirements, micro_batch, passed, &evaluation.cotangents)?;
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
    let begin = evaluate_gathered(policy, asked, state, micro_batches, workspace)?;
    let own = pull_back_part(policy, asked, micro_batches, begin, workspace);
    agree(policy.ranks(), own)?;
    Ok((workspace.evaluation.loss, workspace.evaluation.metrics.clone()))
}

/// Takes micro-batches through the policy again, for the cotangents that begin at a token of the whole step.
fn pull_back_part<P: Policy>(
    policy: &mut P,
    asked: &Asked<'_>,
    micro_batches: &[MicroBatchOf<P>],
    mut begin: usize,
    workspace: &mut Workspace,
) -> Result<(), StepError<P::Error>> {
    let Workspace { statistics, evaluation, .. } = workspace;
    for micro_batch in micro_batches {
        let passed = pass(policy, asked, micro_batch, statistics)?;
        let end = begin + micro_batch.tokens.len();
        for statistic in asked.requirements.statistics {
            let part = &evaluation.cotangents.column(statistic)[begin..end];
            statistics.column_mut(statistic).copy_from_slice(part);
        }
        pull_back(policy, &asked.requirements, micro_batch, passed, statistics)?;
        begin = end;
    }
    Ok(())
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

/// Fills the workspace's evaluation with that of the whole step, whose columns it gathers. Answers the token of the step at which
/// the micro-batches begin.
fn evaluate_gathered<P: Policy>(
    policy: &P,
    asked: &Asked<'_>,
    state: &mut ObjectiveState,
    micro_batches: &[MicroBatchOf<P>],
    workspace: &mut Workspace,
) -> Result<usize, StepError<P::Error>> {
    let Asked { objective, requirements, .. } = asked;
    let Workspace { statistics, evaluation, gathered } = workspace;
    let own = gather(policy, asked, micro_batches, statistics, std::mem::take(gathered));
    let mut parts = agree(policy.ranks(), own)?;
    let rank = policy.ranks().map_or(0, |ranks| ranks.rank());
    let begin = parts.iter().take(rank).map(Columns::tokens).sum();
    *gathered = parts.remove(0);
    for Columns { statistics, constants, responses, pairs } in &parts {
        gathered.append(requirements, statistics, constants, responses, pairs);
    }
    let Columns { statistics, constants, responses, pairs } = &*gathered;
    let totals = StepTotals::of(responses, pairs);
    let columns = TokenColumns { statistics, constants, responses, pairs };
    evaluation.update(*objective, state, &columns, totals).map_err(|source| StepError::Step { source })?;
    Ok(begin)
}

/// Takes micro-batches through the policy and puts their columns behind one another, in place of what was there.
fn gather<P: Policy>(
    policy: &P,
    asked: &Asked<'_>,
    micro_batches: &[MicroBatchOf<P>],
    statistics: &mut TokenStatistics,
    mut gathered: Columns,
) -> Result<Columns, StepError<P::Error>> {
    gathered.clear();
    for micro_batch in micro_batches {
        pass(policy, asked, micro_batch, statistics)?;
        let MicroBatch { constants, responses, pairs, .. } = micro_batch;
        gathered.append(&asked.requirements, statistics, constants, responses, pairs);
    }
    Ok(gathered)
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
    let MicroBatch { states, tokens, .. } = micro_batch;
    let anticipated = match asked.requirements.anticipation {
        Anticipation::Off => None,
        Anticipation::Residual { lambda, freeze } => {
            let lambda = lambda.at(asked.moment.warmup, asked.moment.draw);
            Some(policy.anticipate(states, lambda, freeze)?)
        }
    };
    let forward = policy.forward(anticipated.as_ref().unwrap_or(states))?;
    let frozen = micro_batch.frozen(&asked.requirements);
    policy.statistics(&forward, frozen, tokens, asked.requirements.statistics, statistics)?;
    Ok((anticipated, forward))
}

fn pull_back<P: Policy>(
    policy: &mut P,
    requirements: &Requirements,
    micro_batch: &MicroBatchOf<P>,
    (anticipated, forward): Passed<P>,
    cotangents: &TokenStatistics,
) -> Result<(), P::Error> {
    let MicroBatch { states, tokens, .. } = micro_batch;
    let states = anticipated.as_ref().unwrap_or(states);
    policy.pull_back(states, forward, micro_batch.frozen(requirements), tokens, cotangents)
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
            reference.statistics(&forward, Frozen::default(), tokens, Statistic::LogProb.into(), &mut statistics)?;
            constants.reference_log_prob.clone_from(&statistics.log_prob);
        }
        *kept = requirements.statistics.contains(Statistic::ReferenceKl).then_some(forward);
    }
    Ok(())
}
