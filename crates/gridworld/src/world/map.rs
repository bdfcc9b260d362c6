//! Lakes as data: rows of S (start), F (frozen), H (hole) and G (goal), with named trajectories.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

use recipe::refusal::{did_you_mean, nearest};
use serde::Deserialize;

use crate::error::GridError;
use crate::world::generate::{Generated, PREFIX, SPELLING};

/// The maps that come with the program.
pub const EMBEDDED: &[(&str, &str)] =
    &[("4x4", include_str!("../../envs/4x4.toml")), ("8x8", include_str!("../../envs/8x8.toml"))];

/// Actions in every cell.
pub const ACTIONS: usize = 4;

/// Maximum number of cells of a map: 5000 x 5000, which are solved in 2 GB.
pub const MOST_CELLS: usize = 25_000_000;

/// A move, numbered as in Gymnasium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Action {
    /// Move to the west.
    Left,
    /// Move to the south.
    Down,
    /// Move to the east.
    Right,
    /// Move to the north.
    Up,
}

/// Kind of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Cell {
    /// Start of every episode.
    Start,
    /// Safe ice.
    Frozen,
    /// A hole, which ends the episode; with Gymnasium's rewards, the reward is 0.
    Hole,
    /// A goal, which ends the episode; with Gymnasium's rewards, the reward is 1.
    Goal,
}

/// A validated lake: one start, at least one reachable goal, rows of equal length, and valid trajectories.
#[derive(Clone, Debug, PartialEq)]
pub struct Map {
    name: String,
    summary: String,
    width: usize,
    cells: Vec<Cell>,
    start: usize,
    trajectories: BTreeMap<String, String>,
}

/// A trajectory: a word with the cells that it visits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trajectory {
    /// Word over L, D, R and U.
    pub word: String,
    /// Cell before each move.
    pub cells: Vec<usize>,
    /// Action of each move.
    pub actions: Vec<Action>,
}

fn unknown(name: &str) -> GridError {
    let names: Vec<_> = EMBEDDED.iter().map(|(name, _)| *name).collect();
    let problem = format!("no such map or file; expected {}, {SPELLING}, or a file", names.join(", "));
    let generated = format!("{PREFIX}{name}");
    let sized = generated.parse::<Generated>().is_ok().then_some(generated.as_str());
    let suggested = match names.iter().find(|known| known.eq_ignore_ascii_case(name)) {
        None if sized.is_some() => nearest(&generated, sized),
        _ => nearest(name, names),
    };
    GridError::Map { map: name.to_owned(), problem: problem + &did_you_mean(&suggested) }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MapFile {
    #[serde(default)]
    summary: String,
    #[serde(alias = "desc")]
    rows: Vec<Row>,
    #[serde(default)]
    trajectories: BTreeMap<String, String>,
}

/// A row as text or letter by letter: Gymnasium's `desc` may be a list of either.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a row of letters")]
enum Row {
    Text(String),
    Letters(Vec<String>),
}

impl Action {
    /// All four actions, in Gymnasium's order.
    pub const ALL: [Action; ACTIONS] = [Action::Left, Action::Down, Action::Right, Action::Up];

    /// Letter of the action: L, D, R or U.
    pub fn letter(self) -> char {
        ['L', 'D', 'R', 'U'][self as usize]
    }

    /// Parses the letter of an action.
    pub fn from_letter(letter: char) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.letter() == letter)
    }

    /// Name of the action: left, down, right or up.
    pub fn word(self) -> &'static str {
        ["left", "down", "right", "up"][self as usize]
    }

    /// Arrow of the action: ←, ↓, → or ↑.
    pub fn arrow(self) -> char {
        ['←', '↓', '→', '↑'][self as usize]
    }
}

impl Cell {
    /// Whether an episode ends in this cell.
    pub fn is_terminal(self) -> bool {
        matches!(self, Cell::Hole | Cell::Goal)
    }

    fn letter(self) -> char {
        match self {
            Cell::Start => 'S',
            Cell::Frozen => 'F',
            Cell::Hole => 'H',
            Cell::Goal => 'G',
        }
    }
}

