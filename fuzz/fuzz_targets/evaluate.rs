//! Whatever the parameters and the batch, once they are validated: no panic, no infinity, no not-a-number.

#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use objective::{
    Data, Evaluation, METHODS, Pair, Parameters, Response, Statistic, StepTotals, TokenBatch, TokenConstants,
    TokenStatistics, Value,
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
    let parameters: Parameters = method
        .parameters
        .iter()
        .zip(&input.parameters)
        .filter_map(|(parameter, value)| {
            let value = match parameter.kind {
                objective::parameter::Kind::Choice { options, .. } => {
                    Value::from(options[(*value)?.abs() as usize % options.len()])
                }
                _ => Value::Number((*value)?),
            };
            Some((parameter.name.to_owned(), value))
        })
        .collect();
    let Ok(objective) = (method.build)(&parameters) else { return };
    let requirements = objective.requirements();

    let mut end = 0;
    let responses: Vec<_> = input
        .lengths
        .iter()
        .map(|&length| {
            end += usize::from(length);
            Response { tokens: end - usize::from(length)..end }
        })
        .collect();
    let pairs: Vec<_> = match requirements.data {
        Data::Demonstrations => Vec::new(),
        Data::Preferences => (0..responses.len() / 2).map(|p| Pair { chosen: 2 * p, rejected: 2 * p + 1 }).collect(),
    };
    let mut values = input.values.iter().copied().cycle();
    let mut column = || values.by_ref().take(end).collect::<Vec<f64>>();
    let (mut statistics, mut constants) = (TokenStatistics::default(), TokenConstants::default());
    for &statistic in requirements.statistics {
        let sign = if statistic == Statistic::ReferenceKl { 1.0 } else { -1.0 };
        *statistics.column_mut(statistic) = column().iter().map(|value| sign * value.abs()).collect();
    }
    for &constant in requirements.constants {
        *constants.column_mut(constant) = column().iter().map(|value| -value.abs()).collect();
    }
    let own = StepTotals::of(&responses, &pairs);
    let [tokens, responses_more, pairs_more] = input.totals.map(usize::from);
    let totals = StepTotals {
        tokens: own.tokens + tokens,
        responses: own.responses + responses_more,
        pairs: own.pairs + pairs_more,
    };
    let Ok(batch) = TokenBatch::new(&requirements, &statistics, &constants, &responses, &pairs, totals) else { return };

    let mut evaluation = Evaluation::default();
    objective.evaluate(&batch, &mut evaluation);
    assert!(evaluation.loss.is_finite(), "{objective:?}: {evaluation:?}");
    for &statistic in Statistic::ALL {
        assert!(evaluation.cotangents.column(statistic).iter().all(|c| c.is_finite()), "{objective:?}: {evaluation:?}");
    }
    assert!(evaluation.metrics.iter().all(|(_, value)| value.is_finite()), "{objective:?}: {evaluation:?}");
});
