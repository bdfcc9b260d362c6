//! Validation of batches, after which no objective can fail.

use std::ops::RangeInclusive;

use enumset::EnumSet;

use crate::batch::{BatchError, Feedback, Layout, Pair, Response, StepTotals};
use crate::columns::{Constant, Side};
use crate::requirements::{Coupling, Data, Requirements};

/// Checks a batch against the requirements of an objective. Returns the totals of the step: the given ones, or the
/// batch's own.
///
/// # Errors
///
/// [`BatchError`] for the first fault.
pub(crate) fn check(
    requirements: &Requirements,
    layout: &Layout<'_>,
    totals: Option<StepTotals>,
) -> Result<StepTotals, BatchError> {
    let Layout { sides, names, first_responses, responses, pairs, .. } = layout;
    let own = check_responses(names, *first_responses, responses, pairs)?;
    let data = requirements.data;
    match data {
        Data::Preferences if pairs.is_empty() => {
            return Err(BatchError::Pairs { data, expected: "at least one", given: 0 });
        }
        Data::Preferences => {}
        _ if !pairs.is_empty() => {
            return Err(BatchError::Pairs { data, expected: "none", given: pairs.len() });
        }
        _ => {}
    }
    check_feedback(data, requirements.grouped, responses)?;
    let (first, second) = responses.split_at(*first_responses);
    check_weight(requirements.weights, sides, first.len())?;
    for (name, side, responses) in [(names[0], &sides[0], first), (names[1], &sides[1], second)] {
        check_side(requirements, name, side, responses)?;
    }
    let whole = requirements.coupling == Coupling::Step;
    let totals = totals.unwrap_or(own);
    for (field, own, given) in [
        ("tokens", own.tokens, totals.tokens),
        ("responses", own.responses, totals.responses),
        ("pairs", own.pairs, totals.pairs),
        ("chosen_tokens", own.chosen_tokens, totals.chosen_tokens),
        ("groups", own.groups, totals.groups),
    ] {
        if given < own || (whole && given != own) {
            return Err(BatchError::Totals { field, whole, own, given });
        }
    }
    Ok(totals)
}

