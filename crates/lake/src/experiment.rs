//! Running a recipe: every method over every seed, in parallel, in an order that no thread count changes.

use std::collections::BTreeMap;

use ndarray_rand::rand_distr::StandardNormal;
use objective::{Data, Metrics, Objective};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rayon::prelude::*;
use training::{Moment, Optimizer, OptimizerSettings, Schedule, StepSettings, Workspace, fill_reference, step};

use crate::environment::Environment;
use crate::error::LakeError;
use crate::map::{Map, Trajectory};
use crate::measure::{Performance, distance, greedy, performance};
use crate::network::Network;
use crate::policy::{LakePolicy, micro_batch};
use crate::recipe::Recipe;
use crate::report::{Curve, Fares, MethodReport, Optimal, Report, Summary};
use crate::solver::{Solution, TransitionMatrix, optimal_policy, value_iteration};
use crate::trajectory;

/// The stream of a run's seed that initial parameters are drawn from. Every further source of randomness takes its own
/// stream, so that adding one changes no other's numbers.
const INITIALISATION: u64 = 0;
/// The stream of the noise of λ.
const LAMBDA_NOISE: u64 = 1;

/// A recipe with everything derived and checked: nothing can fail after this but training itself.
#[derive(Debug)]
pub struct Experiment {
    recipe: Recipe,
    environment: Environment,
    solution: Solution,
    optimal: TransitionMatrix,
    demonstration: Trajectory,
    rejected: Option<Trajectory>,
    optimizer: OptimizerSettings,
    objectives: Vec<Box<dyn Objective>>,
    /// Updates after which the curve is measured.
    curve_steps: Vec<usize>,
}

/// What one run of one method leaves behind.
struct Run {
    curve: Vec<f64>,
    transition_matrix: TransitionMatrix,
    distance_all_cells: f64,
    distance_demonstrated_cells: f64,
    greedy: Performance,
    sampled: Performance,
    cells_visited: usize,
    last_loss: f64,
    last_metrics: Metrics,
}

impl Experiment {
    /// Derives everything that the recipe's runs share.
    ///
    /// # Errors
    ///
    /// [`LakeError`] for a map, trajectory, optimizer or method that the recipe names wrongly.
    pub fn new(recipe: Recipe) -> Result<Self, LakeError> {
        let environment = Environment::new(Map::load(&recipe.map)?, recipe.slippery);
        let solution = value_iteration(&environment, recipe.gamma);
        let optimal = optimal_policy(&environment, &solution, recipe.target);
        let objectives = recipe.objectives()?;
        let demonstration = trajectory::resolve(environment.map(), &recipe.demonstration)?;
        let compares = objectives.iter().any(|objective| objective.requirements().data == Data::Preferences);
        let rejected = compares.then(|| trajectory::resolve(environment.map(), &recipe.rejected)).transpose()?;
        let (optimizer, curve_steps) = (recipe.optimizer()?, curve_steps(recipe.steps));
        Ok(Self { recipe, environment, solution, optimal, demonstration, rejected, optimizer, objectives, curve_steps })
    }

    /// The number of runs.
    pub fn runs(&self) -> usize {
        self.objectives.len() * self.recipe.seeds
    }

    /// The lake.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Trains every method over every seed on rayon's current threads; `finished` is called once a run.
    ///
    /// # Errors
    ///
    /// [`LakeError::Step`] and [`LakeError::Diverged`] of the first run, in order, that failed.
    pub fn run(&self, finished: impl Fn() + Sync) -> Result<Report, LakeError> {
        let seeds = self.recipe.seeds;
        let outcomes: Vec<_> = (0..self.runs())
            .into_par_iter()
            .map(|index| {
                let run = self.train(index / seeds, self.recipe.seed + (index % seeds) as u64);
                finished();
                run
            })
            .collect();
        let runs = outcomes.into_iter().collect::<Result<Vec<_>, _>>()?;
        let mut results: Vec<_> =
            runs.chunks(seeds).enumerate().map(|(method, runs)| self.summarise(method, runs)).collect();
        results.sort_by(|a, b| a.distance.mean.total_cmp(&b.distance.mean));

        let best = performance(&self.environment, &self.optimal);
        let mut trajectories = BTreeMap::from([("demonstration", self.demonstration.word.clone())]);
        trajectories.extend(self.rejected.as_ref().map(|rejected| ("rejected", rejected.word.clone())));
        Ok(Report {
            version: env!("CARGO_PKG_VERSION"),
            recipe: self.recipe.clone(),
            map: self.environment.map().rows(),
            trajectories,
            optimal: Optimal {
                value: self.solution.value.clone(),
                transition_matrix: self.optimal.clone(),
                success_rate: best.success_rate,
                mean_return: best.mean_return,
            },
            results,
        })
    }

