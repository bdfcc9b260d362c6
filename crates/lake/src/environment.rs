//! Frozen Lake's dynamics, as Gymnasium has them.

use crate::map::{ACTIONS, Action, Cell, Map};

/// One outcome of an action.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transition {
    /// P(s'|s,a) of this outcome; an action's outcomes sum to 1, and one cell may be the outcome of several.
    pub probability: f64,
    /// The cell s'.
    pub next: usize,
    /// 1 on arrival at a goal, otherwise 0.
    pub reward: f64,
    /// Whether s' ends the episode.
    pub terminated: bool,
}

/// The transition model P over a map.
///
/// An action goes the intended way or, on a slippery lake, that way or at right angles to it with probability 1/3 each. A
/// wall stops the move. Holes and goals are terminal: every action stays there, with reward 0.
#[derive(Clone, Debug, PartialEq)]
pub struct Environment {
    map: Map,
    slippery: bool,
    transitions: Vec<Transition>,
    /// Where the outcomes of each cell's each action begin, and the end.
    offsets: Vec<usize>,
}

impl Environment {
    /// The model of a map.
    pub fn new(map: Map, slippery: bool) -> Self {
        let (mut transitions, mut offsets) = (Vec::new(), vec![0]);
        for (cell, kind) in map.cells().iter().enumerate() {
            for action in 0..ACTIONS {
                if kind.is_terminal() {
                    transitions.push(Transition { probability: 1.0, next: cell, reward: 0.0, terminated: true });
                } else {
                    let ways: &[usize] = if slippery { &[ACTIONS - 1, 0, 1] } else { &[0] };
                    transitions.extend(ways.iter().map(|turn| {
                        let next = map.intended(cell, Action::ALL[(action + turn) % ACTIONS]);
                        Transition {
                            probability: 1.0 / ways.len() as f64,
                            next,
                            reward: f64::from(map.cells()[next] == Cell::Goal),
                            terminated: map.cells()[next].is_terminal(),
                        }
                    }));
                }
                offsets.push(transitions.len());
            }
        }
        Self { map, slippery, transitions, offsets }
    }

    /// The map.
    pub fn map(&self) -> &Map {
        &self.map
    }

    /// Whether moves slip.
    pub fn slippery(&self) -> bool {
        self.slippery
    }

    /// The outcomes of an action, in Gymnasium's order.
    pub fn outcomes(&self, cell: usize, action: Action) -> &[Transition] {
        let index = cell * ACTIONS + action as usize;
        &self.transitions[self.offsets[index]..self.offsets[index + 1]]
    }

    /// Steps until Gymnasium truncates an episode: 100 on lakes of up to 4x4 cells, 200 on larger ones.
    pub fn horizon(&self) -> usize {
        if self.map.cells().len() <= 16 { 100 } else { 200 }
    }
}
