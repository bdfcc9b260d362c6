//! Running of a recipe: every method over every seed, in parallel, with results in an order that does not depend on
//! threads.

pub mod recipe;
pub mod report;
pub mod setting;
mod snapshots;

use std::collections::BTreeMap;
use std::convert::Infallible;

use objective::{Configured, Data, Metrics, Objective, ObjectiveState, Requirements, Source, Statistic};
use rand::Rng;
use rand_distr::StandardNormal;
use rayon::prelude::*;
use training::{MicroBatch, Optimizer, Schedule, Step, StepError, StepReport, StepSettings};

use crate::audit::{self, Account, COMPARED_RUNS, Observation, Subject};
use crate::demonstration::trajectory;
use crate::error::LakeError;
use crate::experiment::recipe::Recipe;
use crate::experiment::report::{MethodReport, Paired, PolicyReport, Report, Sampled};
use crate::experiment::setting::Setting;
use crate::experiment::snapshots::Snapshots;
use crate::measure::statistics::{Curve, Summary};
use crate::measure::{Measured, distance};
use crate::policy::distillation;
use crate::policy::fit::fit;
use crate::policy::network::{Forward, Inputs, Network, States};
use crate::policy::rollout::{Dice, sample};
use crate::policy::{LakePolicy, given};
use crate::world::environment::Environment;
use crate::world::map::Trajectory;
use crate::world::policy_table::{TransitionMatrix, uniform_policy};
use gridworld::seeds::{
    ACTION, EXPLAINED_ACTION, EXPLAINED_SLIP, INITIALISATION, LAMBDA_NOISE, SLIP, START, VALUE_HEAD, stream,
};

/// A recipe with everything derived and checked: afterwards only training itself can fail.
#[derive(Debug)]
pub struct Experiment {
    recipe: Recipe,
    setting: Setting,
    demonstration: Trajectory,
    /// Whether the demonstration is the recipe's. If it is not, no method reads it.
    is_demonstrated: bool,
    rejected: Option<Trajectory>,
    /// Distributions of the teacher, if a method reads them.
    teacher: Option<TransitionMatrix>,
    /// Numbers of updates after which the curve is measured.
    curve_steps: Vec<usize>,
    /// Whether the report has explanations.
    explain: bool,
}

/// Results of one run of one method.
struct Run {
    measured: Measured,
    curve: Vec<f64>,
    distance_all_cells: f64,
    distance_demonstrated_cells: f64,
    cells_visited: usize,
    learned: Learned,
    account: Option<Account>,
}

/// Results of training a policy with all stages of a method.
pub(crate) struct Taught {
    transition_matrix: TransitionMatrix,
    cells_visited: usize,
    learned: Learned,
    network: Network,
}

/// Results of training besides the policy.
#[derive(Default)]
struct Learned {
    /// Number of sampled episodes.
    episodes: usize,
    /// Number of samples without a pair.
    ties: usize,
    /// State of the last objective after its last update.
    state: ObjectiveState,
    /// Report of the last update; `None` if no sample had data to learn from.
    last: Option<StepReport>,
    observation: Option<Observation>,
}

impl Experiment {
    /// Derives everything that the recipe's runs share.
    ///
    /// # Errors
    ///
    /// [`LakeError`] for a map or trajectory that the recipe names wrongly, for an optimal policy that rounding leaves
    /// undecided, and for a rejected trajectory whose comparison with the demonstration teaches nothing.
    pub fn new(recipe: Recipe) -> Result<Self, LakeError> {
        let experiment = Self::drawn(recipe)?;
        if let Some(rejected) = &experiment.rejected {
            trajectory::check_comparison(&experiment.demonstration, rejected)?;
        }
        Ok(experiment)
    }

