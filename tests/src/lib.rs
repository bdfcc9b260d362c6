//! What the tests share: ragged batches, central differences, and the oracles' answers.

use objective::{
    Data, Evaluation, Objective, Pair, Requirements, Response, StepTotals, TokenBatch, TokenConstants, TokenStatistics,
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

/// One response: log-probabilities of the policy and of the reference.
pub type Tokens = Vec<(f64, f64)>;

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
        let reference =
            if requirements.constants.is_empty() { Vec::new() } else { flat().map(|token| token.1).collect() };
        Self {
            totals: StepTotals::of(&ranges, &pairs),
            statistics: TokenStatistics { log_prob: flat().map(|token| token.0).collect() },
            constants: TokenConstants { reference_log_prob: reference },
            responses: ranges,
            pairs,
        }
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

/// The derivative of `f` at `x` by central differences of fourth order, and the rounding error to expect in it.
pub fn central_difference(f: impl Fn(f64) -> f64, x: f64, step: f64) -> (f64, f64) {
    let near = f(x + step) - f(x - step);
    let far = f(x + 2.0 * step) - f(x - 2.0 * step);
    ((8.0 * near - far) / (12.0 * step), 32.0 * f64::EPSILON * f(x).abs() / step)
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
