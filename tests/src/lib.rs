//! Code that the tests share: ragged batches, central differences, the oracles' answers, and the program.

pub mod command;

use enumset::EnumSet;
use objective::{
    Constant, Data, Evaluation, Feedback, Held, Objective, ObjectiveState, Pair, Requirements, Response, Statistic,
    StepTotals, TokenColumns, TokenConstants, TokenStatistics,
};
use serde_json::Value;

/// An owned batch that tests can perturb, split and reorder.
#[derive(Clone, Debug)]
pub struct OwnedBatch {
    /// Differentiable columns.
    pub statistics: TokenStatistics,
    /// Constant columns.
    pub constants: TokenConstants,
    /// Responses; for preferences the chosen ones first, in the order of the pairs.
    pub responses: Vec<Response>,
    /// Pairs of responses.
    pub pairs: Vec<Pair>,
    /// Counts of the whole step.
    pub totals: StepTotals,
    /// State of the objective before the step.
    pub state: ObjectiveState,
}

/// One token: a number for every column.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Token {
    /// Log-probability log π, nats.
    pub log_prob: f64,
    /// Log-probability log π_ref, nats.
    pub reference_log_prob: f64,
    /// Divergence KL(π_ref || π), nats.
    pub reference_kl: f64,
    /// Log-probability log π of the behaviour policy, nats.
    pub behaviour_log_prob: f64,
    /// Number for the columns value, behaviour value and reward.
    pub value: f64,
    /// Number for the columns advantage and return.
    pub advantage: f64,
}

/// One response.
pub type Tokens = Vec<Token>;

impl Token {
    /// A token with this log-probability and other numbers that do not matter.
    pub fn new(log_prob: f64) -> Self {
        Self {
            log_prob,
            reference_log_prob: -1.0,
            reference_kl: 0.5,
            behaviour_log_prob: -1.5,
            value: 0.25,
            advantage: 0.75,
        }
    }

    fn statistic(&self, statistic: Statistic) -> f64 {
        match statistic {
            Statistic::LogProb => self.log_prob,
            Statistic::ReferenceKl | Statistic::Entropy | Statistic::TeacherDivergence => self.reference_kl,
            Statistic::Value | Statistic::Score => self.value,
            // At least twice the log-probability of a token that may have been drawn, and within the column's range.
            Statistic::LogSumSquareProb => self.reference_log_prob.max(2.0 * self.log_prob).max(-64.0),
        }
    }

    fn constant(&self, constant: Constant) -> f64 {
        match constant {
            Constant::ReferenceLogProb | Constant::TeacherLogProb => self.reference_log_prob,
            Constant::BehaviourLogProb => self.behaviour_log_prob,
            Constant::RolloutLogProb => 0.5 * self.behaviour_log_prob,
            Constant::BehaviourValue => 0.5 * self.value,
            Constant::Advantage | Constant::Return | Constant::Reward => self.advantage,
            Constant::Weight => 1.0,
        }
    }
}

impl OwnedBatch {
    /// A whole step of an even number of responses, with the required columns: the first half is paired with the
    /// second, labels alternate, and groups of three have their first value as reward.
    pub fn new(requirements: &Requirements, responses: &[Tokens]) -> Self {
        let flat = || responses.iter().flatten();
        let mut end = 0;
        let ranges: Vec<_> = responses
            .iter()
            .enumerate()
            .map(|(index, tokens)| {
                end += tokens.len();
                let feedback = match (requirements.data, index % 4) {
                    (Data::Labelled { .. }, 0) => Feedback::Desirable,
                    (Data::Labelled { mismatched: true }, 1 | 3) => Feedback::Mismatched,
                    (Data::Labelled { .. }, _) => Feedback::Undesirable,
                    (Data::Groups, _) => Feedback::Group(index / 3),
                    _ => Feedback::None,
                };
                Response { tokens: end - tokens.len()..end, feedback }
            })
            .collect();
        let half = responses.len() / 2;
        let pairs = match requirements.data {
            Data::Preferences => (0..half).map(|pair| Pair { chosen: pair, rejected: half + pair }).collect(),
            _ => Vec::new(),
        };
        let (mut statistics, mut constants) = (TokenStatistics::default(), TokenConstants::default());
        for statistic in requirements.statistics {
            statistics.column_mut(statistic).extend(flat().map(|token| token.statistic(statistic)));
        }
        for constant in requirements.constants - Constant::Reward {
            constants.column_mut(constant).extend(flat().map(|token| token.constant(constant)));
        }
        if requirements.constants.contains(Constant::Reward) {
            let first = |tokens: &Tokens| tokens.first().map_or(0.0, |token| token.value);
            let each = requirements.rewards.unwrap_or(1);
            constants.reward =
                responses.iter().flat_map(|tokens| (0..each).map(|number| first(tokens) - number as f64)).collect();
        }
        let (totals, state) = (StepTotals::of(&ranges, &pairs), ObjectiveState::default());
        Self { totals, statistics, constants, responses: ranges, pairs, state }
    }

