//! The one training step for every objective and every policy.

#[cfg(test)]
mod tests;

use objective::{
    Coupling, Evaluation, Feedback, Metrics, Objective, ObjectiveState, Requirements, Response, StepTotals,
    TokenColumns, TokenStatistics,
};

use crate::columns::{Columns, copy_tokens};
use crate::error::StepError;
use crate::passing::{Passing, columns, forward, pull_back};
use crate::policy::{MicroBatch, MicroBatchOf, Policy};
use crate::ranks::agree;

/// Training with an objective: its state between steps, and the buffers of a step.
///
/// A step has one path. Its micro-batches are divided into *parts*: all of them form one part if responses are coupled
/// over the step, and otherwise each is a part of its own. The columns of a part are evaluated together, and each
/// micro-batch of the part is pulled back. A micro-batch that is a part by itself goes through the policy once, and its
/// columns are read in place; those of a larger part are gathered, and each micro-batch goes through the policy a
/// second time to be pulled back.
///
/// Losses are divided by the counts of the whole step, so that any division gives the same gradient. Stop-gradients
/// belong to the policy ([`Policy::anticipate`]) or the objective ([`Objective::hold`]).
///
/// If several processes take the step ([`Policy::ranks`]), each has some of its micro-batches, in the order of their
/// ranks, and each returns the loss, the metrics and the gradient of the whole step, as if all micro-batches were its
/// own.
#[derive(Debug)]
pub struct Step<'a> {
    objective: &'a dyn Objective,
    requirements: Requirements,
    state: ObjectiveState,
    statistics: TokenStatistics,
    evaluation: Evaluation,
    gathered: Columns,
}

/// Settings of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepSettings {
    /// Learning rate of this step, including the schedule's factor.
    pub learning_rate: f64,
    /// Maximum Euclidean norm of the gradient; `None` for no clipping.
    pub clip_norm: Option<f64>,
    /// Weight λ of the policy's own prediction in an anticipated state, in [0, 1] ([`objective::Anticipation::at`]).
    /// Objectives without anticipated states ignore it.
    pub lambda: f64,
}

/// Results of one step.
#[derive(Clone, Debug, PartialEq)]
pub struct StepReport {
    /// Loss of the step before the update.
    pub loss: f64,
    /// Euclidean norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// Metrics of the objective over the whole step.
    pub metrics: Metrics,
}

/// Division of a step's micro-batches into parts.
#[derive(Clone, Copy)]
struct Division {
    /// Counts of the whole step.
    totals: StepTotals,
    /// If all micro-batches form one part: the index of this process's first token in the gathered columns.
    begin: Option<usize>,
}

impl<'a> Step<'a> {
    /// Begins training with an objective, in its initial state.
    pub fn new(objective: &'a dyn Objective) -> Self {
        Self {
            objective,
            requirements: objective.requirements(),
            state: ObjectiveState::default(),
            statistics: TokenStatistics::default(),
            evaluation: Evaluation::default(),
            gathered: Columns::default(),
        }
    }

    /// Requirements of the objective.
    pub fn requirements(&self) -> &Requirements {
        &self.requirements
    }

    /// State of the objective between steps.
    pub fn state(&self) -> &ObjectiveState {
        &self.state
    }

    /// State of the objective, to be restored from a checkpoint.
    pub fn state_mut(&mut self) -> &mut ObjectiveState {
        &mut self.state
    }

