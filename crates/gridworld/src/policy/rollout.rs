//! Episodes that a policy samples on the lake, and a training step's data from them.

use std::cmp::Ordering;

use enumset::EnumSet;
use objective::{Constant, Data, Feedback, Pair, Requirements, Sampling, Statistic, TokenStatistics};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use training::{Frozen, MicroBatch, Outcome, Policy, fill_behaviour};

use crate::policy::network::{Forward, States};
use crate::policy::{LakePolicy, empty, push};
use crate::seeds::draw;
use crate::world::environment::Environment;
use crate::world::map::Action;
use crate::world::policy_table::TransitionMatrix;

/// Random number generators for the policy's choices and for the lake's slips, each a separate stream of a run's seed.
#[derive(Clone, Debug)]
pub struct Dice {
    actions: ChaCha8Rng,
    slips: ChaCha8Rng,
}

/// One episode from the start.
#[derive(Clone, Debug, PartialEq)]
pub struct Episode {
    /// Cell before each move.
    pub cells: Vec<usize>,
    /// Action of each move.
    pub actions: Vec<Action>,
    /// Reward of each move.
    pub rewards: Vec<f64>,
    /// Cell after the last move, if Gymnasium's horizon truncated the episode there.
    pub cut_off: Option<usize>,
}

/// Data of a step, and the number of prompts that have no pair because all their returns were equal.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Responses; empty if all returns were equal and the objective compares pairs.
    pub batch: MicroBatch<States, Forward>,
    /// Number of prompts without a pair.
    pub ties: usize,
}

impl Dice {
    /// Makes the generators from their streams.
    pub fn new(actions: ChaCha8Rng, slips: ChaCha8Rng) -> Self {
        Self { actions, slips }
    }
}

impl Episode {
    /// Samples an episode of the policy with this transition matrix.
    pub fn sample(environment: &Environment, policy: &TransitionMatrix, dice: &mut Dice) -> Self {
        let mut episode = Self { cells: Vec::new(), actions: Vec::new(), rewards: Vec::new(), cut_off: None };
        let mut cell = environment.map().start();
        for _ in 0..environment.horizon() {
            let action = Action::ALL[draw(&policy[cell], 1.0, &mut dice.actions).unwrap_or(0)];
            let outcome = environment.step(cell, action, dice.slips.random());
            episode.cells.push(cell);
            episode.actions.push(action);
            episode.rewards.push(outcome.reward);
            cell = outcome.next;
            if outcome.terminated {
                return episode;
            }
        }
        episode.cut_off = Some(cell);
        episode
    }

    /// Discounted return Σₜ γᵗ rₜ.
    pub fn discounted_return(&self, discount: f64) -> f64 {
        self.rewards.iter().rev().fold(0.0, |rest, reward| reward + discount * rest)
    }
}

/// Samples episodes from the policy and converts them to the data that the objective learns from, with all columns that
/// it requires of the behaviour policy. The lake has one prompt, its start; rewards of whole responses and the ranks of
/// pairs are discounted returns.
pub fn sample(
    environment: &Environment,
    policy: &LakePolicy<'_>,
    requirements: &Requirements,
    sampling: Sampling,
    discount: f64,
    dice: &mut Dice,
) -> Sample {
    let matrix = policy.network.transition_matrix();
    let mut episodes: Vec<_> = (0..sampling.samples).map(|_| Episode::sample(environment, &matrix, dice)).collect();
    let mut batch = empty();
    let mut ties = 0;
    match requirements.data {
        Data::Preferences => {
            // The greatest return comes first; of equal ones, the earlier sample.
            episodes.sort_by(|a, b| {
                let [a, b] = [a, b].map(|episode| episode.discounted_return(discount));
                b.partial_cmp(&a).unwrap_or(Ordering::Equal)
            });
            episodes.drain(1..episodes.len() - 1);
            if episodes[0].discounted_return(discount) > episodes[1].discounted_return(discount) {
                batch.pairs.push(Pair { chosen: 0, rejected: 1 });
            } else {
                episodes.clear();
                ties = 1;
            }
        }
        Data::Demonstrations | Data::Labelled { .. } | Data::Groups | Data::Rollouts => {}
    }
    let greedy = match requirements.rewards {
        Some(2) => Some(Episode::sample(environment, &greedy(&matrix), dice).discounted_return(discount)),
        _ => None,
    };
    for episode in &episodes {
        let feedback = if requirements.data == Data::Groups { Feedback::Group(0) } else { Feedback::None };
        push(&mut batch, &episode.cells, &episode.actions, feedback);
        if requirements.constants.contains(Constant::Reward) {
            batch.constants.reward.push(episode.discounted_return(discount));
            batch.constants.reward.extend(greedy);
        }
    }
    let outcomes = outcomes(policy, requirements, episodes);
    let micro_batches = std::slice::from_mut(&mut batch);
    let Ok(()) = fill_behaviour(policy, requirements, discount, micro_batches, &[outcomes]);
    Sample { batch, ties }
}

/// The policy that takes the most probable action in every cell, and the first such action on ties.
fn greedy(policy: &TransitionMatrix) -> TransitionMatrix {
    let mut greedy = policy.clone();
    for row in &mut greedy {
        let best = (0..row.len()).fold(0, |best, action| if row[action] > row[best] { action } else { best });
        row.iter_mut().enumerate().for_each(|(action, share)| *share = f64::from(u8::from(action == best)));
    }
    greedy
}

/// Rewards of each episode, and the value of the cell where it was truncated.
fn outcomes(policy: &LakePolicy<'_>, requirements: &Requirements, episodes: Vec<Episode>) -> Vec<Outcome> {
    let cut_off: Vec<_> = episodes.iter().filter_map(|episode| episode.cut_off).collect();
    let mut statistics = TokenStatistics::default();
    if !cut_off.is_empty() {
        let states = States { begins: (0..cut_off.len()).collect(), cells: cut_off, fusion: None };
        let wanted = requirements.statistics & EnumSet::only(Statistic::Value);
        let forward = policy.network.forward(&states);
        let Ok(()) = policy.statistics(&forward, Frozen::default(), &[], wanted, &mut statistics);
    }
    let mut values = statistics.value.into_iter();
    let outcome = |episode: Episode| {
        let bootstrap = episode.cut_off.and_then(|_| values.next()).unwrap_or(0.0);
        Outcome { rewards: episode.rewards, bootstrap }
    };
    episodes.into_iter().map(outcome).collect()
}
