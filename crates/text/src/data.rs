//! Data sets as JSON lines, JSON lists or Parquet: TRL's two conventions, the layouts of UltraChat and UltraFeedback,
//! and token ids.
//!
//! | fields | are | where |
//! |---|---|---|
//! | `prompt`, `completion` | both text, or both lists of turns | a demonstration |
//! | `messages` | a list of turns | a demonstration, or one for each of the assistant's turns |
//! | `prompt`, `chosen`, `rejected` | all text, or all lists of turns | a preference |
//! | `chosen`, `rejected` | lists of turns that begin alike | a preference; the prompt is what they share |
//! | `prompt`, `completion`, `label` | as in a demonstration; true or false | a labelled response |
//! | `prompt`, `completions`, `rewards` | a list of texts or of lists of turns; as many rewards | a group |
//! | `prompt_ids`, `response_ids` | lists of token ids | a demonstration, or with `label` a labelled response |
//! | `prompt_ids`, `chosen_ids`, `rejected_ids` | lists of token ids | a preference |
//! | `prompt_ids`, `completions_ids`, `rewards` | a list of token ids, a list of such lists; as many rewards | a group |
//!
//! A reward is a number, or a list of numbers, of the same length for each response, in which null means no reward. A
//! group may also contain other lists with one entry for each response, and needs no `rewards` if it has `advantage`:
//!
//! | field | an entry is |
//! |---|---|
//! | `advantage` | a number; beside `completions_ids`, also a list of a number for each token |
//! | `behaviour_log_prob` | beside `completions_ids`: a list of log π of each token, nats, as the trainer computes it |
//! | `rollout_log_prob` | the same, as the sampler reported it |
//!
//! π is the policy that generated the responses. If a method needs `behaviour_log_prob` and a group lacks it, the
//! policy at the beginning of the stage is taken as the behaviour policy. A response that is truncated to `max_length`
//! loses the numbers of the removed tokens.
//!
//! A turn is `{"role": ..., "content": ...}`. If the lists are whole conversations, `prompt` may repeat the first
//! user's turn as text, and a preference may repeat `chosen` as `messages`, as data sets on the hub do; a repetition
//! that differs is rejected. Any other field is rejected, because an ignored field may be a misspelled one. A row of
//! Parquet has the fields of a line, and a null field counts as absent. Every error names the file and the line, the
//! record of the list, or the row.
//!
//! Files are `.jsonl`, `.json` (a list, or lines), both also compressed (`.jsonl.gz`, `.json.gz`), and `.parquet`. A
//! byte order mark at the beginning and blank lines at the end are skipped.

mod field;
pub mod instruction;
mod layout;
pub mod prompt;
mod row;
mod source;
pub mod unusable;

use std::ops::ControlFlow;
use std::path::Path;

use enumset::EnumSet;
use objective::{Constant, TokenConstants};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use strum::VariantNames;

use self::source::{Format, Taken};
use crate::error::TextError;
use crate::example::{Encoder, Example, Passage};

pub use self::source::regular;

/// A training record, whose parts are passages before encoding and examples afterwards.
#[derive(Clone, Debug, PartialEq)]
pub enum Record<T> {
    /// One response to a prompt.
    Demonstration(T),
    /// Two responses to one prompt.
    Preference {
        /// The preferred response.
        chosen: T,
        /// The less preferred response.
        rejected: T,
    },
    /// One response to a prompt, with a label.
    Labelled {
        /// Response with the label.
        response: T,
        /// Whether training makes the response more probable or less.
        desirable: bool,
    },
    /// Several responses to one prompt, each with its known columns: rewards, numbers for each token, and one advantage
    /// for the response or one for each token. Unknown columns are empty.
    Group(Vec<(T, TokenConstants)>),
}

impl<T> Record<T> {
    /// Converts each part of the record.
    ///
    /// # Errors
    ///
    /// The first error of `convert`.
    pub fn try_map<U, E>(&self, mut convert: impl FnMut(&T) -> Result<U, E>) -> Result<Record<U>, E> {
        Ok(match self {
            Self::Demonstration(part) => Record::Demonstration(convert(part)?),
            Self::Preference { chosen, rejected } => {
                Record::Preference { chosen: convert(chosen)?, rejected: convert(rejected)? }
            }
            Self::Labelled { response, desirable } => {
                Record::Labelled { response: convert(response)?, desirable: *desirable }
            }
            Self::Group(parts) => {
                let parts = parts.iter().map(|(part, known)| Ok((convert(part)?, known.clone())));
                Record::Group(parts.collect::<Result<_, _>>()?)
            }
        })
    }
}