    /// Makes one optimizer step: [`accumulate`](Self::accumulate), clip, update.
    ///
    /// Clipping multiplies the gradient by min(1, c / (norm + 10⁻⁶)), like PyTorch's `clip_grad_norm_`.
    ///
    /// # Errors
    ///
    /// [`StepError`]; the policy's parameters, the optimizer and the objective's state are then unchanged.
    pub fn take<P: Policy>(
        &mut self,
        policy: &mut P,
        optimizer: &mut P::Optimizer,
        micro_batches: &[MicroBatchOf<P>],
        settings: StepSettings,
    ) -> Result<StepReport, StepError<P::Error>> {
        let StepSettings { learning_rate, clip_norm, lambda } = settings;
        let mut state = self.state.clone();
        let (loss, metrics) = self.gradient(policy, &mut state, micro_batches, lambda)?;
        let gradient_norm = policy.gradient_norm()?;
        for (quantity, value) in [("loss", loss), ("gradient norm", gradient_norm)] {
            if !value.is_finite() {
                return Err(StepError::Diverged { quantity, value });
            }
        }
        let gradient_scale = clip_norm.map_or(1.0, |clip_norm| (clip_norm / (gradient_norm + 1e-6)).min(1.0));
        policy.update(optimizer, learning_rate, gradient_scale)?;
        self.state = state;
        Ok(StepReport { loss, gradient_norm, metrics })
    }

    /// Adds the gradient of the step's loss to the policy, and returns the loss and the metrics.
    ///
    /// # Errors
    ///
    /// [`StepError`]; the gradient is then unspecified. The parameters and the objective's state are unchanged.
    pub fn accumulate<P: Policy>(
        &mut self,
        policy: &mut P,
        micro_batches: &[MicroBatchOf<P>],
        lambda: f64,
    ) -> Result<(f64, Metrics), StepError<P::Error>> {
        let mut state = self.state.clone();
        let answer = self.gradient(policy, &mut state, micro_batches, lambda)?;
        self.state = state;
        Ok(answer)
    }

    /// Computes the loss and the metrics of micro-batches as one step, without a gradient. The objective's state is
    /// unchanged.
    ///
    /// # Errors
    ///
    /// [`StepError`] for invalid columns or a failure of the policy.
    pub fn evaluate<P: Policy>(
        &mut self,
        policy: &P,
        micro_batches: &[MicroBatchOf<P>],
        lambda: f64,
    ) -> Result<(f64, Metrics), StepError<P::Error>> {
        self.pass(Passing::Evaluated(policy), &mut self.state.clone(), micro_batches, lambda)
    }

    fn gradient<P: Policy>(
        &mut self,
        policy: &mut P,
        state: &mut ObjectiveState,
        micro_batches: &[MicroBatchOf<P>],
        lambda: f64,
    ) -> Result<(f64, Metrics), StepError<P::Error>> {
        policy.clear_gradient();
        let answer = self.pass(Passing::Trained(&mut *policy), state, micro_batches, lambda)?;
        policy.sum_gradient()?;
        Ok(answer)
    }

    /// The one path of a step: the processes agree on its counts or columns, and then on the sum of what their parts
    /// contribute.
    fn pass<P: Policy>(
        &mut self,
        mut policy: Passing<'_, P>,
        state: &mut ObjectiveState,
        micro_batches: &[MicroBatchOf<P>],
        lambda: f64,
    ) -> Result<(f64, Metrics), StepError<P::Error>> {
        let division = self.divide(policy.get(), micro_batches, lambda)?;
        let own = self.parts(&mut policy, state, micro_batches, lambda, division);
        let all = agree(policy.get().ranks(), own)?;
        // Every process has evaluated all gathered columns.
        let distinct = if division.begin.is_some() { 1 } else { all.len() };
        let (mut loss, mut metrics) = (0.0, Metrics::default());
        for (its_loss, its_metrics) in &all[..distinct] {
            loss += its_loss;
            metrics.merge(its_metrics);
        }
        Ok((loss, metrics))
    }

