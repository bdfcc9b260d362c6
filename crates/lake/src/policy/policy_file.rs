//! Policies as files with one row per non-terminal cell, in several formats.
//!
//! | a file | has |
//! |---|---|
//! | CSV (`.csv`) | the columns `cell`, `left`, `down`, `right`, `up`: probabilities |
//! | | or `cell`, `log_left`, `log_down`, `log_right`, `log_up`: their logarithms, nats; `-inf` for what is never done |
//! | JSON lines (`.jsonl`, `.json`) | a line `{"cell": 0, "left": 0.25, ...}` a cell, with the same fields |
//! | | or what `lm score` answers to `evaluation.jsonl` of `lake export`: four scored responses a line |
//!
//! Cells are numbered row by row from 0. Terminal ones need no row, as nothing is done there, and a row of one is
//! ignored. Probabilities are taken as they are, so that a policy which the lake wrote has the same figures to the last
//! bit, unless they are to be normalised. Scores are normalised over the four actions.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::error::LakeError;
use crate::world::map::{ACTIONS, Map};
use crate::world::policy_table::{TransitionMatrix, uniform_policy};

/// Maximum deviation of a row's sum from 1, which covers the rounding to six digits or to 32 bits.
pub const TOLERANCE: f64 = 1e-5;
/// The columns of a table of probabilities, the actions in Gymnasium's order.
const COLUMNS: [&str; 1 + ACTIONS] = ["cell", "left", "down", "right", "up"];

/// Treatment of the probabilities of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sums {
    /// The probabilities are taken unchanged; they must sum to 1 within [`TOLERANCE`].
    One,
    /// The probabilities are divided by their sum.
    Normalised,
}

/// A row of a file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    cell: usize,
    left: Option<f64>,
    down: Option<f64>,
    right: Option<f64>,
    up: Option<f64>,
    log_left: Option<f64>,
    log_down: Option<f64>,
    log_right: Option<f64>,
    log_up: Option<f64>,
}

/// Output of `lm score` for a line with four responses.
#[derive(Deserialize)]
struct Scores {
    completions: Vec<Score>,
}

/// A scored response.
#[derive(Deserialize)]
struct Score {
    response_ids: Vec<u32>,
    sum: f64,
}

/// Description of an error in a file.
type Problem = String;

/// A policy's table as CSV.
///
/// # Errors
///
/// [`LakeError::Policy`] where it cannot be spelled.
pub fn write(map: &Map, policy: &TransitionMatrix) -> Result<Vec<u8>, LakeError> {
    let spell = || {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(COLUMNS)?;
        for cell in map.non_terminal() {
            let numbers = policy[cell].map(|probability| probability.to_string());
            writer.write_record(std::iter::once(cell.to_string()).chain(numbers))?;
        }
        writer.into_inner().map_err(|error| csv::Error::from(error.into_error()))
    };
    spell().map_err(|error| fail(Path::new("CSV"), error.to_string()))
}

/// The policy in a file, with its probabilities unchanged; rows of terminal cells are uniform.
///
/// # Errors
///
/// As [`read_as`].
pub fn read(map: &Map, path: &Path) -> Result<TransitionMatrix, LakeError> {
    read_as(map, path, Sums::One)
}

/// The policy in a file; rows of terminal cells are uniform.
///
/// # Errors
///
/// [`LakeError::File`] for a file that cannot be read, and [`LakeError::Policy`] for one that does not hold one row of
/// four probabilities for each non-terminal cell of the map.
pub fn read_as(map: &Map, path: &Path, sums: Sums) -> Result<TransitionMatrix, LakeError> {
    let text = std::fs::read_to_string(path).map_err(|source| LakeError::File { path: path.to_owned(), source })?;
    // Some programs write a byte order mark at the beginning of a text.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let policy = match path.extension().and_then(|extension| extension.to_str()) {
        Some("csv") => table(map, csv_rows(text), sums),
        Some("jsonl" | "json") if is_scored(text) => scored(map, text),
        Some("jsonl" | "json") => table(map, json_rows(text), sums),
        other => Err(format!("expected a name that ends in .csv, .jsonl or .json, got {}", other.unwrap_or("none"))),
    };
    policy.map_err(|problem| fail(path, problem))
}

