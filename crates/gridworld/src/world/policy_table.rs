//! Policies as tables: the probabilities of the four actions in every cell.

use crate::world::map::{ACTIONS, Action, Map};

/// Transition matrix T(a|s): the probabilities of the four actions, one row per cell.
pub type TransitionMatrix = Vec<[f64; ACTIONS]>;

/// The uniform policy in every cell.
pub fn uniform_policy(map: &Map) -> TransitionMatrix {
    vec![[1.0 / ACTIONS as f64; ACTIONS]; map.cells().len()]
}

/// The most probable action of a row, and the first such action on ties.
pub fn greedy_action(row: &[f64; ACTIONS]) -> Action {
    let better = |best: Action, action: Action| if row[action as usize] > row[best as usize] { action } else { best };
    Action::ALL.into_iter().fold(Action::Left, better)
}

/// The policy that always takes the most probable action.
pub fn greedy(policy: &TransitionMatrix) -> TransitionMatrix {
    let certain = |row| std::array::from_fn(|action| f64::from(action == greedy_action(row) as usize));
    policy.iter().map(certain).collect()
}
