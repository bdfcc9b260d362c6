//! Numbers behind a stop-gradient.

use crate::evaluation::Metrics;

/// Numbers that a loss treats as constants, though they depend on the policy: weights, baselines, advantages.
///
/// [`Objective::hold`](crate::Objective::hold) computes them, and [`Objective::loss`](crate::Objective::loss) is
/// differentiable in the statistics at fixed held numbers. A stop-gradient is therefore a number that can be printed,
/// and central differences at fixed held numbers check every cotangent.
///
/// Dynamic fine-tuning weights each token by its own probability:
///
/// ```
/// use objective::{Demonstrations, Sft, Side, TokenWeighting};
///
/// let mut sft = Sft { weighting: TokenWeighting::Dft, ..Sft::default() }.evaluator()?;
/// sft.evaluate(&Demonstrations(Side { log_prob: &[0.0, 0.5_f64.ln()], ..Side::of(&[2]) }))?;
/// assert_eq!(sft.held().tokens, [1.0, 0.5]);
/// Ok::<(), objective::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Held {
    /// Numbers of tokens, in the order of the columns. Empty unless the objective needs them.
    pub tokens: Vec<f64>,
    /// Numbers of responses, of pairs or of the step, in their order. Empty unless the objective needs them.
    pub responses: Vec<f64>,
    /// Metrics of the held numbers.
    pub metrics: Metrics,
    /// Held numbers of a sum's terms.
    pub terms: Vec<Held>,
    /// Scratch numbers for objectives that need further buffers while they compute held numbers.
    pub(crate) scratch: Vec<f64>,
    /// Scratch indices for objectives that sort while they compute held numbers.
    pub(crate) order: Vec<usize>,
}

impl Held {
    /// Empties all buffers and keeps their memory.
    pub(crate) fn clear(&mut self) {
        self.tokens.clear();
        self.responses.clear();
        self.metrics = Metrics::default();
        self.terms.iter_mut().for_each(Held::clear);
    }
}