fn fail(path: &Path, problem: Problem) -> LakeError {
    LakeError::Policy { path: path.to_owned(), problem }
}

fn csv_rows(text: &str) -> Vec<(u64, Result<Row, Problem>)> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
    // A malformed header is an error of the first record too.
    let headers = reader.headers().cloned().ok();
    let row = |record: Result<csv::StringRecord, csv::Error>| {
        let place = match &record {
            Ok(record) => record.position().map(csv::Position::line),
            Err(error) => error.position().map(csv::Position::line),
        };
        let row = record.and_then(|record| record.deserialize(headers.as_ref()));
        (place.unwrap_or(1), row.map_err(reason))
    };
    reader.records().map(row).collect()
}

fn json_rows(text: &str) -> Vec<(u64, Result<Row, Problem>)> {
    let row = |line: &str| strict_json::from_slice_with_path(line.as_bytes()).map_err(|error| error.to_string());
    lines(text).map(|(number, line)| (number, row(line))).collect()
}

/// Description of an error in a record, without its position.
fn reason(error: csv::Error) -> Problem {
    match error.kind() {
        csv::ErrorKind::Deserialize { err, .. } => err.to_string(),
        _ => error.to_string(),
    }
}

/// Lines with their numbers, from 1, without empty ones.
fn lines(text: &str) -> impl Iterator<Item = (u64, &str)> {
    (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty())
}

fn is_scored(text: &str) -> bool {
    let first = lines(text).next().and_then(|(_, line)| serde_json::from_str::<Value>(line).ok());
    first.is_some_and(|line| line.get("completions").is_some())
}

/// Policy of a table with rows in any order.
fn table(map: &Map, rows: Vec<(u64, Result<Row, Problem>)>, sums: Sums) -> Result<TransitionMatrix, Problem> {
    let mut policy = uniform_policy(map);
    let mut lines: Vec<Option<u64>> = vec![None; map.cells().len()];
    for (number, row) in rows {
        let at = |problem: Problem| format!("line {number}: {problem}");
        let row = row.map_err(at)?;
        let cell = row.cell;
        let Some(kind) = map.cells().get(cell) else {
            return Err(at(format!("cell: expected a cell below {}, got {cell}", map.cells().len())));
        };
        if kind.is_terminal() {
            continue;
        }
        if let Some(before) = lines[cell].replace(number) {
            return Err(at(format!("cell: expected each once, got {cell} as in line {before}")));
        }
        policy[cell] = row.probabilities(sums).map_err(at)?;
    }
    match map.non_terminal().into_iter().find(|&cell| lines[cell].is_none()) {
        Some(missing) => Err(format!("cell {missing}: expected a row, got none")),
        None => Ok(policy),
    }
}

impl Row {
    fn probabilities(&self, sums: Sums) -> Result<[f64; ACTIONS], Problem> {
        let plain = [self.left, self.down, self.right, self.up];
        let logarithms = [self.log_left, self.log_down, self.log_right, self.log_up];
        let given = |numbers: &[Option<f64>]| numbers.iter().flatten().count();
        let (given, row, prefix) = match (given(&plain), given(&logarithms)) {
            (ACTIONS, 0) => {
                let plain = plain.map(Option::unwrap_or_default);
                (plain, plain, "")
            }
            (0, ACTIONS) => {
                let logarithms = logarithms.map(Option::unwrap_or_default);
                (logarithms, logarithms.map(f64::exp), "log_")
            }
            _ => {
                let given = [plain, logarithms].concat();
                let names = COLUMNS[1..].iter().map(|name| (*name).to_owned());
                let names = names.chain(COLUMNS[1..].iter().map(|name| format!("log_{name}")));
                let named: Vec<_> = names.zip(given).filter_map(|(name, number)| number.map(|_| name)).collect();
                let got = if named.is_empty() { "none".to_owned() } else { named.join(", ") };
                return Err(format!("expected left, down, right and up, or each with log_ before it, got {got}"));
            }
        };
        if sums == Sums::Normalised {
            return normalised_row(prefix, given, row);
        }
        for ((name, given), probability) in COLUMNS[1..].iter().zip(given).zip(row) {
            if !(0.0..=1.0 + TOLERANCE).contains(&probability) {
                let what = if prefix.is_empty() { "a probability from 0 to 1" } else { "the logarithm of one" };
                return Err(format!("{prefix}{name}: expected {what}, got {given}"));
            }
        }
        let sum: f64 = row.iter().sum();
        match (sum - 1.0).abs() <= TOLERANCE {
            true => Ok(row),
            false => Err(format!(
                "expected probabilities that sum to 1 within {TOLERANCE}, got {sum}; --normalise divides each row by its sum"
            )),
        }
    }
}

