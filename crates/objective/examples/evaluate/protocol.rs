//! The protocol: one line of JSON in, one line out.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use anyhow::{Context, bail, ensure};
use enumset::EnumSet;
use objective::{
    BatchError, Configured, Constant, Data, Evaluation, Feedback, ObjectiveState, Pair, Parameters, Requirements,
    Response, Statistic, StepTotals, TokenColumns, TokenConstants, TokenStatistics,
};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// A list per response, with one number per token.
type Ragged = Vec<Vec<f64>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    objective: Parameters,
    chosen: Option<Side>,
    rejected: Option<Side>,
    labelled: Option<Side>,
    mismatched: Option<Side>,
    groups: Option<Side>,
    rollouts: Option<Side>,
    #[serde(default)]
    totals: Totals,
    #[serde(default)]
    state: ObjectiveState,
}

/// Responses of one kind: ragged columns by name, and feedback on each response.
#[derive(Default)]
struct Side {
    weight: Option<Vec<f64>>,
    columns: BTreeMap<String, Ragged>,
    desirable: Option<Vec<bool>>,
    group: Option<Vec<usize>>,
    reward: Option<Vec<Rewards>>,
}

/// Rewards of a response: one number, or several of which some may be absent.
struct Rewards(Vec<Option<f64>>);

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Totals {
    tokens: Option<usize>,
    responses: Option<usize>,
    pairs: Option<usize>,
    chosen_tokens: Option<usize>,
    groups: Option<usize>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Answer {
    Evaluated {
        loss: f64,
        cotangents: BTreeMap<&'static str, BTreeMap<&'static str, Ragged>>,
        metrics: BTreeMap<&'static str, f64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        state: Option<ObjectiveState>,
    },
    Refused {
        error: String,
    },
}

/// A line's columns, concatenated over sides and responses.
#[derive(Default)]
struct Flat {
    statistics: TokenStatistics,
    constants: TokenConstants,
    responses: Vec<Response>,
    /// The responses of each side.
    sides: Vec<(&'static str, Range<usize>)>,
}

/// Answers a line: an evaluation, or an error that names the field.
///
/// # Errors
///
/// An answer that cannot be written as JSON.
pub(crate) fn answer(line: &[u8]) -> serde_json::Result<String> {
    let answer = evaluate(line).unwrap_or_else(|error| Answer::Refused { error: format!("{error:#}") });
    serde_json::to_string(&answer)
}

fn evaluate(line: &[u8]) -> anyhow::Result<Answer> {
    let question: Question = strict_json::from_slice_with_path(line)?;

    let configured = Configured::try_from(question.objective).context("objective")?;
    let objective = configured.objective();
    let requirements = objective.requirements();
    let wanted: &[&str] = match requirements.data {
        Data::Demonstrations => &["chosen"],
        Data::Preferences => &["chosen", "rejected"],
        Data::Labelled { mismatched: false } => &["labelled"],
        Data::Labelled { mismatched: true } => &["labelled", "mismatched"],
        Data::Groups => &["groups"],
        Data::Rollouts => &["rollouts"],
    };
    let data: &str = requirements.data.into();
    let mut flat = Flat::default();
    for (name, side) in [
        ("chosen", question.chosen),
        ("rejected", question.rejected),
        ("labelled", question.labelled),
        ("mismatched", question.mismatched),
        ("groups", question.groups),
        ("rollouts", question.rollouts),
    ] {
        match (side, wanted.contains(&name)) {
            (Some(side), true) => flat.append(name, side, &requirements)?,
            (Some(_), false) => bail!("{name}: not used by an objective over {data}; it reads {}", wanted.join(", ")),
            (None, _) => {}
        }
    }
    for name in wanted {
        let given = flat.sides.iter().any(|(side, _)| side == name);
        ensure!(given, "{name}: missing; the objective learns from {data}");
    }

    let pairs: Vec<_> = match (requirements.data, &*flat.sides) {
        (Data::Preferences, [(_, chosen), (_, rejected)]) => {
            let (count, given) = (chosen.len(), rejected.len());
            ensure!(count == given, "rejected.log_prob: expected {count} responses, one a pair, got {given}");
            chosen.clone().zip(rejected.clone()).map(|(chosen, rejected)| Pair { chosen, rejected }).collect()
        }
        _ => Vec::new(),
    };
    let (own, given) = (StepTotals::of(&flat.responses, &pairs), question.totals);
    let totals = StepTotals {
        tokens: given.tokens.unwrap_or(own.tokens),
        responses: given.responses.unwrap_or(own.responses),
        pairs: given.pairs.unwrap_or(own.pairs),
        chosen_tokens: given.chosen_tokens.unwrap_or(own.chosen_tokens),
        groups: given.groups.unwrap_or(own.groups),
    };

    let Flat { statistics, constants, responses, sides } = &flat;
    let columns = TokenColumns { statistics, constants, responses, pairs: &pairs };
    let (mut fresh, mut state, mut evaluation) = (ObjectiveState::default(), question.state, Evaluation::default());
    let mut evaluate = |state: &mut ObjectiveState| {
        evaluation.update(objective, state, &columns, totals).map_err(|error| name_side(error, sides))
    };
    if state != fresh {
        evaluate(&mut fresh)?;
        check_state("state", &state, &fresh)?;
    }
    evaluate(&mut state)?;

    let columns = |side: Range<usize>| {
        let ragged =
            |column: &[f64]| responses[side.clone()].iter().map(|r| column[r.tokens.clone()].to_vec()).collect();
        let column = |s: Statistic| (s.name(), ragged(evaluation.cotangents().column(s)));
        requirements.statistics.iter().map(column).collect()
    };
    Ok(Answer::Evaluated {
        loss: evaluation.loss,
        cotangents: sides.iter().map(|(name, side)| (*name, columns(side.clone()))).collect(),
        metrics: evaluation.metrics.iter().collect(),
        state: (state != ObjectiveState::default()).then_some(state),
    })
}

/// Rejects a state with parts that the objective does not keep.
fn check_state(name: &str, given: &ObjectiveState, kept: &ObjectiveState) -> anyhow::Result<()> {
    ensure!(given.rewards.is_empty() || !kept.rewards.is_empty(), "{name}.rewards: not used by this objective");
    let (count, expected) = (given.terms.len(), kept.terms.len());
    ensure!(count == 0 || expected > 0, "{name}.terms: not used by this objective");
    ensure!(count == 0 || count == expected, "{name}.terms: expected {expected}, one a term, got {count}");
    for (place, (given, kept)) in given.terms.iter().zip(&kept.terms).enumerate() {
        check_state(&format!("{name}.terms[{place}]"), given, kept)?;
    }
    Ok(())
}

/// Renumbers the response of an error: batches number responses through all sides, lines within one side.
fn name_side(mut error: BatchError, sides: &[(&str, Range<usize>)]) -> anyhow::Error {
    if let BatchError::Value { response, .. }
    | BatchError::Reward { response, .. }
    | BatchError::Feedback { response, .. }
    | BatchError::Group { response, .. } = &mut error
        && let Some((name, side)) = sides.iter().find(|(_, side)| side.contains(response))
    {
        *response -= side.start;
        return anyhow::anyhow!("{name}.{error}");
    }
    error.into()
}

impl Flat {
    /// Appends one side's columns.
    fn append(&mut self, name: &'static str, side: Side, requirements: &Requirements) -> anyhow::Result<()> {
        let Side { weight, columns, desirable, group, reward } = side;
        let name_of_statistic = requirements.statistics.iter().map(Statistic::name);
        let name_of_constant = (requirements.constants - Constant::Reward).iter().map(Constant::name);
        let required: Vec<_> = name_of_statistic.chain(name_of_constant).collect();
        for column in columns.keys() {
            ensure!(
                required.contains(&column.as_str()),
                "{name}.{column}: not used by this objective; it reads {}",
                required.join(", ")
            );
        }
        for &column in &required {
            ensure!(columns.contains_key(column), "{name}.{column}: missing");
        }

        // Every objective reads a statistic.
        let measure = required[0];
        let lengths: Vec<_> = columns[measure].iter().map(Vec::len).collect();
        ensure!(!lengths.is_empty(), "{name}.{measure}: expected at least one response, got none");
        for (column, ragged) in &columns {
            let (count, expected) = (ragged.len(), lengths.len());
            ensure!(count == expected, "{name}.{column}: expected {expected} responses as in {measure}, got {count}");
            // One advantage may stand for all tokens of its response.
            if column == Constant::Advantage.name() && name == "groups" && ragged.iter().all(|row| row.len() == 1) {
                continue;
            }
            for (response, (tokens, expected)) in ragged.iter().map(Vec::len).zip(&lengths).enumerate() {
                ensure!(
                    tokens == *expected,
                    "{name}.{column}[{response}]: expected {expected} numbers as in {measure}, got {tokens}"
                );
            }
        }
        let rewarded = requirements.constants.contains(Constant::Reward);
        for (key, given, allowed) in [
            ("desirable", desirable.is_some(), name == "labelled"),
            ("group", group.is_some(), requirements.grouped),
            ("reward", reward.is_some(), rewarded),
        ] {
            ensure!(!given || allowed, "{name}.{key}: not used by this objective");
        }
        let first = self.responses.len();
        let feedback: Vec<_> = match name {
            "labelled" => {
                let label = |desirable| if desirable { Feedback::Desirable } else { Feedback::Undesirable };
                one_each(name, "desirable", desirable, &lengths)?.into_iter().map(label).collect()
            }
            "groups" if requirements.grouped => {
                one_each(name, "group", group, &lengths)?.into_iter().map(Feedback::Group).collect()
            }
            other => {
                let feedback = if other == "mismatched" { Feedback::Mismatched } else { Feedback::None };
                vec![feedback; lengths.len()]
            }
        };
        if rewarded {
            let rewards = one_each(name, "reward", reward, &lengths)?;
            self.constants.reward = flat_rewards(name, &rewards)?;
        }
        for (&length, feedback) in lengths.iter().zip(feedback) {
            ensure!(length > 0, "{name}.{measure}: expected at least one token in every response, got an empty one");
            let start = self.responses.last().map_or(0, |response| response.tokens.end);
            self.responses.push(Response { tokens: start..start + length, feedback });
        }
        for statistic in EnumSet::all() & requirements.statistics {
            self.statistics.column_mut(statistic).extend(columns[statistic.name()].iter().flatten());
        }
        for constant in requirements.constants - Constant::Reward {
            self.constants.column_mut(constant).extend(columns[constant.name()].iter().flatten());
        }
        if weight.is_some() {
            let weighted = requirements.weights && !["rejected", "mismatched"].contains(&name);
            ensure!(weighted, "{name}.weight: not used by this objective");
            self.constants.weight = one_each(name, "weight", weight, &lengths)?;
        }
        if !self.constants.weight.is_empty() {
            self.constants.weight.resize(self.responses.len(), 1.0);
        }
        self.sides.push((name, first..self.responses.len()));
        Ok(())
    }
}

/// Rewards of all responses, concatenated; NaN for absent ones.
fn flat_rewards(side: &str, rewards: &[Rewards]) -> anyhow::Result<Vec<f64>> {
    let expected = rewards[0].0.len();
    ensure!(expected > 0, "{side}.reward[0]: expected at least one number, got none");
    let mut flat = Vec::with_capacity(expected * rewards.len());
    for (response, Rewards(own)) in rewards.iter().enumerate() {
        let given = own.len();
        ensure!(
            given == expected,
            "{side}.reward[{response}]: expected {expected} numbers as in the first, got {given}"
        );
        flat.extend(own.iter().map(|reward| reward.unwrap_or(f64::NAN)));
    }
    Ok(flat)
}

/// Checks that a list has one entry per response.
fn one_each<T>(side: &str, key: &str, given: Option<Vec<T>>, lengths: &[usize]) -> anyhow::Result<Vec<T>> {
    let given = given.with_context(|| format!("{side}.{key}: missing"))?;
    let (expected, count) = (lengths.len(), given.len());
    ensure!(count == expected, "{side}.{key}: expected {expected} entries, one a response, got {count}");
    Ok(given)
}

impl<'de> Deserialize<'de> for Side {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Columns;

        impl<'de> Visitor<'de> for Columns {
            type Value = Side;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("columns by name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Side, A::Error> {
                let mut side = Side::default();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "weight" => side.weight = Some(map.next_value()?),
                        "desirable" => side.desirable = Some(map.next_value()?),
                        "group" => side.group = Some(map.next_value()?),
                        "reward" => side.reward = Some(map.next_value()?),
                        _ => drop(side.columns.insert(key, map.next_value()?)),
                    }
                }
                Ok(side)
            }
        }

        deserializer.deserialize_map(Columns)
    }
}

impl<'de> Deserialize<'de> for Rewards {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Numbers;

        impl<'de> Visitor<'de> for Numbers {
            type Value = Rewards;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a reward, or a list of rewards of which null abstains")
            }

            fn visit_f64<E: serde::de::Error>(self, reward: f64) -> Result<Rewards, E> {
                Ok(Rewards(vec![Some(reward)]))
            }

            fn visit_u64<E: serde::de::Error>(self, reward: u64) -> Result<Rewards, E> {
                self.visit_f64(reward as f64)
            }

            fn visit_i64<E: serde::de::Error>(self, reward: i64) -> Result<Rewards, E> {
                self.visit_f64(reward as f64)
            }

            fn visit_unit<E: serde::de::Error>(self) -> Result<Rewards, E> {
                Ok(Rewards(vec![None]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut rewards: A) -> Result<Rewards, A::Error> {
                let mut several = Vec::new();
                while let Some(reward) = rewards.next_element()? {
                    several.push(reward);
                }
                Ok(Rewards(several))
            }
        }

        deserializer.deserialize_any(Numbers)
    }
}
