//! Why one objective gets closer to the optimal policy than another.
//!
//! All of it is about a method's own training, the last stage where methods train in sequence: *before* is the policy that this
//! stage begins with and takes as reference, untrained unless other methods came first, and *trained* is what it leaves behind.
//!
//! # Formula
//!
//! **Reads.** Each update reads every state of the responses that it learns from once; a fused state reads the demonstrated cell
//! with weight 1 − λ and the anticipated one with weight λ. Counts are sums of weights over the updates.
//!
//! **Parts of the distance.** The distance from the optimal policy T* is the sum over the C non-terminal cells of
//! Σₐ (T(a|s) − T*(a|s))² / 4C. Its parts are the sums over the demonstration's cells, over the others that the training read, and
//! over those that it never read, where all that is learned is what cells share.
//!
//! **Alignment.** q(s) is the share of a non-terminal cell in the reads of the non-terminal cells, and d(s) its share in the
//! expected visits, d(s) ∝ Σₜ P(sₜ = s), t from 0 to below Gymnasium's horizon, with sₜ where the policy moves from at time t.
//! Overlap is Σₛ min(q, d), in [0, 1]; divergence is KL(q || d) = Σₛ q log(q / d), nats, and none where q > 0 = d.
//!
//! **Bias of the preference estimate** (Table 1 of *Intuitive Fine-Tuning*, arXiv 2405.11870). What an objective teaches about the
//! states at time n is weighed by a prior qₙ over cells, where ρₙ(s) = π_θ(sₙ, ρ₀) would be due, the policy's own distribution:
//!
//! > biasₙ = ½ Σₛ |qₙ(s) − ρₙ(s)|, ρₙ(s) = P(sₙ = s | the episode still runs at n)
//!
//! and qₙ is the mean over the responses that still run at n of (1 − λ) δ(sₙ) + λ δ(s^θₙ), with λ = 0 but for anticipated states.
//! So all of it is on the demonstrated state for `sft`; half on the chosen and half on the rejected one for methods on pairs as
//! long as both run; and for methods that sample it is the empirical distribution of the responses that one step learns from,
//! sampled from the policy in question. The report has the mean over the times n of the demonstration's moves, those left out at
//! which no response, or no episode of the policy, runs any more. λ is what it is after the warm-up and without noise. qₙ and
//! ρₙ say where an objective looks, not in which direction it pushes.
//!
//! **Probability of the demonstration** Πₙ π(a*ₙ|s*ₙ): what the policy itself gives to the whole trajectory, slips aside.
//!
//! **Displacement.** log π of a trajectory is the sum over its moves, nats; margin is that of the chosen (the demonstration) less that
//! of the rejected trajectory. A run is displaced where the chosen one is less probable than before although the margin grew: the
//! rejected one fell further, and what both lost went elsewhere.
//!
//! **Bellman residual** of Vₜ = exp(−Lₜ), with Lₜ = Σ_{k≥t} −log π(a*ₖ|s*ₖ) undiscounted (A.3 of the paper):
//!
//! > maxₐ π(a|s*ₜ) Vₜ₊₁ − Vₜ = (maxₐ π(a|s*ₜ) − π(a*ₜ|s*ₜ)) Vₜ₊₁
//!
//! which is 0 exactly where the demonstrated action is greedy.
//!
//! **Gradient cosine** ⟨g, g'⟩ / (‖g‖ ‖g'‖) of two methods' gradients by all parameters at the same policy, each with the data, the
//! reference and the anticipation that it trains with; none where either has no gradient. A method that samples has one step's
//! sample, all from the same streams of random numbers.

use std::convert::Infallible;

use objective::{Anticipation, Feedback, Objective, ObjectiveState, Requirements, Source, Statistic};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use training::{MicroBatch, Moment, Policy, StepError, Workspace, accumulate, fill_reference};

