//! Log-probabilities of given responses, token by token.

use std::path::Path;

use objective::{Statistic, TokenStatistics};
use serde::Serialize;
use text::data::{Line, Record, at};
use text::error::TextError;
use text::example::Example;
use training::{Frozen, Policy};

use crate::error::LmError;
use crate::train::policy::LmPolicy;
use crate::transformer::batch::{Packing, Sequence, States};

/// A response with the log-probability of each of its tokens.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Score {
    /// Tokens of the response.
    pub response_ids: Vec<u32>,
    /// log π of each token, nats.
    pub log_prob: Vec<f64>,
    /// Sum of the log-probabilities, nats.
    pub sum: f64,
}

/// A scored record: its responses, named as in the data.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum ScoredRecord {
    /// Response of a demonstration or of a labelled record.
    Response(Score),
    /// Responses of a preference pair.
    Pair {
        /// Score of the preferred response.
        chosen: Score,
        /// Score of the rejected response.
        rejected: Score,
    },
    /// Responses of a group.
    Group {
        /// Scores of the responses, in the order of the rewards.
        completions: Vec<Score>,
    },
}

/// Scores records in batches of about `tokens` tokens, and calls `answer` with each, in order.
///
/// # Errors
///
/// [`LmError::Engine`], and those of `answer`.
pub fn score<'a, E: From<LmError>>(
    policy: &LmPolicy,
    records: impl IntoIterator<Item = &'a Record<Example>>,
    tokens: usize,
    mut answer: impl FnMut(ScoredRecord) -> Result<(), E>,
) -> Result<(), E> {
    let (mut waiting, mut filled) = (Vec::new(), 0);
    for record in records {
        filled += examples(record).iter().map(|example| example.len()).sum::<usize>();
        waiting.push(record);
        if filled >= tokens {
            batch(policy, &waiting, &mut answer)?;
            waiting.clear();
            filled = 0;
        }
    }
    batch(policy, &waiting, &mut answer)
}

/// Rejects an example longer than the model's `max_position_embeddings`, beyond which log-probabilities are
/// meaningless.
///
/// # Errors
///
/// [`TextError::Line`] or [`TextError::Row`] with [`TextError::Positions`], for the first one that is longer.
pub fn refuse_longer(path: &Path, lines: &[Line<Example>], positions: usize) -> Result<(), TextError> {
    lines.iter().try_for_each(|Line { line, record }| {
        let longest = examples(record).iter().map(|example| example.len()).max().unwrap_or(0);
        if longest <= positions {
            return Ok(());
        }
        Err(at(path, *line, TextError::Positions { tokens: longest, positions }))
    })
}

fn examples(record: &Record<Example>) -> Vec<&Example> {
    match record {
        Record::Demonstration(response) | Record::Labelled { response, .. } => vec![response],
        Record::Preference { chosen, rejected } => vec![chosen, rejected],
        Record::Group(responses) => responses.iter().map(|(example, _)| example).collect(),
    }
}

fn batch<E: From<LmError>>(
    policy: &LmPolicy,
    records: &[&Record<Example>],
    answer: &mut impl FnMut(ScoredRecord) -> Result<(), E>,
) -> Result<(), E> {
    if records.is_empty() {
        return Ok(());
    }
    let examples: Vec<&Example> = records.iter().flat_map(|record| examples(record)).collect();
    let sequences: Vec<_> =
        examples.iter().map(|example| Sequence { prompt: &example.prompt, response: &example.response }).collect();
    let states = States::new(policy.model(), &sequences, Packing::Packed)?;
    let forward = policy.forward(&states)?;
    let taken: Vec<usize> =
        sequences.iter().flat_map(|sequence| sequence.response).map(|token| *token as usize).collect();
    let mut statistics = TokenStatistics::default();
    policy.statistics(&forward, Frozen::default(), &taken, Statistic::LogProb.into(), &mut statistics)?;
    let mut rest = &statistics.log_prob[..];
    let mut next = |example: &Example| {
        let (own, others) = rest.split_at(example.response.len());
        rest = others;
        Score { response_ids: example.response.clone(), log_prob: own.to_vec(), sum: own.iter().sum() }
    };
    for record in records {
        answer(match record {
            Record::Demonstration(response) | Record::Labelled { response, .. } => {
                ScoredRecord::Response(next(response))
            }
            Record::Preference { chosen, rejected } => {
                ScoredRecord::Pair { chosen: next(chosen), rejected: next(rejected) }
            }
            Record::Group(responses) => {
                ScoredRecord::Group { completions: responses.iter().map(|(example, _)| next(example)).collect() }
            }
        })?;
    }
    Ok(())
}