impl Record<Example> {
    /// Truncates each example to `max_length` tokens, with the numbers of the removed tokens.
    ///
    /// # Errors
    ///
    /// As [`Example::truncated`].
    pub fn truncated(&self, max_length: usize) -> Result<Self, TextError> {
        let mut record = self.try_map(|example| example.clone().truncated(max_length))?;
        if let Self::Group(responses) = &mut record {
            for (Example { response, .. }, known) in responses {
                // Where there are numbers for each token, ids were given, and these are cut at their end.
                for constant in EnumSet::<Constant>::all() - Constant::Reward {
                    known.column_mut(constant).truncate(response.len());
                }
            }
        }
        Ok(record)
    }
}

/// A record with its place in the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Line<T> {
    /// Number of the line or of the row, from 1.
    pub line: usize,
    /// Parsed record.
    pub record: Record<T>,
}

/// Part of a line that becomes a demonstration, for lines in which several parts could.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, VariantNames, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Learnt {
    /// The last turn of `messages`, which must be the assistant's.
    #[default]
    Last,
    /// Every turn of the assistant in `messages`: one demonstration each, with all earlier turns as its prompt.
    Every,
    /// The chosen response of a preference; any other line is rejected.
    Chosen,
}

/// Reads every record of a file.
///
/// # Errors
///
/// [`TextError::Field`] for any other extension, for a path that is not a regular file, for a file without a line, and
/// for a column of a type that no JSON line has; [`TextError::File`], [`TextError::Json`] and [`TextError::Parquet`]
/// for a file that cannot be read; [`TextError::Line`] as [`parse_lines`], and [`TextError::Entry`] and
/// [`TextError::Row`] for the same errors in a record of a JSON list and in a row.
pub fn read_records(path: &Path, learnt: Learnt) -> Result<Vec<Line<Passage>>, TextError> {
    Ok(lines(objects(path, |fields| layout::records(fields, learnt))?))
}

