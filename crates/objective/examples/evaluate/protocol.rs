//! One line in, one line out.

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};
use objective::{
    BatchError, Data, Evaluation, Objective, Pair, Parameters, Response, Statistic, StepTotals, TokenBatch,
    TokenConstants, TokenStatistics, Value, registry,
};
use serde::{Deserialize, Serialize};

/// One number a token, one list a response.
type Ragged = Vec<Vec<f64>>;
/// Ragged columns by name.
type Columns = BTreeMap<String, Ragged>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    objective: Parameters,
    chosen: Columns,
    rejected: Option<Columns>,
    #[serde(default)]
    totals: Totals,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Totals {
    tokens: Option<usize>,
    responses: Option<usize>,
    pairs: Option<usize>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Answer {
    Evaluated { loss: f64, cotangents: Cotangents, metrics: BTreeMap<&'static str, f64> },
    Refused { error: String },
}

#[derive(Serialize)]
struct Cotangents {
    chosen: Columns,
    #[serde(skip_serializing_if = "Option::is_none")]
    rejected: Option<Columns>,
}

/// The answer to a line, whatever the line: an evaluation, or an error that names the field.
///
/// # Errors
///
/// Only if the answer itself cannot be written as JSON.
pub(crate) fn answer(line: &[u8]) -> serde_json::Result<String> {
    let answer = evaluate(line).unwrap_or_else(|error| Answer::Refused { error: format!("{error:#}") });
    serde_json::to_string(&answer)
}

fn evaluate(line: &[u8]) -> anyhow::Result<Answer> {
    let mut json = serde_json::Deserializer::from_slice(line);
    let question: Question = serde_path_to_error::deserialize(&mut json)?;
    json.end()?;

    let objective = build(question.objective)?;
    let requirements = objective.requirements();
    let mut sides = vec![("chosen", question.chosen)];
    match (requirements.data, question.rejected) {
        (Data::Demonstrations, None) => {}
        (Data::Demonstrations, Some(_)) => bail!("rejected: not used by an objective over demonstrations"),
        (Data::Preferences, Some(rejected)) => sides.push(("rejected", rejected)),
        (Data::Preferences, None) => bail!("rejected: missing; the objective compares pairs"),
    }

    let (mut statistics, mut constants, mut responses) =
        (TokenStatistics::default(), TokenConstants::default(), Vec::new());
    for (side, columns) in &sides {
        append(side, columns, &*objective, &mut statistics, &mut constants, &mut responses)?;
    }
    let chosen = sides[0].1[Statistic::LogProb.name()].len();
    let pairs: Vec<_> = match requirements.data {
        Data::Demonstrations => Vec::new(),
        Data::Preferences => {
            let rejected = responses.len() - chosen;
            ensure!(rejected == chosen, "rejected.log_prob: expected {chosen} responses, one a pair, got {rejected}");
            (0..chosen).map(|pair| Pair { chosen: pair, rejected: chosen + pair }).collect()
        }
    };
    let (own, given) = (StepTotals::of(&responses, &pairs), question.totals);
    let totals = StepTotals {
        tokens: given.tokens.unwrap_or(own.tokens),
        responses: given.responses.unwrap_or(own.responses),
        pairs: given.pairs.unwrap_or(own.pairs),
    };

    let batch = TokenBatch::new(&requirements, &statistics, &constants, &responses, &pairs, totals)
        .map_err(|error| name_side(error, chosen))?;
    let mut evaluation = Evaluation::default();
    objective.evaluate(&batch, &mut evaluation);

    let columns = |responses: &[Response]| {
        let ragged = |column: &[f64]| responses.iter().map(|r| column[r.tokens.clone()].to_vec()).collect();
        let column = |s: &Statistic| (s.name().to_owned(), ragged(evaluation.cotangents.column(*s)));
        requirements.statistics.iter().map(column).collect()
    };
    Ok(Answer::Evaluated {
        loss: evaluation.loss,
        cotangents: Cotangents {
            chosen: columns(&responses[..chosen]),
            rejected: (!pairs.is_empty()).then(|| columns(&responses[chosen..])),
        },
        metrics: evaluation.metrics.iter().collect(),
    })
}

/// Responses are numbered through both sides in a batch; the line's author counts within one.
fn name_side(mut error: BatchError, chosen: usize) -> anyhow::Error {
    let BatchError::Value { response, .. } = &mut error else { return error.into() };
    let side = if *response < chosen { "chosen" } else { "rejected" };
    *response %= chosen;
    anyhow::anyhow!("{side}.{error}")
}

fn build(mut parameters: Parameters) -> anyhow::Result<Box<dyn Objective>> {
    match parameters.remove("name") {
        Some(Value::Text(name)) => registry::build(&name, &parameters).context("objective"),
        Some(other) => bail!("objective.name: expected a method's name, got {other}"),
        None => bail!("objective.name: missing"),
    }
}

/// Flattens one side's columns behind those already there.
fn append(
    side: &str,
    columns: &Columns,
    objective: &dyn Objective,
    statistics: &mut TokenStatistics,
    constants: &mut TokenConstants,
    responses: &mut Vec<Response>,
) -> anyhow::Result<()> {
    let requirements = objective.requirements();
    let name_of_statistic = requirements.statistics.iter().map(|statistic| statistic.name());
    let name_of_constant = requirements.constants.iter().map(|constant| constant.name());
    let required: Vec<_> = name_of_statistic.chain(name_of_constant).collect();
    for name in columns.keys() {
        ensure!(required.contains(&name.as_str()), "{side}.{name}: not used by this objective; it reads {required:?}");
    }
    for name in required {
        ensure!(columns.contains_key(name), "{side}.{name}: missing");
    }

    let lengths: Vec<_> = columns[Statistic::LogProb.name()].iter().map(Vec::len).collect();
    ensure!(!lengths.is_empty(), "{side}.log_prob: expected at least one response, got none");
    for (name, ragged) in columns {
        let given: Vec<_> = ragged.iter().map(Vec::len).collect();
        ensure!(
            given == lengths,
            "{side}.{name}: expected responses of {lengths:?} tokens as in log_prob, got {given:?}"
        );
    }
    for &length in &lengths {
        ensure!(length > 0, "{side}.log_prob: expected at least one token in every response, got an empty one");
        let start = responses.last().map_or(0, |response| response.tokens.end);
        responses.push(Response { tokens: start..start + length });
    }
    for &statistic in requirements.statistics {
        statistics.column_mut(statistic).extend(columns[statistic.name()].iter().flatten());
    }
    for &constant in requirements.constants {
        constants.column_mut(constant).extend(columns[constant.name()].iter().flatten());
    }
    Ok(())
}
