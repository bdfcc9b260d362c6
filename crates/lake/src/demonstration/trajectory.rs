//! Trajectories by name, including `optimal` and `hole`, which maps have without naming them.

use std::collections::VecDeque;

use gridworld::GridError;

use crate::demonstration::random::{Drawn, PREFIX, SPELLING};
use crate::error::{LakeError, suggest};
use crate::world::environment::{Environment, Rewards};
use crate::world::map::{Action, Cell, Map, Trajectory};
use crate::world::policy_table::{TransitionMatrix, uniform_policy};

/// Name of the trajectory that every map has: the shortest path to a goal, with the first action on ties.
pub const OPTIMAL: &str = "optimal";
/// Name of the trajectory that most maps have: the shortest word into a hole that never takes an optimal action.
pub const HOLE: &str = "hole";

/// Resolves a trajectory: a name that the map has, the description of a random one ([`Drawn`]), or a word.
///
/// A map that does not name them has `optimal` and `hole` all the same: the optimal policy's way on the lake without
/// slipping, and the shortest word into a hole that never takes that policy's action.
///
/// # Errors
///
/// [`GridError::Trajectory`] for neither a name nor a word, and for a word that cannot be walked;
/// [`LakeError::NoTrajectory`] for a name of a trajectory that the map does not have; and [`LakeError::Refused`] for a
/// drawn trajectory with a wrong parameter.
pub fn resolve(map: &Map, name_or_word: &str) -> Result<Trajectory, LakeError> {
    resolve_sampled(map, name_or_word, &uniform_policy(map))
}

/// Resolves a name or word like [`resolve`], with episodes sampled from this policy instead of the uniform one.
fn resolve_sampled(map: &Map, name_or_word: &str, policy: &TransitionMatrix) -> Result<Trajectory, LakeError> {
    if let Some(word) = map.trajectories().get(name_or_word) {
        return Ok(map.walk(word)?);
    }
    match name_or_word {
        drawn if drawn.starts_with(PREFIX) => Ok(map.walk(&drawn.parse::<Drawn>()?.word(map, policy)?)?),
        OPTIMAL => Ok(map.walk(&optimal_word(map))?),
        HOLE => match hole_word(map) {
            Some(word) => Ok(map.walk(&word)?),
            None => {
                let why = match map.cells().contains(&Cell::Hole) {
                    true => "every way into a hole takes an action of the optimal policy",
                    false => "the lake has no holes",
                };
                Err(LakeError::NoTrajectory { trajectory: HOLE.to_owned(), problem: format!("{why}; give a word") })
            }
        },
        word if word.chars().all(|letter| Action::from_letter(letter).is_some()) => Ok(map.walk(word)?),
        other => {
            let names = names(map);
            let problem = format!("expected one of {}, {SPELLING}, or a word over L, D, R, U", names.join(", "));
            Err(suggest(fail(other, problem), other, names))
        }
    }
}

/// Resolves a name or word like [`resolve`], on a lake with rewards, with episodes sampled from `policy`, the one
/// before training.
///
/// # Errors
///
/// [`GridError::Trajectory`] as [`resolve`], and for `optimal` where the rewards make another way than the shortest to
/// a goal optimal without slipping: there only a word can say what to imitate.
pub fn resolve_rewarded(
    environment: &Environment,
    gamma: f64,
    name_or_word: &str,
    policy: &TransitionMatrix,
) -> Result<Trajectory, LakeError> {
    let (map, rewards) = (environment.map(), environment.dynamics().rewards);
    if name_or_word == OPTIMAL && !shortest_is_best(map, rewards, gamma) {
        let Rewards { goal, hole, frozen } = rewards;
        let schedule = format!("rewards of {goal} in a goal, {hole} in a hole and {frozen} on ice at discount {gamma}");
        return Err(fail(OPTIMAL, format!("with {schedule} the shortest way to a goal is not the best; give a word")));
    }
    resolve_sampled(map, name_or_word, policy)
}