/// Divides a row by its sum; `given` are the numbers in the file, which are logarithms if they have a prefix.
fn normalised_row(prefix: &str, given: [f64; ACTIONS], row: [f64; ACTIONS]) -> Result<[f64; ACTIONS], Problem> {
    let is_weight =
        |number: &f64| if prefix.is_empty() { (0.0..f64::INFINITY).contains(number) } else { *number < f64::INFINITY };
    if let Some((name, given)) = COLUMNS[1..].iter().zip(given).find(|(_, number)| !is_weight(number)) {
        let what = if prefix.is_empty() { "a number from 0" } else { "the logarithm of one" };
        return Err(format!("{prefix}{name}: expected {what}, got {given}"));
    }
    let row = match prefix {
        "" => row.map(|weight| weight / row.iter().sum::<f64>()),
        _ => normalised(given),
    };
    match row.iter().all(|probability| probability.is_finite()) {
        true => Ok(row),
        false => Err("expected at least one action that is ever taken, got none".to_owned()),
    }
}

/// Policy of scores: one line per non-terminal cell in order, one response per action.
fn scored(map: &Map, text: &str) -> Result<TransitionMatrix, Problem> {
    let mut policy = uniform_policy(map);
    let cells = map.non_terminal();
    let count = lines(text).count();
    if count != cells.len() {
        return Err(format!("expected {} lines of scores, one for each non-terminal cell, got {count}", cells.len()));
    }
    let mut answers: Option<[Vec<u32>; ACTIONS]> = None;
    for (cell, (number, line)) in cells.into_iter().zip(lines(text)) {
        let at = |problem: Problem| format!("line {number}: {problem}");
        let scores: Scores =
            strict_json::from_slice_with_path(line.as_bytes()).map_err(|error| at(error.to_string()))?;
        let given = scores.completions.len();
        let Ok(scores) = <[Score; ACTIONS]>::try_from(scores.completions) else {
            return Err(at(format!("completions: expected {ACTIONS}, one for each action, got {given}")));
        };
        let sums = scores.each_ref().map(|score| score.sum);
        if let Some(place) = sums.iter().position(|sum| !(sum.is_finite() && *sum <= 0.0)) {
            let problem = format!("expected the logarithm of a probability, got {}", sums[place]);
            return Err(at(format!("completions[{place}].sum: {problem}")));
        }
        // An answer has the same tokens in every cell; others belong to another file or another order.
        let own = scores.map(|score| score.response_ids);
        let first = answers.get_or_insert_with(|| own.clone());
        if let Some(place) = (0..ACTIONS).find(|&place| own[place] != first[place]) {
            let list = |ids: &[u32]| ids.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
            let (expected, got) = (list(&first[place]), list(&own[place]));
            let problem = format!("expected [{expected}] as in the first line, got [{got}]");
            return Err(at(format!("completions[{place}].response_ids: {problem}")));
        }
        policy[cell] = normalised(sums);
    }
    Ok(policy)
}

/// Softmax of log-probabilities.
fn normalised(log_prob: [f64; ACTIONS]) -> [f64; ACTIONS] {
    let most = log_prob.into_iter().fold(f64::NEG_INFINITY, f64::max);
    let weights = log_prob.map(|x| (x - most).exp());
    let sum: f64 = weights.iter().sum();
    weights.map(|weight| weight / sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_normalised_over_the_actions_however_unlikely_they_are() {
        let row = normalised([-1000.0, -1000.0, -1000.0 + 2_f64.ln(), -3000.0]);
        for (ours, expected) in row.into_iter().zip([0.25, 0.25, 0.5, 0.0]) {
            assert!((ours - expected).abs() < 1e-12, "{row:?}");
        }
    }
}
