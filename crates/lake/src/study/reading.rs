//! Readings of a design's runs: distances and the return, after some of the updates.
//!
//! A run records its whole curve, so that every stop and every distance comes from the same run.

use serde::{Deserialize, Serialize};

use crate::error::LakeError;
use crate::experiment::Experiment;
use crate::measure::{Moves, distance, performance_of};
use crate::world::map::Cell;
use crate::world::policy_table::TransitionMatrix;

use super::{Design, UNTRAINED};

/// Names of the distances: mean squared errors between T and T* over the non-terminal cells, over all cells, and over
/// those of the demonstration; and between P(s'|s) of both policies, over the non-terminal cells.
pub const DISTANCES: [&str; 4] = ["non_terminal", "all", "demonstrated", "state_state"];
/// Names of the attributes of a design, besides the levels of its factors.
pub const ATTRIBUTES: [&str; 4] = ["rejected_ends", "rejected_takes_optimal", "rejected_length", "rejected_shares"];
/// Levels of the attributes of the rejected trajectory: where it ends, whether it takes any action of the deterministic
/// optimal policy, its length relative to the demonstration, and whether it visits a cell of the demonstration other
/// than the start. An additional level is used if no method reads the rejected trajectory.
pub const ATTRIBUTE_LEVELS: [&[&str]; ATTRIBUTES.len()] = [
    &["hole", "goal", "ice", "none"],
    &["yes", "no", "none"],
    &["shorter", "equal", "longer", "none"],
    &["yes", "no", "none"],
];
/// Name of the stop at which the curve's return is greatest, the earliest on ties. A validation without T* would choose
/// this stop.
pub const BEST: &str = "best";

/// A policy during its training. Seven digits are stored.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// Number of updates.
    pub step: u32,
    /// Distances, in the order of [`DISTANCES`].
    pub distances: [f32; DISTANCES.len()],
    /// Expected undiscounted return of the sampled policy within the horizon.
    pub mean_return: f32,
}

/// Readings of one run at the stops, untrained first and the best last; `None` if it diverged.
pub type RunReadings = Option<Vec<Reading>>;

/// Results of a design.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DesignResult {
    /// Number of the design.
    pub design: usize,
    /// Level of each factor.
    pub levels: Vec<String>,
    /// Level of each of [`ATTRIBUTES`].
    pub attributes: Vec<String>,
    /// Word of the demonstration.
    pub demonstration: String,
    /// Word of the rejected trajectory; empty if no method reads it.
    pub rejected: String,
    /// Seed of the first run.
    pub seed: u64,
    /// Readings, in the order of the recipe's methods and then of seeds.
    pub runs: Vec<Vec<RunReadings>>,
}

/// Names of the readings of a run.
pub fn stops(stops: &[usize]) -> Vec<String> {
    let own = stops.iter().map(usize::to_string);
    [UNTRAINED.to_owned()].into_iter().chain(own).chain([BEST.to_owned()]).collect()
}

/// Trains every method over every seed of a design.
///
/// # Errors
///
/// [`LakeError::Grid`], never: a run that diverges is a result.
pub fn run(design: &Design, stops: &[usize]) -> Result<DesignResult, LakeError> {
    let Design { number, levels, experiment } = design;
    let recipe = experiment.recipe();
    let gauge = Gauge::new(experiment);
    let points = experiment.curve_steps();
    let mut runs = vec![Vec::with_capacity(recipe.seeds); recipe.method.len()];
    for seed in (recipe.seed..).take(recipe.seeds) {
        let before = unless_diverged(experiment.initial(seed))?;
        for (method, runs) in runs.iter_mut().enumerate() {
            let mut curve = Vec::with_capacity(points.len());
            let taught = before.clone().map(|before| {
                let mut measure = |point: usize, policy: &TransitionMatrix| {
                    curve.push(gauge.read(points[point] as u32, policy));
                };
                unless_diverged(experiment.teach(method, seed, before, &mut measure))
            });
            let taught = taught.transpose()?.flatten();
            runs.push(taught.map(|_| select(&curve, stops)));
        }
    }
    Ok(DesignResult {
        design: *number,
        levels: levels.clone(),
        attributes: attributes(experiment).into(),
        demonstration: experiment.demonstration().word.clone(),
        rejected: experiment.rejected().map_or(String::new(), |rejected| rejected.word.clone()),
        seed: recipe.seed,
        runs,
    })
}

