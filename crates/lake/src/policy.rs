//! The network as a [`Policy`]: what the training step needs to know of a lake.

use enumset::EnumSet;
use ndarray::{ArrayView1, Axis, ShapeError};
use objective::labelled::mismatches;
use objective::{Data, Feedback, Freeze, Pair, Response, Statistic, TokenConstants, TokenStatistics};
use training::{MicroBatch, Optimizer, Policy};

use crate::map::{Action, Map, Trajectory};
use crate::measure::greedy_action;
use crate::network::{Forward, Fusion, Network, States};

/// The network on a map.
#[derive(Clone, Debug)]
pub struct LakePolicy<'a> {
    /// The network.
    pub network: Network,
    map: &'a Map,
    visited: Vec<bool>,
}

impl<'a> LakePolicy<'a> {
    /// The network on a map of as many cells as it has.
    pub fn new(map: &'a Map, network: Network) -> Self {
        Self { network, map, visited: vec![false; map.cells().len()] }
    }

    /// The number of cells whose encodings a training step has read so far.
    pub fn cells_visited(&self) -> usize {
        self.visited.iter().filter(|visited| **visited).count()
    }
}

/// A whole step's data from a data set: the demonstration, and where the objective compares, the rejected trajectory beside it.
///
/// Both start from the one prompt there is, the start cell: the mismatched response to it is the other's.
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
    type Error = ShapeError;

    fn forward(&self, states: &States) -> Result<Forward, ShapeError> {
        self.network.forward(states)
    }

    fn anticipate(&self, states: &States, lambda: f64, freeze: Freeze) -> Result<States, ShapeError> {
        let log_policy = self.network.forward(states)?.log_policy;
        let mut cells = states.cells.clone();
        for (index, row) in log_policy.axis_iter(Axis(0)).enumerate() {
            let after = index + 1;
            if after < cells.len() && !states.begins.contains(&after) {
                let action = greedy_action(&std::array::from_fn(|action| row[action]));
                cells[after] = self.map.intended(states.cells[index], action);
            }
        }
        Ok(States { fusion: Some(Fusion { cells, lambda, freeze }), ..states.clone() })
    }

    fn statistics(
        &self,
        forward: &Forward,
        reference: Option<&Forward>,
        tokens: &[usize],
        wanted: EnumSet<Statistic>,
        out: &mut TokenStatistics,
    ) -> Result<(), ShapeError> {
        EnumSet::all().iter().for_each(|statistic: Statistic| out.column_mut(statistic).clear());
        let rows = forward.log_policy.axis_iter(Axis(0));
        for statistic in wanted {
            match statistic {
                Statistic::LogProb => out.log_prob.extend(rows.clone().zip(tokens).map(|(row, &token)| row[token])),
                Statistic::ReferenceKl => {
                    let references = reference.into_iter().flat_map(|forward| forward.log_policy.axis_iter(Axis(0)));
                    out.reference_kl.extend(rows.clone().zip(references).map(|(row, reference)| {
                        let terms =
                            row.iter().zip(reference).map(|(own, reference)| reference.exp() * (reference - own));
                        // Rounding may leave a divergence of equal policies below 0.
                        terms.sum::<f64>().max(0.0)
                    }));
                }
                Statistic::Entropy => out.entropy.extend(rows.clone().map(entropy)),
                Statistic::Value => out.value.extend(&forward.value),
                Statistic::LogSumSquareProb => {
                    out.log_sum_square_prob.extend(rows.clone().map(|row| sum_square(row).ln().min(0.0)));
                }
            }
        }
        Ok(())
    }

    fn pull_back(
        &mut self,
        states: &States,
        forward: Forward,
        reference: Option<&Forward>,
        tokens: &[usize],
        cotangents: &TokenStatistics,
    ) -> Result<(), ShapeError> {
        // An encoding of weight 0 is not read.
        let own = states.fusion.as_ref().is_none_or(|fusion| fusion.lambda < 1.0).then_some(&states.cells);
        let anticipated = states.fusion.as_ref().filter(|fusion| fusion.lambda > 0.0).map(|fusion| &fusion.cells);
        own.into_iter().chain(anticipated).flatten().for_each(|&cell| self.visited[cell] = true);

        let TokenStatistics { log_prob, reference_kl, entropy: by_entropy, value, log_sum_square_prob } = cotangents;
        let at = |column: &[f64], index: usize| column.get(index).copied().unwrap_or(0.0);
        let mut logits = forward.log_policy.mapv(f64::exp);
        for (index, mut row) in logits.axis_iter_mut(Axis(0)).enumerate() {
            let log_policy = forward.log_policy.row(index);
            let (by_log_prob, by_kl) = (at(log_prob, index), at(reference_kl, index));
            let (by_entropy, by_sum_square) = (at(by_entropy, index), at(log_sum_square_prob, index));
            let (entropy, sum_square) = (entropy(log_policy), sum_square(log_policy));
            row.zip_mut_with(&log_policy, |slot, &log| {
                let p = *slot;
                *slot = p * (by_kl - by_log_prob) - p * by_entropy * (log + entropy)
                    + 2.0 * by_sum_square * p * (p / sum_square - 1.0);
            });
            row[tokens[index]] += by_log_prob;
            if let Some(reference) = reference {
                row.zip_mut_with(&reference.log_policy.row(index), |own, log| *own -= by_kl * log.exp());
            }
        }
        self.network.backward(states, &forward, &logits, value)
    }

    fn clear_gradient(&mut self) {
        self.network.gradient.fill(0.0);
    }

    fn gradient_norm(&self) -> Result<f64, ShapeError> {
        Ok(self.network.gradient.iter().fold(0.0, |sum, gradient| sum + gradient * gradient).sqrt())
    }

    fn update(&mut self, optimizer: &mut Optimizer, learning_rate: f64, gradient_scale: f64) -> Result<(), ShapeError> {
        let Network { parameters, gradient, .. } = &mut self.network;
        optimizer.update(parameters, gradient, learning_rate, gradient_scale);
        Ok(())
    }
}

/// −Σ p log p of a row of log p, nats.
fn entropy(log_policy: ArrayView1<'_, f64>) -> f64 {
    0.0 - log_policy.fold(0.0, |sum, log| sum + log.exp() * log)
}

/// Σ p² of a row of log p.
fn sum_square(log_policy: ArrayView1<'_, f64>) -> f64 {
    log_policy.fold(0.0, |sum, log| sum + (2.0 * log).exp())
}
