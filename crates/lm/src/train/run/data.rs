//! Training and held-out records of a stage.

use std::convert::Infallible;
use std::ops::ControlFlow;

use objective::{Constant, Requirements};
use text::data::unusable::{Skipped, Unusable};
use text::data::{Line, Record, at, each_record};
use text::error::{TextError, refuse};
use text::example::{Encoder, Example, Passage};
use text::mixture::{Mixture, Place, Share};

use super::Event;
use crate::error::LmError;
use crate::train::micro_batch::plan;
use crate::train::recipe::{DataSet, Invalid, Stage};

/// Encoded records of a stage.
pub(super) struct StageData {
    pub(super) sets: Vec<Vec<Line<Example>>>,
    pub(super) evaluation: Vec<Line<Example>>,
    pub(super) mixture: Mixture,
}

impl StageData {
    pub(super) fn read(
        stage: &Stage,
        seed: u64,
        encoder: &Encoder<'_>,
        tell: &dyn Fn(Event<'_>),
    ) -> Result<Self, LmError> {
        let mut requirements = stage.requirements();
        let mut read = |set: &DataSet| read(set, stage, &mut requirements, encoder, tell);
        let sets: Vec<_> = stage.data.iter().map(&mut read).collect::<Result<_, _>>()?;
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

    /// Fingerprint of every record of every stage.
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
    requirements: &mut Requirements,
    encoder: &Encoder<'_>,
    tell: &dyn Fn(Event<'_>),
) -> Result<Vec<Line<Example>>, TextError> {
    let (mut lines, mut skipped) = (Vec::new(), Skipped::default());
    each_record(&set.path, set.learnt, |line| {
        let learnable = line.and_then(|Line { line, record }| {
            let record = encode(&record, stage.max_length, requirements, encoder);
            Ok(Line { line, record: record.map_err(|error| at(&set.path, line, error))? })
        });
        match learnable {
            Ok(line) => {
                // All groups of a stage have the same number of rewards per response.
                if let Record::Group(responses) = &line.record
                    && requirements.constants.contains(Constant::Reward)
                {
                    let first = responses.first().map(|(_, known)| known.reward.len());
                    requirements.rewards = requirements.rewards.or(first);
                }
                lines.push(line);
            }
            Err(error) => match Unusable::of(&error).filter(|_| stage.invalid == Invalid::Skip) {
                Some(kind) => skipped.add(kind, error),
                None => return Err(error),
            },
        }
        let is_enough = set.limit == Some(lines.len());
        Ok(if is_enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    let count = skipped.count();
    if lines.is_empty() {
        let given = if count == 0 { "0".to_owned() } else { format!("0, as {count} were skipped:\n{skipped}") };
        return Err(TextError::Field {
            path: set.path.clone(),
            field: "records".to_owned(),
            allowed: "at least 1 that the method can learn from".to_owned(),
            given,
        });
    }
    if count > 0 {
        tell(Event::Skipped { path: &set.path, records: lines.len() + count, skipped: &skipped });
    }
    Ok(lines)
}

/// Encodes a record for the method, or fails if the method cannot learn from it.
fn encode(
    record: &Record<Passage>,
    max_length: usize,
    requirements: &Requirements,
    encoder: &Encoder<'_>,
) -> Result<Record<Example>, TextError> {
    let whole = record.try_map(|passage| Example::new(passage, encoder))?;
    // Plans the record beside itself, as some objectives compare each record with the next.
    plan(requirements, &[&whole, &whole], 2).map_err(|error| Unusable::Unlike.because(error))?;
    if let Record::Preference { chosen, rejected } = &whole
        && chosen.response == rejected.response
    {
        let allowed = "a response other than chosen, as a method cannot learn from two equal ones";
        return Err(Unusable::Equal.because(refuse("rejected", allowed, "the same")));
    }
    whole.truncated(max_length)
}