use crate::environment::Environment;
use crate::error::LakeError;
use crate::map::{Map, Trajectory};
use crate::measure::{Moves, distance};
use crate::network::{Forward, Network, States};
use crate::policy::{LakePolicy, given};
use crate::report::{Curve, Summary};
use crate::rollout::{Dice, sample};
use crate::solver::TransitionMatrix;

/// Gradients are compared in the first runs only: each takes the step of every method at two policies of every method.
pub const COMPARED_RUNS: usize = 32;

/// Where a read cell comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The trajectory to imitate.
    Demonstration,
    /// Where the policy's greedy action leads from a demonstrated state.
    Anticipation,
    /// The trajectory to avoid.
    Negatives,
    /// Episodes that the policy sampled.
    Rollouts,
}

/// Why a method ended where it did: summaries over runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// What the training steps read, by origin; those that gave nothing are left out.
    pub explored: Vec<Explored>,
    /// The share of the non-terminal cells that the training steps read, whatever the origin.
    pub reached: Summary,
    /// Where the distance from the optimal policy is left.
    pub distance: DistanceParts,
    /// At the policy that training began with.
    pub before: Standing<Summary, Cosine>,
    /// At the policy that it left behind.
    pub trained: Standing<Summary, Cosine>,
    /// How probable the chosen and the rejected trajectory were along the way; none if no method of the recipe reads the latter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub displacement: Option<Displacement>,
}

/// What the training steps read of one origin.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explored {
    /// The origin.
    pub origin: Origin,
    /// Reads of each cell, mean over runs.
    pub reads: Vec<f64>,
    /// The share of the non-terminal cells that were read.
    pub reached: Summary,
}

/// The distance from the optimal policy, in parts that add up to it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DistanceParts {
    /// In the cells of the demonstration.
    pub demonstrated: Summary,
    /// In the other cells that the training read.
    pub otherwise_read: Summary,
    /// In the cells that the training never read.
    pub unread: Summary,
    /// In each cell, mean over runs.
    pub by_cell: Vec<f64>,
}

/// What is measured at one policy: of one run, or over all of them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Standing<Number, Agreement> {
    /// Σ min(q, d) of reads and visits; none if nothing was read.
    pub overlap: Option<Number>,
    /// KL(q || d) of reads and visits, nats; none if nothing was read, or something that the policy never visits.
    pub divergence: Option<Number>,
    /// Mean total variation distance between the states that the objective weighs and those that the policy visits, in [0, 1];
    /// none if there was nothing to learn from.
    pub bias: Option<Number>,
    /// The probability that the policy gives to the demonstration, Π π(a*|s*).
    pub demonstration_probability: Number,
    /// The greatest Bellman residual along the demonstration.
    pub greatest_residual: Number,
    /// The mean Bellman residual along the demonstration.
    pub mean_residual: Number,
    /// d(s), the share of each cell in the policy's expected visits; mean over runs.
    pub visitation: Vec<f64>,
    /// Of each pair of methods, in the recipe's order: (0, 1), (0, 2), (1, 2), (0, 3), ...
    pub cosines: Vec<Agreement>,
}

/// How far two methods' gradients agree at a policy.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cosine {
    /// Labels of the two methods.
    pub between: [String; 2],
    /// Mean of the cosine; none if no run gave both a gradient.
    pub mean: Option<f64>,
    /// Half-width of the mean's 95% confidence interval; none for less than two runs.
    pub ci95: Option<f64>,
    /// Runs in which both had a gradient, of the first [`COMPARED_RUNS`].
    pub runs: usize,
}

/// How probable the chosen and the rejected trajectory were along the way.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Displacement {
    /// log π of the chosen trajectory, nats.
    pub chosen: Curve,
    /// log π of the rejected trajectory, nats.
    pub rejected: Curve,
    /// How much the margin, chosen less rejected, grew over the training, nats.
    pub margin_change: Summary,
    /// The share of the runs in which the chosen log-probability fell while the margin grew.
    pub displaced: f64,
}

/// Of one run, whose gradients may have no direction.
type OfRun = Standing<f64, Option<f64>>;