    /// Divides a step into parts. Gathers the columns of a part of several micro-batches.
    fn divide<P: Policy>(
        &mut self,
        policy: &P,
        micro_batches: &[MicroBatchOf<P>],
        lambda: f64,
    ) -> Result<Division, StepError<P::Error>> {
        let is_whole = policy.ranks().is_none() && micro_batches.len() <= 1;
        if self.requirements.coupling == Coupling::None || is_whole {
            let own = match split_group(self.requirements.grouped, micro_batches) {
                Some((micro_batch, group)) => Err(StepError::Split { micro_batch, group }),
                None => Ok(micro_batches.iter().map(MicroBatch::totals).sum::<StepTotals>()),
            };
            let totals = agree::<_, _, StepError<P::Error>>(policy.ranks(), own)?.into_iter().sum();
            return Ok(Division { totals, begin: None });
        }
        let own = self.gather(policy, micro_batches, lambda);
        let mut all = agree(policy.ranks(), own)?;
        let rank = policy.ranks().map_or(0, |ranks| ranks.rank());
        let begin = all.iter().take(rank).map(Columns::tokens).sum();
        self.gathered = all.remove(0);
        all.iter().for_each(|others| self.gathered.append(&self.requirements, &others.view()));
        let TokenColumns { responses, pairs, .. } = self.gathered.view();
        Ok(Division { totals: StepTotals::of(responses, pairs), begin: Some(begin) })
    }

    /// Runs micro-batches through the policy and concatenates their columns.
    fn gather<P: Policy>(
        &mut self,
        policy: &P,
        micro_batches: &[MicroBatchOf<P>],
        lambda: f64,
    ) -> Result<Columns, StepError<P::Error>> {
        let mut gathered = std::mem::take(&mut self.gathered);
        gathered.clear();
        for micro_batch in micro_batches {
            forward(policy, &self.requirements, micro_batch, lambda, &mut self.statistics)?;
            gathered.append(&self.requirements, &columns(micro_batch, &self.statistics));
        }
        Ok(gathered)
    }

    /// Contribution of this process's micro-batches to the loss, the metrics and the gradient of the step.
    fn parts<P: Policy>(
        &mut self,
        policy: &mut Passing<'_, P>,
        state: &mut ObjectiveState,
        micro_batches: &[MicroBatchOf<P>],
        lambda: f64,
        Division { totals, begin }: Division,
    ) -> Result<(f64, Metrics), StepError<P::Error>> {
        let Self { objective, requirements, statistics, evaluation, gathered, .. } = self;
        let (mut loss, mut metrics) = (0.0, Metrics::default());
        let parts: &mut dyn Iterator<Item = &[MicroBatchOf<P>]> = match begin {
            None => &mut micro_batches.chunks(1),
            Some(_) => &mut std::iter::once(micro_batches),
        };
        for (index, part) in parts.enumerate() {
            // A micro-batch that is a part by itself goes through the policy once, and its columns are read in place.
            let (mut passed, columns) = match (begin, part) {
                (None, [own]) => {
                    let passed = forward(policy.get(), requirements, own, lambda, statistics)?;
                    (Some(passed), columns(own, statistics))
                }
                _ => (None, gathered.view()),
            };
            evaluation.update(*objective, state, &columns, totals).map_err(|source| match begin {
                None => StepError::Batch { micro_batch: index, source },
                Some(_) => StepError::Step { source },
            })?;
            loss += evaluation.loss;
            metrics.merge(&evaluation.metrics);
            let Passing::Trained(policy) = policy else { continue };
            let mut tokens = begin.map_or(0..0, |begin| begin..begin);
            for micro_batch in part {
                let (passed, cotangents) = match passed.take() {
                    Some(passed) => (passed, evaluation.cotangents()),
                    None => {
                        let passed = forward(*policy, requirements, micro_batch, lambda, statistics)?;
                        tokens = tokens.end..tokens.end + micro_batch.tokens.len();
                        copy_tokens(requirements.statistics, evaluation.cotangents(), tokens.clone(), statistics);
                        (passed, &*statistics)
                    }
                };
                pull_back(*policy, requirements, micro_batch, passed, cotangents)?;
            }
        }
        Ok((loss, metrics))
    }
}

/// The first micro-batch that continues a group of the previous one, and the group.
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
