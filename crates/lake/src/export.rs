//! The lake as conversations: the user's message describes a state, and the assistant's answer is an action. The format
//! is lines of JSON, as `lm` reads them.
//!
//! | a line of | is |
//! |---|---|
//! | `demonstrations.jsonl` | one move of the demonstration: `messages` |
//! | `preferences.jsonl` | two answers to one state: `prompt`, `chosen`, `rejected` |
//! | `evaluation.jsonl` | one non-terminal cell with all four answers: `prompt`, `completions`, and as `rewards` Q*(s,a) |
//!
//! A state is told by itself, so that what is asked of a language model is a policy T(a|s) as the lake's. Of each cell
//! that the trajectories visit, preferences say what they say: a move of the demonstration is better than any move that
//! it does not make there; and where only the rejected trajectory comes, any move is better than those that this one
//! makes there.

use std::collections::BTreeMap;

use serde::Serialize;
use strum::{IntoStaticStr, VariantNames};

use gridworld::GridError;

use crate::error::LakeError;
use crate::solver::Solution;
use crate::world::environment::Environment;
use crate::world::map::{ACTIONS, Action, Cell, Map, Trajectory};

/// Maximum number of cells of an exported lake, as each cell's state describes every hole.
pub const MOST_CELLS: usize = 4096;
/// Question at the end of every state.
const QUESTION: &str = "Which way do you go: left, down, right or up?";
/// Symbol of the player on a drawn map.
const HERE: char = 'X';

/// Form of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, IntoStaticStr, VariantNames)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[cfg_attr(feature = "program", derive(clap::ValueEnum), value(rename_all = "snake_case"))]
pub enum State {
    /// Words: the lake's size, and the positions of goals, holes and the player.
    Words,
    /// A drawn map with an X at the player's position.
    Map,
}

impl State {
    /// All forms of a state.
    pub const ALL: [Self; 2] = [Self::Words, Self::Map];
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Turn {
    /// Role of the speaker.
    pub role: &'static str,
    /// Text of the message.
    pub content: String,
}

/// A move to imitate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Demonstration {
    /// Messages with the state and the action.
    pub messages: [Turn; 2],
}

/// Two answers to one state.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Preference {
    /// Message with the state.
    pub prompt: [Turn; 1],
    /// The better answer.
    pub chosen: [Turn; 1],
    /// The worse answer.
    pub rejected: [Turn; 1],
}

/// A state with all four answers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// Message with the state.
    pub prompt: [Turn; 1],
    /// Answers, in Gymnasium's order.
    pub completions: [[Turn; 1]; ACTIONS],
    /// Values Q*(s,a) of the answers.
    pub rewards: [f64; ACTIONS],
}