/// What one run has to say.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Account {
    reads: Reads,
    /// Each cell's part of the distance.
    distances: Vec<f64>,
    before: OfRun,
    trained: OfRun,
    /// log π of the chosen and the rejected trajectory at each step of the curve.
    log_probs: Vec<[f64; 2]>,
}

/// What a run is observed to do while it trains.
#[derive(Clone, Debug)]
pub(crate) struct Observation {
    before: Network,
    reads: Reads,
    log_probs: Vec<[f64; 2]>,
}

/// What the run's account is made from.
pub(crate) struct Subject<'a> {
    pub(crate) environment: &'a Environment,
    pub(crate) discount: f64,
    pub(crate) optimal: &'a TransitionMatrix,
    pub(crate) demonstration: &'a Trajectory,
    pub(crate) rejected: Option<&'a Trajectory>,
    /// What each method of the recipe trains with, its last stage.
    pub(crate) objectives: &'a [&'a dyn Objective],
    /// The run's method, among them.
    pub(crate) own: usize,
    pub(crate) label: &'a str,
    pub(crate) seed: u64,
    /// Updates done.
    pub(crate) steps: usize,
    /// Whether gradients are compared in this run.
    pub(crate) compared: bool,
}

/// How often each cell was read, by origin.
#[derive(Clone, Debug, PartialEq)]
pub struct Reads {
    by_origin: [Vec<f64>; Origin::ALL.len()],
}

impl Origin {
    /// All four.
    pub const ALL: [Origin; 4] = [Origin::Demonstration, Origin::Anticipation, Origin::Negatives, Origin::Rollouts];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Origin::Demonstration => "demonstration",
            Origin::Anticipation => "anticipation",
            Origin::Negatives => "negatives",
            Origin::Rollouts => "rollouts",
        }
    }
}

impl Reads {
    /// None yet, of as many cells.
    pub fn new(cells: usize) -> Self {
        Self { by_origin: std::array::from_fn(|_| vec![0.0; cells]) }
    }

