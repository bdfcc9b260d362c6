//! The network as a [`Policy`] for the training step.

pub mod distillation;
pub mod fit;
pub mod network;
pub mod rollout;

use std::cell::Cell;
use std::convert::Infallible;
use std::ops::Range;

use enumset::EnumSet;
use objective::numerics::sum_of_squares;
use objective::{
    Data, Feedback, Freeze, Pair, Requirements, Response, Statistic, TokenConstants, TokenStatistics, mismatches,
};
use training::{Frozen, MicroBatch, Optimizer, Policy, Step, StepError, StepReport, StepSettings, fill_reference};

use crate::policy::network::{Forward, Fusion, Network, States};
use crate::world::map::{ACTIONS, Action, Map, Trajectory};
use crate::world::policy_table::greedy_action;

/// A network on a map.
pub struct LakePolicy<'a> {
    /// Network of the policy.
    pub network: Network,
    map: &'a Map,
    visited: Vec<bool>,
    /// For each input, whether it belongs to a visited cell; cells may share inputs.
    read: Vec<bool>,
    /// Ranges of parameters that may have had a gradient: those of inputs that were read, and those that every state
    /// shares.
    learning: Vec<Range<usize>>,
    /// A finished forward pass whose buffers are reused.
    spare: Cell<Option<Forward>>,
}

impl<'a> LakePolicy<'a> {
    /// Makes a policy from a network for the cells of this map, without a gradient.
    pub fn new(map: &'a Map, mut network: Network) -> Self {
        network.gradient.fill(0.0);
        let visited = vec![false; map.cells().len()];
        let read = vec![false; network.inputs().count()];
        let learning = vec![network.shared_range()];
        Self { network, map, visited, read, learning, spare: Cell::default() }
    }

    /// The number of cells whose encodings a training step has read so far.
    pub fn cells_visited(&self) -> usize {
        self.visited.iter().filter(|visited| **visited).count()
    }

    /// Takes one training step. The function is here so that this crate compiles the step's loops.
    ///
    /// # Errors
    ///
    /// [`StepError`], as [`Step::take`].
    pub fn take(
        &mut self,
        step: &mut Step<'_>,
        optimizer: &mut Optimizer,
        batches: &[MicroBatch<States, Forward>],
        settings: StepSettings,
    ) -> Result<StepReport, StepError<Infallible>> {
        step.take(self, optimizer, batches, settings)
    }

    /// Sets the policy's gradient to that of one step's loss, and leaves the parameters unchanged.
    ///
    /// # Errors
    ///
    /// [`StepError`], as [`Step::accumulate`].
    pub fn accumulate(
        &mut self,
        step: &mut Step<'_>,
        batches: &[MicroBatch<States, Forward>],
        lambda: f64,
    ) -> Result<(), StepError<Infallible>> {
        step.accumulate(self, batches, lambda).map(|_| ())
    }

    /// Fills the columns that an objective requires of a reference policy, with this policy as the reference.
    pub fn fill_reference(&self, requirements: &Requirements, batches: &mut [MicroBatch<States, Forward>]) {
        let Ok(()) = fill_reference(self, requirements, batches);
    }

    fn visit(&mut self, cells: &[usize]) {
        for &cell in cells {
            if std::mem::replace(&mut self.visited[cell], true) {
                continue;
            }
            for input in self.network.inputs().of(cell) {
                if !std::mem::replace(&mut self.read[input], true) {
                    self.learning.push(self.network.encoder_range(input));
                }
            }
        }
    }
}