/// Checks that responses follow one another, and that pairs refer to two of them. Returns the batch's own counts.
fn check_responses(
    sides: &[&'static str; 2],
    first: usize,
    responses: &[Response],
    pairs: &[Pair],
) -> Result<StepTotals, BatchError> {
    if responses.is_empty() {
        return Err(BatchError::NoResponse);
    }
    let mut end = 0;
    for (index, Response { tokens, .. }) in responses.iter().enumerate() {
        if tokens.is_empty() {
            let (side, response) = if index < first { (sides[0], index) } else { (sides[1], index - first) };
            return Err(BatchError::EmptyResponse { side, response });
        }
        if tokens.start != end {
            return Err(BatchError::Gap { response: index, expected: end, given: tokens.clone() });
        }
        end = tokens.end;
    }
    for (index, &Pair { chosen, rejected }) in pairs.iter().enumerate() {
        if chosen.max(rejected) >= responses.len() || chosen == rejected {
            return Err(BatchError::Pair { pair: index, responses: responses.len(), chosen, rejected });
        }
    }
    Ok(StepTotals::of(responses, pairs))
}

/// Checks that responses have feedback of the data's kind, and that each kind that the loss needs occurs.
fn check_feedback(data: Data, grouped: bool, responses: &[Response]) -> Result<(), BatchError> {
    let expected = match data {
        Data::Demonstrations | Data::Preferences | Data::Rollouts => "no feedback",
        Data::Labelled { mismatched: false } => "desirable or undesirable",
        Data::Labelled { mismatched: true } => "desirable, undesirable or mismatched",
        Data::Groups if grouped => "a group",
        Data::Groups => "a group or no feedback",
    };
    let mut least = 0;
    for (response, &Response { feedback: given, .. }) in responses.iter().enumerate() {
        let fits = match (data, given) {
            (Data::Demonstrations | Data::Preferences | Data::Rollouts, Feedback::None) => true,
            (Data::Labelled { .. }, Feedback::Desirable | Feedback::Undesirable) => true,
            (Data::Labelled { mismatched }, Feedback::Mismatched) => mismatched,
            (Data::Groups, Feedback::Group(group)) => {
                if group < least {
                    return Err(BatchError::Group { response, least, given: group });
                }
                least = group;
                true
            }
            (Data::Groups, Feedback::None) => !grouped,
            _ => false,
        };
        if !fits {
            return Err(BatchError::Feedback { response, data, expected, given });
        }
    }
    if !responses.iter().any(Response::is_learned) {
        return Err(BatchError::Missing { expected: "desirable or undesirable response" });
    }
    if data == (Data::Labelled { mismatched: true }) && responses.iter().all(Response::is_learned) {
        return Err(BatchError::Missing { expected: "mismatched response" });
    }
    Ok(())
}

/// Checks the weights of the first side's responses, if any are given and the objective reads them.
fn check_weight(read: bool, sides: &[Side<'_>; 2], responses: usize) -> Result<(), BatchError> {
    for (side, expected) in sides.iter().zip([if read { responses } else { 0 }, 0]) {
        let given = side.weight.len();
        if given > 0 && given != expected {
            return Err(BatchError::Count { field: "weight", expected, each: "a response that is weighted", given });
        }
    }
    let column = Column { side: "", name: Constant::Weight.name(), values: sides[0].weight };
    column.check_values(Constant::Weight.range(), |response| (response, 0))
}

/// Checks the columns of one side: required columns have one number per token, and no others are given.
fn check_side(
    requirements: &Requirements,
    name: &'static str,
    side: &Side<'_>,
    responses: &[Response],
) -> Result<(), BatchError> {
    for statistic in EnumSet::all() {
        let required = requirements.statistics.contains(statistic);
        let column = Column { side: name, name: statistic.name(), values: side.statistic(statistic) };
        column.check(statistic.range(), required, responses)?;
    }
    for constant in EnumSet::all() - Constant::Weight {
        let required = requirements.constants.contains(constant);
        let column = Column { side: name, name: constant.name(), values: side.constant(constant) };
        if constant == Constant::Reward {
            column.check_rewards(required, requirements.rewards, responses.len())?;
        } else if constant == Constant::Advantage && required && column.values.len() == responses.len() {
            column.check_values(constant.range(), |place| (place, 0))?;
        } else {
            column.check(constant.range(), required, responses)?;
        }
    }
    Ok(())
}

struct Column<'a> {
    side: &'static str,
    name: &'static str,
    values: &'a [f64],
}

impl Column<'_> {
    fn check(self, range: RangeInclusive<f64>, required: bool, responses: &[Response]) -> Result<(), BatchError> {
        let begin = responses.first().map_or(0, |response| response.tokens.start);
        let tokens = responses.last().map_or(0, |response| response.tokens.end) - begin;
        let expected = if required { tokens } else { 0 };
        let Self { side, name: column, values } = self;
        if values.len() != expected {
            return Err(BatchError::Length { side, column, expected, given: values.len() });
        }
        self.check_values(range, |place| {
            let response = responses.partition_point(|response| response.tokens.end - begin <= place);
            (response, place + begin - responses[response].tokens.start)
        })
    }

    /// Checks that every response has the same number of rewards, and that each is a permitted number or NaN for an
    /// absent one.
    fn check_rewards(self, required: bool, each: Option<usize>, responses: usize) -> Result<(), BatchError> {
        let Self { side, name: column, values } = self;
        let given = values.len();
        // The second side has no rewards.
        if !required || responses == 0 {
            return match given {
                0 => Ok(()),
                _ => Err(BatchError::Length { side, column, expected: 0, given }),
            };
        }
        let as_many = given > 0 && given.checked_rem(responses) == Some(0);
        if !as_many || each.is_some_and(|each| given != each.saturating_mul(responses)) {
            return Err(BatchError::Rewards { each, responses, given });
        }
        let range = Constant::Reward.range();
        match values.iter().position(|value| !value.is_nan() && !range.contains(value)) {
            None => Ok(()),
            Some(place) => {
                let (least, most) = range.into_inner();
                Err(BatchError::Reward { response: place / (given / responses), least, most, given: values[place] })
            }
        }
    }

    /// Checks the values; `locate` returns the response and the token of a position.
    fn check_values(
        self,
        range: RangeInclusive<f64>,
        locate: impl Fn(usize) -> (usize, usize),
    ) -> Result<(), BatchError> {
        let Self { side, name: column, values } = self;
        // Without an early exit, the check takes as long as reading the column.
        if values.iter().fold(true, |valid, value| valid & range.contains(value)) {
            return Ok(());
        }
        let Some(place) = values.iter().position(|value| !range.contains(value)) else { return Ok(()) };
        let (response, token) = locate(place);
        let (least, most) = range.into_inner();
        Err(BatchError::Value { side, column, response, token, least, most, given: values[place] })
    }
}