/// Checks that a method that compares the two trajectories can learn from them.
///
/// Two trajectories that take the same actions in the same cells, in whatever order, have the same probability under
/// every policy, so the margin between them is always 0.
///
/// # Errors
///
/// [`GridError::Trajectory`] for a rejected trajectory that takes the demonstration's actions in the demonstration's
/// cells.
pub fn check_comparison(demonstration: &Trajectory, rejected: &Trajectory) -> Result<(), LakeError> {
    let moves = |trajectory: &Trajectory| {
        let actions = trajectory.actions.iter().map(|&action| action as usize);
        let mut moves: Vec<_> = trajectory.cells.iter().copied().zip(actions).collect();
        moves.sort_unstable();
        moves
    };
    if moves(demonstration) != moves(rejected) {
        return Ok(());
    }
    let same = match demonstration.word == rejected.word {
        true => "is the demonstration itself".to_owned(),
        false => format!("takes the actions of the demonstration {} in the same cells", demonstration.word),
    };
    let problem = format!(
        "as the rejected trajectory it {same}, so the policy always gives both the same probability and a comparison of \
         them teaches nothing; expected a rejected trajectory with another move"
    );
    Err(fail(&rejected.word, problem))
}

/// All names that [`resolve`] accepts for this map.
pub fn names(map: &Map) -> Vec<&str> {
    let mut names = vec![OPTIMAL, HOLE];
    names.extend(map.trajectories().keys().map(String::as_str).filter(|name| ![OPTIMAL, HOLE].contains(name)));
    names
}

fn fail(trajectory: &str, problem: String) -> LakeError {
    GridError::Trajectory { trajectory: trajectory.to_owned(), problem }.into()
}

/// Whether the shortest path to a goal has the greatest return from the start, without slipping.
///
/// A path of n moves that ends with reward x has the value w + γⁿ⁻¹ (x − w), where w = frozen / (1 − γ) is the value of
/// never ending. So the best is the shortest of the paths that end in the better of goals and holes, if any has a value
/// above w. Powers of γ are compared by the difference of their exponents, which is exact in the number of moves.
fn shortest_is_best(map: &Map, rewards: Rewards, gamma: f64) -> bool {
    let endless = rewards.frozen / (1.0 - gamma);
    let [goal, hole] = [rewards.goal, rewards.hole].map(|reward| reward - endless);
    let to_goal = map.moves_to_goal()[map.start()].unwrap_or(0);
    goal >= 0.0
        && moves_to_hole(map).is_none_or(|to_hole| {
            let later = |moves: usize, than: usize| gamma.powi(moves.saturating_sub(than) as i32);
            later(to_goal, to_hole) * goal >= later(to_hole, to_goal) * hole
        })
}

/// Minimum number of intended moves from the start into a hole.
fn moves_to_hole(map: &Map) -> Option<usize> {
    let mut moves = vec![None; map.cells().len()];
    moves[map.start()] = Some(0);
    let mut queue = VecDeque::from([map.start()]);
    while let Some(cell) = queue.pop_front() {
        if map.cells()[cell] == Cell::Hole {
            return moves[cell];
        }
        for next in Action::ALL.map(|action| map.intended(cell, action)) {
            if moves[next].is_none() {
                moves[next] = moves[cell].map(|moves: usize| moves + 1);
                queue.push_back(next);
            }
        }
    }
    None
}

/// Optimal policy on the lake without slipping: the first action that brings the goal one move closer.
fn optimal_action(map: &Map, moves_to_goal: &[Option<usize>], cell: usize) -> Option<Action> {
    let moves = moves_to_goal[cell]?;
    Action::ALL.into_iter().find(|&action| {
        let next = map.intended(cell, action);
        moves_to_goal[next].is_some_and(|after| after < moves)
    })
}

fn optimal_word(map: &Map) -> String {
    let moves_to_goal = map.moves_to_goal();
    let mut cell = map.start();
    std::iter::from_fn(|| {
        let action = optimal_action(map, &moves_to_goal, cell)?;
        cell = map.intended(cell, action);
        Some(action.letter())
    })
    .collect()
}