impl Map {
    /// Loads a map: by its name, which may describe a generated lake, from rows (`["SFF", "HFG"]`), or from a file.
    ///
    /// # Errors
    ///
    /// [`GridError::File`], [`GridError::Refused`], or [`GridError::Map`] and [`GridError::Trajectory`] as
    /// [`Map::parse`].
    pub fn load(name_or_path: &str) -> Result<Self, GridError> {
        if let Some((name, text)) = EMBEDDED.iter().find(|(name, _)| *name == name_or_path) {
            return Self::parse(name, text);
        }
        if name_or_path.starts_with(PREFIX) {
            return Ok(Self::generated(&name_or_path.parse()?));
        }
        if name_or_path.starts_with('[') {
            return Self::parse(name_or_path, name_or_path);
        }
        let path = Path::new(name_or_path);
        match std::fs::read_to_string(path) {
            // Some programs write a byte order mark at the beginning of a text.
            Ok(text) => Self::parse(name_or_path, text.strip_prefix('\u{feff}').unwrap_or(&text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(unknown(name_or_path)),
            Err(source) => Err(GridError::File { path: path.to_owned(), source }),
        }
    }

    /// Makes a random lake.
    pub fn generated(lake: &Generated) -> Self {
        let summary = "a random lake that can be crossed".to_owned();
        let (name, cells) = (lake.to_string(), lake.cells());
        Self { name, summary, width: lake.width, cells, start: 0, trajectories: BTreeMap::new() }
    }

    /// Parses a map from text in one of three forms.
    ///
    /// 1. TOML: `rows`, and optionally `summary` and `[trajectories]`.
    /// 2. Lines of letters and nothing else.
    /// 3. A list in brackets, as Gymnasium's `desc`: of rows in quotes, or of lists of letters in quotes. Unlike there,
    ///    exactly one letter is S, some G can be reached, and other letters than S, F, H and G are errors.
    ///
    /// # Errors
    ///
    /// [`GridError::Map`] for other TOML and for rows that are no lake; [`GridError::Trajectory`]
    /// for a named trajectory that cannot be walked.
    pub fn parse(name: &str, text: &str) -> Result<Self, GridError> {
        let parse = |problem: String| GridError::Map { map: name.to_owned(), problem };
        let text = text.trim();
        if !text.is_empty() && text.chars().all(|letter| letter.is_ascii_uppercase() || letter.is_ascii_whitespace()) {
            return Self::from_rows(name, &text.lines().map(|row| row.trim_end().to_owned()).collect::<Vec<_>>());
        }
        // A list in brackets is parsed as TOML, whichever quotes it has.
        let list = text.strip_prefix('[').is_some_and(|rest| rest.trim_start().starts_with(['"', '\'', '[']));
        let text = if list { Cow::Owned(format!("rows = {text}")) } else { Cow::Borrowed(text) };
        let toml = toml::Deserializer::parse(&text).map_err(|error| parse(error.to_string()))?;
        let file: MapFile = serde_path_to_error::deserialize(toml).map_err(|error| parse(error.to_string()))?;
        let rows = file.rows.into_iter().map(|row| match row {
            Row::Text(text) => text,
            Row::Letters(letters) => letters.concat(),
        });
        let map = Self::from_rows(name, &rows.collect::<Vec<_>>())?;
        let map = Self { summary: file.summary, trajectories: file.trajectories, ..map };
        for word in map.trajectories.values() {
            map.walk(word)?;
        }
        Ok(map)
    }

    fn from_rows(name: &str, rows: &[String]) -> Result<Self, GridError> {
        let fail = |problem: String| GridError::Map { map: name.to_owned(), problem };
        let width = rows.first().map_or(0, |row| row.chars().count());
        let mut cells = Vec::new();
        for (number, row) in rows.iter().enumerate() {
            let letters = row.chars().count();
            if letters != width {
                return Err(fail(format!("rows[{number}]: expected {width} letters as in rows[0], got {letters}")));
            }
            for (column, letter) in row.chars().enumerate() {
                cells.push(match letter {
                    'S' => Cell::Start,
                    'F' => Cell::Frozen,
                    'H' => Cell::Hole,
                    'G' => Cell::Goal,
                    _ => {
                        let place = format!("rows[{number}], letter {column}");
                        return Err(fail(format!("{place}: expected one of S, F, H, G, got {letter:?}")));
                    }
                });
            }
        }
        if cells.len() > MOST_CELLS {
            return Err(fail(format!("rows: expected at most {MOST_CELLS} cells, got {}", cells.len())));
        }
        let starts = cells.iter().filter(|&&cell| cell == Cell::Start).count();
        let Some(start) = cells.iter().position(|&cell| cell == Cell::Start).filter(|_| starts == 1) else {
            return Err(fail(format!("rows: expected exactly one S, the start, got {starts}")));
        };
        if !cells.contains(&Cell::Goal) {
            return Err(fail("rows: expected at least one G, the goal, got none".to_owned()));
        }
        let (summary, trajectories) = (String::new(), BTreeMap::new());
        let map = Self { name: name.to_owned(), summary, width, cells, start, trajectories };
        if map.moves_to_goal()[start].is_none() {
            return Err(fail("rows: expected a way from S to a G, but holes cut it off".to_owned()));
        }
        Ok(map)
    }

    /// Name or path of the map.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// One-line description of the map's origin.
    pub fn summary(&self) -> &str {
        &self.summary
    }

    /// Number of cells in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of rows.
    pub fn height(&self) -> usize {
        self.cells.len() / self.width
    }

    /// Cells, row by row.
    pub fn cells(&self) -> &[Cell] {
        &self.cells
    }

    /// Index of the start cell.
    pub fn start(&self) -> usize {
        self.start
    }

    /// Rows as letters.
    pub fn rows(&self) -> Vec<String> {
        self.cells.chunks(self.width).map(|row| row.iter().map(|cell| cell.letter()).collect()).collect()
    }

    /// Words by name, as in the map's file.
    pub fn trajectories(&self) -> &BTreeMap<String, String> {
        &self.trajectories
    }

    /// Cells in which an action matters.
    pub fn non_terminal(&self) -> Vec<usize> {
        (0..self.cells.len()).filter(|&cell| !self.cells[cell].is_terminal()).collect()
    }

    /// Cell that the intended move leads to: the neighbour, or the cell itself at a wall and in terminal cells.
    pub fn intended(&self, cell: usize, action: Action) -> usize {
        if self.cells[cell].is_terminal() { cell } else { self.neighbour(cell, action) }
    }

    fn neighbour(&self, cell: usize, action: Action) -> usize {
        let (row, column) = (cell / self.width, cell % self.width);
        match action {
            Action::Left if column > 0 => cell - 1,
            Action::Down if row + 1 < self.cells.len() / self.width => cell + self.width,
            Action::Right if column + 1 < self.width => cell + 1,
            Action::Up if row > 0 => cell - self.width,
            _ => cell,
        }
    }

    /// Walks a word over L, D, R and U from the start, by intended moves.
    ///
    /// # Errors
    ///
    /// [`GridError::Trajectory`] naming the step: an unknown letter, a move into a wall, a move after a hole or the
    /// goal.
    pub fn walk(&self, word: &str) -> Result<Trajectory, GridError> {
        let fail = |problem: String| GridError::Trajectory { trajectory: format!("\"{word}\""), problem };
        if word.is_empty() {
            return Err(fail("expected at least one move, got none".to_owned()));
        }
        let (mut cell, mut cells, mut actions) = (self.start, Vec::new(), Vec::new());
        for (step, letter) in (1..).zip(word.chars()) {
            let Some(action) = Action::from_letter(letter) else {
                return Err(fail(format!("step {step}: expected one of L, D, R, U, got {letter:?}")));
            };
            let next = self.intended(cell, action);
            if self.cells[cell].is_terminal() {
                let end = if self.cells[cell] == Cell::Hole { "a hole" } else { "the goal" };
                return Err(fail(format!("step {step}, {letter}: the step before ended the episode in {end}")));
            }
            if next == cell {
                return Err(fail(format!("step {step}, {letter}: moves into a wall")));
            }
            cells.push(cell);
            actions.push(action);
            cell = next;
        }
        Ok(Trajectory { word: word.to_owned(), cells, actions })
    }

    /// Minimum number of intended moves from each cell to a goal; `None` if holes cut it off.
    pub fn moves_to_goal(&self) -> Vec<Option<usize>> {
        let mut moves = vec![None; self.cells.len()];
        let mut queue: VecDeque<_> = (0..self.cells.len()).filter(|&cell| self.cells[cell] == Cell::Goal).collect();
        queue.iter().for_each(|&goal| moves[goal] = Some(0));
        // Moves between non-terminal cells can be reversed, so the search may run backwards from the goals.
        while let Some(cell) = queue.pop_front() {
            for action in Action::ALL {
                let neighbour = self.neighbour(cell, action);
                if !self.cells[neighbour].is_terminal() && moves[neighbour].is_none() {
                    moves[neighbour] = moves[cell].map(|moves| moves + 1);
                    queue.push_back(neighbour);
                }
            }
        }
        moves
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_rows_are_the_same_lake_in_every_form() {
        let expected = ["SFFF", "FHFH", "FFFH", "HFFG"];
        for text in [
            "rows = [\"SFFF\", \"FHFH\", \"FFFH\", \"HFFG\"]",
            "desc = [\"SFFF\", \"FHFH\", \"FFFH\", \"HFFG\"]",
            "SFFF\nFHFH\nFFFH\nHFFG",
            "\nSFFF\r\nFHFH\r\nFFFH\r\nHFFG\r\n",
            "[\"SFFF\", \"FHFH\", \"FFFH\", \"HFFG\"]\n",
            "[\n  'SFFF',\n  'FHFH',\n  'FFFH',\n  'HFFG',\n]",
            "[['S', 'F', 'F', 'F'], ['F', 'H', 'F', 'H'], ['F', 'F', 'F', 'H'], ['H', 'F', 'F', 'G']]",
        ] {
            assert_eq!(Map::parse("test", text).unwrap().rows(), expected, "{text}");
        }
        assert_eq!(Map::load("['SF', 'HG']").unwrap().rows(), ["SF", "HG"]);
    }

    #[test]
    fn wrong_letters_are_named_by_their_place_in_every_form() {
        for (text, expected) in [
            ("SFF\nFXG", "rows[1], letter 1: expected one of S, F, H, G, got 'X'"),
            ("SFF\nFG", "rows[1]: expected 3 letters as in rows[0], got 2"),
            ("['SFF', 'FxG']", "rows[1], letter 1: expected one of S, F, H, G, got 'x'"),
            ("['SFF', 3]", "a row of letters"),
            ("", "rows"),
        ] {
            let error = Map::parse("test", text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