    /// Variant for studies, in which the two trajectories may be random words that are equal by chance: a study counts
    /// such designs too.
    pub(crate) fn drawn(recipe: Recipe) -> Result<Self, LakeError> {
        let setting = Setting::new(&recipe)?;
        let (environment, map) = (setting.environment(), setting.environment().map());
        let fitted = recipe.start.policy(map, setting.greedy(), &mut stream(recipe.seed, 0, START));
        let sampled = fitted.unwrap_or_else(|| uniform_policy(map));
        let resolve = |name: &str| trajectory::resolve_rewarded(environment, recipe.gamma, name, &sampled);
        // Whatever trains before the methods reads the demonstration as they do, so that a method's results do not
        // depend on other methods.
        let trained = || recipe.trained().map(|trained| trained.objective().requirements());
        let (demonstration, is_demonstrated) = match resolve(&recipe.demonstration) {
            // No method reads the demonstration, but the report has distances along it.
            Err(_) if !trained().any(|requirements| requirements.source == Source::Given) => {
                (trajectory::resolve(map, trajectory::OPTIMAL)?, false)
            }
            resolved => (resolved?, true),
        };
        let compares = trained().any(|requirements| reads_rejected(&requirements));
        let rejected = compares.then(|| resolve(&recipe.rejected)).transpose()?;
        let teacher = recipe.teacher.as_ref().map(|teacher| teacher.table(environment, setting.solution()));
        let teacher = teacher.transpose()?;
        let curve_steps = curve_steps(recipe.steps);
        Ok(Self { recipe, setting, demonstration, is_demonstrated, rejected, teacher, curve_steps, explain: false })
    }

    /// Adds explanations to the report.
    pub fn explained(self) -> Self {
        Self { explain: true, ..self }
    }

    /// Number of runs.
    pub fn runs(&self) -> usize {
        self.recipe.method.len() * self.recipe.seeds
    }

    /// Lake of the recipe.
    pub fn environment(&self) -> &Environment {
        self.setting.environment()
    }

    /// Recipe of the experiment.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// Policy that others are compared with.
    pub fn optimal(&self) -> &TransitionMatrix {
        self.setting.optimal()
    }

    /// The deterministic optimal policy.
    pub fn greedy(&self) -> &TransitionMatrix {
        self.setting.greedy()
    }

    /// Trajectory to imitate.
    pub fn demonstration(&self) -> &Trajectory {
        &self.demonstration
    }

    /// Trajectory to avoid, if a method reads it.
    pub fn rejected(&self) -> Option<&Trajectory> {
        self.rejected.as_ref()
    }

    /// Numbers of updates after which the curve is measured, in order.
    pub fn curve_steps(&self) -> &[usize] {
        &self.curve_steps
    }

    /// Trains every method over every seed on rayon's current threads; calls `finished` after each run.
    ///
    /// # Errors
    ///
    /// [`LakeError::Step`] and [`LakeError::Diverged`] of the first run, in order, that failed.
    pub fn run(&self, finished: impl Fn() + Sync) -> Result<Report, LakeError> {
        let seeds = self.recipe.seeds;
        let cells = self.environment().map().cells().len();
        let methods = self.recipe.method.iter();
        let snapshots: Vec<_> = methods.map(|_| Snapshots::new(self.curve_steps.len(), cells)).collect();
        let outcomes: Vec<_> = (0..self.runs())
            .into_par_iter()
            .map(|index| {
                let run =
                    self.train(index / seeds, self.recipe.seed + (index % seeds) as u64, &snapshots[index / seeds]);
                finished();
                run
            })
            .collect();
        let runs = outcomes.into_iter().collect::<Result<Vec<_>, _>>()?;
        let mut runs = runs.into_iter();
        let summarised = snapshots.into_iter().enumerate().map(|(method, snapshots)| {
            let runs = runs.by_ref().take(seeds).collect();
            self.summarise(method, runs, snapshots)
        });
        let mut results: Vec<_> = summarised.collect();
        results.sort_by(|a, b| a.policy.distance.mean.total_cmp(&b.policy.distance.mean));

        let mut trajectories = BTreeMap::new();
        if self.is_demonstrated {
            trajectories.insert("demonstration", self.demonstration.word.clone());
        }
        trajectories.extend(self.rejected.as_ref().map(|rejected| ("rejected", rejected.word.clone())));
        Ok(Report {
            version: env!("CARGO_PKG_VERSION"),
            recipe: self.recipe.clone(),
            map: self.environment().map().rows(),
            trajectories,
            optimal: self.setting.best(),
            paired: Paired::every(&results.iter().map(|result| &result.policy).collect::<Vec<_>>()),
            results,
        })
    }

