//! The measures of an explanation, each a function of policies and trajectories.

use std::convert::Infallible;

use objective::{Anticipation, Feedback, Objective, Requirements, Source};
use training::{MicroBatch, Policy, Step, StepError};

use super::Origin;
use crate::measure::{Moves, distance};
use crate::policy::LakePolicy;
use crate::policy::network::{Forward, Network, States};
use crate::world::environment::Environment;
use crate::world::map::{Map, Trajectory};
use crate::world::policy_table::TransitionMatrix;

/// Number of reads of each cell, by origin.
#[derive(Clone, Debug, PartialEq)]
pub struct Reads {
    by_origin: [Vec<f64>; Origin::ALL.len()],
}

impl Reads {
    /// Counts of zero for this many cells.
    pub fn new(cells: usize) -> Self {
        Self { by_origin: std::array::from_fn(|_| vec![0.0; cells]) }
    }

    /// Counts the reads of one update on a micro-batch, with this weight of anticipated states.
    pub fn count(
        &mut self,
        policy: &LakePolicy<'_>,
        requirements: &Requirements,
        batch: &MicroBatch<States, Forward>,
        lambda: f64,
        demonstration: &Trajectory,
    ) {
        let is_demonstrated = |response: usize| {
            let tokens = &batch.tokens[batch.responses[response].tokens.clone()];
            tokens.iter().copied().eq(demonstration.actions.iter().map(|&action| action as usize))
        };
        for_each_read(policy, requirements, batch, lambda, |read| {
            let origin = match requirements.source {
                _ if read.anticipated => Origin::Anticipation,
                Source::Sampled(_) => Origin::Rollouts,
                Source::Given if is_demonstrated(read.response) => Origin::Demonstration,
                Source::Given => Origin::Negatives,
            };
            self.by_origin[origin as usize][read.cell] += read.weight;
        });
    }

    /// Reads of each cell from one origin.
    pub fn of(&self, origin: Origin) -> &[f64] {
        &self.by_origin[origin as usize]
    }

    /// Whether a cell was read at all.
    pub fn any(&self, cell: usize) -> bool {
        self.by_origin.iter().any(|reads| reads[cell] > 0.0)
    }

    /// Share of each non-terminal cell in the reads of all non-terminal cells; `None` if none of them was read.
    pub fn shares(&self, map: &Map) -> Option<Vec<f64>> {
        let mut shares = vec![0.0; map.cells().len()];
        for cell in map.non_terminal() {
            shares[cell] = self.by_origin.iter().map(|reads| reads[cell]).sum();
        }
        normalised(shares)
    }
}

/// One encoding that an update reads.
struct Read {
    response: usize,
    /// The time of the move.
    time: usize,
    cell: usize,
    weight: f64,
    anticipated: bool,
}

/// Calls a function for each read of an update on the responses that it learns from.
fn for_each_read(
    policy: &LakePolicy<'_>,
    requirements: &Requirements,
    batch: &MicroBatch<States, Forward>,
    lambda: f64,
    mut each: impl FnMut(Read),
) {
    let fusion = match requirements.anticipation {
        Anticipation::Off => None,
        Anticipation::Residual { freeze, .. } => {
            let Ok(states) = policy.anticipate(&batch.states, lambda, freeze);
            states.fusion
        }
    };
    let lambda = fusion.as_ref().map_or(0.0, |fusion| fusion.lambda);
    let learned = batch.responses.iter().enumerate().filter(|(_, other)| other.feedback != Feedback::Mismatched);
    for (response, tokens) in learned.map(|(response, other)| (response, other.tokens.clone())) {
        for (time, index) in tokens.enumerate() {
            let mut read = |cell: usize, weight: f64, anticipated: bool| {
                // An encoding of weight 0 is not read.
                if weight > 0.0 {
                    each(Read { response, time, cell, weight, anticipated });
                }
            };
            read(batch.states.cells[index], 1.0 - lambda, false);
            fusion.iter().for_each(|fusion| read(fusion.cells[index], lambda, true));
        }
    }
}

/// Distributions qₙ for each n below `times`: the states that an objective weights at time n, over all cells; `None`
/// for times at which no response runs.
pub fn priors(
    policy: &LakePolicy<'_>,
    requirements: &Requirements,
    batch: &MicroBatch<States, Forward>,
    times: usize,
    cells: usize,
) -> Vec<Option<Vec<f64>>> {
    let mut priors = vec![vec![0.0; cells]; times];
    for_each_read(policy, requirements, batch, requirements.anticipation.at(1.0, 0.0), |read| {
        if let Some(prior) = priors.get_mut(read.time) {
            prior[read.cell] += read.weight;
        }
    });
    priors.into_iter().map(normalised).collect()
}

/// Distributions ρₙ for each n below `times`: the cells in which the policy moves at time n; `None` for times at which
/// no episode runs.
pub fn running(environment: &Environment, policy: &TransitionMatrix, times: usize) -> Vec<Option<Vec<f64>>> {
    distributions(environment, policy).take(times).map(normalised).collect()
}

/// Distribution d(s): the share of each cell in the policy's expected moves within the horizon.
pub fn visitation(environment: &Environment, policy: &TransitionMatrix) -> Vec<f64> {
    let mut visits = vec![0.0; policy.len()];
    for distribution in distributions(environment, policy).take(environment.horizon()) {
        visits.iter_mut().zip(distribution).for_each(|(visits, mass)| *visits += mass);
    }
    let total: f64 = visits.iter().sum();
    visits.iter().map(|visits| visits / total).collect()
}

