//! The network as a [`Policy`]: what the training step needs to know of a lake.

use ndarray::{Axis, ShapeError};
use objective::{Data, Freeze, Pair, Response, Statistic, TokenConstants, TokenStatistics};
use training::{MicroBatch, Optimizer, Policy};

use crate::map::{Map, Trajectory};
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

/// A whole step's data: the demonstration, and for preferences the rejected trajectory beside it.
pub fn micro_batch(
    data: Data,
    demonstration: &Trajectory,
    rejected: Option<&Trajectory>,
) -> MicroBatch<States, Forward> {
    let trajectories: Vec<_> = match data {
        Data::Demonstrations => vec![demonstration],
        Data::Preferences => std::iter::once(demonstration).chain(rejected).collect(),
    };
    let mut batch = MicroBatch {
        states: States { cells: Vec::new(), begins: Vec::new(), fusion: None },
        reference: None,
        tokens: Vec::new(),
        responses: Vec::new(),
        pairs: Vec::new(),
        constants: TokenConstants::default(),
    };
    for trajectory in &trajectories {
        let begin = batch.tokens.len();
        batch.states.begins.push(begin);
        batch.states.cells.extend(&trajectory.cells);
        batch.tokens.extend(trajectory.actions.iter().map(|&action| action as usize));
        batch.responses.push(Response { tokens: begin..batch.tokens.len() });
    }
    if trajectories.len() == 2 {
        batch.pairs.push(Pair { chosen: 0, rejected: 1 });
    }
    batch
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
        wanted: &[Statistic],
        out: &mut TokenStatistics,
    ) -> Result<(), ShapeError> {
        for &statistic in Statistic::ALL {
            out.column_mut(statistic).clear();
        }
        let rows = forward.log_policy.axis_iter(Axis(0));
        for &statistic in wanted {
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

        let mut logits = forward.log_policy.mapv(f64::exp);
        for (index, mut row) in logits.axis_iter_mut(Axis(0)).enumerate() {
            let by_log_prob = cotangents.log_prob[index];
            let by_kl = cotangents.reference_kl.get(index).copied().unwrap_or(0.0);
            row *= by_kl - by_log_prob;
            row[tokens[index]] += by_log_prob;
            if let Some(reference) = reference {
                row.zip_mut_with(&reference.log_policy.row(index), |own, log| *own -= by_kl * log.exp());
            }
        }
        self.network.backward(states, &forward, &logits)
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
