//! The records that a stage learns from and is measured on.

use std::convert::Infallible;

use objective::Requirements;

use crate::data::{Line, at, encode_lines, read_records};
use crate::error::LmError;
use crate::example::{Encoder, Example};
use crate::micro_batch::plan;
use crate::mixture::{Mixture, Place, Share};
use crate::recipe::{DataSet, Overlong, Stage};

/// The encoded records of a stage.
pub(super) struct StageData {
    pub(super) sets: Vec<Vec<Line<Example>>>,
    pub(super) evaluation: Vec<Line<Example>>,
    pub(super) mixture: Mixture,
}

impl StageData {
    pub(super) fn read(stage: &Stage, seed: u64, encoder: &Encoder<'_>) -> Result<Self, LmError> {
        let requirements = stage.requirements();
        let read = |set: &DataSet| read(set, stage, &requirements, encoder);
        let sets: Vec<_> = stage.data.iter().map(read).collect::<Result<_, _>>()?;
        let evaluation: Vec<Vec<_>> = stage.evaluation.iter().map(read).collect::<Result<_, _>>()?;
        let shares: Vec<_> = sets
            .iter()
            .zip(&stage.data)
            .map(|(lines, set)| Share { examples: lines.len(), weight: set.weight.unwrap_or(lines.len() as f64) })
            .collect();
        let mixture = Mixture::new(&shares, stage.order, seed)?;
        Ok(Self { sets, evaluation: evaluation.concat(), mixture })
    }

    pub(super) fn line(&self, Place { set, example }: Place) -> &Line<Example> {
        &self.sets[set][example]
    }

    /// Of every record of every stage.
    pub(super) fn fingerprint(data: &[Self]) -> String {
        let mut hasher = blake3::Hasher::new();
        for lines in data.iter().flat_map(|stage| stage.sets.iter().chain([&stage.evaluation])) {
            hasher.update(&(lines.len() as u64).to_le_bytes());
            for Line { line, record } in lines {
                let tokens = |example: &Example| {
                    for part in [&example.prompt, &example.response] {
                        hasher.update(&(part.len() as u64).to_le_bytes());
                        part.iter().for_each(|token| _ = hasher.update(&token.to_le_bytes()));
                    }
                    Ok::<(), Infallible>(())
                };
                let rest = record.try_map(tokens);
                hasher.update(format!("{line} {rest:?}").as_bytes());
            }
        }
        hasher.finalize().to_hex().to_string()
    }
}

fn read(
    set: &DataSet,
    stage: &Stage,
    requirements: &Requirements,
    encoder: &Encoder<'_>,
) -> Result<Vec<Line<Example>>, LmError> {
    let records = read_records(&set.path, set.learnt)?;
    let mut lines = Vec::new();
    for record in &records {
        match encode_lines(&set.path, std::slice::from_ref(record), encoder, stage.max_length) {
            Err(error) if error.is_too_long() && stage.overlong == Overlong::Skip => {}
            encoded => lines.extend(encoded?),
        }
        if set.limit == Some(lines.len()) {
            break;
        }
    }
    if lines.is_empty() {
        let allowed = format!("a record that fits in max_length = {}", stage.max_length);
        return Err(LmError::Field {
            path: set.path.clone(),
            field: "lines".to_owned(),
            allowed,
            given: "none".to_owned(),
        });
    }
    for Line { line, record } in &lines {
        // Beside another of its kind, as some objectives compare each with the next.
        plan(requirements, &[record, record], 2).map_err(|source| at(&set.path, *line, source))?;
    }
    Ok(lines)
}