    fn train(&self, method: usize, seed: u64) -> Result<Run, LakeError> {
        let Self { recipe, environment, optimal, .. } = self;
        let objective = &*self.objectives[method];
        let requirements = objective.requirements();
        let map = environment.map();
        let cells = map.non_terminal();

        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(INITIALISATION);
        let network = Network::new(map.cells().len(), recipe.hidden, &mut rng)?;
        let mut optimizer = Optimizer::new(self.optimizer, network.parameters.len());
        let mut policy = LakePolicy::new(map, network);
        let mut batches = [micro_batch(requirements.data, &self.demonstration, self.rejected.as_ref())];
        // The reference is the untrained policy: what is required of it is filled before the first update.
        fill_reference(&policy, &requirements, &mut batches)?;

        let mut noise = ChaCha8Rng::seed_from_u64(seed);
        noise.set_stream(LAMBDA_NOISE);
        let schedule = Schedule { shape: recipe.schedule, warmup_ratio: recipe.warmup_ratio };
        let mut workspace = Workspace::default();
        let (mut curve, mut last) = (Vec::with_capacity(self.curve_steps.len()), None);
        for update in 0..recipe.steps {
            if self.curve_steps.contains(&update) {
                curve.push(distance(&policy.network.transition_matrix()?, optimal, &cells));
            }
            let learning_rate = recipe.learning_rate * schedule.factor(update, recipe.steps);
            let moment = Moment { warmup: schedule.warmup(update, recipe.steps), draw: noise.sample(StandardNormal) };
            let settings = StepSettings { learning_rate, clip_norm: recipe.clip_norm, moment };
            let report = step(&mut policy, &mut optimizer, objective, &batches, settings, &mut workspace)
                .map_err(|source| LakeError::Step { method: self.label(method), seed, step: update, source })?;
            last = Some(report);
        }
        let transition_matrix = policy.network.transition_matrix()?;
        let Some(last) = last.filter(|_| transition_matrix.iter().flatten().all(|p| p.is_finite())) else {
            let learning_rate = recipe.learning_rate;
            return Err(LakeError::Diverged { method: self.label(method), seed, learning_rate });
        };
        curve.push(distance(&transition_matrix, optimal, &cells));
        Ok(Run {
            curve,
            distance_all_cells: distance(&transition_matrix, optimal, &(0..map.cells().len()).collect::<Vec<_>>()),
            distance_demonstrated_cells: distance(&transition_matrix, optimal, &self.demonstrated_cells()),
            greedy: performance(environment, &greedy(&transition_matrix)),
            sampled: performance(environment, &transition_matrix),
            transition_matrix,
            cells_visited: policy.cells_visited(),
            last_loss: last.loss,
            last_metrics: last.metrics,
        })
    }

    fn label(&self, method: usize) -> String {
        self.recipe.method[method].label().to_owned()
    }

    fn demonstrated_cells(&self) -> Vec<usize> {
        let mut cells = self.demonstration.cells.clone();
        cells.sort_unstable();
        cells.dedup();
        cells
    }

    fn summarise(&self, method: usize, runs: &[Run]) -> MethodReport {
        let each = |value: fn(&Run) -> f64| runs.iter().map(value).collect::<Vec<_>>();
        let points: Vec<_> = (0..self.curve_steps.len())
            .map(|point| Summary::new(runs.iter().map(|run| run.curve[point]).collect()))
            .collect();
        let curve = Curve {
            steps: self.curve_steps.clone(),
            mean: points.iter().map(|point| point.mean).collect(),
            ci95: points.iter().map(|point| point.ci95).collect(),
        };
        let mut metrics = Metrics::default();
        runs.iter().for_each(|run| metrics.merge(&run.last_metrics));
        let mean = |cell: usize, action: usize| {
            runs.iter().map(|run| run.transition_matrix[cell][action]).sum::<f64>() / runs.len() as f64
        };
        let cells = 0..self.environment.map().cells().len();
        MethodReport {
            method: self.label(method),
            objective: self.recipe.method[method].name.clone(),
            parameters: self.recipe.method[method].parameters.clone(),
            distance: Summary::new(runs.iter().filter_map(|run| run.curve.last().copied()).collect()),
            initial_distance: Summary::new(each(|run| run.curve[0])),
            distance_all_cells: Summary::new(each(|run| run.distance_all_cells)),
            distance_demonstrated_cells: Summary::new(each(|run| run.distance_demonstrated_cells)),
            success_rate: Fares::new(each(|run| run.greedy.success_rate), each(|run| run.sampled.success_rate)),
            mean_return: Fares::new(each(|run| run.greedy.mean_return), each(|run| run.sampled.mean_return)),
            cells_visited: Summary::new(each(|run| run.cells_visited as f64)),
            curve,
            last_loss: Summary::new(each(|run| run.last_loss)),
            last_metrics: metrics.iter().collect(),
            transition_matrix: cells.map(|cell| std::array::from_fn(|action| mean(cell, action))).collect(),
        }
    }
}

/// 0, 1, 2, 5, 10, 20, 40, 80, ... and the last.
fn curve_steps(steps: usize) -> Vec<usize> {
    let doubling = std::iter::successors(Some(5_usize), |step| step.checked_mul(2));
    let mut curve: Vec<_> = [0, 1, 2].into_iter().chain(doubling).take_while(|&step| step < steps).collect();
    curve.push(steps);
    curve
}
