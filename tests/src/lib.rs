//! What the tests share: ragged batches, central differences, and the oracles' answers.

use objective::{
    Constant, Data, Evaluation, Objective, Pair, Requirements, Response, Statistic, StepTotals, TokenBatch,
    TokenConstants, TokenStatistics,
};
use serde_json::Value;

/// An owned batch, to be perturbed, split and reordered.
#[derive(Clone, Debug)]
pub struct OwnedBatch {
    /// Differentiable columns.
    pub statistics: TokenStatistics,
    /// The other columns.
    pub constants: TokenConstants,
    /// Responses; for preferences the chosen ones first, in the order of the pairs.
    pub responses: Vec<Response>,
    /// Pairs.
    pub pairs: Vec<Pair>,
    /// Counts of the whole step.
    pub totals: StepTotals,
}

/// One token: log-probabilities of the policy and of the reference, and the divergence between them, nats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Token {
    /// log π.
    pub log_prob: f64,
    /// log π_ref.
    pub reference_log_prob: f64,
    /// KL(π_ref || π).
    pub reference_kl: f64,
}

/// One response.
pub type Tokens = Vec<Token>;

impl Token {
    /// A token of which only the log-probability matters.
    pub fn new(log_prob: f64) -> Self {
        Self { log_prob, reference_log_prob: -1.0, reference_kl: 0.5 }
    }
}

impl OwnedBatch {
    /// Demonstrations, or pairs of the first and second half of the responses, with the columns that are required.
    pub fn new(requirements: &Requirements, responses: &[Tokens]) -> Self {
        let flat = || responses.iter().flatten();
        let mut end = 0;
        let ranges: Vec<_> = responses
            .iter()
            .map(|tokens| {
                end += tokens.len();
                Response { tokens: end - tokens.len()..end }
            })
            .collect();
        let half = responses.len() / 2;
        let pairs = match requirements.data {
            Data::Demonstrations => Vec::new(),
            Data::Preferences => (0..half).map(|pair| Pair { chosen: pair, rejected: half + pair }).collect(),
        };
        let (mut statistics, mut constants) = (TokenStatistics::default(), TokenConstants::default());
        for &statistic in requirements.statistics {
            statistics.column_mut(statistic).extend(flat().map(|token| match statistic {
                Statistic::LogProb => token.log_prob,
                Statistic::ReferenceKl => token.reference_kl,
            }));
        }
        for &constant in requirements.constants {
            constants.column_mut(constant).extend(flat().map(|token| match constant {
                Constant::ReferenceLogProb => token.reference_log_prob,
            }));
        }
        Self { totals: StepTotals::of(&ranges, &pairs), statistics, constants, responses: ranges, pairs }
    }

    /// The objective's answer.
    pub fn evaluate(&self, objective: &dyn Objective) -> Evaluation {
        let Self { statistics, constants, responses, pairs, totals } = self;
        let requirements = objective.requirements();
        let batch = TokenBatch::new(&requirements, statistics, constants, responses, pairs, *totals).unwrap();
        let mut evaluation = Evaluation::default();
        objective.evaluate(&batch, &mut evaluation);
        evaluation
    }
}

/// The derivative of `f` at `x` by central differences of fourth order.
pub fn central_difference(f: impl Fn(f64) -> f64, x: f64, step: f64) -> f64 {
    let near = f(x + step) - f(x - step);
    let far = f(x + 2.0 * step) - f(x - 2.0 * step);
    (8.0 * near - far) / (12.0 * step)
}

/// The error to expect in a central difference of something that is rounded at this magnitude.
pub fn rounding(magnitude: f64, step: f64) -> f64 {
    32.0 * f64::EPSILON * magnitude / step
}

/// The oracle of this name.
pub fn oracle(name: &str) -> Value {
    let path = format!("{}/oracles/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// A list of numbers.
pub fn numbers(value: &Value) -> Vec<f64> {
    serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{error}: {value}"))
}

/// Asserts that numbers agree to a relative error, with an absolute one for those that ought to be 0.
pub fn assert_close(ours: &[f64], theirs: &[f64], relative: f64, absolute: f64, what: &str) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    for (index, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        let error = (ours - theirs).abs();
        assert!(error <= relative * theirs.abs() + absolute, "{what} [{index}]: {ours:e}, expected {theirs:e}");
    }
}
