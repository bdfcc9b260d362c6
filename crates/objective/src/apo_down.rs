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
//! let gradient = objective::apo_down::ApoDown::new(1.0)?.loss(&scores);
//! assert!((gradient.loss - (1.0)).abs() < 1e-6);
//! assert!((gradient.chosen - (0.0)).abs() < 1e-6);
//! assert!((gradient.rejected - (0.25)).abs() < 1e-6);
//! # Ok::<(), objective::ParameterError>(())
//! ```

use crate::method::Method;
use crate::numerics::sigmoid;
use crate::parameter::{ParameterError, Reader};
use crate::preference::{BETA, PairGradient, PairLoss, Score, Scores, build};

/// The registry's line.
pub const METHOD: Method = Method {
    name: "apo_down",
    summary: "both lowered, the rejected more than the chosen",
    source: "arXiv 2408.06266, equation 8",
    parameters: &[BETA],
    build: build::<ApoDown>,
};

/// Anchored preference optimisation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ApoDown {
    beta: f64,
}

impl ApoDown {
    /// Anchored preference optimisation with β, per nat.
    ///
    /// # Errors
    ///
    /// [`ParameterError::Invalid`] for a value out of its range.
    pub fn new(beta: f64) -> Result<Self, ParameterError> {
        Ok(Self { beta: BETA.check(METHOD.name, beta)? })
    }
}

impl PairLoss for ApoDown {
    const METHOD: Method = METHOD;

    fn read(reader: &Reader<'_>) -> Result<Self, ParameterError> {
        Self::new(reader.number(&BETA)?)
    }

    fn beta(&self) -> f64 {
        self.beta
    }

    fn score(&self) -> Score {
        Score::LOG_RATIO
    }

    fn loss(&self, scores: &Scores) -> PairGradient {
        let (a, margin) = (self.beta * scores.chosen, self.beta * (scores.chosen - scores.rejected));
        let (anchor, contrast) = (sigmoid(a) * sigmoid(-a), sigmoid(margin) * sigmoid(-margin));
        PairGradient {
            loss: sigmoid(a) + sigmoid(-margin),
            chosen: self.beta * (anchor - contrast),
            rejected: self.beta * contrast,
        }
    }
}