    /// A part of the step with these responses, in this order; if there are pairs, its first half is paired with the
    /// second. Groups are numbered anew.
    pub fn select(&self, responses: &[usize]) -> Self {
        let (mut statistics, mut constants) = (TokenStatistics::default(), TokenConstants::default());
        let (mut selected, mut groups) = (Vec::<Response>::new(), Vec::new());
        for &index in responses {
            let Response { tokens, mut feedback } = self.responses[index].clone();
            for statistic in EnumSet::<Statistic>::all() {
                let column = self.statistics.column(statistic);
                statistics.column_mut(statistic).extend(column.get(tokens.clone()).unwrap_or_default());
            }
            let each = self.constants.reward.len() / self.responses.len();
            constants.reward.extend(&self.constants.reward[index * each..(index + 1) * each]);
            constants.weight.extend(self.constants.weight.get(index));
            for constant in EnumSet::<Constant>::all() - (Constant::Reward | Constant::Weight) {
                let column = self.constants.column(constant);
                constants.column_mut(constant).extend(column.get(tokens.clone()).unwrap_or_default());
            }
            if let Feedback::Group(group) = &mut feedback {
                if groups.last() != Some(group) {
                    groups.push(*group);
                }
                *group = groups.len() - 1;
            }
            let begin = selected.last().map_or(0, |last| last.tokens.end);
            selected.push(Response { tokens: begin..begin + tokens.len(), feedback });
        }
        let half = if self.pairs.is_empty() { 0 } else { responses.len() / 2 };
        let pairs = (0..half).map(|pair| Pair { chosen: pair, rejected: half + pair }).collect();
        Self { statistics, constants, responses: selected, pairs, totals: self.totals, state: self.state.clone() }
    }

    /// Evaluates an objective on the batch.
    pub fn evaluate(&self, objective: &dyn Objective) -> Evaluation {
        let mut evaluation = Evaluation::default();
        self.evaluate_into(objective, &mut evaluation);
        evaluation
    }

    /// Evaluates an objective on the batch, into a buffer.
    pub fn evaluate_into(&self, objective: &dyn Objective, evaluation: &mut Evaluation) {
        evaluation.update(objective, &mut self.state.clone(), &self.columns(), self.totals).unwrap();
    }

    /// Evaluates an objective with the held numbers of another evaluation.
    pub fn evaluate_held(&self, objective: &dyn Objective, held: &Held) -> Evaluation {
        let mut evaluation = Evaluation::default();
        evaluation.update_held(objective, held, &self.columns(), self.totals).unwrap();
        evaluation
    }

    /// Borrows the batch.
    pub fn columns(&self) -> TokenColumns<'_> {
        let Self { statistics, constants, responses, pairs, .. } = self;
        TokenColumns { statistics, constants, responses, pairs }
    }
}

/// The derivative of `f` at `x` by central differences of fourth order.
pub fn central_difference(f: impl Fn(f64) -> f64, x: f64, step: f64) -> f64 {
    let near = f(x + step) - f(x - step);
    let far = f(x + 2.0 * step) - f(x - 2.0 * step);
    (8.0 * near - far) / (12.0 * step)
}

/// Expected error of a central difference of values that are rounded at this magnitude.
pub fn rounding(magnitude: f64, step: f64) -> f64 {
    32.0 * f64::EPSILON * magnitude / step
}

/// Recorded answers of this name.
pub fn oracle(name: &str) -> Value {
    let path = format!("{}/oracles/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// A list of numbers.
pub fn numbers(value: &Value) -> Vec<f64> {
    serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{error}: {value}"))
}

/// Asserts that numbers agree to a relative error, or to an absolute one for numbers that should be 0.
pub fn assert_close(ours: &[f64], theirs: &[f64], relative: f64, absolute: f64, what: &str) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    for (index, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        let error = (ours - theirs).abs();
        assert!(error <= relative * theirs.abs() + absolute, "{what} [{index}]: {ours:e}, expected {theirs:e}");
    }
}