    /// Counts what one update reads of a micro-batch.
    pub fn count(
        &mut self,
        policy: &LakePolicy<'_>,
        requirements: &Requirements,
        batch: &MicroBatch<States, Forward>,
        moment: Moment,
        demonstration: &Trajectory,
    ) {
        let is_demonstrated = |response: usize| {
            let tokens = &batch.tokens[batch.responses[response].tokens.clone()];
            tokens.iter().copied().eq(demonstration.actions.iter().map(|&action| action as usize))
        };
        for_each_read(policy, requirements, batch, moment, |read| {
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

    fn any(&self, cell: usize) -> bool {
        self.by_origin.iter().any(|reads| reads[cell] > 0.0)
    }

    /// Each non-terminal cell's share in the reads of them all; none if nothing was read.
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

/// What an update reads of the responses that it learns from.
fn for_each_read(
    policy: &LakePolicy<'_>,
    requirements: &Requirements,
    batch: &MicroBatch<States, Forward>,
    moment: Moment,
    mut each: impl FnMut(Read),
) {
    let fusion = match requirements.anticipation {
        Anticipation::Off => None,
        Anticipation::Residual { lambda, freeze } => {
            let Ok(states) = policy.anticipate(&batch.states, lambda.at(moment.warmup, moment.draw), freeze);
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

/// qₙ for each n below `times`: the states that an objective weighs at time n, over all cells; none at which nothing runs.
pub fn priors(
    policy: &LakePolicy<'_>,
    requirements: &Requirements,
    batch: &MicroBatch<States, Forward>,
    times: usize,
    cells: usize,
) -> Vec<Option<Vec<f64>>> {
    let mut priors = vec![vec![0.0; cells]; times];
    for_each_read(policy, requirements, batch, Moment::default(), |read| {
        if let Some(prior) = priors.get_mut(read.time) {
            prior[read.cell] += read.weight;
        }
    });
    priors.into_iter().map(normalised).collect()
}

/// ρₙ for each n below `times`: where the policy moves from at time n, over all cells; none at which no episode runs.
pub fn running(environment: &Environment, policy: &TransitionMatrix, times: usize) -> Vec<Option<Vec<f64>>> {
    distributions(environment, policy).take(times).map(normalised).collect()
}

/// d(s): the share of each cell in the moves that the policy is expected to make within the horizon.
pub fn visitation(environment: &Environment, policy: &TransitionMatrix) -> Vec<f64> {
    let mut visits = vec![0.0; policy.len()];
    for distribution in distributions(environment, policy).take(environment.horizon()) {
        visits.iter_mut().zip(distribution).for_each(|(visits, mass)| *visits += mass);
    }
    let total: f64 = visits.iter().sum();
    visits.iter().map(|visits| visits / total).collect()
}

/// P(sₙ = s and the episode still runs) for n = 0, 1, ...
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

/// Divided by their sum; none if that is 0.
fn normalised(mut weights: Vec<f64>) -> Option<Vec<f64>> {
    let total: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|weight| *weight /= total);
    (total > 0.0).then_some(weights)
}

/// Σ min(q, d).
pub fn overlap(reads: &[f64], visits: &[f64]) -> f64 {
    reads.iter().zip(visits).map(|(q, d)| q.min(*d)).sum()
}

/// KL(q || d) = Σ q log(q / d), nats; none where q > 0 = d.
pub fn divergence(reads: &[f64], visits: &[f64]) -> Option<f64> {
    let terms = || reads.iter().zip(visits).filter(|(q, _)| **q > 0.0);
    // Rounding may leave a divergence of equal distributions below 0.
    terms().all(|(_, d)| *d > 0.0).then(|| terms().map(|(q, d)| q * (q / d).ln()).sum::<f64>().max(0.0))
}

/// The mean over the times at which both are known of ½ Σ |qₙ − ρₙ|; none if there are no such times.
pub fn bias(priors: &[Option<Vec<f64>>], running: &[Option<Vec<f64>>]) -> Option<f64> {
    let both = priors.iter().zip(running).filter_map(|(prior, running)| prior.as_ref().zip(running.as_ref()));
    let distance =
        |(q, rho): (&Vec<f64>, &Vec<f64>)| 0.5 * q.iter().zip(rho).map(|(q, rho)| (q - rho).abs()).sum::<f64>();
    let distances: Vec<_> = both.map(distance).collect();
    (!distances.is_empty()).then(|| distances.iter().sum::<f64>() / distances.len() as f64)
}

/// (maxₐ π(a|s*ₜ) − π(a*ₜ|s*ₜ)) Vₜ₊₁ for each move of a trajectory.
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

/// The cosine of two vectors; none if either is zero.
pub fn cosine(one: &[f64], other: &[f64]) -> Option<f64> {
    // Scaled by the greatest, so that no square underflows.
    let scaled = |vector: &[f64]| {
        let most = vector.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
        (most > 0.0 && most.is_finite()).then(|| vector.iter().map(|x| x / most).collect::<Vec<_>>())
    };
    let (one, other) = (scaled(one)?, scaled(other)?);
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    Some((product(&one, &other) / (product(&one, &one) * product(&other, &other)).sqrt()).clamp(-1.0, 1.0))
}

/// The gradient by all parameters of an objective's loss on a batch, at the end of its warm-up and without what it carries from
/// step to step.
///
/// # Errors
///
/// [`StepError`] where the policy says what no objective can evaluate.
pub fn gradient(
    policy: &mut LakePolicy<'_>,
    objective: &dyn Objective,
    batch: &MicroBatch<States, Forward>,
) -> Result<Vec<f64>, StepError<Infallible>> {
    let (mut state, mut workspace) = (ObjectiveState::default(), Workspace::default());
    let batches = std::slice::from_ref(batch);
    accumulate(policy, objective, &mut state, batches, Moment::default(), &mut workspace)?;
    Ok(policy.network.gradient.clone())
}

/// Each cell's part of the distance between a policy and the optimal one.
pub fn distances(map: &Map, policy: &TransitionMatrix, optimal: &TransitionMatrix) -> Vec<f64> {
    let cells = map.non_terminal();
    let mut distances = vec![0.0; policy.len()];
    for &cell in &cells {
        distances[cell] = distance(policy, optimal, &[cell]) / cells.len() as f64;
    }
    distances
}

/// log π of a trajectory's moves together, nats.
pub fn log_prob(network: &Network, trajectory: &Trajectory) -> f64 {
    let states = States { cells: trajectory.cells.clone(), begins: vec![0], fusion: None };
    let rows = network.forward(&states).log_policy;
    rows.iter().zip(&trajectory.actions).map(|(row, &action)| row[action as usize]).sum()
}

impl Observation {
    /// Of a training that begins with this network.
    pub(crate) fn new(before: &Network, cells: usize) -> Self {
        Self { before: before.clone(), reads: Reads::new(cells), log_probs: Vec::new() }
    }

    /// What an update is about to read.
    pub(crate) fn read(
        &mut self,
        policy: &LakePolicy<'_>,
        requirements: &Requirements,
        batches: &[MicroBatch<States, Forward>],
        moment: Moment,
        demonstration: &Trajectory,
    ) {
        batches.iter().for_each(|batch| self.reads.count(policy, requirements, batch, moment, demonstration));
    }

    /// What the policy is at a step of the curve.
    pub(crate) fn look(&mut self, network: &Network, demonstration: &Trajectory, rejected: Option<&Trajectory>) {
        self.log_probs.extend(rejected.map(|rejected| [demonstration, rejected].map(|word| log_prob(network, word))));
    }

    /// What is to be said of the run that left this network behind. `value_head` is where the value head is drawn from that a
    /// compared method may need and the run's own does without.
    ///
    /// # Errors
    ///
    /// [`LakeError::Step`] of a gradient.
    pub(crate) fn account(
        self,
        trained: &Network,
        subject: &Subject<'_>,
        value_head: impl Fn() -> ChaCha8Rng,
        dice: impl Fn() -> Dice,
    ) -> Result<Account, LakeError> {
        let Self { before, reads, log_probs } = self;
        let reference = LakePolicy::new(subject.environment.map(), before.clone());
        let shares = reads.shares(subject.environment.map());
        let valued = |network: &Network| match subject.compared && subject.need_values() {
            true => network.clone().with_value_head(&mut value_head()),
            false => Ok(network.clone()),
        };
        let standing = |network: Network| {
            let Subject { seed, steps: step, .. } = *subject;
            let fail = |source| LakeError::Step { method: subject.label.to_owned(), seed, step, source };
            subject.standing(network, &reference, shares.as_deref(), &dice).map_err(fail)
        };
        let distances = distances(subject.environment.map(), &trained.transition_matrix(), subject.optimal);
        let (before, trained) = (standing(valued(&before)?)?, standing(valued(trained)?)?);
        Ok(Account { reads, distances, before, trained, log_probs })
    }
}

impl Subject<'_> {
    fn need_values(&self) -> bool {
        self.objectives.iter().any(|objective| objective.requirements().statistics.contains(Statistic::Value))
    }

    fn standing(
        &self,
        network: Network,
        reference: &LakePolicy<'_>,
        reads: Option<&[f64]>,
        dice: impl Fn() -> Dice,
    ) -> Result<OfRun, StepError<Infallible>> {
        let Self { environment, demonstration, objectives, .. } = self;
        let matrix = network.transition_matrix();
        let visitation = visitation(environment, &matrix);
        let residuals = bellman_residuals(&matrix, demonstration);
        let (times, cells) = (demonstration.actions.len(), matrix.len());
        let demonstration_probability = log_prob(&network, demonstration).exp();

        let mut policy = LakePolicy::new(environment.map(), network);
        let own = self.batch(objectives[self.own], &policy, reference, dice());
        let priors = own.map(|batch| priors(&policy, &objectives[self.own].requirements(), &batch, times, cells));
        let mut gradients = Vec::new();
        for objective in objectives.iter().filter(|_| self.compared) {
            let batch = self.batch(*objective, &policy, reference, dice());
            gradients.push(batch.map(|batch| gradient(&mut policy, *objective, &batch)).transpose()?);
        }
        Ok(Standing {
            overlap: reads.map(|reads| overlap(reads, &visitation)),
            divergence: reads.and_then(|reads| divergence(reads, &visitation)),
            bias: priors.and_then(|priors| bias(&priors, &running(environment, &matrix, times))),
            demonstration_probability,
            greatest_residual: residuals.iter().copied().fold(0.0, f64::max),
            mean_residual: residuals.iter().sum::<f64>() / residuals.len() as f64,
            visitation,
            cosines: pairs(gradients.len()).map(|pair| compare(&gradients, pair)).collect(),
        })
    }

    /// What a step of the objective would read; none where samples give it nothing.
    fn batch(
        &self,
        objective: &dyn Objective,
        policy: &LakePolicy<'_>,
        reference: &LakePolicy<'_>,
        mut dice: Dice,
    ) -> Option<MicroBatch<States, Forward>> {
        let requirements = objective.requirements();
        let mut batch = match requirements.source {
            Source::Given => given(requirements.data, self.demonstration, self.rejected),
            Source::Sampled(sampling) => {
                sample(self.environment, policy, &requirements, sampling, self.discount, &mut dice).batch
            }
        };
        let Ok(()) = fill_reference(reference, &requirements, std::slice::from_mut(&mut batch));
        (!batch.responses.is_empty()).then_some(batch)
    }
}

/// Each pair of so many methods: (0, 1), (0, 2), (1, 2), (0, 3), ...
fn pairs(methods: usize) -> impl Iterator<Item = [usize; 2]> {
    (0..methods).flat_map(|second| (0..second).map(move |first| [first, second]))
}

fn compare(gradients: &[Option<Vec<f64>>], pair: [usize; 2]) -> Option<f64> {
    let [one, other] = pair.map(|method| gradients[method].as_deref());
    cosine(one?, other?)
}

/// Summarises the accounts of a method's runs, in the order of seeds; `labels` are those of the recipe's methods and `steps` those
/// of the curve.
pub(crate) fn summarise(
    map: &Map,
    demonstration: &Trajectory,
    accounts: &[&Account],
    labels: &[&str],
    steps: &[usize],
) -> Explanation {
    let non_terminal = map.non_terminal();
    let reached = |is_read: &dyn Fn(&Account, usize) -> bool| {
        let share = |account: &&Account| {
            let read = non_terminal.iter().filter(|cell| is_read(account, **cell)).count();
            read as f64 / non_terminal.len() as f64
        };
        Summary::new(accounts.iter().map(share).collect())
    };
    let explored = |origin: Origin| {
        let reads = mean_rows(accounts.iter().map(|account| account.reads.of(origin)));
        let explored =
            Explored { origin, reads, reached: reached(&|account, cell| account.reads.of(origin)[cell] > 0.0) };
        explored.reads.iter().any(|reads| *reads > 0.0).then_some(explored)
    };
    Explanation {
        explored: Origin::ALL.into_iter().filter_map(explored).collect(),
        reached: reached(&|account, cell| account.reads.any(cell)),
        distance: distance_parts(demonstration, accounts),
        before: summarise_standings(accounts.iter().map(|account| &account.before).collect(), labels),
        trained: summarise_standings(accounts.iter().map(|account| &account.trained).collect(), labels),
        displacement: displacement(accounts, steps),
    }
}

fn summarise_standings(standings: Vec<&OfRun>, labels: &[&str]) -> Standing<Summary, Cosine> {
    let all = |value: fn(&OfRun) -> f64| Summary::new(standings.iter().map(|standing| value(standing)).collect());
    // Runs without the number are left out.
    let some = |value: fn(&OfRun) -> Option<f64>| known(standings.iter().filter_map(|standing| value(standing)));
    let cosine = |(place, pair): (usize, [usize; 2])| {
        let summary = known(standings.iter().filter_map(|standing| *standing.cosines.get(place)?));
        Cosine {
            between: pair.map(|method| labels[method].to_owned()),
            mean: summary.as_ref().map(|summary| summary.mean),
            ci95: summary.as_ref().and_then(|summary| summary.ci95),
            runs: summary.map_or(0, |summary| summary.per_seed.len()),
        }
    };
    Standing {
        overlap: some(|standing| standing.overlap),
        divergence: some(|standing| standing.divergence),
        bias: some(|standing| standing.bias),
        demonstration_probability: all(|standing| standing.demonstration_probability),
        greatest_residual: all(|standing| standing.greatest_residual),
        mean_residual: all(|standing| standing.mean_residual),
        visitation: mean_rows(standings.iter().map(|standing| &*standing.visitation)),
        cosines: pairs(labels.len()).enumerate().map(cosine).collect(),
    }
}

fn distance_parts(demonstration: &Trajectory, accounts: &[&Account]) -> DistanceParts {
    let sum = |is_part: &dyn Fn(bool, bool) -> bool| {
        let part = |account: &&Account| {
            let distances = account.distances.iter().enumerate();
            let of_part = distances
                .filter(|(cell, _)| is_part(demonstration.cells.contains(cell), account.reads.any(*cell)))
                .map(|(_, distance)| distance);
            // Of no numbers, `sum` is −0.
            of_part.fold(0.0, |sum, distance| sum + distance)
        };
        Summary::new(accounts.iter().map(part).collect())
    };
    DistanceParts {
        demonstrated: sum(&|demonstrated, _| demonstrated),
        otherwise_read: sum(&|demonstrated, read| !demonstrated && read),
        unread: sum(&|demonstrated, read| !demonstrated && !read),
        by_cell: mean_rows(accounts.iter().map(|account| &*account.distances)),
    }
}

fn displacement(accounts: &[&Account], steps: &[usize]) -> Option<Displacement> {
    let curves: Vec<_> = accounts.iter().map(|account| &account.log_probs).collect();
    let ends: Vec<_> = curves.iter().filter_map(|curve| Some((*curve.first()?, *curve.last()?))).collect();
    if ends.is_empty() {
        return None;
    }
    let curve = |trajectory: usize| {
        let points = 0..steps.len();
        let summaries: Vec<_> =
            points.map(|point| Summary::new(curves.iter().map(|curve| curve[point][trajectory]).collect())).collect();
        Curve {
            steps: steps.to_vec(),
            mean: summaries.iter().map(|summary| summary.mean).collect(),
            ci95: summaries.iter().map(|summary| summary.ci95).collect(),
        }
    };
    let change = |(before, trained): &([f64; 2], [f64; 2])| (trained[0] - trained[1]) - (before[0] - before[1]);
    let displaced = ends.iter().filter(|(before, trained)| is_displaced(*before, *trained)).count();
    Some(Displacement {
        chosen: curve(0),
        rejected: curve(1),
        margin_change: Summary::new(ends.iter().map(change).collect()),
        displaced: displaced as f64 / ends.len() as f64,
    })
}

/// The summary of at least one value.
fn known(values: impl Iterator<Item = f64>) -> Option<Summary> {
    let values: Vec<_> = values.collect();
    (!values.is_empty()).then(|| Summary::new(values))
}

/// The mean of at least one row, place by place.
fn mean_rows<'a>(rows: impl ExactSizeIterator<Item = &'a [f64]>) -> Vec<f64> {
    let (count, mut sums) = (rows.len() as f64, Vec::new());
    for row in rows {
        sums.resize(row.len(), 0.0);
        sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
    }
    sums.iter().map(|sum| sum / count).collect()
}