/// Passes each record of a file, or the error of a line, to `take`, until `take` breaks.
///
/// # Errors
///
/// As [`read_records`], except that errors of single records are passed to `take`; the errors that `take` returns.
pub fn each_record(
    path: &Path,
    learnt: Learnt,
    mut take: impl FnMut(Result<Line<Passage>, TextError>) -> Taken,
) -> Result<(), TextError> {
    source::each(path, &mut |line, object| match object
        .and_then(|fields| layout::records(&fields, learnt))
        .map_err(|error| at(path, line, error))
    {
        Err(error) => take(Err(error)),
        Ok(records) => {
            for record in records {
                if take(Ok(Line { line, record }))?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Ok(ControlFlow::Continue(()))
        }
    })
}

/// Parses JSON lines. `path` is the name of the file in errors.
///
/// # Errors
///
/// [`TextError::Line`] with the number of the line, for a line that is not a JSON object and for a field that is
/// missing, unknown, or of another type; [`TextError::Field`] for a file without a line.
///
/// # Examples
///
/// ```
/// use text::data::{Learnt, Record, parse_lines};
/// use text::example::Passage;
///
/// let text = r#"{"prompt": "The sky is", "completion": " blue."}"#;
/// let lines = parse_lines("sky.jsonl".as_ref(), text, Learnt::Last)?;
/// let passage = Passage::Text { prompt: "The sky is".to_owned(), response: " blue.".to_owned() };
/// assert_eq!(lines[0].record, Record::Demonstration(passage));
/// # Ok::<(), text::error::TextError>(())
/// ```
pub fn parse_lines(path: &Path, text: &str, learnt: Learnt) -> Result<Vec<Line<Passage>>, TextError> {
    let read = |fields: &Map<String, Value>| layout::records(fields, learnt);
    Ok(lines(source::all(path, read, |take| source::lines(path, text.as_bytes(), take))?))
}

fn lines(records: Vec<(usize, Record<Passage>)>) -> Vec<Line<Passage>> {
    records.into_iter().map(|(line, record)| Line { line, record }).collect()
}

/// The results of `read` for each object of a file, with the number of the object.
pub fn objects<T>(
    path: &Path,
    read: impl Fn(&Map<String, Value>) -> Result<Vec<T>, TextError>,
) -> Result<Vec<(usize, T)>, TextError> {
    source::all(path, read, |take| source::each(path, take))
}

/// Encodes records, and truncates each example to `max_length` tokens.
///
/// # Errors
///
/// [`TextError::Line`], [`TextError::Entry`] or [`TextError::Row`] with an error of [`Example::new`] or
/// [`Example::truncated`].
pub fn encode_lines(
    path: &Path,
    lines: &[Line<Passage>],
    encoder: &Encoder<'_>,
    max_length: usize,
) -> Result<Vec<Line<Example>>, TextError> {
    lines
        .iter()
        .map(|Line { line, record }| {
            let whole = record.try_map(|passage| Example::new(passage, encoder));
            let record = whole.and_then(|whole| whole.truncated(max_length)).map_err(|error| at(path, *line, error))?;
            Ok(Line { line: *line, record })
        })
        .collect()
}

/// The error of a line, of a record of a list, or of a row, by the format of the file.
pub fn at(path: &Path, number: usize, source: TextError) -> TextError {
    let (path, source) = (path.to_owned(), Box::new(source));
    match Format::of(&path) {
        Ok((Format::Parquet, _)) => TextError::Row { path, row: number, source },
        Ok((Format::Records, _)) => TextError::Entry { path, record: number, source },
        _ => TextError::Line { path, line: number, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_converted_part_by_part_and_fails_with_its_first_part() {
        let known = |reward| TokenConstants { reward: vec![reward], ..TokenConstants::default() };
        let group = Record::Group(vec![(1, known(0.5)), (2, known(-1.0))]);
        let labelled = Record::Labelled { response: 3, desirable: false };
        let double = |part: &i32| Ok::<_, String>(part * 2);
        assert_eq!(group.try_map(double).unwrap(), Record::Group(vec![(2, known(0.5)), (4, known(-1.0))]));
        assert_eq!(labelled.try_map(double).unwrap(), Record::Labelled { response: 6, desirable: false });
        let refused = |part: &i32| Err::<(), _>(format!("no {part}"));
        assert_eq!(group.try_map(refused).unwrap_err(), "no 1");
        assert_eq!(labelled.try_map(refused).unwrap_err(), "no 3");
    }

    #[test]
    fn errors_name_the_file_and_the_line() {
        let good = r#"{"prompt": "a", "completion": "b"}"#;
        let parse = |text: &str| parse_lines("data.jsonl".as_ref(), text, Learnt::Last);
        assert_eq!(parse(&format!("{good}\n{good}\n")).unwrap().len(), 2);
        let cut = parse(&format!("{good}\n{{\"prompt\": \"a")).unwrap_err().to_string();
        assert!(cut.starts_with("data.jsonl:2: line: expected a JSON object, got EOF"), "{cut}");
        let blank = parse(&format!("{good}\n\n{good}\n")).unwrap_err().to_string();
        assert!(blank.starts_with("data.jsonl:2: line: expected a JSON object"), "{blank}");
        let list = parse("[1]").unwrap_err().to_string();
        assert!(list.starts_with("data.jsonl:1: line: expected a JSON object, got invalid type: sequence"), "{list}");
        assert_eq!(parse("").unwrap_err().to_string(), "data.jsonl: lines: expected at least 1, got 0");
    }

    #[test]
    fn a_files_extension_says_how_it_is_read() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.jsonl", "a.json"] {
            let path = folder.path().join(name);
            std::fs::write(&path, "{\"prompt\": \"a\", \"completion\": \"b\"}\n").unwrap();
            assert_eq!(read_records(&path, Learnt::Last).unwrap().len(), 1, "{name}");
        }
        for (name, given) in [("a.csv", "csv"), ("a", "none"), ("a.JSONL", "JSONL")] {
            let refused = read_records(name.as_ref(), Learnt::Last).unwrap_err().to_string();
            assert_eq!(
                refused,
                format!("{name}: extension: expected one of jsonl, json, jsonl.gz, json.gz, parquet, got {given}")
            );
        }
        let missing = read_records("missing.jsonl".as_ref(), Learnt::Last).unwrap_err().to_string();
        assert!(missing.starts_with("missing.jsonl: "), "{missing}");
    }

    const SKY: &str = "{\"prompt\": \"a\", \"completion\": \"b\"}";

    /// The result of reading a file with these bytes: the number of records, or the error without the folder.
    fn read(name: &str, bytes: &[u8]) -> Result<usize, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let refused = |error: TextError| error.to_string().replace(&format!("{}/", folder.path().display()), "");
        read_records(&path, Learnt::Last).map(|lines| lines.len()).map_err(refused)
    }

    #[test]
    fn byte_order_marks_blank_last_lines_and_lists_are_read() {
        assert_eq!(read("a.jsonl", format!("\u{feff}{SKY}\n{SKY}\n\n  \r\n").as_bytes()), Ok(2));
        assert_eq!(read("a.json", format!("\u{feff}{SKY}\r\n{SKY}").as_bytes()), Ok(2));
        assert_eq!(read("a.json", format!("\u{feff} \n[{SKY},\n {SKY}\n]\n").as_bytes()), Ok(2));
        let list = |second: &str| read("a.json", format!("[{SKY}, {second}]").as_bytes()).unwrap_err();
        assert_eq!(list("[1]"), "a.json: record 2: record: expected a JSON object, got [1]");
        assert_eq!(list("{}"), "a.json: record 2: prompt: expected text or a list of turns, got nothing");
        assert!(list("{\"a\": 1, \"a\": 1}").starts_with("a.json: list: duplicate key \"a\" at line 1"));
        assert!(read("a.json", format!("[{SKY}] {SKY}").as_bytes()).unwrap_err().contains("trailing characters"));
        assert!(read("a.json", format!("[{SKY},").as_bytes()).unwrap_err().starts_with("a.json: list: EOF while"));
        assert_eq!(read("a.json", b"[]").unwrap_err(), "a.json: records: expected at least 1, got 0");
        assert_eq!(read("a.jsonl", b"\n\n").unwrap_err(), "a.jsonl: lines: expected at least 1, got 0");
        let blank = read("a.jsonl", format!("{SKY}\n\n{SKY}\n").as_bytes()).unwrap_err();
        assert_eq!(blank, "a.jsonl:2: line: expected a JSON object, got a blank line");
    }

    #[test]
    fn text_that_is_not_utf_8_is_refused_by_what_it_is() {
        let refused = |bytes: &[u8]| read("a.jsonl", bytes).unwrap_err();
        assert_eq!(refused(b"\xff\xfe{\0}\0"), "a.jsonl: encoding: expected UTF-8, got UTF-16");
        let compressed = refused(b"\x1f\x8b\x08\0");
        assert!(compressed.ends_with("got gzip-compressed data, whose file name must end in .gz"), "{compressed}");
        assert!(refused(b"{\"prompt\": \"\xff\"}\n").starts_with("a.jsonl:1: line: expected a JSON object"));
        assert!(read("a.jsonl.gz", SKY.as_bytes()).unwrap_err().starts_with("a.jsonl.gz: "));
    }

    #[test]
    fn a_line_or_record_of_more_than_64_mib_is_refused_and_the_next_is_read() {
        let long = |most: usize| format!("{{\"prompt\": \"{}\", \"completion\": \"b\"}}", "x".repeat(most));
        let line = long(64 << 20);
        let refused = read("a.jsonl", format!("{SKY}\n{line}\n").as_bytes()).unwrap_err();
        assert_eq!(refused, "a.jsonl:2: line: expected at most 67108864 bytes, got more");
        let mut found = Vec::new();
        source::lines("a".as_ref(), format!("{line}\n{SKY}\n{line}").as_bytes(), &mut |number, object| {
            found.push((number, object.is_ok()));
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
        assert_eq!(found, [(1, false), (2, true), (3, false)]);
        assert_eq!(read("a.jsonl", format!("{}\n", long((64 << 20) - 100)).as_bytes()), Ok(1));
        let refused = read("a.json", format!("[{SKY}, {line}]").as_bytes()).unwrap_err();
        assert!(
            refused.starts_with("a.json: list: a record of more than 67108864 bytes at line 1 column "),
            "{refused}"
        );
        // The limit holds for each record, not for the list.
        let half = long(40 << 20);
        assert_eq!(read("a.json", format!("[{half}, {half}]").as_bytes()), Ok(2));
    }

    const IDS_ALONE: Encoder<'_> = Encoder { tokenizer: None, template: None, vocabulary: 10 };

    fn encode(line: &str, max_length: usize) -> Result<Vec<Line<Example>>, String> {
        let lines = parse_lines("data.jsonl".as_ref(), line, Learnt::Last).map_err(|error| error.to_string())?;
        encode_lines("data.jsonl".as_ref(), &lines, &IDS_ALONE, max_length).map_err(|error| error.to_string())
    }

    #[test]
    fn ids_are_taken_as_they_are_without_a_tokenizer() {
        let example =
            |prompt: &[u32], response: &[u32]| Example { prompt: prompt.into(), response: response.into(), end: 0 };
        let line = r#"{"prompt_ids": [1, 2], "chosen_ids": [3, 9], "rejected_ids": [0]}"#;
        let record = Record::Preference { chosen: example(&[1, 2], &[3, 9]), rejected: example(&[1, 2], &[0]) };
        assert_eq!(encode(line, 8).unwrap(), [Line { line: 1, record }]);
        let line = r#"{"prompt_ids": [1], "response_ids": [3, 4, 5]}"#;
        let record = Record::Demonstration(example(&[1], &[3, 4]));
        assert_eq!(encode(line, 3).unwrap(), [Line { line: 1, record }], "an end that nothing marks is cut");
    }

    #[test]
    fn a_response_that_is_cut_loses_the_numbers_of_the_tokens_that_it_loses() {
        let line = r#"{"prompt_ids": [1], "completions_ids": [[3, 4, 5], [6]], "rewards": [[1, 2, 3], [0, 0, 0]],
            "advantage": [0.5, [0.25]], "rollout_log_prob": [[-1, -2, -3], [-4]]}"#;
        let known = |reward: &[f64], advantage, rollout_log_prob: &[f64]| TokenConstants {
            reward: reward.to_vec(),
            advantage: vec![advantage],
            rollout_log_prob: rollout_log_prob.to_vec(),
            ..TokenConstants::default()
        };
        let example = |response: &[u32]| Example { prompt: vec![1], response: response.into(), end: 0 };
        let record = Record::Group(vec![
            (example(&[3, 4]), known(&[1.0, 2.0, 3.0], 0.5, &[-1.0, -2.0])),
            (example(&[6]), known(&[0.0; 3], 0.25, &[-4.0])),
        ]);
        assert_eq!(encode(&line.replace('\n', ""), 3).unwrap(), [Line { line: 1, record }]);
    }

    #[test]
    fn ids_that_do_not_fit_the_model_are_refused_with_their_line() {
        let good = r#"{"prompt_ids": [1, 2], "response_ids": [3, 9]}"#;
        let second = |line: &str| encode(&format!("{good}\n{line}"), 8).unwrap_err();
        let allowed = "token ids below 10, the size of the model's vocabulary";
        assert_eq!(
            second(r#"{"prompt_ids": [1], "response_ids": [3, 10, 11]}"#),
            format!("data.jsonl:2: response: expected {allowed}, got 10")
        );
        assert_eq!(
            second(r#"{"prompt_ids": [12], "response_ids": [3], "label": true}"#),
            format!("data.jsonl:2: prompt: expected {allowed}, got 12")
        );
        let needed = "token ids (prompt_ids, response_ids), as there is no tokenizer.json to encode text";
        assert_eq!(
            second(r#"{"prompt": "a", "completion": "b"}"#),
            format!("data.jsonl:2: record: expected {needed}, got text")
        );
        assert_eq!(
            second(r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#),
            format!("data.jsonl:2: record: expected {needed}, got messages")
        );
        assert_eq!(encode(good, 3).unwrap().len(), 1);
        assert_eq!(
            encode(good, 2).unwrap_err(),
            "data.jsonl:1: 2 prompt tokens, a token of the response and its 0 end markers are more than max_length = 2"
        );
        let empty = Passage::Ids { prompt: vec![1], response: Vec::new() };
        assert_eq!(
            Example::new(&empty, &IDS_ALONE).unwrap_err().to_string(),
            "response: expected at least 1 token id, got none"
        );
    }
}
