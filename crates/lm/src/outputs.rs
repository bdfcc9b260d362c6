//! What models answer to instructions, as the files that judges read.
//!
//! A file is a JSON list of `{"instruction", "output", "generator", "dataset"}`, the last where it is known: what the `alpaca_eval`
//! program takes as `--model_outputs` and `--reference_outputs`. As there, an output has no white space around it. What else is in
//! a file that is read is passed over, as `alpaca_eval` writes more than it needs; an `input` that is not empty is refused.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::data::instruction::{no_input, text};
use crate::data::objects;
use crate::error::{LmError, refuse};

/// What a model answered to an instruction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// What was asked.
    pub instruction: String,
    /// What was answered.
    pub output: String,
    /// Who answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generator: Option<String>,
    /// Which part of the set the instruction is from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,
}

/// A file of one model's answers.
#[derive(Clone, Debug)]
pub struct Outputs {
    /// The file.
    pub path: PathBuf,
    /// Who answered, where the file says so.
    pub generator: Option<String>,
    /// The answers, each with its record in the file, from 1.
    pub answers: Vec<(usize, Output)>,
}

impl Outputs {
    /// Reads a JSON list, JSON lines or Parquet.
    ///
    /// # Errors
    ///
    /// As [`read_instructions`](crate::data::instruction::read_instructions); [`LmError::Entry`] for a second generator in one file.
    pub fn read(path: &Path) -> Result<Self, LmError> {
        let answers = objects(path, |fields| {
            no_input(fields)?;
            let optional = |field| match fields.get(field) {
                None | Some(serde_json::Value::Null) => Ok(None),
                Some(_) => text(fields, field).map(Some),
            };
            Ok(vec![Output {
                instruction: text(fields, "instruction")?,
                output: text(fields, "output")?,
                generator: optional("generator")?,
                dataset: optional("dataset")?,
            }])
        })?;
        let generator = answers.first().and_then(|(_, first)| first.generator.clone());
        if let Some((record, other)) = answers.iter().find(|(_, answer)| answer.generator != generator) {
            let named = |name: &Option<String>| name.as_ref().map_or("none".to_owned(), |name| format!("{name:?}"));
            let allowed = format!("{}, as in the first record", named(&generator));
            let source = refuse("generator", allowed, named(&other.generator));
            return Err(LmError::entry(path, *record, source));
        }
        Ok(Self { path: path.to_owned(), generator, answers })
    }

    /// What the answers are known by: all that a judge is told of them.
    pub fn fingerprint(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for text in self.answers.iter().flat_map(|(_, answer)| [&answer.instruction, &answer.output]) {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }
}

/// Answers as the file that [`Outputs::read`] and `alpaca_eval` read.
///
/// # Errors
///
/// Where `serde_json` fails, which it does not for text.
///
/// # Examples
///
/// ```
/// use lm::outputs::{Output, to_json};
///
/// let answer = Output {
///     instruction: "Say hi".to_owned(),
///     output: "hi".to_owned(),
///     generator: Some("tiny".to_owned()),
///     dataset: None,
/// };
/// let file = String::from_utf8(to_json(&[answer])?)?;
/// assert_eq!(file.lines().nth(2), Some(r#"    "instruction": "Say hi","#));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn to_json(answers: &[Output]) -> serde_json::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(answers)?;
    bytes.push(b'\n');
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_generators_are_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        let answer = |instruction: &str, generator: &str| Output {
            instruction: instruction.to_owned(),
            output: "\"é\n".to_owned(),
            generator: Some(generator.to_owned()),
            dataset: (instruction == "one").then(|| "koala".to_owned()),
        };
        std::fs::write(&path, to_json(&[answer("one", "m"), answer("two", "m")]).unwrap()).unwrap();
        let read = Outputs::read(&path).unwrap();
        assert_eq!(read.answers, [(1, answer("one", "m")), (2, answer("two", "m"))]);
        assert_eq!(read.generator.as_deref(), Some("m"));
        std::fs::write(&path, to_json(&[answer("one", "m"), answer("two", "n")]).unwrap()).unwrap();
        let refused = Outputs::read(&path).unwrap_err().to_string();
        assert!(
            refused.ends_with("a.json: record 2: generator: expected \"m\", as in the first record, got \"n\""),
            "{refused}"
        );
    }

    #[test]
    fn a_fingerprint_is_of_questions_and_answers_and_not_of_names() {
        let outputs = |instruction: &str, output: &str, generator: &str| Outputs {
            path: PathBuf::new(),
            generator: Some(generator.to_owned()),
            answers: vec![(
                1,
                Output {
                    instruction: instruction.to_owned(),
                    output: output.to_owned(),
                    generator: Some(generator.to_owned()),
                    dataset: None,
                },
            )],
        };
        let print = |instruction, output, generator| outputs(instruction, output, generator).fingerprint();
        assert_eq!(print("ab", "c", "m"), print("ab", "c", "n"));
        assert_ne!(print("ab", "c", "m"), print("a", "bc", "m"));
    }
}
