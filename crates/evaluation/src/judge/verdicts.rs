//! Recorded verdicts of a comparison, so that an interrupted comparison can be resumed.
//!
//! A folder contains `asked.json`, the settings that determine every question and answer, and `verdicts.jsonl`, one
//! line for each answer. A line is appended as a whole and synchronised to the disk before the next question is asked.
//! An incomplete last line is removed, and its question is asked again.

use std::collections::HashMap;
use std::path::Path;

use program::{FolderLock, Journal, OutputError, OutputFolder};
use serde::{Deserialize, Serialize};
use text::error::TextError;
use text::resumption::is_the_same;

use super::verdict::{Order, Verdict};
use crate::error::EvaluationError;

/// Name of the file with the settings that determine every question and answer.
pub const ASKED_FILE: &str = "asked.json";

/// Name of the file with one line for each answer.
pub const VERDICTS_FILE: &str = "verdicts.jsonl";

/// Settings that determine every question and answer, as `asked.json` contains them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// Fingerprint of the first file's answers.
    pub a: String,
    /// Fingerprint of the second file's answers.
    pub b: String,
    /// Address of the judge.
    pub judge: String,
    /// Name of the model that answers.
    pub model: String,
    /// Fingerprint of the template.
    pub template: String,
    /// Sampling temperature.
    pub temperature: f64,
    /// Random seed for the judge's sampling.
    pub seed: u64,
    /// Maximum number of tokens of an answer.
    pub max_tokens: Option<u32>,
}

/// Verdicts of one comparison and the journal that they are recorded in.
pub struct Verdicts {
    file: Journal,
    verdicts: Vec<Verdict>,
    _lock: FolderLock,
}

impl Verdicts {
    /// Creates the verdicts of this folder, or opens the existing one.
    ///
    /// `fingerprints` are the fingerprints of the questions.
    ///
    /// # Errors
    ///
    /// [`TextError::Field`] for a setting that differs from that of the existing verdicts; [`TextError::Line`] for a
    /// line that is not a verdict on one of the questions; [`EvaluationError::Taken`] if another process uses the
    /// folder; [`EvaluationError::Output`] for a file that cannot be written.
    pub fn open(
        out: &OutputFolder,
        asked: &Asked,
        fingerprints: &HashMap<(usize, Order), String>,
    ) -> Result<Self, EvaluationError> {
        let path = out.path().join(VERDICTS_FILE);
        let taken = || EvaluationError::Taken {
            path: out.path().to_owned(),
            problem: "another process judges into this folder",
        };
        let lock = out.lock()?.ok_or_else(taken)?;
        let (file, text) = Journal::open(&path)?.ok_or_else(taken)?;
        let asked_path = out.path().join(ASKED_FILE);
        if asked_path.exists() {
            is_the_same(&asked_path, asked, "as the verdicts there were asked for")?;
        } else if text.is_empty() {
            let fail = |source| OutputError { path: path.clone(), source };
            let bytes = serde_json::to_vec_pretty(asked).map_err(|error| fail(error.into()))?;
            out.write(ASKED_FILE, &bytes)?;
        } else {
            return Err(EvaluationError::Taken {
                path,
                problem: "nothing says what these verdicts are of, as asked.json is missing",
            });
        }
        let verdicts = read(&path, &text, fingerprints)?;
        Ok(Self { file, verdicts, _lock: lock })
    }

    /// The recorded verdicts.
    pub fn verdicts(&self) -> &[Verdict] {
        &self.verdicts
    }

    /// Appends a verdict.
    ///
    /// # Errors
    ///
    /// [`EvaluationError::Output`] for a file that cannot be written.
    pub fn append(&mut self, verdict: Verdict) -> Result<(), EvaluationError> {
        self.file.append(&self.file.json(&verdict)?)?;
        self.verdicts.push(verdict);
        Ok(())
    }
}

fn read(path: &Path, text: &[u8], fingerprints: &HashMap<(usize, Order), String>) -> Result<Vec<Verdict>, TextError> {
    let mut seen = HashMap::new();
    let mut verdicts = Vec::new();
    for (index, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let fail = |field: &str, allowed: String, given: String| TextError::Line {
            path: path.to_owned(),
            line: index + 1,
            source: Box::new(TextError::Record { field: field.to_owned(), allowed, given }),
        };
        let verdict: Verdict =
            strict_json::from_slice(line).map_err(|error| fail("line", "a verdict".to_owned(), error.to_string()))?;
        let question = (verdict.pair, verdict.order);
        match fingerprints.get(&question) {
            Some(fingerprint) if *fingerprint == verdict.fingerprint => (),
            Some(fingerprint) => {
                return Err(fail("fingerprint", format!("{fingerprint}, which is asked now"), verdict.fingerprint));
            }
            None => {
                return Err(fail("pair", "one of the pairs that are asked now".to_owned(), verdict.pair.to_string()));
            }
        }
        if let Some(first) = seen.insert(question, index + 1) {
            let allowed = format!("a question that no other line answers, as line {first} does");
            return Err(fail("pair", allowed, verdict.pair.to_string()));
        }
        verdicts.push(verdict);
    }
    Ok(verdicts)
}

