//! What a policy is worth: its distance from the optimal one, and how it fares on the lake.

use crate::environment::Environment;
use crate::map::{ACTIONS, Action};
use crate::solver::TransitionMatrix;

/// How a policy fares from the start, exactly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Performance {
    /// Probability of reaching a goal within Gymnasium's horizon.
    pub success_rate: f64,
    /// Expected undiscounted return within the horizon.
    pub mean_return: f64,
}

/// Mean squared error between two transition matrices over the given cells and the four actions.
pub fn distance(policy: &TransitionMatrix, optimal: &TransitionMatrix, cells: &[usize]) -> f64 {
    let squared = |cell: &usize| -> f64 {
        policy[*cell].iter().zip(&optimal[*cell]).map(|(policy, optimal)| (policy - optimal).powi(2)).sum()
    };
    cells.iter().map(squared).sum::<f64>() / (cells.len() * ACTIONS) as f64
}

/// The most probable action of a row, the first on ties.
pub fn greedy_action(row: &[f64; ACTIONS]) -> Action {
    let better = |best: Action, action: Action| if row[action as usize] > row[best as usize] { action } else { best };
    Action::ALL.into_iter().fold(Action::Left, better)
}

/// The policy that always takes the most probable action.
pub fn greedy(policy: &TransitionMatrix) -> TransitionMatrix {
    let certain = |row| std::array::from_fn(|action| f64::from(action == greedy_action(row) as usize));
    policy.iter().map(certain).collect()
}

/// Success rate and return, by propagating the distribution over cells from the start.
pub fn performance(environment: &Environment, policy: &TransitionMatrix) -> Performance {
    let map = environment.map();
    let mut distribution = vec![0.0; policy.len()];
    distribution[map.start()] = 1.0;
    let mut performance = Performance { success_rate: 0.0, mean_return: 0.0 };
    for _ in 0..environment.horizon() {
        let mut next = vec![0.0; policy.len()];
        for (cell, &mass) in distribution.iter().enumerate().filter(|(_, mass)| **mass > 0.0) {
            for (action, &probability) in Action::ALL.into_iter().zip(&policy[cell]) {
                for outcome in environment.outcomes(cell, action) {
                    let mass = mass * probability * outcome.probability;
                    performance.mean_return += mass * outcome.reward;
                    if !outcome.terminated {
                        next[outcome.next] += mass;
                    } else if map.cells()[outcome.next] == crate::map::Cell::Goal {
                        performance.success_rate += mass;
                    }
                }
            }
        }
        distribution = next;
    }
    performance
}
