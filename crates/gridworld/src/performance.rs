//! Measurement of a policy: its distance from the optimal one, and its performance on the lake.

use crate::world::environment::Environment;
use crate::world::map::{ACTIONS, Action, Cell};
use crate::world::policy_table::{TransitionMatrix, greedy};

/// Exact performance of a policy from the start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Performance {
    /// Probability of reaching a goal within Gymnasium's horizon.
    pub success_rate: f64,
    /// Expected undiscounted return within the horizon.
    pub mean_return: f64,
}

/// A policy with its measurements.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// Transition matrix T(a|s).
    pub transition_matrix: TransitionMatrix,
    /// Mean squared error between T and T* over the non-terminal cells.
    pub distance: f64,
    /// Performance of the policy that always takes the most probable action.
    pub greedy: Performance,
    /// Performance of the policy itself.
    pub sampled: Performance,
}

impl Measured {
    /// Measures a policy on a lake, against an optimal one.
    pub fn new(environment: &Environment, optimal: &TransitionMatrix, policy: TransitionMatrix) -> Self {
        Self {
            distance: distance(&policy, optimal, &environment.map().non_terminal()),
            greedy: performance(environment, &greedy(&policy)),
            sampled: performance(environment, &policy),
            transition_matrix: policy,
        }
    }
}

/// Mean squared error between two transition matrices over the given cells and the four actions.
pub fn distance(policy: &TransitionMatrix, optimal: &TransitionMatrix, cells: &[usize]) -> f64 {
    let squared = |cell: &usize| -> f64 {
        policy[*cell].iter().zip(&optimal[*cell]).map(|(policy, optimal)| (policy - optimal).powi(2)).sum()
    };
    cells.iter().map(squared).sum::<f64>() / (cells.len() * ACTIONS) as f64
}

/// Movement of a policy on the lake: P(s'|s) = Σₐ T(a|s) P(s'|s,a), by direction.
#[derive(Clone, Debug, PartialEq)]
pub struct Moves {
    /// Probabilities of moving left, down, right and up, including slips, one row per cell; 0 in terminal cells.
    probabilities: Vec<[f64; ACTIONS]>,
    /// Cell that each direction leads to: the cell itself if a wall stops the move.
    next: Vec<[usize; ACTIONS]>,
}

impl Moves {
    /// Computes the movement of a policy on a lake.
    pub fn new(environment: &Environment, policy: &TransitionMatrix) -> Self {
        let (map, dynamics) = (environment.map(), environment.dynamics());
        let intended = if dynamics.slippery { dynamics.success_rate } else { 1.0 };
        let aside = (1.0 - intended) / 2.0;
        let row = |(cell, row): (usize, &[f64; ACTIONS])| {
            if map.cells()[cell].is_terminal() {
                return [0.0; ACTIONS];
            }
            let turned = |turn: usize, direction: usize| row[(direction + turn) % ACTIONS];
            std::array::from_fn(|direction| {
                intended * row[direction] + aside * (turned(1, direction) + turned(ACTIONS - 1, direction))
            })
        };
        let next = |cell| Action::ALL.map(|action| map.intended(cell, action));
        Self {
            probabilities: policy.iter().enumerate().map(row).collect(),
            next: (0..policy.len()).map(next).collect(),
        }
    }

    /// Distribution of episodes one move later, without those that have ended.
    pub fn arrive(&self, distribution: &[f64], arrivals: &mut [f64]) {
        arrivals.fill(0.0);
        for ((mass, next), probabilities) in distribution.iter().zip(&self.next).zip(&self.probabilities) {
            for (&to, probability) in next.iter().zip(probabilities) {
                arrivals[to] += mass * probability;
            }
        }
    }

    /// Distance between two policies' movements over the given cells: the sum over s' of the squared differences of
    /// P(s'|s), divided by the number of actions, so that it has the scale of [`distance`].
    pub fn distance(&self, other: &Self, cells: &[usize]) -> f64 {
        let squared = |&cell: &usize| -> f64 {
            let (mut moved, mut stayed) = (0.0, 0.0);
            for direction in 0..ACTIONS {
                let difference = self.probabilities[cell][direction] - other.probabilities[cell][direction];
                match self.next[cell][direction] == cell {
                    true => stayed += difference,
                    false => moved += difference * difference,
                }
            }
            moved + stayed * stayed
        };
        cells.iter().map(squared).sum::<f64>() / (cells.len() * ACTIONS) as f64
    }
}

/// Success rate and return, by propagating the distribution over cells from the start.
pub fn performance(environment: &Environment, policy: &TransitionMatrix) -> Performance {
    performance_of(environment, &Moves::new(environment, policy))
}

/// Success rate and return of a policy's movement.
pub fn performance_of(environment: &Environment, moves: &Moves) -> Performance {
    let (map, rewards) = (environment.map(), environment.dynamics().rewards);
    let mut distribution = vec![0.0; map.cells().len()];
    distribution[map.start()] = 1.0;
    let mut next = distribution.clone();
    let mut performance = Performance { success_rate: 0.0, mean_return: 0.0 };
    for _ in 0..environment.horizon() {
        moves.arrive(&distribution, &mut next);
        for (cell, kind) in map.cells().iter().enumerate() {
            performance.mean_return += next[cell] * rewards.of(*kind);
            if *kind == Cell::Goal {
                performance.success_rate += next[cell];
            }
        }
        std::mem::swap(&mut distribution, &mut next);
    }
    performance
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::map::Map;

    #[test]
    fn moves_into_walls_are_one_way_to_stay() {
        let environment = Environment::new(Map::load("4x4").unwrap(), false);
        // In the start cell, left and up both stay: policies that differ in them alone move alike.
        let (mut left, mut up) = (vec![[0.25; ACTIONS]; 16], vec![[0.25; ACTIONS]; 16]);
        (left[0], up[0]) = ([1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]);
        let [left, up] = [left, up].map(|policy| Moves::new(&environment, &policy));
        assert_eq!(left.distance(&up, &[0]), 0.0);
        let mut down = vec![[0.25; ACTIONS]; 16];
        down[0] = [0.0, 1.0, 0.0, 0.0];
        // One probability of 1 less, another more: 2 / 4.
        assert_eq!(left.distance(&Moves::new(&environment, &down), &[0]), 0.5);
    }

    #[test]
    fn slips_are_gymnasiums() {
        let environment = Environment::new(Map::load("4x4").unwrap(), true);
        let mut policy = vec![[0.25; ACTIONS]; 16];
        policy[0] = [0.0, 1.0, 0.0, 0.0];
        let moves = Moves::new(&environment, &policy);
        for (direction, expected) in [1.0, 1.0, 1.0, 0.0].into_iter().enumerate() {
            assert!((moves.probabilities[0][direction] - expected / 3.0).abs() < 1e-15);
        }
    }
}
