//! Random trajectories, each determined by the lake, a kind, a number of moves and a seed.

use std::fmt;
use std::str::FromStr;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantNames};

use crate::error::LakeError;
use crate::world::map::{ACTIONS, Action, Cell, Map};
use crate::world::policy_table::TransitionMatrix;
use gridworld::seeds::{WORD, draw};
use gridworld::spelling::Spelled;

/// Prefix of the name of a random trajectory.
pub const PREFIX: &str = "drawn:";
/// Syntax of the name of a random trajectory, for errors and help.
pub const SPELLING: &str = "drawn:KIND[,moves=COUNT][,seed=SEED]";

/// Default seed.
const SEED: u64 = 0;
/// Number of moves by which the default maximum exceeds the minimum to a goal. The default maximum is 8 on Gymnasium's
/// 4x4.
const MORE: usize = 2;
/// Maximum of `moves`.
const MOST_MOVES: usize = 10_000;
/// Maximum number of attempts to sample a trajectory of a kind to which only some samples belong.
const PATIENCE: usize = 10_000;

/// Kind of a random trajectory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, EnumString, IntoStaticStr, VariantNames)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Kind {
    /// A path to a goal with the minimum number of moves.
    Shortest,
    /// A path to a goal with more moves than the minimum.
    Longer,
    /// A path into a hole.
    Falling,
    /// A path into a hole or to a goal.
    Any,
    /// A path into a hole or to a goal that returns to a cell.
    Looping,
    /// An episode of the policy before training.
    Sampled,
}

/// A random trajectory, written as in `drawn:falling,moves=8,seed=7`: without a move into a wall, with intended moves
/// only, and up to the episode's end.
///
/// All words of the kind are equally likely, except for `sampled`, whose moves are sampled from the policy among those
/// without a wall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drawn {
    /// Kind of the trajectory.
    pub kind: Kind,
    /// Maximum number of moves; by default, two more than the minimum to a goal. Longer episodes are sampled again.
    pub moves: Option<usize>,
    /// Seed of the trajectory.
    pub seed: u64,
}

impl Drawn {
    /// Samples the word of the trajectory.
    ///
    /// # Errors
    ///
    /// [`LakeError::NoTrajectory`] if the lake has no word of the kind, or none was found in ten thousand attempts.
    ///
    /// # Examples
    ///
    /// ```
    /// use lake::demonstration::random::Drawn;
    /// use lake::world::map::Map;
    ///
    /// let map = Map::load("4x4")?;
    /// let uniform = vec![[0.25; 4]; map.cells().len()];
    /// let drawn: Drawn = "drawn:shortest,seed=1".parse()?;
    /// assert_eq!(drawn.word(&map, &uniform)?.len(), 6);
    /// # Ok::<(), lake::LakeError>(())
    /// ```
    pub fn word(&self, map: &Map, policy: &TransitionMatrix) -> Result<String, LakeError> {
        let fewest = map.moves_to_goal()[map.start()].unwrap_or(0);
        let most = self.moves.unwrap_or(fewest + MORE);
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(WORD);
        let is_goal = |cell| cell == Cell::Goal;
        let word = match self.kind {
            Kind::Shortest => Words::new(map, most, is_goal).draw(fewest..=most.min(fewest), &mut rng),
            Kind::Longer => Words::new(map, most, is_goal).draw(fewest + 1..=most, &mut rng),
            Kind::Falling => Words::new(map, most, |cell| cell == Cell::Hole).draw(1..=most, &mut rng),
            Kind::Any => Words::new(map, most, Cell::is_terminal).draw(1..=most, &mut rng),
            Kind::Looping => {
                let words = Words::new(map, most, Cell::is_terminal);
                (0..PATIENCE).map_while(|_| words.draw(1..=most, &mut rng)).find(|word| comes_back(map, word))
            }
            Kind::Sampled => (0..PATIENCE).find_map(|_| episode(map, policy, most, &mut rng)),
        };
        let fail = || {
            let falls = self.kind == Kind::Falling && !map.cells().contains(&Cell::Hole);
            let problem = match falls {
                true => format!("{} has no holes", map.name()),
                false => format!("{} has no such word of up to {most} moves", map.name()),
            };
            LakeError::NoTrajectory { trajectory: self.to_string(), problem }
        };
        word.map(|actions| actions.into_iter().map(Action::letter).collect()).ok_or_else(fail)
    }
}