/// Data of a whole step from a data set: the demonstration and, if the objective compares, the rejected trajectory.
///
/// Both begin at the only prompt, the start cell, so each is the mismatched response of the other.
pub fn given(data: Data, demonstration: &Trajectory, rejected: Option<&Trajectory>) -> MicroBatch<States, Forward> {
    let both = || std::iter::once(demonstration).chain(rejected);
    let mut batch = empty();
    match data {
        Data::Demonstrations | Data::Groups | Data::Rollouts => {
            push(&mut batch, &demonstration.cells, &demonstration.actions, Feedback::None);
        }
        Data::Preferences => {
            both().for_each(|trajectory| push(&mut batch, &trajectory.cells, &trajectory.actions, Feedback::None));
            if rejected.is_some() {
                batch.pairs.push(Pair { chosen: 0, rejected: 1 });
            }
        }
        Data::Labelled { mismatched } => {
            let trajectories: Vec<_> = both().collect();
            for (trajectory, label) in trajectories.iter().zip([Feedback::Desirable, Feedback::Undesirable]) {
                push(&mut batch, &trajectory.cells, &trajectory.actions, label);
            }
            for (_, response) in mismatches(trajectories.len()).filter(|_| mismatched) {
                let trajectory = trajectories[response];
                push(&mut batch, &trajectory.cells, &trajectory.actions, Feedback::Mismatched);
            }
        }
    }
    batch
}

/// A micro-batch without responses.
pub(crate) fn empty() -> MicroBatch<States, Forward> {
    MicroBatch {
        states: States { cells: Vec::new(), begins: Vec::new(), fusion: None },
        reference: None,
        teacher: None,
        tokens: Vec::new(),
        responses: Vec::new(),
        pairs: Vec::new(),
        constants: TokenConstants::default(),
    }
}

/// Appends a response.
pub(crate) fn push(batch: &mut MicroBatch<States, Forward>, cells: &[usize], actions: &[Action], feedback: Feedback) {
    let begin = batch.tokens.len();
    batch.states.begins.push(begin);
    batch.states.cells.extend(cells);
    batch.tokens.extend(actions.iter().map(|&action| action as usize));
    batch.responses.push(Response { tokens: begin..batch.tokens.len(), feedback });
}

