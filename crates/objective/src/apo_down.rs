//! Anchored preference optimisation: both down, the rejected further.
//!
//! # Formula
//!
//! With a = β s_w and b = β s_l the implicit rewards, mean over the step's pairs:
//!
//! L = σ(a) + 1 − σ(a − b)
//!
//! Cotangent: ∂L/∂a = σ(a) σ(−a) − σ(a − b) σ(b − a), ∂L/∂b = σ(a − b) σ(b − a).
//!
//! # Source
//!
//! K. D'Oosterlinck et al., "Anchored Preference Optimization and Contrastive Revisions", arXiv 2408.06266, equation 8.
//!
//! # Departures
//!
//! None. It suits chosen responses that are worse than the policy's own.
//!
//! # Examples
//!
//! At the reference, a = b = 0: L = 1, and the two pulls on the chosen response cancel.
//!
//! ```
//! use objective::preference::{PairLoss, Scores};
//!
//! let scores = Scores { chosen: 0.0, rejected: 0.0, chosen_tokens: 1.0 };
//! let gradient = objective::apo_down::ApoDown.loss(1.0, &scores);
//! assert!((gradient.loss - 1.0).abs() < 1e-6);
//! assert!((gradient.chosen - 0.0).abs() < 1e-6);
//! assert!((gradient.rejected - 0.25).abs() < 1e-6);
//! ```

use crate::method::Method;
use crate::numerics::sigmoid;
use crate::parameter::{ParameterError, Reader};
use crate::preference::{BETA, PairGradient, PairLoss, Scores, WEIGHTING, build};

/// The registry's line.
pub const METHOD: Method = Method {
    name: "apo_down",
    summary: "both lowered, the rejected more than the chosen",
    source: "arXiv 2408.06266, equation 8",
    parameters: &[BETA, WEIGHTING],
    build: build::<ApoDown>,
};

/// Anchored preference optimisation.
///
/// Once the pair is far apart, only the chosen response is still moved, and it is lowered:
///
/// ```
/// use objective::preference::{PairLoss, Scores};
///
/// let scores = Scores { chosen: 0.0, rejected: -40.0, chosen_tokens: 1.0 };
/// let gradient = objective::apo_down::ApoDown.loss(1.0, &scores);
/// assert_eq!(gradient.chosen, 0.25);
/// assert!((0.0..1e-17).contains(&gradient.rejected));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ApoDown;

impl PairLoss for ApoDown {
    const METHOD: Method = METHOD;

    fn read(_reader: &Reader<'_>, _beta: f64) -> Result<Self, ParameterError> {
        Ok(Self)
    }

    fn loss(&self, beta: f64, scores: &Scores) -> PairGradient {
        let (a, margin) = (beta * scores.chosen, beta * (scores.chosen - scores.rejected));
        let (anchor, contrast) = (sigmoid(a) * sigmoid(-a), sigmoid(margin) * sigmoid(-margin));
        PairGradient {
            loss: sigmoid(a) + sigmoid(-margin),
            chosen: beta * (anchor - contrast),
            rejected: beta * contrast,
        }
    }
}