/// Numbers of words, by their number of moves and the cell in which they begin: a table from which all words can be
/// sampled with equal probability.
struct Words<'a, E> {
    map: &'a Map,
    ends: E,
    /// Counts of words by their number of moves. Counts above 2⁵³ are rounded.
    counts: Vec<Vec<f64>>,
}

impl<'a, E: Fn(Cell) -> bool> Words<'a, E> {
    fn new(map: &'a Map, most: usize, ends: E) -> Self {
        let mut words = Self { map, ends, counts: vec![vec![0.0; map.cells().len()]] };
        for moves in 1..=most {
            let count = |cell: usize| match map.cells()[cell].is_terminal() {
                true => 0.0,
                false => Action::ALL.map(|action| words.after(moves, cell, action)).iter().sum(),
            };
            let counts = (0..map.cells().len()).map(count).collect();
            words.counts.push(counts);
        }
        words
    }

    /// Number of words of this many moves from a cell that begin with an action.
    fn after(&self, moves: usize, cell: usize, action: Action) -> f64 {
        let next = self.map.intended(cell, action);
        let kind = self.map.cells()[next];
        match kind.is_terminal() {
            _ if next == cell => 0.0,
            true => f64::from(moves == 1 && (self.ends)(kind)),
            false => self.counts[moves - 1][next],
        }
    }

    /// Samples a word whose number of moves is in the range; `None` if there is no such word.
    fn draw(&self, lengths: std::ops::RangeInclusive<usize>, rng: &mut ChaCha8Rng) -> Option<Vec<Action>> {
        let mut cell = self.map.start();
        let lengths: Vec<_> = lengths.filter(|&moves| moves < self.counts.len()).collect();
        let weights: Vec<_> = lengths.iter().map(|&moves| self.counts[moves][cell]).collect();
        let moves = lengths[pick(&weights, rng)?];
        (1..=moves)
            .rev()
            .map(|left| {
                let action = Action::ALL[pick(&Action::ALL.map(|action| self.after(left, cell, action)), rng)?];
                cell = self.map.intended(cell, action);
                Some(action)
            })
            .collect()
    }
}

/// Samples an episode with moves that no wall stops; `None` if it takes too many.
fn episode(map: &Map, policy: &TransitionMatrix, most: usize, rng: &mut ChaCha8Rng) -> Option<Vec<Action>> {
    let (mut cell, mut actions) = (map.start(), Vec::new());
    while !map.cells()[cell].is_terminal() {
        if actions.len() == most {
            return None;
        }
        let open: [f64; ACTIONS] =
            std::array::from_fn(|action| match map.intended(cell, Action::ALL[action]) == cell {
                true => 0.0,
                false => policy[cell][action],
            });
        let action = Action::ALL[pick(&open, rng)?];
        actions.push(action);
        cell = map.intended(cell, action);
    }
    Some(actions)
}

/// Samples an index with probabilities in proportion to the weights; `None` if all are 0.
fn pick(weights: &[f64], rng: &mut ChaCha8Rng) -> Option<usize> {
    draw(weights, weights.iter().sum(), rng)
}

fn comes_back(map: &Map, actions: &[Action]) -> bool {
    let mut seen = vec![map.start()];
    actions.iter().any(|&action| {
        let next = map.intended(seen[seen.len() - 1], action);
        let before = seen.contains(&next);
        seen.push(next);
        before
    })
}

impl fmt::Display for Drawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", <&str>::from(self.kind))?;
        self.moves.map_or(Ok(()), |moves| write!(f, ",moves={moves}"))?;
        write!(f, ",seed={}", self.seed)
    }
}

impl FromStr for Drawn {
    type Err = LakeError;