/// Probabilities P(sₙ = s and the episode still runs) for n = 0, 1, ...
fn distributions<'a>(
    environment: &'a Environment,
    policy: &'a TransitionMatrix,
) -> impl Iterator<Item = Vec<f64>> + 'a {
    let (map, moves) = (environment.map(), Moves::new(environment, policy));
    let mut start = vec![0.0; policy.len()];
    start[map.start()] = 1.0;
    std::iter::successors(Some(start), move |distribution| {
        let mut next = vec![0.0; policy.len()];
        moves.arrive(distribution, &mut next);
        next.iter_mut().zip(map.cells()).filter(|(_, kind)| kind.is_terminal()).for_each(|(mass, _)| *mass = 0.0);
        Some(next)
    })
}

/// Divides weights by their sum; `None` if that is 0.
fn normalised(mut weights: Vec<f64>) -> Option<Vec<f64>> {
    let total: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|weight| *weight /= total);
    (total > 0.0).then_some(weights)
}

/// Overlap Σ min(q, d) of two distributions.
pub fn overlap(reads: &[f64], visits: &[f64]) -> f64 {
    reads.iter().zip(visits).map(|(q, d)| q.min(*d)).sum()
}

/// Divergence KL(q || d) = Σ q log(q / d), nats; `None` where q > 0 = d.
pub fn divergence(reads: &[f64], visits: &[f64]) -> Option<f64> {
    let terms = || reads.iter().zip(visits).filter(|(q, _)| **q > 0.0);
    // Rounding may leave a divergence of equal distributions below 0.
    terms().all(|(_, d)| *d > 0.0).then(|| terms().map(|(q, d)| q * (q / d).ln()).sum::<f64>().max(0.0))
}

/// Mean of ½ Σ |qₙ − ρₙ| over the times at which both are known; `None` if there are no such times.
pub fn bias(priors: &[Option<Vec<f64>>], running: &[Option<Vec<f64>>]) -> Option<f64> {
    let both = priors.iter().zip(running).filter_map(|(prior, running)| prior.as_ref().zip(running.as_ref()));
    let distance =
        |(q, rho): (&Vec<f64>, &Vec<f64>)| 0.5 * q.iter().zip(rho).map(|(q, rho)| (q - rho).abs()).sum::<f64>();
    let distances: Vec<_> = both.map(distance).collect();
    (!distances.is_empty()).then(|| distances.iter().sum::<f64>() / distances.len() as f64)
}

/// Bellman residuals (maxₐ π(a|s*ₜ) − π(a*ₜ|s*ₜ)) Vₜ₊₁ for each move of a trajectory.
pub fn bellman_residuals(policy: &TransitionMatrix, trajectory: &Trajectory) -> Vec<f64> {
    let moves = trajectory.cells.iter().zip(&trajectory.actions).rev();
    let mut value = 1.0;
    let mut residuals: Vec<_> = moves
        .map(|(&cell, &action)| {
            let (own, most) = (policy[cell][action as usize], policy[cell].iter().copied().fold(0.0, f64::max));
            let residual = (most - own) * value;
            value *= own;
            residual
        })
        .collect();
    residuals.reverse();
    residuals
}

/// Whether the first of two log-probabilities fell while their difference grew.
pub fn is_displaced(before: [f64; 2], trained: [f64; 2]) -> bool {
    let margin = |[chosen, rejected]: [f64; 2]| chosen - rejected;
    trained[0] < before[0] && margin(trained) > margin(before)
}

/// Cosine of two vectors; `None` if either is zero.
pub fn cosine(one: &[f64], other: &[f64]) -> Option<f64> {
    // Vectors are scaled by their maximum, so that no square underflows.
    let scaled = |vector: &[f64]| {
        let most = vector.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
        (most > 0.0 && most.is_finite()).then(|| vector.iter().map(|x| x / most).collect::<Vec<_>>())
    };
    let (one, other) = (scaled(one)?, scaled(other)?);
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    Some((product(&one, &other) / (product(&one, &one) * product(&other, &other)).sqrt()).clamp(-1.0, 1.0))
}

/// Gradient of an objective's loss on a batch with respect to all parameters, after the objective's warm-up and in its
/// initial state.
///
/// # Errors
///
/// [`StepError`] if the policy's statistics cannot be evaluated.
pub fn gradient(
    policy: &mut LakePolicy<'_>,
    objective: &dyn Objective,
    batch: &MicroBatch<States, Forward>,
) -> Result<Vec<f64>, StepError<Infallible>> {
    let mut step = Step::new(objective);
    let lambda = step.requirements().anticipation.at(1.0, 0.0);
    policy.accumulate(&mut step, std::slice::from_ref(batch), lambda)?;
    Ok(policy.network.gradient.clone())
}

/// Contribution of each cell to the distance between a policy and the optimal one.
pub fn distances(map: &Map, policy: &TransitionMatrix, optimal: &TransitionMatrix) -> Vec<f64> {
    let cells = map.non_terminal();
    let mut distances = vec![0.0; policy.len()];
    for &cell in &cells {
        distances[cell] = distance(policy, optimal, &[cell]) / cells.len() as f64;
    }
    distances
}

/// Sum of the log-probabilities of a trajectory's moves, nats.
pub fn log_prob(network: &Network, trajectory: &Trajectory) -> f64 {
    let states = States { cells: trajectory.cells.clone(), begins: vec![0], fusion: None };
    let rows = network.forward(&states).log_policy;
    rows.iter().zip(&trajectory.actions).map(|(row, &action)| row[action as usize]).sum()
}