impl Policy for LakePolicy<'_> {
    type States = States;
    type Forward = Forward;
    type Optimizer = Optimizer;
    type Error = Infallible;

    fn forward(&self, states: &States) -> Result<Forward, Infallible> {
        let mut forward = self.spare.take().unwrap_or_default();
        self.network.forward_into(states, &mut forward);
        Ok(forward)
    }

    fn anticipate(&self, states: &States, lambda: f64, freeze: Freeze) -> Result<States, Infallible> {
        let mut forward = self.spare.take().unwrap_or_default();
        self.network.logits_into(states, &mut forward);
        let mut cells = states.cells.clone();
        for (before, anticipated) in cells.iter_mut().skip(1).enumerate() {
            if !states.begins.contains(&(before + 1)) {
                *anticipated = self.map.intended(states.cells[before], greedy_action(&forward.log_policy[before]));
            }
        }
        self.spare.set(Some(forward));
        Ok(States { fusion: Some(Fusion { cells, lambda, freeze }), ..states.clone() })
    }

    fn statistics(
        &self,
        forward: &Forward,
        frozen: Frozen<'_, Forward>,
        tokens: &[usize],
        wanted: EnumSet<Statistic>,
        out: &mut TokenStatistics,
    ) -> Result<(), Infallible> {
        EnumSet::all().iter().for_each(|statistic: Statistic| out.column_mut(statistic).clear());
        let Forward { policy, log_policy, value, .. } = forward;
        for statistic in wanted {
            match statistic {
                Statistic::LogProb => {
                    out.log_prob.extend(log_policy.iter().zip(tokens).map(|(row, &token)| row[token]))
                }
                Statistic::ReferenceKl => {
                    let references =
                        frozen.reference.into_iter().flat_map(|forward| forward.policy.iter().zip(&forward.log_policy));
                    out.reference_kl.extend(log_policy.iter().zip(references).map(
                        |(row, (reference, log_reference))| {
                            let terms = row.iter().zip(log_reference).zip(reference);
                            // Rounding may make a divergence of equal policies negative.
                            terms.map(|((log, log_reference), p)| p * (log_reference - log)).sum::<f64>().max(0.0)
                        },
                    ));
                }
                Statistic::Entropy => out.entropy.extend(policy.iter().zip(log_policy).map(|(p, log)| entropy(p, log))),
                Statistic::Value => out.value.extend(value),
                Statistic::LogSumSquareProb => {
                    out.log_sum_square_prob.extend(policy.iter().map(|row| sum_square(row).ln().min(0.0)));
                }
                Statistic::TeacherDivergence => {
                    if let Some((teacher, kind)) = frozen.teacher {
                        let rows = log_policy.iter().zip(&teacher.log_policy);
                        out.teacher_divergence
                            .extend(rows.map(|(own, other)| distillation::divergence(kind, own, other)));
                    }
                }
                // No policy on the lake scores responses, so the column stays empty and validation rejects it.
                Statistic::Score => {}
            }
        }
        Ok(())
    }

    fn pull_back(
        &mut self,
        states: &States,
        mut forward: Forward,
        frozen: Frozen<'_, Forward>,
        tokens: &[usize],
        cotangents: &TokenStatistics,
    ) -> Result<(), Infallible> {
        // An encoding with weight 0 is not read.
        let fusion = states.fusion.as_ref();
        if fusion.is_none_or(|fusion| fusion.lambda < 1.0) {
            self.visit(&states.cells);
        }
        if let Some(fusion) = fusion.filter(|fusion| fusion.lambda > 0.0) {
            self.visit(&fusion.cells);
        }

        // The derivatives by the logits replace the policy row by row.
        let TokenStatistics {
            log_prob,
            reference_kl,
            entropy: by_entropy,
            value,
            log_sum_square_prob,
            teacher_divergence,
            ..
        } = cotangents;
        let by = |column: &[f64], index: usize| column.get(index).copied().filter(|cotangent| *cotangent != 0.0);
        for (index, (row, log)) in forward.policy.iter_mut().zip(&forward.log_policy).enumerate() {
            let policy = *row;
            let (by_log_prob, by_kl) = (by(log_prob, index).unwrap_or(0.0), by(reference_kl, index).unwrap_or(0.0));
            row.iter_mut().for_each(|slot| *slot *= by_kl - by_log_prob);
            row[tokens[index]] += by_log_prob;
            if let Some(reference) = frozen.reference {
                row.iter_mut().zip(&reference.policy[index]).for_each(|(slot, p)| *slot -= by_kl * p);
            }
            if let Some(by_entropy) = by(by_entropy, index) {
                let entropy = entropy(&policy, log);
                let terms = policy.iter().zip(log);
                row.iter_mut().zip(terms).for_each(|(slot, (p, log))| *slot -= by_entropy * p * (log + entropy));
            }
            if let Some(by_sum_square) = by(log_sum_square_prob, index) {
                let sum_square = sum_square(&policy);
                let pull = |p: f64| 2.0 * by_sum_square * p * (p / sum_square - 1.0);
                row.iter_mut().zip(policy).for_each(|(slot, p)| *slot += pull(p));
            }
            if let (Some(by_divergence), Some((teacher, kind))) = (by(teacher_divergence, index), frozen.teacher) {
                distillation::pull_back(kind, by_divergence, log, &teacher.log_policy[index], row);
            }
        }
        self.network.backward(states, &mut forward, value);
        self.spare.set(Some(forward));
        Ok(())
    }

    fn clear_gradient(&mut self) {
        self.learning.iter().for_each(|range| self.network.gradient[range.clone()].fill(0.0));
    }

    fn gradient_norm(&self) -> Result<f64, Infallible> {
        let squares = self.learning.iter().map(|range| sum_of_squares(&self.network.gradient[range.clone()]));
        Ok(squares.sum::<f64>().sqrt())
    }

    fn update(&mut self, optimizer: &mut Optimizer, learning_rate: f64, gradient_scale: f64) -> Result<(), Infallible> {
        let Network { parameters, gradient, .. } = &mut self.network;
        optimizer.update_ranges(parameters, gradient, learning_rate, gradient_scale, &self.learning);
        Ok(())
    }
}

/// Entropy −Σ p log p, nats.
fn entropy(policy: &[f64; ACTIONS], log_policy: &[f64; ACTIONS]) -> f64 {
    0.0 - policy.iter().zip(log_policy).map(|(p, log)| p * log).sum::<f64>()
}

/// Sum of squared probabilities Σ p².
fn sum_square(policy: &[f64; ACTIONS]) -> f64 {
    policy.iter().map(|p| p * p).sum()
}
