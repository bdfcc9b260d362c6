//! Files of a model's answers to instructions, which a judge compares.
//!
//! A file is a JSON list of `{"instruction", "output", "generator", "dataset"}`, the last one optional, as the
//! `alpaca_eval` program reads it for `--model_outputs` and `--reference_outputs`. As in its files, an output has no
//! white space around it. Other fields of a file are ignored, because `alpaca_eval` writes more fields than it needs;
//! an `input` that is not empty is rejected.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use text::data::instruction::{no_input, text};
use text::data::objects;
use text::error::{TextError, refuse};

/// A model's answer to an instruction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Text of the instruction.
    pub instruction: String,
    /// The model's answer.
    pub output: String,
    /// Name of the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generator: Option<String>,
    /// Name of the part of the set that contains the instruction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,
}

/// A file of one model's answers.
#[derive(Clone, Debug)]
pub struct Outputs {
    /// Path of the file.
    pub path: PathBuf,
    /// Name of the model, if the file has one.
    pub generator: Option<String>,
    /// Answers, each with the number of its record in the file, from 1.
    pub answers: Vec<(usize, Output)>,
}

impl Outputs {
    /// Reads a JSON list, JSON lines or Parquet.
    ///
    /// # Errors
    ///
    /// As [`read_instructions`](text::data::instruction::read_instructions); [`TextError::Entry`] for a second model in
    /// one file.
    pub fn read(path: &Path) -> Result<Self, TextError> {
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
            return Err(TextError::entry(path, *record, source));
        }
        Ok(Self { path: path.to_owned(), generator, answers })
    }

    /// Fingerprint of the instructions and answers, which are everything that a judge reads of the file.
    pub fn fingerprint(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for text in self.answers.iter().flat_map(|(_, answer)| [&answer.instruction, &answer.output]) {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }
}

/// Formats answers as the file that [`Outputs::read`] and `alpaca_eval` read.
///
/// # Errors
///
/// An error of `serde_json`, which text does not cause.
///
/// # Examples
///
/// ```
/// use evaluation::outputs::{Output, to_json};
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
