//! Dynamics of the Frozen Lake, as in Gymnasium.

use std::fmt;
use std::ops::Deref;

use crate::map::{ACTIONS, Action, Cell, Map};

/// Options of the dynamics: Gymnasium's `is_slippery`, `success_rate` and `reward_schedule`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dynamics {
    /// Whether moves slip.
    pub slippery: bool,
    /// Probability of the intended move on a slippery lake, from 0 to 1; the rest is split evenly between the two
    /// perpendicular directions.
    pub success_rate: f64,
    /// Rewards on arrival in a cell.
    pub rewards: Rewards,
}

/// Rewards on arrival in a cell, each finite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rewards {
    /// Reward in a goal.
    pub goal: f64,
    /// Reward in a hole.
    pub hole: f64,
    /// Reward on ice, including the start, and also if a wall stops the move.
    pub frozen: f64,
}

/// One outcome of an action.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transition {
    /// P(s'|s,a) of this outcome; an action's outcomes sum to 1, and one cell may be the outcome of several.
    pub probability: f64,
    /// Next cell s'.
    pub next: usize,
    /// Reward on arrival in s'.
    pub reward: f64,
    /// Whether s' ends the episode.
    pub terminated: bool,
}

/// The outcomes of an action: one, or three on a slippery lake.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcomes {
    transitions: [Transition; TURNS.len()],
    count: usize,
}

/// The transition model P of a map.
///
/// An action moves in the intended direction or, on a slippery lake, in that direction with probability `success_rate`
/// and in each perpendicular direction with probability (1 − `success_rate`) / 2. A wall stops the move. Holes and
/// goals are terminal: every action stays there, with reward 0.
///
/// Transitions are computed on demand, from one byte per cell.
#[derive(Clone, Debug, PartialEq)]
pub struct Environment {
    map: Map,
    dynamics: Dynamics,
    /// One byte per cell: a bit for each direction that a wall stops, and above them the kind of the cell.
    surroundings: Vec<u8>,
    /// Offset of the neighbouring cell in each direction, with wrapping addition.
    strides: [usize; ACTIONS],
    /// Reward on arrival, by kind of cell.
    rewards: [f64; 4],
    /// Probabilities of the turns.
    probabilities: [f64; TURNS.len()],
}

/// Directions of a slip, in quarter turns from the action, in Gymnasium's order.
const TURNS: [usize; 3] = [ACTIONS - 1, 0, 1];
/// First of the bits with the kind of a cell.
const KIND: u32 = ACTIONS as u32;

impl Default for Rewards {
    /// Gymnasium's default rewards.
    fn default() -> Self {
        Self { goal: 1.0, hole: 0.0, frozen: 0.0 }
    }
}

impl From<bool> for Dynamics {
    /// Gymnasium's default dynamics, slippery or not.
    fn from(slippery: bool) -> Self {
        Self { slippery, success_rate: 1.0 / 3.0, rewards: Rewards::default() }
    }
}

impl fmt::Display for Dynamics {
    /// Formats the options that differ from Gymnasium's defaults.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let default = Self::from(self.slippery);
        f.write_str(if self.slippery { "slippery" } else { "not slippery" })?;
        if self.slippery && self.success_rate != default.success_rate {
            write!(f, " (success rate {})", self.success_rate)?;
        }
        if self.rewards != default.rewards {
            let Rewards { goal, hole, frozen } = self.rewards;
            write!(f, ", rewards {goal} goal, {hole} hole, {frozen} frozen")?;
        }
        Ok(())
    }
}

impl Rewards {
    /// Reward on arrival in a cell of this kind.
    pub fn of(&self, cell: Cell) -> f64 {
        match cell {
            Cell::Start | Cell::Frozen => self.frozen,
            Cell::Hole => self.hole,
            Cell::Goal => self.goal,
        }
    }
}

impl Environment {
    /// Makes the model of a map.
    pub fn new(map: Map, dynamics: impl Into<Dynamics>) -> Self {
        let dynamics = dynamics.into();
        let width = map.width();
        let height = map.cells().len() / width;
        let walls = |row: usize, column: usize| {
            // In the order of the actions: left, down, right, up.
            let walls = [column == 0, row + 1 == height, column + 1 == width, row == 0];
            walls.into_iter().rev().fold(0, |bits, wall| bits << 1 | u8::from(wall))
        };
        let surroundings = map.cells().iter().enumerate();
        let surroundings = surroundings.map(|(cell, &kind)| walls(cell / width, cell % width) | (kind as u8) << KIND);
        // Gymnasium's expression, to the last bit.
        let fail_rate = (1.0 - dynamics.success_rate) / 2.0;
        Self {
            surroundings: surroundings.collect(),
            strides: [1_usize.wrapping_neg(), width, 1, width.wrapping_neg()],
            rewards: [Cell::Start, Cell::Frozen, Cell::Hole, Cell::Goal].map(|cell| dynamics.rewards.of(cell)),
            probabilities: TURNS.map(|turn| if turn == 0 { dynamics.success_rate } else { fail_rate }),
            map,
            dynamics,
        }
    }

    /// Map of the lake.
    pub fn map(&self) -> &Map {
        &self.map
    }