    fn from_str(name: &str) -> Result<Self, LakeError> {
        let spelled = Spelled::new("trajectory drawn", PREFIX, name)?;
        let kinds = format!("one of {}", Kind::VARIANTS.join(", "));
        let kind = spelled.head.parse().map_err(|_| spelled.fail("kind", &kinds, spelled.head))?;
        let mut drawn = Self { kind, moves: None, seed: SEED };
        for &(field, value) in &spelled.fields {
            match field {
                "moves" => {
                    let moves = value.parse().ok().filter(|moves| (1..=MOST_MOVES).contains(moves));
                    let allowed = format!("1 to {MOST_MOVES}");
                    drawn.moves = Some(moves.ok_or_else(|| spelled.fail(field, &allowed, value))?);
                }
                "seed" => drawn.seed = spelled.seed(value)?,
                _ => return Err(spelled.fail(field, &format!("moves or seed, as in {SPELLING}"), value).into()),
            }
        }
        Ok(drawn)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn word(map: &Map, name: &str) -> Result<String, LakeError> {
        let uniform = vec![[0.25; ACTIONS]; map.cells().len()];
        name.parse::<Drawn>()?.word(map, &uniform)
    }

    /// All words of up to 8 moves, by exhaustive search.
    fn all_words(map: &Map) -> Vec<String> {
        let mut open = vec![(map.start(), String::new())];
        let mut ended = Vec::new();
        while let Some((cell, word)) = open.pop() {
            for action in Action::ALL {
                let next = map.intended(cell, action);
                let word = format!("{word}{}", action.letter());
                match map.cells()[next].is_terminal() {
                    _ if next == cell => {}
                    true => ended.push(word),
                    false if word.len() < 8 => open.push((next, word)),
                    false => {}
                }
            }
        }
        ended
    }

    #[test]
    fn every_word_of_a_kind_is_drawn_and_none_more_often_than_another() {
        let map = Map::load("4x4").unwrap();
        let all = all_words(&map);
        let ends_in = |word: &str, kind: Cell| {
            let walked = map.walk(word).unwrap();
            map.cells()[map.intended(walked.cells[walked.cells.len() - 1], walked.actions[walked.actions.len() - 1])]
                == kind
        };
        for (kind, belongs) in [
            ("shortest", &(|word: &str| ends_in(word, Cell::Goal) && word.len() == 6) as &dyn Fn(&str) -> bool),
            ("longer", &|word: &str| ends_in(word, Cell::Goal) && word.len() > 6),
            ("falling,moves=5", &|word: &str| ends_in(word, Cell::Hole) && word.len() <= 5),
        ] {
            let expected: Vec<_> = all.iter().filter(|word| belongs(word)).collect();
            let draws = 400 * expected.len();
            let mut counts = BTreeMap::new();
            for seed in 0..draws {
                *counts.entry(word(&map, &format!("drawn:{kind},seed={seed}")).unwrap()).or_insert(0) += 1;
            }
            assert_eq!(counts.len(), expected.len(), "{kind}");
            assert!(expected.iter().all(|word| counts.contains_key(*word)), "{kind}");
            // Five standard deviations of a count whose mean is 400.
            assert!(counts.values().all(|&count: &i32| (count - 400).abs() < 100), "{kind}: {counts:?}");
        }
    }

    #[test]
    fn words_of_the_other_kinds_keep_what_they_promise() {
        let map = Map::load("8x8").unwrap();
        for seed in 0..200 {
            let draw = |kind: &str| word(&map, &format!("drawn:{kind},seed={seed}")).unwrap();
            let looping = map.walk(&draw("looping")).unwrap();
            assert!(comes_back(&map, &looping.actions) && looping.actions.len() <= 16);
            assert!((15..=16).contains(&draw("longer").len()));
            assert!(map.walk(&draw("any")).is_ok() && map.walk(&draw("sampled,moves=40")).is_ok());
        }
    }

    #[test]
    fn an_episode_follows_the_policy() {
        let map = Map::load("4x4").unwrap();
        let mut policy = vec![[0.25; ACTIONS]; 16];
        // Down, then right into the hole.
        (policy[0], policy[4]) = ([0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]);
        let sampled: Drawn = "drawn:sampled".parse().unwrap();
        assert_eq!(sampled.word(&map, &policy).unwrap(), "DR");
    }

    #[test]
    fn what_cannot_be_drawn_is_an_error_that_names_the_field() {
        let map = Map::load("4x4").unwrap();
        for (name, texts) in [
            ("drawn:straight", ["trajectory drawn.kind", "shortest, longer, falling", "\"straight\""]),
            ("drawn:any,moves=0", ["trajectory drawn.moves", "1 to", "\"0\""]),
            ("drawn:any,seed=x", ["trajectory drawn.seed", "whole number", "\"x\""]),
            ("drawn:any,colour=x", ["trajectory drawn.colour", "moves or seed", "\"x\""]),
            ("drawn:shortest,moves=5", ["trajectory drawn:shortest", "4x4 has no such word", "5 moves"]),
        ] {
            let error = word(&map, name).unwrap_err().to_string();
            assert!(texts.iter().all(|text| error.contains(text)), "{name}: {error}");
        }
    }
}