/// Key to the exported lines, `lake.json`: the cell and the action of each line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Key {
    /// Version of the program.
    pub version: &'static str,
    /// Rows of the map.
    pub map: Vec<String>,
    /// Form of the states.
    pub state: State,
    /// Answers, in the order of every line's `completions`.
    pub actions: [&'static str; ACTIONS],
    /// Words of the exported trajectories, by role.
    pub trajectories: BTreeMap<&'static str, String>,
    /// Cell and move of each demonstration.
    pub demonstrations: Vec<(usize, &'static str)>,
    /// Cell, better move and worse move of each preference.
    pub preferences: Vec<(usize, &'static str, &'static str)>,
    /// Cell of each line of the evaluation.
    pub evaluation: Vec<usize>,
}

/// A lake as conversations.
#[derive(Clone, Debug, PartialEq)]
pub struct Conversations {
    /// One demonstration per move of the demonstrated trajectory.
    pub demonstrations: Vec<Demonstration>,
    /// Preferences from the trajectories, for the cells that they visit.
    pub preferences: Vec<Preference>,
    /// One question per non-terminal cell.
    pub evaluation: Vec<Evaluation>,
    /// Key to the lines of the files.
    pub key: Key,
}

impl Conversations {
    /// The lake's trajectories and its non-terminal cells as conversations.
    ///
    /// # Errors
    ///
    /// [`GridError::Map`] for a lake of more than [`MOST_CELLS`] cells.
    pub fn new(
        environment: &Environment,
        solution: &Solution,
        demonstration: &Trajectory,
        rejected: &Trajectory,
        state: State,
    ) -> Result<Self, LakeError> {
        let map = environment.map();
        if map.cells().len() > MOST_CELLS {
            let problem = format!("expected at most {MOST_CELLS} cells to tell of, got {}", map.cells().len());
            return Err(GridError::Map { map: map.name().to_owned(), problem }.into());
        }
        let prompt = |cell: usize| Turn { role: "user", content: prompt(map, cell, state) };
        let moves: Vec<_> = demonstration.cells.iter().copied().zip(demonstration.actions.iter().copied()).collect();
        let preferred = preferences(map, demonstration, rejected);
        let evaluated = map.non_terminal();
        Ok(Self {
            demonstrations: moves
                .iter()
                .map(|&(cell, action)| Demonstration { messages: [prompt(cell), answer(action)] })
                .collect(),
            preferences: preferred
                .iter()
                .map(|&(cell, chosen, rejected)| Preference {
                    prompt: [prompt(cell)],
                    chosen: [answer(chosen)],
                    rejected: [answer(rejected)],
                })
                .collect(),
            evaluation: evaluated
                .iter()
                .map(|&cell| Evaluation {
                    prompt: [prompt(cell)],
                    completions: Action::ALL.map(|action| [answer(action)]),
                    rewards: solution.action_value[cell],
                })
                .collect(),
            key: Key {
                version: env!("CARGO_PKG_VERSION"),
                map: map.rows(),
                state,
                actions: Action::ALL.map(Action::word),
                trajectories: BTreeMap::from([
                    ("demonstration", demonstration.word.clone()),
                    ("rejected", rejected.word.clone()),
                ]),
                demonstrations: moves.into_iter().map(|(cell, action)| (cell, action.word())).collect(),
                preferences: preferred
                    .into_iter()
                    .map(|(cell, chosen, rejected)| (cell, chosen.word(), rejected.word()))
                    .collect(),
                evaluation: evaluated,
            },
        })
    }
}

fn answer(action: Action) -> Turn {
    Turn { role: "assistant", content: action.word().to_owned() }
}

/// Cells with a better and a worse move each, in the order of cells.
fn preferences(map: &Map, demonstration: &Trajectory, rejected: &Trajectory) -> Vec<(usize, Action, Action)> {
    let made = |trajectory: &Trajectory, cell: usize| {
        Action::ALL.map(|action| {
            let mut moves = trajectory.cells.iter().zip(&trajectory.actions);
            moves.any(|(&visited, &made)| visited == cell && made == action)
        })
    };
    let mut preferences = Vec::new();
    for cell in map.non_terminal() {
        let (good, bad) = (made(demonstration, cell), made(rejected, cell));
        let (better, worse) = match good.contains(&true) {
            true => (good, good.map(|made| !made)),
            false => (bad.map(|made| !made), bad),
        };
        for chosen in Action::ALL.into_iter().filter(|&action| better[action as usize]) {
            for rejected in Action::ALL.into_iter().filter(|&action| worse[action as usize]) {
                preferences.push((cell, chosen, rejected));
            }
        }
    }
    preferences
}

/// Text of the user's message in a cell.
fn prompt(map: &Map, cell: usize, state: State) -> String {
    match state {
        State::Words => {
            let place = |cell: usize| format!("row {}, column {}", cell / map.width() + 1, cell % map.width() + 1);
            let places = |kind: Cell| {
                let cells = map.cells().iter().enumerate().filter(|(_, other)| **other == kind);
                cells.map(|(cell, _)| place(cell)).collect::<Vec<_>>()
            };
            let (goals, holes) = (places(Cell::Goal).join("; "), places(Cell::Hole));
            let holes = if holes.is_empty() { "nowhere".to_owned() } else { format!("at {}", holes.join("; ")) };
            let (rows, columns) = (map.height(), map.width());
            format!(
                "You cross a frozen lake of {rows} rows and {columns} columns. The goal is at {goals}. Holes are {holes}. \
                 You are at {}. {QUESTION}",
                place(cell)
            )
        }
        State::Map => {
            let mut rows: Vec<Vec<char>> = map.rows().iter().map(|row| row.chars().collect()).collect();
            rows[cell / map.width()][cell % map.width()] = HERE;
            let drawn: Vec<String> = rows.into_iter().map(String::from_iter).collect();
            format!(
                "You cross a frozen lake: S is the start, F ice, H a hole, G the goal, {HERE} where you are.\n\n{}\n\n{QUESTION}",
                drawn.join("\n")
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_told_in_words_or_drawn() {
        let map = Map::parse("test", "SFH\nFFG").unwrap();
        assert_eq!(
            prompt(&map, 4, State::Words),
            "You cross a frozen lake of 2 rows and 3 columns. The goal is at row 2, column 3. Holes are at row 1, column 3. \
             You are at row 2, column 2. Which way do you go: left, down, right or up?"
        );
        assert_eq!(
            prompt(&map, 4, State::Map),
            "You cross a frozen lake: S is the start, F ice, H a hole, G the goal, X where you are.\n\nSFH\nFXG\n\n\
             Which way do you go: left, down, right or up?"
        );
        assert!(prompt(&Map::parse("test", "SG").unwrap(), 0, State::Words).contains("Holes are nowhere."));
    }

    #[test]
    fn where_both_trajectories_come_the_demonstration_is_right() {
        let map = Map::load("4x4").unwrap();
        let [demonstration, detour] = ["DDRDRR", "RRDDLDRR"].map(|word| map.walk(word).unwrap());
        let pairs = preferences(&map, &demonstration, &detour);
        // Both go right from cell 14 to the goal.
        let last: Vec<_> = pairs.iter().filter(|(cell, ..)| *cell == 14).collect();
        assert!(last.len() == 3 && last.iter().all(|(_, chosen, _)| *chosen == Action::Right), "{last:?}");
        // Only the detour comes to cell 10, from where it goes left.
        assert!(pairs.iter().all(|(cell, _, rejected)| *cell != 10 || *rejected == Action::Left));
        assert_eq!(pairs.len(), 6 * 3 + 4 * 3);
    }
}