fn hole_word(map: &Map) -> Option<String> {
    let moves_to_goal = map.moves_to_goal();
    let mut arrivals: Vec<Option<(usize, Action)>> = vec![None; map.cells().len()];
    let mut queue = VecDeque::from([map.start()]);
    while let Some(cell) = queue.pop_front() {
        if map.cells()[cell] == Cell::Hole {
            let (mut word, mut cell) = (Vec::new(), cell);
            while let Some((before, action)) = arrivals[cell] {
                word.push(action.letter());
                cell = before;
            }
            return Some(word.iter().rev().collect());
        }
        for action in Action::ALL {
            let next = map.intended(cell, action);
            let fresh = next != map.start() && arrivals[next].is_none();
            if next != cell && fresh && optimal_action(map, &moves_to_goal, cell) != Some(action) {
                arrivals[next] = Some((cell, action));
                queue.push_back(next);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::environment::Dynamics;

    fn map(rows: &[&str]) -> Map {
        let rows: Vec<_> = rows.iter().map(|row| format!("{row:?}")).collect();
        Map::parse("test", &format!("rows = [{}]", rows.join(","))).unwrap()
    }

    #[test]
    fn a_map_without_names_derives_gymnasiums_trajectories_on_4x4() {
        let map = map(&["SFFF", "FHFH", "FFFH", "HFFG"]);
        assert_eq!(resolve(&map, OPTIMAL).unwrap().word, "DDRDRR");
        assert_eq!(resolve(&map, HOLE).unwrap().word, "RD");
    }

    #[test]
    fn the_named_optimal_trajectories_are_the_derived_ones() {
        for (name, _) in crate::world::map::EMBEDDED {
            let map = Map::load(name).unwrap();
            assert_eq!(resolve(&map, OPTIMAL).unwrap().word, optimal_word(&map), "{name}");
        }
    }

    #[test]
    fn the_shortest_way_is_called_optimal_only_where_the_rewards_make_it_so() {
        let lake = |goal, hole, frozen| {
            let rewards = Rewards { goal, hole, frozen };
            Environment::new(Map::load("4x4").unwrap(), Dynamics { rewards, ..Dynamics::from(false) })
        };
        // Six moves to the goal, two into a hole.
        let named = |environment: &Environment, gamma, name: &str| {
            resolve_rewarded(environment, gamma, name, &uniform_policy(environment.map()))
        };
        let optimal = |environment: &Environment, gamma| named(environment, gamma, OPTIMAL);
        assert_eq!(optimal(&lake(1.0, -1.0, -0.1), 0.99).unwrap().word, "DDRDRR");
        // The value of never ending is 0.02 / 0.01 = 2.
        let error = optimal(&lake(1.0, 0.0, 0.02), 0.99).unwrap_err().to_string();
        assert!(error.contains("trajectory optimal") && error.contains("0.02 on ice"), "{error}");
        // From -10 the goal is 11 and a hole 10 away: 0.9^4 * 11 < 10. So it is from -0.1 at 0.99,
        // but 0.99^4 * 11 > 10.
        assert!(optimal(&lake(1.0, 0.0, -1.0), 0.9).is_err());
        assert!(optimal(&lake(1.0, 0.0, -0.1), 0.99).is_ok());
        assert_eq!(named(&lake(1.0, 0.0, -1.0), 0.9, HOLE).unwrap().word, "RD");
    }

    #[test]
    fn a_rejected_trajectory_with_the_demonstrations_moves_is_refused_in_whatever_order() {
        let map = Map::load("4x4").unwrap();
        let check = |chosen: &str, rejected: &str| {
            check_comparison(&map.walk(chosen).unwrap(), &map.walk(rejected).unwrap())
                .map_err(|error| error.to_string())
        };
        let same = check("DDRDRR", "DDRDRR").unwrap_err();
        assert!(same.contains("trajectory DDRDRR") && same.contains("the demonstration itself"), "{same}");
        // Both loops from the start and back, in either order.
        let turned = check("RLDU", "DURL").unwrap_err();
        assert!(turned.contains("demonstration RLDU") && turned.contains("teaches nothing"), "{turned}");
        assert_eq!(check("DDRDRR", "RD"), Ok(()));
        assert_eq!(check("DDRDRR", "DDRDR"), Ok(()));
    }

    #[test]
    fn a_lake_whose_holes_all_lie_beyond_an_optimal_action_needs_a_word() {
        let error = resolve(&map(&["SFH", "FFF", "FFG"]), "L").unwrap_err().to_string();
        assert!(error.contains("step 1, L: moves into a wall"), "{error}");
        let error = resolve(&map(&["SG"]), HOLE).unwrap_err().to_string();
        assert!(error.contains("give a word"), "{error}");
    }
}
