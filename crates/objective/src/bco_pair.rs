//! Binary classifier optimisation on pairs, without a reward shift.
//!
//! # Formula
//!
//! With a = β s_w and b = β s_l the implicit rewards, mean over the step's pairs:
//!
//! L = −log σ(a) − log σ(−b)
//!
//! Cotangent: ∂L/∂a = −σ(−a), ∂L/∂b = σ(b).
//!
//! # Source
//!
//! S. Jung et al., "Binary Classifier Optimization for Large Language Model Alignment", arXiv 2404.04656, with its reward
//! shift at 0; as TRL's `bco_pair`.
//!
//! # Departures
//!
//! None.
//!
//! # Examples
//!
//! At the reference, a = b = 0: L = 2 ln 2.
//!
//! ```
//! use objective::preference::{PairLoss, Scores};
//!
//! let scores = Scores { chosen: 0.0, rejected: 0.0, chosen_tokens: 1.0 };
//! let gradient = objective::bco_pair::BcoPair::new(1.0)?.loss(&scores);
//! assert!((gradient.loss - (2.0 * 2.0_f64.ln())).abs() < 1e-6);
//! assert!((gradient.chosen - (-0.5)).abs() < 1e-6);
//! assert!((gradient.rejected - (0.5)).abs() < 1e-6);
//! # Ok::<(), objective::ParameterError>(())
//! ```

use crate::method::Method;
use crate::numerics::{sigmoid, softplus};
use crate::parameter::{ParameterError, Reader};
use crate::preference::{BETA, PairGradient, PairLoss, Score, Scores, build};

/// The registry's line.
pub const METHOD: Method = Method {
    name: "bco_pair",
    summary: "chosen classified as desirable, rejected as undesirable",
    source: "arXiv 2404.04656",
    parameters: &[BETA],
    build: build::<BcoPair>,
};

/// Binary classifier optimisation on pairs, without a reward shift.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BcoPair {
    beta: f64,
}

impl BcoPair {
    /// Binary classifier optimisation with β, per nat.
    ///
    /// # Errors
    ///
    /// [`ParameterError::Invalid`] for a value out of its range.
    pub fn new(beta: f64) -> Result<Self, ParameterError> {
        Ok(Self { beta: BETA.check(METHOD.name, beta)? })
    }
}

impl PairLoss for BcoPair {
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
        let (a, b) = (self.beta * scores.chosen, self.beta * scores.rejected);
        PairGradient {
            loss: softplus(-a) + softplus(b),
            chosen: -self.beta * sigmoid(-a),
            rejected: self.beta * sigmoid(b),
        }
    }
}
