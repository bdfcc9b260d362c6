//! Anchored preference optimisation: the chosen up, the rejected down.
//!
//! # Formula
//!
//! With a = β s_w and b = β s_l the implicit rewards, mean over the step's pairs:
//!
//! L = 1 − σ(a) + σ(b)
//!
//! Cotangent: ∂L/∂a = −σ(a) σ(−a), ∂L/∂b = σ(b) σ(−b).
//!
//! # Source
//!
//! K. D'Oosterlinck et al., "Anchored Preference Optimization and Contrastive Revisions", arXiv 2408.06266, equation 7.
//!
//! # Departures
//!
//! None. It suits chosen responses that are better than the policy's own.
//!
//! # Examples
//!
//! At the reference, a = b = 0: L = 1.
//!
//! ```
//! use objective::preference::{PairLoss, Scores};
//!
//! let scores = Scores { chosen: 0.0, rejected: 0.0, chosen_tokens: 1.0 };
//! let gradient = objective::apo_zero::ApoZero.loss(1.0, &scores);
//! assert!((gradient.loss - 1.0).abs() < 1e-6);
//! assert!((gradient.chosen + 0.25).abs() < 1e-6);
//! assert!((gradient.rejected - 0.25).abs() < 1e-6);
//! ```

use crate::method::Method;
use crate::numerics::sigmoid;
use crate::parameter::{ParameterError, Reader};
use crate::preference::{BETA, PairGradient, PairLoss, Scores, WEIGHTING, build};

/// The registry's line.
pub const METHOD: Method = Method {
    name: "apo_zero",
    summary: "chosen raised and rejected lowered, each by itself",
    source: "arXiv 2408.06266, equation 7",
    parameters: &[BETA, WEIGHTING],
    build: build::<ApoZero>,
};

/// Anchored preference optimisation.
///
/// The pull on the chosen response does not depend on the rejected one:
///
/// ```
/// use objective::preference::{PairLoss, Scores};
///
/// let pulls = [0.0, -40.0].map(|rejected| {
///     objective::apo_zero::ApoZero.loss(1.0, &Scores { chosen: 0.0, rejected, chosen_tokens: 1.0 }).chosen
/// });
/// assert_eq!(pulls, [-0.25, -0.25]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ApoZero;

impl PairLoss for ApoZero {
    const METHOD: Method = METHOD;

    fn read(_reader: &Reader<'_>, _beta: f64) -> Result<Self, ParameterError> {
        Ok(Self)
    }

    fn loss(&self, beta: f64, scores: &Scores) -> PairGradient {
        let (a, b) = (beta * scores.chosen, beta * scores.rejected);
        PairGradient {
            loss: sigmoid(-a) + sigmoid(b),
            chosen: -beta * sigmoid(a) * sigmoid(-a),
            rejected: beta * sigmoid(b) * sigmoid(-b),
        }
    }
}