    /// Policy of a run before training.
    pub(crate) fn initial(&self, seed: u64) -> Result<Network, LakeError> {
        let (map, recipe) = (self.environment().map(), &self.recipe);
        let inputs = Inputs::new(recipe.encoding, map);
        let mut network = Network::new(inputs, recipe.hidden, &mut stream(seed, 0, INITIALISATION))?;
        if let Some(policy) = recipe.start.policy(map, self.greedy(), &mut stream(seed, 0, START)) {
            fit(&mut network, &policy, &map.non_terminal());
        }
        let Some(before) = recipe.start.method() else { return Ok(network) };
        let mut policy = LakePolicy::new(map, equipped(network, [before], seed));
        self.learn(&mut policy, before.objective(), seed, 0, |_| ()).map_err(|(step, source)| LakeError::Step {
            method: recipe.start.to_string(),
            seed,
            step,
            source: Box::new(source),
        })?;
        Ok(policy.network)
    }

    fn train(&self, method: usize, seed: u64, snapshots: &Snapshots) -> Result<Run, LakeError> {
        let (map, optimal) = (self.environment().map(), self.optimal());
        let cells = map.non_terminal();
        let mut curve = Vec::with_capacity(self.curve_steps.len());
        let Taught { transition_matrix, cells_visited, mut learned, network } =
            self.teach(method, seed, self.initial(seed)?, |point, transition_matrix| {
                snapshots.add(point, transition_matrix);
                curve.push(distance(transition_matrix, optimal, &cells));
            })?;
        let observation = learned.observation.take();
        let account = observation.map(|observation| self.account(observation, &network, method, seed)).transpose()?;
        Ok(Run {
            curve,
            measured: self.setting.measure(transition_matrix.clone()),
            distance_all_cells: distance(&transition_matrix, optimal, &(0..map.cells().len()).collect::<Vec<_>>()),
            distance_demonstrated_cells: distance(&transition_matrix, optimal, &self.demonstrated_cells()),
            cells_visited,
            learned,
            account,
        })
    }

    /// Trains a policy with a method's stages in sequence; calls `measure` at each point of the last stage's curve.
    pub(crate) fn teach(
        &self,
        method: usize,
        seed: u64,
        network: Network,
        mut measure: impl FnMut(usize, &TransitionMatrix),
    ) -> Result<Taught, LakeError> {
        let entry = &self.recipe.method[method];
        let mut policy = LakePolicy::new(self.environment().map(), equipped(network, entry.stages(), seed));
        let (mut point, mut total) = (0, Learned::default());
        let first = usize::from(self.recipe.start.method().is_some());
        for (stage, configured) in entry.stages().enumerate() {
            let learned = self
                .learn(&mut policy, configured.objective(), seed, first + stage, |policy| {
                    if stage == entry.after.len() {
                        measure(point, &policy.network.transition_matrix());
                        point += 1;
                    }
                })
                .map_err(|(step, source)| LakeError::Step {
                    method: self.label(method),
                    seed,
                    step,
                    source: Box::new(source),
                })?;
            total = Learned {
                episodes: total.episodes + learned.episodes,
                ties: total.ties + learned.ties,
                state: learned.state,
                last: learned.last,
                observation: learned.observation,
            };
        }
        let transition_matrix = policy.network.transition_matrix();
        if transition_matrix.iter().flatten().any(|p| !p.is_finite()) {
            let learning_rate = self.recipe.learning_rate;
            return Err(LakeError::Diverged { method: self.label(method), seed, learning_rate });
        }
        measure(point, &transition_matrix);
        let cells_visited = policy.cells_visited();
        Ok(Taught { transition_matrix, cells_visited, learned: total, network: policy.network })
    }

