//! For all validated parameters and batches, an evaluation neither panics nor returns an infinite or undefined number.

#![no_main]

use std::ops::RangeInclusive;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use objective::parameter::Kind;
use objective::{
    Constant, Coupling, Data, Evaluation, Feedback, METHODS, ObjectiveState, Pair, Parameters, Response, StepTotals,
    TokenColumns, TokenConstants, TokenStatistics, Value,
};

#[derive(Debug, Arbitrary)]
struct Input {
    method: u8,
    /// A number or the place of a choice for each parameter, if given.
    parameters: Vec<Option<f64>>,
    lengths: Vec<u8>,
    values: Vec<f64>,
    totals: [u16; 3],
}

fuzz_target!(|input: Input| {
    let method = &METHODS[usize::from(input.method) % METHODS.len()];
    let parameters: Parameters = (method.parameters)()
        .iter()
        .zip(&input.parameters)
        .filter_map(|(parameter, value)| {
            let value = (*value)?;
            let place = value.abs() as usize;
            let value = match parameter.kind {
                Kind::Choice { options, .. } => Value::from(options[place % options.len()]),
                Kind::Switch { .. } => Value::Switch(value > 0.0),
                Kind::Terms { .. } => {
                    let named = |place: usize| {
                        Parameters::from([("name".to_owned(), METHODS[place % METHODS.len()].name.into())])
                    };
                    Value::Terms(vec![named(place), named(place / METHODS.len())])
                }
                Kind::Number { .. } | Kind::Derived { .. } | Kind::Count { .. } => Value::Number(value),
            };
            Some((parameter.name.to_owned(), value))
        })
        .collect();
    let Ok(objective) = (method.build)(&parameters) else { return };
    let requirements = objective.requirements();

    let mut end = 0;
    let mut values = input.values.iter().copied().cycle();
    let responses: Vec<_> = input
        .lengths
        .iter()
        .enumerate()
        .map(|(index, &length)| {
            end += usize::from(length);
            let feedback = match (requirements.data, index % 3) {
                (Data::Groups, _) => Feedback::Group(index / 3),
                (Data::Labelled { .. }, 0) => Feedback::Desirable,
                (Data::Labelled { mismatched: true }, 1) => Feedback::Mismatched,
                (Data::Labelled { .. }, _) => Feedback::Undesirable,
                _ => Feedback::None,
            };
            Response { tokens: end - usize::from(length)..end, feedback }
        })
        .collect();
    let pairs: Vec<_> = match requirements.data {
        Data::Preferences => (0..responses.len() / 2).map(|p| Pair { chosen: 2 * p, rejected: 2 * p + 1 }).collect(),
        _ => Vec::new(),
    };
    // Numbers of the wrong sign are turned, so that most batches are valid.
    let mut column = |range: RangeInclusive<f64>| -> Vec<f64> {
        let turned = |value: f64| if range.contains(&value) { value } else { -value };
        values.by_ref().take(end).map(turned).collect()
    };
    let (mut statistics, mut constants) = (TokenStatistics::default(), TokenConstants::default());
    for statistic in requirements.statistics {
        *statistics.column_mut(statistic) = column(statistic.range());
    }
    for constant in requirements.constants - Constant::Reward {
        *constants.column_mut(constant) = column(constant.range());
    }
    if requirements.constants.contains(Constant::Reward) {
        let each = requirements.rewards.unwrap_or(1);
        constants.reward = values.take(each * responses.len()).collect();
    }
    let own = StepTotals::of(&responses, &pairs);
    let [tokens, responses_more, pairs_more] = match requirements.coupling {
        Coupling::None => input.totals.map(usize::from),
        Coupling::Step => [0; 3],
    };
    let totals = StepTotals {
        tokens: own.tokens + tokens,
        responses: own.responses + responses_more,
        pairs: own.pairs + pairs_more,
        chosen_tokens: own.chosen_tokens + tokens,
        groups: own.groups,
    };
    let columns = TokenColumns { statistics: &statistics, constants: &constants, responses: &responses, pairs: &pairs };
    let (mut state, mut evaluation) = (ObjectiveState::default(), Evaluation::default());
    if evaluation.update(&*objective, &mut state, &columns, totals).is_err() {
        return;
    }
    assert!(evaluation.loss.is_finite(), "{objective:?}: {evaluation:?}");
    for statistic in requirements.statistics {
        assert!(evaluation.cotangents.column(statistic).iter().all(|c| c.is_finite()), "{objective:?}: {evaluation:?}");
    }
    assert!(evaluation.metrics.iter().all(|(_, value)| value.is_finite()), "{objective:?}: {evaluation:?}");
});