    /// Options of the dynamics.
    pub fn dynamics(&self) -> Dynamics {
        self.dynamics
    }

    /// Whether moves slip.
    pub fn slippery(&self) -> bool {
        self.dynamics.slippery
    }

    /// Outcomes of an action, in Gymnasium's order.
    pub fn outcomes(&self, cell: usize, action: Action) -> Outcomes {
        let one = |outcome| Outcomes { transitions: [outcome; TURNS.len()], count: 1 };
        if self.is_terminal(cell) {
            one(self.stay(cell))
        } else if self.dynamics.slippery {
            let slip = |turn| self.arrive(cell, action as usize + TURNS[turn], self.probabilities[turn]);
            Outcomes { transitions: std::array::from_fn(slip), count: TURNS.len() }
        } else {
            one(self.arrive(cell, action as usize, 1.0))
        }
    }

    /// Outcome of an action that a uniform random number in [0, 1) selects, as in Gymnasium: the
    /// first one whose cumulative probability is above the number.
    ///
    /// # Examples
    ///
    /// ```
    /// use lake::environment::Environment;
    /// use lake::map::{Action, Map};
    ///
    /// let environment = Environment::new(Map::load("4x4")?, true);
    /// let (slipped, went) = (environment.step(0, Action::Down, 0.9), environment.step(0, Action::Down, 0.5));
    /// assert_eq!((slipped.next, went.next), (1, 4));
    /// # Ok::<(), lake::LakeError>(())
    /// ```
    #[inline]
    pub fn step(&self, cell: usize, action: Action, draw: f64) -> Transition {
        if self.is_terminal(cell) {
            return self.stay(cell);
        }
        if !self.dynamics.slippery {
            return self.arrive(cell, action as usize, 1.0);
        }
        let [first, second, _] = self.probabilities;
        let turn = usize::from(draw >= first) + usize::from(draw >= first + second);
        self.arrive(cell, action as usize + TURNS[turn], self.probabilities[turn])
    }

    /// Number of steps after which an episode is truncated: 100 on lakes of up to 4x4 cells and 200 on larger ones up
    /// to 8x8, as for Gymnasium's two maps. That is 25 per row, and larger lakes continue in this proportion.
    pub fn horizon(&self) -> usize {
        let (cells, width) = (self.map.cells().len(), self.map.width());
        if cells <= 16 { 100 } else { usize::max(200, 25 * width.max(cells / width)) }
    }

    #[inline]
    fn is_terminal(&self, cell: usize) -> bool {
        self.surroundings[cell] >> KIND >= Cell::Hole as u8
    }

    fn stay(&self, cell: usize) -> Transition {
        Transition { probability: 1.0, next: cell, reward: 0.0, terminated: true }
    }

    #[inline]
    fn arrive(&self, cell: usize, way: usize, probability: f64) -> Transition {
        let way = way % ACTIONS;
        let wall = self.surroundings[cell] >> way & 1 == 1;
        let next = if wall { cell } else { cell.wrapping_add(self.strides[way]) };
        let kind = self.surroundings[next] >> KIND;
        Transition { probability, next, reward: self.rewards[usize::from(kind)], terminated: kind >= Cell::Hole as u8 }
    }
}

impl Deref for Outcomes {
    type Target = [Transition];

    fn deref(&self) -> &[Transition] {
        &self.transitions[..self.count]
    }
}

impl IntoIterator for Outcomes {
    type Item = Transition;
    type IntoIter = std::iter::Take<std::array::IntoIter<Transition, { TURNS.len() }>>;

    fn into_iter(self) -> Self::IntoIter {
        self.transitions.into_iter().take(self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{Overrides, Recipe};

    #[test]
    fn the_default_recipe_is_gymnasiums_default() {
        let recipe = Recipe::resolve(None, &Overrides::default()).unwrap();
        assert_eq!(recipe.dynamics(), Dynamics::from(false));
    }

    #[test]
    fn a_draw_picks_each_outcome_at_its_rate() {
        let dynamics = Dynamics { success_rate: 0.5, ..Dynamics::from(true) };
        let environment = Environment::new(Map::load("4x4").unwrap(), dynamics);
        for (cell, action) in (0..16).flat_map(|cell| Action::ALL.map(|action| (cell, action))) {
            let outcomes = environment.outcomes(cell, action);
            let mut end = 0.0;
            for outcome in outcomes {
                let begin = end;
                end += outcome.probability;
                for draw in [begin, end - f64::EPSILON] {
                    assert_eq!(environment.step(cell, action, draw), outcome, "{cell}, {action:?}, {draw}");
                }
            }
        }
    }

    #[test]
    fn a_lake_says_in_words_what_departs_from_gymnasiums() {
        assert_eq!(Dynamics::from(true).to_string(), "slippery");
        let rewards = Rewards { goal: 1.0, hole: -1.0, frozen: 0.0 };
        let dynamics = Dynamics { slippery: true, success_rate: 0.8, rewards };
        assert_eq!(dynamics.to_string(), "slippery (success rate 0.8), rewards 1 goal, -1 hole, 0 frozen");
    }
}
