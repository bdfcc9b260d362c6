//! The account of one run: it is observed during training, and measured before and after.

use std::convert::Infallible;

use objective::{Objective, Requirements, Source, Statistic};
use rand_chacha::ChaCha8Rng;
use training::{MicroBatch, StepError};

use super::Standing;
use super::measures::{
    Reads, bellman_residuals, bias, cosine, distances, divergence, gradient, log_prob, overlap, priors, running,
    visitation,
};
use crate::error::LakeError;
use crate::policy::distillation;
use crate::policy::network::{Forward, Network, States};
use crate::policy::rollout::{Dice, sample};
use crate::policy::{LakePolicy, given};
use crate::world::environment::Environment;
use crate::world::map::Trajectory;
use crate::world::policy_table::TransitionMatrix;

/// Measurements of one run. The cosine of two gradients is `None` if one of them is zero and has no direction.
pub(super) type OfRun = Standing<f64, Option<f64>>;

/// Account of one run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Account {
    pub(super) reads: Reads,
    /// Contribution of each cell to the distance.
    pub(super) distances: Vec<f64>,
    pub(super) before: OfRun,
    pub(super) trained: OfRun,
    /// Log-probabilities of the chosen and the rejected trajectory at each point of the curve.
    pub(super) log_probs: Vec<[f64; 2]>,
}

/// Observations of a run during training.
#[derive(Clone, Debug)]
pub(crate) struct Observation {
    before: Network,
    reads: Reads,
    log_probs: Vec<[f64; 2]>,
}

/// Inputs of a run's account.
pub(crate) struct Subject<'a> {
    pub(crate) environment: &'a Environment,
    pub(crate) discount: f64,
    pub(crate) optimal: &'a TransitionMatrix,
    pub(crate) demonstration: &'a Trajectory,
    pub(crate) rejected: Option<&'a Trajectory>,
    /// Distributions of the teacher, if a method reads them.
    pub(crate) teacher: Option<&'a TransitionMatrix>,
    /// Objective of each method's last stage in the recipe.
    pub(crate) objectives: &'a [&'a dyn Objective],
    /// Index of the run's method among `objectives`.
    pub(crate) own: usize,
    pub(crate) label: &'a str,
    pub(crate) seed: u64,
    /// Number of updates so far.
    pub(crate) steps: usize,
    /// Whether gradients are compared in this run.
    pub(crate) compared: bool,
}

impl Observation {
    /// Begins the observation of a training that starts with this network.
    pub(crate) fn new(before: &Network, cells: usize) -> Self {
        Self { before: before.clone(), reads: Reads::new(cells), log_probs: Vec::new() }
    }

    /// Counts the reads of an update, with this weight of anticipated states.
    pub(crate) fn read(
        &mut self,
        policy: &LakePolicy<'_>,
        requirements: &Requirements,
        batches: &[MicroBatch<States, Forward>],
        lambda: f64,
        demonstration: &Trajectory,
    ) {
        batches.iter().for_each(|batch| self.reads.count(policy, requirements, batch, lambda, demonstration));
    }

    /// Measures the policy at a point of the curve.
    pub(crate) fn look(&mut self, network: &Network, demonstration: &Trajectory, rejected: Option<&Trajectory>) {
        self.log_probs.extend(rejected.map(|rejected| [demonstration, rejected].map(|word| log_prob(network, word))));
    }

    /// Makes the account of the run that produced this network. `value_head` generates a value head for compared
    /// methods that need one if the run's own network has none.
    ///
    /// # Errors
    ///
    /// [`LakeError::Step`] for a failed gradient.
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
            false => network.clone(),
        };
        let standing = |network: Network| {
            let Subject { seed, steps: step, .. } = *subject;
            let fail =
                |source| LakeError::Step { method: subject.label.to_owned(), seed, step, source: Box::new(source) };
            subject.standing(network, &reference, shares.as_deref(), &dice).map_err(fail)
        };
        let distances = distances(subject.environment.map(), &trained.transition_matrix(), subject.optimal);
        let (before, trained) = (standing(valued(&before))?, standing(valued(trained))?);
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

    /// The batch that a step of the objective would read; `None` if the sampled episodes give the objective no data.
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
        let batches = std::slice::from_mut(&mut batch);
        reference.fill_reference(&requirements, batches);
        if let Some(teacher) = self.teacher {
            distillation::fill(teacher, &requirements, batches);
        }
        (!batch.responses.is_empty()).then_some(batch)
    }
}

/// All pairs of this many methods: (0, 1), (0, 2), (1, 2), (0, 3), ...
pub(super) fn pairs(methods: usize) -> impl Iterator<Item = [usize; 2]> {
    (0..methods).flat_map(|second| (0..second).map(move |first| [first, second]))
}

fn compare(gradients: &[Option<Vec<f64>>], pair: [usize; 2]) -> Option<f64> {
    let [one, other] = pair.map(|method| gradients[method].as_deref());
    cosine(one?, other?)
}