    /// Account of a run that produced this network.
    fn account(
        &self,
        mut observation: Observation,
        trained: &Network,
        method: usize,
        seed: u64,
    ) -> Result<Account, LakeError> {
        let objectives: Vec<_> = self.recipe.method.iter().map(|entry| entry.method.objective()).collect();
        observation.look(trained, &self.demonstration, self.rejected.as_ref());
        let subject = Subject {
            environment: self.environment(),
            discount: self.recipe.gamma,
            optimal: self.optimal(),
            demonstration: &self.demonstration,
            rejected: self.rejected.as_ref(),
            teacher: self.teacher.as_ref(),
            objectives: &objectives,
            own: method,
            label: self.recipe.method[method].label(),
            seed,
            steps: self.recipe.steps,
            compared: ((seed - self.recipe.seed) as usize) < COMPARED_RUNS,
        };
        let dice = || Dice::new(stream(seed, 0, EXPLAINED_ACTION), stream(seed, 0, EXPLAINED_SLIP));
        let value_head = || stream(seed, 0, VALUE_HEAD);
        observation.account(trained, &subject, value_head, dice)
    }

    /// Trains the policy with one objective for the recipe's steps; calls `measure` at the points of the curve except
    /// the last.
    ///
    /// # Errors
    ///
    /// The number of the failed step, from 0, and its error.
    fn learn<'a>(
        &self,
        policy: &mut LakePolicy<'a>,
        objective: &dyn Objective,
        seed: u64,
        stage: usize,
        mut measure: impl FnMut(&LakePolicy<'a>),
    ) -> Result<Learned, (usize, StepError<Infallible>)>
    where
        Self: 'a,
    {
        let (recipe, environment) = (&self.recipe, self.environment());
        let requirements = objective.requirements();
        // The reference is the policy before this stage.
        let reference =
            requirements.need_reference().then(|| LakePolicy::new(environment.map(), policy.network.clone()));
        let refer = |batches: &mut [MicroBatch<States, Forward>]| {
            if let Some(teacher) = &self.teacher {
                distillation::fill(teacher, &requirements, batches);
            }
            if let Some(reference) = &reference {
                reference.fill_reference(&requirements, batches);
            }
        };
        let mut batches = match requirements.source {
            Source::Given => vec![given(requirements.data, &self.demonstration, self.rejected.as_ref())],
            Source::Sampled(_) => Vec::new(),
        };
        refer(&mut batches);

        let mut optimizer = Optimizer::new(recipe.optimizer, policy.network.parameters.len());
        let mut noise = stream(seed, stage, LAMBDA_NOISE);
        let mut dice = Dice::new(stream(seed, stage, ACTION), stream(seed, stage, SLIP));
        let schedule = Schedule { shape: recipe.schedule, warmup_ratio: recipe.warmup_ratio };
        let (mut step, mut learned) = (Step::new(objective), Learned::default());
        learned.observation = self.explain.then(|| Observation::new(&policy.network, environment.map().cells().len()));
        for update in 0..recipe.steps {
            if self.curve_steps.contains(&update) {
                measure(policy);
                if let Some(observation) = &mut learned.observation {
                    observation.look(&policy.network, &self.demonstration, self.rejected.as_ref());
                }
            }
            if let Source::Sampled(sampling) = requirements.source
                && update % sampling.epochs == 0
            {
                let sampled = sample(environment, policy, &requirements, sampling, recipe.gamma, &mut dice);
                learned.episodes += sampling.samples;
                learned.ties += sampled.ties;
                batches = Some(sampled.batch).into_iter().filter(|batch| !batch.responses.is_empty()).collect();
                refer(&mut batches);
            }
            let learning_rate = recipe.learning_rate * schedule.factor(update, recipe.steps);
            let draw = noise.sample(StandardNormal);
            let lambda = requirements.anticipation.at(schedule.warmup(update, recipe.steps), draw);
            let settings = StepSettings { learning_rate, clip_norm: recipe.clip_norm, lambda };
            if batches.is_empty() {
                // Without data the update is skipped.
                continue;
            }
            if let Some(observation) = &mut learned.observation {
                observation.read(policy, &requirements, &batches, lambda, &self.demonstration);
            }
            let report =
                policy.take(&mut step, &mut optimizer, &batches, settings).map_err(|source| (update, source))?;
            learned.last = Some(report);
        }
        learned.state = std::mem::take(step.state_mut());
        Ok(learned)
    }

