//! The optimal policy, exactly: value iteration with a certified residual.

use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantNames};

use crate::environment::{Environment, Rewards};
use crate::map::{ACTIONS, Action};

/// Probabilities of the four actions, one row a cell: T(a|s).
pub type TransitionMatrix = Vec<[f64; ACTIONS]>;

/// Actions whose values are this close to the best count as tied.
pub const TIE_TOLERANCE: f64 = 1e-9;
/// Temperature of the soft target, in units of return.
pub const TEMPERATURE: f64 = 0.1;

/// Which optimal policy a learned one is measured against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, IntoStaticStr, VariantNames)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Target {
    /// The first of the best actions.
    Greedy,
    /// The best actions alike.
    Ties,
    /// Boltzmann over Q* at temperature 0.1.
    Soft,
}

/// V* and Q* of a lake, discounted.
#[derive(Clone, Debug, PartialEq)]
pub struct Solution {
    /// V*(s); 0 in terminal cells.
    pub value: Vec<f64>,
    /// Q*(s,a); 0 in terminal cells.
    pub action_value: Vec<[f64; ACTIONS]>,
    /// maxₛ |maxₐ Q(s,a) − V(s)|, recomputed from the values above.
    pub residual: f64,
    /// Sweeps over the lake.
    pub sweeps: usize,
    /// residual / (1 − γ) ≥ maxₛ |V(s) − V*(s)|.
    pub error_bound: f64,
}

/// Value iteration from V = 0 with discount 0 ≤ γ < 1.
///
/// # Formula
///
/// Q(s,a) = Σ P(s'|s,a) (r + γ V(s')), V(s) = maxₐ Q(s,a), over whole sweeps until the residual is at most
/// 10⁻¹² (1 − γ) or four units of rounding. From 0 the values rise monotonically, in floating point too, so the sweeps end.
pub fn value_iteration(environment: &Environment, gamma: f64) -> Solution {
    let cells = environment.map().cells();
    let rewards = environment.dynamics().rewards;
    let largest = [rewards.goal, rewards.hole, rewards.frozen].into_iter().fold(0.0, |most: f64, r| most.max(r.abs()));
    let start = start(rewards);
    let mut value: Vec<_> = cells.iter().map(|cell| if cell.is_terminal() { 0.0 } else { start }).collect();
    let mut sweeps = 0;
    loop {
        sweeps += 1;
        let action_value = backup(environment, gamma, &value);
        let best: Vec<_> = action_value.iter().map(|q| q.iter().copied().fold(f64::NEG_INFINITY, f64::max)).collect();
        let residual = best.iter().zip(&value).fold(0.0, |most: f64, (new, old)| most.max((new - old).abs()));
        let magnitude = value.iter().fold(largest, |most, value| most.max(value.abs()));
        if residual <= f64::max(1e-12 * (1.0 - gamma), 4.0 * f64::EPSILON * magnitude) {
            return Solution { value, action_value, residual, sweeps, error_bound: residual / (1.0 - gamma) };
        }
        value = best;
    }
}

/// Where values begin: below every V* if ice rewards, else above, and so that the first backup goes on in that direction.
fn start(Rewards { goal, hole, frozen }: Rewards) -> f64 {
    if frozen >= 0.0 { goal.min(hole).min(0.0) } else { goal.max(hole).max(0.0) }
}

fn backup(environment: &Environment, gamma: f64, value: &[f64]) -> Vec<[f64; ACTIONS]> {
    let expected = |cell, action| {
        environment.outcomes(cell, action).iter().fold(0.0, |sum, outcome| {
            let after = if outcome.terminated { 0.0 } else { gamma * value[outcome.next] };
            sum + outcome.probability * (outcome.reward + after)
        })
    };
    (0..value.len()).map(|cell| Action::ALL.map(|action| expected(cell, action))).collect()
}

/// The optimal policy T*(a|s); rows of terminal cells are uniform.
pub fn optimal_policy(environment: &Environment, solution: &Solution, target: Target) -> TransitionMatrix {
    let row = |(cell, q): (usize, &[f64; ACTIONS])| {
        if environment.map().cells()[cell].is_terminal() {
            return [1.0 / ACTIONS as f64; ACTIONS];
        }
        let best = q.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let tied = q.map(|q| q >= best - TIE_TOLERANCE);
        let weights = match target {
            Target::Greedy => {
                let first = tied.iter().position(|&tied| tied);
                std::array::from_fn(|action| f64::from(Some(action) == first))
            }
            Target::Ties => tied.map(f64::from),
            Target::Soft => q.map(|q| ((q - best) / TEMPERATURE).exp()),
        };
        let sum: f64 = weights.iter().sum();
        weights.map(|weight| weight / sum)
    };
    solution.action_value.iter().enumerate().map(row).collect()
}