#[cfg(test)]
mod tests {
    use super::super::verdict::Choice;
    use super::*;

    fn asked() -> Asked {
        Asked {
            a: "1".to_owned(),
            b: "2".to_owned(),
            judge: "http://here".to_owned(),
            model: "m".to_owned(),
            template: "3".to_owned(),
            temperature: 0.0,
            seed: 0,
            max_tokens: None,
        }
    }

    fn verdict(pair: usize, order: Order) -> Verdict {
        Verdict {
            pair,
            order,
            verdict: Some(Choice::Tie),
            answer: "tie\n".to_owned(),
            fingerprint: pair.to_string(),
            model: "m".to_owned(),
        }
    }

    fn fingerprints() -> HashMap<(usize, Order), String> {
        let of = |pair: usize| Order::BOTH.map(|order| ((pair, order), pair.to_string()));
        (0..2).flat_map(of).collect()
    }

    fn open(out: &OutputFolder, asked: &Asked) -> Result<Vec<Verdict>, String> {
        let open = Verdicts::open(out, asked, &fingerprints());
        open.map(|recorded| recorded.verdicts).map_err(|error| error.to_string())
    }

    #[test]
    fn a_line_that_was_cut_off_is_dropped_and_all_others_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let out = OutputFolder::create(folder.path()).unwrap();
        let mut journal = Verdicts::open(&out, &asked(), &fingerprints()).unwrap();
        assert!(open(&out, &asked()).unwrap_err().ends_with("another process judges into this folder"));
        let verdicts = [verdict(0, Order::BThenA), verdict(1, Order::AThenB)];
        for verdict in &verdicts {
            journal.append(verdict.clone()).unwrap();
        }
        drop(journal);
        let path = folder.path().join(VERDICTS_FILE);
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let lines = whole[..cut].iter().filter(|byte| **byte == b'\n').count();
            assert_eq!(open(&out, &asked()).unwrap(), verdicts[..lines], "cut at {cut}");
            let mut journal = Verdicts::open(&out, &asked(), &fingerprints()).unwrap();
            for verdict in &verdicts[lines..] {
                journal.append(verdict.clone()).unwrap();
            }
            drop(journal);
            assert!(std::fs::read(&path).unwrap() == whole, "cut at {cut}");
        }
    }

    #[test]
    fn what_was_asked_otherwise_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let out = OutputFolder::create(folder.path()).unwrap();
        open(&out, &asked()).unwrap();
        let refused = |asked: &Asked| open(&out, asked).unwrap_err();
        let other = Asked { model: "n".to_owned(), ..asked() };
        assert!(refused(&other).ends_with(
            "asked.json: model: expected \"m\", as the verdicts there were asked for, got \"n\"; another --out starts over"
        ));
        assert!(refused(&Asked { b: "9".to_owned(), ..asked() }).contains("asked.json: b: expected \"2\""));
        assert!(refused(&Asked { seed: 1, ..asked() }).contains("asked.json: seed: expected 0"));
        assert!(refused(&Asked { judge: "x".to_owned(), ..asked() }).contains("asked.json: judge: expected"));
    }

    #[test]
    fn lines_that_answer_no_question_are_refused_with_their_number() {
        let folder = tempfile::tempdir().unwrap();
        let out = OutputFolder::create(folder.path()).unwrap();
        open(&out, &asked()).unwrap();
        let path = folder.path().join(VERDICTS_FILE);
        let refused = |second: &str| {
            let first = serde_json::to_string(&verdict(0, Order::AThenB)).unwrap();
            std::fs::write(&path, format!("{first}\n{second}\n")).unwrap();
            open(&out, &asked()).unwrap_err()
        };
        let line = |verdict: &Verdict| serde_json::to_string(verdict).unwrap();
        assert!(refused("{").contains("verdicts.jsonl:2: line: expected a verdict, got EOF"));
        let twice = refused(&line(&verdict(0, Order::AThenB)));
        assert!(twice.contains(":2: pair: expected a question that no other line answers, as line 1 does, got 0"));
        assert!(refused(&line(&verdict(2, Order::AThenB))).contains(":2: pair: expected one of the pairs"));
        let other = Verdict { fingerprint: "7".to_owned(), ..verdict(1, Order::AThenB) };
        assert!(refused(&line(&other)).contains(":2: fingerprint: expected 1, which is asked now, got 7"));
        std::fs::remove_file(folder.path().join(ASKED_FILE)).unwrap();
        assert!(open(&out, &asked()).unwrap_err().contains("as asked.json is missing"));
    }
}
