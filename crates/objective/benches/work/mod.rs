//! A step of any method, for the benchmarks.

use std::ops::RangeInclusive;

use objective::{
    Constant, Data, Evaluation, Feedback, Method, Objective, ObjectiveState, Pair, Parameters, Response, StepTotals,
    TokenColumns, TokenConstants, TokenStatistics,
};

/// Lengths and values from a linear congruential generator: the benchmark needs variety, not randomness.
struct Variety(u64);

impl Variety {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// An objective with a step's data and buffers.
pub(crate) struct Work {
    objective: Box<dyn Objective>,
    statistics: TokenStatistics,
    constants: TokenConstants,
    responses: Vec<Response>,
    pairs: Vec<Pair>,
    /// Counts of the step.
    pub(crate) totals: StepTotals,
    state: ObjectiveState,
    evaluation: Evaluation,
}

/// Groups of sixteen responses; alternating labels, and mismatched responses if they are required.
fn feedback(data: Data, index: usize) -> Feedback {
    match (data, index % 4) {
        (Data::Groups, _) => Feedback::Group(index / 16),
        (Data::Labelled { .. }, 0) => Feedback::Desirable,
        (Data::Labelled { .. }, 1) | (Data::Labelled { mismatched: false }, _) => Feedback::Undesirable,
        (Data::Labelled { mismatched: true }, _) => Feedback::Mismatched,
        _ => Feedback::None,
    }
}

impl Work {
    /// A method with these parameters, and a step of at least this many tokens in responses of 16 to 512.
    pub(crate) fn new(method: &Method, parameters: &Parameters, tokens: usize) -> Self {
        let objective = (method.build)(parameters).unwrap();
        let requirements = objective.requirements();
        let mut variety = Variety(1);
        let mut responses: Vec<Response> = Vec::new();
        while responses.len() % 2 == 1 || responses.last().is_none_or(|last| last.tokens.end < tokens) {
            let start = responses.last().map_or(0, |last| last.tokens.end);
            let tokens = start..start + 16 + (497.0 * variety.next()) as usize;
            responses.push(Response { tokens, feedback: feedback(requirements.data, responses.len()) });
        }
        let end = responses.last().map_or(0, |last| last.tokens.end);
        // Log-probabilities of policies that are a little apart, and everything else around 0.
        let log_prob: Vec<_> = (0..end).map(|_| -0.1 - 3.0 * variety.next()).collect();
        let mut column = |range: RangeInclusive<f64>| -> Vec<f64> {
            match (*range.start() < 0.0, *range.end() > 0.0) {
                (true, true) => (0..end).map(|_| 2.0 * variety.next() - 1.0).collect(),
                (false, _) => (0..end).map(|_| 0.01 + 3.0 * variety.next()).collect(),
                (true, false) => {
                    log_prob.iter().map(|log_prob| (log_prob + 0.2 * (variety.next() - 0.5)).min(0.0)).collect()
                }
            }
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
            constants.reward = (0..each * responses.len()).map(|_| variety.next()).collect();
        }
        let pairs = match requirements.data {
            Data::Preferences => {
                (0..responses.len() / 2).map(|p| Pair { chosen: 2 * p, rejected: 2 * p + 1 }).collect()
            }
            _ => Vec::new(),
        };
        let totals = StepTotals::of(&responses, &pairs);
        let (state, evaluation) = (ObjectiveState::default(), Evaluation::default());
        Self { objective, statistics, constants, responses, pairs, totals, state, evaluation }
    }

    /// Validates the step and evaluates it.
    pub(crate) fn evaluate(&mut self) -> f64 {
        let Self { objective, statistics, constants, responses, pairs, totals, state, evaluation } = self;
        let columns = TokenColumns { statistics, constants, responses, pairs };
        evaluation.update(objective, state, &columns, *totals).unwrap();
        evaluation.loss
    }
}