/// Converts the error of a diverged run to `None`, as divergence is a result of a study.
fn unless_diverged<T>(outcome: Result<T, LakeError>) -> Result<Option<T>, LakeError> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(LakeError::Diverged { .. } | LakeError::Step { .. }) => Ok(None),
        Err(other) => Err(other),
    }
}

fn select(curve: &[Reading], stops: &[usize]) -> Vec<Reading> {
    let at = |stop: usize| curve.iter().copied().find(|reading| reading.step as usize == stop);
    let better = |best: Reading, reading: &Reading| match reading.mean_return > best.mean_return {
        true => *reading,
        false => best,
    };
    let best = curve.split_first().map(|(first, rest)| rest.iter().fold(*first, better));
    [0].iter().chain(stops).filter_map(|&stop| at(stop)).chain(best).collect()
}

/// Policies and cells for the measurement of readings.
struct Gauge<'a> {
    experiment: &'a Experiment,
    moves: Moves,
    open: Vec<usize>,
    all: Vec<usize>,
    demonstrated: Vec<usize>,
}

impl<'a> Gauge<'a> {
    fn new(experiment: &'a Experiment) -> Self {
        let map = experiment.environment().map();
        Self {
            experiment,
            moves: Moves::new(experiment.environment(), experiment.optimal()),
            open: map.non_terminal(),
            all: (0..map.cells().len()).collect(),
            demonstrated: experiment.demonstrated_cells(),
        }
    }

    fn read(&self, step: u32, policy: &TransitionMatrix) -> Reading {
        let (environment, optimal) = (self.experiment.environment(), self.experiment.optimal());
        let moves = Moves::new(environment, policy);
        let of_actions = |cells: &[usize]| distance(policy, optimal, cells) as f32;
        Reading {
            step,
            distances: [
                of_actions(&self.open),
                of_actions(&self.all),
                of_actions(&self.demonstrated),
                moves.distance(&self.moves, &self.open) as f32,
            ],
            mean_return: performance_of(environment, &moves).mean_return as f32,
        }
    }
}

/// Level of each of [`ATTRIBUTES`].
fn attributes(experiment: &Experiment) -> [String; ATTRIBUTES.len()] {
    let Some(rejected) = experiment.rejected() else { return std::array::from_fn(|_| "none".to_owned()) };
    let (map, demonstration) = (experiment.environment().map(), experiment.demonstration());
    let (last, action) = (rejected.cells[rejected.cells.len() - 1], rejected.actions[rejected.actions.len() - 1]);
    let ends = match map.cells()[map.intended(last, action)] {
        Cell::Hole => "hole",
        Cell::Goal => "goal",
        Cell::Start | Cell::Frozen => "ice",
    };
    let steps = || rejected.cells.iter().zip(&rejected.actions);
    let takes_optimal = steps().any(|(&cell, &action)| experiment.greedy()[cell][action as usize] > 0.0);
    let length = match rejected.cells.len().cmp(&demonstration.cells.len()) {
        std::cmp::Ordering::Less => "shorter",
        std::cmp::Ordering::Equal => "equal",
        std::cmp::Ordering::Greater => "longer",
    };
    let shares = rejected.cells.iter().any(|cell| *cell != map.start() && demonstration.cells.contains(cell));
    let yes = |holds: bool| if holds { "yes" } else { "no" };
    [ends, yes(takes_optimal), length, yes(shares)].map(str::to_owned)
}
