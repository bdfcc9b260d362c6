//! The policy before training: randomly initialised, fitted to a partly optimal policy, or trained by another method.

use std::fmt;
use std::str::FromStr;

use objective::{Configured, Parameters};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::error::LakeError;
use crate::world::map::{ACTIONS, Map};
use crate::world::policy_table::TransitionMatrix;
use crate::world::policy_table::greedy_action;

/// Syntax of a start, for errors and help.
pub const SPELLING: &str = "random, noisy:SHARE or right:SHARE with 0 <= SHARE <= 1, or after:METHOD";

/// Policy of a run before training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Start {
    /// A network with random weights.
    Random,
    /// A network fitted to (1 − share) T* + share / 4 in each cell.
    Noisy {
        /// Share of the uniform policy.
        share: f64,
    },
    /// A network fitted to T* in a random share of the cells, and to a wrong action in each of the other cells.
    Right {
        /// Share of the cells.
        share: f64,
    },
    /// A network trained by a method with its defaults, with the recipe's steps and optimizer.
    After {
        /// Method that trains the network.
        method: Configured,
    },
}

impl Start {
    /// Method that trains the policy, if there is one.
    pub fn method(&self) -> Option<&Configured> {
        match self {
            Self::After { method } => Some(method),
            Self::Random | Self::Noisy { .. } | Self::Right { .. } => None,
        }
    }

    /// Policy to fit the network to, if there is one; `optimal` is deterministic.
    pub fn policy(&self, map: &Map, optimal: &TransitionMatrix, rng: &mut ChaCha8Rng) -> Option<TransitionMatrix> {
        match *self {
            Self::Random | Self::After { .. } => None,
            Self::Noisy { share } => {
                let row = |row: &[f64; ACTIONS]| row.map(|p| (1.0 - share) * p + share / ACTIONS as f64);
                Some(optimal.iter().map(row).collect())
            }
            Self::Right { share } => {
                let mut policy = optimal.clone();
                let mut cells = map.non_terminal();
                let wrong = cells.len() - (share * cells.len() as f64).round() as usize;
                for place in 0..wrong {
                    // The first places of a shuffle.
                    let other = rng.random_range(place..cells.len());
                    cells.swap(place, other);
                    let row = &mut policy[cells[place]];
                    let turn = rng.random_range(1..ACTIONS);
                    let action = (greedy_action(row) as usize + turn) % ACTIONS;
                    *row = std::array::from_fn(|place| f64::from(place == action));
                }
                Some(policy)
            }
        }
    }
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Random => write!(f, "random"),
            Self::Noisy { share } => write!(f, "noisy:{share}"),
            Self::Right { share } => write!(f, "right:{share}"),
            Self::After { method } => write!(f, "after:{}", method.method().name),
        }
    }
}

impl From<Start> for String {
    fn from(start: Start) -> Self {
        start.to_string()
    }
}

impl TryFrom<String> for Start {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Start {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, rest) = text.split_once(':').unwrap_or((text, ""));
        if name == "after" {
            let method = Configured::named(rest, &Parameters::new());
            return Ok(Self::After { method: method.map_err(|error| LakeError::from(error).to_string())? });
        }
        let share = rest.parse().ok().filter(|share| (0.0..=1.0).contains(share));
        let start = match (name, share) {
            _ if text == "random" => Some(Self::Random),
            ("noisy", Some(share)) => Some(Self::Noisy { share }),
            ("right", Some(share)) => Some(Self::Right { share }),
            _ => None,
        };
        start.ok_or_else(|| format!("expected {SPELLING}, got \"{text}\""))
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::SeedableRng;

    use super::*;
    use crate::measure::distance;
    use crate::policy::fit::fit;
    use crate::policy::network::{Encoding, Inputs, Network};
    use crate::solver::{Target, optimal_policy, value_iteration};
    use crate::world::environment::Environment;

    fn optimal(map: &Map) -> TransitionMatrix {
        let environment = Environment::new(map.clone(), false);
        optimal_policy(&environment, &value_iteration(&environment, 0.99), Target::Greedy).unwrap()
    }

    #[test]
    fn a_network_is_fitted_to_any_start() {
        for (lake, hidden) in [("4x4", 16), ("8x8", 64)] {
            let map = Map::load(lake).unwrap();
            let optimal = optimal(&map);
            for start in ["noisy:0", "noisy:0.5", "right:0.5"] {
                let start: Start = start.parse().unwrap();
                let mut rng = ChaCha8Rng::seed_from_u64(1);
                let policy = start.policy(&map, &optimal, &mut rng).unwrap();
                let mut network = Network::new(Inputs::new(Encoding::OneHot, &map), hidden, &mut rng).unwrap();
                fit(&mut network, &policy, &map.non_terminal());
                let left = distance(&network.transition_matrix(), &policy, &map.non_terminal());
                assert!(left < 1e-3, "{lake}, {start}: {left:e}");
                assert!(network.gradient.iter().all(|slot| *slot == 0.0));
            }
        }
    }

    #[test]
    fn half_right_is_right_in_half_of_the_cells_and_wrong_in_the_rest() {
        let map = Map::load("8x8").unwrap();
        let optimal = optimal(&map);
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let policy = Start::Right { share: 0.5 }.policy(&map, &optimal, &mut rng).unwrap();
        let cells = map.non_terminal();
        let right = cells.iter().filter(|cell| policy[**cell] == optimal[**cell]).count();
        assert_eq!(right, cells.len().div_ceil(2));
        // A wrong action has the maximum distance: 2 of 4 probabilities differ by 1.
        let wrong = (cells.len() - right) as f64 / cells.len() as f64 * 0.5;
        assert!((distance(&policy, &optimal, &cells) - wrong).abs() < 1e-12);
    }

    #[test]
    fn a_start_is_spelled_and_read_back() {
        for text in ["random", "noisy:0.25", "right:1", "after:sft"] {
            assert_eq!(text.parse::<Start>().unwrap().to_string(), text);
        }
        for text in ["", "noisy", "noisy:2", "right:x", "random:1"] {
            let error = text.parse::<Start>().unwrap_err();
            assert!(error.contains("noisy:SHARE") && error.contains(text), "{error}");
        }
    }
}