    fn label(&self, method: usize) -> String {
        self.recipe.method[method].label().to_owned()
    }

    /// Cells of the demonstration, without repetition.
    pub fn demonstrated_cells(&self) -> Vec<usize> {
        let mut cells = self.demonstration.cells.clone();
        cells.sort_unstable();
        cells.dedup();
        cells
    }

    fn summarise(&self, method: usize, runs: Vec<Run>, snapshots: Snapshots) -> MethodReport {
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
        runs.iter().filter_map(|run| run.learned.last.as_ref()).for_each(|last| metrics.merge(&last.metrics));
        let last_loss: Vec<_> = runs.iter().filter_map(|run| Some(run.learned.last.as_ref()?.loss)).collect();
        let entry = &self.recipe.method[method];
        let stages = entry.stages().map(|stage| stage.objective().requirements());
        let sampling: Vec<_> = stages.filter(|stage| matches!(stage.source, Source::Sampled(_))).collect();
        let pairs = sampling.iter().any(|stage| stage.data == Data::Preferences);
        let sampled = (!sampling.is_empty()).then(|| Sampled {
            episodes: runs[0].learned.episodes,
            ties: pairs.then(|| Summary::new(each(|run| run.learned.ties as f64))),
        });
        let accounts: Vec<_> = runs.iter().filter_map(|run| run.account.as_ref()).collect();
        MethodReport {
            objective: entry.name().to_owned(),
            parameters: entry.method.objective().parameters(),
            after: entry.after.clone(),
            initial_distance: Summary::new(each(|run| run.curve[0])),
            distance_all_cells: Summary::new(each(|run| run.distance_all_cells)),
            distance_demonstrated_cells: Summary::new(each(|run| run.distance_demonstrated_cells)),
            cells_visited: Summary::new(each(|run| run.cells_visited as f64)),
            curve,
            sampled,
            last_loss: (!last_loss.is_empty()).then(|| Summary::new(last_loss)),
            last_metrics: metrics.iter().collect(),
            state: (runs.iter().any(|run| run.learned.state != ObjectiveState::default()))
                .then(|| runs.iter().map(|run| run.learned.state.clone()).collect()),
            snapshots: snapshots.means(runs.len()),
            explanation: (!accounts.is_empty()).then(|| {
                let labels: Vec<_> = self.recipe.method.iter().map(|entry| entry.label()).collect();
                let (map, steps) = (self.environment().map(), &self.curve_steps);
                audit::summarise(map, &self.demonstration, &accounts, &labels, steps)
            }),
            policy: PolicyReport::new(self.label(method), runs.into_iter().map(|run| run.measured).collect()),
        }
    }
}

/// The network, with a value head if any of the methods reads values.
fn equipped<'a>(network: Network, methods: impl IntoIterator<Item = &'a Configured>, seed: u64) -> Network {
    let reads_values = |method: &Configured| method.objective().requirements().statistics.contains(Statistic::Value);
    match methods.into_iter().any(reads_values) {
        true => network.with_value_head(&mut stream(seed, 0, VALUE_HEAD)),
        false => network,
    }
}

/// Whether an objective learns from the rejected trajectory.
fn reads_rejected(requirements: &Requirements) -> bool {
    let compares = matches!(requirements.data, Data::Preferences | Data::Labelled { .. });
    compares && requirements.source == Source::Given
}

/// Points of the curve: 0, 1, 2, 5, 10, 20, 40, 80, ... and the last step.
pub(crate) fn curve_steps(steps: usize) -> Vec<usize> {
    let doubling = std::iter::successors(Some(5_usize), |step| step.checked_mul(2));
    let mut curve: Vec<_> = [0, 1, 2].into_iter().chain(doubling).take_while(|&step| step < steps).collect();
    curve.push(steps);
    curve
}
